//! A real etcd on loopback, as the store of loops under test.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use etcd_client::{Client, GetOptions, KeyValue};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::store::EtcdConfig;

/// The prefix of the cluster's keys.
const PREFIX: &str = "/windlass/test";
/// Longer than etcd takes to start, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client of etcd.
pub(super) struct EtcdClient(Client);

/// One member of etcd; its process ends when the value is dropped.
pub(super) struct EtcdProcess {
    client: String,
    peer: String,
    data: TempDir,
    process: Option<Child>,
}

impl EtcdProcess {
    pub(super) fn new() -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap();
        // Both ports are held at the same time, so that they differ.
        let (one, other) = (free(), free());
        let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let (client, peer) = (url(&one), url(&other));
        drop((one, other));
        let mut etcd = Self {
            client,
            peer,
            data: tempfile::tempdir().unwrap(),
            process: None,
        };
        etcd.start();
        etcd
    }

    pub(super) fn start(&mut self) {
        let process = Command::new("etcd")
            .arg("--name=m0")
            .arg(format!("--data-dir={}", self.data.path().display()))
            .arg(format!("--listen-client-urls={}", self.client))
            .arg(format!("--advertise-client-urls={}", self.client))
            .arg(format!("--listen-peer-urls={}", self.peer))
            .arg(format!("--initial-advertise-peer-urls={}", self.peer))
            .arg(format!("--initial-cluster=m0={}", self.peer))
            .arg("--log-level=error")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.process = Some(process.expect("etcd is installed (Debian: etcd-server)"));
    }

    pub(super) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    pub(super) fn config(&self) -> EtcdConfig {
        EtcdConfig {
            endpoints: vec![self.client.clone()],
            prefix: PREFIX.to_owned(),
            tls: None,
            user: None,
        }
    }
}

impl EtcdProcess {
    /// A client of its own, as a person with `etcdctl` has; keys are without the prefix.
    pub(super) async fn client(&self) -> EtcdClient {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(mut client) = Client::connect([&self.client], None).await
                && client.status().await.is_ok()
            {
                return EtcdClient(client);
            }
            assert!(Instant::now() < deadline, "etcd does not answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl EtcdClient {
    /// Etcd's id of its cluster, and its revision.
    pub(super) async fn id_and_revision(&mut self) -> (u64, i64) {
        let answer = self.0.get(PREFIX, None).await.unwrap();
        let header = answer.header().unwrap();
        (header.cluster_id(), header.revision())
    }

    pub(super) async fn put(&mut self, key: &str, value: &str) {
        let key = format!("{PREFIX}/{key}");
        self.0.put(key, value, None).await.unwrap();
    }

    /// The values under a prefix, by their keys.
    pub(super) async fn values(&mut self, prefix: &str) -> BTreeMap<String, String> {
        let options = GetOptions::new().with_prefix();
        let answer = self.0.get(format!("{PREFIX}/{prefix}"), Some(options));
        let answer = answer.await.unwrap();
        let pair = |pair: &KeyValue| {
            let key = pair.key_str().unwrap().strip_prefix(PREFIX).unwrap();
            let value = pair.value_str().unwrap();
            (key.trim_start_matches('/').to_owned(), value.to_owned())
        };
        answer.kvs().iter().map(pair).collect()
    }
}

impl Drop for EtcdProcess {
    fn drop(&mut self) {
        self.stop();
    }
}
