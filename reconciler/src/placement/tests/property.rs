//! The placer and the plain scan give the same result, for any cluster.

use std::{collections::BTreeMap, sync::Arc};

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::{
    build::{labels, node, record, requesting, selector, sized, tainted, with_port, workload},
    scan::{PlacedPod, Scan},
};
use crate::{
    name::{NodeName, PodUid, TemplateHash, WorkloadKind},
    object::{
        Meta, NameRequirement, NodeOperator, NodeRequirement, NodeTerm, PodAffinity, PodSelector,
        PodTerm, Selector, SpreadConstraint, Toleration, Workload,
    },
    placement::{Candidate, Neighbour, Placer, Surroundings},
    state::{PodRecord, Unfit},
};

const KEYS: [&str; 4] = ["zone", "host", "rack", "nowhere"];
const SELECTORS: [&str; 6] = ["app=a", "app=b", "tier=x", "app!=a", "", "app=a,tier=x"];
const TAINTS: [&str; 4] = [
    "gpu:NoSchedule",
    "gpu=yes:PreferNoSchedule",
    "old:NoExecute",
    "slow:PreferNoSchedule",
];

fn nodes() -> impl Strategy<Value = Vec<Candidate>> {
    let zone = option::weighted(0.9, 0..3_u8);
    let rack = option::weighted(0.8, 0..4_u8);
    let flags = (
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.2),
    );
    let size = option::weighted(0.5, (1_u64..9, 1_u64..9));
    let properties = (
        zone,
        rack,
        option::weighted(0.25, select(&TAINTS[..])),
        flags,
        size,
    );
    vec(properties, 1..12).prop_map(|nodes| {
        let named = nodes.into_iter().enumerate();
        named
            .map(
                |(number, (zone, rack, taint, (cordoned, ready, disk), size))| {
                    let mut text = String::new();
                    text.extend(zone.map(|zone| format!("zone=z{zone},")));
                    text.extend(rack.map(|rack| format!("rack=r{rack},")));
                    text.push_str(if disk { "disk=ssd,size=3" } else { "size=7" });
                    let mut node = node(&format!("n{number:02}"), &text);
                    if number % 5 == 4 {
                        node.labels.remove("host");
                    }
                    (node.cordoned, node.ready) = (cordoned, ready);
                    if let Some(taint) = taint {
                        node = tainted(node, taint);
                    }
                    match size {
                        Some((cpu, memory)) => sized(node, cpu * 500, memory * 500),
                        None => node,
                    }
                },
            )
            .collect()
    })
}

fn pod_selector() -> impl Strategy<Value = PodSelector> {
    let same = prop_oneof![4 => Just(""), 1 => Just("tier"), 1 => Just("pod-template-hash")];
    (
        select(&SELECTORS[..]),
        same,
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.05),
    )
        .prop_map(|(text, same, other, none)| {
            let mut pods = selector(text);
            if !same.is_empty() {
                pods.same.push(same.to_owned());
            }
            if other {
                pods.other.push("release".to_owned());
            }
            if none {
                pods.labels = None;
            }
            pods
        })
}

fn term() -> impl Strategy<Value = PodTerm> {
    let namespaces = prop_oneof![
        6 => Just((None, None)),
        1 => Just((Some("other"), None)),
        1 => Just((None, Some(""))),
        1 => Just((None, Some("team=red"))),
        1 => Just((None, Some("kubernetes.io/metadata.name=other"))),
    ];
    (pod_selector(), select(&KEYS[..]), namespaces).prop_map(
        |(pods, key, (namespace, selector))| PodTerm {
            pods,
            namespaces: namespace.into_iter().map(str::to_owned).collect(),
            namespace_selector: selector.map(|text| Selector {
                labels: labels(text),
                expressions: Vec::new(),
            }),
            topology_key: key.to_owned(),
        },
    )
}

fn affinity() -> impl Strategy<Value = PodAffinity> {
    let required = prop_oneof![5 => vec(term(), 0..1), 1 => vec(term(), 1..3)];
    let preferred =
        prop_oneof![3 => vec((1..101_u32, term()), 0..1), 1 => vec((1..101_u32, term()), 1..3)];
    (required, preferred).prop_map(|(required, preferred)| PodAffinity {
        required,
        preferred,
    })
}

fn constraint() -> impl Strategy<Value = SpreadConstraint> {
    (
        1..3_u32,
        select(&KEYS[..3]),
        any::<bool>(),
        pod_selector(),
        1..4_u32,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(max_skew, key, required, pods, min_domains, honor_affinity, honor_taints)| {
                SpreadConstraint {
                    max_skew,
                    topology_key: key.to_owned(),
                    required,
                    pods,
                    min_domains: if required { min_domains } else { 1 },
                    honor_affinity,
                    honor_taints,
                }
            },
        )
}

fn node_term() -> impl Strategy<Value = NodeTerm> {
    let operator = prop_oneof![
        Just(("disk", NodeOperator::In(vec!["ssd".to_owned()]))),
        Just(("zone", NodeOperator::NotIn(vec!["z0".to_owned()]))),
        Just(("rack", NodeOperator::Exists)),
        Just(("rack", NodeOperator::DoesNotExist)),
        Just(("size", NodeOperator::Gt(5))),
        Just(("size", NodeOperator::Lt(5))),
    ];
    (operator, option::weighted(0.1, any::<bool>())).prop_map(|((key, operator), name)| NodeTerm {
        labels: vec![NodeRequirement {
            key: key.to_owned(),
            operator,
        }],
        names: name
            .map(|is| {
                let name = NodeName::new("n01");
                if is {
                    NameRequirement::Is(name)
                } else {
                    NameRequirement::IsNot(name)
                }
            })
            .into_iter()
            .collect(),
    })
}

/// Adds further rules about nodes to a template.
fn with_rules(plain: Workload) -> impl Strategy<Value = Workload> {
    let node = (
        option::weighted(0.2, vec(node_term(), 1..3)),
        prop_oneof![3 => vec((1..101_u32, node_term()), 0..1), 1 => vec((1..101_u32, node_term()), 1..3)],
        prop::bool::weighted(0.1),
        option::weighted(0.05, 0..12_u8),
        option::weighted(0.3, select(&["gpu", "old", "slow"][..])),
    );
    let spread = prop_oneof![2 => vec(constraint(), 0..1), 1 => vec(constraint(), 1..3)];
    let relations = (affinity(), affinity(), spread, prop::bool::weighted(0.4));
    let requests = (
        option::weighted(0.4, (0_u64..4, 0_u64..4)),
        prop::bool::weighted(0.1),
    );
    (node, relations, requests).prop_map(
        move |(
            (required, preferred, selects, node_name, tolerated),
            (pods, anti, spread, without_relations),
            (requests, port),
        )| {
            let mut workload = plain.clone();
            if let Some((cpu, memory)) = requests {
                workload = requesting(workload, cpu * 250, memory * 250);
            }
            if port {
                workload = with_port(workload, 8080);
            }
            let spec = &mut workload.template.spec;
            (spec.affinity.node.required, spec.affinity.node.preferred) = (required, preferred);
            if !without_relations {
                (spec.affinity.pods, spec.affinity.anti, spec.spread) = (pods, anti, spread);
            }
            if selects {
                spec.node_selector = labels("disk=ssd");
            }
            spec.node_name = node_name.map(|number| NodeName::new(format!("n{number:02}")));
            spec.tolerations.extend(tolerated.map(|key| Toleration {
                key: Some(key.to_owned()),
                equal: None,
                effect: None,
                for_at_most: None,
            }));
            workload
        },
    )
}

fn workloads() -> impl Strategy<Value = Vec<Workload>> {
    let identity = (
        0..3_u8,
        select(
            &[
                "app=a",
                "app=b,tier=x",
                "app=a,tier=x,release=1",
                "app=a,release=2",
                "",
            ][..],
        ),
        prop::bool::weighted(0.2),
        any::<bool>(),
    );
    let workload = identity.prop_flat_map(|(owner, text, elsewhere, deployment)| {
        let mut plain = workload(&format!("w{owner}"), text);
        if elsewhere {
            plain.key.object.namespace = "other".to_owned();
        }
        if deployment {
            plain.key.kind = WorkloadKind::Deployment;
        }
        with_rules(plain)
    });
    vec(workload, 1..6).prop_map(|mut all| {
        for (number, workload) in all.iter_mut().enumerate() {
            workload.template.hash = TemplateHash::new(format!("1-{number:016}"));
        }
        all
    })
}

#[derive(Clone, Debug)]
enum Event {
    Place(prop::sample::Index),
    Pin(prop::sample::Index, prop::sample::Index),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    // Usually several pods of one template are placed one after another.
    let place = (any::<prop::sample::Index>(), 1..6_usize)
        .prop_map(|(workload, times)| vec![Event::Place(workload); times]);
    let pin = (any::<prop::sample::Index>(), any::<prop::sample::Index>())
        .prop_map(|(workload, node)| vec![Event::Pin(workload, node)]);
    vec(prop_oneof![6 => place, 1 => pin], 1..10).prop_map(|events| events.concat())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the person who runs the tests chooses the number of cases"
)]
fn cases(default: u32) -> u32 {
    std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(2000)))]

    #[test]
    fn the_placer_gives_the_result_of_the_plain_scan(
        nodes in nodes(),
        workloads in workloads(),
        existing in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), prop::bool::weighted(0.2)), 0..12),
        events in events(),
        max_pods in 2..9_usize,
    ) {
        let red = Meta { labels: labels("team=red"), ..Meta::default() };
        let namespaces = BTreeMap::from([("other".to_owned(), red)]);
        let existing: Vec<(usize, &Workload, bool)> = existing
            .iter()
            .map(|(index, node, stopping)| (node.index(nodes.len()), index.get(&workloads), *stopping))
            .collect();
        let records: Vec<PodRecord> = existing
            .iter()
            .map(|(node, workload, stopping)| record(workload, &nodes[*node].name, *stopping))
            .collect();
        let mut placer = Placer::new(Arc::from(nodes.clone()), max_pods, &namespaces);
        for (record, (_, workload, _)) in records.iter().zip(&existing) {
            placer.add(record, || Some(*workload));
        }
        let pods = existing.iter().map(|(node, workload, stopping)| PlacedPod { node: *node, workload, stopping: *stopping });
        let mut scan =
            Scan { nodes: &nodes, max_pods, namespaces: &namespaces, pods: pods.collect() };
        for event in events {
            match event {
                Event::Place(index) => {
                    let workload = index.get(&workloads);
                    let chosen = placer.place(workload);
                    prop_assert_eq!(&chosen, &scan.place(workload));
                    // The node of a pod that was placed by the rules does not refuse the pod.
                    if let Ok(chosen) = chosen {
                        let placed = scan.pods.len() - 1;
                        prop_assert_eq!(forbidden(&scan, workload, &chosen.node, Some(placed)), None);
                    }
                }
                Event::Pin(index, node) => {
                    let (workload, node) = (index.get(&workloads), node.index(nodes.len()));
                    placer.pin(&nodes[node].name, workload);
                    scan.pods.push(PlacedPod { node, workload, stopping: false });
                }
            }
        }
    }

    #[test]
    fn a_node_with_the_same_information_forbids_the_same_pods_as_the_plain_scan(
        nodes in nodes(),
        workloads in workloads(),
        existing in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..12),
    ) {
        let red = Meta { labels: labels("team=red"), ..Meta::default() };
        let namespaces = BTreeMap::from([("other".to_owned(), red)]);
        let pods = existing.iter().map(|(index, node)| {
            PlacedPod { node: node.index(nodes.len()), workload: index.get(&workloads), stopping: false }
        });
        let scan = Scan { nodes: &nodes, max_pods: 99, namespaces: &namespaces, pods: pods.collect() };
        for workload in &workloads {
            for node in &nodes {
                prop_assert_eq!(
                    forbidden(&scan, workload, &node.name, None),
                    scan.relations(workload, node).err()
                );
            }
        }
    }
}

/// The rule by which a node that knows the pods of a scan forbids a pod, which may be one of them.
fn forbidden(
    scan: &Scan<'_>,
    workload: &Workload,
    node: &NodeName,
    placed: Option<usize>,
) -> Option<Unfit> {
    let uids: Vec<PodUid> = (0..scan.pods.len())
        .map(|number| PodUid::new(number.to_string()))
        .collect();
    let pods = scan.pods.iter().zip(&uids).map(|(pod, uid)| Neighbour {
        uid,
        node: &scan.nodes[pod.node].name,
        workload: pod.workload,
        stopping: pod.stopping,
    });
    let surroundings = Surroundings::new(scan.nodes, scan.namespaces, pods.collect(), false);
    let uid = placed.map_or(PodUid::new("new"), |placed| uids[placed].clone());
    surroundings.forbid(workload, &uid, node, &|_| true)
}
