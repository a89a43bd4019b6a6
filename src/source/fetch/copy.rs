//! Fetches from a repository on this host.
//!
//! libgit2's local transport is not used: it copies every branch and tag of the other repository,
//! again at every fetch, whatever is requested.

use std::io::Write;

use git2::{ErrorClass, ErrorCode, ObjectType, Oid, Repository, RepositoryOpenFlags};

use super::error::{FetchError, FetchFailure};
use super::layout::{self, Unsafe};
use super::request::{Budget, Head, RemoteTask};
use super::url::{LocalRepository, RemoteUrl};
use crate::source::mirror;

/// The most branches that a message lists: enough to notice a misspelled name.
const MAX_LISTED_BRANCHES: usize = 10;

/// Copies what the branch adds, and returns its head. The mirror is not needed for this: what its
/// refs reach is known by their ids.
pub(super) fn fetch(
    repo: &Repository,
    local: &LocalRepository,
    url: &RemoteUrl,
    task: &RemoteTask,
    budget: &Budget,
) -> Result<Head, FetchFailure> {
    let branch = format!("refs/heads/{}", task.branch);
    let refused = |error: Unsafe| {
        FetchFailure::Known(FetchError::NoRepository {
            url: url.to_string(),
            detail: error.to_string(),
        })
    };
    let directory = layout::git_directory(local.path()).map_err(refused)?;
    layout::check(&directory, &branch).map_err(refused)?;

    let source = open(local, url)?;
    if source.is_shallow() {
        return Err(FetchFailure::Known(FetchError::Shallow {
            url: url.to_string(),
        }));
    }

    let Some(head) = mirror::ref_target(&source, &branch)? else {
        layout::check_refs(&directory).map_err(refused)?;
        return Err(FetchFailure::Known(no_branch(&source, url, &task.branch)?));
    };
    budget.announce(head);
    let mut downloaded = false;
    if task.previous() != Some(head) && task.wants(head) {
        let known: Result<Vec<Oid>, _> = task
            .known
            .values()
            .map(|id| Oid::from_str(id.as_str()))
            .collect();
        downloaded = history(&source, repo, &[head], &known?, budget)?;
    }
    Ok(Head {
        id: head,
        downloaded,
    })
}

/// Copies everything that `wanted` reach in `source` and none of `known` reaches, as one pack.
/// Returns whether there is anything to copy.
pub(super) fn history(
    source: &Repository,
    target: &Repository,
    wanted: &[Oid],
    known: &[Oid],
    budget: &Budget,
) -> Result<bool, FetchFailure> {
    let from = source.odb()?;
    let mut walk = source.revwalk()?;
    for id in wanted {
        walk.push(*id)?;
    }
    for id in known {
        // libgit2 refuses to hide a commit that the walked repository does not have.
        if let Ok((_, ObjectType::Commit)) = from.read_header(*id) {
            walk.hide(*id)?;
        }
    }

    let mut builder = source.packbuilder()?;
    // A thread is a system call that the sandbox refuses.
    builder.set_threads(1);
    builder.insert_walk(&mut walk)?;
    let objects = builder.object_count() as u64;
    if objects == 0 {
        return Ok(false);
    }
    let stopped = || {
        FetchFailure::Git(git2::Error::new(
            ErrorCode::User,
            ErrorClass::Callback,
            "stopped by a limit",
        ))
    };
    if !budget.allows(0, objects) {
        return Err(stopped());
    }

    let into = target.odb()?;
    let mut writer = into.packwriter()?;
    let mut received = 0;
    let mut write_error = None;
    let built = builder.foreach(|bytes| {
        received += bytes.len() as u64;
        if !budget.allows(received, objects) {
            return false;
        }
        let written = writer.write_all(bytes);
        // libgit2 reports a callback that returns false as "user error"; the cause is read here.
        if written.is_err() {
            write_error = Some(git2::Error::last_error(-1));
        }
        written.is_ok()
    });

    if let Some(error) = write_error {
        return Err(FetchFailure::Git(error));
    }
    if budget.exceeded().is_some() {
        return Err(stopped());
    }
    built?;
    writer.commit()?;
    Ok(true)
}

/// Opens the repository at exactly this path. libgit2 would also look for one in the directories
/// above, which is another repository than the configured one.
fn open(local: &LocalRepository, url: &RemoteUrl) -> Result<Repository, FetchFailure> {
    let no_ceilings: [&str; 0] = [];
    Repository::open_ext(local.path(), RepositoryOpenFlags::NO_SEARCH, no_ceilings).map_err(
        |error| {
            let detail = format!(
                "{} (read as user {}, the owner of the directory)",
                error.message(),
                rustix::process::geteuid().as_raw()
            );
            FetchFailure::Known(FetchError::NoRepository {
                url: url.to_string(),
                detail,
            })
        },
    )
}

fn no_branch(
    source: &Repository,
    url: &RemoteUrl,
    branch: &str,
) -> Result<FetchError, git2::Error> {
    let mut has = Vec::new();
    for reference in source
        .references_glob("refs/heads/*")?
        .take(MAX_LISTED_BRANCHES)
    {
        has.push(reference?.shorthand()?.to_owned());
    }
    Ok(missing(url, branch, has))
}

/// The error for a missing branch: the repository is empty, or it has only other branches.
pub(super) fn missing(url: &RemoteUrl, branch: &str, has: Vec<String>) -> FetchError {
    let url = url.to_string();
    if has.is_empty() {
        FetchError::Empty { url }
    } else {
        FetchError::NoSuchBranch {
            url,
            branch: branch.to_owned(),
            has,
        }
    }
}
