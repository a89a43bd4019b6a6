//! Webhooks: with a poll interval of ten minutes, only an accepted webhook makes the daemon fetch
//! before.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use ring::hmac;

use crate::manifest::{APP, APP_2, pod, service};
use crate::support::{Outcome, SOON, Site, eventually, is};

const SECRET: &str = "it is no secret in a test";
const HOOK: &str = "http://127.0.0.1:9464/webhook";

/// `git http-backend` behind busybox' httpd on the host, with a file that has a line for every
/// request.
struct GitServer {
    process: Child,
    requests: PathBuf,
}

impl GitServer {
    fn start(site: &Site) -> GitServer {
        let dir = site.host.dir().join("git-server");
        fs::create_dir_all(dir.join("cgi-bin")).unwrap();
        let (script, requests) = (dir.join("cgi-bin/git"), dir.join("requests"));
        let root = site.repo.path().parent().unwrap().display().to_string();
        let text = format!(
            "#!/bin/sh\necho \"$REQUEST_METHOD $PATH_INFO\" >>{}\n\
             export GIT_PROJECT_ROOT={root} GIT_HTTP_EXPORT_ALL=1 GIT_CONFIG_GLOBAL=/dev/null\n\
             git http-backend >answer.$$\n\
             total=$(wc -c <answer.$$) head=$(sed '/^.$/q' answer.$$ | wc -c)\n\
             printf 'Connection: close\\r\\nContent-Length: %s\\r\\n' $((total - head))\n\
             cat answer.$$; rm answer.$$\n",
            requests.display(),
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(&requests, "").unwrap();
        let process = site
            .host
            .command("busybox")
            .args(["httpd", "-f", "-p", "127.0.0.1:8090", "-h"])
            .arg(&dir)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let server = GitServer { process, requests };
        eventually(SOON, "the server listens", || {
            site.host.http_get("http://127.0.0.1:8090/").is_some()
        });
        server
    }

    /// The number of fetches, each of which requests the branches once.
    fn fetches(&self) -> usize {
        let requests = fs::read_to_string(&self.requests).unwrap();
        requests
            .lines()
            .filter(|line| line.starts_with("GET ") && line.ends_with("/info/refs"))
            .count()
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// A daemon that has fetched once and would poll again in ten minutes.
fn start() -> (Site, GitServer) {
    let mut site = Site::new("");
    let server = GitServer::start(&site);
    let secret = site.host.dir().join("webhook-secret");
    fs::write(&secret, format!("{SECRET}\n")).unwrap();
    site.configure(&format!(
        "[source]\nurl = 'http://127.0.0.1:8090/cgi-bin/git/repo.git'\npoll = '10m'\n\
         [webhook]\nsecret-file = '{}'",
        secret.display()
    ));
    let first = site.push(
        &[
            ("web.yaml", &pod("web", APP)),
            ("service.yaml", &service("web")),
        ],
        "the first",
    );
    site.start();
    site.wait_healthy(&first);
    (site, server)
}

fn signature(body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let mut text = "sha256=".to_owned();
    for byte in hmac::sign(&key, body).as_ref() {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

/// Posts a body; returns the status code of the answer.
fn post(site: &Site, path: &str, headers: &[&str], body: &[u8]) -> u16 {
    let file = site.host.dir().join("body");
    fs::write(&file, body).unwrap();
    let data = format!("@{}", file.display());
    let url = format!("{HOOK}/{path}");
    let mut arguments = vec![
        "curl",
        "-s",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "--max-time",
        "10",
        "--data-binary",
        &data,
    ];
    for header in headers {
        arguments.extend(["-H", header]);
    }
    arguments.push(&url);
    // curl's exit code is not checked: the daemon may answer and close before a large body is sent,
    // which is an error for curl.
    site.host.exec(&arguments).stdout.parse().unwrap()
}

fn push_event(commit: &str) -> Vec<u8> {
    format!("{{\"ref\": \"refs/heads/main\", \"after\": \"{commit}\"}}").into_bytes()
}

#[test]
fn only_a_signed_webhook_for_the_branch_makes_the_daemon_fetch_at_once() {
    let (mut site, server) = start();
    let first = site.repo.head();
    assert_eq!(
        server.fetches(),
        1,
        "the daemon has fetched before the next poll"
    );

    let second = site.push(&[("web.yaml", &pod("web", APP_2))], "the second");
    let body = push_event(&second);
    let wrong = signature(b"another body");
    let github = ["X-GitHub-Event: push", "Content-Type: application/json"];
    let signed = format!("X-Hub-Signature-256: {}", signature(&body));
    let forged = format!("X-Hub-Signature-256: {wrong}");
    let large = vec![b' '; 10 * 1024 * 1024];
    let signed_large = format!("X-Hub-Signature-256: {}", signature(&large));
    let elsewhere = br#"{"ref": "refs/heads/elsewhere"}"#;
    let signed_elsewhere = format!("X-Hub-Signature-256: {}", signature(elsewhere));
    let ping = ["X-GitHub-Event: ping", &signed];
    for (what, path, headers, body, code) in [
        ("unsigned", "github", &github[..], &body[..], 401),
        (
            "wrongly signed",
            "github",
            &[github[0], &forged],
            &body,
            401,
        ),
        (
            "too large",
            "github",
            &[github[0], &signed_large],
            &large,
            413,
        ),
        (
            "too large and of unknown length",
            "github",
            &[github[0], &signed_large, "Transfer-Encoding: chunked"],
            &large,
            413,
        ),
        (
            "another branch",
            "github",
            &[github[0], &signed_elsewhere],
            elsewhere,
            200,
        ),
        ("no push", "github", &ping, &body, 200),
        ("unsigned", "generic", &[], &body, 401),
        (
            "with the other forge's header",
            "generic",
            &[&signed],
            &body,
            401,
        ),
        ("no such forge", "elsewhere", &[&signed], &body, 404),
    ] {
        let answer = post(&site, path, headers, body);
        // A client that still sends when the connection is closed may read "100 Continue" and lose
        // the answer after it. The daemon's counter below has the request.
        let lost = code == 413 && answer == 100;
        assert!(
            answer == code || lost,
            "{what}, {path}: the status is {answer}, not {code}"
        );
    }
    assert_eq!(
        server.fetches(),
        1,
        "a refused or irrelevant webhook made the daemon fetch"
    );
    assert!(is(&site.status()["head"]["id"], &first));

    assert_eq!(post(&site, "github", &[github[0], &signed], &body), 202);
    site.wait_healthy(&second);
    site.wait_answer("/", "app 2 web");
    let fetches = server.fetches();
    assert_eq!(fetches, 2);

    assert_eq!(
        post(&site, "github", &[github[0], &signed], &body),
        200,
        "a replayed webhook"
    );
    let generic = format!("X-Windlass-Signature: {}", signature(&body));
    assert_eq!(
        post(&site, "generic", &[&generic], &body),
        409,
        "a replayed webhook"
    );
    assert_eq!(
        server.fetches(),
        fetches,
        "a replayed webhook made the daemon fetch"
    );

    let third = site.push(&[("web.yaml", &pod("web", APP))], "the third");
    let body = push_event(&third);
    let generic = format!("X-Windlass-Signature: {}", signature(&body));
    assert_eq!(post(&site, "generic", &[&generic], &body), 202);
    site.wait_healthy(&third);

    for (result, count) in [
        ("accepted", 1.0),
        ("bad_signature", 1.0),
        ("too_large", 2.0),
        ("replayed", 1.0),
        ("unsigned", 1.0),
    ] {
        let name =
            format!("windlass_webhook_requests_total{{forge=\"github\",result=\"{result}\"}}");
        assert_eq!(site.metric(&name), count, "{name}");
    }
}

#[test]
fn a_flood_of_webhooks_is_limited_and_causes_few_fetches() {
    const FLOOD: usize = 1000;
    let (site, server) = start();
    let mut requests = String::new();
    for number in 0..FLOOD {
        let body = format!("push {number}");
        let next = if number == 0 { "" } else { "next\n" };
        writeln!(
            requests,
            "{next}url = \"{HOOK}/generic\"\nsilent\noutput = /dev/null\nwrite-out = \"%{{http_code}}\\n\"\n\
             data = \"{body}\"\nheader = \"X-Windlass-Signature: {}\"",
            signature(body.as_bytes())
        )
        .unwrap();
    }
    let file = site.host.dir().join("flood");
    fs::write(&file, requests).unwrap();
    let before = server.fetches();
    let began = std::time::Instant::now();
    let Outcome { stdout, .. } = site.host.exec(&[
        "curl",
        "-Z",
        "--parallel-max",
        "50",
        "-K",
        &file.display().to_string(),
    ]);
    let took = began.elapsed().as_secs();
    let count = |code: &str| stdout.lines().filter(|line| *line == code).count();
    let (accepted, limited) = (count("202"), count("429"));
    assert_eq!(
        accepted + limited,
        FLOOD,
        "{accepted} accepted, {limited} limited in {took} s"
    );
    assert!(
        accepted >= 100 && accepted <= 130 + 20 * took as usize,
        "{accepted} accepted in {took} s"
    );

    // The daemon fetches once at once, and then at most once a second.
    let limit = took as usize + 2;
    let fetches = || server.fetches() - before;
    eventually(SOON, "the daemon fetches", || fetches() > 0);
    site.host.exec(&["sleep", "2"]).ok();
    assert!(fetches() <= limit, "{} fetches in {took} s", fetches());
    // The application and the daemon's status are unaffected.
    assert_eq!(site.ask("/").unwrap().body, "app 1 web");
    assert!(is(&site.status()["phase"], "Healthy"));
}
