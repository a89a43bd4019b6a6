//! A machine on the network that is no host: it has no engine and no firewall, and its file system
//! is the test's.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;

use super::guard::{Guard, bed_script, in_netns};
use super::{Network, Port, run};

/// A network namespace with an address. The processes in the namespace end with this value.
#[derive(Debug)]
pub(crate) struct Machine {
    /// The machine's address on its network.
    pub(crate) address: Ipv4Addr,
    network: Arc<Network>,
    port: Port,
    guard: Guard,
}

impl Machine {
    /// Plugs a machine into a network. Hosts have addresses from 192.168.77.11 on.
    pub(crate) fn start(network: &Arc<Network>, address: Ipv4Addr) -> Machine {
        let guard = Guard::start();
        let port = network.plug(&format!("machine{}", address.octets()[3]), &guard.name);
        let machine = Machine {
            address,
            network: Arc::clone(network),
            port,
            guard,
        };
        let mut command = machine.command();
        run(command
            .arg(bed_script())
            .args(["address", &address.to_string()]))
        .ok();
        machine
    }

    /// A command that will run on the machine.
    pub(crate) fn command(&self) -> Command {
        in_netns(&self.guard.name)
    }

    /// The name of the network namespace.
    pub(crate) fn namespace(&self) -> &str {
        &self.guard.name
    }

    /// A directory that is removed with the machine.
    pub(crate) fn dir(&self) -> &std::path::Path {
        &self.guard.dir
    }
}

impl AsRef<Port> for Machine {
    fn as_ref(&self) -> &Port {
        &self.port
    }
}
