//! The resources that a pod requests from a node: CPU, memory and host ports.

use serde::{Deserialize, Serialize};

use crate::{
    object::{Container, PodSpec, Protocol},
    state::Unfit,
};

/// An amount of CPU and memory: what a node has, or what a pod requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ResourceAmounts {
    /// CPU time, in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory in bytes, as `requests.memory` counts it.
    pub memory_bytes: u64,
}

impl ResourceAmounts {
    /// The sum of two amounts; it saturates.
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
        }
    }

    /// Why this amount does not fit beside `used` in `of`; `None` if it fits.
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

    /// Usage of a node with this amount, in whole per cent, as the mean of CPU and memory; more
    /// than 100 exceeds the node. Usage is 0 for a node of unknown size.
    pub(super) fn share(self, of: Option<Self>) -> u32 {
        let Some(of) = of else { return 0 };
        let part = |used: u64, of: u64| used.saturating_mul(50) / of.max(1);
        let share = part(self.cpu_millis, of.cpu_millis)
            .saturating_add(part(self.memory_bytes, of.memory_bytes));
        u32::try_from(share).unwrap_or(u32::MAX)
    }
}

/// The requests of a pod: the sum of all main containers, or the largest init container if that
/// requests more, since init containers run one after another before the main containers.
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

/// The host ports of a pod; with `hostNetwork` every declared container port is one.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn amounts((cpu_millis, memory_bytes): (u64, u64)) -> ResourceAmounts {
        ResourceAmounts {
            cpu_millis,
            memory_bytes,
        }
    }

    #[test]
    fn a_request_fits_up_to_the_limit_and_nothing_always_fits() {
        let of = amounts((1000, 500));
        for (asked, used, expected) in [
            ((400, 0), (600, 0), None),
            ((401, 0), (600, 0), Some(Unfit::Cpu)),
            ((0, 100), (0, 400), None),
            ((0, 101), (0, 400), Some(Unfit::Memory)),
            ((1, 1), (1000, 500), Some(Unfit::Cpu)),
            ((1, 1), (0, 500), Some(Unfit::Memory)),
            // Others exceed the node already: only what the pod itself requests is checked.
            ((0, 0), (2000, 2000), None),
            ((0, 1), (2000, 0), None),
            ((1, 0), (0, 2000), None),
        ] {
            let result = amounts(asked).too_much(amounts(used), of);
            assert_eq!(result, expected, "{asked:?} beside {used:?}");
        }
    }

    #[test]
    fn usage_is_the_mean_of_cpu_and_memory_in_per_cent() {
        let of = Some(amounts((2000, 1000)));
        for (used, of, expected) in [
            ((0, 0), of, 0),
            ((1000, 0), of, 25),
            ((0, 1000), of, 50),
            ((1000, 500), of, 50),
            ((2000, 1000), of, 100),
            ((4000, 3000), of, 250),
            ((1000, 500), None, 0),
            ((u64::MAX, u64::MAX), Some(amounts((0, 0))), u32::MAX),
        ] {
            assert_eq!(amounts(used).share(of), expected, "{used:?} of {of:?}");
        }
    }
}
