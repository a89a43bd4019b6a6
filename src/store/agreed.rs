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

    /// Compares these settings with a store's identity; the error names the first difference.
    pub(super) fn check(&self, identity: &StoreIdentity) -> Result<(), String> {
        let StoreIdentity {
            pod_range,
            subnet_length,
            service_range,
            dns,
            zone,
            ..
        } = identity;
        let range = |(first, last): (u16, u16)| format!("{first} to {last}");
        // A store of a version without this field has the range of the host that leads.
        let node_ports = identity.node_ports.unwrap_or(self.node_ports);
        let pairs = [
            (
                "pod-range",
                pod_range.to_string(),
                self.pod_range.to_string(),
            ),
            (
                "the length of pod-subnet",
                subnet_length.to_string(),
                self.subnet_length.to_string(),
            ),
            (
                "service-range",
                service_range.to_string(),
                self.service_range.to_string(),
            ),
            ("dns", dns.to_string(), self.dns.to_string()),
            ("zone", zone.clone(), self.zone.clone()),
            (
                "node-port-first and -last",
                range(node_ports),
                range(self.node_ports),
            ),
        ];
        match pairs.into_iter().find(|(_, theirs, ours)| theirs != ours) {
            None => Ok(()),
            Some((what, theirs, ours)) => Err(format!(
                "the cluster has {what} {theirs}, and this host's configuration {ours}: all hosts must have the same in \
                 [network]"
            )),
        }
    }
}

/// Checks that this version can read the store.
pub(super) fn known_schema(identity: &StoreIdentity) -> Result<(), String> {
    match identity.schema {
        1..=SCHEMA => Ok(()),
        0 => Err("the store has schema 0, which no version wrote".to_owned()),
        newer => Err(format!(
            "the store has schema {newer}, and this version knows schemas up to {SCHEMA}: run a newer Windlass here"
        )),
    }
}
