//! The commits that this host has verified, read and checked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use reconciler::{
    commit::{Commit, Commits},
    desired::{self, CheckSettings},
    difference::Unread,
    foreign::ForeignText,
    manifest::{Limits, Problem, ReadAs, Severity, SourceFile},
    name::CommitId,
    object::Objects,
};

use crate::{
    source::{
        mirror::Mirror,
        snapshot::{Readable, Snapshot, SnapshotError, SnapshotLimits, SourcePath},
        verify::VerifiedCommit,
    },
    view::HostTrouble,
};

/// The longest time until a commit is read again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Reads commits from the mirror, with this host's limits.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    /// The local repository that commits are read from.
    pub(crate) mirror: Mirror,
    /// The files and directories with manifests.
    pub(crate) paths: Vec<SourcePath>,
    /// The limits of a commit's content.
    pub(crate) limits: SnapshotLimits,
    /// The host's limits and permissions for manifests.
    pub(crate) check: CheckSettings,
}

/// The result of reading a verified commit.
#[derive(Debug)]
pub(crate) enum Reading {
    /// The commit may run.
    Good(Arc<Commit>),
    /// The commit has invalid manifests: it must never run.
    Bad {
        /// The first line of the commit's message.
        subject: String,
        /// All problems, one line each.
        problems: Vec<String>,
        /// The objects that could be read, for people; `None` if the files could not be read.
        content: Option<Box<BadContent>>,
    },
    /// The commit could not be read now, which is no judgement about it.
    Unreadable(anyhow::Error),
}

/// What could be read of a commit with invalid manifests.
#[derive(Debug)]
pub(crate) struct BadContent {
    /// The objects that could be read.
    pub(crate) objects: Objects,
    /// What the problems keep from being read.
    pub(crate) unread: Unread,
}

impl Reader {
    /// Reads and checks one verified commit.
    pub(crate) fn read(&self, commit: &VerifiedCommit, read_as: ReadAs) -> Reading {
        let signer = commit
            .signer()
            .map(|signer| signer.principal.clone())
            .unwrap_or_default();
        self.read_readable(&Readable::Eligible(commit), signer, read_as)
    }

    /// Reads a commit that is not eligible, to keep up its running pods.
    pub(crate) fn read_kept(&self, commit: &CommitId) -> Reading {
        self.read_readable(&Readable::Kept(commit), String::new(), ReadAs::Accepted)
    }

    fn read_readable(&self, commit: &Readable<'_>, signer: String, read_as: ReadAs) -> Reading {
        let repo = match self.mirror.open() {
            Ok(repo) => repo,
            Err(error) => return Reading::Unreadable(error.into()),
        };
        let snapshot = match Snapshot::read(&repo, commit, &self.paths, &self.limits) {
            Ok(snapshot) => snapshot,
            Err(SnapshotError::Refused(problems)) => {
                let subject = subject_of(&repo, commit.id());
                return Reading::Bad {
                    subject,
                    problems: problems.0.iter().map(ToString::to_string).collect(),
                    content: None,
                };
            }
            Err(error) => return Reading::Unreadable(error.into()),
        };

        let files: Vec<(&str, &[u8])> = snapshot
            .files()
            .iter()
            .map(|file| (file.path.as_str(), file.bytes.as_slice()))
            .collect();
        let (objects, problems) = parse_and_check(&files, &self.check, read_as);

        let passed_over = snapshot.passed_over().iter().map(|path| passed_over(path));
        let problems: Vec<Problem> = passed_over.chain(problems).collect();
        let (errors, warnings): (Vec<Problem>, Vec<Problem>) = problems
            .into_iter()
            .partition(|problem| problem.severity == Severity::Error);

        let info = snapshot.info();
        if !errors.is_empty() {
            let problems = errors.iter().map(ToString::to_string).collect();
            let unread = Unread::of(&errors);
            return Reading::Bad {
                subject: info.subject.clone().into(),
                problems,
                content: Some(Box::new(BadContent { objects, unread })),
            };
        }

        Reading::Good(Arc::new(Commit {
            id: info.id.clone(),
            subject: info.subject.clone().into(),
            signer,
            time: info.committer_time,
            allow_deletions: info.allow_deletions,
            objects,
            warnings,
        }))
    }
}

/// All problems of a set of files, including references and conflicts between them.
pub(crate) fn parse_and_check(
    files: &[(&str, &[u8])],
    settings: &CheckSettings,
    read_as: ReadAs,
) -> (Objects, Vec<Problem>) {
    let files: Vec<SourceFile<'_>> = files
        .iter()
        .map(|(path, content)| SourceFile { path, content })
        .collect();
    desired::read(&files, &Limits::default(), settings, read_as)
}

/// The warning of a file that is not read because of the case of its ending.
pub(crate) fn passed_over(path: &str) -> Problem {
    Problem {
        file: path.to_owned(),
        line: 0,
        column: 0,
        severity: Severity::Warning,
        field: String::new(),
        message:
            "not read, since its ending is not in lower case: rename it to end in .yaml, .yml or .json, or \
                  otherwise if it is no manifest"
                .to_owned(),
    }
}

fn subject_of(repo: &git2::Repository, id: &CommitId) -> String {
    crate::source::commit::CommitInfo::read(repo, id)
        .map(|info| info.subject.into())
        .unwrap_or_default()
}

/// The commits in use, each of which is read once.
#[derive(Debug, Default)]
pub(crate) struct CommitCache {
    commits: Commits,
    /// Commits that are not eligible, and that pods of this host run from.
    kept: Commits,
    /// Commits that are not eligible and that no pod of this host runs from, but that the rollout
    /// follows: a leader compares a new commit with them.
    compared: Commits,
    /// Commits that were judged not to be eligible.
    barred: BTreeSet<CommitId>,
    /// Why each commit that was read is not eligible, and when it is judged again.
    ineligible: BTreeMap<CommitId, (Timestamp, String)>,
    /// Commits that could not be read, with the reason and the time of the next attempt.
    missing: BTreeMap<CommitId, (Timestamp, String)>,
}

impl CommitCache {
    /// The eligible commits that were read.
    pub(crate) fn commits(&self) -> &Commits {
        &self.commits
    }

    /// The commits that are not eligible, and that pods of this host run from.
    pub(crate) fn kept(&self) -> &Commits {
        &self.kept
    }

    /// All commits that were read and are not eligible, for a leader to compare with.
    pub(crate) fn comparable(&self) -> Commits {
        self.kept
            .iter()
            .chain(&self.compared)
            .map(|(id, commit)| (id.clone(), Arc::clone(commit)))
            .collect()
    }

    /// The commits that were judged not to be eligible, read or not.
    pub(crate) fn barred(&self) -> &BTreeSet<CommitId> {
        &self.barred
    }

    /// Records that a commit was judged not to be eligible.
    pub(crate) fn bar(&mut self, id: &CommitId) {
        self.barred.insert(id.clone());
    }

    /// Adds a commit that is not eligible, for a leader to compare with.
    pub(crate) fn compare(&mut self, commit: Arc<Commit>, why: String, retry: Timestamp) {
        self.note_missing(commit.id.clone(), why, retry);
        self.compared.insert(commit.id.clone(), commit);
    }

    /// Why the kept commits are not eligible.
    pub(crate) fn ineligible(&self) -> impl Iterator<Item = (&CommitId, &str)> {
        self.ineligible
            .iter()
            .map(|(id, (_, why))| (id, why.as_str()))
    }

    /// Adds a commit that is not eligible, and that pods of this host run from.
    pub(crate) fn keep(&mut self, commit: Arc<Commit>, why: String, retry: Timestamp) {
        self.missing.remove(&commit.id);
        self.ineligible.insert(commit.id.clone(), (retry, why));
        self.kept.insert(commit.id.clone(), commit);
    }

    /// Records that a kept commit is still not eligible. False if the commit is not kept.
    pub(crate) fn keep_on(&mut self, id: &CommitId, why: &str, retry: Timestamp) -> bool {
        match self.ineligible.get_mut(id) {
            Some(entry) => {
                *entry = (retry, why.to_owned());
                true
            }
            None => false,
        }
    }

    /// Adds an eligible commit.
    pub(crate) fn add(&mut self, commit: Arc<Commit>) {
        self.missing.remove(&commit.id);
        self.ineligible.remove(&commit.id);
        self.barred.remove(&commit.id);
        self.kept.remove(&commit.id);
        self.compared.remove(&commit.id);
        self.commits.insert(commit.id.clone(), commit);
    }

    /// The commits among `wanted` that must be read now.
    pub(crate) fn lacking(&self, wanted: &BTreeSet<CommitId>, now: Timestamp) -> Vec<CommitId> {
        let is_due = |id: &CommitId| {
            let waiting = self.missing.get(id).or_else(|| self.ineligible.get(id));
            // A time beyond the longest wait comes from before the clock was put back.
            waiting.is_none_or(|(at, _)| *at <= now || *at > now + LONGEST_WAIT)
        };
        wanted
            .iter()
            .filter(|id| !self.commits.contains_key(*id) && is_due(id))
            .cloned()
            .collect()
    }

    /// Records that a commit could not be read.
    pub(crate) fn note_missing(&mut self, id: CommitId, why: String, retry: Timestamp) {
        self.missing.insert(id, (retry, why));
    }

    /// The commits that could not be read.
    pub(crate) fn troubles(&self) -> impl Iterator<Item = HostTrouble> + '_ {
        self.missing
            .iter()
            .map(|(id, (_, why))| HostTrouble::Unreadable {
                commit: id.clone(),
                error: ForeignText::sentence(why),
            })
    }

    /// Forgets all commits but these.
    pub(crate) fn retain(&mut self, keep: &BTreeSet<CommitId>) {
        self.commits.retain(|id, _| keep.contains(id));
        self.missing.retain(|id, _| keep.contains(id));
        self.kept.retain(|id, _| keep.contains(id));
        self.ineligible.retain(|id, _| keep.contains(id));
        self.compared.retain(|id, _| keep.contains(id));
        self.barred.retain(|id| keep.contains(id));
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::ids::commit_id;

    #[test]
    fn a_clock_that_is_put_back_holds_up_no_missing_commit() {
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24);
        let (id, wait) = (commit_id("a"), Duration::from_secs(5));
        let wanted = BTreeSet::from([id.clone()]);
        let mut cache = CommitCache::default();
        assert_eq!(cache.lacking(&wanted, now), std::slice::from_ref(&id));
        cache.note_missing(
            id.clone(),
            "the disk does not answer".to_owned(),
            now + wait,
        );
        assert!(cache.lacking(&wanted, now).is_empty());
        assert_eq!(
            cache.lacking(&wanted, now + wait),
            std::slice::from_ref(&id)
        );
        assert_eq!(
            cache.lacking(&wanted, now - SignedDuration::from_hours(1)),
            [id]
        );
    }
}
