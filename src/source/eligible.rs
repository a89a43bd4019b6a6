//! Which commits may run on this host.
//!
//! A signature vouches for the commit that carries it, and for what a merge brings in as a part of
//! that merge. It makes no other commit eligible: neither the commits before it, nor those that a
//! merge brought in.

use git2::Repository;
use reconciler::name::CommitId;
use thiserror::Error;

use super::commit;
use super::verify::{
    CommitRefusal, CouldNotCheck, Grounds, Mode, Policy, VerifiedCommit, descends, judge,
};

/// Why a commit may not run here.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Ineligible {
    /// This host has accepted no head yet.
    #[error("this host has not accepted any commit yet")]
    NothingAccepted,
    /// The commit does not descend from the anchor.
    #[error("it does not descend from the anchor {}: what is older, or lies elsewhere, never runs", anchor.short())]
    BeforeAnchor { anchor: CommitId },
    /// The commit is not one that a rollback could go to.
    #[error(
        "it is not one of the last {history} commits on the first-parent line of {}: what lies elsewhere can be \
         brought back by a new, signed commit", verified.short()
    )]
    OffTheLine {
        /// The newest accepted commit.
        verified: CommitId,
        /// The number of commits on the line that were compared.
        history: usize,
    },
    /// This host does not judge the signature of the commit good.
    #[error("{}", .0)]
    Untrusted(CommitRefusal),
}

/// Whether a commit may run here, and on which grounds. `known` is the commit's entry in the
/// trusted set, `verified` the newest accepted head.
pub(crate) fn eligible(
    repo: &Repository,
    policy: &Policy<'_>,
    known: Option<&VerifiedCommit>,
    verified: Option<&VerifiedCommit>,
    history: usize,
    id: &CommitId,
) -> Result<Result<VerifiedCommit, Ineligible>, CouldNotCheck> {
    if let Some(anchor) = policy.anchor {
        if anchor == id {
            return Ok(Ok(VerifiedCommit::new(id.clone(), Grounds::Anchor)));
        }
        if commit::exists(repo, id) && !descends(repo, id, anchor)? {
            return Ok(Err(Ineligible::BeforeAnchor {
                anchor: anchor.clone(),
            }));
        }
    }
    // What this host once judged good stays eligible when its key is withdrawn later.
    if let Some(known) = known
        && known.counts(policy.mode, policy.anchor)
    {
        return Ok(Ok(known.clone()));
    }

    let Some(verified) = verified else {
        return Ok(Err(Ineligible::NothingAccepted));
    };
    if !is_on_line(repo, policy, verified.id(), history, id)? {
        let verified = verified.id().clone();
        return Ok(Err(Ineligible::OffTheLine { verified, history }));
    }

    if policy.mode == Mode::Off {
        return Ok(Ok(VerifiedCommit::new(id.clone(), Grounds::ModeOff)));
    }
    let judged = judge(repo, policy, id)?;
    Ok(judged
        .map(|signer| VerifiedCommit::new(id.clone(), Grounds::Signature(signer)))
        .map_err(Ineligible::Untrusted))
}

/// Whether a commit is `verified` or one of the `history` commits before it on its first-parent
/// line, and not before the anchor.
fn is_on_line(
    repo: &Repository,
    policy: &Policy<'_>,
    verified: &CommitId,
    history: usize,
    id: &CommitId,
) -> Result<bool, CouldNotCheck> {
    if verified == id {
        return Ok(true);
    }
    // What lies before the anchor never runs.
    if policy.anchor == Some(verified) {
        return Ok(false);
    }

    let line = commit::first_parent_ancestors(repo, verified, history)?;
    let runnable = line
        .iter()
        .take_while(|ancestor| policy.anchor != Some(&ancestor.id));
    Ok(runnable.into_iter().any(|ancestor| ancestor.id == *id))
}

#[cfg(test)]
mod tests;
