//! Why a commit is not trusted, as data and as a sentence.

use std::fmt;

use reconciler::{foreign::ForeignText, name::CommitId};

use crate::source::allowed_signers::{Moment, NotAllowed};
use crate::source::commit::CommitObject;
use crate::source::ssh_signature::SignatureError;

/// The offenders of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refusals {
    /// The first offenders, newest first.
    pub(crate) listed: Vec<CommitRefusal>,
    /// The number of offenders that are not listed.
    pub(crate) unlisted: usize,
}

impl Refusals {
    /// Whether there is no offender.
    pub(crate) fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// Lists an offender, or counts it once `most` are listed.
    pub(super) fn add(&mut self, refusal: CommitRefusal, most: usize) {
        if self.listed.len() < most {
            self.listed.push(refusal);
        } else {
            self.unlisted += 1;
        }
    }
}

impl From<CommitRefusal> for Refusals {
    fn from(refusal: CommitRefusal) -> Self {
        Self {
            listed: vec![refusal],
            unlisted: 0,
        }
    }
}

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, refusal) in self.listed.iter().enumerate() {
            write!(f, "{}{refusal}", if index == 0 { "" } else { "; " })?;
        }
        match self.unlisted {
            0 => Ok(()),
            more => write!(f, "; and {more} more commits"),
        }
    }
}

/// One commit that is not trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommitRefusal {
    pub(crate) commit: CommitId,
    /// The subject of the commit; empty if the commit could not be parsed.
    pub(crate) subject: ForeignText,
    /// Why the commit is not trusted.
    pub(crate) why: Why,
}

impl CommitRefusal {
    pub(super) fn new(commit: &CommitObject, why: Why) -> Self {
        Self {
            commit: commit.id.clone(),
            subject: commit.subject(),
            why,
        }
    }

    pub(super) fn unreadable(commit: &CommitId, why: Why) -> Self {
        Self {
            commit: commit.clone(),
            subject: ForeignText::default(),
            why,
        }
    }
}

impl fmt::Display for CommitRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "commit {}", self.commit.short())?;
        if !self.subject.is_empty() {
            write!(f, " \"{}\"", self.subject)?;
        }
        write!(f, ": {}", self.why)
    }
}

/// Why a commit is not trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The commit has no signature.
    Unsigned,
    /// The commit has several signature headers: which one counts would depend on the reader.
    SeveralSignatures(usize),
    /// A signature for another object format.
    ForeignSignature(ForeignText),
    /// An OpenPGP signature.
    OpenPgp,
    /// A signature that is neither SSH nor OpenPGP.
    UnknownFormat,
    /// The SSH signature itself is invalid.
    Signature(SignatureError),
    /// The key is in no line of the allowed signers.
    UnknownKey {
        /// The fingerprint of the key, as `SHA256:...`.
        fingerprint: String,
    },
    /// The key is listed, and does not vouch in this namespace or at this time.
    NotAllowed {
        /// The fingerprint of the key, as `SHA256:...`.
        fingerprint: String,
        /// Why the key does not vouch.
        why: NotAllowed,
    },
    /// The head does not descend from the last verified commit.
    Rewritten {
        /// The id of that commit.
        verified: CommitId,
    },
    /// The head does not descend from the configured anchor.
    NotFromAnchor { anchor: CommitId },
    /// The branch names an object of another type.
    NotACommit(&'static str),
    /// The header of the commit cannot be parsed.
    MalformedCommit(&'static str),
}

impl Why {
    /// A word of a fixed set, for metrics and JSON.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::SeveralSignatures(_) => "several-signatures",
            Self::ForeignSignature(_) | Self::OpenPgp | Self::UnknownFormat => "unsupported-format",
            Self::Signature(_) => "bad-signature",
            Self::UnknownKey { .. } => "unknown-key",
            Self::NotAllowed { .. } => "key-not-allowed",
            Self::Rewritten { .. } => "rewritten",
            Self::NotFromAnchor { .. } => "not-from-anchor",
            Self::NotACommit(_) | Self::MalformedCommit(_) => "malformed",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned => f.write_str("it is not signed"),
            Self::SeveralSignatures(count) => {
                write!(f, "it has {count} signatures, and only one may be there")
            }
            Self::ForeignSignature(header) => {
                write!(
                    f,
                    "its only signature is in the header {header}, which does not count in this repository"
                )
            }
            Self::OpenPgp => f.write_str(
                "OpenPGP signatures are not supported yet; sign with an SSH key (git config gpg.format ssh)",
            ),
            Self::UnknownFormat => f.write_str(
                "its signature is of an unknown format; sign with an SSH key (git config gpg.format ssh)",
            ),
            Self::Signature(error) => error.fmt(f),
            Self::UnknownKey { fingerprint } => {
                write!(f, "its key {fingerprint} is not in the allowed signers of this host")
            }
            Self::NotAllowed { fingerprint, why } => {
                write!(f, "its key {fingerprint} ")?;
                not_allowed(why, f)
            }
            Self::Rewritten { verified } => write!(
                f,
                "it does not descend from {}, the last verified commit: history was rewritten or moved back; push a \
                 commit on top of that one, or set allow-rewrite",
                verified.short()
            ),
            Self::NotFromAnchor { anchor } => {
                write!(f, "it does not descend from the configured anchor {}", anchor.short())
            }
            Self::NotACommit(kind) => write!(f, "it is a {kind}, not a commit"),
            Self::MalformedCommit(what) => write!(f, "its header is malformed: {what}"),
        }
    }
}

fn not_allowed(why: &NotAllowed, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match why {
        NotAllowed::Namespace { allowed } => {
            write!(
                f,
                "is allowed for the namespaces {allowed:?}, which do not hold \"git\""
            )
        }
        NotAllowed::NotYetValid {
            principal,
            since,
            at,
        } => {
            write!(
                f,
                "({principal}) is valid only after {since}, and was not {}",
                moment(*at)
            )
        }
        NotAllowed::Expired {
            principal,
            until,
            at,
        } => {
            write!(
                f,
                "({principal}) was valid until {until}, and was not {}",
                moment(*at)
            )
        }
        NotAllowed::OnlyAuthority => {
            f.write_str("is listed as a certificate authority, which does not sign commits itself")
        }
        NotAllowed::NoPrincipal => {
            f.write_str("is listed without a principal that its own list allows")
        }
    }
}

fn moment(at: Moment) -> &'static str {
    match at {
        Moment::CommitTime => "at the commit's own time",
        Moment::FirstSight => "when this host first observed the commit",
    }
}
