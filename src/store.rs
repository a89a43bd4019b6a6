//! Where decisions are kept: on this host's disk, or in etcd with a copy on this host's disk.
//!
//! ```text
//! Store ─┬─ LocalStore         one host, always its own leader
//!        └─ ReplicatedStore    etcd (etcd/), its keys (layout), what they say (contents), what this node says (publisher)
//! ```

mod agreed;
mod contents;
mod etcd;
mod layout;
mod local;
mod presence;
mod publisher;
mod replicated;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use jiff::Timestamp;
use reconciler::{
    life::{LifeInput, NodeSigns, lives},
    name::NodeName,
    plan::Next,
    state::{Change, ClusterState, KnownNode, NodeFacts, NodeLife, NodeReport},
};

pub(crate) use self::{
    agreed::Agreed,
    etcd::{Etcd, EtcdConfig, EtcdTls, LeaseFate, StoreEvent},
    layout::{AnswerDoc, AskDoc, ReportDoc},
    local::{LocalStore, MARKER},
    presence::Presence,
    replicated::{Joining, NODE_LEASE, ReplicatedStore, StoreStatus},
};

/// Where decisions are kept.
#[derive(Debug)]
pub(crate) enum Store {
    /// On this host alone.
    Local(Box<LocalStore>),
    /// In a cluster.
    Replicated(Box<ReplicatedStore>),
}

/// What asking a host directly has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeAnswer {
    /// Whether its daemon answered; `None` where nobody can ask it.
    pub(crate) answers: Option<bool>,
    /// Since when the lease of one that does not answer has run out, before etcd takes it away.
    pub(crate) ran_out: Option<Instant>,
}

impl NodeAnswer {
    /// Lays what was found over what the store tells of a node.
    pub(crate) fn lay_over(self, signs: &mut NodeSigns) {
        signs.answers = self.answers;
        signs.silent_for = signs
            .silent_for
            .or(self.ran_out.map(|since| since.elapsed()));
    }
}

/// The nodes, judged.
#[derive(Debug)]
pub(crate) struct JudgedNodes {
    /// All of them, this one too.
    pub(crate) nodes: BTreeMap<NodeName, KnownNode>,
    /// Why nodes that seem lost are not given up.
    pub(crate) brake: Option<String>,
    /// When to judge again.
    pub(crate) next: Next,
}

impl Store {
    /// What is decided, as far as this host knows.
    pub(crate) fn snapshot(&self) -> &ClusterState {
        match self {
            Self::Local(store) => store.snapshot(),
            Self::Replicated(store) => store.snapshot(),
        }
    }

    /// Which installation this is: what its containers are known by.
    pub(crate) fn installation(&self) -> &str {
        match self {
            Self::Local(store) => store.installation(),
            Self::Replicated(store) => store.installation(),
        }
    }

    /// When that was made.
    pub(crate) fn installed(&self) -> Option<Timestamp> {
        match self {
            Self::Local(store) => store.installed(),
            Self::Replicated(store) => store.installed(),
        }
    }

    /// The part of a cluster's store, if this is one.
    pub(crate) fn replicated(&self) -> Option<&ReplicatedStore> {
        match self {
            Self::Local(_) => None,
            Self::Replicated(store) => Some(store),
        }
    }

    /// As [`Store::replicated`].
    pub(crate) fn replicated_mut(&mut self) -> Option<&mut ReplicatedStore> {
        match self {
            Self::Local(_) => None,
            Self::Replicated(store) => Some(store),
        }
    }

    /// Whether this host decides.
    pub(crate) fn leads(&self) -> bool {
        self.replicated().is_none_or(ReplicatedStore::leads)
    }

    /// Keeps a decision, with the answer to whoever asked for it on another host; it is believed
    /// once it is kept.
    pub(crate) async fn commit(
        &mut self,
        changes: Vec<Change>,
        answer: Option<(NodeName, AnswerDoc)>,
    ) -> Result<()> {
        match self {
            Self::Local(store) => Ok(store.commit(changes)?),
            Self::Replicated(store) => store.commit(changes, answer).await,
        }
    }

    /// The other hosts.
    pub(crate) fn peers(&self) -> &BTreeMap<NodeName, NodeFacts> {
        static NONE: BTreeMap<NodeName, NodeFacts> = BTreeMap::new();
        self.replicated().map_or(&NONE, ReplicatedStore::peers)
    }

    /// What the other hosts say.
    pub(crate) fn reports(&self) -> &BTreeMap<NodeName, NodeReport> {
        static NONE: BTreeMap<NodeName, NodeReport> = BTreeMap::new();
        self.replicated().map_or(&NONE, ReplicatedStore::reports)
    }

    /// What this host says to the others.
    pub(crate) fn publish(
        &mut self,
        facts: &NodeFacts,
        peer: Option<SocketAddr>,
        report: &ReportDoc,
    ) {
        if let Self::Replicated(store) = self {
            store.publish(facts, peer, report);
        }
    }

    /// Takes in what etcd tells.
    pub(crate) fn event(&mut self, event: StoreEvent) {
        if let Self::Replicated(store) = self {
            store.event(event);
        }
    }

    /// Puts what is known on this host's disk.
    pub(crate) fn save(&mut self) -> Result<()> {
        if let Self::Replicated(store) = self {
            // Who was taken out of the cluster is not heard any more.
            let taken_over = store.take_over();
            store.take_reports();
            taken_over?;
            store.save()?;
        }
        Ok(())
    }

    /// Which nodes there are and live, by what is heard of the others.
    pub(crate) fn judge_nodes(
        &self,
        own: &NodeFacts,
        unready: Option<&str>,
        mut signs: BTreeMap<NodeName, NodeSigns>,
    ) -> JudgedNodes {
        let life = unready.map_or(NodeLife::Ready, |why| NodeLife::NotReady(why.to_owned()));
        let mut nodes = BTreeMap::from([(
            own.name.clone(),
            KnownNode {
                facts: own.clone(),
                life,
            },
        )]);
        let Self::Replicated(store) = self else {
            return JudgedNodes {
                nodes,
                brake: None,
                next: Next::AwaitChange,
            };
        };
        // This host counts, too: two of three are a majority of all three.
        signs.insert(
            own.name.clone(),
            NodeSigns {
                unready: unready.map(str::to_owned),
                ..NodeSigns::default()
            },
        );
        let judged = lives(&LifeInput {
            lease: NODE_LEASE,
            leading_for: store.led_for(),
            signs: &signs,
        });
        for (name, life) in judged.lives {
            if let Some(facts) = store.peers().get(&name) {
                nodes.insert(
                    name,
                    KnownNode {
                        facts: facts.clone(),
                        life,
                    },
                );
            }
        }
        JudgedNodes {
            nodes,
            brake: judged.brake,
            next: judged.next,
        }
    }

    /// The nodes as the store shows them to whoever does not lead.
    pub(crate) fn shown_nodes(
        &self,
        own: &NodeFacts,
        unready: Option<&str>,
    ) -> BTreeMap<NodeName, KnownNode> {
        let life = unready.map_or(NodeLife::Ready, |why| NodeLife::NotReady(why.to_owned()));
        let mut nodes = BTreeMap::from([(
            own.name.clone(),
            KnownNode {
                facts: own.clone(),
                life,
            },
        )]);
        let Self::Replicated(store) = self else {
            return nodes;
        };
        let members: BTreeMap<_, _> = store.members().collect();
        for (name, facts) in store.peers() {
            let member = members.get(name);
            let outage = self.snapshot().outages.get(name);
            let unready = member.and_then(|member| member.unready());
            let away =
                member.is_some_and(|member| member.silent.is_some() && member.away.is_some());
            let life = match (outage, unready) {
                (Some(outage), _) if outage.lost => NodeLife::Lost,
                (Some(_), _) => NodeLife::Silent("nobody hears from it".to_owned()),
                (None, _) if away => NodeLife::Away,
                (None, Some(why)) => NodeLife::NotReady(why),
                (None, None) => NodeLife::Ready,
            };
            nodes.insert(
                name.clone(),
                KnownNode {
                    facts: facts.clone(),
                    life,
                },
            );
        }
        nodes
    }

    /// Makes this host's copy the store's content.
    pub(crate) async fn adopt(&mut self) -> Result<String> {
        match self {
            Self::Local(_) => {
                bail!(
                    "this host is alone: it has no store to adopt, see [store] in the configuration"
                )
            }
            Self::Replicated(store) => store.adopt().await,
        }
    }

    /// Says that this host comes back soon.
    pub(crate) async fn leave(&mut self, back_within: Duration) {
        if let Self::Replicated(store) = self {
            store.leave(back_within).await;
        }
    }
}
