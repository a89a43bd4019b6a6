//! The settings of a cluster: the store, and the listener for other hosts.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Result, ensure};
use serde::Deserialize;

use super::{Config, duration, read_secret};
use crate::{
    source::fetch::SecretText,
    store::{Agreed, EtcdConfig, EtcdTls, Joining},
};

/// The store that the hosts of a cluster share. Without `endpoints` the host is alone.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct StoreConfig {
    /// The client URLs of etcd, such as `https://192.0.2.5:2379`. Default none: decisions are stored
    /// on this host's disk.
    pub(crate) endpoints: Vec<String>,
    /// The prefix of all keys of this cluster. Default `/windlass`.
    pub(crate) prefix: String,
    /// The PEM file with the authority that must have signed etcd's certificate. Needed with
    /// `https://`.
    pub(crate) ca_file: Option<PathBuf>,
    /// The PEM file with this host's certificate; etcd takes its common name as the user. Needed with
    /// `https://`.
    pub(crate) certificate_file: Option<PathBuf>,
    /// The PEM file with the key of that certificate. Needed with `https://`.
    pub(crate) key_file: Option<PathBuf>,
    /// The user of etcd, where the certificate does not name it. Default none.
    pub(crate) user: Option<String>,
    /// The file with the password of `user`. Needed with `user`.
    pub(crate) password_file: Option<PathBuf>,
    /// How long this node counts as away after its daemon was stopped for an upgrade or a reboot: its
    /// pods are not replaced meanwhile. Default `5m`.
    #[serde(deserialize_with = "duration")]
    pub(crate) away: Duration,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            prefix: "/windlass".to_owned(),
            ca_file: None,
            certificate_file: None,
            key_file: None,
            user: None,
            password_file: None,
            away: Duration::from_secs(300),
        }
    }
}

/// The listener for the other hosts of the cluster, and its certificates.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct PeerConfig {
    /// The address of the listener. Default port 9465 of the host's address where there is a
    /// certificate, otherwise none.
    pub(crate) listen: Option<SocketAddr>,
    /// The directory of the certificates and their keys. Default `peer` in the data directory.
    pub(crate) directory: Option<PathBuf>,
}

impl Config {
    pub(super) fn check_store(&self) -> Result<()> {
        let store = &self.store;
        let files = [&store.ca_file, &store.certificate_file, &store.key_file];
        let secure = store
            .endpoints
            .iter()
            .any(|endpoint| endpoint.starts_with("https://"));
        ensure!(
            !secure || files.iter().all(|file| file.is_some()),
            "[store] endpoints with https:// need ca-file, certificate-file and key-file"
        );
        ensure!(
            store.user.is_some() == store.password_file.is_some(),
            "[store] user and password-file belong together"
        );
        Ok(())
    }

    /// Whether this host is configured as a member of a cluster.
    pub(crate) fn is_clustered(&self) -> bool {
        !self.store.endpoints.is_empty()
    }

    /// How this host joins its cluster; `None` for a host that is alone.
    pub(crate) fn joining(&self) -> Result<Option<Joining>> {
        if !self.is_clustered() {
            return Ok(None);
        }
        let store = &self.store;
        let tls = match (&store.ca_file, &store.certificate_file, &store.key_file) {
            (Some(ca), Some(certificate), Some(key)) => Some(EtcdTls {
                ca: ca.clone(),
                certificate: certificate.clone(),
                key: key.clone(),
            }),
            _ => None,
        };
        let user = match (&store.user, &store.password_file) {
            (Some(user), Some(file)) => Some((user.clone(), SecretText::new(read_secret(file)?))),
            _ => None,
        };
        let etcd = EtcdConfig {
            endpoints: store.endpoints.clone(),
            prefix: store.prefix.clone(),
            tls,
            user,
        };
        let subnet_alone = self.pod_subnet();
        Ok(Some(Joining {
            etcd,
            node: self.node_name()?,
            agreed: Agreed {
                pod_range: self.network.pod_range,
                subnet_length: subnet_alone.prefix_len(),
                service_range: self.network.service_range,
                dns: self.dns_address(),
                zone: self.network.zone.clone(),
                node_ports: (self.network.node_port_first, self.network.node_port_last),
            },
            subnet: self.network.pod_subnet,
            subnet_alone,
            node_ranges: self.network.node_ranges.clone(),
        }))
    }
}
