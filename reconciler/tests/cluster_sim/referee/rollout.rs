//! The rules for rollouts: the state of commits, canary waves, and the addresses of Services.

use std::{collections::BTreeMap, net::Ipv4Addr};

use reconciler::{
    commit::Commit,
    name::{CommitId, NodeName, ObjectKey, WorkloadKind},
    state::{ClusterState, PodRecord},
};

use crate::world::World;

impl World {
    /// During the canary wave no pod of the new commit is made on another node.
    pub(super) fn check_canaries(&mut self, before: &ClusterState, after: &ClusterState) {
        let (Some(_), Some(wave)) = (&before.rollout.wave, &after.rollout.wave) else {
            return;
        };
        let find = |id: &Option<CommitId>| {
            self.pushed
                .iter()
                .find(|commit| Some(&commit.id) == id.as_ref())
        };
        let (Some(driving), Some(healthy)) =
            (find(&after.rollout.driving), find(&after.rollout.healthy))
        else {
            return;
        };
        let made = after
            .pods
            .values()
            .filter(|record| !before.pods.contains_key(&record.uid));
        let made = made.filter(|record| self.is_made(&record.uid));
        // Pods of a superseded commit may already run on other nodes: they move when their node is
        // drained.
        let drains = driving.objects.nodes.values().any(|node| node.drain);
        let moves = |record: &PodRecord| {
            let mut pods = before.pods.values();
            drains && pods.any(|old| old.owner == record.owner && old.template == record.template)
        };
        let early = made
            .filter(|record| !moves(record))
            .filter(|record| {
                record
                    .place
                    .node()
                    .is_some_and(|node| !wave.nodes.contains(node))
            })
            .find(|record| {
                let hash = |commit: &Commit| {
                    commit
                        .objects
                        .workloads
                        .get(&record.owner)
                        .map(|owner| owner.template.hash.clone())
                };
                let new = hash(driving);
                new.as_ref() == Some(&record.template) && new != hash(healthy)
            })
            .cloned();
        self.require(early.is_none(), || {
            format!(
                "{early:?} is made during the canary wave on {:?}",
                wave.nodes
            )
        });
    }

    pub(super) fn check_rollout(&mut self, before: &ClusterState, after: &ClusterState) {
        for (commit, reason) in &after.rollout.bad {
            let is_known_bad = self.bad.contains(commit) || self.bad_on_one_host.contains(commit);
            self.require(is_known_bad, || {
                format!("{commit} can run, and is recorded as bad: {reason}")
            });
            self.referee
                .called_bad
                .entry(commit.clone())
                .or_insert_with(|| reason.to_string());
        }
        let (old, new) = (&before.rollout.driving, &after.rollout.driving);
        if old != new
            && let Some(commit) = new
        {
            let again = before.rollout.bad.contains_key(commit);
            self.require(!again, || {
                format!("{commit} is driven again, and is recorded as bad")
            });
            let known = self.pushed.iter().any(|pushed| pushed.id == *commit);
            self.require(known, || {
                format!("{commit} is driven, and was never pushed")
            });
        }
        self.check_doubtful(before, after);
        let healthy = after
            .rollout
            .healthy
            .clone()
            .filter(|healthy| self.bad.contains(healthy));
        self.require(healthy.is_none(), || {
            format!("{healthy:?} cannot run, and is recorded as healthy")
        });
    }

    /// A commit that one host cannot run becomes healthy only if that host is recorded as faulty,
    /// or is out.
    pub(super) fn check_doubtful(&mut self, before: &ClusterState, after: &ClusterState) {
        let healthy = after
            .rollout
            .healthy
            .as_ref()
            .filter(|id| before.rollout.healthy.as_ref() != Some(*id));
        let Some(id) = healthy.filter(|id| self.bad_on_one_host.contains(*id)) else {
            return;
        };
        let Some(commit) = self.pushed.iter().find(|commit| commit.id == *id) else {
            return;
        };
        let faulty_node = NodeName::new("n1");
        let daemon = |record: &PodRecord| {
            let owner = commit.objects.workloads.get(&record.owner);
            record.owner.kind == WorkloadKind::DaemonSet
                && record.place.node() == Some(&faulty_node)
                && owner.is_some_and(|owner| {
                    owner.template.hash == record.template
                        && owner
                            .template
                            .spec
                            .containers
                            .iter()
                            .any(|container| container.image.as_str() == "local:1")
                })
        };
        let runs = after.pods.values().any(daemon);
        let out = after.outages.contains_key(&faulty_node)
            || self.referee.may_be_silent(self.now, &faulty_node);
        let named = after.rollout.faulty.contains_key(&faulty_node);
        let id = id.clone();
        self.require(!runs || out || named, || {
            format!("{id} is healthy, and {faulty_node} is not recorded as faulty")
        });
    }

    pub(super) fn check_services(&mut self, after: &ClusterState) {
        let mut used: BTreeMap<Ipv4Addr, &ObjectKey> = BTreeMap::new();
        let mut violation = None;
        for (service, allocation) in &after.services {
            let Some(address) = allocation.cluster_ip else {
                continue;
            };
            if let Some(other) = used.insert(address, service) {
                violation = Some(format!("{service} and {other} both have {address}"));
            }
            let before = *self
                .referee
                .cluster_ips
                .entry(service.clone())
                .or_insert(address);
            if before != address {
                violation = Some(format!("service {service} had {before} and has {address}"));
            }
        }
        let rollout = &after.rollout;
        let needed = |service: &ObjectKey| {
            let mut commits = [&rollout.driving, &rollout.healthy].into_iter().flatten();
            commits.any(|id| {
                let commit = self.pushed.iter().find(|commit| commit.id == *id);
                commit.is_some_and(|commit| commit.objects.services.contains_key(service))
            })
        };
        let dropped: Vec<ObjectKey> = self
            .referee
            .cluster_ips
            .keys()
            .filter(|service| !after.services.contains_key(*service))
            .cloned()
            .collect();
        for service in dropped {
            if needed(&service) {
                violation = Some(format!("service {service} has lost its address"));
            }
            self.referee.cluster_ips.remove(&service);
        }
        self.require(violation.is_none(), || {
            violation.clone().unwrap_or_default()
        });
    }
}
