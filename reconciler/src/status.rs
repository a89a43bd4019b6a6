//! The status of a pod, in Kubernetes' terms.

use std::{net::Ipv4Addr, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    fault::FaultKind,
    foreign,
    name::{ContainerId, ImageId},
};

/// How long a pod must have been ready to show that its template works.
pub const STEADY: Duration = Duration::from_secs(10);

/// The reason of a pod that waits for its image while no pull has failed.
pub const PULLING: &str = "PullingImage";

/// `status` of a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodStatus {
    /// `phase`.
    pub phase: PodPhase,
    /// `reason`, one word; kubectl shows it as STATUS where it is set.
    #[serde(default, deserialize_with = "foreign::optional_sentence")]
    pub reason: Option<String>,
    /// `message`, a sentence.
    #[serde(default, deserialize_with = "foreign::optional_sentence")]
    pub message: Option<String>,
    /// `podIP`; `None` until the pod has one.
    pub address: Option<Ipv4Addr>,
    /// When the host first acted on the pod; `None` before.
    pub started: Option<Timestamp>,
    /// Whether all init containers have succeeded.
    pub initialized: bool,
    /// Since when all containers are ready; `None` if they are not.
    pub ready: Option<Timestamp>,
    /// Minimum time that the pod has been ready, by its host's clock: zero, [`STEADY`], or the
    /// `minReadySeconds` of its owner.
    #[serde(default)]
    pub ready_for: Duration,
    /// Whether the pod has a stop record while something of it is left.
    pub terminating: bool,
    /// Whether a stopping pod still answers: it was ready when it got its stop record, and its
    /// containers still run. Such a pod receives traffic only where no pod is ready.
    #[serde(default)]
    pub serving: bool,
    /// `initContainerStatuses`.
    pub init_containers: Vec<ContainerStatus>,
    /// `containerStatuses`.
    pub containers: Vec<ContainerStatus>,
    /// What prevents the pod from reaching its goal; `None` if nothing does.
    pub fault: Option<FaultKind>,
}

impl PodStatus {
    /// The status of a pod before anything was observed.
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

    /// Whether the pod's host is pulling its image.
    pub fn is_pulling(&self) -> bool {
        self.ready.is_none() && self.fault.is_none() && self.reason.as_deref() == Some(PULLING)
    }

    /// The number of restarts of all containers of the pod.
    pub fn restarts(&self) -> u32 {
        self.init_containers
            .iter()
            .chain(&self.containers)
            .map(|container| container.restarts)
            .sum()
    }

    /// Whether the pod is ready, and has been for this time.
    pub fn available(&self, min_ready: Duration) -> bool {
        self.ready.is_some() && self.ready_for >= min_ready
    }
}

/// `phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PodPhase {
    /// Not all containers have been started yet.
    Pending,
    /// The pod is assigned to a node, all containers were started, and at least one is running or
    /// being restarted.
    Running,
    /// All containers exited with 0 and are not restarted.
    Succeeded,
    /// All containers exited, at least one with a failure, and none is restarted.
    Failed,
    /// The state of the pod cannot be determined.
    Unknown,
}

impl PodPhase {
    /// The name that Kubernetes uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Unknown => "Unknown",
        }
    }

    /// Whether the phase is final.
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
    /// `image`, as written in the manifest.
    #[serde(deserialize_with = "foreign::sentence")]
    pub image: String,
    /// `imageID`.
    pub image_id: Option<ImageId>,
    /// `containerID`.
    pub container_id: Option<ContainerId>,
    /// `ready`.
    pub ready: bool,
    /// `started`: the container runs, and its startup probe and postStart hook have succeeded.
    pub started: bool,
    /// `restartCount`.
    pub restarts: u32,
    /// `state`.
    pub state: ContainerPhase,
    /// `lastState`: the exit of the previous container.
    pub last: Option<Termination>,
}

/// `state` of a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ContainerPhase {
    /// `waiting`.
    Waiting {
        /// `reason`, one word such as `ContainerCreating`, `CrashLoopBackOff` or `ErrImagePull`.
        #[serde(deserialize_with = "foreign::sentence")]
        reason: String,
        /// `message`, a sentence.
        #[serde(deserialize_with = "foreign::sentence")]
        message: String,
    },
    /// `running`.
    Running {
        /// `startedAt`.
        started: Timestamp,
    },
    /// `terminated`.
    Terminated(Termination),
}

/// The exit of a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Termination {
    /// `exitCode`.
    pub code: i64,
    /// `reason`, such as `Completed`, `Error` or `OOMKilled`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_pulling_until_it_is_ready_or_has_a_fault() {
        let pulling = PodStatus {
            reason: Some(PULLING.to_owned()),
            ..PodStatus::pending()
        };
        assert!(pulling.is_pulling());
        let others = [
            PodStatus::pending(),
            PodStatus {
                reason: Some("ContainerCreating".to_owned()),
                ..PodStatus::pending()
            },
            PodStatus {
                ready: Some(Timestamp::UNIX_EPOCH),
                ..pulling.clone()
            },
            PodStatus {
                fault: Some(FaultKind::RegistryUnreachable),
                ..pulling
            },
        ];
        for status in others {
            assert!(!status.is_pulling(), "{status:?}");
        }
    }

    #[test]
    fn a_pod_is_available_when_it_is_ready_for_the_whole_time() {
        let second = Duration::from_secs(1);
        let ready = |ready, ready_for| PodStatus {
            ready,
            ready_for,
            ..PodStatus::pending()
        };
        let since = Some(Timestamp::UNIX_EPOCH);
        assert!(ready(since, STEADY).available(STEADY));
        assert!(ready(since, STEADY + second).available(STEADY));
        assert!(!ready(since, STEADY - second).available(STEADY));
        assert!(!ready(None, STEADY).available(STEADY));
        assert!(!ready(None, Duration::ZERO).available(Duration::ZERO));
    }

    #[test]
    fn the_restarts_of_a_pod_are_those_of_all_its_containers() {
        let container = |restarts| ContainerStatus {
            name: "c".to_owned(),
            image: "app:1".to_owned(),
            image_id: None,
            container_id: None,
            ready: false,
            started: false,
            restarts,
            state: ContainerPhase::Running {
                started: Timestamp::UNIX_EPOCH,
            },
            last: None,
        };
        let status = PodStatus {
            init_containers: vec![container(2)],
            containers: vec![container(3), container(4)],
            ..PodStatus::pending()
        };
        assert_eq!(status.restarts(), 9);
        assert_eq!(PodStatus::pending().restarts(), 0);
    }

    #[test]
    fn phases_have_the_names_of_kubernetes_and_two_of_them_are_final() {
        let phases = [
            (PodPhase::Pending, "Pending", false),
            (PodPhase::Running, "Running", false),
            (PodPhase::Succeeded, "Succeeded", true),
            (PodPhase::Failed, "Failed", true),
            (PodPhase::Unknown, "Unknown", false),
        ];
        for (phase, name, is_final) in phases {
            assert_eq!((phase.as_str(), phase.is_final()), (name, is_final));
        }
    }
}
