//! The trusted set: the commits whose own signature this host judged good, with the time of the
//! judgement and the signer.
//!
//! A key that is withdrawn or expires later removes no commit from the set: a rollback may go to a
//! commit that was judged good, and a pod of it can be made again on another host. `windlass trust
//! audit` names such keys.

use std::collections::BTreeSet;

use jiff::Timestamp;
use reconciler::name::CommitId;
use serde::{Deserialize, Serialize};

use crate::source::verify::{Grounds, VerifiedCommit};

/// One commit of the set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TrustedCommit {
    /// The commit, and why it is trusted.
    #[serde(flatten)]
    pub(crate) commit: VerifiedCommit,
    /// When this host judged the commit; `None` if a version without this set did.
    pub(crate) judged: Option<Timestamp>,
}

/// The set, in the order in which its commits were judged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TrustedSet {
    commits: Vec<TrustedCommit>,
}

impl TrustedSet {
    /// The entry of a commit.
    pub(crate) fn get(&self, id: &CommitId) -> Option<&TrustedCommit> {
        self.commits.iter().find(|one| one.commit.id() == id)
    }

    /// All entries, the oldest judgement first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &TrustedCommit> {
        self.commits.iter()
    }

    /// Adds a commit that was judged now. New grounds replace those of an earlier judgement. The
    /// anchor is trusted by the present configuration alone, not by an earlier one.
    pub(super) fn add(&mut self, commit: &VerifiedCommit, now: Timestamp) {
        self.put(commit, Some(now));
    }

    /// Adds a commit that a version without this set judged, unless the set has it.
    pub(super) fn add_undated(&mut self, commit: &VerifiedCommit) {
        if self.get(commit.id()).is_none() {
            self.put(commit, None);
        }
    }

    fn put(&mut self, commit: &VerifiedCommit, judged: Option<Timestamp>) {
        let known = self.get(commit.id()).map(|known| known.commit.grounds());
        // A signature that was judged good is kept in a time in which no signatures are checked.
        let adds_nothing =
            known == Some(commit.grounds()) || matches!(known, Some(Grounds::Signature(_)));
        if *commit.grounds() == Grounds::Anchor || adds_nothing {
            return;
        }

        self.commits.retain(|one| one.commit.id() != commit.id());
        self.commits.push(TrustedCommit {
            commit: commit.clone(),
            judged,
        });
    }

    /// Removes all but the newest `history` commits and those in use.
    pub(super) fn retain(&mut self, history: usize, in_use: &BTreeSet<CommitId>) {
        let oldest_kept = self.commits.len().saturating_sub(history);
        let mut position = 0;
        self.commits.retain(|one| {
            position += 1;
            position > oldest_kept || in_use.contains(one.commit.id())
        });
    }
}
