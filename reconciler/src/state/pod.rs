//! One pod as it was decided: its owner, its node, and whether it must stop.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Refusal;
use crate::name::{CommitId, NodeName, ObjectKey, PodUid, TemplateHash, WorkloadKey, WorkloadKind};

/// The digits of a template's hash in the name of a Deployment's pod.
const SHORT_HASH: usize = 10;

/// One pod: its name, its owner, its node, and the commit from which a host resolves its
/// specification.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodRecord {
    /// Uid of the pod.
    pub uid: PodUid,
    /// Namespace and name of the pod.
    pub key: ObjectKey,
    /// The workload that owns the pod.
    pub owner: WorkloadKey,
    /// The node of the pod, or why no node accepts it.
    pub place: PodPlace,
    /// Where to look up the template: in this commit the owner's template has the hash below.
    pub commit: CommitId,
    /// Hash of the template from which the pod was made.
    pub template: TemplateHash,
    /// When the pod was decided, by the leader's clock.
    pub created: Timestamp,
    /// Number of the pod in the order of creation; orders pods with the same `created`.
    pub serial: u64,
    /// Present once the pod must stop.
    pub stop: Option<StopRecord>,
}

impl PodRecord {
    /// Whether the controller of the owner may have named the pod so.
    ///
    /// The namespace decides which Secrets a pod gets, and its name and uid appear in variables and
    /// arguments of its containers. Whoever writes the store must not choose them.
    pub fn is_named_by_owner(&self) -> bool {
        let (key, owner) = (&self.key, &self.owner.object);
        let rest = key.name.strip_prefix(&owner.name);
        let generated = rest.and_then(|rest| rest.strip_prefix('-'));
        let is_suffix = |text: &str| is_plain(text) && !text.contains('-');
        // A pod keeps its name when a host goes back to another template of its owner by itself.
        let is_hash = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
            text == self.template.short() || digits && text.len() == SHORT_HASH
        };
        let is_named = match self.owner.kind {
            WorkloadKind::Pod => key.name == owner.name,
            WorkloadKind::Deployment => generated
                .and_then(|rest| rest.rsplit_once('-'))
                .is_some_and(|(hash, suffix)| is_hash(hash) && is_suffix(suffix)),
            WorkloadKind::ReplicaSet
            | WorkloadKind::ReplicationController
            | WorkloadKind::DaemonSet => generated.is_some_and(is_suffix),
        };
        is_named && key.namespace == owner.namespace && is_plain(self.uid.as_str())
    }
}

/// Whether a text has only characters that mean nothing to a shell, to a path or to a terminal.
fn is_plain(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(plain)
}

/// The node of a pod, or why no node accepts it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PodPlace {
    /// The pod is assigned to this node.
    Node(NodeName),
    /// No node accepts the pod, for example "0 of 3 nodes: 1 cordoned, 2 have taint gpu".
    Unplaced(Refusal),
}

impl PodPlace {
    /// The node that the pod is assigned to; `None` for an unplaced pod.
    pub fn node(&self) -> Option<&NodeName> {
        match self {
            Self::Node(node) => Some(node),
            Self::Unplaced(_) => None,
        }
    }
}

/// The decision that a pod must stop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StopRecord {
    /// When that was decided.
    pub at: Timestamp,
    /// Why the pod must stop.
    pub reason: StopReason,
}

/// Why a pod must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopReason {
    /// The commit no longer contains the pod's owner.
    OwnerRemoved,
    /// The owner wants fewer replicas.
    ScaledDown,
    /// The owner's template has changed.
    Replaced,
    /// The pod has failed permanently and is replaced.
    Failed,
    /// The pod's node no longer accepts the pod.
    NodeExcluded,
    /// A person asked for a restart of the pod's owner.
    Restarted,
    /// The pod's node is lost, and another pod runs instead.
    NodeLost,
    /// The pod's node is being drained.
    Drained,
    /// The pod's host went back to an earlier commit by itself (a detour); no leader ever writes
    /// this reason.
    WentBack,
}

impl StopReason {
    /// The reason as a sentence without its subject.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OwnerRemoved => "its owner is not in the commit any more",
            Self::ScaledDown => "fewer replicas are wanted",
            Self::Replaced => "its template has changed",
            Self::Failed => "it failed and is replaced",
            Self::NodeExcluded => "its node does not take it any more",
            Self::Restarted => "a restart was asked for",
            Self::NodeLost => "its node was lost and it was replaced elsewhere",
            Self::Drained => "its node is being drained",
            Self::WentBack => "its host went back to an earlier commit by itself",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_for_a_stop_is_a_sentence() {
        let reasons = [
            StopReason::OwnerRemoved,
            StopReason::ScaledDown,
            StopReason::Replaced,
            StopReason::Failed,
            StopReason::NodeExcluded,
            StopReason::Restarted,
            StopReason::NodeLost,
            StopReason::Drained,
            StopReason::WentBack,
        ];
        insta::assert_snapshot!(reasons.map(StopReason::as_str).join("\n"), @r"
        its owner is not in the commit any more
        fewer replicas are wanted
        its template has changed
        it failed and is replaced
        its node does not take it any more
        a restart was asked for
        its node was lost and it was replaced elsewhere
        its node is being drained
        its host went back to an earlier commit by itself
        ");
    }
}
