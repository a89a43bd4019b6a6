//! Short constructors of nodes and templates for the tests of placement.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{
    ids::commit_id,
    name::{NodeName, ObjectKey, PodUid, TemplateHash, WorkloadKey, WorkloadKind},
    object::{
        Container, ContainerPort, Control, ManifestPosition, Meta, Operator, PodSelector, PodSpec,
        PodTemplate, PodTerm, Protocol, Requirement, Selector, SpreadConstraint, Taint, Workload,
    },
    placement::{Candidate, Chosen, Placer, ResourceAmounts},
    state::{PodPlace, PodRecord, Refusal, StopReason, StopRecord},
};

pub(super) fn labels(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

pub(super) fn node(name: &str, text: &str) -> Candidate {
    let mut labels = labels(text);
    labels.insert("host".to_owned(), name.to_owned());
    Candidate {
        name: NodeName::new(name),
        labels,
        taints: Vec::new(),
        cordoned: false,
        ready: true,
        allocatable: None,
        max_pods: None,
    }
}

pub(super) fn tainted(mut node: Candidate, taint: &str) -> Candidate {
    node.taints.push(taint.parse::<Taint>().expect("a taint"));
    node
}

pub(super) fn sized(mut node: Candidate, cpu_millis: u64, memory_bytes: u64) -> Candidate {
    node.allocatable = Some(ResourceAmounts {
        cpu_millis,
        memory_bytes,
    });
    node
}

/// Three zones: a has two nodes, b and c one.
pub(super) fn zones() -> Vec<Candidate> {
    vec![
        node("a1", "zone=a"),
        node("a2", "zone=a"),
        node("b1", "zone=b"),
        node("c1", "zone=c"),
    ]
}

/// A ReplicaSet in the namespace `default`.
pub(super) fn workload(name: &str, text: &str) -> Workload {
    Workload {
        key: WorkloadKey {
            kind: WorkloadKind::ReplicaSet,
            object: ObjectKey::new("default", name),
        },
        meta: Meta::default(),
        template: PodTemplate {
            meta: Meta {
                labels: labels(text),
                annotations: BTreeMap::new(),
            },
            spec: PodSpec {
                containers: vec![Container::default()],
                ..PodSpec::default()
            },
            hash: TemplateHash::new("1-0123456789abcdef"),
        },
        control: Control::Replicas {
            replicas: 1,
            min_ready: Duration::ZERO,
            selector: Selector::default(),
        },
        position: ManifestPosition {
            file: "a.yaml".to_owned(),
            line: 1,
        },
    }
}

pub(super) fn requesting(mut workload: Workload, cpu: u64, memory: u64) -> Workload {
    let resources = &mut workload.template.spec.containers[0].resources;
    (resources.cpu_request_milli, resources.memory_request_bytes) = (Some(cpu), Some(memory));
    workload
}

pub(super) fn with_port(mut workload: Workload, port: u16) -> Workload {
    let port = ContainerPort {
        name: None,
        port,
        protocol: Protocol::Tcp,
        host_port: Some(port),
        host_ip: None,
    };
    workload.template.spec.containers[0].ports.push(port);
    workload
}

/// A selector from `app=a` or `app!=a`; the empty text selects every pod.
pub(super) fn selector(text: &str) -> PodSelector {
    let selector = match text.split_once("!=") {
        Some((key, value)) => {
            let operator = Operator::NotIn(vec![value.to_owned()]);
            let expressions = vec![Requirement {
                key: key.to_owned(),
                operator,
            }];
            Selector {
                labels: BTreeMap::new(),
                expressions,
            }
        }
        None => Selector {
            labels: labels(text),
            expressions: Vec::new(),
        },
    };
    PodSelector {
        labels: Some(selector),
        ..PodSelector::default()
    }
}

pub(super) fn term(pods: &str, key: &str) -> PodTerm {
    PodTerm {
        pods: selector(pods),
        topology_key: key.to_owned(),
        ..PodTerm::default()
    }
}

pub(super) fn spread(pods: &str, key: &str, max_skew: u32) -> SpreadConstraint {
    SpreadConstraint {
        max_skew,
        topology_key: key.to_owned(),
        required: true,
        pods: selector(pods),
        min_domains: 1,
        honor_affinity: true,
        honor_taints: false,
    }
}

static NO_NAMESPACES: BTreeMap<String, Meta> = BTreeMap::new();

pub(super) fn placer<'a>(nodes: Vec<Candidate>) -> Placer<'a> {
    Placer::new(Arc::from(nodes), 110, &NO_NAMESPACES)
}

/// The chosen node, or the refusal, as text.
pub(super) fn result_text(result: Result<Chosen, Refusal>) -> String {
    match result {
        Ok(chosen) => chosen.node.to_string(),
        Err(refusal) => refusal.to_string(),
    }
}

/// The nodes of a number of pods, placed one after another.
pub(super) fn places<'a>(placer: &mut Placer<'a>, workload: &'a Workload, count: usize) -> String {
    let nodes: Vec<String> = (0..count)
        .map(|_| result_text(placer.place(workload)))
        .collect();
    nodes.join(" ")
}

pub(super) fn pin<'a>(placer: &mut Placer<'a>, workload: &'a Workload, nodes: &str) {
    for node in nodes.split_whitespace() {
        placer.pin(&NodeName::new(node), workload);
    }
}

/// The record of a pod on a node.
pub(super) fn record(workload: &Workload, node: &NodeName, stopping: bool) -> PodRecord {
    let stop = StopRecord {
        at: Timestamp::UNIX_EPOCH,
        reason: StopReason::ScaledDown,
    };
    PodRecord {
        uid: PodUid::new("uid"),
        key: ObjectKey::new("default", "pod"),
        owner: workload.key.clone(),
        place: PodPlace::Node(node.clone()),
        commit: commit_id("0"),
        template: workload.template.hash.clone(),
        created: Timestamp::UNIX_EPOCH,
        serial: 0,
        stop: stopping.then_some(stop),
    }
}
