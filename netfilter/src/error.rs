//! Errors of the host's network.

use std::{error::Error, io, net::Ipv4Addr, path::PathBuf};

use ipnet::Ipv4Net;
use reconciler::{
    fault::{Fault, FaultKind},
    foreign::ForeignText,
    name::{LinkName, NodeName},
};

/// An operation on the host's network that failed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A netlink socket could not be opened.
    #[error("cannot open a netlink socket")]
    Netlink(#[source] io::Error),
    /// A kernel setting could not be read or written.
    #[error("cannot set {path}")]
    Sysctl {
        /// The file in `/proc/sys`.
        path: PathBuf,
        /// The error of the system call.
        source: io::Error,
    },
    /// The record of the host's settings from before could not be read or written.
    #[error("cannot keep the record of the host's settings in {path}")]
    Record {
        /// The path of the record.
        path: PathBuf,
        /// The error of the system call.
        source: io::Error,
    },
    /// The device that carries the DNS address could not be made.
    #[error("cannot make the device {device} with the address {address}")]
    Device {
        /// The name of the device.
        device: &'static str,
        /// The DNS address, which the device gets.
        address: Ipv4Addr,
        /// The kernel's error.
        source: io::Error,
    },
    /// The route of the service range could not be made.
    #[error(
        "cannot route the service range from the node address {node_address}; it must be an address of this host"
    )]
    ServiceRoute {
        /// The configured node address, the route's preferred source.
        node_address: Ipv4Addr,
        /// The kernel's error.
        source: io::Error,
    },
    /// The VXLAN device could not be made.
    #[error(
        "cannot make the device windlass1 (VXLAN {id}, UDP port {port}); the kernel needs its module vxlan, and no other device may use that id or port"
    )]
    Overlay {
        /// The VXLAN network identifier.
        id: u32,
        /// The UDP port on which the device receives.
        port: u16,
        /// The kernel's error.
        source: io::Error,
    },
    /// No device has the node address.
    #[error(
        "no device of this host has the node address {node_address}; node.address must be one of the host's"
    )]
    Uplink {
        /// The configured node address.
        node_address: Ipv4Addr,
    },
    /// The neighbour and forwarding entries of the peers could not be changed.
    #[error("cannot change the entries of the device windlass1")]
    PeerEntries(#[source] io::Error),
    /// The route to the pods of another host could not be set.
    #[error(
        "cannot route {subnet} to the host {peer} at {address}; check that this address is reachable from here"
    )]
    PeerRoute {
        /// The name of the other host.
        peer: NodeName,
        /// The node address of the other host.
        address: Ipv4Addr,
        /// The pod subnet of the other host.
        subnet: Ipv4Net,
        /// The kernel's error.
        source: io::Error,
    },
    /// The path to a host is `direct`, and the host is behind a router.
    #[error(
        "there is no direct path to the host {peer} at {address}: it is behind the router {router}, which has no route to its pods; use the path vxlan for this host"
    )]
    PeerBehindRouter {
        /// The name of the other host.
        peer: NodeName,
        /// The node address of the other host.
        address: Ipv4Addr,
        /// The router on the way to it, by the kernel's routes.
        router: Ipv4Addr,
    },
    /// A pod's network namespace could not be entered.
    #[error("cannot enter the network namespace of the pod behind {link}")]
    Namespace {
        /// The name of the pod's link.
        link: LinkName,
        /// The error of the system call.
        source: io::Error,
    },
    /// A pod's link could not be made.
    #[error("cannot connect the link {link}: {action}")]
    Connect {
        /// The name of the pod's link.
        link: LinkName,
        /// The part of the work that failed.
        action: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// A pod's link, or one of the two devices of the host itself, could not be removed.
    #[error("cannot remove the link {link}")]
    Disconnect {
        /// The name of the device.
        link: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// Links, addresses or routes could not be listed.
    #[error("cannot list the host's {what}")]
    List {
        /// The kind of object that was listed.
        what: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// Links, routes and nftables cannot be watched.
    #[error("cannot watch the host's links, routes and nftables")]
    Watch(#[source] io::Error),
    /// A required program is not installed or could not be started.
    #[error("cannot run {program}; check that it is installed")]
    Program {
        /// The name of the program.
        program: &'static str,
        /// The error of the system call.
        source: io::Error,
    },
    /// A program did not end in time.
    #[error("{program} did not answer within {seconds} s")]
    Timeout {
        /// The name of the program.
        program: &'static str,
        /// The time limit in seconds.
        seconds: u64,
    },
    /// `nft` or `iptables` ended with an error.
    #[error("{program} refused: {message}")]
    Refused {
        /// The name of the program.
        program: &'static str,
        /// The class of the refusal.
        kind: Refusal,
        /// The program's standard error, shortened to one line.
        message: ForeignText,
    },
    /// The thread that does the netlink work has ended.
    #[error("the network worker has stopped")]
    Stopped,
}

/// The class of a refusal by `nft` or `iptables`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// An object that must exist is missing, or exists already: another program has changed the
    /// table.
    Drifted,
    /// The permission is missing.
    Denied,
    /// Any other error; the message says which.
    Other,
}

impl Refusal {
    /// Classifies the error by the standard error of the program.
    pub(crate) fn of(stderr: &str) -> Self {
        if stderr.contains("No such file or directory")
            || stderr.contains("File exists")
            || stderr.contains("does not exist")
        {
            Self::Drifted
        } else if stderr.contains("Operation not permitted") || stderr.contains("Permission denied")
        {
            Self::Denied
        } else {
            Self::Other
        }
    }
}

impl From<NetworkError> for Fault {
    /// The host's network is never the commit's fault: the step waits and is tried again.
    fn from(error: NetworkError) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        Self::new(FaultKind::Network, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_has_the_whole_chain_of_errors_on_one_line() {
        let fault = Fault::from(NetworkError::Disconnect {
            link: "wdl1".to_owned(),
            source: io::Error::from_raw_os_error(1),
        });
        assert_eq!(fault.kind, FaultKind::Network);
        assert_eq!(
            fault.message,
            "cannot remove the link wdl1: Operation not permitted (os error 1)"
        );
    }
}
