//! What the runtime is told when it is opened.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// How to reach the engine, what is ours on it, and how long anything may take.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// The engine's Unix socket. Default `/var/run/docker.sock`.
    pub socket: PathBuf,
    /// Which installation this is: only containers that carry it as a label are ours.
    pub instance: String,
    /// Where each pod has its directory. Default `<data>/pods`.
    pub pods_dir: PathBuf,
    /// Which images we pulled, so that only those are ever collected. Default `<data>/images.json`.
    pub images_file: PathBuf,
    /// Paths of the host that no pod may mount, nor what contains them or lies in them, by whatever
    /// name. Default none.
    pub forbidden_paths: Vec<PathBuf>,
    /// Paths of the host that a hostPath must be or lie in, with links followed. Default any.
    pub allowed_paths: Option<Vec<PathBuf>>,
    /// Credentials by registry host. Default none.
    pub registries: Vec<RegistryAuth>,
    /// A Docker `config.json` whose `auths` are used for hosts that `registries` does not name;
    /// read at every pull, so that a rotated token needs no restart. Default none.
    pub docker_config: Option<PathBuf>,
    /// The longest a single short call may take. Default 10 s.
    pub call_timeout: Duration,
    /// The longest that creating or starting one container may take, which on a loaded host is
    /// much. Default 2 min.
    pub start_timeout: Duration,
    /// The longest that a pull may go without any progress. Default 1 min.
    pub pull_timeout: Duration,
    /// How many pulls run side by side. Default 4.
    pub pull_concurrency: usize,
    /// `CgroupParent` of every container. Default the engine's own.
    pub cgroup_parent: Option<String>,
}

impl RuntimeConfig {
    /// The defaults, for this installation and data directory.
    pub fn new(instance: impl Into<String>, data: &Path) -> Self {
        Self {
            socket: PathBuf::from("/var/run/docker.sock"),
            instance: instance.into(),
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
        }
    }
}

/// Credentials for one registry.
#[derive(Clone, Debug)]
pub struct RegistryAuth {
    /// `registry.example.com:5000`; the public one is `docker.io`.
    pub host: String,
    /// User name.
    pub user: String,
    /// A file that holds the password or token, read at every pull.
    pub password_file: PathBuf,
}
