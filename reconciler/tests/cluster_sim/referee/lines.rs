//! What holds where the store is lost: whom it may be believed by, and which promises hold still.
//!
//! A store that was wiped, or that is of an earlier time than what a host knows of it, is not
//! believed by that host: it does what its copy says, and hears nothing new, until a person adopts
//! a copy. What holds throughout:
//!
//! - No container stops but by a stop record that some leader once gave; no pod is another one's by
//!   its uid, its address or its Service's address.
//! - Every pod that runs and that the copy does not know goes on running until it is in the state
//!   again; then its owner decides about it, as about all others.
//! - What may be there once only (a bare Pod, a DaemonSet's on a node, one template of a Deployment
//!   that recreates) is not made beside one that runs on a host which was not given up, whether the
//!   copy knows that one or not.
//! - What the copy has and what is gone since is not begun again.
//!
//! What cannot hold: a copy that is behind does not know what was decided since. The stop of a pod
//! is forgotten with it (a pod that was stopping may stay), as is what became of a commit and the
//! address of a Service that is newer than the copy. Of a host that is given up, or that the leader
//! never heard of, nobody knows what runs there; when it comes back there may be two for a while.
//! Whoever never heard of anything newer believes a backup, and may lead by it until it hears that
//! others do not: until a copy is adopted, nothing is promised between what it makes and what the
//! others run. And whoever was away until a backup had gone on beyond what he knew takes it for the
//! store that he knows.

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

/// What the referee knows of stores that were lost.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines {
    /// Hosts that know of a later decision than the backup in force has: of which incarnation and
    /// revision.
    betrayed: BTreeMap<NodeName, (u64, Revision)>,
    /// Some host knows better than a backup that took the store's place.
    pub(super) in_doubt: bool,
    /// Pods that ran, or were decided, and that the line of history in force does not know by
    /// itself.
    unknown: BTreeSet<PodUid>,
    /// Pods that were made beside another one when nobody could know better.
    beside: BTreeSet<PodUid>,
    /// Pods of which a container was ever started.
    started: BTreeSet<PodUid>,
    /// Pods that were forgotten, since nothing was left of them.
    gone: BTreeSet<PodUid>,
}

impl Referee {
    /// Whether these two may both run.
    pub(super) fn may_both_run(&self, starts: &PodUid, other: &PodUid) -> bool {
        let lines = &self.lines;
        match lines.started.contains(starts) {
            true => [starts, other]
                .into_iter()
                .any(|uid| lines.unknown.contains(uid) || lines.beside.contains(uid)),
            false => lines.beside.contains(starts),
        }
    }

    pub(super) fn is_unknown(&self, uid: &PodUid) -> bool {
        self.lines.unknown.contains(uid)
    }

    /// A leader forgets a pod.
    pub(super) fn has_gone(&mut self, uid: &PodUid) {
        self.lines.gone.insert(uid.clone());
    }

    /// A pod is made beside another one, and nobody could know better.
    pub(super) fn is_made_beside(&mut self, uid: &PodUid) {
        self.lines.beside.insert(uid.clone());
    }

    pub(super) fn is_in_doubt(&self) -> bool {
        self.lines.in_doubt
    }
}

impl World {
    /// A backup has taken the place of what was there.
    pub(crate) fn went_back(&mut self, lost: &Contents) {
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
                self.referee.lines.betrayed.insert(host.name.clone(), knows);
            }
        }
        self.referee.lines.in_doubt |= in_doubt || !self.referee.lines.betrayed.is_empty();
        self.referee.newest_epoch = 0;
        self.another_line(&lost.state);
    }

    /// A copy has taken the place of what was there.
    pub(crate) fn was_adopted(&mut self, lost: &Contents) {
        self.referee.lines.betrayed.clear();
        self.referee.lines.in_doubt = false;
        self.another_line(&lost.state);
    }

    fn another_line(&mut self, lost: &ClusterState) {
        let known = &self.store.contents.state;
        let runs = self
            .hosts
            .iter()
            .flat_map(|host| host.engine.containers.values());
        let there = lost.pods.keys().chain(runs.map(|one| &one.identity.uid));
        let unknown = there.filter(|uid| !known.pods.contains_key(*uid)).cloned();
        self.referee.lines.unknown.extend(unknown);
        let given = known.services.iter();
        self.referee.cluster_ips = given
            .filter_map(|(service, given)| Some((service.clone(), given.cluster_ip?)))
            .collect();
    }

    /// A host goes by what it believes: it must not be a store that it knows to be older, or an
    /// empty one.
    pub(crate) fn judge_belief(&mut self, index: usize) {
        let host = &self.hosts[index];
        let (view, name) = (&host.view, host.name.clone());
        let Some(marker) = view
            .marker
            .as_ref()
            .filter(|_| view.believes() && view.reads(&self.store))
        else {
            return;
        };
        // Whoever was away until the store had gone on beyond what he knew cannot tell.
        let betrayed =
            self.referee
                .lines
                .betrayed
                .get(&name)
                .is_some_and(|(incarnation, decided)| {
                    marker.incarnation == *incarnation && view.contents.decided < *decided
                });
        let wiped = view.contents.identity.is_none();
        self.require(!betrayed, || {
            format!("{name} believes a store that is older than what it knows")
        });
        self.require(!wiped, || format!("{name} believes a store that was wiped"));
    }

    /// A container of a pod starts: the pod is in one place, and was not gone already.
    pub(super) fn judge_start(&mut self, index: usize, uid: &PodUid) {
        let elsewhere = self.hosts.iter().enumerate().find(|(other, host)| {
            *other != index
                && host
                    .engine
                    .containers
                    .values()
                    .any(|one| one.identity.uid == *uid)
        });
        let elsewhere = elsewhere.map(|(_, host)| host.name.clone());
        let here = self.hosts[index].name.clone();
        self.require(elsewhere.is_none(), || {
            format!("{uid} starts on {here} and is on {elsewhere:?}")
        });
        let lines = &mut self.referee.lines;
        lines.started.insert(uid.clone());
        if lines.in_doubt {
            lines.gone.remove(uid);
        }
        let was_gone = lines.gone.contains(uid);
        self.require(!was_gone, || {
            format!("{uid} was gone and starts again on {here}")
        });
    }

    /// A host is set up anew, and knows nothing.
    pub(crate) fn has_forgotten(&mut self, index: usize) {
        let name = self.hosts[index].name.clone();
        self.referee.lines.betrayed.remove(&name);
    }

    /// What the leader knows of the nodes: it remembers those of which a store that was filled anew
    /// says nothing.
    pub(super) fn leaders_view(&self) -> &Contents {
        let leader = self
            .store
            .contents
            .leader
            .map(|(leader, _)| self.hosts[leader].view.believed());
        leader.unwrap_or(&self.store.contents)
    }

    /// Whether a pod that is new in the state was made, and does not come in again.
    pub(super) fn is_made(&self, uid: &PodUid) -> bool {
        !self.referee.lines.started.contains(uid)
    }

    /// Whether anything of a pod is on any host.
    pub(super) fn has_containers(&self, uid: &PodUid) -> bool {
        self.hosts.iter().any(|host| {
            host.engine
                .containers
                .values()
                .any(|one| one.identity.uid == *uid)
        })
    }
}
