//! An unmodified kubectl as a client.

use std::{net::SocketAddr, path::Path, process::Stdio, sync::Arc, time::Duration};

use reconciler::{
    foreign,
    name::{NodeName, PodUid},
    state::PodPlace,
};
use runtime::LastOutput;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

use super::serve;
use crate::http::fixture::{self, fixture, running};

/// A kubectl command against the server, with a home directory of its own.
pub(in crate::http) fn command(home: &Path, server: &str) -> Command {
    let mut command = Command::new("kubectl");
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .arg("--server")
        .arg(server)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

struct Kubectl {
    home: tempfile::TempDir,
    address: SocketAddr,
}

impl Kubectl {
    async fn run(&self, arguments: &str) -> (bool, String) {
        let mut command = command(self.home.path(), &format!("http://{}", self.address));
        let output = command
            .args(arguments.split_whitespace())
            .output()
            .await
            .expect("kubectl is needed");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }
}

fn kubectl_at(address: SocketAddr) -> Kubectl {
    Kubectl {
        home: tempfile::tempdir().unwrap(),
        address,
    }
}

/// Reduces spaces to one between words, so that a line can be compared whatever the widths of its
/// columns are.
fn squeezed(text: &str) -> String {
    text.lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n")
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn get_shows_the_columns_of_a_cluster() {
    let fixture = fixture();
    let kubectl = kubectl_at(serve(&fixture).await);
    let cases = [
        ("get pods", "NAME READY STATUS RESTARTS AGE"),
        ("get pods", "batch 0/1 Init:0/1 0 60m"),
        ("get pods", "web-aaaaaaaaaa-a1111 1/1 Terminating 0 60m"),
        ("get pods", "web-bbbbbbbbbb-c3333 0/1 CrashLoopBackOff 2 ("),
        (
            "get pods -A",
            "default web-bbbbbbbbbb-b2222 1/1 Running 0 60m",
        ),
        (
            "get po -o wide",
            "web-bbbbbbbbbb-b2222 1/1 Running 0 60m 10.244.0.2 host-a <none> <none>",
        ),
        (
            "get pods -l app=web --show-labels",
            "1/1 Running 0 60m app=web,pod-template-hash=bbbbbbbbbb",
        ),
        ("get pods --sort-by=.metadata.name", "batch 0/1"),
        ("get deploy,svc", "deployment.apps/web 1/2 2 1 24h"),
        (
            "get deploy,svc",
            "service/web NodePort 10.96.0.11 <none> 80:30080/TCP 24h",
        ),
        ("get all", "pod/batch 0/1 Init:0/1 0 60m"),
        ("get all", "replicaset.apps/web-bbbbbbbbbb 2 2 1 60m"),
        (
            "get deploy -o wide",
            "web 1/2 2 1 24h httpd httpd:2.4.62 app=web",
        ),
        (
            "get nodes -o wide",
            "host-a Ready <none> 3d windlass-0.1.0 192.0.2.10",
        ),
        ("get cm,secret", "configmap/settings 2 24h"),
        ("get cm,secret", "secret/db Opaque 1 24h"),
        ("get ns staging", "staging Active 24h"),
        ("get ep", "web 10.244.0.2:80"),
        (
            "get events",
            "Warning BackOff pod/web-bbbbbbbbbb-c3333 httpd exited with 1",
        ),
        (
            "get pods -n elsewhere",
            "No resources found in elsewhere namespace.",
        ),
    ];
    for (arguments, line) in cases {
        let (ok, text) = kubectl.run(arguments).await;
        assert!(
            ok && squeezed(&text).contains(line),
            "kubectl {arguments}: {line}\n{text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_read_and_described() {
    let fixture = fixture();
    let kubectl = kubectl_at(serve(&fixture).await);
    let cases = [
        ("get pod batch -o yaml", "nodeName: host-a"),
        ("get deploy web -o jsonpath={.status.readyReplicas}", "1"),
        (
            "describe pod web-bbbbbbbbbb-c3333",
            "Controlled By: ReplicaSet/web-bbbbbbbbbb",
        ),
        ("describe pod web-bbbbbbbbbb-c3333", "Warning BackOff"),
        ("describe pod web-bbbbbbbbbb-c3333", "Port: 80/TCP"),
        (
            "describe deploy web",
            "NewReplicaSet: web-bbbbbbbbbb (2/2 replicas created)",
        ),
        ("describe rs", "Replicas: 2 current / 2 desired"),
        ("describe svc web", "Endpoints: 10.244.0.2:80"),
        ("describe node host-a", "Non-terminated Pods: (4 in total)"),
        ("describe secret db", "password: 0 bytes"),
        (
            "logs web-bbbbbbbbbb-b2222 --tail=10",
            "hello from httpd of 00000000-0000-4000-8000-000000000002",
        ),
        ("logs deploy/web", "hello from httpd"),
        (
            "wait --for=condition=Ready pod/web-bbbbbbbbbb-b2222 --timeout=5s",
            "condition met",
        ),
        (
            "api-resources",
            "deployments deploy apps/v1 true Deployment",
        ),
    ];
    for (arguments, line) in cases {
        let (ok, text) = kubectl.run(arguments).await;
        assert!(
            ok && squeezed(&text).contains(line),
            "kubectl {arguments}: {line}\n{text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn describe_and_events_show_what_a_failed_container_printed() {
    let fixture = fixture();
    let mut view = fixture::view();
    let uid = PodUid::new("00000000-0000-4000-8000-000000000003");
    let last = view.pods[&uid].containers[0].last.clone().unwrap();
    let output = LastOutput {
        finished: last.finished,
        ..fixture::output()
    };
    let long_ago = LastOutput {
        finished: view.at - Duration::from_secs(2 * 3600),
        container: "older".into(),
        ..fixture::output()
    };
    view.last_outputs = Arc::new(vec![output, long_ago]);
    fixture.publish.send(Arc::new(view)).unwrap();
    let kubectl = kubectl_at(serve(&fixture).await);

    let (ok, text) = kubectl.run("describe pod web-bbbbbbbbbb-c3333").await;
    let printed = r"reading the configuration\nfatal: no \u{1b}[1mkey";
    let text = squeezed(&text);
    assert!(
        ok && text.contains(&format!("Message: {printed}")),
        "{text}"
    );
    let event = format!("container httpd ended with exit code 1: {printed}");
    assert!(text.contains(&event), "{text}");
    assert!(!text.contains("container older"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn describe_and_events_fetch_what_a_container_of_another_host_printed() {
    let fixture = fixture();
    let mut view = fixture::view();
    let uid = PodUid::new("00000000-0000-4000-8000-000000000003");
    let state = Arc::make_mut(&mut view.state);
    let record = state.pods.get_mut(&uid).unwrap();
    record.place = PodPlace::Node(NodeName::new("host-b"));
    view.last_outputs = Arc::default();
    fixture.publish.send(Arc::new(view)).unwrap();
    let kubectl = kubectl_at(serve(&fixture).await);

    let (ok, text) = kubectl.run("describe pod web-bbbbbbbbbb-c3333").await;
    let text = squeezed(&text);
    assert!(ok && text.contains("Message: fatal on host-b"), "{text}");
    let event = "container httpd ended with exit code 1: fatal on host-b";
    assert!(text.contains(event), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_foreign_acts_on_the_terminal_of_kubectl() {
    let fixture = fixture();
    fixture
        .publish
        .send(Arc::new(fixture::unescaped()))
        .unwrap();
    let kubectl = kubectl_at(serve(&fixture).await);
    let cases = [
        (
            "describe pod web-bbbbbbbbbb-c3333",
            r"Message: x\u{1b}[2J\u{1b}]0;owned\u{7}\r\nforged\tline",
        ),
        ("describe node host-a", r"OS Image: x\u{1b}[2J"),
        ("get events", r"pod/web-bbbbbbbbbb-c3333 x\u{1b}[2J"),
        ("get nodes -o wide", r"\u{9b}1m\u{202e}y\u{200b}"),
        ("get pods", r"Oddx\u{1b}[2J"),
    ];
    for (arguments, shown) in cases {
        let (ok, text) = kubectl.run(arguments).await;
        assert!(
            ok && squeezed(&text).contains(shown),
            "kubectl {arguments}: {shown}\n{text}"
        );
        let strange = |c: char| foreign::is_unprintable(c) && c != '\t';
        let odd = text
            .lines()
            .find(|line| line.contains(strange) || line.trim_start().starts_with("forged"));
        assert!(odd.is_none(), "kubectl {arguments}: {odd:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_is_refused_in_words_that_help() {
    let fixture = fixture();
    let kubectl = kubectl_at(serve(&fixture).await);
    let commit = "Commit the change to https://git.example.com/site.git, branch main, and push";
    let cases = [
        ("delete pod batch", commit),
        ("scale deploy web --replicas=3", commit),
        ("create ns more", commit),
        ("rollout restart deploy web", "windlass restart KIND/NAME"),
        ("exec batch -c httpd -- ls", "Windlass does not serve exec"),
        ("get pod nothing", "pods \"nothing\" not found"),
        (
            "logs batch -c httpd",
            "is waiting to start: PodInitializing",
        ),
    ];
    for (arguments, message) in cases {
        let (ok, text) = kubectl.run(arguments).await;
        assert!(
            !ok && text.contains(message),
            "kubectl {arguments}: {message}\n{text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_prints_what_changes() {
    let fixture = fixture();
    let kubectl = kubectl_at(serve(&fixture).await);
    let mut command = command(kubectl.home.path(), &format!("http://{}", kubectl.address));
    command
        .args(["get", "pods", "--watch"])
        .stdout(Stdio::piped());
    let mut child = command.spawn().expect("kubectl is needed");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = Vec::new();
    let mut published = false;
    let watched = timeout(Duration::from_secs(30), async {
        while let Some(line) = lines.next_line().await.unwrap() {
            let line = squeezed(&line);
            if line.starts_with("web-bbbbbbbbbb-c3333 0/1") && !published {
                published = true;
                let mut view = fixture::view();
                Arc::make_mut(&mut view.pods).insert(
                    PodUid::new("00000000-0000-4000-8000-000000000003"),
                    running(3),
                );
                fixture.publish.send(Arc::new(view)).unwrap();
            }
            let done = line.starts_with("web-bbbbbbbbbb-c3333 1/1 Running");
            seen.push(line);
            if done {
                return;
            }
        }
    });
    watched
        .await
        .unwrap_or_else(|_| panic!("the change did not come: {seen:?}"));
    child.kill().await.unwrap();
    assert_eq!(seen[0], "NAME READY STATUS RESTARTS AGE\n");
}
