//! The recent events of pods and commits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use reconciler::{
    name::{ContainerId, NodeName, ObjectKey, PodUid},
    observed::Observed,
    placement::Choice,
    plan::{Lane, LaneKey, ProbeKind, Why},
    state::{ClusterState, CommitState, HistoryEntry, PodRecord},
};

use crate::{
    cycle::plan_text::describe,
    view::{EventKind, EventView, RefusedCommit},
};

/// How many events are kept.
const EVENTS: usize = 256;

/// The object of an event.
enum EventSubject<'a> {
    Pod(&'a PodUid, &'a PodRecord),
    Node(&'a NodeName),
}

/// The latest events, as `kubectl get events` shows them.
#[derive(Debug, Default)]
pub(in crate::cycle) struct RecentEvents {
    list: VecDeque<EventView>,
    /// Probes that were failing in the last cycle: each failure is reported once.
    failing: BTreeSet<(ContainerId, ProbeKind)>,
}

impl RecentEvents {
    /// All events, oldest first.
    pub(in crate::cycle) fn list(&self) -> Vec<EventView> {
        self.list.iter().cloned().collect()
    }

    /// Records the start of a lane as an event of its pod.
    pub(in crate::cycle) fn lane(&mut self, lane: &Lane, state: &ClusterState) {
        let LaneKey::Pod(uid) = &lane.key else { return };
        let Some(record) = state.pods.get(uid) else {
            return;
        };
        let reason = match &lane.why {
            Why::Start { .. } => "Starting",
            Why::Restart { .. } => "Restarting",
            Why::Repair { .. } => "Repairing",
            Why::Unhealthy { .. } => "Unhealthy",
            Why::Stop { .. } => "Killing",
            Why::Continue { .. }
            | Why::Refresh { .. }
            | Why::Clean { .. }
            | Why::Leftover
            | Why::Image { .. } => return,
        };
        let warning = matches!(
            lane.why,
            Why::Repair { .. } | Why::Unhealthy { .. } | Why::Restart { .. }
        );
        let subject = EventSubject::Pod(uid, record);
        self.add(subject, reason, warning, describe(&lane.why));
    }

    /// Records on which nodes pods were placed, and why.
    pub(in crate::cycle) fn placed(
        &mut self,
        placed: &BTreeMap<PodUid, Choice>,
        state: &ClusterState,
    ) {
        for (uid, why) in placed {
            if let Some(record) = state.pods.get(uid)
                && let Some(node) = record.place.node()
            {
                let message = format!("placed on {node}: {why}");
                self.add(EventSubject::Pod(uid, record), "Scheduled", false, message);
            }
        }
    }

    /// Records probes that began to fail since the last cycle. The message of a liveness probe is
    /// recorded with the restart that it causes.
    pub(in crate::cycle) fn probes(&mut self, observed: &Observed, state: &ClusterState) {
        let mut failing = BTreeSet::new();
        for (key, fact) in observed.probes.iter().filter(|(_, fact)| !fact.ok) {
            let word = match key.1 {
                ProbeKind::Startup => "Startup",
                ProbeKind::Readiness => "Readiness",
                ProbeKind::Liveness => continue,
            };
            failing.insert(key.clone());
            let container = observed.containers.get(&key.0);
            let Some(uid) = container.map(|container| &container.identity.uid) else {
                continue;
            };
            if !self.failing.contains(key)
                && let Some(record) = state.pods.get(uid)
            {
                let message = format!("{word} probe failed: {}", fact.message);
                let message = message.trim_end_matches([':', ' ']).to_owned();
                self.add(EventSubject::Pod(uid, record), "Unhealthy", true, message);
            }
        }
        self.failing = failing;
    }

    /// Records a failure of a pod.
    pub(in crate::cycle) fn failure(
        &mut self,
        uid: &PodUid,
        record: &PodRecord,
        reason: &str,
        message: String,
    ) {
        self.add(EventSubject::Pod(uid, record), reason, true, message);
    }

    /// Records that this host has refused a commit.
    pub(in crate::cycle) fn refused(
        &mut self,
        node: &NodeName,
        refusal: &RefusedCommit,
        subject: &str,
    ) {
        let commit = refusal.commit.short();
        let message = format!("commit {commit} \"{subject}\": {}", refusal.summary);
        self.add(EventSubject::Node(node), "CommitRefused", true, message);
    }

    /// Records that a commit is held or has failed.
    pub(in crate::cycle) fn commit(&mut self, node: &NodeName, entry: &HistoryEntry) {
        let reason = match entry.state {
            CommitState::Held => "CommitHeld",
            CommitState::RolledBack => "CommitRolledBack",
            CommitState::Degraded => "CommitDegraded",
            // Each host refuses a commit by itself, and records that then.
            CommitState::Refused
            | CommitState::Progressing
            | CommitState::Healthy
            | CommitState::Superseded => return,
        };
        let message = format!(
            "commit {} \"{}\": {}",
            entry.commit.short(),
            entry.subject,
            entry.reason
        );
        self.add(EventSubject::Node(node), reason, true, message);
    }

    fn add(&mut self, subject: EventSubject<'_>, reason: &str, warning: bool, message: String) {
        let now = Timestamp::now();
        let (kind, key, uid) = match subject {
            EventSubject::Pod(uid, record) => {
                (EventKind::Pod, record.key.clone(), Some(uid.clone()))
            }
            EventSubject::Node(node) => (EventKind::Node, ObjectKey::new("", node.as_str()), None),
        };
        let same = |event: &&mut EventView| {
            event.uid == uid
                && event.key == key
                && event.reason == reason
                && event.message == message
        };
        if let Some(event) = self.list.iter_mut().find(same) {
            event.last = now;
            event.count += 1;
            return;
        }
        if self.list.len() == EVENTS {
            self.list.pop_front();
        }
        self.list.push_back(EventView {
            kind,
            key,
            uid,
            warning,
            reason: reason.to_owned(),
            message,
            first: now,
            last: now,
            count: 1,
        });
    }
}
