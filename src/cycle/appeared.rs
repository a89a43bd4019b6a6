//! When each object of the driving commit first appeared, for the AGE of objects: `appeared.json`.
//!
//! The commits that a host keeps in memory are those in use, so the first commit with an object is
//! forgotten while the object stays. Ages are for people: a file that is lost or damaged is made
//! anew from the commits in memory, and prevents nothing.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use reconciler::{
    commit,
    name::{CommitId, ObjectKey},
    object::ObjectId,
};
use serde::{Deserialize, Serialize};

use super::Host;
use crate::{
    state_file::{self, StateFileError},
    view::FirstSeen,
};

const SCHEMA: u32 = 1;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct AppearedDocument {
    objects: Vec<Appearance>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Appearance {
    api_version: String,
    kind: String,
    namespace: String,
    name: String,
    at: Timestamp,
}

/// `appeared.json` in the data directory; written when the objects of the driving commit change.
#[derive(Debug)]
pub(super) struct AppearedFile {
    path: PathBuf,
    first_seen: Arc<FirstSeen>,
    /// The commit whose objects these are; `None` before the first cycle.
    commit: Option<CommitId>,
}

impl AppearedFile {
    pub(super) fn open(data: &Path) -> Self {
        let path = data.join("appeared.json");
        let document: AppearedDocument = match state_file::read(&path, SCHEMA) {
            Ok(document) => document.unwrap_or_default(),
            Err(error) => {
                let error = anyhow::Error::from(error);
                tracing::warn!("the ages of objects are counted anew: {error:#}");
                AppearedDocument::default()
            }
        };
        let first_seen = document.objects.into_iter().map(|one| {
            let id = ObjectId {
                api_version: one.api_version,
                kind: one.kind,
                key: ObjectKey::new(one.namespace, one.name),
            };
            (id, one.at)
        });
        Self {
            path,
            first_seen: Arc::new(first_seen.collect()),
            commit: None,
        }
    }

    /// When each object first appeared.
    pub(super) fn first_seen(&self) -> &Arc<FirstSeen> {
        &self.first_seen
    }

    /// Takes over the objects of the driving commit. An object that is not in it is forgotten, as
    /// if it had been deleted; `began` is the time of an object that was not known.
    fn follow<'a>(
        &mut self,
        commit: &CommitId,
        objects: impl Iterator<Item = &'a ObjectId>,
        began: impl Fn(&ObjectId) -> Timestamp,
    ) -> Result<(), StateFileError> {
        if self.commit.as_ref() == Some(commit) {
            return Ok(());
        }
        self.commit = Some(commit.clone());
        let known = |id: &ObjectId| self.first_seen.get(id).copied();
        let after: FirstSeen = objects
            .map(|id| (id.clone(), known(id).unwrap_or_else(|| began(id))))
            .collect();
        if after == *self.first_seen {
            return Ok(());
        }
        self.first_seen = Arc::new(after);

        let objects = self.first_seen.iter().map(|(id, at)| Appearance {
            api_version: id.api_version.clone(),
            kind: id.kind.clone(),
            namespace: id.key.namespace.clone(),
            name: id.key.name.clone(),
            at: *at,
        });
        let document = AppearedDocument {
            objects: objects.collect(),
        };
        state_file::write(&self.path, SCHEMA, &document)
    }
}

impl Host {
    /// Notes which objects of the driving commit are new.
    pub(super) fn note_appearances(&mut self) {
        let rollout = &self.store.snapshot().rollout;
        let commits = self.knowledge.commit_cache.commits();
        let Some(driving) = commit::driving(commits, rollout) else {
            return;
        };

        // The rollout is the same on all hosts of a cluster, and so is the time of an object.
        let began = |id: &CommitId| {
            let history = rollout.history.iter();
            let entries = history.filter(|entry| entry.commit == *id);
            entries.map(|entry| entry.began).min()
        };
        let first = |object: &ObjectId| {
            let having = commits
                .values()
                .filter(|commit| commit.objects.originals.contains_key(object));
            let times = having.map(|commit| began(&commit.id).unwrap_or(commit.time));
            times.min().unwrap_or(driving.time)
        };
        let objects = driving.objects.originals.keys();
        if let Err(error) = self.memory.appeared.follow(&driving.id, objects, first) {
            let error = anyhow::Error::from(error);
            tracing::warn!("the ages of objects are lost at the next start: {error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::commit_id;

    fn object(name: &str) -> ObjectId {
        ObjectId {
            api_version: "apps/v1".into(),
            kind: "Deployment".into(),
            key: ObjectKey::new("default", name),
        }
    }

    /// Takes over a commit with these objects, which began at this second; returns the second at
    /// which each object appeared.
    fn follow(file: &mut AppearedFile, commit: &str, names: &[&str], second: i64) -> Vec<i64> {
        let objects: Vec<ObjectId> = names.iter().map(|name| object(name)).collect();
        let began = Timestamp::from_second(second).expect("a time");
        let written = file.follow(&commit_id(commit), objects.iter(), |_| began);
        written.expect("the file is written");
        let first_seen = file.first_seen().values();
        first_seen.map(|at| at.as_second()).collect()
    }

    #[test]
    fn an_object_keeps_its_age_over_commits_and_restarts_until_it_is_deleted() {
        let data = tempfile::tempdir().expect("a directory");
        let mut file = AppearedFile::open(data.path());
        assert_eq!(follow(&mut file, "c1", &["a", "b"], 100), [100, 100]);
        assert_eq!(
            follow(&mut file, "c2", &["a", "b", "c"], 200),
            [100, 100, 200]
        );

        let mut file = AppearedFile::open(data.path());
        assert_eq!(follow(&mut file, "c3", &["a", "c"], 300), [100, 200]);
        assert_eq!(
            follow(&mut file, "c4", &["a", "b", "c"], 400),
            [100, 400, 200]
        );
    }

    #[test]
    fn a_damaged_file_counts_as_empty() {
        let data = tempfile::tempdir().expect("a directory");
        std::fs::write(data.path().join("appeared.json"), "{").expect("written");
        let mut file = AppearedFile::open(data.path());
        assert_eq!(follow(&mut file, "c1", &["a"], 100), [100]);
    }
}
