//! Checks that a commit can be read.

use std::collections::BTreeSet;

use git2::{ObjectType, Odb, Oid, Repository};
use reconciler::name::CommitId;

use super::Check;
use crate::source::commit::{self, CommitError, CommitObject};

/// Reads a commit, as thoroughly as requested. `checked` are the objects of trees that were read
/// before.
pub(super) fn check_commit(
    repo: &Repository,
    id: &CommitId,
    check: Check,
    checked: &mut BTreeSet<Oid>,
) -> Result<(), CommitError> {
    let read = |source| CommitError::Read {
        id: id.clone(),
        source,
    };
    let object = match CommitObject::read(repo, id) {
        Ok(object) => object,
        // The object exists and is complete; whether it is a valid commit is the verifier's
        // judgement.
        Err(CommitError::Malformed { .. } | CommitError::NotACommit { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };

    let database = repo.odb().map_err(read)?;
    match check {
        Check::Quick => database.read(object.tree).map(drop).map_err(read),
        Check::Thorough => {
            check_tree(repo, &database, object.tree, checked).map_err(read)?;
            let mut walk = repo.revwalk().map_err(read)?;
            walk.push(commit::oid(id)?).map_err(read)?;
            walk.try_for_each(|step| step.map(drop)).map_err(read)
        }
    }
}

/// Reads every object below a tree; libgit2 compares the hash of each object with its id.
fn check_tree(
    repo: &Repository,
    database: &Odb<'_>,
    root: Oid,
    checked: &mut BTreeSet<Oid>,
) -> Result<(), git2::Error> {
    let mut pending = vec![root];
    while let Some(id) = pending.pop() {
        if !checked.insert(id) {
            continue;
        }
        if database.read(id)?.kind() != ObjectType::Tree {
            continue;
        }
        for entry in &repo.find_tree(id)? {
            // The commit of a submodule is in another repository.
            if entry.kind() != Some(ObjectType::Commit) {
                pending.push(entry.id());
            }
        }
    }
    Ok(())
}
