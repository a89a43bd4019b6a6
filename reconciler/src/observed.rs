//! What was found on a host. Facts only: what they mean is decided in `node`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    fault::Fault,
    foreign,
    name::{ContainerId, ImageId, PodUid},
    plan::{LaneKey, PodIdentity, ProbeKind, Role},
    time::still_to_come,
};

/// Everything that was found. It exists only when the engine could be asked: an engine that does
/// not answer is not a host without containers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// All containers with our labels, whatever their state.
    pub containers: BTreeMap<ContainerId, ObservedContainer>,
    /// Images on the disk.
    pub images: BTreeSet<ImageId>,
    /// Names of pod links that exist with their route, `wdl...`.
    pub links: BTreeSet<String>,
    /// Pods that have a directory with all its files, and the digest of the files from ConfigMaps
    /// and Secrets.
    pub files: BTreeMap<PodUid, String>,
    /// Containers whose postStart hook is done.
    pub hooked: BTreeSet<ContainerId>,
    /// What the prober has found.
    pub probes: BTreeMap<(ContainerId, ProbeKind), ProbeFact>,
    /// Lanes still under way.
    pub lanes: BTreeSet<LaneKey>,
    /// Those of them that carry out a stop record.
    pub stopping: BTreeSet<LaneKey>,
    /// Lanes whose last run failed, since the last one that did not.
    pub failures: BTreeMap<LaneKey, LaneFailure>,
}

/// One container of ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObservedContainer {
    /// The pod it belongs to.
    pub identity: PodIdentity,
    /// What it is there.
    pub role: Role,
    /// Its name in the pod; empty for the sandbox.
    pub name: String,
    /// How many came before it.
    pub attempt: u32,
    /// The image it was made from.
    pub image: ImageId,
    /// What it is doing.
    pub state: ContainerState,
}

/// What a container is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Created, never started.
    Created,
    /// Running.
    Running {
        /// Since when.
        started: Timestamp,
    },
    /// Paused by somebody.
    Paused {
        /// Running since when.
        started: Timestamp,
    },
    /// Ended.
    Exited {
        /// When it started.
        started: Timestamp,
        /// When it ended.
        finished: Timestamp,
        /// The exit code.
        code: i64,
        /// Killed for want of memory.
        oom: bool,
        /// The termination message, bounded to 4096 bytes.
        message: String,
    },
    /// Being removed, or beyond the engine's help.
    Dead,
}

impl ContainerState {
    /// Running or paused: it holds its resources.
    pub fn is_alive(&self) -> bool {
        matches!(self, Self::Running { .. } | Self::Paused { .. })
    }
}

/// What a probe has found, its thresholds already counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeFact {
    /// Good or bad.
    pub ok: bool,
    /// Since when.
    pub since: Timestamp,
    /// What the last failing attempt said.
    #[serde(deserialize_with = "foreign::sentence")]
    pub message: String,
}

/// A lane that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneFailure {
    /// What failed.
    pub fault: Fault,
    /// Which container's step it was, where it was one's.
    pub container: Option<String>,
    /// When.
    pub at: Timestamp,
    /// How often in a row.
    pub count: u32,
    /// Whether the lane was to stop or remove something.
    pub removes: bool,
}

/// The longest that a lane which failed is held back, and one that stops or removes something.
const LONGEST_RETRY: u64 = 300;
const LONGEST_REMOVAL_RETRY: u64 = 60;

impl LaneFailure {
    /// When to try again, if not now: 10 s after it, doubling, at most 300 s, or 60 s for a stop or
    /// removal, which others wait for; the commit's own faults as well, since an image may be
    /// pushed later.
    pub fn retry_at(&self, now: Timestamp) -> Option<Timestamp> {
        let longest = if self.removes {
            LONGEST_REMOVAL_RETRY
        } else {
            LONGEST_RETRY
        };
        let seconds = 10_u64
            .saturating_mul(1 << self.count.saturating_sub(1).min(5))
            .min(longest);
        still_to_come(self.at, Duration::from_secs(seconds), now)
    }
}
