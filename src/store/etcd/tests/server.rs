//! A real etcd on loopback: one member or several, on free ports; the processes end when the value
//! is dropped.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustix::process::{Pid, Signal, kill_process};

use super::super::{EtcdConfig, EtcdTls};

pub(super) const PREFIX: &str = "/windlass/test";

/// The process of one member.
pub(super) struct EtcdMember {
    pub(super) url: String,
    peer: String,
    arguments: Vec<String>,
    process: Option<Child>,
}

/// A cluster of etcd.
pub(super) struct EtcdServer {
    pub(super) members: Vec<EtcdMember>,
    /// The flags by which `etcdctl` reaches the members.
    flags: Vec<String>,
    data: tempfile::TempDir,
}

impl EtcdServer {
    /// A cluster of one member, with additional arguments.
    pub(super) fn one(arguments: &[&str]) -> Self {
        Self::members(1, "http", arguments, &[])
    }

    pub(super) fn three() -> Self {
        Self::members(3, "http", &[], &[])
    }

    /// A cluster of one member that requires client certificates of a CA.
    pub(super) fn with_tls(certificates: &Certificates) -> Self {
        let tls = certificates.issue("etcd");
        let (ca, certificate, key) = (path(&tls.ca), path(&tls.certificate), path(&tls.key));
        let arguments = [
            "--client-cert-auth",
            "--trusted-ca-file",
            ca,
            "--cert-file",
            certificate,
            "--key-file",
            key,
        ];
        Self::members(
            1,
            "https",
            &arguments,
            &["--cacert", ca, "--cert", certificate, "--key", key],
        )
    }

    fn members(count: usize, scheme: &str, arguments: &[&str], flags: &[&str]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let ports = free_ports(2 * count);
        let mut members: Vec<EtcdMember> = ports
            .chunks(2)
            .map(|ports| EtcdMember {
                url: format!("{scheme}://127.0.0.1:{}", ports[0]),
                peer: format!("http://127.0.0.1:{}", ports[1]),
                arguments: Vec::new(),
                process: None,
            })
            .collect();
        let cluster: Vec<_> = members
            .iter()
            .enumerate()
            .map(|(index, member)| format!("m{index}={}", member.peer))
            .collect();
        for (index, member) in members.iter_mut().enumerate() {
            let directory = data.path().join(index.to_string());
            let own = [
                format!("--name=m{index}"),
                format!("--data-dir={}", directory.display()),
                format!("--listen-peer-urls={}", member.peer),
                format!("--initial-advertise-peer-urls={}", member.peer),
                format!("--initial-cluster={}", cluster.join(",")),
                "--log-level=error".to_owned(),
            ];
            member.arguments = own
                .into_iter()
                .chain(arguments.iter().map(|&text| text.to_owned()))
                .collect();
        }
        let flags = flags.iter().map(|&text| text.to_owned()).collect();
        let mut server = Self {
            members,
            flags,
            data,
        };
        server.start();
        server
    }

    /// Starts the members that do not run, and waits until each answers.
    pub(super) fn start(&mut self) {
        for member in &mut self.members {
            if member.process.is_none() {
                let url = member.url.clone();
                member.start_at(&url);
            }
        }
        self.wait();
    }

    fn wait(&self) {
        let dead_line = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !self.try_ctl(&["get", "nothing"]).0 {
            assert!(std::time::Instant::now() < dead_line, "etcd does not start");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// Serves the first member's data under another address during `work`: no host connects to that
    /// address.
    pub(super) fn aside(&mut self, work: impl FnOnce(&Self)) {
        let url = self.members[0].url.clone();
        let other = format!("http://127.0.0.1:{}", free_ports(1)[0]);
        self.members[0].stop();
        self.members[0].start_at(&other);
        self.members[0].url = other;
        self.wait();
        work(self);
        self.members[0].stop();
        self.members[0].url = url;
    }

    /// Saves the present content of the store to a file.
    pub(super) fn snapshot(&self) -> PathBuf {
        let file = self.data.path().join("backup");
        self.ctl(&["snapshot", "save", path(&file)]);
        file
    }

    /// Restores the first member's data from a snapshot, and leaves the member stopped.
    pub(super) fn restore(&mut self, snapshot: &Path) {
        let member = &mut self.members[0];
        member.stop();
        let (data, peer) = (self.data.path().join("0"), member.peer.clone());
        std::fs::remove_dir_all(&data).unwrap();
        let data = format!("--data-dir={}", path(&data));
        let (advertised, cluster) = (
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=m0={peer}"),
        );
        self.ctl(&[
            "snapshot",
            "restore",
            path(snapshot),
            "--name=m0",
            &data,
            &advertised,
            &cluster,
        ]);
    }

    /// Runs `etcdctl` against all members; it must succeed.
    pub(super) fn ctl(&self, arguments: &[&str]) -> String {
        let (ok, text) = self.try_ctl(arguments);
        assert!(ok, "etcdctl {arguments:?}: {text}");
        text
    }

    pub(super) fn try_ctl(&self, arguments: &[&str]) -> (bool, String) {
        let urls: Vec<_> = self
            .members
            .iter()
            .map(|member| member.url.as_str())
            .collect();
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", urls.join(",")))
            .args(&self.flags)
            .args(arguments)
            .output()
            .expect("etcdctl is installed (Debian: etcd-client)");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }

    pub(super) fn config(&self) -> EtcdConfig {
        EtcdConfig {
            endpoints: self
                .members
                .iter()
                .map(|member| member.url.clone())
                .collect(),
            prefix: PREFIX.to_owned(),
            tls: None,
            user: None,
        }
    }
}

impl EtcdMember {
    fn start_at(&mut self, url: &str) {
        let child = Command::new("etcd")
            .args(&self.arguments)
            .arg(format!("--listen-client-urls={url}"))
            .arg(format!("--advertise-client-urls={url}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is installed (Debian: etcd-server)");
        self.process = Some(child);
    }

    pub(super) fn signal(&self, signal: Signal) {
        let child = self.process.as_ref().unwrap();
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    pub(super) fn stop(&mut self) {
        if let Some(mut child) = self.process.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for EtcdMember {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A certificate authority and its certificates, as files.
pub(super) struct Certificates {
    directory: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Certificates {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters
            .distinguished_name
            .push(DnType::CommonName, "a CA");
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        std::fs::write(directory.path().join("ca.crt"), certificate.pem()).unwrap();
        Self {
            directory,
            issuer: Issuer::new(parameters, key),
        }
    }

    /// Issues a certificate for loopback with a common name.
    pub(super) fn issue(&self, name: &str) -> EtcdTls {
        let file = |name: String| self.directory.path().join(name);
        let mut parameters = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        let tls = EtcdTls {
            ca: file("ca.crt".to_owned()),
            certificate: file(format!("{name}.crt")),
            key: file(format!("{name}.key")),
        };
        std::fs::write(&tls.certificate, certificate.pem()).unwrap();
        std::fs::write(&tls.key, key.serialize_pem()).unwrap();
        tls
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Ports that no process listens on. All are held at the same time, so that they differ.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    listeners
        .iter()
        .map(|listener| listener.local_addr().unwrap().port())
        .collect()
}
