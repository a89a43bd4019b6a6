//! The work of the child process: downloads what the followed branch adds into the quarantine, and
//! checks and repacks the mirror.
//!
//! Each task takes and returns serializable values, because the daemon runs it in a child process
//! (see [`super::child`]) that can be killed at its deadline and that has limits of its own. It
//! reads no more of the mirror than its objects, and writes only to the quarantine; the daemon takes
//! the pack from there.

mod copy;
mod error;
pub(crate) mod layout;
mod network;
mod request;
mod url;

use std::collections::BTreeSet;
use std::path::Path;

use git2::{Oid, Repository};
use reconciler::name::CommitId;

use self::error::FetchFailure;
pub(crate) use self::error::{FetchError, out_of_memory};
use self::request::Budget;
pub(crate) use self::request::{
    Brought, Credentials, FetchLimits, FetchRequest, Fetched, RemoteHead, RemoteTask, SecretText,
};
pub(crate) use self::url::{HTTP, HTTPS, LocalRepository, RemoteUrl, port_in};
use super::commit::id_of;
use super::mirror::{self, Check, Mirror, MirrorError};
use super::pack::PackError;
use super::quarantine::{COMPACTED, INCOMING, InspectError};

/// Downloads the commits of the branch that the mirror lacks, or all of them if the mirror is
/// damaged.
pub(crate) fn fetch(
    mirror: &Mirror,
    task: &RemoteTask,
    limits: &FetchLimits,
) -> Result<RemoteHead, FetchError> {
    let url: RemoteUrl = task.url.parse()?;
    if task.credentials.is_some() && url.is_plain_http() {
        return Err(FetchError::BadUrl {
            url: url.to_string(),
            why: "credentials are not sent over plain http; use https".to_owned(),
        });
    }
    if !git2::Reference::is_valid_name(&mirror::tracking(&task.branch)) {
        return Err(FetchError::NoSuchBranch {
            url: url.to_string(),
            branch: task.branch.clone(),
            has: Vec::new(),
        });
    }

    let budget = Budget::new(limits);
    let path = mirror.quarantine().join(INCOMING);
    let repo = mirror::create(&path).map_err(|error| disk(mirror, &error))?;
    let head = match &url {
        RemoteUrl::Local(local) => copy::fetch(&repo, local, &url, task, &budget),
        RemoteUrl::Network(network) => begin_addition(mirror, &path, task)
            .map_err(|error| disk(mirror, &error))
            .map_err(FetchFailure::Known)
            .and_then(|repo| network::fetch(&repo, network, &url, task, &budget)),
    };
    let head = head.map_err(|failure| failure.explain(&url, &budget))?;
    Ok(RemoteHead {
        id: id_of(head.id),
        downloaded: head.downloaded,
        received_bytes: budget.received_bytes(),
    })
}

/// The error for a download whose headers were refused.
pub(crate) fn refused_by_headers(
    error: InspectError,
    url: &RemoteUrl,
    head: &CommitId,
) -> FetchError {
    let url = url.to_string();
    match error {
        InspectError::TooLarge(_)
        | InspectError::Pack(PackError::Malformed(_) | PackError::TooMany { .. }) => {
            FetchError::PackRefused {
                url,
                head: Some(head.clone()),
                what: error.to_string(),
            }
        }
        error => FetchError::Other {
            url,
            detail: chain(&error),
        },
    }
}

/// A repository in the quarantine that has the mirror's objects as its alternates, and the mirror's
/// refs: by these the remote knows which objects need not be sent.
fn begin_addition(
    mirror: &Mirror,
    path: &Path,
    task: &RemoteTask,
) -> Result<Repository, MirrorError> {
    let open = |source| MirrorError::Open {
        path: path.to_owned(),
        source,
    };
    if !task.whole {
        let alternates = path.join("objects/info/alternates");
        let failed = |step, path: &Path| {
            let path = path.to_owned();
            move |source| MirrorError::Io { step, path, source }
        };
        let objects =
            std::path::absolute(mirror.objects()).map_err(failed("find", mirror.path()))?;
        let mut line = objects.into_os_string().into_encoded_bytes();
        line.push(b'\n');
        std::fs::write(&alternates, line).map_err(failed("write", &alternates))?;
    }

    let repo = Repository::open_bare(path).map_err(open)?;
    for (name, target) in &task.known {
        let target = Oid::from_str(target.as_str()).map_err(open)?;
        repo.reference(name, target, true, "known").map_err(open)?;
    }
    Ok(repo)
}

/// Copies what these commits reach into one pack in the quarantine; other objects are garbage.
pub(crate) fn compact(mirror: &Mirror, tips: &BTreeSet<CommitId>) -> Result<(), FetchError> {
    let refs = |source| disk(mirror, &mirror.refs_error("repack", source));
    let old = mirror
        .objects_only()
        .map_err(|error| disk(mirror, &error))?;
    let path = mirror.quarantine().join(COMPACTED);
    let fresh = mirror::create(&path).map_err(|error| disk(mirror, &error))?;

    let wanted: Result<Vec<Oid>, _> = tips.iter().map(|id| Oid::from_str(id.as_str())).collect();
    copy::history(
        &old,
        &fresh,
        &wanted.map_err(refs)?,
        &[],
        &Budget::unlimited(),
    )
    .map(drop)
    .map_err(|failure| refs(failure.into_git()))
}

/// Reads every object of these commits and all their history; returns the damage that was found.
pub(crate) fn check(mirror: &Mirror, commits: &BTreeSet<CommitId>) -> Option<String> {
    let checked = mirror
        .objects_only()
        .and_then(|repo| mirror.check_commits(&repo, commits, Check::Thorough));
    checked.err().map(|damage| chain(&damage))
}

fn disk(mirror: &Mirror, error: &MirrorError) -> FetchError {
    FetchError::disk(mirror.path(), error)
}

/// An error with its causes in one line, for the answer of the child process.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
