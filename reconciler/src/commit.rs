//! A commit that was verified, read and checked: the only source of what anything is.

use jiff::Timestamp;

use crate::{
    manifest::Problem,
    name::{CommitId, TemplateHash, WorkloadKey},
    object::{Objects, Workload},
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
        self.objects.workloads.get(owner).filter(|workload| workload.template.hash == *template)
    }
}
