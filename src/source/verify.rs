//! Which commits are believed.
//!
//! A new head is judged over the range from `verified` (exclusive), by a mode that says which
//! commits of the range need a signature. There are three answers and they are never folded:
//! trusted, untrusted with every offender named, and could not check. The keys that judge come from
//! the host's configuration, never from a commit.

mod refusal;

use std::collections::{BTreeMap, BTreeSet};

use git2::{Oid, Repository, Sort};
use jiff::Timestamp;
use reconciler::{foreign::ForeignText, name::CommitId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub(crate) use self::refusal::{CommitRefusal, Refusals, Why};
use super::allowed_signers::{AllowedSigners, Signer};
use super::commit::{self, CommitError, CommitObject};
use super::ssh_signature::{self, NAMESPACE, SshSignature};

/// More new commits than this are not judged in one go; an anchor nearer to the head shortens the
/// range.
const MAX_RANGE: usize = 100_000;
/// Git knows `gpgsig` and `gpgsig-sha256`; a refusal names what else begins so.
const HEADER_NAME_BYTES: usize = 64;
/// Enough offenders to act on; the rest are counted.
const MAX_LISTED: usize = 20;

/// Which commits of a new range need a trusted signature of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// Every commit on the first-parent line; a trusted merge vouches for what it merges.
    #[default]
    Mainline,
    /// Every commit that is new.
    All,
    /// The head alone.
    Head,
    /// None. History must still go forward.
    Off,
}

impl Mode {
    /// As the configuration has it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Mainline => "mainline",
            Self::All => "all",
            Self::Head => "head",
            Self::Off => "off",
        }
    }
}

/// How this host judges.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy<'a> {
    /// Which commits need a signature.
    pub(crate) mode: Mode,
    /// Whose signatures count.
    pub(crate) signers: &'a AllowedSigners,
    /// The commit every head must descend from; it and what is before it are trusted by
    /// configuration.
    pub(crate) anchor: Option<&'a CommitId>,
    /// Whether a head may leave the line of `verified`.
    pub(crate) allow_rewrite: bool,
    /// The time of first sight: now.
    pub(crate) now: Timestamp,
}

/// Why a commit is trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Grounds {
    /// A signature of its own, which this host judged good.
    Signature(Signer),
    /// It is the configured anchor.
    Anchor,
    /// Nothing was checked, since the mode was `off`. Counts only while the mode is `off`.
    ModeOff,
}

/// A commit that passed verification, the only thing a snapshot can be taken of.
///
/// It is made here, and read back from the trust directory, which nobody but this host writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VerifiedCommit {
    id: CommitId,
    grounds: Grounds,
}

/// A head that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// The head.
    pub(crate) head: VerifiedCommit,
    /// The commits of its first-parent line that were judged good by their own signatures on the
    /// way, oldest first, the head last. What a trusted merge brought in is not among them.
    pub(crate) line: Vec<VerifiedCommit>,
}

impl VerifiedCommit {
    /// A commit, and why it is trusted. Only for who has judged it, or reads that from the trust
    /// directory.
    pub(crate) fn new(id: CommitId, grounds: Grounds) -> Self {
        Self { id, grounds }
    }

    /// Whether it still is trusted under a configuration that may have changed since.
    pub(crate) fn counts(&self, mode: Mode, anchor: Option<&CommitId>) -> bool {
        match self.grounds {
            Grounds::Signature(_) => true,
            Grounds::Anchor => anchor == Some(&self.id),
            Grounds::ModeOff => mode == Mode::Off,
        }
    }

    /// Why it is trusted.
    pub(crate) fn grounds(&self) -> &Grounds {
        &self.grounds
    }

    /// The commit.
    pub(crate) fn id(&self) -> &CommitId {
        &self.id
    }

    /// Who signed it, where its own signature was judged.
    pub(crate) fn signer(&self) -> Option<&Signer> {
        match &self.grounds {
            Grounds::Signature(signer) => Some(signer),
            Grounds::Anchor | Grounds::ModeOff => None,
        }
    }
}

/// The answer about a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeadVerdict {
    /// Every commit that needed a signature has a good one.
    Trusted(Accepted),
    /// Some do not, or history did not go forward.
    Untrusted(Refusals),
}

/// Nothing is known about the head; ask again. Never a reason to refuse it for good.
#[derive(Debug, Error)]
pub(crate) enum CouldNotCheck {
    /// An object of the mirror cannot be read: fetch with a thorough check, which repairs it.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The line between two commits cannot be walked.
    #[error("walk the history of commit {}", head.short())]
    History {
        /// The head.
        head: CommitId,
        /// What libgit2 said.
        source: git2::Error,
    },
    /// The range is longer than one judgement may be.
    #[error(
        "more than {MAX_RANGE} commits between the last verified one and {}; \
         set an anchor closer to it", head.short()
    )]
    TooMany {
        /// The head.
        head: CommitId,
    },
}

/// Judges `head`, given the newest commit that was accepted before.
pub(crate) fn verify(
    repo: &Repository,
    policy: &Policy<'_>,
    verified: Option<&VerifiedCommit>,
    head: &CommitId,
) -> Result<HeadVerdict, CouldNotCheck> {
    let still_counts = |known: &VerifiedCommit| known.counts(policy.mode, policy.anchor);
    let known = verified.filter(|known| known.id == *head && still_counts(known));
    // The anchor may be newer than what was accepted before.
    let is_barred = match policy.anchor {
        Some(anchor) if known.is_some() => !descends(repo, head, anchor)?,
        _ => false,
    };
    if !is_barred && let Some(known) = known {
        return Ok(HeadVerdict::Trusted(Accepted {
            head: known.clone(),
            line: Vec::new(),
        }));
    }
    let object = match CommitObject::read(repo, head) {
        Ok(object) => object,
        Err(error) => {
            return not_a_commit(head, error).map(|refusal| HeadVerdict::Untrusted(refusal.into()));
        }
    };
    if let Some(why) = off_the_line(repo, policy, verified, head)? {
        return Ok(HeadVerdict::Untrusted(
            CommitRefusal::new(&object, why).into(),
        ));
    }
    let unsigned = |grounds| {
        let head = VerifiedCommit::new(head.clone(), grounds);
        Ok(HeadVerdict::Trusted(Accepted {
            line: vec![head.clone()],
            head,
        }))
    };
    if policy.anchor == Some(head) {
        return unsigned(Grounds::Anchor);
    }
    if policy.mode == Mode::Off {
        return unsigned(Grounds::ModeOff);
    }

    let mut range = range_to_judge(repo, policy, verified, head)?;
    if !range.contains(head) {
        // A head that lies in history that was judged before. A merge vouched for what it merged as
        // a part of it, not as a commit to be run: it has to stand by its own signature.
        range.push(head.clone());
    }
    let mut refusals = Refusals::default();
    let mut good = BTreeMap::new();
    for id in &range {
        match judge(repo, policy, id)? {
            Ok(signer) => drop(good.insert(
                id,
                VerifiedCommit::new(id.clone(), Grounds::Signature(signer)),
            )),
            Err(refusal) => refusals.add(refusal, MAX_LISTED),
        }
    }
    match good.get(head) {
        Some(trusted) if refusals.is_empty() => {
            let line = judged_line(repo, &good, head)?;
            Ok(HeadVerdict::Trusted(Accepted {
                head: trusted.clone(),
                line,
            }))
        }
        _ => Ok(HeadVerdict::Untrusted(refusals)),
    }
}

/// Of the commits that were judged good those on the first-parent line of `head`, oldest first.
fn judged_line(
    repo: &Repository,
    good: &BTreeMap<&CommitId, VerifiedCommit>,
    head: &CommitId,
) -> Result<Vec<VerifiedCommit>, CouldNotCheck> {
    let mut line = Vec::new();
    let mut at = Some(head.clone());
    while let Some(commit) = at.as_ref().and_then(|id| good.get(id)) {
        let parents = CommitObject::read(repo, commit.id())?.parents;
        at = parents.first().map(|parent| name(*parent));
        line.push(commit.clone());
    }
    line.reverse();
    Ok(line)
}

/// Judges one commit by its own signature alone.
pub(crate) fn judge(
    repo: &Repository,
    policy: &Policy<'_>,
    id: &CommitId,
) -> Result<Result<Signer, CommitRefusal>, CouldNotCheck> {
    match CommitObject::read(repo, id) {
        Ok(object) => {
            Ok(signer_of(&object, policy).map_err(|why| CommitRefusal::new(&object, why)))
        }
        Err(error) => not_a_commit(id, error).map(Err),
    }
}

/// An object that arrived whole and is no sound commit is the sender's fault; one that cannot be
/// read is ours.
fn not_a_commit(id: &CommitId, error: CommitError) -> Result<CommitRefusal, CouldNotCheck> {
    match error {
        CommitError::Malformed { what, .. } => {
            Ok(CommitRefusal::unreadable(id, Why::MalformedCommit(what)))
        }
        CommitError::NotACommit { kind, .. } => {
            Ok(CommitRefusal::unreadable(id, Why::NotACommit(kind)))
        }
        error @ (CommitError::Read { .. } | CommitError::BadId { .. }) => Err(error.into()),
    }
}

/// Why the head is not where history may go, if it is not.
fn off_the_line(
    repo: &Repository,
    policy: &Policy<'_>,
    verified: Option<&VerifiedCommit>,
    head: &CommitId,
) -> Result<Option<Why>, CouldNotCheck> {
    if !policy.allow_rewrite
        && let Some(verified) = verified
        && !descends(repo, head, &verified.id)?
    {
        return Ok(Some(Why::Rewritten {
            verified: verified.id.clone(),
        }));
    }
    if let Some(anchor) = policy.anchor
        && !descends(repo, head, anchor)?
    {
        return Ok(Some(Why::NotFromAnchor {
            anchor: anchor.clone(),
        }));
    }
    Ok(None)
}

pub(super) fn descends(
    repo: &Repository,
    head: &CommitId,
    ancestor: &CommitId,
) -> Result<bool, CouldNotCheck> {
    if head == ancestor {
        return Ok(true);
    }
    let (from, to) = (commit::oid(head)?, commit::oid(ancestor)?);
    repo.graph_descendant_of(from, to)
        .map_err(|source| CouldNotCheck::History {
            head: head.clone(),
            source,
        })
}

/// The commits whose signatures decide, newest first.
fn range_to_judge(
    repo: &Repository,
    policy: &Policy<'_>,
    verified: Option<&VerifiedCommit>,
    head: &CommitId,
) -> Result<Vec<CommitId>, CouldNotCheck> {
    let Some(base) = verified.map(|verified| &verified.id).or(policy.anchor) else {
        // The very first head, without an anchor, stands on its own signature.
        return Ok(vec![head.clone()]);
    };
    let new = new_commits(repo, base, head)?;
    match policy.mode {
        Mode::Off => Ok(Vec::new()),
        Mode::Head => Ok(new.into_iter().filter(|id| id == head).collect()),
        Mode::All => Ok(new),
        Mode::Mainline => {
            let line = mainline(repo, &new, base, head)?;
            Ok(line.unwrap_or(new))
        }
    }
}

/// Everything reachable from `head` and not from `base`, newest first.
fn new_commits(
    repo: &Repository,
    base: &CommitId,
    head: &CommitId,
) -> Result<Vec<CommitId>, CouldNotCheck> {
    let history = |source| CouldNotCheck::History {
        head: head.clone(),
        source,
    };
    let (base, tip) = (commit::oid(base)?, commit::oid(head)?);
    let mut walk = repo.revwalk().map_err(history)?;
    walk.set_sorting(Sort::TOPOLOGICAL).map_err(history)?;
    walk.push(tip).map_err(history)?;
    walk.hide(base).map_err(history)?;
    let mut commits = Vec::new();
    for id in walk {
        if commits.len() == MAX_RANGE {
            return Err(CouldNotCheck::TooMany { head: head.clone() });
        }
        commits.push(name(id.map_err(history)?));
    }
    Ok(commits)
}

/// The new commits on the first-parent line from `head` to `base`; `None` where `base` is not on
/// that line (it was merged into it, or history was rewritten), so that nothing vouches for the way
/// between and all are judged.
fn mainline(
    repo: &Repository,
    new: &[CommitId],
    base: &CommitId,
    head: &CommitId,
) -> Result<Option<Vec<CommitId>>, CouldNotCheck> {
    let new: BTreeSet<&CommitId> = new.iter().collect();
    let mut line = Vec::new();
    let mut at = head.clone();
    while new.contains(&at) {
        let parent = match CommitObject::read(repo, &at) {
            Ok(object) => object.parents.first().copied(),
            Err(error) => not_a_commit(&at, error).map(|_| None)?,
        };
        let Some(parent) = parent else {
            return Ok(None);
        };
        line.push(std::mem::replace(&mut at, name(parent)));
    }
    Ok((at == *base).then_some(line))
}

/// Who vouches for a commit, or why nobody does.
fn signer_of(commit: &CommitObject, policy: &Policy<'_>) -> Result<Signer, Why> {
    let armour = match commit.signatures.as_slice() {
        [] => return Err(Why::Unsigned),
        [(name, armour)] if name == "gpgsig" => armour,
        [(name, _)] => {
            return Err(Why::ForeignSignature(ForeignText::bounded(
                name,
                HEADER_NAME_BYTES,
            )));
        }
        several => return Err(Why::SeveralSignatures(several.len())),
    };
    if armour.starts_with(b"-----BEGIN PGP") {
        return Err(Why::OpenPgp);
    }
    if !armour.starts_with(ssh_signature::BEGIN.as_bytes()) {
        return Err(Why::UnknownFormat);
    }
    let signature = SshSignature::parse(armour).map_err(Why::Signature)?;
    let key = policy
        .signers
        .key(&signature.key_blob)
        .ok_or_else(|| Why::UnknownKey {
            fingerprint: signature.fingerprint(),
        })?;
    // First the signature: whose key it is matters only if that key made it.
    signature
        .verify(&key.verifying, &commit.signed_bytes)
        .map_err(Why::Signature)?;
    key.allows(NAMESPACE, commit.committer_time, policy.now)
        .map_err(|why| Why::NotAllowed {
            fingerprint: key.fingerprint.clone(),
            why,
        })
}

fn name(id: Oid) -> CommitId {
    CommitId::new(id.to_string())
}

#[cfg(test)]
mod tests;
