//! Services.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Meta, Protocol};

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `metadata`.
    pub meta: Meta,
    /// The type of the Service.
    pub kind: ServiceKind,
    /// `spec.selector`; empty selects no pod.
    pub selector: BTreeMap<String, String>,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// `spec.publishNotReadyAddresses`.
    pub publish_not_ready: bool,
    /// `spec.sessionAffinity: ClientIP` with its timeout; `None` is no affinity.
    pub client_ip_affinity: Option<Duration>,
}

/// The type of a Service, from `spec.type` and `spec.clusterIP`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// The Service has a virtual address.
    ClusterIp {
        /// `spec.clusterIP`; `None` lets the leader allocate an address.
        address: Option<Ipv4Addr>,
    },
    /// `clusterIP: None`: the Service has DNS names only.
    Headless,
    /// The Service has a virtual address, and a port on every address of every host.
    NodePort {
        /// `spec.clusterIP`; `None` lets the leader allocate an address.
        address: Option<Ipv4Addr>,
    },
    /// As NodePort; the external addresses are those of the nodes.
    LoadBalancer {
        /// `spec.clusterIP`; `None` lets the leader allocate an address.
        address: Option<Ipv4Addr>,
    },
    /// The Service is a DNS name for another name, or for an IPv4 address.
    ExternalName {
        /// `spec.externalName`.
        target: String,
    },
}

/// One of a Service's `ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// `name`; empty for a single port without a name.
    pub name: String,
    /// `protocol`.
    pub protocol: Protocol,
    /// `port`, on the virtual address.
    pub port: u16,
    /// `targetPort`; `port` by default.
    pub target: TargetPort,
    /// `nodePort`; `None` lets the leader allocate a port.
    pub node_port: Option<u16>,
}

/// Protocol and number of a port on a Service's virtual address, such as `TCP/80`: what a node port
/// is allocated to.
///
/// It is ordered by its text, and a text of a record is taken as it is: an unknown key is that of
/// no port, and must not make the rest of its record unreadable.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PortKey(String);

impl PortKey {
    /// The key of a port.
    pub fn new(protocol: Protocol, port: u16) -> Self {
        Self(format!("{}/{port}", protocol.as_str()))
    }

    /// The protocol by its name in manifests.
    pub fn protocol(&self) -> &str {
        let Some((protocol, _)) = self.0.split_once('/') else {
            return &self.0;
        };
        protocol
    }
}

/// Prints the quoted text.
impl fmt::Debug for PortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl ServicePort {
    /// Protocol and number of the port on the virtual address.
    pub fn key(&self) -> PortKey {
        PortKey::new(self.protocol, self.port)
    }
}

/// `targetPort`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// A port number in the pod.
    Number(u16),
    /// The name of one of the container's ports.
    Name(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ports_are_written_by_protocol_and_port_in_the_order_of_their_text() {
        let keys = [
            (Protocol::Udp, 53),
            (Protocol::Tcp, 80),
            (Protocol::Tcp, 443),
        ];
        let ports: BTreeMap<PortKey, u16> = keys
            .into_iter()
            .map(|(protocol, port)| (PortKey::new(protocol, port), 30_000 + port))
            .collect();
        let written = serde_json::to_string(&ports).unwrap_or_default();
        assert_eq!(
            written,
            r#"{"TCP/443":30443,"TCP/80":30080,"UDP/53":30053}"#
        );
        assert_eq!(serde_json::from_str(&written).ok(), Some(ports.clone()));

        let protocols: Vec<&str> = ports.keys().map(PortKey::protocol).collect();
        assert_eq!(protocols, ["TCP", "TCP", "UDP"]);
        let sctp = PortKey::new(Protocol::Sctp, 9);
        assert_eq!(format!("{sctp:?}"), "\"SCTP/9\"");
    }
}
