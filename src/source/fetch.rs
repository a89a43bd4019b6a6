//! Downloads what the followed branch adds into the quarantine.
//!
//! [`fetch`] takes and returns serializable values, because the daemon runs it in a child process
//! (see [`super::child`]) that can be killed at its deadline and that has limits of its own. It
//! reads the mirror and writes only to the quarantine; the daemon has made that directory, and
//! moves the pack from there.

mod copy;
mod error;
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
    Brought, Credentials, FetchLimits, FetchRequest, Fetched, SecretText, Task,
};
pub(crate) use self::url::{LocalRepository, RemoteUrl};
use super::commit::id_of;
use super::mirror::{self, Check, Mirror, MirrorError};
use super::pack::PackError;
use super::quarantine::{self, COMPACTED, INCOMING, InspectError};

/// Downloads the commits of the branch that the mirror lacks, or all of them if the mirror is
/// damaged.
pub(crate) fn fetch(request: &FetchRequest) -> Result<Fetched, FetchError> {
    let url: RemoteUrl = request.url.parse()?;
    if request.credentials.is_some() && url.is_plain_http() {
        return Err(FetchError::BadUrl {
            url: url.to_string(),
            why: "credentials are not sent over plain http; use https".to_owned(),
        });
    }

    let budget = Budget::new(&request.limits);
    let mirror = Mirror::new(&request.mirror);
    let fetched = match fetch_addition(&mirror, &url, request, &budget) {
        Ok(fetched) => fetched,
        Err(Trouble::Remote(error)) => return Err(error),
        Err(Trouble::Damaged(damage)) if request.task == Task::AskHead => {
            return Err(FetchError::Corrupt {
                mirror: mirror.path().display().to_string(),
                damage: chain(&damage),
                why_kept: "nothing is downloaded while the allowed signers cannot be read"
                    .to_owned(),
            });
        }
        Err(Trouble::Damaged(damage)) => fetch_whole(&mirror, &url, request, &budget, &damage)?,
    };

    // The daemon checks the headers again before it reads content: a pack may control this process.
    if fetched.brought != Brought::Nothing {
        let objects = mirror.quarantine().join(INCOMING).join("objects");
        quarantine::inspect(&objects, &request.limits)
            .map_err(|error| refused_by_headers(error, &url, &fetched.head))?;
    }
    Ok(fetched)
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

/// The two causes of a failed fetch: the remote, and the mirror, which a new clone may repair.
enum Trouble {
    Remote(FetchError),
    Damaged(MirrorError),
}

fn fetch_addition(
    mirror: &Mirror,
    url: &RemoteUrl,
    request: &FetchRequest,
    budget: &Budget,
) -> Result<Fetched, Trouble> {
    let known = mirror.open().map_err(Trouble::Damaged)?;
    mirror
        .check(&known, &request.keep, request.check)
        .map_err(Trouble::Damaged)?;

    let repo =
        begin_addition(mirror, &known).map_err(|error| Trouble::Remote(disk(mirror, &error)))?;
    match transfer(&repo, url, request, budget) {
        Ok(fetched) => Ok(fetched),
        Err(FetchFailure::Known(error)) => Err(Trouble::Remote(error)),
        Err(failure) => {
            // An unclear error is the mirror's if the mirror cannot be read any more.
            mirror
                .check(&known, &request.keep, Check::Thorough)
                .map_err(Trouble::Damaged)?;
            Err(Trouble::Remote(failure.explain(url, budget)))
        }
    }
}

/// A repository in the quarantine that has the mirror's objects as its alternates, and the mirror's
/// refs: by these the remote knows which objects need not be sent.
fn begin_addition(mirror: &Mirror, known: &Repository) -> Result<Repository, MirrorError> {
    let path = mirror.quarantine().join(INCOMING);
    mirror::create(&path)?;

    let alternates = path.join("objects/info/alternates");
    let failed = |step, path: &Path| {
        let path = path.to_owned();
        move |source| MirrorError::Io { step, path, source }
    };
    let objects = std::path::absolute(mirror.path().join("objects"))
        .map_err(failed("find", mirror.path()))?;
    let mut line = objects.into_os_string().into_encoded_bytes();
    line.push(b'\n');
    std::fs::write(&alternates, line).map_err(failed("write", &alternates))?;

    let refs = |source| mirror.refs_error("copy the refs", source);
    let repo = Repository::open_bare(&path).map_err(|source| MirrorError::Open { path, source })?;
    for (name, target) in mirror::refs(known).map_err(refs)? {
        repo.reference(&name, target, true, "known").map_err(refs)?;
    }
    Ok(repo)
}

/// Downloads everything, without the objects of the damaged mirror. The download replaces the
/// mirror only if it holds everything that is still needed.
fn fetch_whole(
    mirror: &Mirror,
    url: &RemoteUrl,
    request: &FetchRequest,
    budget: &Budget,
    damage: &MirrorError,
) -> Result<Fetched, FetchError> {
    let damage = chain(damage);
    let kept = |why: String| FetchError::Corrupt {
        mirror: mirror.path().display().to_string(),
        damage: damage.clone(),
        why_kept: why,
    };
    let path = mirror.quarantine().join(INCOMING);
    mirror::remove_all(&path).map_err(|error| kept(chain(&error)))?;
    let repo = mirror::create(&path).map_err(|error| kept(chain(&error)))?;

    // A refused head is needed as well: the commits that are kept are part of its history.
    let everything = FetchRequest {
        task: Task::Fetch,
        refused: BTreeSet::new(),
        ..request.clone()
    };
    let fetched = match transfer(&repo, url, &everything, budget)
        .map_err(|failure| failure.explain(url, budget))
    {
        Ok(fetched) => fetched,
        Err(error @ FetchError::PackRefused { .. }) => return Err(error),
        Err(error) => return Err(kept(error.to_string())),
    };

    mirror
        .check(&repo, &request.keep, Check::Thorough)
        .map_err(|error| {
            kept(format!(
                "a new clone of {url} would lose what this host runs: {}",
                chain(&error)
            ))
        })?;
    Ok(Fetched {
        brought: Brought::Whole,
        repaired: Some(damage),
        ..fetched
    })
}

/// Transfers the branch from the remote.
fn transfer(
    repo: &Repository,
    url: &RemoteUrl,
    request: &FetchRequest,
    budget: &Budget,
) -> Result<Fetched, FetchFailure> {
    let tracking = mirror::tracking(&request.branch);
    if !git2::Reference::is_valid_name(&tracking) {
        let what = FetchError::NoSuchBranch {
            url: url.to_string(),
            branch: request.branch.clone(),
            has: Vec::new(),
        };
        return Err(FetchFailure::Known(what));
    }

    let previous = mirror::ref_target(repo, &tracking)?;
    let head = match url {
        RemoteUrl::Local(local) => copy::fetch(repo, local, url, request, budget, previous)?,
        RemoteUrl::Network(network) => {
            network::fetch(repo, network, url, request, budget, previous)?
        }
    };
    Ok(Fetched {
        head: id_of(head.id),
        previous: previous.map(id_of),
        brought: if head.downloaded {
            Brought::Addition
        } else {
            Brought::Nothing
        },
        received_bytes: budget.received_bytes(),
        repaired: None,
    })
}

/// Copies what the refs of accepted commits reach into one pack in the quarantine; other objects
/// are garbage.
pub(crate) fn compact(request: &FetchRequest) -> Result<(), FetchError> {
    let mirror = Mirror::new(&request.mirror);
    let refs = |source| disk(&mirror, &mirror.refs_error("repack", source));
    let old = mirror.open().map_err(|error| disk(&mirror, &error))?;
    let path = mirror.quarantine().join(COMPACTED);
    let fresh = mirror::remove_all(&path).and_then(|()| mirror::create(&path));
    let fresh = fresh.map_err(|error| disk(&mirror, &error))?;

    let tips = mirror::accepted_refs(&old, &request.keep).map_err(refs)?;
    if tips.is_empty() {
        return Ok(());
    }
    let tips: Vec<Oid> = tips.into_iter().map(|(_, target)| target).collect();
    copy::history(&old, &fresh, &tips, &Budget::unlimited())
        .map_err(|failure| refs(failure.into_git()))
}

fn disk(mirror: &Mirror, error: &MirrorError) -> FetchError {
    FetchError::disk(mirror.path(), error)
}

/// An error with its causes in one line, for the answer of the child process.
fn chain(error: &dyn std::error::Error) -> String {
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
