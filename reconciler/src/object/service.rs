//! Services.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

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

/// `targetPort`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// A port number in the pod.
    Number(u16),
    /// The name of one of the container's ports.
    Name(String),
}
