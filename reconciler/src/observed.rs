//! What was observed on a host. Facts only: `node` decides what follows from them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    fault::Fault,
    foreign,
    name::{ContainerId, ImageId, LinkName, PodUid},
    plan::{LaneKey, PodIdentity, ProbeKind, Role},
    time::{backoff, still_to_come},
};

/// Everything that was observed. The value exists only if the engine answered: a host whose engine
/// does not answer is not a host without containers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// All containers with our labels, whatever their state.
    pub containers: BTreeMap<ContainerId, ObservedContainer>,
    /// Images on the disk.
    pub images: BTreeSet<ImageId>,
    /// Names of the pod links that exist together with their route.
    pub links: BTreeSet<LinkName>,
    /// Pods whose directory exists with all its files, with the digest of the files from ConfigMaps
    /// and Secrets.
    pub files: BTreeMap<PodUid, String>,
    /// Containers whose postStart hook has succeeded.
    pub hooked: BTreeSet<ContainerId>,
    /// The results of probes.
    pub probes: BTreeMap<(ContainerId, ProbeKind), ProbeFact>,
    /// Lanes that are still running.
    pub lanes: BTreeSet<LaneKey>,
    /// Those of the running lanes that carry out a stop record.
    pub stopping: BTreeSet<LaneKey>,
    /// Lanes whose last run failed, with the failures since their last success.
    pub failures: BTreeMap<LaneKey, LaneFailure>,
}

/// One container with our labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObservedContainer {
    /// The pod of the container.
    pub identity: PodIdentity,
    /// The role of the container in the pod.
    pub role: Role,
    /// Name of the container in the pod; empty for the sandbox.
    pub name: String,
    /// Number of the container among those of the same name: 0 for the first.
    pub attempt: u32,
    /// Id of the image from which the container was created.
    pub image: ImageId,
    /// State of the container.
    pub state: ContainerState,
}

/// State of a container, as the engine reports it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ContainerState {
    /// The container was created and never started.
    Created,
    /// The container is running.
    Running {
        /// When the container started.
        started: Timestamp,
    },
    /// Somebody paused the container.
    Paused {
        /// When the container started.
        started: Timestamp,
    },
    /// The container exited.
    Exited {
        /// When the container started.
        started: Timestamp,
        /// When the container exited.
        finished: Timestamp,
        /// The exit code.
        code: i64,
        /// Whether the kernel killed the container because it was out of memory.
        oom: bool,
        /// The termination message, at most 4096 bytes.
        message: String,
    },
    /// The engine is removing the container, or cannot remove it.
    Dead,
}

impl ContainerState {
    /// Whether the container runs or is paused, so that it uses resources.
    pub fn is_alive(&self) -> bool {
        matches!(self, Self::Running { .. } | Self::Paused { .. })
    }
}

/// The result of a probe, after its thresholds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeFact {
    /// Whether the probe succeeded.
    pub ok: bool,
    /// When the result last changed.
    pub since: Timestamp,
    /// The message of the last failed attempt.
    #[serde(deserialize_with = "foreign::sentence")]
    pub message: String,
}

/// The failures of a lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneFailure {
    /// The fault of the last run.
    pub fault: Fault,
    /// Name of the container whose step failed; `None` if the step concerned no container.
    pub container: Option<String>,
    /// When the first of the consecutive runs failed.
    pub since: Timestamp,
    /// When the last run failed.
    pub at: Timestamp,
    /// Number of consecutive failures.
    pub count: u32,
    /// Whether the lane stops or removes something.
    pub removes: bool,
}

/// The delay before the first retry of a failed lane.
const FIRST_RETRY: Duration = Duration::from_secs(10);
/// The longest delay before a retry, and that of a lane that stops or removes something.
const LONGEST_RETRY: Duration = Duration::from_secs(300);
const LONGEST_REMOVAL_RETRY: Duration = Duration::from_secs(60);

impl LaneFailure {
    /// When the lane is retried; `None` if it may run now. The first delay is 10 s, and it doubles
    /// up to 300 s, or up to 60 s for a lane that stops or removes something, since other pods wait
    /// for that. Faults of the commit are retried as well, because an image may be pushed later.
    pub fn retry_at(&self, now: Timestamp) -> Option<Timestamp> {
        let longest = if self.removes {
            LONGEST_REMOVAL_RETRY
        } else {
            LONGEST_RETRY
        };
        let delay = backoff(FIRST_RETRY, self.count.saturating_sub(1), longest);
        still_to_come(self.at, delay, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::FaultKind;

    #[test]
    fn a_failed_lane_is_retried_after_a_delay_that_doubles_up_to_its_limit() {
        let at = |seconds: u64| Timestamp::UNIX_EPOCH + Duration::from_secs(seconds);
        for (count, removes, seconds) in [
            (1, false, 10),
            (2, false, 20),
            (5, false, 160),
            (6, false, 300),
            (60, false, 300),
            (1, true, 10),
            (3, true, 40),
            (4, true, 60),
        ] {
            let failure = LaneFailure {
                fault: Fault::new(FaultKind::Other, "x"),
                container: None,
                since: at(900),
                at: at(1000),
                count,
                removes,
            };
            let due = at(1000 + seconds);
            let before = failure.retry_at(due - Duration::from_millis(1));
            assert_eq!(before, Some(due), "{count} {removes}");
            assert_eq!(failure.retry_at(due), None, "{count} {removes}");
        }
    }

    #[test]
    fn a_container_uses_resources_while_it_runs_or_is_paused() {
        let started = Timestamp::UNIX_EPOCH;
        let exited = ContainerState::Exited {
            started,
            finished: started,
            code: 0,
            oom: false,
            message: String::new(),
        };
        assert!(ContainerState::Running { started }.is_alive());
        assert!(ContainerState::Paused { started }.is_alive());
        for state in [ContainerState::Created, ContainerState::Dead, exited] {
            assert!(!state.is_alive(), "{state:?}");
        }
    }
}
