//! What a node publishes and reports about itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{RecordFormat, Refused};
use crate::{
    foreign::{self, ForeignText},
    name::{CommitId, Installation, NodeName, PodUid},
    object::Taint,
    plan::PodIdentity,
    status::PodStatus,
};

/// What one node reports about itself. A missing report is never a reason to stop anything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Status of each pod on the node.
    pub pods: BTreeMap<PodUid, PodStatus>,
    /// Pods with a stop record of which nothing is left on the node.
    pub gone: BTreeSet<PodUid>,
    /// Pods that run on the node and that no record names.
    pub orphans: Vec<PodIdentity>,
    /// Progress of the node with the images of each commit.
    pub prepared: BTreeMap<CommitId, Preparation>,
    /// Assignments and stop records that the node refuses, with the reason.
    #[serde(default)]
    pub refused: BTreeMap<PodUid, Refused>,
    /// Those of the refused pods that were refused for so long that another node must run them.
    #[serde(default)]
    pub turned_away: BTreeSet<PodUid>,
    /// When the node received the time from which deadlines count, see
    /// [`Rollout::clock`](super::Rollout::clock).
    #[serde(default)]
    pub clock: Option<ReceivedTime>,
    /// The adoption that the node received, see [`Rollout::adopted`](super::Rollout::adopted). With
    /// it, `gone` also names those pods of the adopted copy of which nothing is on the node.
    #[serde(default)]
    pub stock: Option<Timestamp>,
    /// The number of the [`Shares`](super::Shares) that `prepared` refers to; `None` where
    /// `prepared` refers to all images of the commit.
    #[serde(default)]
    pub share: Option<u64>,
}

/// A time of the leader's clock, with the time at which a host received it by its own clock. The
/// two clocks are never compared: events on the host are ordered by the moment of receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedTime {
    /// The time by the leader's clock: identifies the moment that is meant.
    pub told: Timestamp,
    /// When the host received that time, by the host's clock.
    pub at: Timestamp,
}

impl ReceivedTime {
    /// The received time that a host keeps for a leader's time: the first receipt of the same time
    /// stays. If the host's clock was set back since, the clock's new time is trusted.
    pub fn receive(told: Option<Timestamp>, before: Option<Self>, now: Timestamp) -> Option<Self> {
        let told = told?;
        let known = before.filter(|before| before.told == told);
        Some(Self {
            told,
            at: known.map_or(now, |known| known.at.min(now)),
        })
    }
}

/// Progress of a node with pulling a commit's images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Preparation {
    /// All images are on the node and pinned.
    Ready,
    /// Some of the images are still being pulled.
    Pulling {
        /// Number of images that are pinned.
        done: usize,
        /// Number of all images.
        of: usize,
    },
    /// Something outside of the commit prevents a pull, with the message of the fault.
    Waiting(#[serde(deserialize_with = "foreign::report")] ForeignText),
    /// A pull fails repeatedly and the cause is not known, with the message of the last fault: the
    /// node may retry until the deadline.
    Failing(#[serde(deserialize_with = "foreign::report")] ForeignText),
    /// The node cannot run the commit, with the message of the fault.
    Failed(#[serde(deserialize_with = "foreign::report")] ForeignText),
}

/// What a node publishes about itself once, at start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Name of the node.
    pub name: NodeName,
    /// The installation that uses this name.
    pub installation: Installation,
    /// The node's own address.
    pub address: Ipv4Addr,
    /// The subnet from which the node assigns addresses to its pods.
    pub pod_subnet: Ipv4Net,
    /// Largest MTU of packets that the node's pods send to other hosts, in bytes.
    pub mtu: u32,
    /// Labels from the daemon's configuration, `kubernetes.io/hostname` and the like included.
    pub labels: BTreeMap<String, String>,
    /// Taints from the daemon's configuration; Git may add more and take none of these away.
    pub taints: Vec<Taint>,
    /// The newest format of the leader's records that the node reads.
    #[serde(default)]
    pub record_format: RecordFormat,
    /// Operating system, engine and hardware of the node.
    #[serde(default)]
    pub system: NodeSystem,
}

/// Operating system, engine and hardware of a node, as in Kubernetes' `NodeSystemInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSystem {
    /// `kernelVersion`: release of the kernel.
    #[serde(deserialize_with = "foreign::sentence")]
    pub kernel: String,
    /// `osImage`: name of the operating system.
    #[serde(deserialize_with = "foreign::sentence")]
    pub os: String,
    /// `containerRuntimeVersion`, for example `docker://20.10.24`; empty until the engine has
    /// answered.
    #[serde(deserialize_with = "foreign::sentence")]
    pub engine: String,
    /// `architecture`, by the name that Kubernetes uses, for example `amd64`.
    #[serde(deserialize_with = "foreign::sentence")]
    pub architecture: String,
    /// Version of the daemon on the node.
    #[serde(deserialize_with = "foreign::sentence")]
    pub version: String,
    /// Number of processors; 0 where unknown.
    pub cpus: usize,
    /// Memory in KiB; 0 where unknown.
    pub memory_kib: u64,
    /// Maximum number of pods by the node's configuration; 0 where unknown.
    #[serde(default)]
    pub max_pods: usize,
    /// When Windlass was installed on the node, by the node's clock.
    #[serde(default)]
    pub installed: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preparation_is_stored_with_the_text_that_other_versions_read() {
        let message = "registry example.com: connection refused";
        let preparations = [
            (Preparation::Ready, r#""Ready""#),
            (
                Preparation::Pulling { done: 1, of: 2 },
                r#"{"Pulling":{"done":1,"of":2}}"#,
            ),
            (
                Preparation::Waiting(ForeignText::new(message)),
                r#"{"Waiting":"registry example.com: connection refused"}"#,
            ),
            (
                Preparation::Failing(ForeignText::new(message)),
                r#"{"Failing":"registry example.com: connection refused"}"#,
            ),
            (
                Preparation::Failed(ForeignText::new(message)),
                r#"{"Failed":"registry example.com: connection refused"}"#,
            ),
        ];
        for (preparation, stored) in preparations {
            assert_eq!(
                serde_json::to_string(&preparation).expect("a preparation"),
                stored
            );
            let read: Preparation = serde_json::from_str(stored).expect("a preparation");
            assert_eq!(read, preparation);
        }
    }

    #[test]
    fn a_text_of_another_version_is_read_whole_and_escaped() {
        let long = "x".repeat(5000);
        let stored = serde_json::json!({ "Failed": format!("{long}\n") }).to_string();
        let Preparation::Failed(text) = serde_json::from_str(&stored).expect("a preparation")
        else {
            panic!("{stored}");
        };
        assert_eq!(text.as_str(), format!("{long}\\n"));
    }
}
