//! What a host does because it leads: judge which nodes live, decide, and do what people ask for.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use reconciler::{
    cluster::{ClusterInput, cluster},
    name::{CommitId, NodeName},
    plan::Next,
    rollout::Head,
    state::{Change, KnownNode, NodeLife, NodeReport},
};

use super::{Host, RETRY};
use crate::store::AnswerDoc;

/// Answers to other hosts that are remembered, lest a question is acted on twice.
const REMEMBERED: usize = 1000;

/// What came of one decision.
pub(super) enum Led {
    /// Nothing is to be decided until then.
    Rest(Next),
    /// Something was decided: there may be more.
    Decided,
    /// It could not be kept; tried again then.
    Failed(Next),
}

impl Host {
    /// Decides once, if this host leads.
    pub(super) async fn lead(&mut self, now: Timestamp) -> Led {
        if !self.store.leads() {
            // What this host could not write as a leader is another leader's by now.
            if self.store.replicated().is_some_and(|store| !store.is_withdrawn()) {
                self.troubles.remove("state");
            }
            // What is in the way of deciding is for who decides to say.
            self.troubles.remove("nodes");
            self.troubles.remove("budget");
            self.notes.clear();
            return Led::Rest(Next::AwaitChange);
        }
        if let Some(store) = self.store.replicated_mut()
            && let Err(error) = store.put_back().await
        {
            self.note("state", Err(format!("{error:#}")));
            return Led::Failed(Next::After(RETRY));
        }
        let silent = self.store.replicated().map(|store| store.signs()).unwrap_or_default();
        let silent = silent.into_iter().filter(|(_, signs)| signs.silent_for.is_some()).map(|(name, _)| name);
        let answers = self.parts.inquiry.ask(silent.collect());
        let late = match self.store.replicated_mut() {
            Some(store) => store.late().await,
            None => BTreeSet::new(),
        };
        let judged = self.store.judge_nodes(&self.facts(), self.unready.as_deref(), &answers, &late);
        if let (Some(_), Some(store)) = (&judged.brake, self.store.replicated_mut()) {
            store.braked();
        }
        self.note("nodes", judged.brake.map_or(Ok(()), Err));
        self.judged = judged.nodes;
        let reports = self.all_reports();
        let head = self.leading_head();
        let change = cluster(&ClusterInput {
            now,
            settings: &self.fixed.settings,
            state: self.store.snapshot(),
            head: &head,
            commits: self.library.commits(),
            nodes: &self.judged,
            reports: &reports,
        });
        self.note("budget", change.held.map_or(Ok(()), Err));
        self.notes = change.notes;
        let next = judged.next.sooner(change.next).sooner(self.parts.inquiry.next());
        if change.changes.is_empty() {
            self.troubles.remove("state");
            return Led::Rest(next);
        }
        self.acted = true;
        match self.commit(change.changes).await {
            Ok(()) => Led::Decided,
            Err(error) => {
                self.note("state", Err(format!("{error:#}")));
                Led::Failed(next.sooner(Next::After(RETRY)))
            }
        }
    }

    /// What every node says, this one too.
    pub(super) fn all_reports(&self) -> BTreeMap<NodeName, NodeReport> {
        let own = (self.fixed.facts.name.clone(), self.report.clone());
        self.store.reports().clone().into_iter().chain([own]).collect()
    }

    /// The newest commit, as far as this host may decide by it: a leader whose clone is behind what was decided before
    /// must fetch first, and never leads back.
    fn leading_head(&mut self) -> Head {
        if self.store.replicated().is_none() {
            return self.head.clone();
        }
        let Head::Accepted(head) = &self.head else { return self.head.clone() };
        let rollout = &self.store.snapshot().rollout;
        let newest = [rollout.target.as_ref(), rollout.rollback.as_ref().map(|rollback| &rollback.from)];
        let newest: Vec<CommitId> = newest.into_iter().flatten().filter(|id| *id != head).cloned().collect();
        let key = (head.clone(), newest);
        if self.behind.as_ref().is_none_or(|(known, _)| *known != key) {
            let behind = self.is_behind(&key.0, &key.1);
            self.behind = Some((key, behind));
        }
        match &self.behind {
            Some((_, false)) => self.head.clone(),
            _ => {
                self.parts.nudge.notify_one();
                Head::Unknown
            }
        }
    }

    /// Whether a commit that was decided on before is not known here, or comes after this head.
    fn is_behind(&self, head: &CommitId, others: &[CommitId]) -> bool {
        let Ok(repo) = self.parts.reader.mirror.open() else { return true };
        let oid = |id: &CommitId| git2::Oid::from_str(id.as_str()).ok();
        others.iter().any(|other| match (oid(other), oid(head)) {
            (Some(other), Some(head)) => {
                repo.find_commit(other).is_err() || repo.graph_descendant_of(other, head).unwrap_or(true)
            }
            _ => true,
        })
    }

    /// Answers what people asked on other hosts.
    pub(super) async fn answer_asks(&mut self) {
        if !self.store.leads() {
            return;
        }
        let Some(store) = self.store.replicated() else { return };
        for (node, ask) in store.asks() {
            tracing::info!(%node, command = ?ask.command, "asked for on another host");
            let answer = match self.done.get(&ask.id) {
                // Done before, and the answer did not arrive.
                Some(answer) => answer.clone(),
                None if !ask.command.needs_leader() => Err("only the host itself does that".to_owned()),
                None => self.act_on(ask.command).await,
            };
            if self.done.len() >= REMEMBERED {
                self.done.clear();
            }
            self.done.insert(ask.id.clone(), answer.clone());
            let answer = AnswerDoc { id: ask.id, answer };
            let Some(store) = self.store.replicated_mut() else { return };
            if let Err(error) = store.answer(&node, answer).await {
                tracing::warn!("what was asked on {node} could not be answered: {error:#}");
                return;
            }
        }
    }

    /// Gives a node up for good.
    pub(super) async fn remove_node(&mut self, node: &NodeName) -> Result<String, String> {
        let Some(store) = self.store.replicated() else {
            return Err("this host is alone: there is no other node".to_owned());
        };
        let member = store.members().find(|(name, _)| *name == node).map(|(_, member)| member);
        let Some(member) = member else {
            return Err(format!("there is no node {node}: see `windlass get nodes`"));
        };
        if member.away.is_some() && self.judged.get(node).is_some_and(|node| node.life == NodeLife::Away) {
            return Err(format!("node {node} said that it comes back soon: wait until it is lost"));
        }
        if member.alive.is_some() {
            return Err(format!(
                "node {node} lives: stop its daemon first (`systemctl stop windlass`), or cordon and drain it in Git"
            ));
        }
        let installation =
            member.facts.as_ref().map(|doc| doc.facts.installation.clone()).unwrap_or_default();
        let pods = self.store.snapshot().pods.values();
        let count = pods.filter(|record| record.place.node() == Some(node)).count();
        self.commit(vec![Change::Remove(node.clone(), installation)])
            .await
            .map_err(|error| format!("{error:#}"))?;
        Ok(format!(
            "node {node} is not of the cluster any more; its {count} pods are made anew elsewhere, those with data on its \
             disk too. Do not start its daemon again before `windlass uninstall` there"
        ))
    }

    /// The nodes, as this host knows them.
    pub(super) fn nodes(&self) -> BTreeMap<NodeName, KnownNode> {
        if self.store.leads() && !self.judged.is_empty() {
            return self.judged.clone();
        }
        self.store.shown_nodes(&self.facts(), self.unready.as_deref())
    }
}
