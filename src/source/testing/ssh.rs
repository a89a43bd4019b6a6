//! A real sshd on a port of this machine, with a key of its own.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::KeyPairs;

/// A server that runs until the value is dropped.
pub(crate) struct SshServer {
    keys: KeyPairs,
    port: u16,
    process: Child,
}

impl SshServer {
    /// Serves root, who logs in with a key of the given kind.
    pub(crate) fn start(kind: &str, bits: &str) -> Self {
        let keys = KeyPairs::new();
        keys.generate("host", "ed25519", "256");
        let key = keys.generate("login", kind, bits);
        let port = free_port();
        let options = [
            format!("Port={port}"),
            "ListenAddress=127.0.0.1".to_owned(),
            format!("HostKey={}", keys.path("host").display()),
            format!("AuthorizedKeysFile={}", key.with_extension("pub").display()),
            "PermitRootLogin=prohibit-password".to_owned(),
            "StrictModes=no".to_owned(),
            "UsePAM=no".to_owned(),
            "PidFile=none".to_owned(),
        ];
        // sshd(8) requires this directory, which a service manager makes at the boot.
        std::fs::create_dir_all("/run/sshd").unwrap();
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f", "/dev/null"]);
        for option in &options {
            command.args(["-o", option]);
        }
        let process = command.stderr(Stdio::null()).spawn().unwrap();

        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "sshd does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self {
            keys,
            port,
            process,
        }
    }

    pub(crate) fn url(&self, path: &Path) -> String {
        format!("ssh://root@127.0.0.1:{}{}", self.port, path.display())
    }

    /// The text of the private key that may log in.
    pub(crate) fn login_key(&self) -> String {
        std::fs::read_to_string(self.keys.path("login")).unwrap()
    }

    /// A file that names the server's key, as OpenSSH's `known_hosts`.
    pub(crate) fn known_hosts(&self) -> std::path::PathBuf {
        let key = std::fs::read_to_string(self.keys.path("host.pub")).unwrap();
        let file = self.keys.path("known_hosts");
        std::fs::write(&file, format!("[127.0.0.1]:{} {key}", self.port)).unwrap();
        file
    }
}

impl Drop for SshServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
