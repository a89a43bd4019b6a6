//! What a host does as the leader: judge which nodes live, decide, and execute requests of people.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use reconciler::{
    cluster::{ClusterInput, Note, cluster},
    life::NodeSigns,
    name::{CommitId, NodeName},
    plan::Next,
    rollout::Head,
    state::{Change, KnownNode, NodeLife, NodeReport, Record, RecordKey},
};

use tokio::time::Instant;

use super::{Host, RETRY};
use crate::{
    command::{CommandError, CommandResult},
    store::{AnswerDoc, ReplicatedStore},
    uptime::Uptime,
    view::{HostTrouble, Part},
};

/// The request of another host that a decision answers.
pub(super) struct Requester {
    node: NodeName,
    question: String,
}

/// If two decisions are further apart than this, no leader could decide in between.
const LONG_GAP: Duration = Duration::from_secs(150);
/// The wall clock has jumped if it differs by more than this from the monotonic clock.
const JUMP: Duration = Duration::from_secs(5);

/// How this host's head relates to the commits that were decided before.
#[derive(Debug)]
pub(super) struct Behind {
    head: CommitId,
    newest: Vec<CommitId>,
    /// This host must fetch before it may decide by its head.
    behind: bool,
    observed: Uptime,
}

/// What the leader remembers from one cycle to the next.
#[derive(Debug, Default)]
pub(super) struct LeaderMemory {
    /// When this leader last decided, by the monotonic and the wall clock.
    decided: Option<(Instant, Timestamp)>,
    /// The nodes as this host judged them when it last led.
    judged: BTreeMap<NodeName, KnownNode>,
    /// How this host's head relates to what was decided before; `None` before the first comparison.
    behind: Option<Behind>,
    /// Since when another host has verified a commit that this host cannot fetch.
    outrun: Option<Instant>,
    /// Notes about the decisions that `status` shows.
    pub(super) notes: Vec<Note>,
}

impl Behind {
    /// Whether this comparison is between these commits.
    fn is_of(&self, head: &CommitId, newest: &[CommitId]) -> bool {
        self.head == *head && self.newest == newest
    }
}

impl LeaderMemory {
    /// Records whether another host has a commit that this host cannot fetch.
    pub(super) fn set_outrun(&mut self, outrun: bool) {
        self.outrun = outrun.then(|| self.outrun.unwrap_or_else(Instant::now));
    }

    /// Whether this host has lacked such a commit for too long to go on leading.
    fn is_outrun(&self) -> bool {
        self.outrun.is_some_and(|since| since.elapsed() > OUTRUN)
    }

    /// Whether no leader could decide for a while, another leader decided last, or the clock has
    /// jumped.
    fn decides_after_gap(&self, instant: Instant, now: Timestamp) -> bool {
        self.decided.is_none_or(|(last, then)| {
            let passed = instant.duration_since(last);
            let shown = now.duration_since(then);
            let apart = SignedDuration::try_from(passed)
                .map_or(SignedDuration::MAX, |passed| shown - passed);
            passed > LONG_GAP || apart.unsigned_abs() > JUMP
        })
    }
}

/// How long a leader may lack a commit that other hosts have before it leaves leading to them.
const OUTRUN: Duration = Duration::from_secs(20);

/// The result of one decision.
pub(super) enum Led {
    /// Nothing is to be decided until then.
    Rest(Next),
    /// Something was decided: the next round may decide more.
    Decided,
    /// The decision could not be stored; it is tried again then.
    Failed(Next),
}

impl Host {
    /// Decides once, if this host leads.
    pub(super) async fn lead(&mut self, now: Timestamp) -> Led {
        if !self.store.leads() {
            self.rest_from_leading();
            return Led::Rest(Next::AwaitChange);
        }

        if self.leader.is_outrun()
            && let Some(store) = self.store.replicated_mut()
        {
            tracing::warn!("this host cannot fetch a commit that others have: another is to lead");
            store.step_aside();
            self.leader.outrun = None;
            return Led::Rest(Next::AwaitChange);
        }
        if let Some(store) = self.store.replicated_mut()
            && let Err(error) = store.put_back().await
        {
            self.note(Part::State, Err(HostTrouble::failed(error)));
            return Led::Failed(Next::After(RETRY));
        }
        if let Err(error) = self.excuse_gap(now).await {
            self.note(Part::State, Err(HostTrouble::failed(error)));
            return Led::Failed(Next::After(RETRY));
        }

        let signs = self.signs().await;
        let judged = self
            .store
            .judge_nodes(&self.facts(), self.engine.unready.as_ref(), signs);
        if let (Some(_), Some(store)) = (&judged.brake, self.store.replicated_mut()) {
            store.braked();
        }
        let brake = judged.brake.map(HostTrouble::Brake);
        self.note(Part::Nodes, brake.map_or(Ok(()), Err));
        self.leader.judged = judged.nodes;

        let reports = self.all_reports();
        let head = self.leading_head();
        let comparable = self.knowledge.commit_cache.comparable();
        let change = cluster(&ClusterInput {
            now,
            settings: &self.fixed.settings,
            state: self.store.snapshot(),
            head: &head,
            commits: self.knowledge.commit_cache.commits(),
            kept: &comparable,
            nodes: &self.leader.judged,
            reports: &reports,
        });
        let held = change.held.map(HostTrouble::Held);
        self.note(Part::Budget, held.map_or(Ok(()), Err));
        self.leader.notes = change.notes;
        let next = judged.next.sooner(change.next);
        if change.changes.is_empty() {
            self.troubles.clear(Part::State);
            return Led::Rest(next);
        }
        self.acted = true;
        match self.commit(change.changes).await {
            Ok(()) => {
                let state = self.store.snapshot();
                self.reporter.events.placed(&change.placed, state);
                Led::Decided
            }
            Err(error) => {
                self.note(Part::State, Err(HostTrouble::failed(error)));
                Led::Failed(next.sooner(Next::After(RETRY)))
            }
        }
    }

    /// Forgets what only a host that leads knows and reports.
    fn rest_from_leading(&mut self) {
        self.leader.decided = None;
        // A leader that has to fetch first decides in a later cycle.
        if !self
            .store
            .replicated()
            .is_some_and(ReplicatedStore::is_in_office)
        {
            self.parts.inquiry.ask(&BTreeSet::new());
        }
        // If this host failed to write as the leader, another host may lead by now.
        if self
            .store
            .replicated()
            .is_some_and(|store| !store.is_withdrawn())
        {
            self.troubles.clear(Part::State);
        }
        // Only the host that decides reports what prevents decisions.
        self.troubles.clear(Part::Nodes);
        self.troubles.clear(Part::Budget);
        self.leader.notes.clear();
    }

    /// The signs of life of the other nodes: from the store, from the nodes themselves, and from
    /// etcd.
    async fn signs(&mut self) -> BTreeMap<NodeName, NodeSigns> {
        let Some(store) = self.store.replicated_mut() else {
            return BTreeMap::new();
        };
        let mut signs = store.signs();
        // A node that was given up is not asked any more once its lease is gone: only a new lease
        // brings the node back.
        let given_up = |signs: &NodeSigns| signs.silent_for.is_some() && signs.lost_for.is_some();
        let asked = signs
            .iter()
            .filter(|(_, signs)| !given_up(signs))
            .map(|(name, _)| name.clone());
        for (name, answer) in self.parts.inquiry.ask(&asked.collect()) {
            signs.entry(name).and_modify(|signs| answer.lay_over(signs));
        }
        store.find_late(&mut signs).await;
        signs
    }

    /// Starts the deadlines anew after a time in which no leader could decide: a commit must not
    /// fail for that time. The times that another leader recorded, or this leader before its clock
    /// jumped, cannot be compared with this clock.
    async fn excuse_gap(&mut self, now: Timestamp) -> anyhow::Result<()> {
        let instant = Instant::now();
        let gap = self.leader.decides_after_gap(instant, now);
        if gap && let Some(rollout) = self.store.snapshot().rollout.after_gap(now) {
            self.commit(vec![Change::put(rollout)]).await?;
        }
        self.leader.decided = Some((instant, now));
        Ok(())
    }

    /// The reports of all nodes, this host included.
    pub(super) fn all_reports(&self) -> BTreeMap<NodeName, NodeReport> {
        let own = (self.fixed.facts.name.clone(), self.reporter.report.clone());
        self.store
            .reports()
            .clone()
            .into_iter()
            .chain([own])
            .collect()
    }

    /// The newest commit by which this host may decide: a leader whose mirror is behind what was
    /// decided must fetch first, and never leads the cluster back.
    fn leading_head(&mut self) -> Head {
        if self.store.replicated().is_none() {
            return self.knowledge.head.clone();
        }
        let Head::Accepted(head) = self.knowledge.head.clone() else {
            return self.knowledge.head.clone();
        };
        let rollout = &self.store.snapshot().rollout;
        let newest = [
            rollout.target.as_ref(),
            rollout.rollback.as_ref().map(|rollback| &rollback.from),
        ];
        let newest: Vec<CommitId> = newest
            .into_iter()
            .flatten()
            .filter(|id| **id != head)
            .cloned()
            .collect();

        let fetched = self.knowledge.source.fetched_uptime_nanos;
        let behind = match self.leader.behind.take() {
            // The branch was read since: commits that a rewrite removed from it will not come.
            Some(known)
                if known.is_of(&head, &newest)
                    && known.behind
                    && fetched.is_some_and(|at| at > known.observed) =>
            {
                let behind = self.is_behind(&head, &newest, self.fixed.judge.allow_rewrite);
                Behind {
                    behind,
                    observed: Uptime::now(),
                    ..known
                }
            }
            Some(known) if known.is_of(&head, &newest) => known,
            _ => {
                let behind = self.is_behind(&head, &newest, false);
                // Nudged once: a source that cannot be reached is retried at the follower's own
                // pace.
                if behind {
                    self.parts.nudge.notify_one();
                }
                Behind {
                    head,
                    newest,
                    behind,
                    observed: Uptime::now(),
                }
            }
        };

        let is_behind = behind.behind;
        self.leader.behind = Some(behind);
        if is_behind {
            Head::Unknown
        } else {
            self.knowledge.head.clone()
        }
    }

    /// Whether a commit that was decided before is unknown here, or is a descendant of this head. A
    /// commit that a rewrite removed may be unknown for good.
    fn is_behind(&self, head: &CommitId, others: &[CommitId], rewritten: bool) -> bool {
        let Ok(repo) = self.parts.reader.mirror.open() else {
            return true;
        };
        let oid = |id: &CommitId| git2::Oid::from_str(id.as_str()).ok();
        others.iter().any(|other| match (oid(other), oid(head)) {
            (Some(other), Some(_)) if repo.find_commit(other).is_err() => !rewritten,
            (Some(other), Some(head)) => repo.graph_descendant_of(other, head).unwrap_or(true),
            _ => true,
        })
    }

    /// Answers the requests that people made on other hosts.
    pub(super) async fn answer_asks(&mut self) {
        if !self.store.leads() {
            return;
        }
        let Some(store) = self.store.replicated() else {
            return;
        };
        for (node, ask) in store.asks() {
            tracing::info!(%node, command = ?ask.command, "requested on another host");
            let asker = Requester {
                node: node.clone(),
                question: ask.id.clone(),
            };
            let done = match ask.command.needs_leader() {
                true => self.act_on(ask.command, Some(asker)).await,
                false => Err(CommandError::OnlyItself),
            };
            // A request that was executed has its answer from the same write; only a failed one is
            // answered here.
            let Err(error) = done else { continue };
            let answer = AnswerDoc {
                id: ask.id,
                answer: Err(format!("{:#}", anyhow::Error::from(error))),
            };
            let Some(store) = self.store.replicated_mut() else {
                return;
            };
            if let Err(error) = store.answer(&node, answer).await {
                tracing::warn!("a request of node {node} could not be answered: {error:#}");
                return;
            }
        }
    }

    /// Stores a decision that a person asked for, with the answer if the request came from another
    /// host.
    pub(super) async fn commit_for(
        &mut self,
        asker: Option<Requester>,
        changes: Vec<Change>,
        answer: String,
    ) -> CommandResult {
        let published_answer = asker.map(|Requester { node, question }| {
            (
                node,
                AnswerDoc {
                    id: question,
                    answer: Ok(answer.clone()),
                },
            )
        });
        self.commit_answered(changes, published_answer).await?;
        Ok(answer)
    }

    /// Removes a node from the cluster for good.
    pub(super) async fn remove_node(
        &mut self,
        node: &NodeName,
        asker: Option<Requester>,
    ) -> CommandResult {
        let Some(store) = self.store.replicated() else {
            return Err(CommandError::NoOtherNode);
        };
        let member = store
            .members()
            .find(|(name, _)| *name == node)
            .map(|(_, member)| member);
        let Some(member) = member else {
            return Err(CommandError::NoNode(node.clone()));
        };
        if member.away.is_some()
            && self
                .leader
                .judged
                .get(node)
                .is_some_and(|node| node.life == NodeLife::Away)
        {
            return Err(CommandError::NodeComesBack(node.clone()));
        }
        if member.alive.is_some() {
            return Err(CommandError::NodeLives(node.clone()));
        }

        // A store that was filled anew has no report of the node; the hosts' copies have one.
        let facts = member
            .facts
            .as_ref()
            .map(|doc| &doc.facts)
            .or_else(|| store.peers().get(node));
        let Some(installation) = facts.map(|facts| facts.installation.clone()) else {
            return Err(CommandError::UnknownInstallation(node.clone()));
        };
        let pods = self.store.snapshot().pods.values();
        let count = pods
            .filter(|record| record.place.node() == Some(node))
            .count();
        let answer = format!(
            "node {node} is not of the cluster any more; its {count} pods are created again on other nodes, \
             also those with data on its disk. Do not start its daemon again before `windlass uninstall` there"
        );
        // A node that is not a member has not been removed either.
        let changes = vec![
            Change::Put(Record::Removed(node.clone(), installation)),
            Change::Delete(RecordKey::Outage(node.clone())),
        ];
        self.commit_for(asker, changes, answer).await
    }

    /// The nodes, as this host judged or received them.
    pub(super) fn nodes(&self) -> BTreeMap<NodeName, KnownNode> {
        if self.store.leads() && !self.leader.judged.is_empty() {
            return self.leader.judged.clone();
        }
        self.store
            .shown_nodes(&self.facts(), self.engine.unready.as_ref())
    }
}
