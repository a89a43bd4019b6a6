//! The rules after the store was lost: which hosts may trust it, and which promises still hold.
//!
//! A host distrusts a store that was wiped, or that is older than what the host remembers of it:
//! the host follows its own copy, and reads nothing new, until a person adopts a copy. These rules
//! always hold:
//!
//! - A container stops only by a stop record that a leader once wrote; no two pods share a uid or
//!   an address, and no two Services an address.
//! - Each pod that runs and is not in the adopted copy keeps running until it is in the state
//!   again; then its owner decides about it as about all others.
//! - A pod of which only one may run (a bare Pod, the pod of a DaemonSet on a node, the pods of one
//!   template of a Deployment with `strategy: Recreate`) is not made while another one runs on a
//!   host that was not given up, even if the copy does not contain that one.
//! - A pod that the copy contains, and that is gone since, is not started again.
//!
//! Other rules cannot hold then. An outdated copy does not contain the decisions since then: the
//! stop of a pod is lost (a pod that was stopping may stay), as are the outcome of a commit and the
//! address of a Service that is newer than the copy. Nothing is known of the pods on a host that
//! was given up, or that is unknown to the leader: when the host comes back, a pod may run twice
//! for a while. A host that has read nothing newer trusts a backup, and may lead by it until
//! another host publishes that it distrusts the store: until a copy is adopted, pods that this
//! leader makes may run beside those of the other hosts. A host that was away until the restored
//! store had gone beyond what the host remembers takes it for the store of before.

use std::collections::{BTreeMap, BTreeSet};

use reconciler::{
    name::{NodeName, PodUid},
    state::ClusterState,
};

use super::Referee;
use crate::{
    store::{Contents, Revision},
    world::World,
};

/// What the referee remembers of stores that were lost.
#[derive(Clone, Debug, Default)]
pub(super) struct LostStores {
    /// Hosts that remember a later decision than the restored backup contains, with its incarnation
    /// and revision.
    remember_newer: BTreeMap<NodeName, (u64, Revision)>,
    /// Whether a host remembers a later revision than the restored backup.
    pub(super) in_doubt: bool,
    /// Pods that ran, or were decided, and that the store's present content does not contain by
    /// itself.
    unknown_pods: BTreeSet<PodUid>,
    /// Pods that were made while another one ran that the leader could not know of.
    allowed_duplicates: BTreeSet<PodUid>,
    /// Pods that have, or had, a started container.
    started: BTreeSet<PodUid>,
    /// Pods whose records were deleted because nothing of them was left.
    gone_pods: BTreeSet<PodUid>,
}

impl Referee {
    /// Whether both pods may run at the same time.
    pub(super) fn may_run_together(&self, starts: &PodUid, other: &PodUid) -> bool {
        let lost_stores = &self.lost_stores;
        match lost_stores.started.contains(starts) {
            true => [starts, other].into_iter().any(|uid| {
                lost_stores.unknown_pods.contains(uid)
                    || lost_stores.allowed_duplicates.contains(uid)
            }),
            false => lost_stores.allowed_duplicates.contains(starts),
        }
    }

    pub(super) fn is_unknown(&self, uid: &PodUid) -> bool {
        self.lost_stores.unknown_pods.contains(uid)
    }

    /// A leader has deleted the record of a pod.
    pub(super) fn record_deleted(&mut self, uid: &PodUid) {
        self.lost_stores.gone_pods.insert(uid.clone());
    }

    /// A pod was made while another one ran that the leader could not know of.
    pub(super) fn allow_duplicate(&mut self, uid: &PodUid) {
        self.lost_stores.allowed_duplicates.insert(uid.clone());
    }

    pub(super) fn is_in_doubt(&self) -> bool {
        self.lost_stores.in_doubt
    }
}

impl World {
    /// A backup has replaced the store's content.
    pub(crate) fn was_restored(&mut self, lost: &Contents) {
        let now = &self.store.contents;
        let incarnation = now.identity.unwrap_or_default();
        let mut in_doubt = false;
        for host in self.hosts.iter().filter(|host| !host.removed) {
            let Some(marker) = &host.view.marker else {
                continue;
            };
            in_doubt |= marker.revision > self.store.revision;
            if marker.incarnation >= incarnation && marker.decided > now.decided {
                let knows = (marker.incarnation, marker.decided);
                self.referee
                    .lost_stores
                    .remember_newer
                    .insert(host.name.clone(), knows);
            }
        }
        self.referee.lost_stores.in_doubt |=
            in_doubt || !self.referee.lost_stores.remember_newer.is_empty();
        self.referee.newest_epoch = 0;
        self.content_replaced(&lost.state);
    }

    /// A host's copy has replaced the store's content.
    pub(crate) fn was_adopted(&mut self, lost: &Contents) {
        self.referee.lost_stores.remember_newer.clear();
        self.referee.lost_stores.in_doubt = false;
        self.content_replaced(&lost.state);
    }

    fn content_replaced(&mut self, lost: &ClusterState) {
        let known = &self.store.contents.state;
        let runs = self
            .hosts
            .iter()
            .flat_map(|host| host.engine.containers.values());
        let pods = lost
            .pods
            .keys()
            .chain(runs.map(|container| &container.identity.uid));
        let unknown = pods.filter(|uid| !known.pods.contains_key(*uid)).cloned();
        self.referee.lost_stores.unknown_pods.extend(unknown);
        let services = known.services.iter();
        self.referee.cluster_ips = services
            .filter_map(|(service, services)| Some((service.clone(), services.cluster_ip?)))
            .collect();
    }

    /// Checks that a host does not trust a store that is empty, or older than what the host
    /// remembers.
    pub(crate) fn check_trust(&mut self, index: usize) {
        let host = &self.hosts[index];
        let (view, name) = (&host.view, host.name.clone());
        if !view.trusts() || !view.reads(&self.store) {
            return;
        }
        let Some(marker) = &view.marker else {
            return;
        };

        // A host that was away until the store had gone beyond what the host remembers cannot
        // detect the difference.
        let remember_newer = self
            .referee
            .lost_stores
            .remember_newer
            .get(&name)
            .is_some_and(|(incarnation, decided)| {
                marker.incarnation == *incarnation && view.contents.decided < *decided
            });
        let wiped = view.contents.identity.is_none();
        self.require(!remember_newer, || {
            format!("{name} trusts a store that is older than what it knows")
        });
        self.require(!wiped, || format!("{name} trusts a store that was wiped"));
    }

    /// Checks the start of a pod's container: the pod is on one host only, and was not gone before.
    pub(super) fn check_start(&mut self, index: usize, uid: &PodUid) {
        let elsewhere = self.hosts.iter().enumerate().find(|(other, host)| {
            *other != index
                && host
                    .engine
                    .containers
                    .values()
                    .any(|container| container.identity.uid == *uid)
        });
        let elsewhere = elsewhere.map(|(_, host)| host.name.clone());
        let here = self.hosts[index].name.clone();
        self.require(elsewhere.is_none(), || {
            format!("{uid} starts on {here} and is on {elsewhere:?}")
        });
        let lost_stores = &mut self.referee.lost_stores;
        lost_stores.started.insert(uid.clone());
        if lost_stores.in_doubt {
            lost_stores.gone_pods.remove(uid);
        }
        let was_gone = lost_stores.gone_pods.contains(uid);
        self.require(!was_gone, || {
            format!("{uid} was gone and starts again on {here}")
        });
    }

    /// A host was installed anew, and remembers nothing.
    pub(crate) fn was_reinstalled(&mut self, index: usize) {
        let name = self.hosts[index].name.clone();
        self.referee.lost_stores.remember_newer.remove(&name);
    }

    /// The leader's view of the nodes. It still contains nodes whose facts are missing in an
    /// adopted store.
    pub(super) fn leaders_view(&self) -> &Contents {
        let leader = self
            .store
            .contents
            .leader
            .map(|(leader, _)| self.hosts[leader].view.trusted());
        leader.unwrap_or(&self.store.contents)
    }

    /// Whether a pod that is new in the state was made now, and not taken back from a host after an
    /// adoption.
    pub(super) fn is_made(&self, uid: &PodUid) -> bool {
        !self.referee.lost_stores.started.contains(uid)
    }

    /// Whether any host has a container of a pod.
    pub(super) fn has_containers(&self, uid: &PodUid) -> bool {
        self.hosts.iter().any(|host| {
            host.engine
                .containers
                .values()
                .any(|container| container.identity.uid == *uid)
        })
    }
}
