//! What owns pods: bare pods and their controllers.

use std::{collections::BTreeMap, time::Duration};

use super::{Meta, Place, PodSpec};
use crate::name::{TemplateHash, WorkloadKey, WorkloadKind};

/// A Pod, ReplicaSet, ReplicationController, Deployment or DaemonSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Kind, namespace, name.
    pub key: WorkloadKey,
    /// `metadata` of the owner itself.
    pub meta: Meta,
    /// What its pods are made from; for a bare Pod the pod itself.
    pub template: PodTemplate,
    /// How many there are and how they change.
    pub control: Control,
    /// Where it was written.
    pub place: Place,
}

impl Workload {
    /// Whether a pod of a lost node is made anew elsewhere. A workload that writes to the host's
    /// own disk would come up there without its data, a bare Pod would be there twice if its node
    /// is only cut off, and a DaemonSet has nothing to do elsewhere.
    pub fn moves_when_lost(&self) -> bool {
        match self.key.kind {
            WorkloadKind::DaemonSet | WorkloadKind::Pod => false,
            WorkloadKind::Deployment
            | WorkloadKind::ReplicaSet
            | WorkloadKind::ReplicationController => !self.template.spec.writes_to_host(),
        }
    }
}

/// `spec.template`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodTemplate {
    /// `metadata` of the pods.
    pub meta: Meta,
    /// `spec` of the pods.
    pub spec: PodSpec,
    /// Hash over the template as written (canonical JSON, before defaults); see
    /// [`crate::name::TemplateHash`].
    pub hash: TemplateHash,
}

/// How many pods there are and how they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// A bare Pod: one, replaced when it changes.
    Pod,
    /// ReplicaSet and ReplicationController: so many; a changed template does not touch what runs.
    Replicas {
        /// `replicas`.
        replicas: u32,
        /// `minReadySeconds`.
        min_ready: Duration,
        /// The selector.
        selector: Selector,
    },
    /// Deployment.
    Deployment {
        /// `replicas`.
        replicas: u32,
        /// `minReadySeconds`.
        min_ready: Duration,
        /// The selector.
        selector: Selector,
        /// `strategy`.
        strategy: DeploymentStrategy,
        /// `progressDeadlineSeconds`; `None` is never.
        progress_deadline: Option<Duration>,
        /// `paused`.
        paused: bool,
    },
    /// DaemonSet.
    DaemonSet {
        /// `minReadySeconds`.
        min_ready: Duration,
        /// The selector.
        selector: Selector,
        /// `updateStrategy`.
        update: DaemonSetUpdate,
    },
}

impl Control {
    /// `minReadySeconds`; zero for a bare Pod.
    pub fn min_ready(&self) -> Duration {
        match self {
            Self::Pod => Duration::ZERO,
            Self::Replicas { min_ready, .. }
            | Self::Deployment { min_ready, .. }
            | Self::DaemonSet { min_ready, .. } => *min_ready,
        }
    }

    /// How many pods of a Deployment may be down while it is rolled; `None` for what is not rolled.
    pub fn rolling_unavailable(&self) -> Option<u32> {
        match self {
            Self::Deployment {
                replicas,
                strategy,
                paused: false,
                ..
            } => strategy
                .bounds(*replicas)
                .map(|(_, unavailable)| unavailable),
            _ => None,
        }
    }
}

/// `strategy` of a Deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeploymentStrategy {
    /// Old and new side by side, within bounds.
    RollingUpdate {
        /// `maxSurge`: how many more than `replicas` there may be.
        max_surge: IntOrPercent,
        /// `maxUnavailable`: how many fewer than `replicas` may be available.
        max_unavailable: IntOrPercent,
    },
    /// All old ones stop before the first new one starts.
    Recreate,
}

impl DeploymentStrategy {
    /// How many pods more than `replicas` there may be, and how many fewer may be available; `None`
    /// for `Recreate`.
    ///
    /// Both may come to nothing by rounding; then one may be down, as in Kubernetes.
    pub(crate) fn bounds(&self, replicas: u32) -> Option<(u32, u32)> {
        let Self::RollingUpdate {
            max_surge,
            max_unavailable,
        } = self
        else {
            return None;
        };
        let surge = max_surge.round_up(replicas);
        let unavailable = max_unavailable.round_down(replicas);
        Some((
            surge,
            if surge == 0 {
                unavailable.max(1)
            } else {
                unavailable
            },
        ))
    }
}

/// `updateStrategy` of a DaemonSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DaemonSetUpdate {
    /// Node by node.
    RollingUpdate {
        /// `maxUnavailable`.
        max_unavailable: IntOrPercent,
        /// `maxSurge`.
        max_surge: IntOrPercent,
    },
    /// Only as old pods go away by themselves.
    OnDelete,
}

/// A number or a share of the replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntOrPercent {
    /// So many.
    Int(u32),
    /// So many per cent.
    Percent(u32),
}

impl IntOrPercent {
    /// The number for so many replicas, a share rounded up.
    pub fn round_up(self, of: u32) -> u32 {
        match self {
            Self::Int(n) => n,
            Self::Percent(p) => {
                u32::try_from((u64::from(of) * u64::from(p)).div_ceil(100)).unwrap_or(u32::MAX)
            }
        }
    }

    /// The number for so many replicas, a share rounded down.
    pub fn round_down(self, of: u32) -> u32 {
        match self {
            Self::Int(n) => n,
            Self::Percent(p) => {
                u32::try_from(u64::from(of) * u64::from(p) / 100).unwrap_or(u32::MAX)
            }
        }
    }
}

/// A label selector; all requirements must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// `matchLabels`.
    pub labels: BTreeMap<String, String>,
    /// `matchExpressions`.
    pub expressions: Vec<Requirement>,
}

/// One of `matchExpressions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// What must hold for it.
    pub operator: Operator,
}

/// The operators of `matchExpressions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// One of these values.
    In(Vec<String>),
    /// None of these values, or absent.
    NotIn(Vec<String>),
    /// Present.
    Exists,
    /// Absent.
    DoesNotExist,
}

impl Selector {
    /// Whether the labels satisfy all requirements.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
            && self.expressions.iter().all(|requirement| {
                let value = labels.get(&requirement.key);
                match &requirement.operator {
                    Operator::In(values) => value.is_some_and(|value| values.contains(value)),
                    Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                    Operator::Exists => value.is_some(),
                    Operator::DoesNotExist => value.is_none(),
                }
            })
    }
}
