//! The section `[docker]`: the container engine, its registries, the logs of containers.

use std::path::PathBuf;

use runtime::LogBounds;
use serde::Deserialize;

/// The container engine and its registries.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct DockerConfig {
    /// The socket of the engine. Default `/var/run/docker.sock`.
    pub(crate) socket: Option<PathBuf>,
    /// A Docker `config.json` with the credentials for pulls in `auths`. Default none.
    pub(crate) config_file: Option<PathBuf>,
    /// Credentials for single registries, which take precedence over `config-file`. Default none.
    pub(crate) registries: Vec<RegistryConfig>,
    /// `CgroupParent` of every container. Default the engine's own.
    pub(crate) cgroup_parent: Option<String>,
    /// The bounds of a container's log, where the engine's default logging driver is json-file or
    /// local. Default `{ max-bytes = 10485760, max-files = 3 }`.
    pub(crate) logs: DockerLogsConfig,
}

/// The bounds of a container's log.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct DockerLogsConfig {
    /// The size of a file, in bytes, after which the next one begins. Default `10485760`.
    pub(crate) max_bytes: u64,
    /// How many files are kept. Default `3`.
    pub(crate) max_files: u32,
}

impl Default for DockerLogsConfig {
    fn default() -> Self {
        let LogBounds {
            max_bytes,
            max_files,
        } = LogBounds::default();
        Self {
            max_bytes,
            max_files,
        }
    }
}

impl From<DockerLogsConfig> for LogBounds {
    fn from(logs: DockerLogsConfig) -> Self {
        let DockerLogsConfig {
            max_bytes,
            max_files,
        } = logs;
        Self {
            max_bytes,
            max_files,
        }
    }
}

/// Credentials for one registry.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct RegistryConfig {
    /// The registry as image names begin with it, with the port: `registry.example.com:5000`; the
    /// public one is `docker.io`. Needed.
    pub(crate) host: String,
    /// The user at the registry. Needed.
    pub(crate) user: String,
    /// The file with the password or token of `user`. Needed.
    pub(crate) password_file: PathBuf,
}
