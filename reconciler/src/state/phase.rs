//! The phase of the target, and what each phase waits for.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use super::{FailureReason, ImageObstacle, Obstacle, Stored, Unsettled};
use crate::name::NodeName;

/// Phase of the target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Phase {
    /// There has been no commit yet.
    #[default]
    Empty,
    /// The nodes pull the target's images; the commit that was driven before still runs.
    Preparing {
        /// What the phase waits for.
        message: Stored<AwaitedImages>,
    },
    /// The controllers are updating the workloads to the target.
    Progressing {
        /// What the phase waits for.
        message: Stored<Activity>,
    },
    /// Everything has settled, and must stay settled for the soak time.
    Soaking,
    /// The target has stayed settled for the soak time.
    Healthy,
    /// The target failed, and there is no other commit to roll back to, or the rollback failed too.
    /// The target is kept running, and its pods are restarted as usual.
    Degraded {
        /// Why the target is degraded.
        message: Stored<FailureReason>,
    },
}

impl Phase {
    /// The phase in which the nodes begin to report about the images of a new target.
    pub fn preparing() -> Self {
        Self::Preparing {
            message: AwaitedImages::Reports.into(),
        }
    }

    /// The phase in which the controllers do this.
    pub fn progressing(activity: Activity) -> Self {
        Self::Progressing {
            message: activity.into(),
        }
    }

    /// The name of the phase, as one word for people.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Preparing { .. } => "Preparing",
            Self::Progressing { .. } => "Progressing",
            Self::Soaking => "Soaking",
            Self::Healthy => "Healthy",
            Self::Degraded { .. } => "Degraded",
        }
    }

    /// What the phase waits for, or why the target is degraded, as a sentence; empty for a phase
    /// that needs none.
    pub fn message(&self) -> String {
        match self {
            Self::Preparing { message } => message.to_string(),
            Self::Progressing { message } => message.to_string(),
            Self::Degraded { message } => message.to_string(),
            Self::Empty | Self::Soaking | Self::Healthy => String::new(),
        }
    }
}

/// What the preparation of a target waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AwaitedImages {
    /// Nodes have not reported about the images yet.
    Reports,
    /// A node is pulling.
    Pulling {
        /// Number of images that are on the node.
        done: usize,
        /// Number of all images that the node must have.
        of: usize,
    },
    /// A node cannot get its images.
    Node(ImageObstacle),
}

impl fmt::Display for AwaitedImages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reports => f.write_str("looking at its images"),
            Self::Pulling { done, of } => write!(f, "{done} of {of} images are here"),
            Self::Node(obstacle) => obstacle.fmt(f),
        }
    }
}

/// What the controllers do with the target, and what they wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Activity {
    /// The controllers begin to follow the target.
    Starting,
    /// The controllers begin to follow an earlier commit again.
    RollingBack,
    /// Something outside of the commit is in the way.
    Waiting(Obstacle),
    /// Not all workloads have settled.
    Unsettled(Unsettled),
    /// Only the canaries follow the target.
    Canaries {
        /// Names of the canaries.
        nodes: BTreeSet<NodeName>,
        /// What the canaries do.
        activity: CanaryActivity,
    },
}

impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("starting"),
            Self::RollingBack => f.write_str("rolling back"),
            Self::Waiting(obstacle) => obstacle.fmt(f),
            Self::Unsettled(lacking) => lacking.fmt(f),
            Self::Canaries { nodes, activity } => {
                let names: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
                write!(f, "canaries {}: {activity}", names.join(", "))
            }
        }
    }
}

/// What the canaries do with the target, and what they wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CanaryActivity {
    /// Something outside of the commit is in the way.
    Waiting(Obstacle),
    /// Not all workloads have settled on the canaries.
    Unsettled(Unsettled),
    /// Everything on the canaries has settled, and must stay settled.
    Soaking,
    /// The canaries have stayed settled for the canary soak time: the other nodes follow.
    Passed,
}

impl fmt::Display for CanaryActivity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting(obstacle) => obstacle.fmt(f),
            Self::Unsettled(lacking) => lacking.fmt(f),
            Self::Soaking => f.write_str("all is well, the others follow if it stays so"),
            Self::Passed => f.write_str("all is well; the others follow"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foreign::ForeignText;

    #[test]
    fn a_phase_is_stored_with_the_sentence_that_other_versions_read() {
        let nodes = || BTreeSet::from(["a", "b"].map(NodeName::new));
        let canaries = |activity| {
            Phase::progressing(Activity::Canaries {
                nodes: nodes(),
                activity,
            })
        };
        let phases = [
            (Phase::Empty, r#""Empty""#),
            (
                Phase::preparing(),
                r#"{"Preparing":{"message":"looking at its images"}}"#,
            ),
            (
                Phase::Preparing {
                    message: AwaitedImages::Pulling { done: 1, of: 3 }.into(),
                },
                r#"{"Preparing":{"message":"1 of 3 images are here"}}"#,
            ),
            (
                Phase::Preparing {
                    message: AwaitedImages::Node(ImageObstacle::NotReceived(NodeName::new("a")))
                        .into(),
                },
                r#"{"Preparing":{"message":"node a has not got the commit: see `windlass status` there"}}"#,
            ),
            (
                Phase::progressing(Activity::Starting),
                r#"{"Progressing":{"message":"starting"}}"#,
            ),
            (
                Phase::progressing(Activity::RollingBack),
                r#"{"Progressing":{"message":"rolling back"}}"#,
            ),
            (
                Phase::progressing(Activity::Waiting(Obstacle::NotReported(NodeName::new("a")))),
                r#"{"Progressing":{"message":"node a has not reported yet"}}"#,
            ),
            (
                canaries(CanaryActivity::Waiting(Obstacle::CanariesAbsent)),
                r#"{"Progressing":{"message":"canaries a, b: no canary reports"}}"#,
            ),
            (
                canaries(CanaryActivity::Soaking),
                r#"{"Progressing":{"message":"canaries a, b: all is well, the others follow if it stays so"}}"#,
            ),
            (
                canaries(CanaryActivity::Passed),
                r#"{"Progressing":{"message":"canaries a, b: all is well; the others follow"}}"#,
            ),
            (Phase::Soaking, r#""Soaking""#),
            (Phase::Healthy, r#""Healthy""#),
            (
                Phase::Degraded {
                    message: FailureReason::Images(ForeignText::new("manifest unknown")).into(),
                },
                r#"{"Degraded":{"message":"manifest unknown"}}"#,
            ),
        ];
        for (phase, stored) in phases {
            assert_eq!(serde_json::to_string(&phase).expect("a phase"), stored);
            let read: Phase = serde_json::from_str(stored).expect("a phase");
            assert_eq!(read, phase);
            assert_eq!(read.message(), phase.message());
        }
    }

    #[test]
    fn a_phase_of_another_version_keeps_its_sentence() {
        let stored = r#"{"Progressing":{"message":"a sentence of a later version"}}"#;
        let phase: Phase = serde_json::from_str(stored).expect("a phase");
        assert_eq!(phase.message(), "a sentence of a later version");
        assert_eq!(serde_json::to_string(&phase).expect("a phase"), stored);
    }
}
