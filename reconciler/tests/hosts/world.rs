//! A cluster whose hosts carry out all decisions at once, and report so.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use reconciler::{
    cluster::{ClusterInput, Note, cluster},
    commit::{Commit, Commits},
    name::{CommitId, Installation, NodeName, PodUid},
    plan::PodIdentity,
    pod::memory::NodeMemory,
    rollout::Head,
    settings::{ClusterSettings, RolloutSettings, ServiceRanges},
    state::{
        ClusterState, KnownNode, NodeFacts, NodeLife, NodeReport, NodeSystem, PodRecord,
        Preparation, ReceivedTime, RecordFormat, Refused, StopReason,
    },
    status::{ContainerPhase, ContainerStatus, PodPhase, PodStatus, Termination},
};

use crate::{build::commit_id, invariants::decision::check_decision, pulls::Images};

pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) settings: ClusterSettings,
    pub(crate) state: ClusterState,
    pub(crate) head: Head,
    pub(crate) commits: Commits,
    /// Commits that hosts judged not to be eligible.
    pub(crate) barred: BTreeSet<CommitId>,
    /// Commits that are not eligible any more, and whose pods run.
    pub(crate) kept: Commits,
    pub(crate) nodes: BTreeMap<NodeName, KnownNode>,
    pub(crate) reports: BTreeMap<NodeName, NodeReport>,
    pub(crate) notes: Vec<Note>,
    /// Nodes on which new pods of a commit crash.
    pub(crate) broken: BTreeSet<(NodeName, CommitId)>,
    /// The preparation that nodes report for the target, if it is not ready.
    pub(crate) prepared: BTreeMap<NodeName, Preparation>,
    /// If set, hosts pull images by their own plans.
    pub(crate) images: Option<Images>,
    /// Nodes that cannot fetch the target.
    pub(crate) without_commit: BTreeSet<NodeName>,
    /// The memory of a host whose plan a test makes.
    pub(crate) memory: NodeMemory,
    /// Assignments and stops that hosts refuse.
    pub(crate) refused: BTreeMap<PodUid, Refused>,
    /// Pods that run on nodes without a record in the state.
    pub(crate) running: BTreeMap<NodeName, Vec<PodIdentity>>,
    /// Pods of which nothing is on their nodes.
    pub(crate) absent: BTreeSet<PodUid>,
    /// Nodes that send no new report.
    pub(crate) without_new_reports: BTreeSet<NodeName>,
    /// All stop records that were made.
    pub(crate) stops: BTreeMap<PodUid, StopReason>,
    /// All nodes that were recorded as faulty.
    pub(crate) faulty: BTreeSet<NodeName>,
    /// The fewest available pods of each owner, and its most active pods.
    pub(crate) bounds: BTreeMap<String, (usize, usize)>,
    /// Owners whose pods are not ready.
    pub(crate) unready: BTreeSet<String>,
    /// The fewest available pods of all owners together.
    pub(crate) fewest_available: usize,
    /// Whether pods of two owners were on one node at the same time.
    pub(crate) shared_node: bool,
}

pub(crate) fn name(node: &str) -> NodeName {
    NodeName::new(node)
}

pub(crate) fn settings() -> ClusterSettings {
    ClusterSettings {
        rollout: RolloutSettings::default(),
        ranges: ServiceRanges {
            addresses: "10.96.0.0/16".parse().unwrap(),
            dns: Ipv4Addr::new(10, 96, 0, 10),
            node_ports: 30000..=32767,
        },
        max_pods: 250,
    }
}

pub(crate) fn facts(number: u8, node: &str) -> NodeFacts {
    NodeFacts {
        name: name(node),
        installation: Installation::new(node),
        address: Ipv4Addr::new(192, 0, 2, number),
        pod_subnet: format!("10.42.{number}.0/24").parse().unwrap(),
        mtu: 1500,
        labels: BTreeMap::from([("kubernetes.io/hostname".to_owned(), node.to_owned())]),
        taints: Vec::new(),
        record_format: RecordFormat::NEWEST,
        system: NodeSystem::default(),
    }
}

impl World {
    pub(crate) fn new(nodes: &[&str]) -> Self {
        let mut world = Self {
            now: Timestamp::UNIX_EPOCH + Duration::from_secs(1_000_000),
            settings: settings(),
            state: ClusterState {
                cluster: "test".to_owned(),
                ..ClusterState::default()
            },
            head: Head::Unknown,
            commits: BTreeMap::new(),
            barred: BTreeSet::new(),
            kept: BTreeMap::new(),
            nodes: BTreeMap::new(),
            reports: BTreeMap::new(),
            notes: Vec::new(),
            broken: BTreeSet::new(),
            prepared: BTreeMap::new(),
            images: None,
            without_commit: BTreeSet::new(),
            memory: NodeMemory::default(),
            refused: BTreeMap::new(),
            running: BTreeMap::new(),
            absent: BTreeSet::new(),
            without_new_reports: BTreeSet::new(),
            stops: BTreeMap::new(),
            faulty: BTreeSet::new(),
            bounds: BTreeMap::new(),
            unready: BTreeSet::new(),
            fewest_available: usize::MAX,
            shared_node: false,
        };
        nodes.iter().for_each(|node| world.join(node));
        world
    }

    pub(crate) fn join(&mut self, node: &str) {
        let number = u8::try_from(self.nodes.len() + 1).unwrap();
        let known = KnownNode {
            facts: facts(number, node),
            life: NodeLife::Ready,
        };
        self.nodes.insert(name(node), known);
    }

    pub(crate) fn set_life(&mut self, node: &str, life: NodeLife) {
        self.nodes.get_mut(&name(node)).unwrap().life = life;
    }

    pub(crate) fn break_on(&mut self, node: &str, commit: &str) {
        self.broken.insert((name(node), commit_id(commit)));
    }

    pub(crate) fn push(&mut self, commit: Arc<Commit>) {
        self.head = Head::Accepted(commit.id.clone());
        self.commits.insert(commit.id.clone(), commit);
    }

    /// Makes a commit not eligible any more.
    pub(crate) fn keep_only(&mut self, commit: &str) {
        let (id, commit) = self.commits.remove_entry(&commit_id(commit)).unwrap();
        self.barred.insert(id.clone());
        self.kept.insert(id, commit);
    }

    /// Runs for a number of seconds.
    pub(crate) fn run(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.run_second();
        }
    }

    pub(crate) fn run_second(&mut self) {
        self.now += Duration::from_secs(1);
        for round in 0.. {
            assert!(
                round < 50,
                "the decisions do not settle: {:#?}",
                self.state.rollout
            );
            self.report();
            self.pull();
            let input = ClusterInput {
                now: self.now,
                settings: &self.settings,
                state: &self.state,
                head: &self.head,
                commits: &self.commits,
                kept: &self.kept,
                nodes: &self.nodes,
                reports: &self.reports,
            };
            let change = cluster(&input);
            let findings = check_decision(&input, &change);
            assert!(findings.is_empty(), "{findings:#?}\n{change:#?}");
            self.notes = change.notes;
            if change.changes.is_empty() {
                return;
            }
            self.state.apply(change.changes);
            self.faulty
                .extend(self.state.rollout.faulty.keys().cloned());
            for record in self.state.pods.values() {
                if let Some(stop) = &record.stop {
                    self.stops.insert(record.uid.clone(), stop.reason);
                }
            }
            self.measure();
        }
    }

    fn measure(&mut self) {
        let mut now: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for record in self
            .state
            .pods
            .values()
            .filter(|record| record.stop.is_none())
        {
            let counts = now.entry(record.owner.object.name.clone()).or_default();
            counts.0 += usize::from(self.is_ready(&record.uid));
            counts.1 += 1;
        }
        self.fewest_available = self
            .fewest_available
            .min(now.values().map(|(available, _)| available).sum());
        let owners_on_nodes =
            |record: &PodRecord| Some((record.place.node()?.clone(), record.owner.clone()));
        let owners_on_nodes: BTreeSet<_> = self
            .state
            .pods
            .values()
            .filter_map(owners_on_nodes)
            .collect();
        let nodes: BTreeSet<_> = owners_on_nodes.iter().map(|(node, _)| node).collect();
        self.shared_node |= owners_on_nodes.len() > nodes.len();
        for (owner, (available, active)) in now {
            let bounds = self.bounds.entry(owner).or_insert((available, active));
            *bounds = (bounds.0.min(available), bounds.1.max(active));
        }
    }

    fn is_ready(&self, uid: &PodUid) -> bool {
        let mut reports = self.reports.values();
        reports.any(|report| {
            report
                .pods
                .get(uid)
                .is_some_and(|status| status.ready.is_some())
        })
    }

    fn report(&mut self) {
        let rollout = &self.state.rollout;
        for (node, known) in &self.nodes {
            if known.life.is_out()
                || known.life == NodeLife::Away
                || self.without_new_reports.contains(node)
            {
                continue;
            }
            let report = self.reports.entry(node.clone()).or_default();
            report.gone.clear();
            report.refused.clear();
            report.turned_away.clear();
            report.stock = rollout.adopted.map(|adoption| adoption.at);
            let stops = |uid: &PodUid| {
                self.state
                    .pods
                    .get(uid)
                    .is_some_and(|record| record.stop.is_some())
            };
            let here = self.running.entry(node.clone()).or_default();
            here.retain(|identity| !stops(&identity.uid));
            let unrecorded = here
                .iter()
                .filter(|identity| !self.state.pods.contains_key(&identity.uid));
            report.orphans = unrecorded.cloned().collect();
            report.clock = ReceivedTime::receive(rollout.clock, report.clock, self.now);
            report
                .pods
                .retain(|uid, _| self.state.pods.contains_key(uid));
            for record in self
                .state
                .pods
                .values()
                .filter(|record| record.place.node() == Some(node))
            {
                let absent = rollout.adopted.is_some_and(|adoption| {
                    record.serial <= adoption.serial && self.absent.contains(&record.uid)
                });
                let reason = record.stop.as_ref().map(|stop| stop.reason);
                let refused = self
                    .refused
                    .get(&record.uid)
                    .filter(|why| reason == why.is_of_a_stop().then_some(StopReason::OwnerRemoved));
                report
                    .refused
                    .extend(refused.map(|why| (record.uid.clone(), why.clone())));
                if refused.is_some_and(|why| !why.is_of_a_stop()) {
                    report.pods.insert(record.uid.clone(), PodStatus::pending());
                    report.turned_away.insert(record.uid.clone());
                    continue;
                }
                if reason.is_some() && refused.is_none() || absent {
                    report.gone.insert(record.uid.clone());
                    report.pods.remove(&record.uid);
                    continue;
                }
                let made_by = self.commits.get(&record.commit);
                let broken = made_by.is_some_and(|commit| {
                    self.broken.iter().any(|(on, id)| {
                        let template = self.commits.get(id).and_then(|commit| {
                            commit
                                .objects
                                .workloads
                                .get(&record.owner)
                                .map(|owner| &owner.template.hash)
                        });
                        on == node && template == Some(&record.template) && commit.id >= *id
                    })
                });
                let unready = self.unready.contains(&record.owner.object.name);
                let status = match unready || self.absent.contains(&record.uid) {
                    true => PodStatus::pending(),
                    false
                        if self
                            .images
                            .as_ref()
                            .is_some_and(|images| !images.has(node, record, &self.commits)) =>
                    {
                        PodStatus::pending()
                    }
                    false if broken => crashing(self.now),
                    false => running(self.now),
                };
                let entry = report
                    .pods
                    .entry(record.uid.clone())
                    .or_insert_with(|| status.clone());
                if entry.ready.is_some() == status.ready.is_none() {
                    *entry = status;
                }
                let since = entry
                    .ready
                    .map(|ready| Duration::try_from(self.now.duration_since(ready)));
                entry.ready_for = since.transpose().unwrap().unwrap_or_default();
            }
            if self.images.is_some() {
                continue;
            }
            if let Some(target) = &rollout.target
                && !self.without_commit.contains(node)
            {
                let prepared = self
                    .prepared
                    .get(node)
                    .cloned()
                    .unwrap_or(Preparation::Ready);
                report.prepared.insert(target.clone(), prepared);
            }
        }
    }

    /// Hosts pull images by their plans, and report the result.
    fn pull(&mut self) {
        let Some(mut images) = self.images.take() else {
            return;
        };
        let alive = self.nodes.iter().filter(|(_, known)| known.life.is_ready());
        for node in alive.map(|(node, _)| node.clone()).collect::<Vec<_>>() {
            let (prepared, share) = images.pull(self, &node);
            let report = self.reports.entry(node).or_default();
            (report.prepared, report.share) = (prepared, share);
        }
        self.images = Some(images);
    }

    /// The identity that is written on the containers of a pod.
    pub(crate) fn identity(record: &PodRecord) -> PodIdentity {
        PodIdentity {
            uid: record.uid.clone(),
            pod: record.key.clone(),
            owner: record.owner.clone(),
            commit: record.commit.clone(),
            template: record.template.clone(),
        }
    }

    /// Replaces the state by an older one without these pods, which keep running.
    pub(crate) fn forget_records(&mut self, uids: &[PodUid]) {
        for uid in uids {
            let Some(record) = self.state.pods.remove(uid) else {
                continue;
            };
            let Some(node) = record.place.node() else {
                continue;
            };
            self.running
                .entry(node.clone())
                .or_default()
                .push(Self::identity(&record));
        }
    }

    /// The pods of an owner without a stop record, oldest first.
    pub(crate) fn pods(&self, owner: &str) -> Vec<&PodRecord> {
        let selected =
            |record: &&PodRecord| record.owner.object.name == owner && record.stop.is_none();
        let mut pods: Vec<&PodRecord> = self.state.pods.values().filter(selected).collect();
        pods.sort_by_key(|record| record.serial);
        pods
    }

    /// The nodes of an owner's pods, sorted.
    pub(crate) fn nodes_of(&self, owner: &str) -> Vec<&str> {
        let mut nodes: Vec<&str> = self
            .pods(owner)
            .iter()
            .map(|record| record.place.node().map_or("nowhere", NodeName::as_str))
            .collect();
        nodes.sort_unstable();
        nodes
    }

    /// The pod of an owner on a node.
    pub(crate) fn on(&self, owner: &str, node: &str) -> Option<&PodRecord> {
        self.pods(owner)
            .into_iter()
            .find(|record| record.place.node() == Some(&name(node)))
    }

    #[track_caller]
    pub(crate) fn expect_healthy(&self, commit: &str) {
        let rollout = &self.state.rollout;
        assert_eq!(rollout.phase.as_str(), "Healthy", "{rollout:#?}");
        assert_eq!(rollout.target, Some(commit_id(commit)), "{rollout:#?}");
    }
}

pub(crate) fn running(now: Timestamp) -> PodStatus {
    PodStatus {
        phase: PodPhase::Running,
        ready: Some(now),
        ..PodStatus::pending()
    }
}

fn crashing(now: Timestamp) -> PodStatus {
    let ended = Termination {
        code: 1,
        reason: "Error".to_owned(),
        message: String::new(),
        started: now,
        finished: now,
    };
    let container = ContainerStatus {
        name: "main".to_owned(),
        image: String::new(),
        image_id: None,
        container_id: None,
        ready: false,
        started: false,
        restarts: 3,
        state: ContainerPhase::Terminated(ended),
        last: None,
    };
    PodStatus {
        phase: PodPhase::Running,
        containers: vec![container],
        ..PodStatus::pending()
    }
}
