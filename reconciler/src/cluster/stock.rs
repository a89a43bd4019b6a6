//! Takes stock after a store was adopted.
//!
//! The adopted copy may be older than what the nodes run: pods that nodes report keep or get a
//! record, and pods that are gone since are not started again.

use std::collections::BTreeMap;

use super::{ClusterDecision, ClusterInput, Note};
use crate::{
    name::NodeName,
    state::{Adoption, Change, KnownNode, NodeLife, NodeReport, PodRecord, Rollout},
};

/// Nodes that are alive and have not reported their pods yet; no pod is started on these nodes, and
/// no pod moves away from them.
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

/// Whether a node's report lists its pods as of this adoption.
fn has_reported(adoption: &Adoption, report: Option<&NodeReport>) -> bool {
    report.is_some_and(|report| report.stock == Some(adoption.at))
}

impl ClusterDecision<'_> {
    /// Whether stock is being taken; meanwhile nothing else is decided. Lost nodes are not waited
    /// for, since nobody can know which pods they run.
    pub(super) fn takes_stock(&mut self) -> bool {
        let rollout = &self.input.state.rollout;
        let Some(adoption) = rollout.adopted.filter(|adoption| !adoption.stock_taken) else {
            return false;
        };
        let owes = |(name, node): &(&NodeName, &KnownNode)| {
            node.life != NodeLife::Lost && !has_reported(&adoption, self.input.reports.get(*name))
        };
        match self.input.nodes.iter().find(owes) {
            Some((name, _)) => self.notes.push(Note::StockMissing(name.clone())),
            // The records of reported pods must be stored first.
            None if !self.changes.is_empty() => {}
            None => {
                let adopted = Some(Adoption {
                    stock_taken: true,
                    ..adoption
                });
                let after = Rollout {
                    adopted,
                    ..rollout.clone()
                };
                let after = after.after_gap(self.input.now).unwrap_or(after);
                self.changes.push(Change::put(after));
            }
        }
        true
    }

    /// Whether a pod that its node reports as gone counts as gone: the pod has a stop record, or it
    /// comes from an adopted copy and nothing of it is on the node.
    pub(super) fn is_gone(&self, record: &PodRecord, report: &NodeReport) -> bool {
        let adopted = self.input.state.rollout.adopted;
        record.stop.is_some() || adopted.is_some_and(|adoption| adoption.is_without(record, report))
    }
}
