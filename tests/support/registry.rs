//! A registry on the network of the hosts, which also serves plain names such as `httpd`.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use super::command::repository_root;
use super::network::GATEWAY;
use super::{Host, Network, run};

/// Debian's docker-registry at `192.168.77.1:5000`. It is the mirror of every host's engine for
/// plain names.
#[derive(Debug)]
pub(crate) struct Registry {
    network: Arc<Network>,
}

impl Registry {
    /// Starts the network's registry. A network has at most one.
    #[track_caller]
    pub(crate) fn start(network: &Arc<Network>) -> Registry {
        // The network's namespace cannot reach a package mirror, so the package is installed from
        // outside.
        run(Command::new(script()).arg("install")).ok();
        let registry = Registry {
            network: Arc::clone(network),
        };
        registry.resume();
        registry
    }

    /// `address:port`, the prefix of an image name that an engine requests from this registry only.
    pub(crate) fn address(&self) -> String {
        format!("{GATEWAY}:5000")
    }

    /// Pushes an image of a host's engine to the registry under `name`, such as `library/httpd`
    /// (which the mirror serves as `httpd`) or `team/app:2`; returns the image's digest.
    #[track_caller]
    pub(crate) fn push(&self, host: &Host, image: &str, name: &str) -> String {
        let target = format!("{}/{name}", self.address());
        host.docker(&["tag", image, &target]);
        host.docker(&["push", "-q", &target]);
        let digest = host.docker(&[
            "image",
            "inspect",
            "-f",
            "{{index .RepoDigests 0}}",
            &target,
        ]);
        host.docker(&["rmi", &target]);
        digest.rsplit_once('@').unwrap().1.to_owned()
    }

    /// Stops the registry; its images stay.
    #[track_caller]
    pub(crate) fn stop(&self) {
        run(self.command().args(["stop", "--dir"]).arg(self.dir())).ok();
    }

    /// Starts a stopped registry.
    #[track_caller]
    pub(crate) fn resume(&self) {
        run(self
            .command()
            .args(["start", "--listen", &self.address(), "--dir"])
            .arg(self.dir()))
        .ok();
    }

    fn command(&self) -> Command {
        let mut command = self.network.command();
        command.arg(script());
        command
    }

    fn dir(&self) -> PathBuf {
        self.network.dir().join("registry")
    }
}

fn script() -> PathBuf {
    repository_root().join("scripts/registry")
}
