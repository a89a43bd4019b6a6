//! The control loop as the daemon runs it, in virtual time. The referee checks every decision and
//! every plan. Crashes lose what the daemon has only in memory.

mod crash;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use reconciler::{
    cluster::{ClusterChange, ClusterInput, cluster, commits_in_use},
    commit::{Commit, Commits},
    name::{ContainerId, Installation, NodeName, PodUid},
    network::{HostNetwork, VxlanSettings},
    node::{NodeInput, NodePlan, Pins, node},
    object::Taint,
    observed::{LaneFailure, Observed},
    plan::{Lane, LaneKey, Next, Step, Why},
    pod::{files::DnsFacts, memory::NodeMemory},
    rollout::Head,
    settings::{ClusterSettings, RolloutSettings, ServiceRanges},
    state::{ClusterState, KnownNode, NodeFacts, NodeLife, NodeReport, NodeSystem, RecordFormat},
};

use crate::{
    engine::{Engine, Record},
    invariants::{
        decision::check_decision,
        plan::{check_observed, check_plan},
    },
    prober::Prober,
    registry::Registry,
};

/// A lane that runs: the index of its current step, and when the step ends.
#[derive(Debug)]
struct Running {
    lane: Lane,
    at: usize,
    due: Timestamp,
}

/// One host with its daemon.
#[derive(Debug)]
pub(crate) struct Sim {
    pub(crate) now: Timestamp,
    pub(crate) host: Engine,
    pub(crate) registry: Registry,
    pub(crate) settings: ClusterSettings,
    /// The taints in the daemon's configuration.
    pub(crate) taints: Vec<Taint>,
    // The repository.
    pub(crate) head: Head,
    pub(crate) commits: Commits,
    // On the daemon's disk.
    pub(crate) state: ClusterState,
    pub(crate) memory: NodeMemory,
    pub(crate) pins: Pins,
    pub(crate) hooked: BTreeSet<ContainerId>,
    // In the daemon's memory.
    pub(crate) report: Option<NodeReport>,
    pub(crate) last_plan: Option<NodePlan>,
    pub(crate) failures: BTreeMap<LaneKey, LaneFailure>,
    lanes: BTreeMap<LaneKey, Running>,
    prober: Prober,
    due: Option<Timestamp>,
    // What the test observes.
    pub(crate) transcript: Vec<String>,
    pub(crate) extremes: Extremes,
}

/// Extremes that were observed since the last reset.
#[derive(Debug, Default)]
pub(crate) struct Extremes {
    /// The fewest ready pods of each owner, by the owner's name.
    pub(crate) least_ready: BTreeMap<String, usize>,
    /// The most pods without a stop record of each owner.
    pub(crate) most_active: BTreeMap<String, usize>,
}

impl Default for Sim {
    fn default() -> Self {
        let settings = ClusterSettings {
            rollout: RolloutSettings::default(),
            ranges: ServiceRanges {
                addresses: "10.96.0.0/16".parse().unwrap(),
                dns: Ipv4Addr::new(10, 96, 0, 10),
                node_ports: 30000..=32767,
            },
            max_pods: 250,
        };
        Self {
            now: Timestamp::UNIX_EPOCH + Duration::from_secs(1_000_000),
            host: Engine::default(),
            registry: Registry::default(),
            settings,
            taints: Vec::new(),
            head: Head::Unknown,
            commits: BTreeMap::new(),
            state: ClusterState {
                cluster: "test".to_owned(),
                ..ClusterState::default()
            },
            memory: NodeMemory::default(),
            pins: Pins::new(),
            hooked: BTreeSet::new(),
            report: None,
            last_plan: None,
            failures: BTreeMap::new(),
            lanes: BTreeMap::new(),
            prober: Prober::default(),
            due: None,
            transcript: Vec::new(),
            extremes: Extremes::default(),
        }
    }
}

/// The name of the only node.
pub(crate) fn here() -> NodeName {
    NodeName::new("one")
}

fn nodes(taints: &[Taint]) -> BTreeMap<NodeName, KnownNode> {
    let facts = NodeFacts {
        name: here(),
        installation: Installation::new("one"),
        address: Ipv4Addr::new(192, 0, 2, 1),
        pod_subnet: network().pod_subnet,
        mtu: 1500,
        labels: BTreeMap::new(),
        taints: taints.to_vec(),
        record_format: RecordFormat::NEWEST,
        system: NodeSystem::default(),
    };
    BTreeMap::from([(
        here(),
        KnownNode {
            facts,
            life: NodeLife::Ready,
        },
    )])
}

fn network() -> HostNetwork {
    HostNetwork {
        pod_range: "10.42.0.0/16".parse().unwrap(),
        pod_subnet: "10.42.1.0/24".parse().unwrap(),
        service_range: "10.96.0.0/16".parse().unwrap(),
        dns: Ipv4Addr::new(10, 96, 0, 10),
        node_address: Ipv4Addr::new(192, 0, 2, 1),
        mtu: 1500,
        vxlan: VxlanSettings::default(),
    }
}

impl Sim {
    /// Pushes a commit, which is verified and read at once.
    pub(crate) fn push(&mut self, commit: Arc<Commit>) {
        self.note(format!("push {}", commit.id));
        self.head = Head::Accepted(commit.id.clone());
        self.commits.insert(commit.id.clone(), commit);
        self.cycle();
    }

    /// Runs for a duration, with all events that happen in it.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        let mut at_once = 0;
        while let Some(next) = self.next_event().filter(|next| *next <= end) {
            at_once = if next <= self.now { at_once + 1 } else { 0 };
            if at_once > 100 {
                self.fail("the loop runs again and again at one time");
            }
            self.now = self.now.max(next);
            self.host.tick(self.now);
            self.advance_lanes();
            self.cycle();
        }
        self.now = end;
    }

    /// As [`Sim::run`], in seconds.
    pub(crate) fn run_seconds(&mut self, seconds: u64) {
        self.run(Duration::from_secs(seconds));
    }

    fn next_event(&self) -> Option<Timestamp> {
        let lanes = self.lanes.values().map(|running| running.due).min();
        let probes = self.prober.next(&self.host, self.now);
        let due = self.due.map(|due| due.max(self.now));
        [lanes, probes, due, self.host.next_end()]
            .into_iter()
            .flatten()
            .min()
    }

    fn advance_lanes(&mut self) {
        let due: Vec<LaneKey> = self
            .lanes
            .iter()
            .filter(|(_, running)| running.due <= self.now)
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            let Some(mut running) = self.lanes.remove(&key) else {
                continue;
            };
            let step = running.lane.steps[running.at].clone();
            match self.host.apply(&step, &self.registry, self.now) {
                Ok(record) => {
                    self.record(record);
                    running.at += 1;
                    match running.lane.steps.get(running.at) {
                        Some(next) => {
                            running.due = self.now + self.host.duration(next);
                            self.lanes.insert(key, running);
                        }
                        None => {
                            self.failures.remove(&key);
                        }
                    }
                }
                Err(fault) => {
                    self.note(format!("failed {key:?}: {fault}"));
                    let before = self.failures.get(&key);
                    let count = before.map_or(0, |failure| failure.count) + 1;
                    let since = before.map_or(self.now, |failure| failure.since);
                    let container = match &step {
                        Step::StartContainer(spec) => Some(spec.name.clone()),
                        _ => None,
                    };
                    let removes = running.lane.why.is_removal();
                    self.failures.insert(
                        key,
                        LaneFailure {
                            fault,
                            container,
                            since,
                            at: self.now,
                            count,
                            removes,
                        },
                    );
                }
            }
        }
    }

    fn record(&mut self, record: Record) {
        match record {
            Record::Nothing => {}
            Record::Pin(commit, image, pin) => {
                self.pins.entry(commit).or_default().insert(image, pin);
            }
            Record::Hooked(container) => {
                self.hooked.insert(container);
            }
        }
    }

    /// One cycle: decide, plan, start lanes. The cycle is repeated if the report has changed.
    pub(crate) fn cycle(&mut self) {
        self.due = None;
        for round in 0.. {
            if round > 20 {
                self.fail("the report never stops changing");
            }
            self.decide();
            if self.host.engine_down {
                // An engine that does not answer gives no information about containers: there is
                // nothing to plan from.
                self.wake(Next::After(Duration::from_secs(5)));
                return;
            }
            let before = self.report.clone();
            self.plan();
            if self.report == before {
                break;
            }
        }
        self.update_extremes();
    }

    fn wake(&mut self, next: Next) {
        if let Next::After(wait) = next {
            let at = self.now + wait;
            self.due = Some(self.due.map_or(at, |due| due.min(at)));
        }
    }

    fn decide(&mut self) {
        for round in 0.. {
            if round > 20 {
                self.fail("the decisions never stop changing");
            }
            let change = self.decision();
            if change.changes.is_empty() {
                self.wake(change.next);
                return;
            }
            let before = self.state.rollout.phase.clone();
            self.state.apply(change.changes);
            if self.state.rollout.phase != before {
                self.note(format!("phase {:?}", self.state.rollout.phase));
            }
        }
    }

    /// The decision that the leader would make now.
    pub(crate) fn decision(&self) -> ClusterChange {
        let nodes = nodes(&self.taints);
        let reports = self
            .report
            .iter()
            .map(|report| (here(), report.clone()))
            .collect();
        let mut wanted = commits_in_use(&self.state);
        if let Head::Accepted(id) = &self.head {
            wanted.insert(id.clone());
        }
        let commits = self
            .commits
            .iter()
            .filter(|(id, _)| wanted.contains(*id))
            .map(|(id, commit)| (id.clone(), commit.clone()));
        let commits = commits.collect();
        let input = ClusterInput {
            now: self.now,
            settings: &self.settings,
            state: &self.state,
            head: &self.head,
            commits: &commits,
            kept: &BTreeMap::new(),
            nodes: &nodes,
            reports: &reports,
        };
        let change = cluster(&input);
        let findings = check_decision(&input, &change);
        if !findings.is_empty() {
            self.fail(&format!("{findings:#?}\n{change:#?}"));
        }
        change
    }

    /// What the daemon would observe now.
    pub(crate) fn observed(&self) -> Observed {
        Observed {
            containers: self.host.containers.clone(),
            images: self.host.images.keys().cloned().collect(),
            links: self.host.links.keys().cloned().collect(),
            files: self.host.files.clone(),
            hooked: self.hooked.clone(),
            probes: self.prober.facts(&self.host, self.now),
            lanes: self.lanes.keys().cloned().collect(),
            stopping: self
                .lanes
                .iter()
                .filter(|(_, running)| matches!(running.lane.why, Why::Stop { .. }))
                .map(|(key, _)| key.clone())
                .collect(),
            failures: self.failures.clone(),
        }
    }

    /// The plan that the host would make now.
    pub(crate) fn planned(&self) -> NodePlan {
        let observed = self.observed();
        let network = network();
        let dns = DnsFacts {
            cluster: Some(network.dns),
            zone: "cluster.local".to_owned(),
            ..DnsFacts::default()
        };
        let input = NodeInput {
            now: self.now,
            node: &here(),
            facts: &nodes(&self.taints)[&here()].facts,
            settings: &self.settings,
            network: &network,
            dns: &dns,
            drain: Duration::from_secs(2),
            state: &self.state,
            commits: &self.commits,
            kept: &BTreeMap::new(),
            barred: &BTreeSet::new(),
            observed: &observed,
            memory: &self.memory,
            pins: &self.pins,
            peers: &BTreeMap::new(),
            reports: &BTreeMap::new(),
        };
        let plan = node(&input);
        let mut findings = check_plan(&input, &plan);
        findings.extend(check_observed(&observed));
        if !findings.is_empty() {
            self.fail(&format!("{findings:#?}\n{:#?}", plan.lanes));
        }
        plan
    }

    fn plan(&mut self) {
        let plan = self.planned();
        self.memory = plan.memory.clone();
        for (commit, image, pin) in plan.inherited.iter().cloned() {
            self.pins.entry(commit).or_default().insert(image, pin);
        }
        self.report = Some(plan.report.clone());
        self.prober.replace(plan.probes.clone(), self.now);
        self.wake(plan.next);
        for key in &plan.cancel {
            self.lanes.remove(key);
        }
        for lane in plan.lanes.iter().cloned() {
            self.note(format!("{:?}: {}", lane.why, describe_steps(&lane)));
            let due = self.now + self.host.duration(&lane.steps[0]);
            self.lanes
                .insert(lane.key.clone(), Running { lane, at: 0, due });
        }
        self.last_plan = Some(plan);
    }

    /// The running lane of a pod.
    pub(crate) fn lane(&self, pod: &PodUid) -> Option<&Lane> {
        self.lanes
            .get(&LaneKey::Pod(pod.clone()))
            .map(|running| &running.lane)
    }

    /// Whether any lane runs.
    pub(crate) fn is_busy(&self) -> bool {
        !self.lanes.is_empty()
    }

    pub(crate) fn note(&mut self, line: String) {
        let at = self.now.duration_since(Timestamp::UNIX_EPOCH).as_secs_f64() - 1_000_000.0;
        self.transcript.push(format!("{at:9.3} {line}"));
    }

    /// Fails the test, and prints the last events before the failure.
    pub(crate) fn fail(&self, what: &str) -> ! {
        let tail = self
            .transcript
            .iter()
            .rev()
            .take(60)
            .rev()
            .cloned()
            .collect::<Vec<_>>()
            .join("\n");
        panic!("{tail}\n{what}\nrollout: {:#?}", self.state.rollout);
    }

    fn update_extremes(&mut self) {
        let owners: BTreeSet<String> = self
            .state
            .pods
            .values()
            .map(|record| record.owner.object.name.clone())
            .collect();
        for owner in owners {
            let ready = self.ready(&owner);
            let active = self.pods(&owner).len();
            let least = self
                .extremes
                .least_ready
                .entry(owner.clone())
                .or_insert(ready);
            *least = (*least).min(ready);
            let most = self.extremes.most_active.entry(owner).or_insert(active);
            *most = (*most).max(active);
        }
    }
}

fn describe_steps(lane: &Lane) -> String {
    let steps: Vec<String> = lane
        .steps
        .iter()
        .map(|step| match step {
            Step::PullImage {
                reference, mode, ..
            } => format!("pull {reference} {mode:?}"),
            Step::StartContainer(spec) => {
                format!("start {}#{} {}", spec.name, spec.attempt, spec.image_name)
            }
            Step::StartSandbox(spec) => format!("sandbox#{}", spec.attempt),
            Step::Stop(specs) => format!("stop {}", specs.len()),
            Step::Remove(ids) => format!("remove {ids:?}"),
            other => format!("{other:?}")
                .split([' ', '('])
                .next()
                .unwrap_or_default()
                .to_owned(),
        })
        .collect();
    steps.join(", ")
}
