//! What the leader does: it judges the lives of nodes, decides, and writes its decisions in
//! transactions, one after another.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use reconciler::{
    cluster::{ClusterInput, cluster, commits_in_use},
    commit::Commit,
    life::{LifeInput, NodeSigns, lives},
    name::NodeName,
    object::{Control, DeploymentStrategy, IntOrPercent},
    plan::Next,
    rollout::Head,
    state::{Change, KnownNode, NodeLife, Record, RecordKey},
};

use crate::{
    clock::Time,
    daemon::milliseconds,
    invariants::decision::check_decision,
    store::{NODE_LEASE, Sabotage, Written},
    world::World,
};

/// More decisions than any history needs.
const MOST_DECISIONS: u64 = 20_000;

impl World {
    pub(crate) fn lead(&mut self, index: usize) {
        let now = self.now;
        let connected = self.is_connected(index);
        let Some(daemon) = &mut self.hosts[index].daemon else {
            return;
        };
        if daemon.lead_at.is_none_or(|at| at > now) {
            return;
        }
        daemon.lead_at = None;
        let Some(leading) = &mut daemon.leading else {
            return;
        };
        // A decided transaction is written even if this leader's lease may have expired: the store
        // refuses it if another leader was elected.
        if let Some(changes) = leading.pending.pop_front() {
            self.write(index, &changes);
            return;
        }
        if now >= leading.valid_until && !self.faults_over {
            daemon.leading = None;
            let name = self.hosts[index].name.clone();
            self.note(|| format!("{name} steps down: its lease may have run out"));
            return;
        }
        if leading.must_relist {
            if !connected {
                self.lead_after(index, 500);
                return;
            }
            leading.must_relist = false;
            let result = self.hosts[index].view.relist(&self.store);
            self.handle_read(index, result);
            self.cycle_after(index, 1);
        }
        if !self.hosts[index].view.trusts() {
            return;
        }
        if self.hosts[index].view.contents.is_distrusted() {
            let name = self.hosts[index].name.clone();
            self.note(|| format!("{name} resigns: another host distrusts the store"));
            return self.resign(index);
        }
        self.excuse_gap(index);
        self.decide(index);
    }

    /// As the product does: a new leader extends the deadlines by the time without a leader, since
    /// its own clock may differ from that of the leader before.
    fn excuse_gap(&mut self, index: usize) {
        let now = self.now;
        let host = &mut self.hosts[index];
        let after = host.view.contents.state.rollout.after_gap(host.wall(now));
        if let Some(leading) = host
            .daemon
            .as_mut()
            .and_then(|daemon| daemon.leading.as_mut())
            && !std::mem::replace(&mut leading.excused, true)
            && let Some(after) = after
        {
            leading.pending.push_back(vec![Change::put(after)]);
        }
    }

    fn write(&mut self, index: usize, changes: &[Change]) {
        let connected = self.is_connected(index);
        let (lost, unanswered) = if self.faults_over {
            (false, false)
        } else {
            (self.random.percent(2), self.random.percent(3))
        };
        let wait = self.random.within(2, 12);
        let Some(leading) = self.hosts[index]
            .daemon
            .as_mut()
            .and_then(|daemon| daemon.leading.as_mut())
        else {
            return;
        };
        let epoch = leading.epoch;
        let incarnation = self.hosts[index]
            .view
            .marker
            .as_ref()
            .map_or(0, |marker| marker.incarnation);
        let Some(leading) = self.hosts[index]
            .daemon
            .as_mut()
            .and_then(|daemon| daemon.leading.as_mut())
        else {
            return;
        };
        if !connected || lost {
            // The leader does not know whether the transaction was written.
            leading.pending.clear();
            leading.must_relist = true;
            leading.excused = false;
            self.lead_after(index, if connected { 200 } else { 500 });
            return;
        }
        let driven = leading.decided_on.clone();
        if self.crashes_here(index, || {
            format!("is about to write {}", describe_changes(changes))
        }) {
            return;
        }
        let before = self.store.contents.state.clone();
        match self.store.commit(index, (incarnation, epoch), changes) {
            Written::Fenced => {
                let name = self.hosts[index].name.clone();
                if let Some(daemon) = &mut self.hosts[index].daemon {
                    daemon.leading = None;
                }
                self.note(|| format!("{name} is fenced off and steps down"));
            }
            Written::Done(revision) => {
                let crashed = self.crashes_here(index, || {
                    format!(
                        "has written, without an answer, {}",
                        describe_changes(changes)
                    )
                });
                let host = &mut self.hosts[index];
                if let Some(leading) = host
                    .daemon
                    .as_mut()
                    .and_then(|daemon| daemon.leading.as_mut())
                {
                    if unanswered {
                        leading.pending.clear();
                        leading.excused = false;
                        leading.must_relist = self.store.sabotage != Sabotage::NoRelist;
                    } else {
                        host.view.wrote(revision, (incarnation, epoch), changes);
                    }
                }
                let name = self.hosts[index].name.clone();
                for change in changes {
                    self.note(|| format!("{name} writes {}", describe_change(change)));
                }
                self.check_transaction(epoch, driven.as_ref(), &before);
                self.after_write();
                if !crashed {
                    self.cycle_after(index, 1);
                    self.lead_after(index, wait);
                }
            }
        }
    }

    fn decide(&mut self, index: usize) {
        let now = self.now;
        let leading = self.hosts[index]
            .daemon
            .as_ref()
            .and_then(|daemon| daemon.leading.as_ref());
        if leading.is_some_and(|leading| !leading.pending.is_empty()) {
            self.lead_after(index, 1);
            return;
        }
        self.decisions += 1;
        let decisions = self.decisions;
        self.require(decisions < MOST_DECISIONS, || {
            "the leader never stops deciding".to_owned()
        });
        let (nodes, mut next) = self.nodes(index);
        let host = &self.hosts[index];
        let contents = &host.view.contents;
        let reports = contents
            .reports
            .iter()
            .filter(|(node, _)| nodes.contains_key(*node))
            .map(|(k, v)| (k.clone(), v.clone()));
        let reports: BTreeMap<_, _> = reports.collect();
        let mut wanted = commits_in_use(&contents.state);
        if let Head::Accepted(id) = &host.head {
            wanted.insert(id.clone());
        }
        let commits: BTreeMap<_, _> = host
            .verified
            .iter()
            .filter(|(id, _)| wanted.contains(*id))
            .map(|(id, commit)| (id.clone(), as_read_by_leader(commit, self.store.sabotage)))
            .collect();
        let input = ClusterInput {
            now: host.wall(now),
            settings: &self.settings,
            state: &contents.state,
            head: &host.head,
            commits: &commits,
            kept: &BTreeMap::new(),
            nodes: &nodes,
            reports: &reports,
        };
        let decided = cluster(&input);
        let findings = check_decision(&input, &decided);
        let mut changes = decided.changes;
        let driven = contents.state.rollout.driving.clone();
        next = next.sooner(decided.next);
        let removals: Vec<Change> = self
            .removed_nodes
            .iter()
            .filter(|node| !contents.state.removed.contains_key(*node))
            .flat_map(|node| {
                // The leader may have joined after the node was last seen. Another host knows which
                // installation is meant.
                let hosts = self.hosts.iter().map(|host| &host.view.trusted().facts);
                let facts = std::iter::once(&contents.facts)
                    .chain(hosts)
                    .find_map(|facts| facts.get(node));
                facts.map_or_else(Vec::new, |facts| {
                    let installation = facts.installation.clone();
                    vec![
                        Change::Put(Record::Removed((*node).clone(), installation)),
                        Change::Delete(RecordKey::Outage((*node).clone())),
                    ]
                })
            })
            .collect();
        self.require(findings.is_empty(), || {
            format!("the core's own referee: {findings:#?}")
        });
        if changes.is_empty() && removals.is_empty() {
            if let Next::After(wait) = next {
                self.lead_after(index, milliseconds(wait));
            }
            return;
        }
        changes.splice(0..0, removals);
        // The serial is written first: a leader that crashes between the transactions then loses
        // some names, and never gives a name twice.
        if let Some(at) = changes
            .iter()
            .position(|change| matches!(change, Change::Put(Record::Serial(_))))
        {
            let serial = changes.remove(at);
            changes.insert(0, serial);
        }
        let at_once = match self.changes_per_write {
            Some(part) => part,
            None if self.faults_over || !self.random.percent(25) => changes.len(),
            None => 1 + self.random.index(6),
        };
        let wait = self.random.within(2, 12);
        if let Some(leading) = self.hosts[index]
            .daemon
            .as_mut()
            .and_then(|daemon| daemon.leading.as_mut())
        {
            leading.pending = changes.chunks(at_once).map(<[Change]>::to_vec).collect();
            leading.decided_on = driven;
        }
        self.lead_after(index, wait);
    }

    /// The nodes as this leader judges them, and when it must judge them again.
    fn nodes(&mut self, index: usize) -> (BTreeMap<NodeName, KnownNode>, Next) {
        let now = self.now;
        let contents = &self.hosts[index].view.contents;
        let answers = |node: &NodeName| {
            let Some(at) = self.hosts.iter().position(|host| host.name == *node) else {
                return false;
            };
            let (leader, node_host) = (&self.hosts[index], &self.hosts[at]);
            at == index
                || leader.reaches_peers
                    && node_host.reaches_peers
                    && node_host.powered
                    && node_host.is_awake()
        };
        let known: Vec<NodeName> = contents
            .facts
            .keys()
            .filter(|node| {
                let installation = contents.facts.get(*node).map(|facts| &facts.installation);
                contents
                    .state
                    .removed
                    .get(*node)
                    .is_none_or(|removed| Some(removed) != installation)
            })
            .map(|node| (*node).clone())
            .collect();
        let answers: BTreeMap<&NodeName, bool> =
            known.iter().map(|node| (node, answers(node))).collect();
        let host = &mut self.hosts[index];
        let contents = &host.view.contents;
        let Some(leading) = host
            .daemon
            .as_mut()
            .and_then(|daemon| daemon.leading.as_mut())
        else {
            return (BTreeMap::new(), Next::AwaitChange);
        };
        let mut signs = BTreeMap::new();
        for node in &known {
            let present = contents.present.get(node);
            let silent_for = match &present {
                Some(_) => {
                    leading.silent.remove(node);
                    None
                }
                None => Some(now - *leading.silent.entry(node.clone()).or_insert(now)),
            };
            let lost = contents
                .state
                .outages
                .get(node)
                .is_some_and(|outage| outage.lost);
            let lost_for = if lost {
                Some(now - *leading.lost.entry(node.clone()).or_insert(now))
            } else {
                leading.lost.remove(node);
                None
            };
            let back_within = contents
                .away
                .get(node)
                .map(|within| within.saturating_sub(silent_for.unwrap_or(0)));
            let duration = |time: Time| Duration::from_millis(time);
            signs.insert(
                node.clone(),
                NodeSigns {
                    silent_for: silent_for.map(duration),
                    answers: answers.get(node).copied(),
                    back_within: back_within.map(duration),
                    unready: present.and_then(|presence| presence.unready.clone()),
                    lost_for: lost_for.map(duration),
                    late: false,
                },
            );
        }
        let judged = lives(&LifeInput {
            lease: Duration::from_millis(NODE_LEASE),
            leading_for: Duration::from_millis(now - leading.since.max(leading.answered_since)),
            signs: &signs,
        });
        let mut next = judged.next;
        if signs
            .values()
            .any(|signs| signs.silent_for.is_some() && signs.lost_for.is_none())
        {
            next = next.sooner(Next::After(Duration::from_secs(1)));
        }
        let gives_up_at_once = self.store.sabotage == Sabotage::GivesUpAtOnce;
        let nodes = judged
            .lives
            .into_iter()
            .filter_map(|(name, life)| {
                let facts = contents.facts.get(&name)?.clone();
                let life = if gives_up_at_once && life.is_out() {
                    NodeLife::Lost
                } else {
                    life
                };
                Some((name, KnownNode { facts, life }))
            })
            .collect();
        (nodes, next)
    }
}

/// A commit as the leader reads it: changed, if the sabotage is a leader that ignores a part of a
/// commit.
fn as_read_by_leader(commit: &Arc<Commit>, sabotage: Sabotage) -> Arc<Commit> {
    let mut objects = match sabotage {
        Sabotage::IgnoresDisks | Sabotage::RecreateOverlaps => commit.objects.clone(),
        _ => return Arc::clone(commit),
    };
    for workload in objects.workloads.values_mut() {
        match (sabotage, &mut workload.control) {
            (Sabotage::IgnoresDisks, _) => workload.template.spec.volumes.clear(),
            (Sabotage::RecreateOverlaps, Control::Deployment { strategy, .. })
                if *strategy == DeploymentStrategy::Recreate =>
            {
                let (max_surge, max_unavailable) = (IntOrPercent::Int(0), IntOrPercent::Int(1));
                *strategy = DeploymentStrategy::RollingUpdate {
                    max_surge,
                    max_unavailable,
                };
            }
            _ => {}
        }
    }
    Arc::new(Commit {
        id: commit.id.clone(),
        subject: commit.subject.clone(),
        signer: commit.signer.clone(),
        time: commit.time,
        allow_deletions: commit.allow_deletions,
        objects,
        warnings: Vec::new(),
    })
}

fn describe_changes(changes: &[Change]) -> String {
    changes
        .iter()
        .map(describe_change)
        .collect::<Vec<_>>()
        .join("; ")
}

/// A short description of a change.
fn describe_change(change: &Change) -> String {
    match change {
        Change::Put(Record::Pod(record)) => {
            let place = record.place.node().map_or("nowhere", |node| node.as_str());
            let stop = record
                .stop
                .as_ref()
                .map(|stop| format!(", stop: {:?}", stop.reason))
                .unwrap_or_default();
            format!(
                "pod {} {} on {place} of {}{stop}",
                record.key.name, record.uid, record.commit
            )
        }
        Change::Delete(RecordKey::Pod(uid)) => format!("forget {uid}"),
        Change::Put(Record::Rollout(rollout)) => format!(
            "rollout target {:?} driving {:?} healthy {:?} {:?}",
            rollout.target.as_ref().map(|id| id.as_str()),
            rollout.driving.as_ref().map(|id| id.as_str()),
            rollout.healthy.as_ref().map(|id| id.as_str()),
            rollout.phase
        ),
        Change::Put(Record::Workload(key, progress)) => {
            format!("progress {key} {}/{}", progress.available, progress.updated)
        }
        other => format!("{other:?}"),
    }
}
