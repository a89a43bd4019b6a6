//! What this host wants the store to say of it, under `nodes/NAME/`.

use std::{net::SocketAddr, time::Instant};

use jiff::{SignedDuration, Timestamp};
use reconciler::{name::NodeName, state::NodeFacts};

use crate::store::{
    contents::skew,
    etcd::Etcd,
    layout::{self, AskDoc, FactsDoc, ReportDoc},
    publisher::{KeyValues, Publisher},
};

/// A clock that is so far from where it would be by the time that has passed was set.
const CLOCK_SET: SignedDuration = SignedDuration::from_secs(10);

/// The documents that make up this host's keys, and the task that writes them.
#[derive(Debug)]
pub(super) struct OwnKeys {
    node: NodeName,
    publisher: Publisher,
    facts: Option<FactsDoc>,
    /// What this host's clock was when it was published last.
    clock_published: Option<(Timestamp, Instant)>,
    ask: Option<AskDoc>,
}

impl OwnKeys {
    pub(super) fn new(node: NodeName, etcd: Etcd) -> Self {
        Self {
            node,
            publisher: Publisher::start(etcd),
            facts: None,
            clock_published: None,
            ask: None,
        }
    }

    /// What this host is, with its clock: renewed where either has changed.
    pub(super) fn set_facts(&mut self, facts: &NodeFacts, peer: Option<SocketAddr>) {
        let same = self
            .facts
            .as_ref()
            .is_some_and(|doc| doc.facts == *facts && doc.peer == peer);
        if same && !self.clock_was_set() {
            return;
        }
        let clock = Timestamp::now();
        self.facts = Some(FactsDoc {
            facts: facts.clone(),
            peer,
            clock,
        });
        self.clock_published = Some((clock, Instant::now()));
    }

    /// What a person asks the leader for on this host, from the next publishing on.
    pub(super) fn set_ask(&mut self, ask: Option<AskDoc>) {
        self.ask = ask;
    }

    /// Publishes everything, once it is known what this host is.
    pub(super) fn publish(&self, report: &ReportDoc) {
        if let Some(facts) = &self.facts {
            let keys = layout::own_keys(&self.node, facts, report, self.ask.as_ref());
            self.publisher.want(keys);
        }
    }

    /// Publishes this host's clock as it is now.
    pub(super) fn publish_clock(&mut self) {
        if let Some(doc) = &mut self.facts {
            doc.clock = Timestamp::now();
            self.clock_published = Some((doc.clock, Instant::now()));
            self.publisher
                .renew(&layout::node_key(&self.node, "facts"), layout::text(doc));
        }
    }

    /// What a list says of this host.
    pub(super) fn observed(&self, keys: KeyValues) {
        self.publisher.observed(keys);
    }

    /// Wants nothing of what is not written yet.
    pub(super) fn rest(&self) {
        self.publisher.rest();
    }

    /// Why the last write failed, if it did.
    pub(super) fn trouble(&self) -> Option<String> {
        self.publisher.trouble()
    }

    /// Whether this host's clock is no longer the one that was published.
    fn clock_was_set(&self) -> bool {
        self.clock_published
            .is_some_and(|(published, then)| skew(published, then).abs() > CLOCK_SET)
    }
}
