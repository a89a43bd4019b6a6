//! One cycle of this host: follow the store, read commits, observe, decide, plan, remember, act,
//! publish.

mod appeared;
mod commits;
mod detour;
mod engine;
mod executor;
mod inquiry;
mod leader;
mod membership;
mod memory;
mod network_check;
mod plan_text;
mod removed;
mod reporter;
mod troubles;
mod turn;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use netfilter::{Exposure, HostNet};
use parking_lot::Mutex;
use reconciler::{
    foreign::ForeignText,
    name::NodeName,
    network::{HostNetwork, PeerPath},
    node::{NodeInput, NodePlan, node},
    observed::Observed,
    plan::{LaneKey, Next, Why},
    pod::files::DnsFacts,
    settings::ClusterSettings,
    state::{Change, NodeFacts, Record, RecordFormat, RecordKey},
};
use runtime::{LastOutputs, Pods, Probes};
use tokio::sync::watch;

use crate::{
    commit_cache::Reader,
    crash,
    dns::{Dns, cache::NamesFile},
    follow::Judge,
    lanes::{LaneEvent, Lanes},
    metrics::{CycleResult, DriftCause, Metrics},
    store::{AnswerDoc, Store},
    trust::TrustStore,
    view::{HostNote, HostTrouble, Part, SourceStatus, View},
};

use self::{
    commits::Knowledge,
    engine::EngineMemory,
    leader::{LeaderMemory, Led},
    membership::Membership,
    network_check::NetworkCheck,
    reporter::Reporter,
    troubles::Troubles,
};
pub(crate) use self::{
    detour::DetourFile,
    inquiry::{AddressBook, Inquiry},
    memory::HostMemory,
};

/// The most rounds of deciding in one cycle: one decision may make the next one possible.
const ROUNDS: usize = 16;
/// After this time a part that failed outside of a lane is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What does not change while the daemon runs.
pub(crate) struct Fixed {
    /// This host's own facts, as other hosts receive them.
    pub(crate) facts: NodeFacts,
    /// This host's bridge, subnet and ranges.
    pub(crate) network: HostNetwork,
    /// What of pods, Services and DNS is open to the host's network.
    pub(crate) exposure: Exposure,
    /// The DNS settings that pods receive.
    pub(crate) dns: DnsFacts,
    /// The limits and times by which the leader decides.
    pub(crate) settings: ClusterSettings,
    /// How long a stopping pod drains before its containers are stopped.
    pub(crate) drain: Duration,
    /// How many commits back a rollback may go.
    pub(crate) history: usize,
    /// Judges whether a commit may run here.
    pub(crate) judge: Judge,
    /// Notes about the configuration that `status` shows.
    pub(crate) notes: Vec<HostNote>,
    /// The address at which other hosts' daemons reach this host; `None` if they cannot.
    pub(crate) peer: Option<std::net::SocketAddr>,
    /// How packets reach the pods of other hosts.
    pub(crate) path: PeerPath,
    /// For how long this host announces its absence when its daemon ends.
    pub(crate) away: Duration,
    /// Returns the wall-clock time: the system's clock, or one that advances with a test's paused
    /// clock.
    pub(crate) clock: fn() -> Timestamp,
    /// The first format of records that has a kind of record: [`RecordKey::since`], or the rule of
    /// a test for a format that does not exist yet.
    pub(crate) record_since: fn(&RecordKey) -> RecordFormat,
}

/// The parts of the daemon that act on the engine, the network and the repository.
pub(crate) struct Parts {
    pub(crate) runtime: Arc<dyn Pods>,
    /// What containers printed before they failed, for the view.
    pub(crate) outputs: watch::Receiver<LastOutputs>,
    pub(crate) network: Arc<dyn HostNet>,
    pub(crate) prober: Arc<dyn Probes>,
    pub(crate) dns: Dns,
    pub(crate) names: NamesFile,
    pub(crate) lanes: Lanes,
    pub(crate) reader: Reader,
    pub(crate) metrics: Arc<Metrics>,
    /// Makes the follower fetch at once.
    pub(crate) nudge: Arc<tokio::sync::Notify>,
    /// Asks other hosts' daemons directly whether they live.
    pub(crate) inquiry: Inquiry,
}

/// This host: its parts, and its memory, in groups that have one writer each.
pub(crate) struct Host {
    fixed: Fixed,
    parts: Parts,
    store: Store,
    memory: HostMemory,
    /// The commit that this host went back to by itself, if it did.
    detour: DetourFile,
    knowledge: Knowledge,
    membership: Membership,
    leader: LeaderMemory,
    engine: EngineMemory,
    network_check: NetworkCheck,
    reporter: Reporter,
    troubles: Troubles,
    /// Whether the cycle under way had anything to do.
    acted: bool,
}

impl Host {
    pub(crate) fn new(
        fixed: Fixed,
        parts: Parts,
        store: Store,
        trust: Arc<Mutex<TrustStore>>,
        memory: HostMemory,
        detour: DetourFile,
        source: SourceStatus,
    ) -> Self {
        let knowledge = Knowledge::at_start(&fixed, trust, source);
        let reporter = Reporter::starting_from(store.snapshot().rollout.clone());
        Self {
            fixed,
            parts,
            store,
            memory,
            detour,
            knowledge,
            membership: Membership::default(),
            leader: LeaderMemory::default(),
            engine: EngineMemory::default(),
            network_check: NetworkCheck::new(),
            reporter,
            troubles: Troubles::default(),
            acted: false,
        }
    }

    /// One cycle. A cycle never fails as a whole: a failure of one part becomes a trouble, and that
    /// part is tried again.
    pub(crate) async fn cycle(&mut self, now: Timestamp) -> Next {
        let began = std::time::Instant::now();
        self.acted = false;

        self.follow_store();
        self.read_commits(now).await;
        self.check_network_if_due().await;

        let (next, engine_answers) = self.reconcile(now).await;
        self.note_appearances();

        self.answer_asks().await;
        let next = next.sooner(self.keep_needed_commits().await);

        self.count_cycle(began, engine_answers);
        next.sooner(self.next_deadline())
    }

    /// Observes, decides and acts. The flag is false if the engine does not answer.
    async fn reconcile(&mut self, now: Timestamp) -> (Next, bool) {
        let observed = match self.observe().await {
            Ok(observed) => observed,
            // Not "this host has no containers": while the engine does not answer, its containers
            // are unknown, and no decision is based on them.
            Err(error) => {
                let error = ForeignText::sentence(&format!("{:#}", anyhow::Error::from(error)));
                self.engine.unready = Some(error.clone());
                self.note(Part::Engine, Err(HostTrouble::Failed(error.clone())));
                let next = self.reconcile_without_engine(now, &error).await;
                return (next.sooner(Next::After(RETRY)), false);
            }
        };
        self.reporter
            .events
            .probes(&observed, self.store.snapshot());
        self.engine.unready = None;

        let (plan, next) = self.decide(now, &observed).await;
        self.engine.last = Some(observed);

        // What the plan depends on is on the disk before anything is done.
        self.publish_report();
        self.memory.save_if_changed(&mut self.troubles).await;
        crash::point("memory");

        let acted = self.act(plan).await;
        (next.sooner(acted), true)
    }

    /// When the next cycle must come for the work that this cycle has left unfinished.
    fn next_deadline(&self) -> Next {
        let ask = self.membership.next_ask();
        let save = self.store.replicated().and_then(|store| store.next_save());
        let check = self.network_check.next();
        let retry = (!self.troubles.is_empty()).then_some(RETRY);
        [ask, save, check, retry]
            .into_iter()
            .flatten()
            .min()
            .map_or(Next::AwaitChange, Next::After)
    }

    fn count_cycle(&self, began: std::time::Instant, engine_answers: bool) {
        let result = match (engine_answers && self.troubles.is_empty(), self.acted) {
            (false, _) => CycleResult::Failed,
            (true, true) => CycleResult::Changed,
            (true, false) => CycleResult::Unchanged,
        };
        self.parts.metrics.cycle(began.elapsed(), result);
    }

    /// Decides and plans until a round changes nothing.
    async fn decide(&mut self, now: Timestamp, observed: &Observed) -> (NodePlan, Next) {
        let mut round = 0;
        self.keep_new_pins();

        loop {
            round += 1;
            let plan = self.plan(now, observed);
            self.memory.set_pods(plan.memory.clone());
            self.knowledge.add_pins(plan.inherited.iter().cloned());
            self.keep_new_pins();

            let next = plan.next;
            if self.go_on_with_detour(plan.report.clone()) && round < ROUNDS {
                continue;
            }
            match self.lead(now).await {
                Led::Rest(later) | Led::Failed(later) => return (plan, next.sooner(later)),
                Led::Decided => {}
            }
            if round == ROUNDS {
                tracing::warn!(
                    "the decisions of this cycle did not come to rest in {ROUNDS} rounds"
                );
                return (plan, next.sooner(Next::After(Duration::from_millis(100))));
            }
        }
    }

    fn plan(&self, now: Timestamp, observed: &Observed) -> NodePlan {
        let trust = self.knowledge.trust.lock();
        let own = self.own_state(now, observed);
        node(&NodeInput {
            now,
            node: &self.fixed.facts.name,
            facts: &self.fixed.facts,
            settings: &self.fixed.settings,
            network: &self.network(),
            dns: &self.fixed.dns,
            drain: self.fixed.drain,
            state: own.as_ref().unwrap_or_else(|| self.store.snapshot()),
            commits: self.knowledge.commit_cache.commits(),
            kept: self.knowledge.commit_cache.kept(),
            barred: self.knowledge.commit_cache.barred(),
            observed,
            memory: self.memory.pods(),
            pins: trust.pins(),
            peers: self.store.peers(),
            reports: self.store.reports(),
        })
    }

    /// Writes a decision to the store.
    async fn commit(&mut self, changes: Vec<Change>) -> anyhow::Result<()> {
        self.commit_answered(changes, None).await
    }

    /// Writes a decision, with the answer to the host on which a person asked for it: first the
    /// pointers, which are this host's own, then the state.
    async fn commit_answered(
        &mut self,
        changes: Vec<Change>,
        answer: Option<(NodeName, AnswerDoc)>,
    ) -> anyhow::Result<()> {
        let own_format = self.fixed.facts.record_format;
        let store = self.store.replicated();
        if let Some(oldest) = store.and_then(|store| store.oldest_reader(own_format)) {
            oldest.check(&changes, self.fixed.record_since)?;
        }

        let moved = changes.iter().rev().find_map(|change| match change {
            Change::Put(Record::Rollout(after)) => Some(after.clone()),
            _ => None,
        });
        if let Some(after) = &moved {
            self.knowledge.set_pointers(after)?;
            crash::point("pointers");
        }
        self.store.commit(changes, answer).await?;
        crash::point("state");
        // Reported only once it is stored, so that a full disk does not report it at every attempt.
        if let Some(after) = moved {
            self.reporter
                .report_rollout(*after, &self.fixed.facts.name, &self.parts.metrics);
        }
        Ok(())
    }

    fn note(&mut self, part: Part, result: Result<(), HostTrouble>) {
        self.troubles.note(part, result);
    }

    /// Handles an event of a lane.
    pub(crate) fn lane(&mut self, event: LaneEvent) {
        match event {
            LaneEvent::Did(done) => self.did(done),
            LaneEvent::Ended { key, result } => {
                if let (LaneKey::Pod(uid), Err((fault, _))) = (&key, &result)
                    && let Some(record) = self.store.snapshot().pods.get(uid)
                {
                    let reason = match record.stop {
                        Some(_) => "FailedKillPod",
                        None => fault.kind.waiting_reason(),
                    };
                    self.reporter
                        .events
                        .failure(uid, record, reason, fault.message.clone());
                }
                self.parts.lanes.ended(key, result, self.now());
            }
        }
    }

    /// Causes everything to be observed again, in case an event was lost.
    pub(crate) async fn resync(&mut self) {
        self.parts.runtime.resync();
        self.check_network().await;
        self.count_outside_sources().await;
        self.collect_garbage().await;
    }

    /// The view after the last cycle; its numbers go into the metrics as well.
    pub(crate) fn current_view(&self) -> Arc<View> {
        let view = self.view();
        self.parts.metrics.observe(&view);
        Arc::new(view)
    }

    /// Whether no step is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.parts.lanes.is_idle()
    }

    /// Writes to the disk what this host remembers.
    pub(crate) async fn save(&mut self) {
        self.keep_new_pins();
        self.memory.save_if_changed(&mut self.troubles).await;
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.fixed.clock)()
    }

    pub(crate) fn name(&self) -> &NodeName {
        &self.fixed.facts.name
    }

    /// Counts in the metrics the lanes that repair drift.
    fn count_drift(&self, why: &Why) {
        if let Why::Repair { drift, .. } = why {
            self.parts.metrics.repair(DriftCause::from(*drift));
        }
    }
}
