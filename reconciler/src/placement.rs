//! Which node takes a pod, and why not the others.
//!
//! ```text
//! candidate   what a node says to a pod by itself: names, labels, cordons, taints          ─┐
//! load        what is used of it: ports, pods, processor time, memory                       ├─► Unfit, or a Rank
//! relation    what other pods say: affinity, anti-affinity, spread                         ─┘
//! class       nodes in order of rank, for all pods that say and ask for the same
//! session     pods of one template one after another: only the node that took one changes
//! recheck     the same rules once more, asked by the node that shall run the pod
//! ```
//!
//! A pod that is placed never moves by itself. The same input gives the same answer everywhere.

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
