//! The values that this host publishes of itself under `nodes/NAME/`.

use std::{net::SocketAddr, time::Instant};

use jiff::{SignedDuration, Timestamp};
use reconciler::{name::NodeName, state::NodeFacts};

use crate::store::{
    contents::skew,
    etcd::Etcd,
    layout::{self, AskDoc, FactsDoc, ReportDoc},
    publisher::{KeyValues, Publisher},
};

/// If the clock differs by more than this from the elapsed time, somebody has set the clock.
const CLOCK_SET: SignedDuration = SignedDuration::from_secs(10);

/// The documents that make up this host's keys, and the task that writes them.
#[derive(Debug)]
pub(super) struct OwnKeys {
    node: NodeName,
    publisher: Publisher,
    facts: Option<FactsDoc>,
    /// This host's clock when the clock was last published.
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

    /// Sets this host's facts, with its clock; published again when either has changed.
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

    /// Sets the request to the leader that a person made on this host; the next publishing writes
    /// it.
    pub(super) fn set_ask(&mut self, ask: Option<AskDoc>) {
        self.ask = ask;
    }

    /// Publishes all documents, once this host's facts are set.
    pub(super) fn publish(&self, report: &ReportDoc) {
        if let Some(facts) = &self.facts {
            let keys = layout::own_keys(&self.node, facts, report, self.ask.as_ref());
            self.publisher.want(keys);
        }
    }

    /// Publishes this host's clock with its present time.
    pub(super) fn publish_clock(&mut self) {
        if let Some(doc) = &mut self.facts {
            doc.clock = Timestamp::now();
            self.clock_published = Some((doc.clock, Instant::now()));
            self.publisher
                .renew(&layout::node_key(&self.node, "facts"), layout::text(doc));
        }
    }

    /// Takes in the keys of this host from a list.
    pub(super) fn observed(&self, keys: KeyValues) {
        self.publisher.observed(keys);
    }

    /// Cancels the writes that are not done yet.
    pub(super) fn rest(&self) {
        self.publisher.rest();
    }

    /// Why the last write failed; `None` if it succeeded.
    pub(super) fn trouble(&self) -> Option<String> {
        self.publisher.trouble()
    }

    /// Whether this host's clock has been set since it was published.
    fn clock_was_set(&self) -> bool {
        self.clock_published
            .is_some_and(|(published, then)| skew(published, then).abs() > CLOCK_SET)
    }
}
