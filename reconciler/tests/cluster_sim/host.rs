//! One simulated host: its engine and disk, its daemon if that runs, and what it can reach.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::Ipv4Addr,
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use reconciler::{
    commit::Commits,
    name::{CommitId, ContainerId, Installation, NodeName},
    network::{HostNetwork, ServiceTable, VxlanSettings},
    node::Pins,
    observed::{ContainerState, LaneFailure, Observed, ProbeFact},
    plan::{Lane, LaneKey, ProbeKind, ProbeTask, Why},
    pod::memory::NodeMemory,
    rollout::Head,
    state::{Change, NodeFacts, NodeReport, NodeSystem, RecordFormat},
};

use crate::{
    clock::{Clock, Time, stamp},
    engine::Engine,
    prober::Prober,
    registry::Registry,
    store::Revision,
    view::View,
    world::Event,
};

#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) name: NodeName,
    pub(crate) facts: NodeFacts,
    pub(crate) network: HostNetwork,
    pub(crate) clock: Clock,
    pub(crate) engine: Engine,
    /// The registry as this host reaches it: an image may be bad on this host only.
    pub(crate) registry: Registry,
    pub(crate) powered: bool,
    /// A person removed the host; it does not come back.
    pub(crate) removed: bool,
    pub(crate) reaches_forge: bool,
    pub(crate) reaches_store: bool,
    pub(crate) reaches_peers: bool,
    // What the host keeps on its disk.
    pub(crate) view: View,
    pub(crate) memory: NodeMemory,
    pub(crate) pins: Pins,
    pub(crate) hooked: BTreeSet<ContainerId>,
    pub(crate) verified: Commits,
    pub(crate) head: Head,
    // The daemon that runs on the host.
    pub(crate) daemon: Option<Daemon>,
    /// Counts the starts of the daemon: events for an earlier start are dropped.
    pub(crate) generation: u64,
    /// Events that wait while the daemon is stopped by a signal.
    pub(crate) paused: Option<Vec<Event>>,
    /// Counts the reports that were sent.
    pub(crate) reports: u64,
}

/// A running daemon: everything that is lost when it is killed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Daemon {
    pub(crate) lanes: BTreeMap<LaneKey, Running>,
    pub(crate) failures: BTreeMap<LaneKey, LaneFailure>,
    pub(crate) prober: Prober,
    pub(crate) cycle_at: Option<Time>,
    pub(crate) watch_at: Option<Time>,
    pub(crate) lead_at: Option<Time>,
    pub(crate) report: Option<Arc<NodeReport>>,
    /// The last report that was sent.
    pub(crate) sent_report: Option<Arc<NodeReport>>,
    pub(crate) leading: Option<Leading>,
    /// Since when a host that wants to join has reached the store without a break.
    pub(crate) connected_since: Option<Time>,
    /// The content of the host's NAT table.
    pub(crate) services: Option<ServiceTable>,
}

/// A lane that runs, and the index of its current step.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) lane: Lane,
    pub(crate) at: usize,
}

/// What a daemon knows while it takes itself for the leader.
#[derive(Clone, Debug)]
pub(crate) struct Leading {
    pub(crate) epoch: Revision,
    pub(crate) since: Time,
    /// Until when the daemon may take itself for the leader, by its monotonic clock.
    pub(crate) valid_until: Time,
    /// Since when the store has answered without a break.
    pub(crate) answered_since: Time,
    /// Whether the daemon's view may miss a write: then the daemon reads the whole store before it
    /// decides.
    pub(crate) must_relist: bool,
    pub(crate) silent: BTreeMap<NodeName, Time>,
    pub(crate) lost: BTreeMap<NodeName, Time>,
    /// Transactions that are decided and not yet written.
    pub(crate) pending: VecDeque<Vec<Change>>,
    /// Whether the deadlines were extended by the time without a leader.
    pub(crate) excused: bool,
    /// The driving commit of the decision that is being written.
    pub(crate) decided_on: Option<CommitId>,
}

impl Host {
    pub(crate) fn new(index: usize, offset: SignedDuration) -> Self {
        let name = NodeName::new(format!("n{index}"));
        let number = u8::try_from(index + 1).unwrap();
        let network = HostNetwork {
            pod_range: "10.42.0.0/16".parse().unwrap(),
            pod_subnet: format!("10.42.{number}.0/24").parse().unwrap(),
            service_range: "10.96.0.0/16".parse().unwrap(),
            dns: Ipv4Addr::new(10, 96, 0, 10),
            node_address: Ipv4Addr::new(192, 0, 2, number),
            mtu: 1450,
            vxlan: VxlanSettings::default(),
        };
        let facts = NodeFacts {
            name: name.clone(),
            installation: Installation::new(format!("installation-{index}")),
            address: network.node_address,
            pod_subnet: network.pod_subnet,
            mtu: network.mtu,
            labels: BTreeMap::from([("kubernetes.io/hostname".to_owned(), name.to_string())]),
            taints: Vec::new(),
            record_format: RecordFormat::NEWEST,
            system: NodeSystem::default(),
        };
        Self {
            name,
            facts,
            network,
            clock: Clock::new(offset),
            engine: Engine::default(),
            registry: Registry::default(),
            powered: true,
            removed: false,
            reaches_forge: true,
            reaches_store: true,
            reaches_peers: true,
            view: View::default(),
            memory: NodeMemory::default(),
            pins: Pins::new(),
            hooked: BTreeSet::new(),
            verified: BTreeMap::new(),
            head: Head::Unknown,
            daemon: None,
            generation: 0,
            paused: None,
            reports: 0,
        }
    }

    /// The time on the host's wall clock.
    pub(crate) fn wall(&self, now: Time) -> Timestamp {
        self.clock.wall(stamp(now))
    }

    /// Whether the host's daemon runs and is not stopped by a signal.
    pub(crate) fn is_awake(&self) -> bool {
        self.daemon.is_some() && self.paused.is_none()
    }

    /// What the daemon observes. The engine stamps its containers by the host's wall clock, which
    /// may have jumped since.
    pub(crate) fn observed(&self, now: Time) -> Observed {
        let Some(daemon) = &self.daemon else {
            return Observed::default();
        };
        let wall = |at: Timestamp| self.clock.wall(at);
        let containers = self.engine.containers.iter().map(|(id, container)| {
            let mut container = container.clone();
            match &mut container.state {
                ContainerState::Running { started } | ContainerState::Paused { started } => {
                    *started = wall(*started);
                }
                ContainerState::Exited {
                    started, finished, ..
                } => {
                    *started = wall(*started);
                    *finished = wall(*finished);
                }
                ContainerState::Created | ContainerState::Dead => {}
            }
            (id.clone(), container)
        });
        let facts = daemon.prober.facts(&self.engine, stamp(now)).into_iter();
        Observed {
            containers: containers.collect(),
            images: self.engine.images.keys().cloned().collect(),
            links: self.engine.links.keys().cloned().collect(),
            files: self.engine.files.clone(),
            hooked: self.hooked.clone(),
            probes: facts
                .map(|(key, fact)| {
                    (
                        key,
                        ProbeFact {
                            since: wall(fact.since),
                            ..fact
                        },
                    )
                })
                .collect(),
            lanes: daemon.lanes.keys().cloned().collect(),
            stopping: daemon
                .lanes
                .iter()
                .filter(|(_, running)| matches!(running.lane.why, Why::Stop { .. }))
                .map(|(key, _)| key.clone())
                .collect(),
            failures: daemon.failures.clone(),
        }
    }

    /// Probes with their times converted to virtual time, which the simulated prober uses.
    pub(crate) fn probe_tasks(&self, tasks: Vec<ProbeTask>) -> Vec<ProbeTask> {
        let started = |task: &ProbeTask| match self.engine.containers.get(&task.container)?.state {
            ContainerState::Running { started } | ContainerState::Paused { started } => {
                Some(started)
            }
            _ => None,
        };
        tasks
            .into_iter()
            .map(|mut task| {
                task.started = started(&task).unwrap_or(task.started);
                task
            })
            .collect()
    }

    /// Whether a container's readiness probe would succeed.
    pub(crate) fn is_probed_ready(&self, container: &ContainerId, now: Time) -> bool {
        let Some(daemon) = &self.daemon else {
            return false;
        };
        let facts = daemon.prober.facts(&self.engine, stamp(now));
        facts
            .get(&(container.clone(), ProbeKind::Readiness))
            .is_some_and(|fact| fact.ok)
    }
}
