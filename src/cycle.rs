//! One cycle of this host: snapshot, decide, plan, remember, act, show.

mod commits;
mod detour;
mod executor;
mod inquiry;
mod leader;
mod membership;
mod memory;
mod removed;
mod reporter;
mod turn;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use netfilter::{HostNet, Network};
use parking_lot::Mutex;
use reconciler::{
    name::{CommitId, NodeName},
    network::{DnsRecords, HostNetwork, PeerPath, Peers},
    node::{NodeInput, NodePlan, node},
    observed::Observed,
    plan::{ImagePin, LaneKey, Next, Why},
    pod::files::DnsFacts,
    rollout::Head,
    settings::ClusterSettings,
    state::{Change, KnownNode, NodeFacts, NodeReport, Preparation, Record, Rollout},
};
use runtime::{Prober, Runtime};

use crate::{
    commit_cache::{CommitCache, Reader},
    crash,
    dns::{Dns, cache::NamesFile},
    follow::Judge,
    lanes::{LaneEvent, Lanes},
    metrics::{CycleResult, DriftCause, Metrics},
    source::verify::VerifiedCommit,
    store::{AnswerDoc, Store},
    trust::TrustStore,
    view::{SourceStatus, View},
};

pub(crate) use detour::DetourFile;
pub(crate) use inquiry::{AddressBook, Inquiry};
use leader::Led;
pub(crate) use memory::HostMemory;

/// How often deciding may change something that lets it decide more, in one cycle.
const ROUNDS: usize = 16;
/// How often, at most, the host's network is looked at for what somebody else has changed there.
const NETWORK_CHECK: Duration = Duration::from_secs(5);
/// When what failed outside of a lane is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What never changes while the daemon runs.
pub(crate) struct Fixed {
    /// This host.
    pub(crate) facts: NodeFacts,
    /// Its network.
    pub(crate) network: HostNetwork,
    /// Resolvers.
    pub(crate) dns: DnsFacts,
    /// Bounds.
    pub(crate) settings: ClusterSettings,
    /// How long a stopping pod drains.
    pub(crate) drain: Duration,
    /// How many commits back a rollback may go.
    pub(crate) history: usize,
    /// How commits are judged.
    pub(crate) judge: Judge,
    /// What a reader of `status` should know of the configuration.
    pub(crate) notes: Vec<String>,
    /// Where other hosts' daemons find this one.
    pub(crate) peer: Option<std::net::SocketAddr>,
    /// How packets reach the pods of other hosts.
    pub(crate) path: PeerPath,
    /// How long the others may do without this host when its daemon ends.
    pub(crate) away: Duration,
}

/// The parts that act.
pub(crate) struct Parts {
    pub(crate) runtime: Runtime,
    pub(crate) network: Arc<Network>,
    pub(crate) prober: Prober,
    pub(crate) dns: Dns,
    pub(crate) names: NamesFile,
    pub(crate) lanes: Lanes,
    pub(crate) reader: Reader,
    pub(crate) metrics: Arc<Metrics>,
    /// Makes the follower look at once.
    pub(crate) nudge: Arc<tokio::sync::Notify>,
    /// Asks other hosts directly.
    pub(crate) inquiry: Inquiry,
}

/// This host: what it knows, remembers and acts with.
pub(crate) struct Host {
    fixed: Fixed,
    parts: Parts,
    store: Store,
    trust: Arc<Mutex<TrustStore>>,
    memory: HostMemory,
    commit_cache: CommitCache,
    head: Head,
    /// Eligible commits.
    verified: BTreeMap<CommitId, VerifiedCommit>,
    /// Commits that this host once accepted and that are not eligible now, see
    /// [`crate::trust::Pointers::kept`].
    kept: BTreeSet<CommitId>,
    source: SourceStatus,
    report: NodeReport,
    shown: reporter::LastPlan,
    troubles: BTreeMap<&'static str, String>,
    pinned: BTreeSet<CommitId>,
    converged: bool,
    /// Whether the last cycle had anything to do.
    acted: bool,
    events: reporter::RecentEvents,
    /// What the DNS was last told.
    names: DnsRecords,
    network_checked: std::time::Instant,
    /// Whether something has happened to a link or route since then.
    network_changed: bool,
    /// When this leader last decided, by both its clocks.
    decided: Option<(std::time::Instant, Timestamp)>,
    /// What the last cycle at the engine found.
    seen: Option<Observed>,
    /// Why this host takes no pods.
    unready: Option<String>,
    /// The nodes, as this host judged them when it last led.
    judged: BTreeMap<NodeName, KnownNode>,
    /// What was last told and written down of the rollout.
    reported_rollout: Rollout,
    /// The other hosts that the network leads to.
    peers: Option<Peers>,
    /// A commit that another host has seen, for which the repository was looked at.
    nudged_for: Option<CommitId>,
    /// When this host may ask for what all hosts have learnt of.
    turn: turn::FetchTurn,
    /// Pins that lanes have found since the last cycle.
    new_pins: Vec<(CommitId, String, ImagePin)>,
    /// Since when another host has a commit that this one cannot get.
    outrun: Option<std::time::Instant>,
    /// How this host's head stands to what was decided before.
    behind: Option<leader::Behind>,
    /// What people asked and the leader has not answered.
    open: Vec<membership::Open>,
    /// Where this host went back by itself.
    detour: DetourFile,
    /// What people should know of what was.
    notes: Vec<String>,
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
        let (verified, kept) = commits::trusted_at_start(&fixed, &trust);
        let told = store.snapshot().rollout.clone();
        Self {
            fixed,
            parts,
            store,
            trust,
            memory,
            commit_cache: CommitCache::default(),
            head: Head::Unknown,
            verified,
            kept,
            source,
            report: NodeReport::default(),
            shown: reporter::LastPlan::default(),
            troubles: BTreeMap::new(),
            pinned: BTreeSet::new(),
            converged: false,
            acted: false,
            events: reporter::RecentEvents::default(),
            names: DnsRecords::default(),
            network_checked: std::time::Instant::now(),
            network_changed: false,
            decided: None,
            seen: None,
            unready: None,
            judged: BTreeMap::new(),
            reported_rollout: told,
            peers: None,
            nudged_for: None,
            turn: turn::FetchTurn::default(),
            new_pins: Vec::new(),
            outrun: None,
            behind: None,
            open: Vec::new(),
            detour,
            notes: Vec::new(),
        }
    }

    /// One cycle. It never fails as a whole: what is in the way of one part is said and tried
    /// again.
    pub(crate) async fn cycle(&mut self, now: Timestamp) -> Next {
        let began = std::time::Instant::now();
        self.acted = false;
        self.follow_store();
        self.read_commits(now).await;
        let unchecked = NETWORK_CHECK.saturating_sub(self.network_checked.elapsed());
        if unchecked.is_zero() {
            self.check_network().await;
        }
        let (next, good) = match self.observe().await {
            Ok(observed) => {
                self.events.probes(&observed, self.store.snapshot());
                self.unready = None;
                let (plan, next) = self.decide(now, &observed).await;
                self.seen = Some(observed);
                self.publish_report();
                self.memory.save_if_changed(&mut self.troubles).await;
                crash::point("memory");
                let acted = self.act(plan).await;
                (next.sooner(acted), true)
            }
            // An engine that does not answer is not a host without containers: nothing is concluded
            // from it.
            Err(error) => {
                self.unready = Some(error.clone());
                self.note("engine", Err(error.clone()));
                let next = self.go_on(now, &error).await;
                (next.sooner(Next::After(RETRY)), false)
            }
        };
        self.answer_asks().await;
        let next = next.sooner(self.keep_what_is_needed().await);
        let next = next.sooner(self.next_ask().map_or(Next::AwaitChange, Next::After));
        let unsaved = self.store.replicated().and_then(|store| store.next_save());
        let next = next.sooner(unsaved.map_or(Next::AwaitChange, Next::After));
        let result = match (good && self.troubles.is_empty(), self.acted) {
            (false, _) => CycleResult::Failed,
            (true, true) => CycleResult::Changed,
            (true, false) => CycleResult::Unchanged,
        };
        self.parts.metrics.cycle(began.elapsed(), result);
        // What came too soon after a check is not forgotten.
        let next = if self.network_changed {
            next.sooner(Next::After(unchecked))
        } else {
            next
        };
        if self.troubles.is_empty() {
            next
        } else {
            next.sooner(Next::After(RETRY))
        }
    }

    /// A cycle without the engine. Nothing is done to containers; what runs and the other hosts'
    /// pods get their traffic as before, and the other hosts' engines may be well.
    async fn go_on(&mut self, now: Timestamp, why: &str) -> Next {
        // Before the first plan nothing is known of its pods, and what was last said of them holds.
        let Some(seen) = self.seen.take() else {
            return match self.lead(now).await {
                Led::Rest(next) | Led::Failed(next) => next,
                Led::Decided => Next::After(Duration::ZERO),
            };
        };
        let observed = Observed {
            probes: self.parts.prober.facts(),
            lanes: self.parts.lanes.running(),
            stopping: self.parts.lanes.stopping(),
            failures: self.parts.lanes.failures().clone(),
            ..seen
        };
        let (mut plan, next) = self.decide(now, &observed).await;
        self.seen = Some(observed);
        plan.lanes.clear();
        plan.cancel.clear();
        for preparation in self.report.prepared.values_mut() {
            if matches!(preparation, Preparation::Pulling { .. }) {
                *preparation = Preparation::Waiting(why.to_owned());
            }
        }
        self.publish_report();
        self.memory.save_if_changed(&mut self.troubles).await;
        let converged = self.converged;
        let acted = self.act(plan).await;
        self.converged = converged;
        next.sooner(acted)
    }

    /// A link or route of ours may have gone.
    pub(crate) fn network_changed(&mut self) {
        self.network_changed = true;
    }

    async fn observe(&mut self) -> Result<Observed, String> {
        let found = self
            .parts
            .runtime
            .observe()
            .await
            .map_err(|fault| fault.message)?;
        self.troubles.remove("engine");
        match self.parts.network.links().await {
            Ok(links) => {
                self.troubles.remove("links");
                let (lanes, stopping) = (self.parts.lanes.running(), self.parts.lanes.stopping());
                let failures = self.parts.lanes.failures().clone();
                let probes = self.parts.prober.facts();
                let (files, hooked) = (self.memory.files.clone(), self.memory.hooked().clone());
                let (containers, images) = (found.containers, found.images);
                Ok(Observed {
                    containers,
                    images,
                    links,
                    files,
                    hooked,
                    probes,
                    lanes,
                    stopping,
                    failures,
                })
            }
            Err(error) => Err(format!("{:#}", anyhow::Error::from(error))),
        }
    }

    /// Decides and plans until nothing changes any more.
    async fn decide(&mut self, now: Timestamp, observed: &Observed) -> (NodePlan, Next) {
        let mut round = 0;
        self.keep_new_pins();
        loop {
            round += 1;
            let plan = self.plan(now, observed);
            self.memory.set_pods(plan.memory.clone());
            self.new_pins.extend(plan.inherited.iter().cloned());
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
                    "the decisions of this look did not come to rest in {ROUNDS} rounds"
                );
                return (plan, next.sooner(Next::After(Duration::from_millis(100))));
            }
        }
    }

    fn plan(&self, now: Timestamp, observed: &Observed) -> NodePlan {
        let trust = self.trust.lock();
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
            commits: self.commit_cache.commits(),
            kept: self.commit_cache.kept(),
            barred: self.commit_cache.barred(),
            observed,
            memory: self.memory.pods(),
            pins: trust.pins(),
            peers: self.store.peers(),
            reports: self.store.reports(),
        })
    }

    /// Keeps a decision.
    async fn commit(&mut self, changes: Vec<Change>) -> anyhow::Result<()> {
        self.commit_answered(changes, None).await
    }

    /// Keeps a decision with the answer to whoever asked for it on another host: first the
    /// pointers, which are this host's own, then the state.
    async fn commit_answered(
        &mut self,
        changes: Vec<Change>,
        answer: Option<(NodeName, AnswerDoc)>,
    ) -> anyhow::Result<()> {
        let moved = changes.iter().rev().find_map(|change| match change {
            Change::Put(Record::Rollout(after)) => Some(after.clone()),
            _ => None,
        });
        if let Some(after) = &moved {
            self.set_pointers(after)?;
            crash::point("pointers");
        }
        self.store.commit(changes, answer).await?;
        crash::point("state");
        // Told once it is true, and not again for every try on a full disk.
        if let Some(after) = moved {
            reporter::report_change(&self.reported_rollout, &after, &self.parts.metrics);
            self.reported_rollout = *after;
        }
        Ok(())
    }

    fn note(&mut self, what: &'static str, result: Result<(), String>) {
        match result {
            Ok(()) => {
                self.troubles.remove(what);
            }
            Err(error) => {
                if self.troubles.get(what) != Some(&error) {
                    tracing::error!("{error}");
                }
                self.troubles.insert(what, error);
            }
        }
    }

    /// Takes in what a lane says.
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
                    self.events
                        .failure(uid, record, reason, fault.message.clone());
                }
                self.parts.lanes.ended(key, result);
            }
        }
    }

    /// Looks at everything afresh.
    pub(crate) async fn resync(&mut self) {
        self.parts.runtime.resync();
        self.check_network().await;
        self.collect_garbage().await;
    }

    /// Repairs what somebody else has changed in the host's network. Where nobody has, this asks
    /// the kernel little.
    async fn check_network(&mut self) {
        self.network_checked = std::time::Instant::now();
        self.network_changed = false;
        match self.parts.network.resync().await {
            Ok(drift) => {
                self.troubles.remove("network");
                for one in drift {
                    tracing::warn!("repaired: {one}");
                    self.parts.metrics.repair(network_cause(one));
                }
            }
            Err(error) => {
                self.troubles
                    .insert("network", format!("{:#}", anyhow::Error::from(error)));
            }
        }
    }

    /// The view after a look, counted.
    pub(crate) fn current_view(&self) -> Arc<View> {
        let view = self.view();
        self.parts.metrics.observe(&view);
        Arc::new(view)
    }

    /// Whether no step is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.parts.lanes.is_idle()
    }

    /// Puts what is remembered on disk.
    pub(crate) async fn save(&mut self) {
        self.keep_new_pins();
        self.memory.save_if_changed(&mut self.troubles).await;
    }

    /// This host.
    pub(crate) fn name(&self) -> &NodeName {
        &self.fixed.facts.name
    }

    /// The pods whose lanes repaired something, for the metrics.
    fn count_drift(&self, why: &Why) {
        if let Why::Repair { drift, .. } = why {
            self.parts.metrics.repair(DriftCause::from(*drift));
        }
    }
}

fn network_cause(drift: netfilter::Drift) -> DriftCause {
    match drift {
        netfilter::Drift::Table => DriftCause::ServiceTable,
        netfilter::Drift::Forwarding
        | netfilter::Drift::ServiceDevice
        | netfilter::Drift::ServiceRoute
        | netfilter::Drift::OverlayDevice
        | netfilter::Drift::PeerEntries
        | netfilter::Drift::PeerRoutes
        | netfilter::Drift::AcceptRules => DriftCause::Other,
    }
}
