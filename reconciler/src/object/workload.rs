//! Owners of pods: bare pods and controllers.

use std::{collections::BTreeMap, time::Duration};

use super::{ManifestPosition, Meta, PodSpec};
use crate::name::{TemplateHash, WorkloadKey, WorkloadKind};

/// A Pod, ReplicaSet, ReplicationController, Deployment or DaemonSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Kind, namespace, name.
    pub key: WorkloadKey,
    /// `metadata` of the owner itself.
    pub meta: Meta,
    /// The template of its pods; for a bare Pod the pod itself.
    pub template: PodTemplate,
    /// The number of pods, and how they are updated.
    pub control: Control,
    /// File and line of the workload's manifest.
    pub position: ManifestPosition,
}

impl Workload {
    /// Whether a pod of a lost node is replaced elsewhere. A workload that writes to the host's own
    /// disk would start there without its data; a bare Pod would run twice if its node is only
    /// disconnected; a DaemonSet's pod belongs to its node.
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

/// The number of pods, and how they are updated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// A bare Pod: one pod, replaced when its manifest changes.
    Pod,
    /// ReplicaSet and ReplicationController: a number of pods; a changed template does not affect
    /// existing pods.
    Replicas {
        /// `replicas`.
        replicas: u32,
        /// `minReadySeconds`.
        min_ready: Duration,
        /// `selector`.
        selector: Selector,
    },
    /// Deployment.
    Deployment {
        /// `replicas`.
        replicas: u32,
        /// `minReadySeconds`.
        min_ready: Duration,
        /// `selector`.
        selector: Selector,
        /// `strategy`.
        strategy: DeploymentStrategy,
        /// `progressDeadlineSeconds`; `None` is no deadline.
        progress_deadline: Option<Duration>,
        /// `paused`.
        paused: bool,
    },
    /// DaemonSet.
    DaemonSet {
        /// `minReadySeconds`.
        min_ready: Duration,
        /// `selector`.
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

    /// How many pods of a Deployment may be down during a rolling update; `None` for other
    /// workloads and strategies.
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
    /// Old and new pods run at the same time, within limits.
    RollingUpdate {
        /// `maxSurge`: how many pods more than `replicas` may exist.
        max_surge: IntOrPercent,
        /// `maxUnavailable`: how many pods fewer than `replicas` may be available.
        max_unavailable: IntOrPercent,
    },
    /// All old pods stop before the first new pod starts.
    Recreate,
}

impl DeploymentStrategy {
    /// How many pods more than `replicas` may exist, and how many fewer may be available; `None`
    /// for `Recreate`. If both are rounded to zero, one pod may be unavailable, as in Kubernetes.
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
    /// Pods are replaced node by node.
    RollingUpdate {
        /// `maxUnavailable`.
        max_unavailable: IntOrPercent,
        /// `maxSurge`.
        max_surge: IntOrPercent,
    },
    /// A pod is replaced only after it has ended or was removed for another reason.
    OnDelete,
}

/// A number, or a percentage of the replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntOrPercent {
    /// A number of pods.
    Int(u32),
    /// A percentage of the replicas.
    Percent(u32),
}

impl IntOrPercent {
    /// The number of pods for this many replicas; a percentage is rounded up.
    pub fn round_up(self, of: u32) -> u32 {
        match self {
            Self::Int(n) => n,
            Self::Percent(p) => {
                u32::try_from((u64::from(of) * u64::from(p)).div_ceil(100)).unwrap_or(u32::MAX)
            }
        }
    }

    /// The number of pods for this many replicas; a percentage is rounded down.
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
    /// Key of the label.
    pub key: String,
    /// Operator and values.
    pub operator: Operator,
}

/// The operators of `matchExpressions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The label has one of these values.
    In(Vec<String>),
    /// The label has none of these values, or is absent.
    NotIn(Vec<String>),
    /// The label is present.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

impl Selector {
    /// Whether the labels satisfy all requirements of the selector.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_of_the_replicas_is_rounded_up_for_surge_and_down_for_unavailable_pods() {
        for (share, of, up, down) in [
            (IntOrPercent::Int(3), 2, 3, 3),
            (IntOrPercent::Percent(25), 0, 0, 0),
            (IntOrPercent::Percent(25), 1, 1, 0),
            (IntOrPercent::Percent(25), 4, 1, 1),
            (IntOrPercent::Percent(25), 7, 2, 1),
            (IntOrPercent::Percent(30), 10, 3, 3),
            (IntOrPercent::Percent(100), 7, 7, 7),
            (IntOrPercent::Percent(200), u32::MAX, u32::MAX, u32::MAX),
        ] {
            let rounded = (share.round_up(of), share.round_down(of));
            assert_eq!(rounded, (up, down), "{share:?} of {of}");
        }
    }

    #[test]
    fn one_pod_may_be_unavailable_if_no_pod_may_be_surplus() {
        let bounds = |max_surge, max_unavailable, replicas| {
            DeploymentStrategy::RollingUpdate {
                max_surge,
                max_unavailable,
            }
            .bounds(replicas)
        };
        let (number, percent) = (IntOrPercent::Int, IntOrPercent::Percent);
        assert_eq!(bounds(number(0), number(0), 4), Some((0, 1)));
        assert_eq!(bounds(number(0), percent(25), 1), Some((0, 1)));
        assert_eq!(bounds(number(0), number(3), 4), Some((0, 3)));
        assert_eq!(bounds(number(2), number(0), 4), Some((2, 0)));
        assert_eq!(bounds(percent(25), percent(25), 10), Some((3, 2)));
        assert_eq!(DeploymentStrategy::Recreate.bounds(4), None);
    }

    #[test]
    fn a_selector_needs_all_its_labels_and_all_its_expressions() {
        let labels = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let matches = |wanted: &[(&str, &str)], operator: Option<Operator>, own: &str| {
            let requirement = |operator| Requirement {
                key: "tier".to_owned(),
                operator,
            };
            let selector = Selector {
                labels: labels(wanted),
                expressions: operator.map(requirement).into_iter().collect(),
            };
            let mut given = labels(&[("app", "web")]);
            if !own.is_empty() {
                given.extend(labels(&[("tier", own)]));
            }
            selector.matches(&given)
        };
        let front = || vec!["front".to_owned()];
        let web = [("app", "web")];
        for (operator, expected) in [
            (Operator::In(front()), [true, false, false]),
            (Operator::NotIn(front()), [false, true, true]),
            (Operator::Exists, [true, true, false]),
            (Operator::DoesNotExist, [false, false, true]),
        ] {
            let tiers = ["front", "back", ""];
            let both = tiers.map(|own| matches(&web, Some(operator.clone()), own));
            assert_eq!(both, expected, "{operator:?}");
            let other = tiers.map(|own| matches(&[("app", "db")], Some(operator.clone()), own));
            assert_eq!(other, [false; 3], "{operator:?} and another label");
        }
        assert!(matches(&web, None, ""));
        assert!(matches(&[], None, ""), "an empty selector selects all pods");
    }
}
