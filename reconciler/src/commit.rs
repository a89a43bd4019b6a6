//! A commit that was verified, read and checked: the only source of what a pod or Service is.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

use crate::{
    manifest::Problem,
    name::{CommitId, TemplateHash, WorkloadKey},
    object::{Objects, Workload},
    state::{PodRecord, Rollout},
};

/// A commit that was verified, read and checked.
#[derive(Debug)]
pub struct Commit {
    /// Id of the commit.
    pub id: CommitId,
    /// The first line of its message.
    pub subject: String,
    /// The signer of the commit; empty where verification is off.
    pub signer: String,
    /// The committer's time.
    pub time: Timestamp,
    /// Whether the commit message contains `Windlass-Allow-Deletions: yes`.
    pub allow_deletions: bool,
    /// The objects of the commit.
    pub objects: Objects,
    /// Problems that are warnings.
    pub warnings: Vec<Problem>,
}

impl Commit {
    /// The owner, if its template has this hash: a pod record names both.
    pub fn resolve(&self, owner: &WorkloadKey, template: &TemplateHash) -> Option<&Workload> {
        self.objects
            .workloads
            .get(owner)
            .filter(|workload| workload.template.hash == *template)
    }
}

/// The commits whose content is known, by their id.
pub type Commits = BTreeMap<CommitId, Arc<Commit>>;

/// The commit that the controllers follow; `None` before the first commit, and where the content of
/// that commit is not known.
pub fn driving<'a>(commits: &'a Commits, rollout: &Rollout) -> Option<&'a Arc<Commit>> {
    commits.get(rollout.driving.as_ref()?)
}

/// The commit and the workload of a pod. The commit in a record only locates the template: if that
/// commit is not known, any other commit in which the owner has the same template is used.
///
/// `None` also for a record whose names its owner's controller cannot have given.
pub fn locate<'a>(commits: &'a Commits, record: &PodRecord) -> Option<(&'a Commit, &'a Workload)> {
    if !record.is_named_by_owner() {
        return None;
    }
    let find = |commit: &'a Arc<Commit>| {
        let workload = commit.resolve(&record.owner, &record.template)?;
        Some((commit.as_ref(), workload))
    };
    let named = commits.get(&record.commit).map(find);
    // If the named commit is known and does not contain the template, no other commit is searched.
    named.unwrap_or_else(|| commits.values().find_map(find))
}

/// The commit and the workload of a running pod, whether the commit is eligible or only kept.
pub fn locate_kept<'a>(
    commits: &'a Commits,
    kept: &'a Commits,
    record: &PodRecord,
) -> Option<(&'a Commit, &'a Workload)> {
    locate(commits, record).or_else(|| locate(kept, record))
}
