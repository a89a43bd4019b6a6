//! Prints the CPU time of a cycle without changes: 1,000 workloads, 3,000 pods, all on one node.
//!
//! `cargo run --release -p reconciler --example idle_cycle [WORKLOADS] [PODS-EACH] [CYCLES]`
#![expect(clippy::print_stdout, reason = "the program prints its measurement")]
#![expect(
    clippy::disallowed_methods,
    reason = "the program measures time, which the core must not read"
)]

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc, time::Duration};

use ipnet::Ipv4Net;
use jiff::Timestamp;
use reconciler::{
    cluster::{ClusterInput, cluster},
    commit::{Commit, Commits},
    digest::sha256_hex,
    name::{
        CommitId, ContainerId, ImageId, ImageReference, Installation, NodeName, ObjectKey,
        TemplateHash, WorkloadKey, WorkloadKind,
    },
    network::{HostNetwork, VxlanSettings},
    node::{NodeInput, NodePlan, Pins, node},
    object::{
        ConfigMap, ConfigSource, Container, Control, DeploymentStrategy, Handler, IntOrPercent,
        ManifestPosition, Meta, Objects, PodSpec, PodTemplate, Probe, Protocol, Selector, Service,
        ServiceKind, ServicePort, TargetPort, VolumeSource, Workload,
    },
    observed::{ContainerState, Observed, ObservedContainer, ProbeFact},
    plan::{ImagePin, Next, ProbeKind, Role, Step},
    pod::{
        files::{DnsFacts, config_digest},
        memory::NodeMemory,
    },
    rollout::Head,
    settings::{ClusterSettings, RolloutSettings, ServiceRanges},
    state::{ClusterState, KnownNode, NodeFacts, NodeLife, NodeReport, NodeSystem, RecordFormat},
};

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .map(|text| text.parse::<u32>().ok());
    let mut argument = |default| arguments.next().flatten().unwrap_or(default);
    let (workloads, replicas, cycles) = (argument(1000), argument(3), argument(20));
    let mut host = Host::new(workloads, replicas);
    host.converge();
    let (mut deciding, mut planning) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..cycles {
        let start = cpu_time();
        let changes = host.decide();
        let decided = cpu_time();
        let plan = host.plan();
        deciding += decided - start;
        planning += cpu_time() - decided;
        assert!(
            changes == 0 && plan.lanes.is_empty(),
            "the measured cycle was not idle"
        );
    }
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0 / f64::from(cycles.max(1));
    println!(
        "{workloads} workloads, {} pods: cluster {:.1} ms, node {:.1} ms, together {:.1} ms a cycle",
        workloads * replicas,
        milliseconds(deciding),
        milliseconds(planning),
        milliseconds(deciding + planning),
    );
}

/// The processor time of this thread. Unlike the time of the clock it does not contain other work
/// on the machine.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text
        .split_whitespace()
        .next()
        .and_then(|number| number.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or_default())
}

/// A host on which every step succeeds at once.
struct Host {
    now: Timestamp,
    name: NodeName,
    settings: ClusterSettings,
    network: HostNetwork,
    dns: DnsFacts,
    head: Head,
    commits: Commits,
    nodes: BTreeMap<NodeName, KnownNode>,
    peers: BTreeMap<NodeName, NodeFacts>,
    state: ClusterState,
    reports: BTreeMap<NodeName, NodeReport>,
    observed: Observed,
    memory: NodeMemory,
    pins: Pins,
}

impl Host {
    fn new(workloads: u32, replicas: u32) -> Self {
        let name = NodeName::new("one");
        let address = Ipv4Addr::new(192, 0, 2, 1);
        let dns = Ipv4Addr::new(10, 96, 0, 10);
        let range = |address: [u8; 4]| Ipv4Net::new_assert(Ipv4Addr::from(address), 16);
        let commit = commit(workloads, replicas);
        Self {
            now: Timestamp::UNIX_EPOCH + Duration::from_secs(1_000_000),
            settings: ClusterSettings {
                rollout: RolloutSettings::default(),
                ranges: ServiceRanges {
                    addresses: range([10, 96, 0, 0]),
                    dns,
                    node_ports: 30000..=32767,
                },
                max_pods: usize::MAX,
            },
            network: HostNetwork {
                pod_range: range([10, 42, 0, 0]),
                pod_subnet: range([10, 42, 0, 0]),
                service_range: range([10, 96, 0, 0]),
                dns,
                node_address: address,
                mtu: 1500,
                vxlan: VxlanSettings::default(),
            },
            dns: DnsFacts {
                cluster: Some(dns),
                zone: "cluster.local".to_owned(),
                ..DnsFacts::default()
            },
            head: Head::Accepted(commit.id.clone()),
            commits: BTreeMap::from([(commit.id.clone(), Arc::new(commit))]),
            nodes: BTreeMap::from([(
                name.clone(),
                KnownNode {
                    facts: NodeFacts {
                        name: name.clone(),
                        installation: Installation::new("one"),
                        address,
                        pod_subnet: range([10, 42, 0, 0]),
                        mtu: 1500,
                        labels: BTreeMap::new(),
                        taints: Vec::new(),
                        record_format: RecordFormat::NEWEST,
                        system: NodeSystem::default(),
                    },
                    life: NodeLife::Ready,
                },
            )]),
            peers: BTreeMap::new(),
            name,
            state: ClusterState {
                cluster: "bench".to_owned(),
                ..ClusterState::default()
            },
            reports: BTreeMap::new(),
            observed: Observed::default(),
            memory: NodeMemory::default(),
            pins: Pins::new(),
        }
    }

    fn decide(&mut self) -> usize {
        let change = cluster(&ClusterInput {
            now: self.now,
            settings: &self.settings,
            state: &self.state,
            head: &self.head,
            commits: &self.commits,
            kept: &BTreeMap::new(),
            nodes: &self.nodes,
            reports: &self.reports,
        });
        let changes = change.changes.len();
        self.state.apply(change.changes);
        changes
    }

    fn plan(&mut self) -> NodePlan {
        let mut plan = node(&NodeInput {
            now: self.now,
            node: &self.name,
            facts: &self.nodes[&self.name].facts,
            settings: &self.settings,
            network: &self.network,
            dns: &self.dns,
            drain: Duration::from_secs(2),
            state: &self.state,
            commits: &self.commits,
            kept: &BTreeMap::new(),
            barred: &std::collections::BTreeSet::new(),
            observed: &self.observed,
            memory: &self.memory,
            pins: &self.pins,
            peers: &self.peers,
            reports: &self.reports,
        });
        self.memory = std::mem::take(&mut plan.memory);
        self.reports
            .insert(self.name.clone(), std::mem::take(&mut plan.report));
        plan
    }

    /// Runs cycles until the commit has soaked and nothing is left to do.
    fn converge(&mut self) {
        let mut idle_cycles = 0;
        while idle_cycles < 3 {
            let changes = self.decide();
            let plan = self.plan();
            let idle = changes == 0 && plan.lanes.is_empty();
            idle_cycles = if idle && plan.next == Next::AwaitChange {
                idle_cycles + 1
            } else {
                0
            };
            for step in plan.lanes.iter().flat_map(|lane| &lane.steps) {
                self.apply(step);
            }
            self.now += Duration::from_secs(5);
        }
    }

    fn apply(&mut self, step: &Step) {
        let running = ContainerState::Running { started: self.now };
        match step {
            Step::PullImage { commit, image, .. } => {
                let id = ImageId::new(format!("sha256:{image}"));
                self.observed.images.insert(id.clone());
                let pin = ImagePin {
                    id,
                    digest: None,
                    warning: None,
                };
                self.pins
                    .entry(commit.clone())
                    .or_default()
                    .insert(image.clone(), pin);
            }
            Step::PrepareFiles(files) => {
                self.observed
                    .files
                    .insert(files.pod.clone(), config_digest(files));
            }
            Step::StartSandbox(spec) => self.start(ObservedContainer {
                identity: spec.identity.clone(),
                role: Role::Sandbox,
                name: String::new(),
                attempt: spec.attempt,
                image: ImageId::new("pause"),
                state: running,
            }),
            Step::Connect { link, .. } => {
                self.observed.links.insert(link.name.clone());
            }
            Step::StartContainer(spec) => self.start(ObservedContainer {
                identity: spec.identity.clone(),
                role: spec.role,
                name: spec.name.clone(),
                attempt: spec.attempt,
                image: spec.image.clone(),
                state: running,
            }),
            _ => {}
        }
    }

    fn start(&mut self, container: ObservedContainer) {
        let id = ContainerId::new(sha256_hex(&self.observed.containers.len().to_be_bytes()));
        let fact = ProbeFact {
            ok: true,
            since: self.now,
            message: String::new(),
        };
        for kind in [ProbeKind::Readiness, ProbeKind::Liveness] {
            self.observed
                .probes
                .insert((id.clone(), kind), fact.clone());
        }
        self.observed.containers.insert(id, container);
    }
}

/// Deployments with probes and a ConfigMap, each behind a Service.
fn commit(workloads: u32, replicas: u32) -> Commit {
    let mut objects = Objects::default();
    for number in 0..workloads {
        let name = format!("web{number}");
        let key = ObjectKey::new("default", &name);
        let labels = BTreeMap::from([("app".to_owned(), name.clone())]);
        let workload = deployment(&name, replicas, &labels);
        objects.workloads.insert(workload.key.clone(), workload);
        objects.services.insert(key.clone(), service(labels));
        let data = BTreeMap::from([("file".to_owned(), b"content".to_vec())]);
        objects.config_maps.insert(
            key,
            ConfigMap {
                meta: Meta::default(),
                data,
            },
        );
    }
    Commit {
        id: CommitId::from([0x12; 20]),
        subject: "All of it".to_owned(),
        signer: "deployer@example.com".to_owned(),
        time: Timestamp::UNIX_EPOCH,
        allow_deletions: false,
        objects,
        warnings: Vec::new(),
    }
}

fn deployment(name: &str, replicas: u32, labels: &BTreeMap<String, String>) -> Workload {
    let probe = Probe {
        handler: Handler::TcpSocket {
            host: None,
            port: 80,
        },
        initial_delay: Duration::ZERO,
        period: Duration::from_secs(10),
        timeout: Duration::from_secs(1),
        success_threshold: 1,
        failure_threshold: 3,
        termination_grace: None,
    };
    let source = ConfigSource::ConfigMap(name.to_owned());
    let volume = VolumeSource::Config {
        source,
        items: Vec::new(),
        mode: 0o644,
        optional: false,
    };
    let container = Container {
        name: "main".to_owned(),
        image: ImageReference::new("web:1"),
        readiness: Some(probe.clone()),
        liveness: Some(probe),
        ..Container::default()
    };
    Workload {
        key: WorkloadKey {
            kind: WorkloadKind::Deployment,
            object: ObjectKey::new("default", name),
        },
        meta: Meta::default(),
        template: PodTemplate {
            meta: Meta {
                labels: labels.clone(),
                annotations: BTreeMap::new(),
            },
            spec: PodSpec {
                termination_grace: Duration::from_secs(30),
                containers: vec![container],
                volumes: BTreeMap::from([("config".to_owned(), volume)]),
                ..PodSpec::default()
            },
            hash: TemplateHash::new("1-0123456789abcdef"),
        },
        control: Control::Deployment {
            replicas,
            min_ready: Duration::ZERO,
            selector: Selector {
                labels: labels.clone(),
                expressions: Vec::new(),
            },
            strategy: DeploymentStrategy::RollingUpdate {
                max_surge: IntOrPercent::Percent(25),
                max_unavailable: IntOrPercent::Percent(25),
            },
            progress_deadline: Some(Duration::from_secs(600)),
            paused: false,
        },
        position: ManifestPosition {
            file: "all.yaml".to_owned(),
            line: 1,
        },
    }
}

fn service(selector: BTreeMap<String, String>) -> Service {
    Service {
        meta: Meta::default(),
        kind: ServiceKind::ClusterIp { address: None },
        selector,
        ports: vec![ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: 80,
            target: TargetPort::Number(80),
            node_port: None,
        }],
        publish_not_ready: false,
        client_ip_affinity: None,
    }
}
