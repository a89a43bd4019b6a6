//! Which commits are trusted.
//!
//! A new head is judged over the range from `verified` (exclusive), by a mode that determines which
//! commits of the range need a signature. There are three results, which are never merged: trusted,
//! untrusted with every offender named, and could not check. The trusted keys come from the host's
//! configuration, never from a commit.

mod refusal;

use std::collections::{BTreeMap, BTreeSet};

use git2::{Repository, Sort};
use jiff::Timestamp;
use reconciler::{foreign::ForeignText, name::CommitId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub(crate) use self::refusal::{CommitRefusal, Refusals, Why};
use super::allowed_signers::{AllowedSigners, Signer};
use super::commit::{self, CommitError, CommitObject, id_of};
use super::ssh_signature::{self, NAMESPACE, SshSignature};

/// The most new commits that are judged at once; an anchor nearer to the head shortens the range.
const MAX_RANGE: usize = 100_000;
/// Git knows `gpgsig` and `gpgsig-sha256`; a refusal names any other header that begins so.
const HEADER_NAME_BYTES: usize = 64;
/// The most offenders that a refusal lists; the rest are counted.
const MAX_LISTED: usize = 20;

/// Which commits of a new range need a trusted signature of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// Every commit on the first-parent line; a trusted merge vouches for what it merges.
    #[default]
    Mainline,
    /// Every commit that is new, also those that a merge brought in.
    All,
    /// The head; the other new commits need no signature.
    Head,
    /// No commit. History must still go forward.
    Off,
}

impl Mode {
    /// The value in the configuration.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Mainline => "mainline",
            Self::All => "all",
            Self::Head => "head",
            Self::Off => "off",
        }
    }
}

/// The policy by which this host judges commits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy<'a> {
    /// Which commits need a signature.
    pub(crate) mode: Mode,
    /// The keys whose signatures count.
    pub(crate) signers: &'a AllowedSigners,
    /// The commit that every head must descend from; the anchor and its ancestors are trusted by
    /// configuration.
    pub(crate) anchor: Option<&'a CommitId>,
    /// Whether a head may leave the line of `verified`.
    pub(crate) allow_rewrite: bool,
    /// The time at which this host first observes the commits: now.
    pub(crate) now: Timestamp,
}

/// Why a commit is trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Grounds {
    /// A signature of its own, which this host judged good.
    Signature(Signer),
    /// The commit is the configured anchor.
    Anchor,
    /// Nothing was checked, since the mode was `off`. Counts only while the mode is `off`.
    ModeOff,
}

/// A verified commit: snapshots are taken only of this type.
///
/// Values are made here, and read back from the trust directory, which only this host writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VerifiedCommit {
    id: CommitId,
    grounds: Grounds,
}

/// A head that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) head: VerifiedCommit,
    /// The commits of the head's first-parent line that were judged good by their own signatures on
    /// the way, oldest first, the head last. Commits that a trusted merge brought in are not
    /// included.
    pub(crate) line: Vec<VerifiedCommit>,
}

impl VerifiedCommit {
    /// A commit, and why it is trusted. Only for code that has judged the commit, or reads the
    /// judgement from the trust directory.
    pub(crate) fn new(id: CommitId, grounds: Grounds) -> Self {
        Self { id, grounds }
    }

    /// Whether the commit is still trusted under a configuration that may have changed since.
    pub(crate) fn counts(&self, mode: Mode, anchor: Option<&CommitId>) -> bool {
        match self.grounds {
            Grounds::Signature(_) => true,
            Grounds::Anchor => anchor == Some(&self.id),
            Grounds::ModeOff => mode == Mode::Off,
        }
    }

    /// Why the commit is trusted.
    pub(crate) fn grounds(&self) -> &Grounds {
        &self.grounds
    }

    /// The commit's id.
    pub(crate) fn id(&self) -> &CommitId {
        &self.id
    }

    /// The signer; `None` if the commit is not trusted by its own signature.
    pub(crate) fn signer(&self) -> Option<&Signer> {
        match &self.grounds {
            Grounds::Signature(signer) => Some(signer),
            Grounds::Anchor | Grounds::ModeOff => None,
        }
    }
}

/// The result of judging a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeadVerdict {
    /// Every commit that needed a signature has a good one.
    Trusted(Accepted),
    /// Some commits lack a good signature, or history did not go forward.
    Untrusted(Refusals),
}

/// The head could not be judged; it is judged again later. Never a reason to refuse a head for
/// good.
#[derive(Debug, Error)]
pub(crate) enum CouldNotCheck {
    /// An object of the mirror cannot be read: fetch with a thorough check, which repairs the
    /// mirror.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The commits between two commits cannot be listed.
    #[error("walk the history of commit {}", head.short())]
    History { head: CommitId, source: git2::Error },
    /// The range is longer than one judgement may be.
    #[error(
        "more than {MAX_RANGE} commits between the last verified one and {}; \
         set an anchor closer to it", head.short()
    )]
    TooMany { head: CommitId },
}

/// Judges `head`, given the newest commit that was accepted before.
pub(crate) fn verify(
    repo: &Repository,
    policy: &Policy<'_>,
    verified: Option<&VerifiedCommit>,
    head: &CommitId,
) -> Result<HeadVerdict, CouldNotCheck> {
    if let Some(known) = verified
        && known.id == *head
        && known.counts(policy.mode, policy.anchor)
        // The anchor may be newer than the commit that was accepted before.
        && descends_from_anchor(repo, policy, head)?
    {
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
        // The head lies in history that was judged before. A merge vouches for merged commits as
        // parts of the merge, not as commits that may run: the head needs a good signature of its
        // own.
        range.push(head.clone());
    }
    judge_range(repo, policy, &range, head)
}

/// Judges each commit of a range by its own signature.
fn judge_range(
    repo: &Repository,
    policy: &Policy<'_>,
    range: &[CommitId],
    head: &CommitId,
) -> Result<HeadVerdict, CouldNotCheck> {
    let mut refusals = Refusals::default();
    let mut good = BTreeMap::new();
    for id in range {
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

/// The commits on the first-parent line of `head` among those that were judged good, oldest first.
fn judged_line(
    repo: &Repository,
    good: &BTreeMap<&CommitId, VerifiedCommit>,
    head: &CommitId,
) -> Result<Vec<VerifiedCommit>, CouldNotCheck> {
    let mut line = Vec::new();
    let mut at = Some(head.clone());

    while let Some(commit) = at.as_ref().and_then(|id| good.get(id)) {
        let parents = CommitObject::read(repo, commit.id())?.parents;
        at = parents.first().copied().map(id_of);
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

/// Classifies an error of reading a commit: an object that is complete and no valid commit is the
/// sender's fault; an object that cannot be read is a fault of this host.
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

/// Why the head does not continue the accepted history; `None` if it does.
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
        && !descends_from_anchor(repo, policy, head)?
    {
        return Ok(Some(Why::NotFromAnchor {
            anchor: anchor.clone(),
        }));
    }
    Ok(None)
}

/// Whether the head is the anchor or descends from it; true without an anchor.
fn descends_from_anchor(
    repo: &Repository,
    policy: &Policy<'_>,
    head: &CommitId,
) -> Result<bool, CouldNotCheck> {
    match policy.anchor {
        Some(anchor) => descends(repo, head, anchor),
        None => Ok(true),
    }
}

/// Whether a commit is another one, or has it among its ancestors.
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
        // The very first head, without an anchor, is judged by its own signature.
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

/// Every commit that is reachable from `head` and not from `base`, newest first.
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
        commits.push(id_of(id.map_err(history)?));
    }
    Ok(commits)
}

/// The new commits on the first-parent line from `head` to `base`; `None` if `base` is not on that
/// line (it was merged into it, or history was rewritten): then nothing vouches for the commits
/// between, and all are judged.
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
        line.push(std::mem::replace(&mut at, id_of(parent)));
    }

    if at == *base {
        Ok(Some(line))
    } else {
        Ok(None)
    }
}

/// The signer who vouches for a commit, or why there is none.
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
    // The signature is checked first: the owner of the key matters only if that key made the
    // signature.
    signature
        .verify(&key.verifying, &commit.signed_bytes)
        .map_err(Why::Signature)?;
    key.allows(NAMESPACE, commit.committer_time, policy.now)
        .map_err(|why| Why::NotAllowed {
            fingerprint: key.fingerprint.clone(),
            why,
        })
}

#[cfg(test)]
mod tests;
