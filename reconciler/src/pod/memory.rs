//! What a host remembers of its pods beyond what it can observe; kept on its disk.

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
    /// By pod.
    pub pods: BTreeMap<PodUid, PodMemory>,
    /// When this host learnt that the target became the target.
    #[serde(default)]
    pub began: Option<ReceivedTime>,
    /// When this host learnt from when the deadlines count.
    #[serde(default)]
    pub clock: Option<ReceivedTime>,
}

/// What is remembered of one pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodMemory {
    /// The address it was given; kept until nothing is left of the pod.
    pub address: Option<Ipv4Addr>,
    /// When this host first acted on it.
    pub started: Option<Timestamp>,
    /// What this host last ran it from. A record of the store may say something else later.
    #[serde(default)]
    pub origin: Option<Origin>,
    /// Since when it is not begun, since this host does not believe that it may run here.
    #[serde(default)]
    pub refused: Option<Timestamp>,
    /// Since when it is ready.
    pub ready: Option<Timestamp>,
    /// For how long at least it has been ready then, see
    /// [`PodStatus::ready_for`](crate::status::PodStatus::ready_for).
    #[serde(default)]
    pub ready_for: Duration,
    /// The number of the next sandbox.
    pub sandboxes: u32,
    /// By container name.
    pub containers: BTreeMap<String, ContainerMemory>,
    /// Its init containers have all ended well in the current sandbox.
    pub initialized: bool,
    /// A stop was begun: failures from before were of something else.
    #[serde(default)]
    pub stopping: bool,
    /// How it ended for good, and why.
    pub ended: Option<(PodPhase, String)>,
}

/// What a host took a pod from when it last acted on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The commit.
    pub commit: CommitId,
    /// The hash of its template there.
    pub template: TemplateHash,
}

/// What is remembered of one container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerMemory {
    /// The container these facts are about.
    pub id: Option<ContainerId>,
    /// The number of the next one.
    pub next_attempt: u32,
    /// Its startup probe has succeeded.
    pub past_startup: bool,
    /// What its readiness probe last said.
    pub ready: Option<bool>,
    /// It has ended and is not started again, with this exit code.
    pub completed: Option<i64>,
    /// How long restarts are held back.
    pub backoff: Backoff,
}
