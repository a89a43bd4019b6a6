//! Commits as this host has verified, read and checked them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use reconciler::{
    commit::Commit,
    desired::{self, CheckSettings},
    manifest::{Limits, Problem, Severity, SourceFile},
    name::CommitId,
};

use crate::source::{
    mirror::Mirror,
    snapshot::{Snapshot, SnapshotError, SnapshotLimits, SourcePath},
    verify::VerifiedCommit,
};

/// How a commit is read.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    /// The local repository.
    pub(crate) mirror: Mirror,
    /// Where manifests are.
    pub(crate) paths: Vec<SourcePath>,
    /// How much there may be.
    pub(crate) limits: SnapshotLimits,
    /// What the host allows.
    pub(crate) check: CheckSettings,
}

/// What reading a verified commit came to.
#[derive(Debug)]
pub(crate) enum Reading {
    /// It can be run.
    Good(Arc<Commit>),
    /// It is wrong in itself: never to be run.
    Bad {
        /// The first line of its message.
        subject: String,
        /// Everything that is wrong, a line each.
        problems: Vec<String>,
    },
    /// It could not be read now: nothing is said about it.
    Unreadable(String),
}

impl Reader {
    /// Reads and checks one verified commit.
    pub(crate) fn read(&self, commit: &VerifiedCommit) -> Reading {
        let repo = match self.mirror.open() {
            Ok(repo) => repo,
            Err(error) => return Reading::Unreadable(format!("{:#}", anyhow::Error::from(error))),
        };
        let snapshot = match Snapshot::read(&repo, commit, &self.paths, &self.limits) {
            Ok(snapshot) => snapshot,
            Err(SnapshotError::Refused(problems)) => {
                let subject = subject_of(&repo, commit.id());
                return Reading::Bad {
                    subject,
                    problems: problems.0.iter().map(ToString::to_string).collect(),
                };
            }
            Err(error) => return Reading::Unreadable(format!("{:#}", anyhow::Error::from(error))),
        };
        let files: Vec<(&str, &[u8])> =
            snapshot.files().iter().map(|file| (file.path.as_str(), file.bytes.as_slice())).collect();
        let (objects, problems) = parse_and_check(&files, &self.check);
        let (errors, warnings): (Vec<Problem>, Vec<Problem>) =
            problems.into_iter().partition(|problem| problem.severity == Severity::Error);
        let info = snapshot.info();
        if !errors.is_empty() {
            let problems = errors.iter().map(ToString::to_string).collect();
            return Reading::Bad { subject: info.subject.clone().into(), problems };
        }
        Reading::Good(Arc::new(Commit {
            id: info.id.clone(),
            subject: info.subject.clone().into(),
            signer: snapshot.commit().signer().map(|signer| signer.principal.clone()).unwrap_or_default(),
            time: info.committer_time,
            allow_deletions: info.allow_deletions,
            objects,
            warnings,
        }))
    }
}

/// All problems of a set of files, references and clashes included.
pub(crate) fn parse_and_check(
    files: &[(&str, &[u8])],
    settings: &CheckSettings,
) -> (reconciler::object::Objects, Vec<Problem>) {
    let files: Vec<SourceFile<'_>> =
        files.iter().map(|(path, content)| SourceFile { path, content }).collect();
    desired::read(&files, &Limits::default(), settings)
}

fn subject_of(repo: &git2::Repository, id: &CommitId) -> String {
    crate::source::commit::CommitInfo::read(repo, id).map(|info| info.subject.into()).unwrap_or_default()
}

/// The commits in use, read once each.
#[derive(Debug, Default)]
pub(crate) struct Library {
    commits: BTreeMap<CommitId, Arc<Commit>>,
    /// Commits that could not be read, and when that is tried again.
    missing: BTreeMap<CommitId, (Timestamp, String)>,
}

impl Library {
    /// All that are there.
    pub(crate) fn commits(&self) -> &BTreeMap<CommitId, Arc<Commit>> {
        &self.commits
    }

    /// Puts a commit in.
    pub(crate) fn add(&mut self, commit: Arc<Commit>) {
        self.missing.remove(&commit.id);
        self.commits.insert(commit.id.clone(), commit);
    }

    /// Which of these must be read now.
    pub(crate) fn lacking(&self, wanted: &BTreeSet<CommitId>, now: Timestamp) -> Vec<CommitId> {
        wanted
            .iter()
            .filter(|id| !self.commits.contains_key(*id))
            .filter(|id| self.missing.get(*id).is_none_or(|(retry, _)| *retry <= now))
            .cloned()
            .collect()
    }

    /// Notes that a commit could not be read.
    pub(crate) fn note_missing(&mut self, id: CommitId, why: String, retry: Timestamp) {
        self.missing.insert(id, (retry, why));
    }

    /// What could not be read, for people.
    pub(crate) fn troubles(&self) -> impl Iterator<Item = String> + '_ {
        self.missing.iter().map(|(id, (_, why))| format!("commit {} cannot be read: {why}", id.short()))
    }

    /// Forgets all but these.
    pub(crate) fn retain(&mut self, keep: &BTreeSet<CommitId>) {
        self.commits.retain(|id, _| keep.contains(id));
        self.missing.retain(|id, _| keep.contains(id));
    }
}
