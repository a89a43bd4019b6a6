//! Taking stock of a store that was adopted: what the nodes have stays or comes in again, what is
//! gone since is not begun anew.
//!
//! The copy that is the store's content now may be behind what the nodes run.

use std::collections::BTreeMap;

use super::{ClusterDecision, ClusterInput};
use crate::{
    name::NodeName,
    state::{Adoption, Change, KnownNode, NodeLife, NodeReport, PodRecord, Rollout},
};

/// The nodes, if some of them live and have not said yet what they hold: nothing is begun on those,
/// and nothing moves.
pub(super) fn nodes_without_stock(
    input: &ClusterInput<'_>,
) -> Option<BTreeMap<NodeName, KnownNode>> {
    let adoption = input.state.rollout.adopted?;
    let owes = |(name, node): (&NodeName, &KnownNode)| {
        !node.life.is_out() && !has_reported(&adoption, input.reports.get(name))
    };
    let all = input.nodes.iter();
    let nodes = all.map(|(name, node)| {
        let life = if owes((name, node)) {
            NodeLife::Away
        } else {
            node.life.clone()
        };
        (
            name.clone(),
            KnownNode {
                life,
                ..node.clone()
            },
        )
    });
    input.nodes.iter().any(owes).then(|| nodes.collect())
}

/// Whether what a node says is what it holds since then.
fn has_reported(adoption: &Adoption, report: Option<&NodeReport>) -> bool {
    report.is_some_and(|report| report.stock == Some(adoption.at))
}

impl ClusterDecision<'_> {
    /// Whether stock is being taken; then nothing else is decided. Nobody knows what a lost node
    /// runs, and it is not waited for.
    pub(super) fn takes_stock(&mut self) -> bool {
        let rollout = &self.input.state.rollout;
        let Some(adoption) = rollout.adopted.filter(|adoption| !adoption.stock_taken) else {
            return false;
        };
        let owes = |(name, node): &(&NodeName, &KnownNode)| {
            node.life != NodeLife::Lost && !has_reported(&adoption, self.input.reports.get(*name))
        };
        match self.input.nodes.iter().find(owes) {
            Some((name, _)) => self.notes.push(format!(
                "the store was adopted, and nothing is decided before node {name} has said what it runs; `windlass node rm \
                 {name}` gives it up"
            )),
            // What was found must have come in.
            None if !self.changes.is_empty() => {}
            None => {
                let adopted = Some(Adoption { stock_taken: true, ..adoption });
                let after = Rollout { adopted, ..rollout.clone() };
                let after = after.after_gap(self.input.now).unwrap_or(after);
                self.changes.push(Change::put(after));
            }
        }
        true
    }

    /// Whether a pod that its node calls gone is: it has stopped, or it is of an adopted copy and
    /// nothing of it is there.
    pub(super) fn is_gone(&self, record: &PodRecord, report: &NodeReport) -> bool {
        let adopted = self.input.state.rollout.adopted;
        record.stop.is_some() || adopted.is_some_and(|adoption| adoption.is_without(record, report))
    }
}
