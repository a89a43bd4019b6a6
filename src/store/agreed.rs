//! The settings that all hosts of a cluster must share, and the versions of stores.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::layout::{SCHEMA, StoreIdentity};

/// The settings that all hosts of a cluster must agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// The range of the addresses of all pods.
    pub(crate) pod_range: Ipv4Net,
    /// The prefix length of each node's subnet in that range.
    pub(crate) subnet_length: u8,
    /// The range of the addresses of Services.
    pub(crate) service_range: Ipv4Net,
    /// The address of the cluster's DNS.
    pub(crate) dns: Ipv4Addr,
    /// The zone of the cluster's DNS.
    pub(crate) zone: String,
    /// The first and the last node port.
    pub(crate) node_ports: (u16, u16),
}

impl Agreed {
    /// These settings as a store's identity.
    pub(super) fn identity(&self, id: &str, incarnation: u64) -> StoreIdentity {
        StoreIdentity {
            schema: SCHEMA,
            id: id.to_owned(),
            incarnation,
            pod_range: self.pod_range,
            subnet_length: self.subnet_length,
            service_range: self.service_range,
            dns: self.dns,
            zone: self.zone.clone(),
            node_ports: Some(self.node_ports),
        }
    }

    /// Compares these settings with a store's identity.
    pub(super) fn check(&self, identity: &StoreIdentity) -> Result<(), Disagreement> {
        // A store of a version without this field has the range of the host that leads.
        let node_ports = identity.node_ports.unwrap_or(self.node_ports);
        let ports = |(first, last): (u16, u16)| format!("{first} to {last}");

        let settings = [
            (
                "pod-range",
                identity.pod_range.to_string(),
                self.pod_range.to_string(),
            ),
            (
                "the length of pod-subnet",
                identity.subnet_length.to_string(),
                self.subnet_length.to_string(),
            ),
            (
                "service-range",
                identity.service_range.to_string(),
                self.service_range.to_string(),
            ),
            ("dns", identity.dns.to_string(), self.dns.to_string()),
            ("zone", identity.zone.clone(), self.zone.clone()),
            (
                "node-port-first and -last",
                ports(node_ports),
                ports(self.node_ports),
            ),
        ];
        let differs = |(setting, cluster, host): (&'static str, String, String)| {
            (cluster != host).then_some(Disagreement {
                setting,
                cluster,
                host,
            })
        };
        settings.into_iter().find_map(differs).map_or(Ok(()), Err)
    }
}

/// The first setting that differs between the cluster and this host's configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the cluster has {setting} {cluster}, and this host's configuration {host}: all hosts must have the same in [network]"
)]
pub(super) struct Disagreement {
    setting: &'static str,
    cluster: String,
    host: String,
}

/// The store has a layout that this version cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UnknownSchema {
    /// No version wrote such a store.
    #[error("the store has schema 0, which no version wrote")]
    Zero,
    /// A newer version wrote the store.
    #[error(
        "the store has schema {0}, and this version knows schemas up to {SCHEMA}: run a newer Windlass here"
    )]
    Newer(u32),
}

/// Checks that this version can read the layout of the store.
pub(super) fn known_schema(identity: &StoreIdentity) -> Result<(), UnknownSchema> {
    match identity.schema {
        0 => Err(UnknownSchema::Zero),
        1..=SCHEMA => Ok(()),
        newer => Err(UnknownSchema::Newer(newer)),
    }
}
