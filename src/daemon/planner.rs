//! What a commit changes in the cluster: its objects are compared with those that run, and the
//! functions that decide run over a copy of the state. Nothing is applied.

mod report;
mod revision;

use std::sync::Arc;

use futures_util::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use parking_lot::Mutex;
use reconciler::{
    commit::Commit,
    difference::Unread,
    foreign,
    manifest::{Problem, ReadAs, Severity},
    name::CommitId,
    state::{CommitState, HistoryEntry},
};
use tokio::sync::{Semaphore, watch};

use self::revision::PlanRevision;
use crate::{
    commit_cache::{BadContent, Reading, parse_and_check},
    config::Config,
    follow::Judge,
    http::{
        PlanError, Planner,
        plan::{LocalManifests, PlanReport},
    },
    trust::TrustStore,
    view::View,
};

/// The id under which manifests that are in no commit are planned.
const NOT_COMMITTED: [u8; 20] = [0; 20];

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

    /// The plan for manifests that are not pushed yet, judged as a new head.
    fn work_out_local(&self, manifests: &LocalManifests) -> PlanReport {
        let view = self.views.borrow().clone();
        let files: Vec<(&str, &[u8])> = manifests
            .files
            .iter()
            .map(|file| (file.path.as_str(), file.content.as_bytes()))
            .collect();
        let (mut objects, problems) =
            parse_and_check(&files, &self.judge.reader.check, ReadAs::NewHead);
        report::take_running_secrets(&view, &mut objects);
        let (errors, warnings): (Vec<Problem>, Vec<Problem>) = problems
            .into_iter()
            .partition(|problem| problem.severity == Severity::Error);

        let mut plan = if errors.is_empty() {
            let commit = Arc::new(Commit {
                id: NOT_COMMITTED.into(),
                subject: String::new(),
                signer: String::new(),
                time: Timestamp::now(),
                allow_deletions: false,
                objects,
                warnings,
            });
            report::of_good(&view, &commit, &self.config.cluster_settings(), true)
        } else {
            let unread = Unread::of(&errors);
            let refused = report::RefusedContent {
                id: NOT_COMMITTED.into(),
                subject: String::new(),
                problems: errors.iter().map(ToString::to_string).collect(),
                content: Some(Box::new(BadContent { objects, unread })),
            };
            report::of_refused(&view, refused)
        };
        plan.commit = None;
        plan.subject = foreign::escape(&manifests.name).into_owned();
        plan
    }

    fn work_out(&self, revision: Option<&str>) -> Result<PlanReport, PlanError> {
        let view = self.views.borrow().clone();
        let id = match revision {
            Some(revision) => self.resolve(&view, revision)?,
            None => match newest(&view) {
                Some(id) => id,
                None => return Ok(PlanReport::default()),
            },
        };

        // An ineligible commit is in the view because pods run from it; only judging it again tells
        // whether it could be rolled out.
        let reading = match view.commits.get(&id) {
            Some(commit) if !view.ineligible.contains_key(&id) => Reading::Good(Arc::clone(commit)),
            _ => self.read(&view, &id)?,
        };
        match reading {
            Reading::Good(commit) => {
                let settings = self.config.cluster_settings();
                let is_head = view.source.head.as_ref() == Some(&id);
                Ok(report::of_good(&view, &commit, &settings, is_head))
            }
            Reading::Bad {
                subject,
                problems,
                content,
            } => {
                let refused = report::RefusedContent {
                    id,
                    subject,
                    problems,
                    content,
                };
                Ok(report::of_refused(&view, refused))
            }
            Reading::Unreadable(error) => Err(PlanError::Unreadable(error)),
        }
    }

    /// The id of the commit that a request names. The commit need not be verified.
    fn resolve(&self, view: &View, revision: &str) -> Result<CommitId, PlanError> {
        let url = &view.source.url;
        match PlanRevision::parse(revision)? {
            PlanRevision::Newest => newest(view).ok_or_else(|| PlanError::NoCommit {
                revision: revision.to_owned(),
                url: url.clone(),
            }),
            PlanRevision::Id(id) => Ok(id),
            PlanRevision::Prefix(prefix) => {
                let mirror = self.judge.reader.mirror.open();
                let repo = mirror.map_err(|error| PlanError::Unreadable(error.into()))?;
                let found = revision::with_prefix(&repo, &prefix, url);
                // What is refused for its signature is not in the mirror.
                match (found, refused_with_prefix(view, &prefix)) {
                    (Err(PlanError::NoCommit { .. }), Some(refused)) => Ok(refused),
                    (found, _) => found,
                }
            }
        }
    }

    /// Reads a commit that may run here; of other commits there is only the refusal.
    fn read(&self, view: &View, id: &CommitId) -> Result<Reading, PlanError> {
        let judged = self
            .judge
            .eligible(&self.trust, self.config.rollout.history, id);
        let refused = |error: PlanError| match refusal(view, id) {
            Some(reasons) => PlanError::Refused {
                commit: id.clone(),
                reasons,
            },
            None => error,
        };
        let commit = judged
            .map_err(|source| PlanError::NotJudged {
                commit: id.clone(),
                source,
            })?
            .map_err(|source| {
                refused(PlanError::Ineligible {
                    commit: id.clone(),
                    source: Box::new(source),
                })
            })?;

        let read_as = self.trust.lock().read_as(id);
        Ok(self.judge.reader.read(&commit, read_as))
    }
}

/// The newest commit that this host knows of.
fn newest(view: &View) -> Option<CommitId> {
    let known = view.source.newest();
    known.or(view.state.rollout.target.as_ref()).cloned()
}

/// Why a commit was refused when it was the head; `None` if that is not known.
fn refusal(view: &View, id: &CommitId) -> Option<Vec<String>> {
    let current = view.source.refusal.as_ref();
    if let Some(refusal) = current.filter(|refusal| refusal.commit == *id) {
        return Some(refusal.problems.clone());
    }
    let entry = refused_entries(view).find(|entry| entry.commit == *id)?;
    Some(vec![entry.reason.to_string()])
}

/// The refused commits of the history, newest first.
fn refused_entries(view: &View) -> impl Iterator<Item = &HistoryEntry> {
    let history = view.state.rollout.history.iter().rev();
    history.filter(|entry| entry.state == CommitState::Refused)
}

fn refused_with_prefix(view: &View, prefix: &str) -> Option<CommitId> {
    let current = view.source.refusal.as_ref().map(|refusal| &refusal.commit);
    current
        .into_iter()
        .chain(refused_entries(view).map(|entry| &entry.commit))
        .find(|id| id.as_str().starts_with(prefix))
        .cloned()
}

impl Planner for OfflinePlanner {
    fn plan(&self, revision: Option<String>) -> BoxFuture<'_, Result<PlanReport, PlanError>> {
        let (planner, slot) = (self.clone(), Arc::clone(&self.slot));
        async move {
            // Reading and checking a large commit uses a core for a while: only one commit is read
            // at a time, so that the daemon's workers keep the other cores.
            let Ok(_slot) = slot.try_acquire() else {
                return Err(PlanError::Busy);
            };
            let work = move || planner.work_out(revision.as_deref());
            let worked_out = tokio::task::spawn_blocking(work).await;
            worked_out.unwrap_or_else(|error| Err(PlanError::Ended(error)))
        }
        .boxed()
    }

    fn plan_local(
        &self,
        manifests: LocalManifests,
    ) -> BoxFuture<'_, Result<PlanReport, PlanError>> {
        let (planner, slot) = (self.clone(), Arc::clone(&self.slot));
        async move {
            let Ok(_slot) = slot.try_acquire() else {
                return Err(PlanError::Busy);
            };
            let work = move || planner.work_out_local(&manifests);
            tokio::task::spawn_blocking(work)
                .await
                .map_err(PlanError::Ended)
        }
        .boxed()
    }
}
