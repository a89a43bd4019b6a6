//! What a pod asks of a node: processor time, memory, ports.

use serde::{Deserialize, Serialize};

use crate::object::{Container, PodSpec, Protocol};
use crate::state::Unfit;

/// An amount of what is shared out: what a node has, or what a pod asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ResourceAmounts {
    /// Processor time, in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory, in bytes.
    pub memory_bytes: u64,
}

impl ResourceAmounts {
    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
        }
    }

    /// Why so much does not fit beside what is used already.
    pub fn too_much(self, used: Self, of: Self) -> Option<Unfit> {
        let together = used.plus(self);
        if self.cpu_millis > 0 && together.cpu_millis > of.cpu_millis {
            return Some(Unfit::Cpu);
        }
        (self.memory_bytes > 0 && together.memory_bytes > of.memory_bytes).then_some(Unfit::Memory)
    }

    fn at_least(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.max(other.cpu_millis),
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
        }
    }

    /// How full a node with so much would be with this in it, in whole per cent, the mean of both;
    /// more than 100 is too much. A node without a bound is never full.
    pub(super) fn share(self, of: Option<Self>) -> u32 {
        let Some(of) = of else { return 0 };
        let part = |used: u64, of: u64| used.saturating_mul(50) / of.max(1);
        let share = part(self.cpu_millis, of.cpu_millis)
            .saturating_add(part(self.memory_bytes, of.memory_bytes));
        u32::try_from(share).unwrap_or(u32::MAX)
    }
}

/// What a pod's containers ask for: all of them together, or the one init container that asks for
/// more, since those run one after another and before the others.
pub fn requests(spec: &PodSpec) -> ResourceAmounts {
    let asked = |container: &Container| ResourceAmounts {
        cpu_millis: container.resources.cpu_request_milli.unwrap_or(0),
        memory_bytes: container.resources.memory_request_bytes.unwrap_or(0),
    };
    let together = spec
        .containers
        .iter()
        .map(asked)
        .fold(ResourceAmounts::default(), ResourceAmounts::plus);
    spec.init_containers
        .iter()
        .map(asked)
        .fold(together, ResourceAmounts::at_least)
}

/// The ports of the host that a pod holds; with `hostNetwork` every declared port is one.
pub fn host_ports(spec: &PodSpec) -> Vec<(Protocol, u16)> {
    spec.containers
        .iter()
        .chain(&spec.init_containers)
        .flat_map(|container| &container.ports)
        .filter_map(|port| {
            let number = if spec.host_network {
                Some(port.port)
            } else {
                port.host_port
            };
            number.map(|number| (port.protocol, number))
        })
        .collect()
}
