//! Cycles of a host that has converged change nothing.

use std::fs::{self, File};
use std::process::Stdio;

use crate::proxy::Requests;
use crate::sample::application;
use crate::support::{DATA_DIR, SOON, Site, eventually};

const PROXY: &str = "/run/recorded.sock";

/// The request that the daemon sends to the engine exactly once at each resync.
const LIST: &str = "/containers/json?";

#[test]
fn five_resyncs_with_nothing_to_do_change_nothing() {
    let mut site = Site::new(&format!(
        "[docker]\nsocket = '{PROXY}'\n[rollout]\nresync = '1s'\n[source]\npoll = '1s'\n"
    ));
    let requests = Requests::record(&site.host.path(PROXY), site.host.docker_socket());
    let secret = "apiVersion: v1
kind: Secret
metadata: {name: token}
stringData: {token: abc}
---
apiVersion: v1
kind: Pod
metadata: {name: probed}
spec:
  containers:
  - name: probed
    image: windlass-test/app:1
    readinessProbe: {httpGet: {path: /health, port: 8080}, periodSeconds: 1}
    livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
    volumeMounts: [{name: token, mountPath: /token}]
  volumes: [{name: token, secret: {secretName: token}}]
";
    let commit = site.push(
        &[
            ("web.yaml", &application("web", "web", "one")),
            ("probed.yaml", secret),
        ],
        "everything",
    );
    site.launch(&[]);
    site.wait_settled(&commit);
    site.wait_answer_inside("/", "web");
    assert!(
        requests
            .since(0)
            .iter()
            .any(|request| request.starts_with("POST ")),
        "the proxy has recorded no request of the deployment"
    );

    let monitors = ["nft monitor", "ip -o monitor link route address"].map(|command| {
        let log = site.host.dir().join(command.replace(' ', "-"));
        let words: Vec<&str> = command.split(' ').collect();
        let process = site
            .host
            .command(words[0])
            .args(&words[1..])
            .stdout(File::create(&log).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        (command, log, process)
    });
    let before = (requests.count(), files(&site), handles(&site));
    eventually(SOON, "five resyncs", || {
        requests
            .since(before.0)
            .iter()
            .filter(|request| request.contains(LIST))
            .count()
            >= 5
    });

    let changing: Vec<String> = requests
        .since(before.0)
        .into_iter()
        .filter(|request| !request.starts_with("GET ") && !request.starts_with("HEAD "))
        .collect();
    assert_eq!(changing, Vec::<String>::new());
    assert_eq!(files(&site), before.1, "files were written");
    assert_eq!(
        handles(&site),
        before.2,
        "the nftables table was written again"
    );
    for (command, log, mut process) in monitors {
        process.kill().unwrap();
        process.wait().unwrap();
        assert_eq!(
            fs::read_to_string(log).unwrap(),
            "",
            "{command} has observed a change"
        );
    }
}

/// Every file below the data directory, but those of the mirror, with its time and inode.
fn files(site: &Site) -> String {
    let script = format!(
        "find {DATA_DIR} -path '{DATA_DIR}/mirror.git*' -prune -o -type f -printf '%p %T@ %i\\n' | sort"
    );
    site.host.exec(&["sh", "-c", &script]).ok()
}

/// The nftables table with all handles, which change when a rule is written again.
fn handles(site: &Site) -> String {
    site.host
        .exec(&["nft", "-a", "list", "table", "ip", "windlass"])
        .ok()
}
