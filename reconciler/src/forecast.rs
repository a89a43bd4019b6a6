//! What happens to which pods, where and in which order, if a commit becomes the target now: the
//! leader's own decisions, made again and again over an imagined cluster in which every image can be
//! pulled, every new pod becomes ready and every stop succeeds.

mod imagined;
mod pace;

use std::{collections::BTreeMap, fmt, sync::Arc};

use self::imagined::ImaginedCluster;
pub use self::pace::Pace;
use crate::{
    cluster::{ClusterInput, HeldDeletions, Note},
    commit::{self, Commit},
    name::{NodeName, ObjectKey, WorkloadKey, WorkloadKind},
    object::Workload,
    state::{Phase, Refusal, ServiceAllocation, StopReason},
};

/// The pods that the rollout of a commit starts and stops.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// The decisions that start or stop something. The steps of one decision begin together; the
    /// next decision is made when its pods are ready or gone.
    pub rounds: Vec<Vec<ForecastStep>>,
    /// How each workload whose template differs replaces its pods.
    pub paces: BTreeMap<WorkloadKey, Pace>,
    /// How the forecast ends.
    pub end: ForecastEnd,
    /// Remarks of the last decision.
    pub notes: Vec<Note>,
    /// Deletions that the last decision holds back.
    pub held: Option<HeldDeletions>,
}

/// One thing that the leader decides.
#[derive(Clone, Debug, PartialEq)]
pub enum ForecastStep {
    /// A pod is made on a node.
    Start {
        /// The workload of the pod.
        owner: WorkloadKey,
        /// The node of the pod.
        node: NodeName,
    },
    /// A pod is made that no node accepts.
    Unplaced {
        /// The workload of the pod.
        owner: WorkloadKey,
        /// Why no node accepts the pod.
        why: Refusal,
    },
    /// A pod is stopped.
    Stop {
        /// The workload of the pod.
        owner: WorkloadKey,
        /// The name of the pod; `None` for a pod that the forecast itself has made.
        pod: Option<ObjectKey>,
        /// The node of the pod; `None` for a pod without a node.
        node: Option<NodeName>,
        /// Why the pod is stopped.
        reason: StopReason,
    },
    /// A Service gets its address and node ports.
    Allocate {
        /// The Service.
        service: ObjectKey,
        /// The address and the node ports.
        allocation: ServiceAllocation,
    },
    /// The address and the node ports of a Service become free.
    Release {
        /// The Service.
        service: ObjectKey,
    },
}

/// How a forecast ends.
#[derive(Clone, Debug, PartialEq)]
pub enum ForecastEnd {
    /// The commit becomes healthy, and nothing more changes.
    Healthy,
    /// Something else is in the way: the commit stays in this phase.
    Stays(Phase),
    /// The commit fails in this phase.
    Fails(Phase),
    /// The rollout takes more decisions than a forecast makes.
    TooLong,
}

/// The forecast for a commit that is one of the input's commits.
pub fn forecast(input: &ClusterInput<'_>, commit: &Arc<Commit>) -> Forecast {
    let mut imagined = ImaginedCluster::new(input, commit);
    let mut rounds = Vec::new();
    let (decision, end) = imagined.run(&mut rounds);

    let driving = input.state.rollout.driving.as_ref();
    let before = driving.and_then(|id| input.readable(id));
    let changed = |workload: &&Workload| {
        let before = before.and_then(|commit| commit.objects.workloads.get(&workload.key));
        before.is_some_and(|before| before.template.hash != workload.template.hash)
    };
    let workloads = commit.objects.workloads.values();
    let paces = workloads
        .filter(changed)
        .map(|workload| (workload.key.clone(), Pace::of(workload)))
        .collect();

    Forecast {
        rounds,
        paces,
        end,
        notes: decision.notes,
        held: decision.held,
    }
}

/// The commit that a commit is compared with: the one that the controllers follow.
pub fn compared_with<'a>(input: &ClusterInput<'a>) -> Option<&'a Arc<Commit>> {
    commit::driving(input.commits, &input.state.rollout)
        .or_else(|| input.kept.get(input.state.rollout.driving.as_ref()?))
}

impl fmt::Display for ForecastStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { owner, node } if owner.kind == WorkloadKind::Pod => {
                write!(f, "start {owner} on {node}")
            }
            Self::Start { owner, node } => write!(f, "start a pod of {owner} on {node}"),
            Self::Unplaced { owner, why } => {
                write!(f, "a pod of {owner} waits for a node: {why}")
            }
            Self::Stop {
                owner,
                pod,
                node,
                reason,
            } => {
                match pod {
                    Some(pod) => write!(f, "stop pod {pod}")?,
                    None => write!(f, "stop the new pod of {owner}")?,
                }
                if let Some(node) = node {
                    write!(f, " on {node}")?;
                }
                write!(f, ": {}", reason.as_str())
            }
            Self::Allocate {
                service,
                allocation,
            } => {
                match allocation.cluster_ip {
                    Some(address) => write!(f, "give Service {service} the address {address}")?,
                    None => write!(f, "give Service {service} no address")?,
                }
                let ports: Vec<String> =
                    allocation.node_ports.values().map(u16::to_string).collect();
                if ports.is_empty() {
                    return Ok(());
                }
                write!(f, " and the node ports {}", ports.join(", "))
            }
            Self::Release { service } => {
                write!(f, "free the address and the ports of Service {service}")
            }
        }
    }
}

impl fmt::Display for ForecastEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match self {
            Self::Healthy => return f.write_str("then the commit is healthy"),
            Self::TooLong => return f.write_str("and further decisions, which are not listed"),
            Self::Stays(phase) => {
                write!(f, "then the rollout waits ({})", phase.as_str())?;
                phase
            }
            Self::Fails(phase) => {
                write!(f, "then the rollout fails ({})", phase.as_str())?;
                phase
            }
        };
        match phase.message() {
            message if message.is_empty() => Ok(()),
            message => write!(f, ": {message}"),
        }
    }
}

#[cfg(test)]
mod tests;
