//! Why a commit failed, and what a workload lacks to be settled, as data.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::UnreadyPod;
use crate::{
    foreign::ForeignText,
    name::{ObjectKey, WorkloadKey},
};

/// Why a commit failed, as a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureClass {
    /// An image is missing, or is for another architecture.
    Image,
    /// A container exits repeatedly.
    CrashLoop,
    /// A workload did not become ready before its deadline.
    Deadline,
    /// The engine rejects a container.
    Rejected,
    /// A person asked for the rollback.
    Manual,
    /// A reason without a class of its own, or one that an earlier version did not classify.
    #[default]
    Other,
}

/// Why a commit failed, with the class by which the failure is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The class of the failure.
    pub class: FailureClass,
    /// The reason with its operands.
    pub reason: FailureReason,
}

/// Why a commit failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailureReason {
    /// A pod ended with an error and is not restarted.
    PodFailed {
        /// The owner of the pod.
        workload: WorkloadKey,
        /// Namespace and name of the pod.
        pod: ObjectKey,
        /// The message of the pod's last report.
        message: ForeignText,
    },
    /// A step of a pod failed with a fault of the commit: see
    /// [`FaultKind::is_commits_fault`](crate::fault::FaultKind::is_commits_fault).
    PodFault {
        /// The owner of the pod.
        workload: WorkloadKey,
        /// Namespace and name of the pod.
        pod: ObjectKey,
        /// The message of the pod's last report.
        message: ForeignText,
    },
    /// A container exits again and again.
    CrashLoop {
        /// The owner of the pod.
        workload: WorkloadKey,
        /// Namespace and name of the pod.
        pod: ObjectKey,
        /// Name of the container, as its node reports it.
        container: ForeignText,
        /// Number of restarts of the container.
        restarts: u32,
        /// The last exit of the container; `None` if the node reports none.
        last: Option<LastExit>,
    },
    /// A pod was not available at the deadline.
    PodLate {
        /// The owner of the pod.
        workload: WorkloadKey,
        /// Namespace and name of the pod.
        pod: ObjectKey,
        /// Why the pod is not ready; `None` if nothing is reported.
        why: Option<UnreadyPod>,
    },
    /// A Deployment made no progress within its `progressDeadlineSeconds`.
    ProgressDeadline(AvailablePods),
    /// More nodes fail than `rollout.max-faulty-nodes` allows.
    TooManyNodes {
        /// Why the first of these nodes fails.
        first: Box<FailureReason>,
        /// Number of nodes that fail.
        failing: usize,
        /// Number of nodes in the cluster.
        nodes: usize,
        /// Maximum number of nodes that may fail.
        most: usize,
    },
    /// No judged workload made progress within `rollout.deadline`.
    NoProgress {
        /// The deadline in seconds.
        seconds: u64,
        /// What the workloads lacked at the deadline.
        lacking: Box<Unsettled>,
    },
    /// A node cannot get the images of the commit, by its own report.
    Images(ForeignText),
    /// A node did not get the images of the commit within `rollout.deadline`.
    ImagesLate {
        /// The deadline in seconds.
        seconds: u64,
        /// The last error of the node.
        error: ForeignText,
    },
    /// A person asked for the rollback.
    Asked,
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PodFailed {
                workload,
                pod,
                message,
            } => write!(f, "{workload}: pod {} failed: {message}", pod.name),
            Self::PodFault {
                workload,
                pod,
                message,
            } => write!(f, "{workload}: pod {}: {message}", pod.name),
            Self::CrashLoop {
                workload,
                pod,
                container,
                restarts,
                last,
            } => {
                write!(
                    f,
                    "{workload}: crash loop: container {container} of pod {} was restarted {restarts} times",
                    pod.name
                )?;
                last.as_ref().map_or(Ok(()), |last| write!(f, ", {last}"))
            }
            Self::PodLate { workload, pod, why } => {
                write!(f, "{workload}: pod {} is not available in time", pod.name)?;
                write_clause(f, why.as_ref())
            }
            Self::ProgressDeadline(pods) => {
                write!(
                    f,
                    "{}: no progress within progressDeadlineSeconds: ",
                    pods.workload
                )?;
                pods.write_numbers(f)
            }
            Self::TooManyNodes {
                first,
                failing,
                nodes,
                most,
            } => write!(
                f,
                "{first}; {failing} of {nodes} nodes fail, {most} may (`rollout.max-faulty-nodes`)"
            ),
            Self::NoProgress { seconds, lacking } => {
                write!(f, "no progress within {seconds} s: {lacking}")
            }
            Self::Images(error) => error.fmt(f),
            Self::ImagesLate { seconds, error } => {
                write!(f, "its images cannot be had within {seconds} s: {error}")
            }
            Self::Asked => f.write_str("asked for by `windlass rollback`"),
        }
    }
}

/// How a container last exited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastExit {
    /// `exitCode` of the container, as the engine reports it.
    pub code: i64,
    /// The termination message; empty if there is none.
    pub message: ForeignText,
}

impl fmt::Display for LastExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the last time with exit code {}", self.code)?;
        if self.message.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", self.message)
    }
}

/// What a workload lacks to be settled, although nothing is in its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsettled {
    /// Not all of its pods are available, or old ones are left.
    Pods(AvailablePods),
    /// A pod fails, and pods on other nodes may still show that its node is at fault, not the
    /// commit.
    Undecided(FailureReason),
}

impl fmt::Display for Unsettled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pods(pods) => pods.fmt(f),
            Self::Undecided(failure) => failure.fmt(f),
        }
    }
}

/// How many pods of a workload are available, for example "Deployment/default/web: 1 of 3 pods available".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AvailablePods {
    /// The workload whose pods are counted.
    pub workload: WorkloadKey,
    /// Number of pods that count as available.
    pub available: usize,
    /// Number of pods that must be available.
    pub wanted: usize,
    /// The first pod that is not ready; `None` if there is none, or it gives no reason.
    pub unready: Option<UnreadyPod>,
}

impl AvailablePods {
    fn write_numbers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} pods available", self.available, self.wanted)?;
        write_clause(f, self.unready.as_ref())
    }
}

impl fmt::Display for AvailablePods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.workload)?;
        self.write_numbers(f)
    }
}

/// Appends why a pod is not ready to a sentence.
fn write_clause(f: &mut fmt::Formatter<'_>, pod: Option<&UnreadyPod>) -> fmt::Result {
    pod.map_or(Ok(()), |pod| write!(f, "; {pod}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        name::WorkloadKind,
        state::{Refusal, UnreadyReason},
    };

    fn workload() -> WorkloadKey {
        WorkloadKey {
            kind: WorkloadKind::Deployment,
            object: ObjectKey::new("default", "web"),
        }
    }

    fn pod() -> ObjectKey {
        ObjectKey::new("default", "web-1")
    }

    fn available(unready: Option<UnreadyReason>) -> AvailablePods {
        AvailablePods {
            workload: workload(),
            available: 1,
            wanted: 3,
            unready: unready.map(|why| UnreadyPod { pod: pod(), why }),
        }
    }

    fn crash_loop(last: Option<&str>) -> FailureReason {
        FailureReason::CrashLoop {
            workload: workload(),
            pod: pod(),
            container: ForeignText::new("app"),
            restarts: 3,
            last: last.map(|message| LastExit {
                code: 1,
                message: ForeignText::new(message),
            }),
        }
    }

    #[test]
    fn a_failure_names_what_failed_and_the_last_report_about_it() {
        let printed = [
            crash_loop(None),
            crash_loop(Some("")),
            crash_loop(Some("no such file")),
            FailureReason::PodLate {
                workload: workload(),
                pod: pod(),
                why: None,
            },
            FailureReason::ProgressDeadline(available(Some(UnreadyReason::Unplaced(
                Refusal::default(),
            )))),
            FailureReason::NoProgress {
                seconds: 600,
                lacking: Box::new(Unsettled::Pods(available(Some(UnreadyReason::Reported(
                    ForeignText::new("readiness probe failed"),
                ))))),
            },
            FailureReason::TooManyNodes {
                first: Box::new(crash_loop(None)),
                failing: 2,
                nodes: 3,
                most: 1,
            },
            FailureReason::ImagesLate {
                seconds: 600,
                error: ForeignText::new("EOF"),
            },
            FailureReason::Asked,
        ]
        .map(|reason| reason.to_string());
        insta::assert_snapshot!(printed.join("\n"), @r"
        Deployment/default/web: crash loop: container app of pod web-1 was restarted 3 times
        Deployment/default/web: crash loop: container app of pod web-1 was restarted 3 times, the last time with exit code 1
        Deployment/default/web: crash loop: container app of pod web-1 was restarted 3 times, the last time with exit code 1: no such file
        Deployment/default/web: pod web-1 is not available in time
        Deployment/default/web: no progress within progressDeadlineSeconds: 1 of 3 pods available; pod web-1 is not placed: 0 of 0 nodes: there are none
        no progress within 600 s: Deployment/default/web: 1 of 3 pods available; pod web-1: readiness probe failed
        Deployment/default/web: crash loop: container app of pod web-1 was restarted 3 times; 2 of 3 nodes fail, 1 may (`rollout.max-faulty-nodes`)
        its images cannot be had within 600 s: EOF
        asked for by `windlass rollback`
        ");
    }
}
