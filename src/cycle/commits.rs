//! What a host knows of commits: which commits it has verified and read, which head the repository
//! has, and which commits are in use.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use parking_lot::Mutex;
use reconciler::{
    cluster::commits_in_use,
    commit::Commit,
    manifest::ReadAs,
    name::{CommitId, ImageReference, NodeName},
    observed::ObservedContainer,
    plan::ImagePin,
    rollout::Head,
    state::Rollout,
};

use thiserror::Error;
use tokio::task::JoinError;

use super::{Fixed, Host, RETRY, reporter::RecentEvents};
use crate::{
    commit_cache::{CommitCache, Reading},
    follow::{COULD_NOT_JUDGE, SourceUpdate},
    metrics::{Metrics, PushPhase, SignatureOutcome},
    source::{eligible::Ineligible, mirror::Mirror, verify::VerifiedCommit},
    trust::TrustStore,
    view::{HostTrouble, Part, SourceStatus},
};

/// How often a commit that is kept up, and is not eligible, is judged again: its signer may have
/// been added since.
const JUDGE_AGAIN: Duration = Duration::from_secs(30);

/// Why a commit in use could not be read.
#[derive(Debug, Error)]
enum CommitReadError {
    #[error("this version refuses it: {}", .0.join("; "))]
    Bad(Vec<String>),
    #[error("{0:#}")]
    Unreadable(anyhow::Error),
    #[error(transparent)]
    Ended(JoinError),
}

/// Why there is no proof that a commit may run here.
#[derive(Debug, Error)]
enum EligibilityError {
    #[error(transparent)]
    Ineligible(Ineligible),
    /// No judgement about the commit.
    #[error("it could not be judged: {0:#}")]
    NotJudged(anyhow::Error),
    #[error("judging it ended early: {0}")]
    Ended(JoinError),
}

/// What this host knows of commits.
pub(super) struct Knowledge {
    pub(super) trust: Arc<Mutex<TrustStore>>,
    /// The state of the repository, as `status` shows it.
    pub(super) source: SourceStatus,
    /// The newest commit of the followed branch, with its verdict.
    pub(super) head: Head,
    /// The commits that may run here, as proof for each.
    pub(super) verified: BTreeMap<CommitId, VerifiedCommit>,
    /// Commits that this host once accepted and that are not eligible now, see
    /// [`crate::trust::Pointers::kept`].
    kept: BTreeSet<CommitId>,
    /// The commits that were read from the mirror.
    pub(super) commit_cache: CommitCache,
    /// The images of tags that lanes resolved or plans took over since `images.json` was last
    /// written.
    new_pins: Vec<(CommitId, ImageReference, ImagePin)>,
    /// The commits that are pinned in the mirror.
    pinned: BTreeSet<CommitId>,
}

impl Knowledge {
    pub(super) fn at_start(
        fixed: &Fixed,
        trust: Arc<Mutex<TrustStore>>,
        source: SourceStatus,
    ) -> Self {
        let (verified, kept) = trusted_at_start(fixed, &trust);
        Self {
            trust,
            source,
            head: Head::Unknown,
            verified,
            kept,
            commit_cache: CommitCache::default(),
            new_pins: Vec::new(),
            pinned: BTreeSet::new(),
        }
    }

    /// Whether this host has judged a commit as a head, or may run it.
    pub(super) fn knows(&self, id: &CommitId) -> bool {
        self.verified.contains_key(id) || self.source.head.as_ref() == Some(id)
    }

    /// The head, if it is accepted.
    pub(super) fn accepted_head(&self) -> Option<&CommitId> {
        match &self.head {
            Head::Accepted(head) => Some(head),
            Head::Unknown | Head::Refused { .. } => None,
        }
    }

    /// Notes which images tags stand for; [`Host::keep_new_pins`] writes them to the disk.
    pub(super) fn add_pins(
        &mut self,
        pins: impl IntoIterator<Item = (CommitId, ImageReference, ImagePin)>,
    ) {
        self.new_pins.extend(pins);
    }

    /// Writes the rollout's pointers to the disk, for the commits that this host has verified
    /// itself.
    pub(super) fn set_pointers(&self, rollout: &Rollout) -> anyhow::Result<()> {
        let mut trust = self.trust.lock();
        let mut pointers = trust.pointers().clone();
        let known =
            |id: &Option<CommitId>| id.as_ref().and_then(|id| self.verified.get(id)).cloned();
        pointers.target = known(&rollout.target);
        pointers.healthy = known(&rollout.healthy);
        pointers.kept.clone_from(&self.kept);
        Ok(trust.set_pointers(pointers)?)
    }

    /// Whether exactly these commits are pinned in the mirror.
    pub(super) fn are_pinned(&self, commits: &BTreeSet<CommitId>) -> bool {
        self.pinned == *commits
    }

    /// Forgets all commits but these: in memory, in the trust directory, and the pins of their
    /// images.
    pub(super) fn retain(
        &mut self,
        keep: &BTreeSet<CommitId>,
        rollout: &Rollout,
        history: usize,
    ) -> anyhow::Result<()> {
        self.verified.retain(|id, _| keep.contains(id));
        self.kept.retain(|id| keep.contains(id));
        self.set_pointers(rollout)?;

        let mut trust = self.trust.lock();
        trust.retain_trusted(history, keep)?;
        Ok(trust.retain_images(keep)?)
    }

    /// Pins exactly these commits in the mirror. False if that must be tried again.
    pub(super) async fn pin_in(&mut self, mirror: Mirror, commits: BTreeSet<CommitId>) -> bool {
        let wanted = commits.clone();
        let pinned = tokio::task::spawn_blocking(move || mirror.pin(&wanted)).await;
        match pinned {
            Ok(Ok(true)) => {
                self.pinned = commits;
                return true;
            }
            // A fetch is under way, which pins nothing and collects no garbage: the pins are set
            // afterwards.
            Ok(Ok(false)) => {}
            Ok(Err(error)) => {
                tracing::debug!("the pins of the mirror are set in a later cycle: {error}")
            }
            Err(error) => tracing::warn!("setting the pins of the mirror ended early: {error}"),
        }
        false
    }

    /// Takes over a verdict of the follower. `events` gets a refusal that is new.
    fn source_update(
        &mut self,
        update: SourceUpdate,
        metrics: &Metrics,
        node: &NodeName,
        events: &mut RecentEvents,
    ) {
        match update {
            SourceUpdate::Same { asked } => self.source.answered(asked),
            SourceUpdate::Empty { asked } => {
                self.source.answered(asked);
                (self.source.head, self.source.refusal) = (None, None);
                self.head = Head::Unknown;
            }
            SourceUpdate::Good {
                commit,
                verified,
                asked,
                elapsed,
            } => {
                metrics.push(PushPhase::Judge, elapsed);
                metrics.signature(SignatureOutcome::Trusted);
                self.source.answered(asked);
                self.source.refusal = None;
                self.source.head = Some(commit.id.clone());
                self.head = Head::Accepted(commit.id.clone());
                self.verified.insert(commit.id.clone(), verified);
                for warning in &commit.warnings {
                    tracing::warn!(commit = commit.id.short(), "{warning}");
                }
                self.commit_cache.add(commit);
            }
            SourceUpdate::Refused {
                refusal,
                subject,
                asked,
                untrusted,
            } => {
                self.source.answered(asked);
                // A refused head is judged again at every fetch: only a new verdict is counted and
                // logged.
                if self.source.refusal.as_ref() != Some(&refusal) {
                    events.refused(node, &refusal, &subject);
                    metrics.signature(match untrusted {
                        None => SignatureOutcome::Trusted,
                        Some(_) => SignatureOutcome::Untrusted,
                    });
                    tracing::error!(
                        commit = refusal.commit.short(),
                        class = refusal.class,
                        signer = refusal.signer,
                        "refused: {}",
                        refusal.summary
                    );
                    // The summary of few problems has their texts.
                    let problems = refusal.problems.iter();
                    for problem in problems.filter(|one| !refusal.summary.contains(*one)) {
                        tracing::error!(commit = refusal.commit.short(), "{problem}");
                    }
                }
                self.source.head = Some(refusal.commit.clone());
                self.head = Head::Refused {
                    commit: refusal.commit.clone(),
                    subject,
                    signer: refusal.signer.clone(),
                    reason: refusal.summary.clone(),
                };
                self.source.refusal = Some(refusal);
            }
            SourceUpdate::Trouble { class, error } => {
                if class == COULD_NOT_JUDGE {
                    metrics.signature(SignatureOutcome::Error);
                }
                if self.source.error.as_ref() != Some(&error) {
                    tracing::warn!(class, "{error}");
                }
                self.source.error = Some(error);
            }
        }
    }
}

/// The eligible commits of the trusted set, and the commits that this host accepted once and that
/// are not eligible now.
fn trusted_at_start(
    fixed: &Fixed,
    trust: &Mutex<TrustStore>,
) -> (BTreeMap<CommitId, VerifiedCommit>, BTreeSet<CommitId>) {
    let (known, pointers): (Vec<CommitId>, _) = {
        let trust = trust.lock();
        let known = trust.trusted().iter().map(|one| one.commit.id().clone());
        (known.collect(), trust.pointers().clone())
    };

    // A commit that cannot be judged now, since there is no mirror yet, is judged when it is
    // needed.
    let eligible = |id: CommitId| {
        let judged = fixed.judge.eligible(trust, fixed.history, &id);
        judged.ok().and_then(Result::ok).map(|commit| (id, commit))
    };
    let eligible: BTreeMap<CommitId, VerifiedCommit> =
        known.into_iter().filter_map(eligible).collect();

    let accepted_once = [&pointers.target, &pointers.healthy].into_iter().flatten();
    let mut kept = pointers.kept;
    kept.extend(accepted_once.map(|commit| commit.id().clone()));
    kept.retain(|id| !eligible.contains_key(id));
    (eligible, kept)
}

/// Reads a commit on a thread for blocking work, since that takes long for a large commit.
async fn read(
    work: impl FnOnce() -> Reading + Send + 'static,
) -> Result<Arc<Commit>, CommitReadError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Reading::Good(commit)) => Ok(commit),
        Ok(Reading::Bad { problems, .. }) => Err(CommitReadError::Bad(problems)),
        Ok(Reading::Unreadable(error)) => Err(CommitReadError::Unreadable(error)),
        Err(error) => Err(CommitReadError::Ended(error)),
    }
}

impl Host {
    /// Writes to the disk which images tags stand for: pins of lanes since the last cycle, and pins
    /// that a plan took over from the commit before. The file is written once for all of them.
    pub(super) fn keep_new_pins(&mut self) {
        let Knowledge {
            trust, new_pins, ..
        } = &mut self.knowledge;
        let kept = trust.lock().pin_images(new_pins.drain(..));
        self.note(Part::Pins, kept.map_err(HostTrouble::failed));
    }

    /// The commits that pods of this host run from or that the rollout names: by the store's
    /// decisions, and by this host's own record of where it started its pods from.
    pub(super) fn in_use(&self) -> BTreeSet<CommitId> {
        let mut in_use = commits_in_use(self.store.snapshot());
        in_use.extend(self.detour.current().map(|detour| detour.commit.clone()));
        in_use.extend(self.origins().cloned());
        in_use
    }

    /// The commits that this host started its pods from, by its own record.
    fn origins(&self) -> impl Iterator<Item = &CommitId> {
        let pods = self.memory.pods().pods.values();
        pods.filter_map(|pod| pod.origin.as_ref().map(|origin| &origin.commit))
    }

    /// Reads the commits that are in use and not in memory yet.
    pub(super) async fn read_commits(&mut self, now: Timestamp) {
        for id in self.knowledge.commit_cache.lacking(&self.in_use(), now) {
            match self.eligible(&id).await {
                Ok(verified) => {
                    self.knowledge.kept.remove(&id);
                    self.read_commit(verified, now).await;
                }
                Err(error) => self.keep_up(id, error.to_string(), now).await,
            }
        }
    }

    async fn read_commit(&mut self, verified: VerifiedCommit, now: Timestamp) {
        let (reader, id) = (self.parts.reader.clone(), verified.id().clone());
        // The commit is in use, so it was accepted: by this host or the leader, by this version or
        // an older one.
        match read(move || reader.read(&verified, ReadAs::Accepted)).await {
            Ok(commit) => self.knowledge.commit_cache.add(commit),
            Err(error) => {
                self.knowledge
                    .commit_cache
                    .note_missing(id, error.to_string(), now + RETRY)
            }
        }
    }

    /// Reads a commit that is not eligible, if pods of this host run from it by this host's own
    /// records.
    async fn keep_up(&mut self, id: CommitId, why: String, now: Timestamp) {
        let again = now + JUDGE_AGAIN;
        if self.knowledge.commit_cache.keep_on(&id, &why, again) {
            return;
        }

        let is_of_commit = |container: &ObservedContainer| container.identity.commit == id;
        let has_containers = self
            .engine
            .last
            .as_ref()
            .is_some_and(|observed| observed.containers.values().any(is_of_commit));
        let was_accepted_here =
            self.knowledge.kept.contains(&id) || self.origins().any(|origin| *origin == id);
        if !has_containers && !was_accepted_here {
            return self
                .compare(id, format!("it may not run here: {why}"), now)
                .await;
        }

        let (reader, commit) = (self.parts.reader.clone(), id.clone());
        match read(move || reader.read_kept(&commit)).await {
            Ok(commit) => {
                tracing::warn!(
                    commit = id.short(),
                    "kept up in place, and not eligible: {why}"
                );
                self.knowledge.commit_cache.keep(commit, why, again);
            }
            Err(unreadable) => {
                let why = format!("it may not run here ({why}), and is not kept up: {unreadable}");
                self.knowledge
                    .commit_cache
                    .note_missing(id, why, now + RETRY);
            }
        }
    }

    /// Reads a commit that is not eligible and that no pod here runs from, if the rollout follows
    /// it: a leader must be able to compare a new commit with it, to see what the new one deletes.
    async fn compare(&mut self, id: CommitId, why: String, now: Timestamp) {
        let again = now + RETRY;
        let rollout = &self.store.snapshot().rollout;
        let is_followed = [&rollout.driving, &rollout.healthy]
            .into_iter()
            .flatten()
            .any(|one| *one == id);
        if !is_followed || !self.knowledge.commit_cache.barred().contains(&id) {
            return self.knowledge.commit_cache.note_missing(id, why, again);
        }

        let (reader, commit) = (self.parts.reader.clone(), id.clone());
        match read(move || reader.read_kept(&commit)).await {
            Ok(commit) => self
                .knowledge
                .commit_cache
                .compare(commit, why, now + JUDGE_AGAIN),
            Err(unreadable) => {
                self.knowledge
                    .commit_cache
                    .note_missing(id, format!("{why}; {unreadable}"), again)
            }
        }
    }

    /// The proof that a commit is eligible. If there is none, the follower is nudged: the leader
    /// may have fetched the commit earlier.
    async fn eligible(&mut self, id: &CommitId) -> Result<VerifiedCommit, EligibilityError> {
        if let Some(verified) = self.knowledge.verified.get(id) {
            return Ok(verified.clone());
        }

        let (judge, trust) = (self.fixed.judge.clone(), Arc::clone(&self.knowledge.trust));
        let (wanted, history) = (id.clone(), self.fixed.history);
        let judged =
            tokio::task::spawn_blocking(move || judge.eligible(&trust, history, &wanted)).await;

        let error = match judged {
            Ok(Ok(Ok(verified))) => {
                self.knowledge.verified.insert(id.clone(), verified.clone());
                let rollout = self.store.snapshot().rollout.clone();
                let kept = self.knowledge.set_pointers(&rollout);
                self.note(Part::Trust, kept.map_err(HostTrouble::failed));
                return Ok(verified);
            }
            Ok(Ok(Err(why @ (Ineligible::Untrusted(_) | Ineligible::BeforeAnchor { .. })))) => {
                // A fetch changes neither the commit's signature nor its ancestors.
                self.knowledge.commit_cache.bar(id);
                return Err(EligibilityError::Ineligible(why));
            }
            Ok(Ok(Err(why @ (Ineligible::NothingAccepted | Ineligible::OffTheLine { .. })))) => {
                EligibilityError::Ineligible(why)
            }
            Ok(Err(error)) => EligibilityError::NotJudged(error),
            Err(error) => EligibilityError::Ended(error),
        };
        if self.store.replicated().is_some() {
            self.fetch_in_turn();
        }
        Err(error)
    }

    /// Takes over a verdict of the follower.
    pub(crate) fn source_update(&mut self, update: SourceUpdate) {
        let node = self.name().clone();
        let events = &mut self.reporter.events;
        self.knowledge
            .source_update(update, &self.parts.metrics, &node, events);
    }
}
