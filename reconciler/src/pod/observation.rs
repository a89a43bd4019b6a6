//! The containers of a pod, as observed on the host.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use crate::{
    name::ContainerId,
    object::PodSpec,
    observed::ObservedContainer,
    plan::{Role, StopSpec},
};

/// The containers of a pod: the newest sandbox, and the newest container of each name.
pub(super) struct ObservedPod<'a> {
    /// All containers, the sandbox first, each name in the order of its attempts.
    pub(super) all: Vec<(&'a ContainerId, &'a ObservedContainer)>,
    /// The newest sandbox.
    pub(super) sandbox: Option<(&'a ContainerId, &'a ObservedContainer)>,
    /// The newest container of each name.
    pub(super) latest: BTreeMap<&'a str, (&'a ContainerId, &'a ObservedContainer)>,
    /// The container before the newest one of each name, which keeps its logs.
    pub(super) previous: BTreeMap<&'a str, (&'a ContainerId, &'a ObservedContainer)>,
}

impl<'a> ObservedPod<'a> {
    pub(super) fn new(containers: &[(&'a ContainerId, &'a ObservedContainer)]) -> Self {
        let mut all = containers.to_vec();
        all.sort_by_key(|(id, container)| (container.role, container.attempt, *id));
        let mut sandbox = None;
        let (mut latest, mut previous) = (BTreeMap::new(), BTreeMap::new());
        for (id, container) in &all {
            if container.role == Role::Sandbox {
                sandbox = Some((*id, *container));
            } else if let Some(older) = latest.insert(container.name.as_str(), (*id, *container)) {
                previous.insert(container.name.as_str(), older);
            }
        }
        Self {
            all,
            sandbox,
            latest,
            previous,
        }
    }

    /// The containers that may still run, without the sandbox.
    pub(super) fn alive(
        &self,
    ) -> impl Iterator<Item = (&'a ContainerId, &'a ObservedContainer)> + '_ {
        self.all
            .iter()
            .copied()
            .filter(|(_, one)| one.state.is_alive() && one.role != Role::Sandbox)
    }

    /// Ids of all containers. The sandbox is last, so that no container outlives its network.
    pub(super) fn ids(&self) -> Vec<ContainerId> {
        self.all.iter().rev().map(|(id, _)| (*id).clone()).collect()
    }
}

/// How to stop the wanted containers that may still run. Without a grace period the preStop hook is
/// not run, as in Kubernetes.
pub(super) fn stop_specs(
    found: &ObservedPod<'_>,
    spec: Option<&PodSpec>,
    address: Ipv4Addr,
    grace: Duration,
    wanted: impl Fn(&str) -> bool,
) -> Vec<StopSpec> {
    let pre_stop = |name: &str| {
        if grace.is_zero() {
            return None;
        }
        let mut containers = spec?.containers.iter();
        containers
            .find(|container| container.name == name)?
            .pre_stop
            .clone()
    };
    found
        .alive()
        .filter(|(_, container)| wanted(&container.name))
        .map(|(id, container)| StopSpec {
            container: id.clone(),
            pre_stop: pre_stop(&container.name),
            address,
            grace,
        })
        .collect()
}
