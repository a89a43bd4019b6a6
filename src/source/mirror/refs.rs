//! The refs of the mirror: the followed branch, and a pin for each commit in use.

use std::collections::BTreeSet;

use git2::{ErrorCode, Oid, Repository};
use reconciler::name::CommitId;

use crate::source::commit::id_of;

/// The refs of this daemon, one for each commit in use: no garbage collection removes its objects.
const PINS: &str = "refs/windlass/pin/";

/// Sets the pins of a repository to exactly these commits.
pub(in crate::source) fn pin(
    repo: &Repository,
    commits: &BTreeSet<CommitId>,
) -> Result<(), git2::Error> {
    for commit in commits {
        let id = Oid::from_str(commit.as_str())?;
        let name = format!("{PINS}{commit}");
        if repo
            .find_reference(&name)
            .is_ok_and(|pin| pin.target() == Some(id))
        {
            continue;
        }
        // libgit2 would write a ref to an object that does not exist.
        repo.find_commit(id)?;
        repo.reference(&name, id, true, "in use")?;
    }

    for reference in repo.references_glob(&format!("{PINS}*"))? {
        let mut reference = reference?;
        let in_use = reference
            .name()?
            .strip_prefix(PINS)
            .and_then(|id| CommitId::parse(id).ok())
            .is_some_and(|id| commits.contains(&id));
        if !in_use {
            reference.delete()?;
        }
    }
    Ok(())
}

/// Sets the followed branch to an accepted head. The configuration may name another branch or URL
/// than before; the former branch is no longer followed.
pub(in crate::source) fn follow(
    repo: &Repository,
    branch: &str,
    head: &CommitId,
) -> Result<(), git2::Error> {
    let tracking = tracking(branch);
    let head = Oid::from_str(head.as_str())?;
    if ref_target(repo, &tracking)? != Some(head) {
        // libgit2 would write a ref to an object that does not exist.
        repo.find_commit(head)?;
        repo.reference(&tracking, head, true, "fetch")?;
    }

    for reference in repo.references_glob("refs/remotes/*")? {
        let mut reference = reference?;
        if reference.name()? != tracking {
            reference.delete()?;
        }
    }
    Ok(())
}

/// The ref of the followed branch.
pub(in crate::source) fn tracking(branch: &str) -> String {
    format!("refs/remotes/origin/{branch}")
}

/// The names and targets of all refs.
pub(in crate::source) fn refs(repo: &Repository) -> Result<Vec<(String, Oid)>, git2::Error> {
    let mut refs = Vec::new();
    for reference in repo.references()? {
        let reference = reference?;
        if let (Ok(name), Some(target)) = (reference.name(), reference.target()) {
            refs.push((name.to_owned(), target));
        }
    }
    Ok(refs)
}

/// The refs that belong to accepted commits: the pins, the branch if its head is kept, and a pin
/// for each kept commit without one.
pub(in crate::source) fn accepted_refs(
    repo: &Repository,
    keep: &BTreeSet<CommitId>,
) -> Result<Vec<(String, Oid)>, git2::Error> {
    let mut accepted = refs(repo)?;
    accepted.retain(|(name, target)| name.starts_with(PINS) || keep.contains(&id_of(*target)));
    for commit in keep {
        let id = Oid::from_str(commit.as_str())?;
        if accepted.iter().all(|(_, target)| *target != id) {
            accepted.push((format!("{PINS}{commit}"), id));
        }
    }
    Ok(accepted)
}

/// The commit that a ref names; `None` if the ref does not exist.
pub(in crate::source) fn ref_target(
    repo: &Repository,
    name: &str,
) -> Result<Option<Oid>, git2::Error> {
    match repo.find_reference(name) {
        Ok(reference) => Ok(reference.target()),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
