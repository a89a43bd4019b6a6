//! The lanes under way: the steps of each pod in order, all pods concurrently, and at most one lane
//! for each key.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use reconciler::{
    fault::{Fault, FaultKind},
    observed::LaneFailure,
    plan::{Lane, LaneKey, Why},
};
use tokio::{sync::mpsc, task::AbortHandle};

use crate::apply::{Done, Effects, container_of};

/// An event of a lane.
#[derive(Debug)]
pub(crate) enum LaneEvent {
    /// A step has a result that must be remembered.
    Did(Done),
    /// The lane has ended.
    Ended {
        key: LaneKey,
        /// The result; an error names the container whose step failed.
        result: Result<(), (Fault, Option<String>)>,
    },
}

struct RunningLane {
    handle: AbortHandle,
    why: Why,
}

/// The lanes under way, and the failures of earlier ones.
pub(crate) struct Lanes {
    effects: Arc<Effects>,
    running: BTreeMap<LaneKey, RunningLane>,
    failures: BTreeMap<LaneKey, LaneFailure>,
    events: mpsc::UnboundedSender<LaneEvent>,
}

impl Lanes {
    /// No lanes. The channel of their events needs no bound: the plan limits the lanes, and each
    /// lane sends a few events.
    pub(crate) fn new(effects: Arc<Effects>) -> (Self, mpsc::UnboundedReceiver<LaneEvent>) {
        let (events, receiver) = mpsc::unbounded_channel();
        (
            Self {
                effects,
                running: BTreeMap::new(),
                failures: BTreeMap::new(),
                events,
            },
            receiver,
        )
    }

    /// The keys under way.
    pub(crate) fn running(&self) -> BTreeSet<LaneKey> {
        self.running.keys().cloned().collect()
    }

    /// The keys of lanes under way that stop a pod.
    pub(crate) fn stopping(&self) -> BTreeSet<LaneKey> {
        self.running
            .iter()
            .filter(|(_, lane)| matches!(lane.why, Why::Stop { .. }))
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Failures since the last success.
    pub(crate) fn failures(&self) -> &BTreeMap<LaneKey, LaneFailure> {
        &self.failures
    }

    /// Starts a lane, unless a lane with its key is under way.
    pub(crate) fn start(&mut self, lane: Lane) {
        if self.running.contains_key(&lane.key) {
            return;
        }

        let why = lane.why.clone();
        let (effects, events, key) = (
            Arc::clone(&self.effects),
            self.events.clone(),
            lane.key.clone(),
        );
        let work = tokio::spawn({
            let events = events.clone();
            async move { run(&effects, &lane, &events).await }
        });
        self.running.insert(
            key.clone(),
            RunningLane {
                handle: work.abort_handle(),
                why,
            },
        );

        // A second task reports the end, so that a cancelled or panicked lane is reported too.
        tokio::spawn(async move {
            let result = work.await.unwrap_or_else(|error| {
                let kind = if error.is_cancelled() {
                    FaultKind::Cancelled
                } else {
                    FaultKind::Other
                };
                Err((
                    Fault::new(kind, format!("the steps of {key:?} ended early: {error}")),
                    None,
                ))
            });
            // Without a receiver the daemon is ending.
            let _ = events.send(LaneEvent::Ended { key, result });
        });
    }

    /// Cancels a lane between or within its steps; the next plan observes and repairs what the lane
    /// leaves.
    pub(crate) fn cancel(&self, key: &LaneKey) {
        if let Some(lane) = self.running.get(key) {
            lane.handle.abort();
        }
    }

    /// Records the result of a lane.
    pub(crate) fn ended(
        &mut self,
        key: LaneKey,
        result: Result<(), (Fault, Option<String>)>,
        now: Timestamp,
    ) {
        let lane = self.running.remove(&key);
        match result {
            Ok(()) => {
                self.failures.remove(&key);
            }
            // The plan cancelled the lane: that is no failure of the pod.
            Err((fault, _)) if fault.kind == FaultKind::Cancelled => {}
            Err((fault, container)) => {
                let before = self.failures.get(&key);
                let count = before.map_or(1, |before| before.count.saturating_add(1));
                let since = before.map_or(now, |before| before.since);
                let removes = lane.is_some_and(|lane| lane.why.is_removal());
                let failure = LaneFailure {
                    fault,
                    container,
                    since,
                    at: now,
                    count,
                    removes,
                };
                self.failures.insert(key, failure);
            }
        }
    }

    /// Forgets failures of lanes that are not wanted any more, and all failures when a person has
    /// requested a retry.
    pub(crate) fn forget_failures(&mut self, keep: impl Fn(&LaneKey) -> bool) {
        self.failures.retain(|key, _| keep(key));
    }

    /// Whether no lane is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }
}

async fn run(
    effects: &Effects,
    lane: &Lane,
    events: &mpsc::UnboundedSender<LaneEvent>,
) -> Result<(), (Fault, Option<String>)> {
    for step in &lane.steps {
        match effects.apply(step).await {
            Ok(Some(done)) => {
                let _ = events.send(LaneEvent::Did(done));
            }
            Ok(None) => {}
            Err(fault) => {
                tracing::warn!(lane = ?lane.key, kind = ?fault.kind, "{fault}");
                return Err((fault, container_of(step)));
            }
        }
    }
    Ok(())
}
