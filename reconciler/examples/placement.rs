//! Prints how many pods a second are placed on so many nodes, and how long it takes to place those
//! of a lost node anew.
//!
//! `cargo run --release -p reconciler --example placement [NODES...]`
#![expect(clippy::print_stdout, reason = "printing is what it is for")]
#![expect(
    clippy::disallowed_methods,
    reason = "it measures time, as nothing in the core may"
)]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use reconciler::{
    digest::{pod_uid, sha256_hex},
    name::{CommitId, NodeName, ObjectKey, TemplateHash, WorkloadKey, WorkloadKind},
    object::{
        Container, Control, Meta, Place, PodSelector, PodSpec, PodTemplate, PodTerm,
        Resources as Asked, Selector, SpreadConstraint, Taint, TaintEffect, Toleration, Workload,
    },
    placement::{Candidate, Placer, ResourceAmounts},
    state::{PodPlace, PodRecord},
};

/// Pods a node, and pods a workload.
const PODS: usize = 30;
/// What is printed is the mean of so many rounds: the clock of a thread's processor time is coarse.
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
            let taken: Duration = rounds.iter().map(|round| round.time).sum();
            let Some(placed) = rounds.into_iter().next() else {
                return;
            };
            let lost: Vec<Lost> = (0..ROUNDS)
                .map(|_| cluster.lose_one(&namespaces, &placed.records))
                .collect();
            let counting: Duration = lost.iter().map(|round| round.counting).sum();
            let placing: Duration = lost.iter().map(|round| round.placing).sum();
            println!(
                "{}: {nodes} nodes, {} pods: {:.0} pods a second; {} placed nowhere; one node lost: {:.1} ms for its \
                 {} pods, of that {:.1} ms to count the others",
                mix.name(),
                nodes * PODS,
                (nodes * PODS) as f64 * f64::from(ROUNDS) / taken.as_secs_f64(),
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

/// What this thread has used of a processor: other builds on the machine do not count.
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
    /// Nobody asks for anything.
    Plain,
    /// Of ten workloads two select a disk, one tolerates a taint and keeps to it, six ask for
    /// resources, one keeps its pods on different nodes, one spreads over zones, one prefers to be
    /// apart.
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

    /// A node near the middle is lost: its pods are placed elsewhere, counting all others first.
    fn lose_one(&self, namespaces: &BTreeMap<String, Meta>, records: &[PodRecord]) -> Lost {
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
        let mut homeless = Vec::new();
        for record in records {
            if record.place.node() == Some(&lost) {
                homeless.extend(workloads.get(&record.owner).copied());
            } else {
                placer.add(record, || workloads.get(&record.owner).copied());
            }
        }
        let counted = cpu_time();
        let placed = homeless
            .iter()
            .filter(|workload| placer.place(workload).is_ok())
            .count();
        assert_eq!(placed, homeless.len(), "there is room elsewhere");
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
        ask(&mut spec, number, &labels);
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
        place: Place {
            file: "all.yaml".to_owned(),
            line: 1,
        },
    }
}

fn ask(spec: &mut PodSpec, number: usize, labels: &BTreeMap<String, String>) {
    let own = BTreeMap::from([("app".to_owned(), labels["app"].clone())]);
    let own = Selector {
        labels: own,
        expressions: Vec::new(),
    };
    let pods = PodSelector {
        labels: Some(own),
        ..PodSelector::default()
    };
    let apart = PodTerm {
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
        3 => spec.affinity.anti.required.push(apart),
        4 => spec.spread.push(SpreadConstraint {
            max_skew: 1,
            topology_key: "topology.kubernetes.io/zone".to_owned(),
            required: true,
            pods,
            min_domains: 1,
            honor_affinity: true,
            honor_taints: false,
        }),
        5 => spec.affinity.anti.preferred.push((100, apart)),
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
