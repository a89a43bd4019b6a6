//! Prints how many pods a second are placed on clusters of several sizes, and how long it takes to
//! replace the pods of a lost node.
//!
//! `cargo run --release -p reconciler --example placement [NODES...]`
#![expect(clippy::print_stdout, reason = "the program prints its measurements")]
#![expect(
    clippy::disallowed_methods,
    reason = "the program measures time, which the core must not read"
)]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use reconciler::{
    digest::{pod_uid, sha256_hex},
    name::{CommitId, NodeName, ObjectKey, TemplateHash, WorkloadKey, WorkloadKind},
    object::{
        Container, Control, ManifestPosition, Meta, PodSelector, PodSpec, PodTemplate, PodTerm,
        Resources as Asked, Selector, SpreadConstraint, Taint, TaintEffect, Toleration, Workload,
    },
    placement::{Candidate, Placer, ResourceAmounts},
    state::{PodPlace, PodRecord},
};

/// The number of pods for each node, and of each workload.
const PODS: usize = 30;
/// The printed times are the mean of this many rounds: the clock of a thread's processor time is
/// coarse.
const ROUNDS: u32 = 10;

fn main() {
    let sizes: Vec<usize> = std::env::args()
        .skip(1)
        .filter_map(|text| text.parse().ok())
        .collect();
    let sizes = if sizes.is_empty() {
        vec![500, 1000, 2000, 5000]
    } else {
        sizes
    };
    let namespaces = BTreeMap::new();
    for mix in [Mix::Plain, Mix::Mixed] {
        for nodes in &sizes {
            let cluster = Cluster::new(*nodes, mix);
            let rounds: Vec<Placed> = (0..ROUNDS)
                .map(|_| cluster.place_all(&namespaces))
                .collect();
            let total_time: Duration = rounds.iter().map(|round| round.time).sum();
            let Some(placed) = rounds.into_iter().next() else {
                return;
            };
            let lost: Vec<Lost> = (0..ROUNDS)
                .map(|_| cluster.lose_node(&namespaces, &placed.records))
                .collect();
            let counting: Duration = lost.iter().map(|round| round.counting).sum();
            let placing: Duration = lost.iter().map(|round| round.placing).sum();
            println!(
                "{}: {nodes} nodes, {} pods: {:.0} pods a second; {} placed nowhere; one node lost: {:.1} ms for its \
                 {} pods, of that {:.1} ms to count the others",
                mix.name(),
                nodes * PODS,
                (nodes * PODS) as f64 * f64::from(ROUNDS) / total_time.as_secs_f64(),
                placed.unplaced,
                milliseconds(counting + placing),
                lost.iter().map(|round| round.pods).max().unwrap_or(0),
                milliseconds(counting),
            );
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0 / f64::from(ROUNDS)
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

#[derive(Clone, Copy, PartialEq)]
enum Mix {
    /// No workload has constraints or requests.
    Plain,
    /// Of ten workloads two select a disk, one tolerates a taint, six request resources, one keeps
    /// its pods on different nodes, one spreads over zones, one prefers different nodes.
    Mixed,
}

impl Mix {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Mixed => "mixed",
        }
    }
}

struct Cluster {
    nodes: Arc<[Candidate]>,
    workloads: Vec<Workload>,
}

struct Placed {
    records: Vec<PodRecord>,
    unplaced: usize,
    time: Duration,
}

struct Lost {
    pods: usize,
    counting: Duration,
    placing: Duration,
}

impl Cluster {
    fn new(nodes: usize, mix: Mix) -> Self {
        Self {
            nodes: (0..nodes).map(|number| node(number, mix)).collect(),
            workloads: (0..nodes).map(|number| workload(number, mix)).collect(),
        }
    }

    fn place_all(&self, namespaces: &BTreeMap<String, Meta>) -> Placed {
        let start = cpu_time();
        let mut placer = Placer::new(Arc::clone(&self.nodes), 2 * PODS, namespaces);
        let mut places = Vec::with_capacity(self.workloads.len() * PODS);
        for workload in &self.workloads {
            places.extend((0..PODS).map(|_| (workload, placer.place(workload))));
        }
        let time = cpu_time() - start;
        let unplaced = places.iter().filter(|(_, place)| place.is_err()).count();
        let records = places
            .into_iter()
            .zip(0..)
            .filter_map(|((workload, place), serial)| {
                Some(record(workload, place.ok()?.node, serial))
            })
            .collect();
        Placed {
            records,
            unplaced,
            time,
        }
    }

    /// Loses a node near the middle: counts the pods of all other nodes, then places the pods of
    /// the lost one.
    fn lose_node(&self, namespaces: &BTreeMap<String, Meta>, records: &[PodRecord]) -> Lost {
        let lost = self.nodes[self.nodes.len() / 2 + 1].name.clone();
        let nodes: Arc<[Candidate]> = self
            .nodes
            .iter()
            .map(|node| Candidate {
                ready: node.name != lost && node.ready,
                ..node.clone()
            })
            .collect();
        let workloads: BTreeMap<&WorkloadKey, &Workload> = self
            .workloads
            .iter()
            .map(|workload| (&workload.key, workload))
            .collect();
        let start = cpu_time();
        let mut placer = Placer::new(nodes, 2 * PODS, namespaces);
        let mut to_replace = Vec::new();
        for record in records {
            if record.place.node() == Some(&lost) {
                to_replace.extend(workloads.get(&record.owner).copied());
            } else {
                placer.add(record, || workloads.get(&record.owner).copied());
            }
        }
        let counted = cpu_time();
        let placed = to_replace
            .iter()
            .filter(|workload| placer.place(workload).is_ok())
            .count();
        assert_eq!(placed, to_replace.len(), "the other nodes have room");
        Lost {
            pods: placed,
            counting: counted - start,
            placing: cpu_time() - counted,
        }
    }
}

fn labels(pairs: &[(&str, String)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect()
}

fn node(number: usize, mix: Mix) -> Candidate {
    let name = format!("node-{number:05}");
    let mut node = Candidate {
        labels: labels(&[
            ("kubernetes.io/hostname", name.clone()),
            ("kubernetes.io/arch", "amd64".to_owned()),
            ("kubernetes.io/os", "linux".to_owned()),
            (
                "topology.kubernetes.io/zone",
                format!("zone-{}", number % 3),
            ),
            (
                "disk",
                if number.is_multiple_of(4) {
                    "ssd"
                } else {
                    "hdd"
                }
                .to_owned(),
            ),
        ]),
        name: NodeName::new(name),
        taints: Vec::new(),
        cordoned: false,
        ready: true,
        allocatable: None,
        max_pods: None,
    };
    if mix == Mix::Mixed {
        node.allocatable = Some(ResourceAmounts {
            cpu_millis: 16_000,
            memory_bytes: 64 << 30,
        });
        if number % 10 == 9 {
            let effect = TaintEffect::NoSchedule;
            node.taints.push(Taint {
                key: "gpu".to_owned(),
                value: String::new(),
                effect,
            });
        }
        node.cordoned = number % 100 == 50;
    }
    node
}

fn workload(number: usize, mix: Mix) -> Workload {
    let name = format!("web-{number:05}");
    let labels = labels(&[
        ("app", name.clone()),
        ("tier", format!("tier-{}", number % 7)),
    ]);
    let mut spec = PodSpec {
        containers: vec![Container::default()],
        ..PodSpec::default()
    };
    if mix == Mix::Mixed {
        add_constraints(&mut spec, number, &labels);
    }
    Workload {
        key: WorkloadKey {
            kind: WorkloadKind::Deployment,
            object: ObjectKey::new("default", &name),
        },
        meta: Meta::default(),
        template: PodTemplate {
            meta: Meta {
                labels,
                annotations: BTreeMap::new(),
            },
            spec,
            hash: TemplateHash::new(format!("1-{}", &sha256_hex(name.as_bytes())[..16])),
        },
        control: Control::Replicas {
            replicas: u32::try_from(PODS).unwrap_or(u32::MAX),
            min_ready: Duration::ZERO,
            selector: Selector::default(),
        },
        position: ManifestPosition {
            file: "all.yaml".to_owned(),
            line: 1,
        },
    }
}

fn add_constraints(spec: &mut PodSpec, number: usize, labels: &BTreeMap<String, String>) {
    let own_labels = BTreeMap::from([("app".to_owned(), labels["app"].clone())]);
    let own_labels = Selector {
        labels: own_labels,
        expressions: Vec::new(),
    };
    let pods = PodSelector {
        labels: Some(own_labels),
        ..PodSelector::default()
    };
    let other_hosts = PodTerm {
        pods: pods.clone(),
        topology_key: "kubernetes.io/hostname".to_owned(),
        ..PodTerm::default()
    };
    if number % 10 < 6 {
        let step = (number % 3 + 1) as u64;
        spec.containers[0].resources = Asked {
            cpu_request_milli: Some(100 * step),
            memory_request_bytes: Some(step << 28),
            ..Asked::default()
        };
    }
    match number % 10 {
        0 | 1 => spec.node_selector = BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]),
        2 => spec.tolerations.push(Toleration {
            key: Some("gpu".to_owned()),
            equal: None,
            effect: None,
            for_at_most: None,
        }),
        3 => spec.affinity.anti.required.push(other_hosts),
        4 => spec.spread.push(SpreadConstraint {
            max_skew: 1,
            topology_key: "topology.kubernetes.io/zone".to_owned(),
            required: true,
            pods,
            min_domains: 1,
            honor_affinity: true,
            honor_taints: false,
        }),
        5 => spec.affinity.anti.preferred.push((100, other_hosts)),
        _ => {}
    }
}

fn record(workload: &Workload, node: NodeName, serial: u64) -> PodRecord {
    PodRecord {
        uid: pod_uid("bench", serial),
        key: ObjectKey::new("default", format!("{}-{serial}", workload.key.object.name)),
        owner: workload.key.clone(),
        place: PodPlace::Node(node),
        commit: CommitId::from([0x12; 20]),
        template: workload.template.hash.clone(),
        created: Timestamp::UNIX_EPOCH,
        serial,
        stop: None,
    }
}
