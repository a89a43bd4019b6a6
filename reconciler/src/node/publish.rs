//! The content of this host's NAT table and DNS: the endpoints of all Services, as this host's own
//! commits and the reports of the other hosts show them.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use super::NodeCycle;
use crate::{
    allocate::accepted_allocations,
    commit::{Commit, locate},
    endpoints::{Endpoint, ServiceSelection, Services, Serving, is_proven, publish},
    name::{CommitId, NodeName, ObjectKey, PodUid},
    network::{DnsRecords, ServiceTable},
    object::{PodTemplate, Service},
    state::{PodRecord, Rollout, ServiceAllocation},
    status::PodStatus,
};

impl<'a> NodeCycle<'a> {
    /// The content of NAT and DNS; `None` where a part of it cannot be known: a commit that cannot
    /// be read is no reason to take a Service away from its clients.
    pub(super) fn publish(&self) -> Option<(ServiceTable, DnsRecords)> {
        let empty = BTreeMap::new();
        let services = match &self.input.state.rollout.driving {
            Some(_) => &self.driving()?.objects.services,
            None if self.mine.is_empty() && self.report.orphans.is_empty() => &empty,
            None => return None,
        };

        let mut endpoints = Vec::new();
        for record in self.input.state.pods.values() {
            let Some(node) = record.place.node() else {
                continue;
            };
            let local = node == self.input.node;
            let template = match self.template_of(record, local) {
                Some(template) => template,
                // Nothing in the store may make this host forget the Services of pods that run
                // here. A pod that was not started receives no traffic, and pods of other hosts are
                // added once this host has their commit.
                None if self.stops(record)
                    || !local
                    || !self.containers.contains_key(&record.uid) =>
                {
                    continue;
                }
                None => return None,
            };

            let status = if local {
                self.report.pods.get(&record.uid)
            } else {
                self.reported_status(node, &record.uid)
            };
            let Some(status) = status else { continue };
            // A pod that has ended answers nobody, even for a Service with
            // `publishNotReadyAddresses`.
            if status.phase.is_final() {
                continue;
            }
            let Some(address) = status.address else {
                continue;
            };
            if address.is_unspecified()
                || !local && !self.may_have(node, address, template.spec.host_network)
            {
                continue;
            }

            let serving = Serving::of(status, self.stops(record));
            let proven = is_proven(template, status);
            endpoints.push(Endpoint {
                key: &record.key,
                template,
                address,
                serving,
                proven,
                local,
            });
        }

        let known = |id: &CommitId| self.input.readable(id);
        let before = services_before(&self.input.state.rollout, known);
        Some(publish(
            &ServiceSelection::new(services, before, &endpoints),
            &self.allocations(services),
            &endpoints,
            &self.input.dns.zone,
            self.input.network.dns,
        ))
    }

    /// The template of a pod: in an eligible commit, in this host's own record of a pod that runs
    /// here, or in a commit that is kept up.
    fn template_of(&self, record: &PodRecord, local: bool) -> Option<&'a PodTemplate> {
        if let Some((_, workload)) = locate(self.input.commits, record) {
            return Some(&workload.template);
        }
        if local && let Some((_, _, workload)) = self.kept_up(record) {
            return Some(&workload.template);
        }
        let (_, workload) = locate(self.input.kept, record)?;
        Some(&workload.template)
    }

    /// The addresses and ports of Services, as far as this host accepts them.
    pub(super) fn allocations(
        &self,
        services: &BTreeMap<ObjectKey, Service>,
    ) -> BTreeMap<ObjectKey, ServiceAllocation> {
        accepted_allocations(
            &self.input.settings.ranges,
            services,
            &self.input.state.services,
        )
    }

    /// The status of a pod that another host reports, unless that host is unreachable.
    fn reported_status(&self, node: &NodeName, pod: &PodUid) -> Option<&'a PodStatus> {
        if self.input.state.outages.contains_key(node) {
            return None;
        }
        self.input.reports.get(node)?.pods.get(pod)
    }

    /// Whether a host may publish this address for a pod: an address of the host's own pod subnet,
    /// or the host's own address.
    fn may_have(&self, node: &NodeName, address: Ipv4Addr, host_network: bool) -> bool {
        self.input.peers.get(node).is_some_and(|peer| {
            if host_network {
                peer.address == address
            } else {
                peer.pod_subnet.contains(&address)
            }
        })
    }
}

/// The Services of the commits that the driving commit is still replacing, newest first.
pub fn services_before<'a>(
    rollout: &Rollout,
    known: impl Fn(&CommitId) -> Option<&'a Arc<Commit>>,
) -> Vec<&'a Services> {
    let before = if rollout.is_under_way() {
        rollout.before()
    } else {
        Vec::new()
    };
    before
        .into_iter()
        .filter_map(known)
        .map(|commit| &commit.objects.services)
        .collect()
}
