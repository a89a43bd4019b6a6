//! What the manifest of a pod refers to and its commit does not have.

use thiserror::Error;

use crate::object::ConfigSource;

/// Why a pod's files or a container cannot be made. The check of a commit finds all of these but
/// the first: they occur where a commit of an older version is read by a newer one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MissingContent {
    /// The commit that the pod is made from has not been read on this host.
    #[error("its commit is not here")]
    Commit,
    /// A variable refers to a ConfigMap or Secret that does not exist.
    #[error("{} is not in the commit", described(.0))]
    Source(ConfigSource),
    /// A variable refers to a key that its ConfigMap or Secret does not have.
    #[error("{} has no key {key:?}", described(config_source))]
    Key {
        /// The ConfigMap or Secret.
        config_source: ConfigSource,
        /// The key that it lacks.
        key: String,
    },
    /// A volume refers to a ConfigMap or Secret that does not exist.
    #[error("volume {volume:?}: its ConfigMap or Secret is not in the commit")]
    VolumeSource {
        /// The name of the volume.
        volume: String,
    },
    /// A volume lists a key that its ConfigMap or Secret does not have.
    #[error("volume {volume:?}: there is no key {key:?}")]
    VolumeKey {
        /// The name of the volume.
        volume: String,
        /// The key in `items`.
        key: String,
    },
}

fn described(source: &ConfigSource) -> String {
    match source {
        ConfigSource::ConfigMap(name) => format!("ConfigMap {name:?}"),
        ConfigSource::Secret(name) => format!("Secret {name:?}"),
    }
}
