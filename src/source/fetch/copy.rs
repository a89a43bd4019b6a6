//! Fetches from a repository on this host.
//!
//! libgit2's local transport is not used: it copies every branch and tag of the other repository,
//! again at every fetch, whatever is requested.

use std::io::Write;

use git2::{ErrorClass, ErrorCode, ObjectType, Oid, Repository, RepositoryOpenFlags};

use super::error::{FetchError, FetchFailure};
use super::request::{Budget, FetchRequest, Head};
use super::url::{LocalRepository, RemoteUrl};
use crate::source::mirror;

/// The most branches that a message lists: enough to notice a misspelled name.
const MAX_LISTED_BRANCHES: usize = 10;

/// Copies what the branch adds, and returns its head.
pub(super) fn fetch(
    repo: &Repository,
    local: &LocalRepository,
    url: &RemoteUrl,
    request: &FetchRequest,
    budget: &Budget,
    previous: Option<Oid>,
) -> Result<Head, FetchFailure> {
    let source = open(local, url)?;
    if source.is_shallow() {
        return Err(FetchFailure::Known(FetchError::Shallow {
            url: url.to_string(),
        }));
    }

    let Some(head) = mirror::ref_target(&source, &format!("refs/heads/{}", request.branch))? else {
        return Err(FetchFailure::Known(no_branch(
            &source,
            url,
            &request.branch,
        )?));
    };
    budget.announce(head);
    if previous == Some(head) || !request.wants(head) || repo.odb()?.exists(head) {
        return Ok(Head {
            id: head,
            downloaded: false,
        });
    }

    history(&source, repo, &[head], budget)?;
    Ok(Head {
        id: head,
        downloaded: true,
    })
}

/// Copies everything that `wanted` reach in `source` and no ref of `target` reaches yet, as one
/// pack.
pub(super) fn history(
    source: &Repository,
    target: &Repository,
    wanted: &[Oid],
    budget: &Budget,
) -> Result<(), FetchFailure> {
    let from = source.odb()?;
    let mut walk = source.revwalk()?;
    for id in wanted {
        walk.push(*id)?;
    }
    for reference in target.references()? {
        // libgit2 refuses to hide a commit that the walked repository does not have.
        if let Some(known) = reference?.target()
            && let Ok((_, ObjectType::Commit)) = from.read_header(known)
        {
            walk.hide(known)?;
        }
    }

    let mut builder = source.packbuilder()?;
    builder.insert_walk(&mut walk)?;
    let objects = builder.object_count() as u64;
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
    Ok(())
}

/// Opens the repository at exactly this path. libgit2 would also look for one in the directories
/// above, which is another repository than the configured one.
fn open(local: &LocalRepository, url: &RemoteUrl) -> Result<Repository, FetchFailure> {
    let no_ceilings: [&str; 0] = [];
    Repository::open_ext(local.path(), RepositoryOpenFlags::NO_SEARCH, no_ceilings).map_err(
        |error| {
            let detail = error.message().to_owned();
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
