//! The configuration of the runtime.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use reconciler::name::Installation;

/// How to reach the engine, which containers belong to this installation, and the deadlines of
/// calls.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// The engine's Unix socket. Default `/var/run/docker.sock`.
    pub socket: PathBuf,
    /// This installation: only containers that have its id as a label belong to it.
    pub installation: Installation,
    /// The directory that holds a directory for each pod. Default `<data>/pods`.
    pub pods_dir: PathBuf,
    /// The record of images that Windlass pulled: only those are ever collected. Default
    /// `<data>/images.json`.
    pub images_file: PathBuf,
    /// Paths of the host that no pod may mount, nor what contains them or lies in them, with links
    /// followed. Default none.
    pub forbidden_paths: Vec<PathBuf>,
    /// Paths of the host that a hostPath must be or lie in, with links followed. Default any.
    pub allowed_paths: Option<Vec<PathBuf>>,
    /// Credentials by registry host. Default none.
    pub registries: Vec<RegistryAuth>,
    /// A Docker `config.json` whose `auths` are used for hosts that `registries` does not name;
    /// read at every pull, so that a rotated token needs no restart. Default none.
    pub docker_config: Option<PathBuf>,
    /// The deadline of a short call. Default 10 s.
    pub call_timeout: Duration,
    /// The deadline of creating or starting one container, which takes long on a loaded host.
    /// Default 2 min.
    pub start_timeout: Duration,
    /// How long a pull may make no progress. Default 1 min.
    pub pull_timeout: Duration,
    /// How many pulls run concurrently. Default 4.
    pub pull_concurrency: usize,
    /// `CgroupParent` of every container. Default the engine's own.
    pub cgroup_parent: Option<String>,
    /// The bounds of the log of a new container, where the engine's default driver writes files.
    pub logs: LogBounds,
}

impl RuntimeConfig {
    /// The defaults for this installation and data directory.
    pub fn new(installation: Installation, data: &Path) -> Self {
        Self {
            socket: PathBuf::from("/var/run/docker.sock"),
            installation,
            pods_dir: data.join("pods"),
            images_file: data.join("images.json"),
            forbidden_paths: Vec::new(),
            allowed_paths: None,
            registries: Vec::new(),
            docker_config: None,
            call_timeout: Duration::from_secs(10),
            start_timeout: Duration::from_secs(120),
            pull_timeout: Duration::from_secs(60),
            pull_concurrency: 4,
            cgroup_parent: None,
            logs: LogBounds::default(),
        }
    }
}

/// The bounds of a container's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBounds {
    /// The size of a file, in bytes, after which the next one begins. Default 10 MiB.
    pub max_bytes: u64,
    /// How many files are kept. Default 3.
    pub max_files: u32,
}

impl Default for LogBounds {
    fn default() -> Self {
        Self {
            max_bytes: 10 * 1024 * 1024,
            max_files: 3,
        }
    }
}

/// Credentials for one registry.
#[derive(Clone, Debug)]
pub struct RegistryAuth {
    /// The registry's host and port: `registry.example.com:5000`; the public registry is
    /// `docker.io`.
    pub host: String,
    /// The user name at the registry.
    pub user: String,
    /// A file that holds the password or token, read at every pull.
    pub password_file: PathBuf,
}
