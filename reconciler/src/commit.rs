//! A commit that was verified, read and checked: the only source of what a pod or Service is.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

use crate::{
    manifest::Problem,
    name::{CommitId, TemplateHash, WorkloadKey, WorkloadKind},
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
    if !is_named(record) {
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

/// The digits of a template's hash in the name of a Deployment's pod.
const SHORT_HASH: usize = 10;

/// Whether the controller of the owner may have named the pod so.
///
/// The namespace decides which Secrets a pod gets, and its name and uid appear in variables and
/// arguments of its containers. Whoever writes the store must not choose them.
fn is_named(record: &PodRecord) -> bool {
    let (key, owner) = (&record.key, &record.owner.object);
    let rest = key.name.strip_prefix(&owner.name);
    let generated = rest.and_then(|rest| rest.strip_prefix('-'));
    let is_suffix = |text: &str| is_plain(text) && !text.contains('-');
    // A pod keeps its name when the host goes back to another template of its owner by itself.
    let is_hash = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        text == record.template.short() || digits && text.len() == SHORT_HASH
    };
    let is_named = match record.owner.kind {
        WorkloadKind::Pod => key.name == owner.name,
        WorkloadKind::Deployment => generated
            .and_then(|rest| rest.rsplit_once('-'))
            .is_some_and(|(hash, suffix)| is_hash(hash) && is_suffix(suffix)),
        WorkloadKind::ReplicaSet
        | WorkloadKind::ReplicationController
        | WorkloadKind::DaemonSet => generated.is_some_and(is_suffix),
    };
    is_named && key.namespace == owner.namespace && is_plain(record.uid.as_str())
}

/// Whether a text has only characters that mean nothing to a shell, to a path or to a terminal.
fn is_plain(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(plain)
}

/// The commit and the workload of a running pod, whether the commit is eligible or only kept.
pub fn locate_kept<'a>(
    commits: &'a Commits,
    kept: &'a Commits,
    record: &PodRecord,
) -> Option<(&'a Commit, &'a Workload)> {
    locate(commits, record).or_else(|| locate(kept, record))
}
