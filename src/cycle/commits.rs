//! What a host knows of commits: which it has verified and read, what was found in the repository, and which matter.

use jiff::Timestamp;
use reconciler::{
    cluster::commits_in_use,
    name::CommitId,
    rollout::{Head, Rollout},
};

use super::{Host, RETRY};
use crate::{
    follow::{COULD_NOT_JUDGE, Found, lock},
    library::Reading,
    metrics::{PushPhase, SignatureOutcome},
};

impl Host {
    /// Puts on disk which commits matter, as far as this host has verified them itself.
    pub(super) fn set_pointers(&self, rollout: &Rollout) -> anyhow::Result<()> {
        let mut trust = lock(&self.trust);
        let mut pointers = trust.pointers().clone();
        let known = |id: &Option<CommitId>| id.as_ref().and_then(|id| self.verified.get(id)).cloned();
        pointers.target = known(&rollout.target);
        pointers.healthy = known(&rollout.healthy);
        Ok(trust.set_pointers(pointers)?)
    }

    /// Puts on disk what images mean: what lanes have found since the last look, and what a plan has taken over from the
    /// commit before. However many there are, the file is written once.
    pub(super) fn keep_new_pins(&mut self) {
        let kept = lock(&self.trust).pin_images(self.new_pins.drain(..));
        self.note("pins", kept.map_err(|error| format!("{:#}", anyhow::Error::from(error))));
    }

    /// Reads the commits that are in use and not here yet.
    pub(super) async fn read_commits(&mut self, now: Timestamp) {
        let mut wanted = commits_in_use(self.store.snapshot());
        wanted.extend(self.detour.current().map(|detour| detour.commit.clone()));
        for id in self.library.lacking(&wanted, now) {
            let verified = match self.verified.get(&id).cloned() {
                Some(verified) => Some(verified),
                None if self.store.replicated().is_some() => self.vouch(&id).await,
                None => None,
            };
            let Some(verified) = verified else {
                let why = "this host has not verified it".to_owned();
                self.library.note_missing(id, why, now + RETRY);
                continue;
            };
            let reader = self.parts.reader.clone();
            let reading = tokio::task::spawn_blocking(move || reader.read(&verified)).await;
            match reading {
                Ok(Reading::Good(commit)) => self.library.add(commit),
                Ok(Reading::Bad { problems, .. }) => {
                    let why = format!("this version refuses it: {}", problems.join("; "));
                    self.library.note_missing(id, why, now + RETRY);
                }
                Ok(Reading::Unreadable(why)) => self.library.note_missing(id, why, now + RETRY),
                Err(error) => self.library.note_missing(id, error.to_string(), now + RETRY),
            }
        }
    }

    /// Takes in what the follower found.
    pub(crate) fn found(&mut self, found: Found) {
        match found {
            Found::Same { asked } => self.source.answered(asked),
            Found::Good { commit, verified, asked, took } => {
                self.parts.metrics.push(PushPhase::Judge, took);
                self.parts.metrics.signature(SignatureOutcome::Trusted);
                self.source.answered(asked);
                self.source.refusal = None;
                self.source.head = Some(commit.id.clone());
                self.head = Head::Accepted(commit.id.clone());
                self.verified.insert(commit.id.clone(), verified);
                for warning in &commit.warnings {
                    tracing::warn!(commit = commit.id.short(), "{warning}");
                }
                self.library.add(commit);
            }
            Found::Refused { refusal, subject, asked, untrusted } => {
                self.source.answered(asked);
                // A refused head is judged again at every look: only a new verdict is counted and told.
                if self.source.refusal.as_ref() != Some(&refusal) {
                    let trusted = untrusted.is_none();
                    let outcome =
                        if trusted { SignatureOutcome::Trusted } else { SignatureOutcome::Untrusted };
                    self.parts.metrics.signature(outcome);
                    let class = untrusted.unwrap_or("manifests");
                    tracing::error!(commit = refusal.commit.short(), class, "refused: {}", refusal.summary);
                    for problem in &refusal.problems {
                        tracing::error!(commit = refusal.commit.short(), "{problem}");
                    }
                }
                self.source.head = Some(refusal.commit.clone());
                self.head = Head::Refused {
                    commit: refusal.commit.clone(),
                    subject,
                    reason: refusal.summary.clone(),
                };
                self.source.refusal = Some(refusal);
            }
            Found::Trouble { class, error } => {
                if class == COULD_NOT_JUDGE {
                    self.parts.metrics.signature(SignatureOutcome::Error);
                }
                if self.source.error.as_ref() != Some(&error) {
                    tracing::warn!(class, "{error}");
                }
                self.source.error = Some(error);
            }
        }
    }
}
