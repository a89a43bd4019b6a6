//! What one host does: lanes of steps for its pods and images, and the content of its NAT table,
//! its DNS and its set of probes.

mod addresses;
mod assignment;
mod images;
mod orphans;
mod publish;
mod pull;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use self::addresses::Addresses;
pub use self::publish::services_before;
use crate::{
    commit::{Commit, Commits, locate},
    endpoints::selects,
    fault::FaultKind,
    name::{CommitId, ContainerId, ImageId, ImageReference, NodeName, PodUid},
    network::{DnsRecords, HostNetwork, ServiceTable},
    object::{PodTemplate, Service, Workload},
    observed::{Observed, ObservedContainer},
    plan::{ImagePin, Lane, LaneKey, Next, PodIdentity, ProbeTask},
    pod::{
        environment::ServiceVariables,
        files::DnsFacts,
        lifecycle::{HostFacts, PodInput, PodOutput, live},
        memory::{NodeMemory, Origin, PodMemory},
    },
    settings::ClusterSettings,
    state::{ClusterState, NodeFacts, NodeReport, PodRecord, ReceivedTime, Refused},
    status::PodStatus,
};

/// How long this host refuses a pod before the pod is to run on another node: the commit or the
/// reports from which this host judges may be older than those from which the leader decided.
const TURNED_AWAY: Duration = Duration::from_secs(10);

/// The image that each reference of each commit resolves to on this host.
pub type Pins = BTreeMap<CommitId, BTreeMap<ImageReference, ImagePin>>;

/// The snapshot from which a host decides.
#[derive(Debug)]
pub struct NodeInput<'a> {
    /// The host's clock at the start of the cycle.
    pub now: Timestamp,
    /// The host's name as a node.
    pub node: &'a NodeName,
    /// Facts about the host, from its own configuration and kernel, never from the store.
    pub facts: &'a NodeFacts,
    /// Grace periods, deadlines and budgets from the host's own configuration.
    pub settings: &'a ClusterSettings,
    /// Addresses and ranges of the host's network.
    pub network: &'a HostNetwork,
    /// Resolvers of the host and of the cluster.
    pub dns: &'a DnsFacts,
    /// How long a stopping pod that receives traffic drains.
    pub drain: Duration,
    /// The state as the leader decided it.
    pub state: &'a ClusterState,
    /// Eligible commits of this host's own verified clone: only from these may a pod be started
    /// here.
    pub commits: &'a Commits,
    /// Commits that are not eligible while something of them runs here, by this host's own records:
    /// running pods are kept up in place, and no pod is started from these commits.
    pub kept: &'a Commits,
    /// Commits that this host judged not to be eligible here.
    pub barred: &'a BTreeSet<CommitId>,
    /// The containers, links and lanes that are on the host.
    pub observed: &'a Observed,
    /// What the host remembers from the previous cycle.
    pub memory: &'a NodeMemory,
    /// The image that each reference of each commit resolves to on this host.
    pub pins: &'a Pins,
    /// Facts about the other hosts.
    pub peers: &'a BTreeMap<NodeName, NodeFacts>,
    /// What the other hosts report about their pods.
    pub reports: &'a BTreeMap<NodeName, NodeReport>,
}

impl<'a> NodeInput<'a> {
    /// An eligible commit, or one that is kept, by its id; `None` if it is neither.
    pub(crate) fn readable(&self, id: &CommitId) -> Option<&'a Arc<Commit>> {
        self.commits.get(id).or_else(|| self.kept.get(id))
    }
}

/// What a host does next. Applying the plan leaves nothing to decide.
#[derive(Debug)]
pub struct NodePlan {
    /// The lanes to start, one for each pod or image.
    pub lanes: Vec<Lane>,
    /// Running lanes that must end now, because their result is no longer wanted.
    pub cancel: Vec<LaneKey>,
    /// The complete set of probes that must run.
    pub probes: Vec<ProbeTask>,
    /// The complete content of the NAT table; `None` keeps the published content, because the new
    /// content cannot be known.
    pub services: Option<ServiceTable>,
    /// The complete content of the DNS; `None` as for `services`.
    pub names: Option<DnsRecords>,
    /// What the host reports about itself.
    pub report: NodeReport,
    /// What the host remembers for the next cycle.
    pub memory: NodeMemory,
    /// Pins copied from an earlier commit, for workloads that did not change.
    pub inherited: Vec<(CommitId, ImageReference, ImagePin)>,
    /// When the next cycle is due.
    pub next: Next,
}

/// Decides one cycle of one host.
pub fn node(input: &NodeInput<'_>) -> NodePlan {
    let mut cycle = NodeCycle::new(input);
    cycle.pods();
    cycle.orphans();
    cycle.images();
    cycle.finish()
}

struct NodeCycle<'a> {
    input: &'a NodeInput<'a>,
    mine: Vec<&'a PodRecord>,
    refused: BTreeMap<PodUid, Refused>,
    containers: BTreeMap<&'a PodUid, Vec<(&'a ContainerId, &'a ObservedContainer)>>,
    addresses: Addresses,
    lanes: Vec<Lane>,
    cancel: Vec<LaneKey>,
    image_lanes: BTreeMap<LaneKey, Lane>,
    probes: Vec<ProbeTask>,
    report: NodeReport,
    memory: NodeMemory,
    inherited: Vec<(CommitId, ImageReference, ImagePin)>,
    next: Next,
}

impl<'a> NodeCycle<'a> {
    fn new(input: &'a NodeInput<'a>) -> Self {
        let mut containers: BTreeMap<&PodUid, Vec<_>> = BTreeMap::new();
        for (id, container) in &input.observed.containers {
            containers
                .entry(&container.identity.uid)
                .or_default()
                .push((id, container));
        }
        let mut mine: Vec<&PodRecord> = input
            .state
            .pods
            .values()
            .filter(|record| record.place.node() == Some(input.node))
            .collect();
        mine.sort_by_key(|record| record.serial);

        let rollout = &input.state.rollout;
        let received = |time, before| ReceivedTime::receive(time, before, input.now);
        let memory = NodeMemory {
            began: received(rollout.began, input.memory.began),
            clock: received(rollout.clock, input.memory.clock),
            ..NodeMemory::default()
        };
        let refused = assignment::refusals(input, &mine, |uid| containers.contains_key(uid));
        Self {
            input,
            mine,
            refused,
            containers,
            addresses: Addresses::new(input.network.pod_subnet, input.memory),
            lanes: Vec::new(),
            cancel: Vec::new(),
            image_lanes: BTreeMap::new(),
            probes: Vec::new(),
            report: NodeReport {
                clock: memory.clock,
                stock: rollout.adopted.map(|adoption| adoption.at),
                ..NodeReport::default()
            },
            memory,
            inherited: Vec::new(),
            next: Next::AwaitChange,
        }
    }

    /// The commit that the controllers follow, for its Services. If that commit is no longer
    /// eligible, its Services are kept up in place.
    fn driving(&self) -> Option<&'a Arc<Commit>> {
        let id = self.input.state.rollout.driving.as_ref()?;
        self.input.readable(id)
    }

    /// The record and the commit of a pod that was started here, from this host's own memory, for a
    /// pod whose record in the store names no eligible commit: the pod stays what it was when this
    /// host last acted on it.
    fn kept_up(&self, record: &PodRecord) -> Option<(PodRecord, &'a Commit, &'a Workload)> {
        let labels = self.labels(&record.uid);
        let labelled = || {
            let identity = labels?;
            Some(Origin {
                commit: identity.commit.clone(),
                template: identity.template.clone(),
            })
        };
        let remembered = self
            .input
            .memory
            .pods
            .get(&record.uid)
            .and_then(|memory| memory.origin.clone());
        let origin = remembered.or_else(labelled)?;
        let commit = self.input.readable(&origin.commit)?;

        let owner = labels.map_or(&record.owner, |identity| &identity.owner);
        let key = labels.map_or(&record.key, |identity| &identity.pod);
        let workload = commit.resolve(owner, &origin.template)?;
        let (owner, key) = (owner.clone(), key.clone());
        let record = PodRecord {
            owner,
            key,
            commit: origin.commit,
            template: origin.template,
            ..record.clone()
        };
        Some((record, commit, workload))
    }

    /// The identity of a pod in the labels of its containers on this host.
    fn labels(&self, uid: &PodUid) -> Option<&'a PodIdentity> {
        let (_, container) = self.containers.get(uid)?.first()?;
        Some(&container.identity)
    }

    fn pods(&mut self) {
        let host = HostFacts {
            node: self.input.node,
            address: self.input.network.node_address,
            mtu: self.input.network.mtu,
            dns: self.input.dns,
            pins: self.input.pins,
            drain: self.input.drain,
        };
        let mut variables: BTreeMap<&str, ServiceVariables<'_>> = BTreeMap::new();
        let none = BTreeMap::new();
        let services = self
            .driving()
            .map_or(&none, |commit| &commit.objects.services);
        let given = self.allocations(services);

        for decided in self.mine.clone() {
            if self.is_absent(decided) {
                self.report.gone.insert(decided.uid.clone());
                continue;
            }
            let refused = self.refused.get(&decided.uid).cloned();
            if let (None, Some(why)) = (&decided.stop, &refused) {
                self.refuse(decided, why);
                continue;
            }

            // A stop record that this host refuses does not count.
            let kept = refused.map(|_| PodRecord {
                stop: None,
                ..decided.clone()
            });
            let record = kept.as_ref().unwrap_or(decided);
            // A pod keeps the origin and the names with which this host started it, even if its
            // record has changed since.
            let remembered = self
                .input
                .memory
                .pods
                .get(&record.uid)
                .and_then(|memory| memory.origin.as_ref());
            let rewritten = remembered.is_some_and(|origin| origin.template != record.template)
                || self
                    .labels(&record.uid)
                    .is_some_and(|labels| labels.pod != record.key);
            let located = if rewritten {
                None
            } else {
                locate(self.input.commits, record)
            };
            let own = if located.is_none() {
                self.kept_up(record)
            } else {
                None
            };
            let (record, commit, workload) = match (&own, located) {
                (Some((own, commit, workload)), _) => (own, Some(*commit), Some(*workload)),
                (None, Some((commit, workload))) => (record, Some(commit), Some(workload)),
                (None, None) => (
                    record,
                    self.input.commits.get(&record.commit).map(AsRef::as_ref),
                    None,
                ),
            };

            // The Services that are driven now, whichever commit the pod belongs to: otherwise the
            // first pod of a namespace would choose the commit for all others.
            let namespace = workload.map_or(&decided.key.namespace, |workload| {
                &workload.key.object.namespace
            });
            let services = variables
                .entry(namespace)
                .or_insert_with(|| ServiceVariables::new(namespace, services, &given));

            let known = self.input.memory.pods.get(&record.uid).cloned();
            let own_network = workload.is_none_or(|workload| !workload.template.spec.host_network);
            let Some(memory) = self.remember(record, known, own_network) else {
                continue;
            };
            // Computed for stopping pods only, because only a drain needs it: computing it for
            // thousands of running pods is expensive.
            let in_service = record.stop.is_some()
                && workload
                    .is_some_and(|workload| self.is_in_service(record, &workload.template, commit));

            let output = live(&PodInput {
                now: self.input.now,
                host: &host,
                record,
                commit,
                workload,
                services,
                in_service,
                containers: self.containers.get(&record.uid).map_or(&[], Vec::as_slice),
                observed: self.input.observed,
                memory,
            });
            self.take(record, output);
        }
    }

    /// Whether a pod comes from an adopted copy while nothing of it is on this host: it may have
    /// been stopped after the copy was written.
    fn is_absent(&self, record: &PodRecord) -> bool {
        let begun = self.containers.contains_key(&record.uid)
            || self
                .input
                .memory
                .pods
                .get(&record.uid)
                .is_some_and(|memory| memory.started.is_some());
        let adopted = self.input.state.rollout.adopted;
        let of_copy = adopted.is_some_and(|adoption| record.serial <= adoption.serial);
        of_copy && record.stop.is_none() && !begun
    }

    /// Reports a pod that this host does not start, with the reason.
    fn refuse(&mut self, record: &PodRecord, why: &Refused) {
        let mut status = PodStatus::pending();
        status.reason = Some("AssignmentRefused".to_owned());
        status.message = Some(why.to_string());
        status.fault = Some(FaultKind::Other);
        self.report.pods.insert(record.uid.clone(), status);

        let now = self.input.now;
        let mut memory = self
            .input
            .memory
            .pods
            .get(&record.uid)
            .cloned()
            .unwrap_or_default();
        // A time in the future comes from before the clock was put back.
        let since = memory.refused.map_or(now, |since| since.min(now));
        memory.refused = Some(since);
        self.memory.pods.insert(record.uid.clone(), memory);

        if why.is_for_this_node() {
            let wait = TURNED_AWAY
                .saturating_sub(Duration::try_from(now.duration_since(since)).unwrap_or_default());
            if wait.is_zero() {
                self.report.turned_away.insert(record.uid.clone());
            } else {
                self.next = self.next.sooner(Next::After(wait));
            }
        }
    }

    /// Whether a pod has a stop record that this host accepts.
    fn stops(&self, record: &PodRecord) -> bool {
        record.stop.is_some() && !self.refused.contains_key(&record.uid)
    }

    /// The memory of a pod, with an address assigned if the pod is new; `None`, with a status that
    /// gives the reason, if no address is left.
    fn remember(
        &mut self,
        record: &PodRecord,
        known: Option<PodMemory>,
        own_network: bool,
    ) -> Option<PodMemory> {
        let mut memory = PodMemory {
            refused: None,
            ..known.unwrap_or_default()
        };
        if memory.address.is_none() && own_network && record.stop.is_none() {
            memory.address = self.addresses.take();
            if memory.address.is_none() {
                let mut status = PodStatus::pending();
                let subnet = self.input.network.pod_subnet;
                status.message = Some(format!(
                    "no address is left in {subnet}, this host's pod subnet"
                ));
                status.fault = Some(FaultKind::Network);
                self.report.pods.insert(record.uid.clone(), status);
                return None;
            }
        }
        Some(memory)
    }

    /// Whether a Service selects the pod, now or in the pod's own commit: other hosts may still
    /// follow that commit.
    fn is_in_service(
        &self,
        record: &PodRecord,
        template: &PodTemplate,
        own: Option<&Commit>,
    ) -> bool {
        let Some(driving) = self.driving() else {
            return false;
        };
        let own = own.map(|commit| &commit.objects.services);
        driving.objects.services.iter().any(|(key, service)| {
            let was = own.and_then(|services| services.get(key));
            let selects = |service: &Service| selects(service, &template.meta.labels);
            key.namespace == record.key.namespace && (selects(service) || was.is_some_and(selects))
        })
    }

    fn take(&mut self, record: &PodRecord, output: PodOutput) {
        let key = LaneKey::Pod(record.uid.clone());
        let observed = self.input.observed;
        if record.stop.is_some()
            && observed.lanes.contains(&key)
            && !observed.stopping.contains(&key)
        {
            self.cancel.push(key);
        }

        self.lanes.extend(output.lane);
        for need in output.images {
            self.pull(need);
        }
        self.probes.extend(output.probes);
        self.next = self.next.sooner(output.next);

        match output.memory {
            Some(memory) => {
                self.memory.pods.insert(record.uid.clone(), memory);
                self.report.pods.insert(record.uid.clone(), output.status);
            }
            None => {
                self.report.gone.insert(record.uid.clone());
            }
        }
    }

    fn finish(mut self) -> NodePlan {
        self.report.refused = self.refused.clone();
        let (services, names) = self.publish().unzip();
        let mut lanes = self.lanes;
        lanes.extend(self.image_lanes.into_values());
        NodePlan {
            lanes,
            cancel: self.cancel,
            probes: self.probes,
            services,
            names,
            report: self.report,
            memory: self.memory,
            inherited: self.inherited,
            next: self.next,
        }
    }
}

/// Images that must not be removed: those of running pods, and those of every commit to which a
/// rollback may go.
pub fn images_in_use(
    observed: &Observed,
    pins: &Pins,
    keep: &BTreeSet<CommitId>,
) -> BTreeSet<ImageId> {
    let running = observed
        .containers
        .values()
        .map(|container| container.image.clone());
    let pinned = pins
        .iter()
        .filter(|(commit, _)| keep.contains(*commit))
        .flat_map(|(_, pins)| pins.values().map(|pin| pin.id.clone()));
    running.chain(pinned).collect()
}
