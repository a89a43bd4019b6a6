//! Remarks about a decision, as data: conditions that are no errors, and deletions that are held
//! back.

use std::fmt;

use crate::{
    allocate::{Exhausted, RefusedAllocation},
    name::{CommitId, NodeName, WorkloadKey, first_few},
    state::{Refusal, Unfit},
};

/// A remark for people about what was decided, or was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A store was adopted, and this node has not reported its pods yet: nothing is decided.
    StockMissing(NodeName),
    /// A canary cannot run the new pod of a Deployment beside the pods that are there.
    CanaryBarred {
        /// The Deployment that is rolled out.
        workload: WorkloadKey,
        /// The canary that gets no new pod.
        node: NodeName,
        /// Why the canary does not accept the pod.
        unfit: Unfit,
    },
    /// Pods of a workload that left the commit run on until other workloads are available.
    RunsOn {
        /// The workload that left the commit.
        workload: WorkloadKey,
        /// The workloads that the commit added in its place and that are not available yet.
        awaited: Vec<WorkloadKey>,
    },
    /// Pods run an earlier template, and their owner does not replace them.
    OldTemplate {
        /// The owner of the pods.
        workload: WorkloadKey,
        /// Number of these pods.
        pods: usize,
    },
    /// Pods stay on nodes that Git marks to be drained.
    NotDrained {
        /// The owner of the pods.
        workload: WorkloadKey,
        /// The drained nodes with pods of the owner.
        nodes: Vec<NodeName>,
        /// Why the pods stay.
        why: Undrained,
    },
    /// A Service gets no address or node port.
    Unallocated(RefusedAllocation),
}

/// Why a pod stays on a node that is drained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undrained {
    /// The pod is a bare Pod, which has no owner to make it anew.
    BarePod,
    /// The pod writes to the host's disk.
    WritesToDisk,
    /// No node accepts the pod that would replace it.
    Unplaced(Refusal),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StockMissing(node) => write!(
                f,
                "the store was adopted, and nothing is decided before node {node} has reported its pods; \
                 `windlass node rm {node}` gives it up"
            ),
            Self::CanaryBarred {
                workload,
                node,
                unfit,
            } => write!(
                f,
                "{workload}: the canary {node} cannot take a new pod beside what is there ({unfit})"
            ),
            Self::RunsOn { workload, awaited } => write!(
                f,
                "{workload} left the commit; its pods run on until {} is available, or the rollout ends",
                first_few(awaited)
            ),
            Self::OldTemplate { workload, pods } => {
                let run = if *pods == 1 { "pod runs" } else { "pods run" };
                write!(
                    f,
                    "{workload}: {pods} {run} the old template; `windlass restart {workload}` replaces them"
                )
            }
            Self::NotDrained {
                workload,
                nodes,
                why,
            } => {
                let names: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
                write!(
                    f,
                    "{workload} stays on {}, which is drained: {why}",
                    names.join(", ")
                )
            }
            Self::Unallocated(RefusedAllocation {
                service,
                exhausted: Exhausted::Addresses(range),
            }) => write!(
                f,
                "Service {service} gets no cluster address, because all of the service range {range} are in use: \
                 remove a Service, or write `clusterIP: None` where no address is needed"
            ),
            Self::Unallocated(RefusedAllocation {
                service,
                exhausted: Exhausted::NodePorts(range),
            }) => write!(
                f,
                "Service {service} gets no node port, because all from {} to {} are in use: remove a Service, or \
                 write `type: ClusterIP` where no node port is needed",
                range.start(),
                range.end()
            ),
        }
    }
}

impl fmt::Display for Undrained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BarePod => f.write_str("nothing makes a bare Pod anew elsewhere"),
            Self::WritesToDisk => f.write_str(
                "it writes to the host's disk and would start elsewhere without its data",
            ),
            Self::Unplaced(refusal) => write!(f, "no node takes its replacement: {refusal}"),
        }
    }
}

/// Workloads that run, are not in the driving commit, and were in no commit that ran before. They
/// are more than the deletion budget allows, so no pod of them is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldDeletions {
    /// The workloads that are not stopped.
    pub workloads: Vec<WorkloadKey>,
    /// Number of all workloads that run.
    pub running: usize,
    /// The driving commit, which does not contain these workloads.
    pub commit: CommitId,
    /// Maximum number of workloads that the budget allows to delete.
    pub allowed: usize,
}

impl fmt::Display for HeldDeletions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} workloads that run ({}) are not in commit {}, and no commit took them away; the budget is {}, \
             so none of them is stopped: put them back, check `paths` in [source] of the configuration, or commit with \
             the trailer `Windlass-Allow-Deletions: yes`",
            self.workloads.len(),
            self.running,
            first_few(&self.workloads),
            self.commit.short(),
            self.allowed
        )
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use ipnet::Ipv4Net;

    use super::*;
    use crate::name::{ObjectKey, WorkloadKind};

    fn workload(name: &str) -> WorkloadKey {
        WorkloadKey {
            kind: WorkloadKind::Deployment,
            object: ObjectKey::new("default", name),
        }
    }

    #[test]
    fn a_note_names_its_workload_and_what_helps() {
        let printed = [
            Note::StockMissing(NodeName::new("a")),
            Note::CanaryBarred {
                workload: workload("web"),
                node: NodeName::new("a"),
                unfit: Unfit::HostPort(80),
            },
            Note::RunsOn {
                workload: workload("web"),
                awaited: vec![workload("site")],
            },
            Note::OldTemplate {
                workload: workload("web"),
                pods: 1,
            },
            Note::NotDrained {
                workload: workload("web"),
                nodes: vec![NodeName::new("a"), NodeName::new("b")],
                why: Undrained::WritesToDisk,
            },
            Note::Unallocated(RefusedAllocation {
                service: ObjectKey::new("default", "web"),
                exhausted: Exhausted::Addresses(Ipv4Net::new_assert(
                    Ipv4Addr::new(10, 96, 0, 0),
                    28,
                )),
            }),
            Note::Unallocated(RefusedAllocation {
                service: ObjectKey::new("default", "web"),
                exhausted: Exhausted::NodePorts(30000..=30001),
            }),
        ]
        .map(|note| note.to_string());
        insta::assert_snapshot!(printed.join("\n"), @r"
        the store was adopted, and nothing is decided before node a has reported its pods; `windlass node rm a` gives it up
        Deployment/default/web: the canary a cannot take a new pod beside what is there (have host port 80 in use)
        Deployment/default/web left the commit; its pods run on until Deployment/default/site is available, or the rollout ends
        Deployment/default/web: 1 pod runs the old template; `windlass restart Deployment/default/web` replaces them
        Deployment/default/web stays on a, b, which is drained: it writes to the host's disk and would start elsewhere without its data
        Service default/web gets no cluster address, because all of the service range 10.96.0.0/28 are in use: remove a Service, or write `clusterIP: None` where no address is needed
        Service default/web gets no node port, because all from 30000 to 30001 are in use: remove a Service, or write `type: ClusterIP` where no node port is needed
        ");
    }

    #[test]
    fn held_deletions_name_some_workloads_the_budget_and_the_ways_out() {
        let held = HeldDeletions {
            workloads: vec![workload("a"), workload("b")],
            running: 4,
            commit: CommitId::from([0x12; 20]),
            allowed: 1,
        };
        insta::assert_snapshot!(
            held.to_string(),
            @"2 of 4 workloads that run (Deployment/default/a, Deployment/default/b) are not in commit 1212121212, and no commit took them away; the budget is 1, so none of them is stopped: put them back, check `paths` in [source] of the configuration, or commit with the trailer `Windlass-Allow-Deletions: yes`"
        );
    }
}
