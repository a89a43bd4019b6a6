//! Judges commits: a head that was fetched, and a commit that may run here.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use jiff::Timestamp;
use parking_lot::Mutex;
use reconciler::{commit::Commit, digest::hex, foreign::ForeignText, name::CommitId};
use ring::digest;

use crate::{
    commit_cache::{Reader, Reading},
    source::{
        allowed_signers::AllowedSigners,
        commit::CommitObject,
        download::Download,
        eligible::{Ineligible, eligible},
        verify::{
            CouldNotCheck, HeadVerdict, Mode, Policy, Refusals, VerifiedCommit, judge, verify,
        },
    },
    trust::TrustStore,
    view::{INVALID_MANIFESTS, RefusedCommit},
};

/// How a head is judged.
#[derive(Clone, Debug)]
pub(crate) struct Judge {
    /// Which commits need a signature.
    pub(crate) mode: Mode,
    /// The file of the trusted keys; read again for every judgement, so that a key can be
    /// withdrawn.
    pub(crate) allowed_signers: Option<PathBuf>,
    /// The commit that every head must descend from.
    pub(crate) anchor: Option<CommitId>,
    /// Whether history may be rewritten.
    pub(crate) allow_rewrite: bool,
    /// Reads a commit once it is trusted.
    pub(crate) reader: Reader,
}

/// The judgement of one head.
pub(super) enum JudgedHead {
    Good {
        commit: Arc<Commit>,
        verified: VerifiedCommit,
    },
    Refused {
        refusal: RefusedCommit,
        subject: String,
        untrusted: Option<&'static str>,
    },
    /// The head is trusted, but could not be read now.
    Unreadable(anyhow::Error),
}

impl Judge {
    /// A digest of all that a refusal depends on beside the head itself; `None` if the keys cannot
    /// be read.
    pub(super) fn digest(&self, verified: Option<&CommitId>, limits: &[u64]) -> Option<String> {
        let signers = match &self.allowed_signers {
            Some(path) => std::fs::read_to_string(path).ok()?,
            None => String::new(),
        };
        AllowedSigners::parse(&signers).ok()?;

        let settings = (
            self.mode,
            &self.anchor,
            self.allow_rewrite,
            verified,
            limits,
        );

        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&serde_json::to_vec(&settings).ok()?);
        context.update(signers.as_bytes());
        Some(hex(context.finish().as_ref()))
    }

    /// The policy by which commits are judged now, with these signers.
    fn policy<'a>(&'a self, signers: &'a AllowedSigners) -> Policy<'a> {
        Policy {
            mode: self.mode,
            signers,
            anchor: self.anchor.as_ref(),
            allow_rewrite: self.allow_rewrite,
            now: Timestamp::now(),
        }
    }

    /// Judges whether a commit may run here. An eligible commit is remembered, so that it stays
    /// eligible when its key is withdrawn later.
    pub(crate) fn eligible(
        &self,
        trust: &Mutex<TrustStore>,
        history: usize,
        id: &CommitId,
    ) -> Result<Result<VerifiedCommit, Ineligible>> {
        let signers = read_signers(self.allowed_signers.as_deref())?;
        let policy = self.policy(&signers);
        // The lock is not held while the commit is judged, which reads the mirror.
        let (known, verified) = {
            let trust = trust.lock();
            (
                trust.trusted().get(id).map(|one| one.commit.clone()),
                trust.pointers().verified.clone(),
            )
        };

        let repo = self.reader.mirror.open()?;
        let answer = eligible(
            &repo,
            &policy,
            known.as_ref(),
            verified.as_ref(),
            history,
            id,
        )
        .map_err(|error: CouldNotCheck| error)?;

        if let Ok(commit) = &answer {
            trust
                .lock()
                .remember(std::slice::from_ref(commit), policy.now)
                .context("remember an eligible commit")?;
        }
        Ok(answer)
    }

    /// Judges a head, and takes it over if its signatures are trusted: first the download into the
    /// mirror, then the pointer `verified`. Manifests are read only after that.
    pub(super) fn judge(
        &self,
        trust: &Mutex<TrustStore>,
        download: &Download,
    ) -> Result<JudgedHead> {
        let head = download.head();
        let signers = read_signers(self.allowed_signers.as_deref())?;
        let before = trust.lock().pointers().verified.clone();
        let policy = self.policy(&signers);
        let (verdict, (subject, signer)) = {
            let repo = download.repository()?;
            let verdict = verify(&repo, &policy, before.as_ref(), head)
                .map_err(|error: CouldNotCheck| error)?;
            (verdict, subject_and_signer(&repo, &policy, head))
        };
        let accepted = match verdict {
            HeadVerdict::Trusted(accepted) => accepted,
            HeadVerdict::Untrusted(refusals) => {
                download.refuse()?;
                return Ok(untrusted(head, subject, &refusals, signer));
            }
        };

        download.accept()?;
        trust
            .lock()
            .advance(&accepted, policy.now)
            .context("remember the verified commit")?;

        let verified = accepted.head;
        let read_as = trust.lock().read_as(head);
        match self.reader.read(&verified, read_as) {
            Reading::Good(commit) => {
                trust
                    .lock()
                    .accept(head)
                    .context("remember that the head was accepted")?;
                Ok(JudgedHead::Good { commit, verified })
            }
            Reading::Bad {
                subject, problems, ..
            } => Ok(invalid(head, subject, problems, signer)),
            Reading::Unreadable(error) => Ok(JudgedHead::Unreadable(error)),
        }
    }
}

/// The subject and the signer of a commit, also of one that is refused for another reason; the
/// signer is empty unless the commit's own signature is good.
fn subject_and_signer(
    repo: &git2::Repository,
    policy: &Policy<'_>,
    id: &CommitId,
) -> (String, String) {
    let subject = CommitObject::read(repo, id).map(|commit| commit.subject());
    let signer = match judge(repo, policy, id) {
        Ok(Ok(signer)) => ForeignText::sentence(&signer.principal).into(),
        Ok(Err(_)) | Err(_) => String::new(),
    };
    (subject.unwrap_or_default().into(), signer)
}

/// The judgement of a head whose signatures or history are not trusted.
fn untrusted(head: &CommitId, subject: String, refusals: &Refusals, signer: String) -> JudgedHead {
    let first = refusals.listed.first();
    let class = first.map_or("untrusted", |refusal| refusal.why.label());
    JudgedHead::Refused {
        refusal: RefusedCommit {
            commit: head.clone(),
            summary: refusals.to_string(),
            problems: refusals.listed.iter().map(ToString::to_string).collect(),
            class: class.to_owned(),
            signer,
        },
        subject,
        untrusted: Some(class),
    }
}

/// The judgement of a trusted head with invalid manifests.
fn invalid(head: &CommitId, subject: String, problems: Vec<String>, signer: String) -> JudgedHead {
    let summary = match problems.as_slice() {
        [one] => one.clone(),
        all => format!(
            "{} problems, the first: {}",
            all.len(),
            all.first().map_or("", String::as_str)
        ),
    };
    JudgedHead::Refused {
        refusal: RefusedCommit {
            commit: head.clone(),
            summary,
            problems,
            class: INVALID_MANIFESTS.to_owned(),
            signer,
        },
        subject,
        untrusted: None,
    }
}

/// Reads the file of the trusted keys.
pub(crate) fn read_signers(path: Option<&Path>) -> Result<AllowedSigners> {
    let Some(path) = path else {
        return Ok(AllowedSigners::default());
    };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("read allowed signers {}", path.display()))?;
    AllowedSigners::parse(&text).with_context(|| path.display().to_string())
}
