//! Taking stock of a store that was adopted. The copy that is its content may be behind what the nodes run: what they have
//! of it stays, what they have beside it comes in again, and what is gone since is not begun anew.

use super::Decision;
use crate::{
    name::NodeName,
    rollout::Rollout,
    state::{Change, KnownNode, NodeLife, NodeReport, PodRecord},
};

impl Decision<'_> {
    /// Whether stock is being taken; then nothing else is decided. Nobody knows what a lost node runs, and it is not
    /// waited for.
    pub(super) fn takes_stock(&mut self) -> bool {
        let rollout = &self.input.state.rollout;
        if rollout.taking_stock.is_none() {
            return false;
        }
        let owes = |(name, node): &(&NodeName, &KnownNode)| {
            let report = self.input.reports.get(*name);
            node.life != NodeLife::Lost && !report.is_some_and(|report| self.has_taken_stock(report))
        };
        match self.input.nodes.iter().find(owes) {
            Some((name, _)) => self.notes.push(format!(
                "the store was adopted, and nothing is decided before node {name} has said what it runs; `windlass node rm \
                 {name}` gives it up"
            )),
            // What was found must have come in.
            None if !self.changes.is_empty() => {}
            None => {
                let after = Rollout { taking_stock: None, ..rollout.clone() };
                let after = after.after_gap(self.input.now).unwrap_or(after);
                self.changes.push(Change::Rollout(Box::new(after)));
            }
        }
        true
    }

    /// Whether a pod that its node calls gone is: it has stopped, or stock is taken and nothing of it is there.
    pub(super) fn is_gone(&self, record: &PodRecord, report: &NodeReport) -> bool {
        record.stop.is_some() || self.has_taken_stock(report)
    }

    fn has_taken_stock(&self, report: &NodeReport) -> bool {
        let asked = self.input.state.rollout.taking_stock;
        asked.is_some() && report.stock == asked
    }
}
