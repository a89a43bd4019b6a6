//! What a host remembers of its pods beyond what it can observe; stored on its disk.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::backoff::Backoff;
use crate::{
    name::{CommitId, ContainerId, PodUid, TemplateHash},
    state::ReceivedTime,
    status::PodPhase,
};

/// Everything a host remembers of its pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeMemory {
    /// The memory of each pod.
    pub pods: BTreeMap<PodUid, PodMemory>,
    /// When this host received the time at which the target became the target.
    #[serde(default)]
    pub began: Option<ReceivedTime>,
    /// When this host received the time from which deadlines count.
    #[serde(default)]
    pub clock: Option<ReceivedTime>,
}

/// The memory of one pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodMemory {
    /// The assigned address; kept until nothing is left of the pod.
    pub address: Option<Ipv4Addr>,
    /// When this host first acted on the pod; `None` before.
    pub started: Option<Timestamp>,
    /// The commit and template from which this host last ran the pod. The record in the store may
    /// change later.
    #[serde(default)]
    pub origin: Option<Origin>,
    /// Since when this host refuses the pod; `None` if it does not.
    #[serde(default)]
    pub refused: Option<Timestamp>,
    /// Since when the pod is ready; `None` if it is not.
    pub ready: Option<Timestamp>,
    /// Minimum time that the pod had been ready at the last cycle, see
    /// [`PodStatus::ready_for`](crate::status::PodStatus::ready_for).
    #[serde(default)]
    pub ready_for: Duration,
    /// Number of the next sandbox.
    pub sandboxes: u32,
    /// The memory of each container, by its name.
    pub containers: BTreeMap<String, ContainerMemory>,
    /// Whether all init containers have succeeded in the current sandbox.
    pub initialized: bool,
    /// Whether a stop was begun: a failure from before concerns a start.
    #[serde(default)]
    pub stopping: bool,
    /// The final phase and its reason, once the pod has ended for good.
    pub ended: Option<(PodPhase, String)>,
}

/// The origin of a pod: commit and template from which the host last acted on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The commit from which the pod was resolved.
    pub commit: CommitId,
    /// Hash of the pod's template in that commit.
    pub template: TemplateHash,
}

/// The memory of one container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerMemory {
    /// The container to which the other fields refer.
    pub id: Option<ContainerId>,
    /// Number of the next attempt.
    pub next_attempt: u32,
    /// Whether the container's startup probe has succeeded.
    pub past_startup: bool,
    /// The last result of the readiness probe; `None` before the first.
    pub ready: Option<bool>,
    /// Exit code of a container that is not started again.
    pub completed: Option<i64>,
    /// Back-off of the container's restarts.
    pub backoff: Backoff,
    /// The container that this host stopped last because of a probe.
    #[serde(default)]
    pub unhealthy: Option<UnhealthyContainer>,
}

/// A container that was stopped because a probe failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnhealthyContainer {
    /// The container.
    pub id: ContainerId,
    /// Which probe failed and how, for example "liveness probe GET :80/: HTTP status 404".
    pub why: String,
}
