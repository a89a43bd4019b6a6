//! Bringing the followed branch into the mirror.
//!
//! [`fetch`] is complete in itself and speaks serde on both sides, because the daemon runs it in a child process
//! (see [`super::child`]) that can be killed at its dead line and that has limits of its own.

mod copy;
mod error;
mod network;
mod request;
mod url;

use std::collections::BTreeSet;

use git2::{Oid, Repository};
use reconciler::name::CommitId;

use self::error::Failure;
pub(crate) use self::error::FetchError;
use self::request::Budget;
pub(crate) use self::request::{Credentials, FetchLimits, FetchRequest, Fetched, Secret};
pub(crate) use self::url::{LocalRepository, RemoteUrl};
use super::mirror::{self, Check, Mirror, MirrorError, MirrorLock};

/// Fetches the branch's head with all its history; the mirror is made, and made again where it is damaged.
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
    let lock = mirror.lock().map_err(|error| disk(&mirror, &error))?;
    mirror.recover(&lock).map_err(|error| disk(&mirror, &error))?;

    let damage = match fetch_into(&mirror, &url, request, &budget) {
        Ok(fetched) => {
            if mirror.is_scattered() {
                compact(&mirror, &lock, &request.keep).map_err(|error| disk(&mirror, &error))?;
            }
            return Ok(fetched);
        }
        Err(Trouble::Remote(error)) => return Err(error),
        Err(Trouble::Damaged(damage)) => damage,
    };
    clone_again(&mirror, &lock, &url, request, &budget, &damage)
}

/// The two ways a fetch goes wrong: the far side's, and ours, which a new clone may heal.
enum Trouble {
    Remote(FetchError),
    Damaged(MirrorError),
}

fn fetch_into(
    mirror: &Mirror,
    url: &RemoteUrl,
    request: &FetchRequest,
    budget: &Budget,
) -> Result<Fetched, Trouble> {
    let repo = mirror.open_or_create().map_err(Trouble::Damaged)?;
    mirror.check(&repo, &request.keep, request.check).map_err(Trouble::Damaged)?;
    match transfer(&repo, url, request, budget) {
        Ok(fetched) => Ok(fetched),
        Err(Failure::Known(error)) => Err(Trouble::Remote(error)),
        Err(failure) => {
            // Which side an unclear error is about shows in whether ours still reads.
            mirror.check(&repo, &request.keep, Check::Thorough).map_err(Trouble::Damaged)?;
            Err(Trouble::Remote(failure.explain(url, budget)))
        }
    }
}

/// Clones beside the damaged mirror, and replaces it only by one that holds everything still needed.
fn clone_again(
    mirror: &Mirror,
    lock: &MirrorLock,
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
    let repo = mirror.begin_replacement(lock).map_err(|error| kept(chain(&error)))?;
    let fetched = transfer(&repo, url, request, budget)
        .map_err(|failure| kept(failure.explain(url, budget).to_string()))?;
    mirror.check(&repo, &request.keep, Check::Thorough).map_err(|error| {
        kept(format!("a new clone of {url} would lose what this host runs: {}", chain(&error)))
    })?;
    mirror::pin(&repo, &request.keep).map_err(|error| kept(error.message().to_owned()))?;
    drop(repo);
    mirror.replace(lock).map_err(|error| kept(chain(&error)))?;
    Ok(Fetched { repaired: Some(damage), ..fetched })
}

/// Brings the branch over and moves its tracking ref.
fn transfer(
    repo: &Repository,
    url: &RemoteUrl,
    request: &FetchRequest,
    budget: &Budget,
) -> Result<Fetched, Failure> {
    let tracking = format!("refs/remotes/origin/{}", request.branch);
    if !git2::Reference::is_valid_name(&tracking) {
        let what = FetchError::NoSuchBranch {
            url: url.to_string(),
            branch: request.branch.clone(),
            has: Vec::new(),
        };
        return Err(Failure::Known(what));
    }
    let previous = mirror::ref_target(repo, &tracking)?;
    let head = match url {
        RemoteUrl::Local(local) => copy::fetch(repo, local, url, request, budget, previous)?,
        RemoteUrl::Network(network) => network::fetch(repo, network, url, request, budget, previous)?,
    };
    if previous != Some(head) {
        repo.reference(&tracking, head, true, "fetch")?;
    }
    forget_other_branches(repo, &tracking)?;
    Ok(Fetched {
        head: name(head),
        previous: previous.map(name),
        received_bytes: budget.received_bytes(),
        repaired: None,
    })
}

/// The branch or URL may have been configured anew; what the old one brought is no longer followed.
fn forget_other_branches(repo: &Repository, tracking: &str) -> Result<(), git2::Error> {
    for reference in repo.references_glob("refs/remotes/*")? {
        let mut reference = reference?;
        if reference.name()? != tracking {
            reference.delete()?;
        }
    }
    Ok(())
}

/// Rebuilds the mirror as one pack of what its refs reach; the rest is garbage.
fn compact(mirror: &Mirror, lock: &MirrorLock, keep: &BTreeSet<CommitId>) -> Result<(), MirrorError> {
    let refs = |source| MirrorError::Refs { step: "repack", path: mirror.path().to_owned(), source };
    let old = mirror.open()?;
    let fresh = mirror.begin_replacement(lock)?;
    let mut tips = Vec::new();
    for reference in old.references().map_err(refs)? {
        let reference = reference.map_err(refs)?;
        if let (Ok(name), Some(target)) = (reference.name(), reference.target()) {
            tips.push((name.to_owned(), target));
        }
    }
    let wanted: Vec<Oid> = tips.iter().map(|(_, target)| *target).collect();
    copy::history(&old, &fresh, &wanted, &Budget::unlimited()).map_err(|failure| refs(failure.into_git()))?;
    for (name, target) in tips {
        fresh.reference(&name, target, true, "repack").map_err(refs)?;
    }
    mirror.check(&fresh, keep, Check::Quick)?;
    drop((old, fresh));
    mirror.replace(lock)
}

fn disk(mirror: &Mirror, error: &MirrorError) -> FetchError {
    FetchError::Disk { mirror: mirror.path().display().to_string(), detail: chain(error) }
}

/// An error with its causes, for the one line that crosses the process boundary.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn name(id: Oid) -> CommitId {
    CommitId::new(id.to_string())
}

#[cfg(test)]
mod tests;
