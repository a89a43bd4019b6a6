//! A commit that was verified, read and checked: the only source of what anything is.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

use crate::{
    manifest::Problem,
    name::{CommitId, TemplateHash, WorkloadKey},
    object::{Objects, Workload},
    state::PodRecord,
};

/// A commit that was read and checked.
#[derive(Debug)]
pub struct Commit {
    /// Its id.
    pub id: CommitId,
    /// The first line of its message.
    pub subject: String,
    /// Who signed it; empty where verification is off.
    pub signer: String,
    /// Committer's time.
    pub time: Timestamp,
    /// Its message carries `Windlass-Allow-Deletions: yes`.
    pub allow_deletions: bool,
    /// What it says.
    pub objects: Objects,
    /// Warnings.
    pub warnings: Vec<Problem>,
}

impl Commit {
    /// The workload whose template has this hash: what a pod record points to.
    pub fn resolve(&self, owner: &WorkloadKey, template: &TemplateHash) -> Option<&Workload> {
        self.objects
            .workloads
            .get(owner)
            .filter(|workload| workload.template.hash == *template)
    }
}

/// What a pod is: its commit and its owner there. The commit of a record is only a locator, so
/// where it is not known any other commit will do that has the owner with the very same template.
pub fn locate<'a>(
    commits: &'a BTreeMap<CommitId, Arc<Commit>>,
    record: &PodRecord,
) -> Option<(&'a Commit, &'a Workload)> {
    let find = |commit: &'a Arc<Commit>| {
        let workload = commit.resolve(&record.owner, &record.template)?;
        Some((commit.as_ref(), workload))
    };
    let named = commits.get(&record.commit).map(find);
    // A commit that is known and does not have the template is an answer.
    named.unwrap_or_else(|| commits.values().find_map(find))
}

/// What a pod is that is there already, whether its commit may still be started or is only kept up.
pub fn locate_kept<'a>(
    commits: &'a BTreeMap<CommitId, Arc<Commit>>,
    kept: &'a BTreeMap<CommitId, Arc<Commit>>,
    record: &PodRecord,
) -> Option<(&'a Commit, &'a Workload)> {
    locate(commits, record).or_else(|| locate(kept, record))
}
