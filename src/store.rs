//! Where decisions are stored: on this host's disk, or in etcd with a copy on this host's disk.
//!
//! ```text
//! Store ─┬─ LocalStore         one host, always its own leader
//!        └─ ReplicatedStore    etcd (etcd/), its keys (layout) and their content (contents),
//!                              and the keys of this node (publisher)
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
    foreign::ForeignText,
    life::{LifeInput, NodeSigns, lives},
    name::{Installation, NodeName},
    plan::Next,
    state::{
        Brake, Change, ClusterState, KnownNode, NodeFacts, NodeLife, NodeReport, NotReady, Silence,
    },
};

pub(crate) use self::{
    agreed::Agreed,
    etcd::{Etcd, EtcdConfig, EtcdTls, LeaseFate, StoreEvent},
    layout::{AnswerDoc, AskDoc, ReportDoc},
    local::{LocalStore, MARKER},
    presence::Presence,
    replicated::{Joining, NODE_LEASE, ReplicatedStore, StoreStatus},
};

/// Where decisions are stored.
#[derive(Debug)]
pub(crate) enum Store {
    /// The store of a host that is alone.
    Local(Box<LocalStore>),
    /// The store of a cluster.
    Replicated(Box<ReplicatedStore>),
}

/// What this host learnt by asking another host's daemon directly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeAnswer {
    /// Whether the daemon answered; `None` if this host cannot ask it.
    pub(crate) answers: Option<bool>,
    /// For a node that does not answer: since when its lease has run out, before etcd removes the
    /// lease.
    pub(crate) ran_out: Option<Instant>,
}

impl NodeAnswer {
    /// Adds this result to what the store shows of the node.
    pub(crate) fn lay_over(self, signs: &mut NodeSigns) {
        signs.answers = self.answers;
        signs.silent_for = signs
            .silent_for
            .or(self.ran_out.map(|since| since.elapsed()));
    }
}

/// The nodes with the leader's judgement of their lives.
#[derive(Debug)]
pub(crate) struct JudgedNodes {
    /// All nodes, this host included.
    pub(crate) nodes: BTreeMap<NodeName, KnownNode>,
    /// Present while too many nodes seem lost for any of them to be given up.
    pub(crate) brake: Option<Brake>,
    /// When the nodes must be judged again.
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

    /// The id of this installation, which its containers carry as a label.
    pub(crate) fn installation(&self) -> &Installation {
        match self {
            Self::Local(store) => store.installation(),
            Self::Replicated(store) => store.installation(),
        }
    }

    /// When this installation was made; `None` if its version did not record that.
    pub(crate) fn installed(&self) -> Option<Timestamp> {
        match self {
            Self::Local(store) => store.installed(),
            Self::Replicated(store) => store.installed(),
        }
    }

    /// The store of a cluster; `None` on a host that is alone.
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

    /// Whether this host decides now.
    pub(crate) fn leads(&self) -> bool {
        self.replicated().is_none_or(ReplicatedStore::leads)
    }

    /// Stores a decision, with the answer to the host on which a person asked for it. The snapshot
    /// has the decision only once it is stored.
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

    /// The facts of the other hosts; empty on a host that is alone.
    pub(crate) fn peers(&self) -> &BTreeMap<NodeName, NodeFacts> {
        static NONE: BTreeMap<NodeName, NodeFacts> = BTreeMap::new();
        self.replicated().map_or(&NONE, ReplicatedStore::peers)
    }

    /// The reports of the other hosts; empty on a host that is alone.
    pub(crate) fn reports(&self) -> &BTreeMap<NodeName, NodeReport> {
        static NONE: BTreeMap<NodeName, NodeReport> = BTreeMap::new();
        self.replicated().map_or(&NONE, ReplicatedStore::reports)
    }

    /// Publishes this host's facts and report to the other hosts.
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

    /// Handles an event of etcd.
    pub(crate) fn event(&mut self, event: StoreEvent) {
        if let Self::Replicated(store) = self {
            store.event(event);
        }
    }

    /// Writes to this host's disk what it must remember of the store.
    pub(crate) fn save(&mut self) -> Result<()> {
        if let Self::Replicated(store) = self {
            // The reports of a host that was removed from the cluster do not count any more.
            let taken_over = store.take_over();
            store.take_reports();
            taken_over?;
            store.save()?;
        }
        Ok(())
    }

    /// Judges which nodes there are and which of them live, by the signs of the other hosts.
    pub(crate) fn judge_nodes(
        &self,
        own: &NodeFacts,
        unready: Option<&ForeignText>,
        mut signs: BTreeMap<NodeName, NodeSigns>,
    ) -> JudgedNodes {
        let life = own_life(unready);
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
        // This host counts, too: two of three nodes are a majority only if all three count.
        signs.insert(
            own.name.clone(),
            NodeSigns {
                unready: unready.cloned().map(NotReady::Reported),
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

    /// The nodes as the store shows them to a host that does not lead.
    pub(crate) fn shown_nodes(
        &self,
        own: &NodeFacts,
        unready: Option<&ForeignText>,
    ) -> BTreeMap<NodeName, KnownNode> {
        let life = own_life(unready);
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
                (Some(_), _) => NodeLife::Silent(Silence::Outage),
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

    /// Writes this host's copy into the store as its content.
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

    /// Announces that this host will be back within `back_within`.
    pub(crate) async fn leave(&mut self, back_within: Duration) {
        if let Self::Replicated(store) = self {
            store.leave(back_within).await;
        }
    }
}

/// The life of this host by its own knowledge: it is alive, and not ready while its engine does not
/// answer.
fn own_life(unready: Option<&ForeignText>) -> NodeLife {
    unready.map_or(NodeLife::Ready, |reason| {
        NodeLife::NotReady(NotReady::Reported(reason.clone()))
    })
}
