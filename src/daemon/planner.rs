//! What another commit would change on this host: the functions that decide and plan run on a copy
//! of the state, and nothing is applied.

mod revision;

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use parking_lot::Mutex;
use reconciler::{
    cluster::{ClusterInput, cluster},
    commit::Commit,
    name::{CommitId, NodeName},
    rollout::Head,
    state::{Change, NodeReport, PodPlace, Record, RecordKey, StopRecord},
};
use tokio::sync::{Semaphore, watch};

use self::revision::PlanRevision;
use crate::{
    commit_cache::Reading,
    config::Config,
    follow::Judge,
    http::{PlanError, Planner, report::PlanReport},
    trust::TrustStore,
    view::{LaneView, View},
};

/// Answers `plan [COMMIT]`.
#[derive(Clone)]
pub(super) struct OfflinePlanner {
    judge: Judge,
    trust: Arc<Mutex<TrustStore>>,
    views: watch::Receiver<Arc<View>>,
    config: Config,
    slot: Arc<Semaphore>,
}

impl OfflinePlanner {
    pub(super) fn new(
        judge: Judge,
        trust: Arc<Mutex<TrustStore>>,
        views: watch::Receiver<Arc<View>>,
        config: Config,
    ) -> Self {
        Self {
            judge,
            trust,
            views,
            config,
            slot: Arc::new(Semaphore::new(1)),
        }
    }

    fn work_out(&self, revision: &str) -> Result<PlanReport, PlanError> {
        let view = self.views.borrow().clone();
        let id = self.resolve(&view, revision)?;

        // An ineligible commit is in the view because pods run from it; only judging it again tells
        // whether it could be rolled out.
        let commit = match view.commits.get(&id) {
            Some(commit) if !view.ineligible.contains_key(&id) => Arc::clone(commit),
            _ => self.read(&id)?,
        };
        Ok(PlanReport {
            commit: Some(id),
            lanes: changes(&view, &commit, &self.config),
        })
    }

    /// The id of the commit that a request names. The commit need not be verified.
    fn resolve(&self, view: &View, revision: &str) -> Result<CommitId, PlanError> {
        let url = &view.source.url;
        match PlanRevision::parse(revision)? {
            PlanRevision::Verified => {
                let verified = view.source.verified.clone();
                verified.ok_or_else(|| PlanError::NoCommit {
                    revision: revision.to_owned(),
                    url: url.clone(),
                })
            }
            PlanRevision::Id(id) => Ok(id),
            PlanRevision::Prefix(prefix) => {
                let mirror = self.judge.reader.mirror.open();
                let repo = mirror.map_err(|error| PlanError::Unreadable(error.into()))?;
                revision::with_prefix(&repo, &prefix, url)
            }
        }
    }

    /// Reads a commit that may run here; other commits are an error.
    fn read(&self, id: &CommitId) -> Result<Arc<Commit>, PlanError> {
        let judged = self
            .judge
            .eligible(&self.trust, self.config.rollout.history, id);
        let commit = judged
            .map_err(|source| PlanError::NotJudged {
                commit: id.clone(),
                source,
            })?
            .map_err(|source| PlanError::Ineligible {
                commit: id.clone(),
                source: Box::new(source),
            })?;

        let read_as = self.trust.lock().read_as(id);
        match self.judge.reader.read(&commit, read_as) {
            Reading::Good(commit) => Ok(commit),
            Reading::Bad { problems, .. } => Err(PlanError::Bad(problems)),
            Reading::Unreadable(error) => Err(PlanError::Unreadable(error)),
        }
    }
}

impl Planner for OfflinePlanner {
    fn plan(&self, revision: String) -> BoxFuture<'_, Result<PlanReport, PlanError>> {
        let (planner, slot) = (self.clone(), Arc::clone(&self.slot));
        async move {
            // Reading and checking a large commit uses a core for a while: only one commit is read
            // at a time, so that the daemon's workers keep the other cores.
            let Ok(_slot) = slot.try_acquire() else {
                return Err(PlanError::Busy);
            };
            let worked_out = tokio::task::spawn_blocking(move || planner.work_out(&revision)).await;
            worked_out.unwrap_or_else(|error| Err(PlanError::Ended(error)))
        }
        .boxed()
    }
}

/// The pods that the controllers would make and stop first, if this commit were driving now.
fn changes(view: &View, commit: &Arc<Commit>, config: &Config) -> Vec<LaneView> {
    let mut state = (*view.state).clone();
    state.rollout.target = Some(commit.id.clone());
    state.rollout.driving = Some(commit.id.clone());
    // Otherwise only the canaries of the rollout under way would change.
    state.rollout.wave = None;

    let is_kept = |id: &CommitId| view.ineligible.contains_key(id);
    let (kept, mut commits): (BTreeMap<_, _>, BTreeMap<_, _>) = view
        .commits
        .clone()
        .into_iter()
        .partition(|(id, _)| is_kept(id));
    commits.insert(commit.id.clone(), Arc::clone(commit));

    // Each node reports only its own pods, and a node without pods needs no report.
    let mut reports: BTreeMap<NodeName, NodeReport> = view
        .nodes
        .keys()
        .map(|node| (node.clone(), NodeReport::default()))
        .collect();
    for (uid, status) in view.pods.iter() {
        let node = view
            .state
            .pods
            .get(uid)
            .and_then(|record| record.place.node());
        if let Some(report) = node.and_then(|node| reports.get_mut(node)) {
            report.pods.insert(uid.clone(), status.clone());
        }
    }

    let change = cluster(&ClusterInput {
        now: Timestamp::now(),
        settings: &config.cluster_settings(),
        state: &state,
        head: &Head::Unknown,
        commits: &commits,
        kept: &kept,
        nodes: &view.nodes,
        reports: &reports,
    });
    change
        .changes
        .iter()
        .filter_map(|change| describe(view, change))
        .collect()
}

fn describe(view: &View, change: &Change) -> Option<LaneView> {
    let line = |subject: String, why: String| {
        Some(LaneView {
            subject,
            why,
            steps: Vec::new(),
        })
    };
    match change {
        Change::Put(Record::Pod(record)) => {
            let before = view.state.pods.get(&record.uid);
            match (&record.stop, before) {
                (Some(StopRecord { reason, .. }), Some(before)) if before.stop.is_none() => line(
                    format!("pod {}", record.key),
                    format!("stop: {}", reason.as_str()),
                ),
                (None, None) => {
                    let place = match &record.place {
                        PodPlace::Node(node) => format!("on {node}"),
                        PodPlace::Unplaced(why) => format!("not placed: {why}"),
                    };
                    line(
                        format!("pod {}", record.key),
                        format!("start for {} {place}", record.owner),
                    )
                }
                _ => None,
            }
        }
        Change::Put(Record::Service(key, allocation)) => {
            let address = allocation
                .cluster_ip
                .map_or_else(|| "no address".to_owned(), |one| one.to_string());
            line(
                format!("service {key}"),
                format!("{address}, node ports {:?}", allocation.node_ports),
            )
        }
        Change::Delete(RecordKey::Service(key)) => {
            line(format!("service {key}"), "remove".to_owned())
        }
        Change::Put(
            Record::Serial(_)
            | Record::Rollout(_)
            | Record::Workload(..)
            | Record::Outage(..)
            | Record::Removed(..),
        )
        | Change::Delete(
            RecordKey::Serial
            | RecordKey::Rollout
            | RecordKey::Pod(_)
            | RecordKey::Workload(_)
            | RecordKey::Outage(_)
            | RecordKey::Removed(_),
        ) => None,
    }
}
