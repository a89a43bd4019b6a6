//! The network between hosts: a bridge in a namespace of its own.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::guard::{Guard, bed, enter_netns, in_netns};
use super::run;

/// The hosts' default gateway, which answers but forwards nothing. Registry and Git server listen
/// here.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);

/// A switch that hosts are plugged into. Every network uses the same addresses, and cannot reach
/// any other network.
#[derive(Debug)]
pub(crate) struct Network {
    guard: Guard,
    hosts: AtomicU8,
    cuts: Mutex<Vec<Cut>>,
}

/// A port of the switch, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port(String);

/// Frames that the switch drops, in both directions, without an answer to the sender.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cut {
    /// All frames of a port.
    Off(Port),
    /// The frames between two ports.
    Between(Port, Port),
    /// The packets between a port and an address.
    From(Port, Ipv4Addr),
}

impl Network {
    /// Makes an empty network.
    pub(crate) fn start() -> Arc<Network> {
        let network = Network {
            guard: Guard::start(),
            hosts: AtomicU8::new(0),
            cuts: Mutex::new(Vec::new()),
        };
        run(bed("switch").arg(network.namespace())).ok();
        Arc::new(network)
    }

    /// Runs a command line in the network's own namespace, for instance as a client of the hosts.
    pub(crate) fn exec(&self, args: &[&str]) -> super::Outcome {
        run(self.command().args(args))
    }

    /// A directory that is removed with the network.
    pub(crate) fn dir(&self) -> &std::path::Path {
        &self.guard.dir
    }

    /// The name of the network's own namespace.
    pub(crate) fn namespace(&self) -> &str {
        &self.guard.name
    }

    /// A command that will run in the network's own namespace.
    pub(crate) fn command(&self) -> Command {
        in_netns(&self.guard.name)
    }

    /// Calls a function in a thread of the network's own namespace, so that the sockets that it
    /// opens are in that namespace.
    pub(crate) fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let done = std::thread::scope(|scope| {
            let inside = || {
                enter_netns(self.namespace());
                act()
            };
            scope.spawn(inside).join()
        });
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Drops all frames from and to a host or machine, whose link stays up.
    #[track_caller]
    pub(crate) fn cut(&self, machine: &impl AsRef<Port>) {
        self.change(|cuts| cuts.push(Cut::Off(machine.as_ref().clone())));
    }

    /// Drops all frames between two hosts or machines, and no others.
    #[track_caller]
    pub(crate) fn partition(&self, first: &impl AsRef<Port>, second: &impl AsRef<Port>) {
        let (first, second) = (first.as_ref().clone(), second.as_ref().clone());
        self.change(|cuts| cuts.push(Cut::Between(first, second)));
    }

    /// Drops all packets between a host or machine and an address: the address of a member of the
    /// store, or the [`GATEWAY`].
    #[track_caller]
    pub(crate) fn cut_from(&self, machine: &impl AsRef<Port>, address: Ipv4Addr) {
        self.change(|cuts| cuts.push(Cut::From(machine.as_ref().clone(), address)));
    }

    /// Ends every cut and partition that affects a host or machine.
    #[track_caller]
    pub(crate) fn heal(&self, machine: &impl AsRef<Port>) {
        let port = machine.as_ref();
        self.change(|cuts| {
            cuts.retain(|cut| match cut {
                Cut::Off(cut_off) | Cut::From(cut_off, _) => cut_off != port,
                Cut::Between(first, second) => first != port && second != port,
            });
        });
    }

    /// Ends every cut and partition.
    #[track_caller]
    pub(crate) fn heal_all(&self) {
        self.change(Vec::clear);
    }

    /// Connects a namespace to the switch; the link in the namespace is `eth0`.
    pub(crate) fn plug(&self, port: &str, netns: &str) -> Port {
        run(bed("plug").args([self.namespace(), port, netns])).ok();
        Port(port.to_owned())
    }

    /// The next number, for a host whose options name none.
    pub(super) fn next_number(&self) -> u8 {
        self.hosts.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Changes the cuts, and replaces the rules of all cuts in one transaction of nft.
    #[track_caller]
    fn change(&self, change: impl FnOnce(&mut Vec<Cut>)) {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut cuts);
        let mut script = "flush chain bridge bed cut\n".to_owned();
        for rule in cuts.iter().flat_map(Cut::rules) {
            script += &format!("add rule bridge bed cut {rule} drop\n");
        }
        self.exec(&["nft", &script]).ok();
    }
}

impl AsRef<Port> for Port {
    fn as_ref(&self) -> &Port {
        self
    }
}

impl Cut {
    fn rules(&self) -> Vec<String> {
        match self {
            Cut::Off(Port(port)) => vec![format!("iifname {port}"), format!("oifname {port}")],
            Cut::Between(Port(first), Port(second)) => {
                vec![
                    format!("iifname {first} oifname {second}"),
                    format!("iifname {second} oifname {first}"),
                ]
            }
            Cut::From(Port(port), address) => vec![
                format!("iifname {port} ip daddr {address}"),
                format!("oifname {port} ip saddr {address}"),
            ],
        }
    }
}
