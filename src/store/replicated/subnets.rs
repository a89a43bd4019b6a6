//! Which node's pods have which addresses: a subnet that a node has reserved and uses belongs to
//! that node until the node is removed.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use reconciler::name::NodeName;
use serde::{Deserialize, Serialize};

use crate::store::{
    etcd::Write,
    layout::{subnet_key, text},
};

/// Reservations as the store has them.
pub(super) type StoredReservations = BTreeMap<Ipv4Net, NodeName>;

/// Reservations of nodes that were observed to use them. Every node's user of etcd may write these
/// keys, since a new host has to; no user may write another node's name over a reservation in use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Reservations(BTreeMap<Ipv4Net, NodeName>);

impl Reservations {
    /// The node that has these addresses.
    pub(super) fn holder<'a>(
        &'a self,
        subnet: Ipv4Net,
        stored: &'a StoredReservations,
    ) -> Option<&'a NodeName> {
        self.0.get(&subnet).or_else(|| stored.get(&subnet))
    }

    /// Records that a node uses what it has reserved.
    pub(super) fn keep(&mut self, subnet: Ipv4Net, node: &NodeName) {
        self.0.entry(subnet).or_insert_with(|| node.clone());
    }

    /// Forgets the reservations of nodes that were removed: for these the store decides.
    pub(super) fn forget(&mut self, is_removed: impl Fn(&NodeName) -> bool) {
        self.0.retain(|_, node| !is_removed(node));
    }

    /// The reservations that the store gives to another node, with the name of that node.
    pub(super) fn rewritten<'a>(
        &'a self,
        stored: &'a StoredReservations,
    ) -> impl Iterator<Item = (Ipv4Net, &'a NodeName, &'a NodeName)> {
        self.0.iter().filter_map(|(subnet, node)| {
            let other = stored.get(subnet).filter(|other| *other != node)?;
            Some((*subnet, node, other))
        })
    }

    /// The reservations that the leader writes again: rewritten ones, and deleted ones.
    pub(super) fn wronged(&self, stored: &StoredReservations) -> Vec<Write> {
        let wronged = self
            .0
            .iter()
            .filter(|(subnet, node)| stored.get(subnet) != Some(node));
        wronged
            .map(|(subnet, node)| Write::Put {
                key: subnet_key(*subnet),
                value: text(node),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_in_use_is_its_nodes_until_that_is_removed() {
        let net = |third: u8| Ipv4Net::new_assert([10, 244, third, 0].into(), 24);
        let (one, two) = (NodeName::new("n1"), NodeName::new("n2"));
        let mut known = Reservations::default();
        let mut stored = StoredReservations::from([(net(1), one.clone()), (net(2), two.clone())]);
        known.keep(net(1), &one);
        assert_eq!(known.wronged(&stored), []);

        stored.insert(net(1), two.clone());
        stored.insert(net(2), one.clone());
        assert_eq!(known.holder(net(1), &stored), Some(&one), "n1 uses it");
        assert_eq!(
            known.holder(net(2), &stored),
            Some(&one),
            "nobody was seen to use it"
        );
        assert_eq!(known.holder(net(3), &stored), None);
        assert!(known.rewritten(&stored).eq([(net(1), &one, &two)]));
        let again = Write::Put {
            key: "subnets/10.244.1.0-24".to_owned(),
            value: b"\"n1\"".to_vec(),
        };
        assert_eq!(known.wronged(&stored), vec![again.clone()]);
        known.keep(net(1), &two);
        stored.remove(&net(1));
        assert_eq!(
            known.holder(net(1), &stored),
            Some(&one),
            "also where it was deleted"
        );
        assert_eq!(known.wronged(&stored), [again]);
        assert_eq!(known.rewritten(&stored).count(), 0);

        stored.insert(net(1), two.clone());
        known.forget(|node| *node == one);
        assert_eq!(
            (known.holder(net(1), &stored), known.wronged(&stored)),
            (Some(&two), Vec::new())
        );
    }
}
