//! Which node accepts a pod, and why the others do not.
//!
//! ```text
//! candidate   a node and a pod by themselves: names, labels, cordons, taints               ─┐
//! load        resources of the node in use: ports, pods, CPU, memory                        ├─► Unfit, or a Rank
//! relation    rules about other pods: affinity, anti-affinity, spread                      ─┘
//! class       nodes in order of rank, for all pods with the same rules and requests
//! session     pods of one template one after another: each placement changes one node only
//! recheck     the same rules again, checked by the node to which the pod is assigned
//! ```
//!
//! A placed pod never moves by itself. The same input gives the same result on every host.

mod candidate;
mod class;
mod load;
mod names;
mod placer;
mod reason;
mod recheck;
mod relation;
mod resources;
mod session;
mod shape;
mod topology;

pub use candidate::{
    Candidate, allocatable, candidates, daemon_may_stay, eligible_for_daemon, must_leave,
    unfit_by_itself,
};
pub use placer::Placer;
pub use reason::{Choice, Chosen, Leave};
pub use recheck::{Neighbour, Surroundings, relates, repels};
pub use resources::{ResourceAmounts, host_ports, requests};

#[cfg(test)]
mod tests;
