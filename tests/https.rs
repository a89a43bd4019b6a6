//! A repository behind https: a private certificate authority, tokens and passwords, and a server
//! that is silent or refuses connections.

#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use std::path::PathBuf;

use serde_json::Value;

use support::{Behaviour, DOMAIN, GitServer, SOON, Site, eventually, unwrapped};

const TOKEN: &str = "a-secret-token";

/// A Deployment of one pod whose answers begin with `answer`, behind a node port.
fn shop(answer: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: shop}}
spec:
  selector: {{matchLabels: {{app: shop}}}}
  template:
    metadata: {{labels: {{app: shop}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{{name: app, image: 'windlass-test/app:1', env: [{{name: APP, value: {answer}}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: shop}}
spec:
  type: NodePort
  selector: {{app: shop}}
  ports: [{{port: 80, targetPort: 8080, nodePort: 30086}}]
"
    )
}

/// A site with a signed commit, and the server of its repository, which may require credentials.
fn site(authorization: Option<(&str, &str)>) -> (Site, GitServer) {
    let site = Site::new("");
    site.repo
        .replace_signed(&[("shop.yaml", &shop("first"))], "open the shop");
    let server = GitServer::start(
        site.repo.path().parent().unwrap(),
        &site.host.network,
        authorization,
    );
    (site, server)
}

/// Writes a secret into a file of the host; returns the file's path.
fn secret(site: &Site, name: &str, value: &str) -> PathBuf {
    let path = site.host.dir().join(name);
    std::fs::write(&path, format!("{value}\n")).unwrap();
    path
}

/// Starts the daemon so that it follows the server, with more keys for `[source]`.
fn follow(site: &mut Site, server: &GitServer, more: &str) {
    let url = server.url("repo.git");
    site.configure(&format!(
        "[source]\nurl = '{url}'\ndeadline = '3s'\npoll = '1s'\n{more}"
    ));
    site.start();
}

fn ca_file(server: &GitServer) -> String {
    format!("ca-file = '{}'\n", server.ca_file().display())
}

/// Waits until the published error of the source contains a text; returns the whole status.
fn wait_error(site: &mut Site, text: &str) -> Value {
    site.wait_status(
        &format!("the error of the source contains {text:?}"),
        |status| {
            status["source"]["error"]
                .as_str()
                .is_some_and(|error| error.contains(text))
        },
    )
}

fn wait_shop(site: &Site, answer: &str) {
    site.wait_url(&site.url(30086, "/"), &format!("{answer} shop-"));
}

#[test]
fn a_wrong_token_is_reported_and_the_correct_token_deploys() {
    let (mut site, server) = site(Some(("git", TOKEN)));
    let wrong = secret(&site, "wrong-token", "not-the-token");
    follow(
        &mut site,
        &server,
        &format!("{}token-file = '{}'\n", ca_file(&server), wrong.display()),
    );
    let status = wait_error(
        &mut site,
        "refused the credentials: the server did not accept them",
    );
    assert_eq!(status["source"]["fetched"], Value::Null);
    let text = unwrapped(&site.host.windlass(&["status"]).ok());
    assert!(
        text.contains("check the configured token") && !text.contains("not-the-token"),
        "{text}"
    );
    assert!(
        !site.log().contains("not-the-token"),
        "the log contains the token"
    );
    site.stop();

    let right = secret(&site, "token", TOKEN);
    follow(
        &mut site,
        &server,
        &format!("{}token-file = '{}'\n", ca_file(&server), right.display()),
    );
    site.wait_status("the commit is healthy", |status| {
        status["phase"] == "Healthy"
    });
    wait_shop(&site, "first");

    // A later commit is fetched by the poll.
    site.repo
        .replace_signed(&[("shop.yaml", &shop("second"))], "change the shop");
    wait_shop(&site, "second");
    let everything = site.host.windlass(&["status", "-o", "json"]).ok() + &site.log();
    assert!(
        !everything.contains(TOKEN),
        "the status or the log contains the token"
    );
}

#[test]
fn the_servers_name_is_resolved_by_the_hosts_name_services() {
    let (mut site, server) = site(None);
    // Once by the file, once by DNS alone.
    let (by_file, by_dns) = (format!("file.{DOMAIN}"), format!("dns.{DOMAIN}"));
    let dns = server.serve_name(&by_dns);
    let script = format!(
        "echo 'hosts: files dns' >/etc/nsswitch.conf
        echo 'nameserver {dns}' >/etc/resolv.conf
        echo '{dns} {by_file}' >/etc/hosts"
    );
    site.host.exec(&["sh", "-c", &script]).ok();

    let follow = |site: &mut Site, name: &str| {
        let url = server.url_by(name, "repo.git");
        let source = format!("[source]\nurl = '{url}'\npoll = '1s'\n{}", ca_file(&server));
        site.configure(&source);
        site.start();
    };
    follow(&mut site, &by_file);
    wait_shop(&site, "first");
    site.stop();
    site.repo
        .replace_signed(&[("shop.yaml", &shop("second"))], "change the shop");
    follow(&mut site, &by_dns);
    wait_shop(&site, "second");
    site.stop();

    follow(&mut site, &format!("nowhere.{DOMAIN}"));
    wait_error(&mut site, &format!("cannot reach https://nowhere.{DOMAIN}"));
}

#[test]
fn a_user_with_a_password_deploys() {
    let (mut site, server) = site(Some(("deployer", "it's: a pässword")));
    let password = secret(&site, "password", "it's: a pässword");
    let more = format!(
        "{}user = 'deployer'\npassword-file = '{}'\n",
        ca_file(&server),
        password.display()
    );
    follow(&mut site, &server, &more);
    site.wait_status("the commit is healthy", |status| {
        status["phase"] == "Healthy"
    });
    wait_shop(&site, "first");
}

#[test]
fn a_server_with_a_certificate_of_an_unknown_authority_is_not_trusted() {
    let (mut site, server) = site(None);
    follow(&mut site, &server, "");
    let status = wait_error(&mut site, "is not proven");
    assert!(
        status["source"]["error"]
            .as_str()
            .unwrap()
            .contains("configure its CA file"),
        "{status}"
    );
    assert_eq!(site.list("pods").len(), 0);
    assert_eq!(
        server.requests(),
        0,
        "a request was sent to a server that is not trusted"
    );
}

#[test]
fn missing_credentials_are_reported() {
    let (mut site, server) = site(Some(("git", TOKEN)));
    follow(&mut site, &server, &ca_file(&server));
    wait_error(
        &mut site,
        "it requires credentials, and none are configured",
    );
}

#[test]
fn pods_keep_running_while_the_server_is_silent_or_refuses_connections() {
    let (mut site, server) = site(None);
    follow(&mut site, &server, &ca_file(&server));
    site.wait_status("the commit is healthy", |status| {
        status["phase"] == "Healthy"
    });
    wait_shop(&site, "first");
    let containers = || site_containers(&site);
    let before = containers();

    server.set(Behaviour::Silent);
    let status = wait_error(&mut site, "took longer than 3 s and was stopped");
    let fetched = status["source"]["fetched"].clone();
    assert!(fetched.is_string(), "{status}");
    assert_eq!(status["phase"], "Healthy");

    server.set(Behaviour::Refuse);
    let status = wait_error(&mut site, "cannot reach https://192.168.77.1");
    assert_eq!(
        status["source"]["fetched"], fetched,
        "the time of the last fetch has changed without a fetch"
    );
    let text = unwrapped(&site.host.windlass(&["status"]).ok());
    assert!(
        text.contains("no answer for ") && text.contains("cannot reach"),
        "{text}"
    );

    // A container that is killed meanwhile is restarted, also by a daemon that started meanwhile.
    site.stop();
    site.start();
    site.host.docker(&["kill", &before[0]]);
    eventually(SOON, "the killed container is replaced", || {
        let now = site_containers(&site);
        now.len() == before.len() && now != before
    });
    wait_shop(&site, "first");
    let status = wait_error(&mut site, "cannot reach");
    assert_eq!(status["phase"], "Healthy", "{status}");

    site.repo
        .replace_signed(&[("shop.yaml", &shop("second"))], "change the shop");
    server.set(Behaviour::Serve);
    wait_shop(&site, "second");
    site.wait_status("the source has no error", |status| {
        status["source"]["error"].is_null()
    });
}

/// The ids of the application's running containers.
fn site_containers(site: &Site) -> Vec<String> {
    let ids = site.host.docker(&[
        "ps",
        "-q",
        "--no-trunc",
        "--filter",
        "label=io.windlass.container=app",
    ]);
    ids.lines().map(str::to_owned).collect()
}
