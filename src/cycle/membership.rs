//! What a host does as a member of a cluster: follow the store, publish its report, and keep routes
//! to the pods of other hosts.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reconciler::{
    foreign::ForeignText,
    name::{CommitId, NodeName},
    network::{HostNetwork, Peer, Peers},
    state::NodeFacts,
};
use tokio::{sync::oneshot, time::Instant};

use super::{Host, turn::FetchTurn};
use crate::{
    command::{Command, CommandError, CommandResult, Request},
    store::{AskDoc, ReplicatedStore, ReportDoc, Store, StoreEvent, StoreStatus},
    view::{ClusterView, HostTrouble, Part},
};

/// How long a request to the leader waits for its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request of a person that the leader has not answered yet.
struct OpenAsk {
    id: String,
    until: Instant,
    answer: oneshot::Sender<CommandResult>,
}

/// What this host has done about the other hosts, and what it waits for.
#[derive(Default)]
pub(super) struct Membership {
    /// The other hosts that this host's routes lead to.
    reached_peers: Option<Peers>,
    /// The commit reported by another host for which this host has last nudged its follower.
    nudged_for: Option<CommitId>,
    /// When this host may fetch a commit that all hosts have learnt of.
    fetch_turn: FetchTurn,
    /// Requests of people that the leader has not answered.
    open_asks: Vec<OpenAsk>,
}

impl Membership {
    /// The time until the next open request exceeds its deadline.
    pub(super) fn next_ask(&self) -> Option<Duration> {
        self.open_asks
            .iter()
            .map(|open| open.until.saturating_duration_since(Instant::now()))
            .min()
    }

    /// Passes the leader's answers on to the people who wait for them.
    fn close_asks(&mut self, store: &mut ReplicatedStore) {
        let mut still_open = Vec::new();
        for open in std::mem::take(&mut self.open_asks) {
            if let Some(answer) = store.answer_to(&open.id) {
                let _ = open.answer.send(answer.map_err(CommandError::ByLeader));
            } else if open.until <= Instant::now() {
                let error = match store.status() {
                    StoreStatus::Current => CommandError::NoAnswer,
                    StoreStatus::Lost { .. }
                    | StoreStatus::Frozen { .. }
                    | StoreStatus::Conflict { .. } => CommandError::StoreSilent,
                };
                let _ = open.answer.send(Err(error));
            } else {
                still_open.push(open);
            }
        }

        self.open_asks = still_open;
        if self.open_asks.is_empty() {
            store.ask(None);
        }
    }

    /// Sends a request to the leader, and returns its id.
    fn ask_leader(&self, store: &mut Store, command: Command) -> Result<String, CommandError> {
        if !self.open_asks.is_empty() {
            return Err(CommandError::AnotherWaits);
        }
        let id = format!(
            "{}-{}",
            store.installation(),
            Timestamp::now().as_nanosecond()
        );
        let Some(store) = store.replicated_mut() else {
            return Err(CommandError::NoLeader);
        };
        store.ask(Some(AskDoc {
            id: id.clone(),
            command,
        }));
        Ok(id)
    }
}

impl Host {
    /// Handles an event of the store.
    pub(crate) fn store_event(&mut self, event: StoreEvent) {
        self.store.event(event);
    }

    /// Whether this host is alone, or has read the store since its start.
    pub(crate) fn has_store_content(&self) -> bool {
        self.store
            .replicated()
            .is_none_or(|store| matches!(store.status(), StoreStatus::Current))
    }

    /// Takes over the decisions in the store, and notes the troubles of the store and the members.
    pub(super) fn follow_store(&mut self) {
        let saved = self.store.save();
        self.note(Part::StoreCopy, saved.map_err(HostTrouble::failed));
        let Some(store) = self.store.replicated() else {
            return;
        };

        let unknown = |head: &CommitId| !self.knowledge.knows(head);
        let news = store
            .members()
            .filter_map(|(_, member)| member.report.head.clone())
            .find(&unknown);
        // Only a host that lives could lead in this host's place.
        let is_ahead = store
            .members()
            .filter(|(_, member)| member.alive.is_some())
            .any(|(_, member)| member.report.head.as_ref().is_some_and(&unknown));
        let outrun = is_ahead && self.knowledge.source.error.is_some();

        let addresses = store
            .members()
            .filter_map(|(name, member)| Some((name.clone(), member.facts.as_ref()?.peer?)));
        self.parts.inquiry.book().set(addresses.collect());
        let troubles = store_troubles(store, &self.fixed.facts.name);
        for (part, trouble) in troubles {
            self.note(part, trouble.map_or(Ok(()), Err));
        }
        self.leader.set_outrun(outrun);

        // Another host has verified a push that this host has not fetched: one nudge is enough,
        // since the poll comes anyway.
        if let Some(news) = news
            && self.membership.nudged_for.as_ref() != Some(&news)
        {
            self.membership.nudged_for = Some(news);
            self.fetch_in_turn();
        }

        self.follow_rollout();
        if let Some(store) = self.store.replicated_mut() {
            self.membership.close_asks(store);
        }
    }

    /// Writes the pointers of the rollout to this host's disk, whichever host decided them.
    fn follow_rollout(&mut self) {
        let after = self.store.snapshot().rollout.clone();
        if after == self.reporter.reported_rollout {
            return;
        }
        let kept = self.knowledge.set_pointers(&after);
        self.note(Part::Trust, kept.map_err(HostTrouble::failed));
        self.reporter
            .report_rollout(after, &self.fixed.facts.name, &self.parts.metrics);
    }

    /// Fetches a commit that the store has just published to all hosts, in this host's turn: the
    /// forge serves the hosts one after the other.
    pub(super) fn fetch_in_turn(&mut self) {
        let Some(store) = self.store.replicated() else {
            return self.parts.nudge.notify_one();
        };
        let members = store.members().map(|(name, _)| name);
        self.membership
            .fetch_turn
            .nudge(&self.parts.nudge, &self.fixed.facts.name, members);
    }

    /// The state of this host's membership, for the view; `None` for a host that is alone.
    pub(super) fn cluster_view(&self) -> Option<ClusterView> {
        let store = self.store.replicated()?;
        let (word, since, why) = match store.status() {
            StoreStatus::Current => ("current", None, None),
            StoreStatus::Lost { since, why } => ("lost", Some(*since), Some(why.clone())),
            StoreStatus::Frozen { since, why } => ("frozen", Some(*since), Some(why.clone())),
            StoreStatus::Conflict { why } => ("conflict", None, Some(why.clone())),
        };
        let nodes = self
            .nodes()
            .into_iter()
            .map(|(name, node)| (name, node.life.as_str().to_owned()));
        Some(ClusterView {
            id: store.cluster().to_owned(),
            leader: store.leader().cloned(),
            store: word.to_owned(),
            since,
            why,
            nodes: nodes.collect(),
        })
    }

    /// This host's facts, with its present readiness.
    pub(super) fn facts(&self) -> NodeFacts {
        self.fixed.facts.clone()
    }

    /// This host's network, with an MTU such that its pods' packets fit through every other host.
    pub(super) fn network(&self) -> HostNetwork {
        let least = self.store.peers().values().map(|peer| peer.mtu).min();
        let own = self.fixed.network.mtu;
        HostNetwork {
            mtu: least.map_or(own, |least| own.min(least)),
            ..self.fixed.network.clone()
        }
    }

    /// Publishes this host's report to the other hosts.
    pub(super) fn publish_report(&mut self) {
        if self.store.replicated().is_none() {
            return;
        }
        let report = ReportDoc {
            report: self.reporter.report.clone(),
            unready: self.engine.unready.clone(),
            head: self.knowledge.accepted_head().cloned(),
            local_rollback: self.detour.current().map(|detour| detour.commit.clone()),
        };
        let facts = self.facts();
        self.store.publish(&facts, self.fixed.peer, &report);
    }

    /// Sets the routes to the pods of other hosts.
    pub(super) async fn reach_peers(&mut self) {
        if self.store.replicated().is_none() {
            return;
        }
        let peers: Peers = self
            .store
            .peers()
            .iter()
            .map(|(name, facts)| {
                let peer = Peer {
                    address: facts.address,
                    pod_subnet: facts.pod_subnet,
                    path: self.fixed.path,
                };
                (name.clone(), peer)
            })
            .collect();
        if self.membership.reached_peers.as_ref() == Some(&peers) {
            return;
        }
        let set = self.parts.network.set_peers(&peers).await;
        if set.is_ok() {
            self.membership.reached_peers = Some(peers);
        }
        self.admit_dns_callers().await;
        self.note(Part::Peers, set.map_err(HostTrouble::failed));
    }

    /// Executes a request of a person on this host, or passes it on to the leader.
    pub(crate) async fn asked(&mut self, request: Request) {
        let Request { command, answer } = request;
        tracing::info!(?command, "requested");
        let elsewhere = command.needs_leader() && !self.store.leads();
        if !elsewhere {
            let done = self.act_on(command, None).await;
            // The person may have closed the connection; the request is executed all the same.
            let _ = answer.send(done);
            return;
        }
        match self.membership.ask_leader(&mut self.store, command) {
            Ok(id) => self.membership.open_asks.push(OpenAsk {
                id,
                until: Instant::now() + PATIENCE,
                answer,
            }),
            Err(error) => {
                let _ = answer.send(Err(error));
            }
        }
    }

    /// Announces to the other hosts that this host will be back soon, and gives leadership up.
    pub(crate) async fn leave(&mut self) {
        self.store.leave(self.fixed.away).await;
    }
}

/// The troubles of the store and of the members, each with the part that has it.
fn store_troubles(store: &ReplicatedStore, own: &NodeName) -> [(Part, Option<HostTrouble>); 7] {
    let status = match store.status() {
        StoreStatus::Current => None,
        StoreStatus::Lost { since, why } => Some(HostTrouble::StoreLost {
            since: *since,
            why: ForeignText::sentence(why),
        }),
        StoreStatus::Frozen { since, why } => Some(HostTrouble::StoreFrozen {
            since: *since,
            why: ForeignText::sentence(why),
        }),
        StoreStatus::Conflict { why } => Some(HostTrouble::Failed(ForeignText::sentence(why))),
    };
    let subnet = store
        .subnet_trouble()
        .map(|why| HostTrouble::Failed(ForeignText::sentence(&why)));
    let published = store
        .publish_trouble()
        .map(|why| HostTrouble::NotPublished(ForeignText::sentence(&why)));
    let removed = store.was_removed().then_some(HostTrouble::Removed);
    let skews: Vec<(NodeName, SignedDuration)> = store
        .members()
        .filter(|(name, _)| *name != own)
        .filter_map(|(name, member)| Some((name.clone(), rounded(member.skew()?))))
        .collect();
    let skews = (!skews.is_empty()).then_some(HostTrouble::Skews(skews));

    [
        (Part::Store, status),
        (Part::Subnet, subnet),
        (Part::Publish, published),
        (Part::Unreadable, records(store.unreadable())),
        (Part::Disputed, records(store.disputed())),
        (Part::Removed, removed),
        (Part::Clocks, skews),
    ]
}

/// The trouble with these records of the store, one sentence each; `None` if there is none.
fn records(sentences: impl IntoIterator<Item = String>) -> Option<HostTrouble> {
    let sentences: Vec<ForeignText> = sentences
        .into_iter()
        .map(|sentence| ForeignText::sentence(&sentence))
        .collect();
    (!sentences.is_empty()).then_some(HostTrouble::Records(sentences))
}

/// Rounded to ten seconds: the network delay of a report must not change the trouble.
fn rounded(skew: SignedDuration) -> SignedDuration {
    let seconds = (skew.abs().as_secs() + 5) / 10 * 10;
    SignedDuration::from_secs(seconds * i64::from(skew.signum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_of_a_clock_is_rounded_to_ten_seconds() {
        let rounded = |millis| rounded(SignedDuration::from_millis(millis));
        assert_eq!(rounded(3_599_988), SignedDuration::from_hours(1));
        assert_eq!(rounded(-3_600_012), SignedDuration::from_hours(-1));
        assert_eq!(rounded(-94_000), SignedDuration::from_secs(-90));
    }
}
