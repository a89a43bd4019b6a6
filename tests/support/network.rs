//! The network between hosts: a bridge in a namespace of its own.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::guard::{Guard, in_netns};
use super::run;

/// The hosts' default gateway, which answers and forwards nothing, and where the registry listens.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);

const NOBODY: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 254);

/// A switch that hosts are plugged into. Every network uses the same addresses and sees no other.
#[derive(Debug)]
pub(crate) struct Network {
    guard: Guard,
    hosts: AtomicU8,
}

impl Network {
    /// Makes an empty network.
    pub(crate) fn start() -> Arc<Network> {
        let network = Network { guard: Guard::start(), hosts: AtomicU8::new(0) };
        // Whoever asks for the world gets a refusal at once, not a time-out: a resolver heeds only
        // "port unreachable", so packets must get as far as the filter, by a route to nobody. Frames
        // between hosts must not meet the filter on their way over the bridge.
        let script = format!(
            "set -e
            ip link set lo up
            ip link add br0 type bridge
            ip addr add {GATEWAY}/24 dev br0
            ip link set br0 up
            sysctl -qw net.ipv4.ip_forward=1 net.ipv4.icmp_ratelimit=0
            sysctl -qw net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.br0.send_redirects=0
            ! [ -e /proc/sys/net/bridge ] || sysctl -qw net.bridge.bridge-nf-call-iptables=0
            ip route add default via {NOBODY}
            nft add table inet bed
            nft 'add chain inet bed forward {{ type filter hook forward priority 0; }}'
            nft 'add rule inet bed forward meta l4proto tcp reject with tcp reset'
            nft 'add rule inet bed forward reject'"
        );
        run(network.command().args(["sh", "-c", &script])).ok();
        Arc::new(network)
    }

    /// Runs a command line in the network's own namespace, for instance to cut hosts off.
    pub(crate) fn exec(&self, args: &[&str]) -> super::Outcome {
        run(self.command().args(args))
    }

    /// The directory whose contents go with the network.
    pub(crate) fn dir(&self) -> &std::path::Path {
        &self.guard.dir
    }

    /// A command that will run in the network's own namespace.
    pub(crate) fn command(&self) -> Command {
        in_netns(&self.guard.name)
    }

    /// Plugs a cable into the namespace of a host, whose end of it is `eth0`; gives the host's number.
    pub(crate) fn plug(&self, netns: &str) -> u8 {
        let number = self.hosts.fetch_add(1, Ordering::Relaxed) + 1;
        let port = format!("port{number}");
        let script = format!(
            "set -e
            ip link add {port} type veth peer name eth0 netns {netns}
            ip link set {port} master br0 up"
        );
        run(self.command().args(["sh", "-c", &script])).ok();
        number
    }
}
