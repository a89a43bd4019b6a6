//! Services.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use super::{Meta, Protocol};

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `metadata`.
    pub meta: Meta,
    /// What sort of Service it is.
    pub kind: ServiceKind,
    /// `spec.selector`; empty selects nothing.
    pub selector: BTreeMap<String, String>,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// `spec.publishNotReadyAddresses`.
    pub publish_not_ready: bool,
    /// `spec.sessionAffinity: ClientIP` and its time-out.
    pub client_ip_affinity: Option<Duration>,
}

/// What sort of Service it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// A virtual address, `spec.clusterIP` if that is given.
    ClusterIp {
        /// The address asked for.
        address: Option<Ipv4Addr>,
    },
    /// `clusterIP: None`: only names.
    Headless,
    /// A virtual address and a port on every address of every host.
    NodePort {
        /// The address asked for.
        address: Option<Ipv4Addr>,
    },
    /// As NodePort; its external addresses are the nodes'.
    LoadBalancer {
        /// The address asked for.
        address: Option<Ipv4Addr>,
    },
    /// A name for another name, or for an IPv4 literal.
    ExternalName {
        /// `spec.externalName`.
        target: String,
    },
}

/// One of a Service's `ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// `name`, empty for a single port without one.
    pub name: String,
    /// `protocol`.
    pub protocol: Protocol,
    /// `port`.
    pub port: u16,
    /// `targetPort`, `port` by default.
    pub target: TargetPort,
    /// `nodePort` asked for.
    pub node_port: Option<u16>,
}

/// `targetPort`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// A number.
    Number(u16),
    /// The name of a container's port.
    Name(String),
}
