//! An unmodified kubectl as a client.

use std::{net::SocketAddr, path::Path, process::Stdio};

use tokio::process::Command;

use super::serve;
use crate::http::fixture::fixture;

/// Runs kubectl against the server, with a home of its own.
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
        let output = command.args(arguments.split_whitespace()).output().await.expect("kubectl is needed");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn explore() {
    let fixture = fixture();
    let kubectl = Kubectl { home: tempfile::tempdir().unwrap(), address: serve(&fixture).await };
    for arguments in [
        "version", "api-resources", "get pods", "get pods -o wide", "get pods -A", "get deploy,svc", "get all", "get rs -o wide", "get nodes -o wide",
        "get cm,secrets,ns,ep,endpointslices,events", "get svc web -o yaml", "get pod web-bbbbbbbbbb-c3333 -o yaml", "describe pod web-bbbbbbbbbb-c3333",
        "describe pod batch", "describe deploy web", "describe svc web", "describe node host-a", "describe rs", "describe secret db", "logs web-bbbbbbbbbb-b2222", "logs deploy/web", "logs batch", "logs batch -c httpd",
        "delete pod batch", "scale deploy web --replicas=3", "rollout restart deploy web", "rollout status deploy web --timeout=2s", "get pod nothing", "get jobs",
        "get pods --sort-by=.metadata.creationTimestamp", "get pods --show-labels", "get pods -l app=web -o name", "exec batch -- ls", "get pods -o custom-columns=N:.metadata.name,P:.status.phase",
        "get --raw /windlass/v1/status", "wait --for=condition=Ready pod/web-bbbbbbbbbb-b2222 --timeout=3s", "top pods", "auth can-i get pods", "explain pods",
        "get ns staging", "get events", "edit deploy web", "create ns foo", "get deploy web -o jsonpath={.status.readyReplicas}",
    ] {
        let (ok, text) = kubectl.run(arguments).await;
        println!("$ kubectl {arguments}   [{ok}]\n{text}");
    }
}
