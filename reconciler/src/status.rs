//! What a pod is doing, in Kubernetes' words.

use std::{net::Ipv4Addr, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    fault::FaultKind,
    foreign,
    name::{ContainerId, ImageId},
};

/// So long a pod must have been ready to show that its template is good.
pub const STEADY: Duration = Duration::from_secs(10);

/// The reason of a pod that waits for its image, and knows of nothing that is in the way.
pub const PULLING: &str = "PullingImage";

/// `status` of a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodStatus {
    /// `phase`.
    pub phase: PodPhase,
    /// `reason`, one word: what kubectl shows as STATUS where it is set.
    #[serde(default, deserialize_with = "foreign::optional_sentence")]
    pub reason: Option<String>,
    /// `message`, a sentence.
    #[serde(default, deserialize_with = "foreign::optional_sentence")]
    pub message: Option<String>,
    /// `podIP`, once the pod has one.
    pub address: Option<Ipv4Addr>,
    /// When the host first acted on it.
    pub started: Option<Timestamp>,
    /// All init containers have ended well.
    pub initialized: bool,
    /// All containers are ready, since when.
    pub ready: Option<Timestamp>,
    /// For how long it has been ready at least, by the clock of its own host: zero, [`STEADY`], or
    /// the `minReadySeconds` of its owner.
    #[serde(default)]
    pub ready_for: Duration,
    /// It has a stop record and something of it is left.
    pub terminating: bool,
    /// It stops, was ready when it was told to, and its containers still run: it answers where
    /// nobody else does.
    #[serde(default)]
    pub serving: bool,
    /// `initContainerStatuses`.
    pub init_containers: Vec<ContainerStatus>,
    /// `containerStatuses`.
    pub containers: Vec<ContainerStatus>,
    /// What stands in the way of it, if anything does.
    pub fault: Option<FaultKind>,
}

impl PodStatus {
    /// A pod of which nothing is known yet.
    pub fn pending() -> Self {
        Self {
            phase: PodPhase::Pending,
            reason: None,
            message: None,
            address: None,
            started: None,
            initialized: false,
            ready: None,
            ready_for: Duration::ZERO,
            terminating: false,
            serving: false,
            init_containers: Vec::new(),
            containers: Vec::new(),
            fault: None,
        }
    }

    /// Whether its host is getting its image.
    pub fn is_pulling(&self) -> bool {
        self.ready.is_none() && self.fault.is_none() && self.reason.as_deref() == Some(PULLING)
    }

    /// The restarts of all its containers.
    pub fn restarts(&self) -> u32 {
        self.init_containers
            .iter()
            .chain(&self.containers)
            .map(|container| container.restarts)
            .sum()
    }

    /// Whether it is ready and has been for so long.
    pub fn available(&self, min_ready: Duration) -> bool {
        self.ready.is_some() && self.ready_for >= min_ready
    }
}

/// `phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PodPhase {
    /// Not all containers have been started yet.
    Pending,
    /// Bound to a node, all containers were started, at least one is running or being restarted.
    Running,
    /// All containers ended with 0 and are not restarted.
    Succeeded,
    /// All containers ended, at least one badly, and are not restarted.
    Failed,
    /// The node cannot say.
    Unknown,
}

impl PodPhase {
    /// As Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Unknown => "Unknown",
        }
    }

    /// Nothing more will happen to it.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// One of `containerStatuses`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// `name`.
    #[serde(deserialize_with = "foreign::sentence")]
    pub name: String,
    /// `image`, as written.
    #[serde(deserialize_with = "foreign::sentence")]
    pub image: String,
    /// `imageID`.
    pub image_id: Option<ImageId>,
    /// `containerID`.
    pub container_id: Option<ContainerId>,
    /// `ready`.
    pub ready: bool,
    /// `started`: running and past its startup probe and postStart hook.
    pub started: bool,
    /// `restartCount`.
    pub restarts: u32,
    /// `state`.
    pub state: ContainerPhase,
    /// `lastState`, how the one before it ended.
    pub last: Option<Termination>,
}

/// `state` of a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ContainerPhase {
    /// `waiting`.
    Waiting {
        /// One word: `ContainerCreating`, `CrashLoopBackOff`, `ErrImagePull`.
        #[serde(deserialize_with = "foreign::sentence")]
        reason: String,
        /// A sentence.
        #[serde(deserialize_with = "foreign::sentence")]
        message: String,
    },
    /// `running`.
    Running {
        /// Since when.
        started: Timestamp,
    },
    /// `terminated`.
    Terminated(Termination),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Termination {
    /// `exitCode`.
    pub code: i64,
    /// `reason`: `Completed`, `Error`, `OOMKilled`.
    #[serde(deserialize_with = "foreign::sentence")]
    pub reason: String,
    /// `message`: the termination message.
    #[serde(deserialize_with = "foreign::sentence")]
    pub message: String,
    /// `startedAt`.
    pub started: Timestamp,
    /// `finishedAt`.
    pub finished: Timestamp,
}
