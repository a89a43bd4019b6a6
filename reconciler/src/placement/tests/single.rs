//! Rules about a node and a pod by themselves: labels, taints, ports and resources; and which node
//! is the best.

use std::time::Duration;

use super::build::{
    labels, node, pin, placer, places, requesting, result_text, sized, tainted, with_port,
    workload, zones,
};
use crate::{
    name::NodeName,
    object::{NameRequirement, NodeOperator, NodeRequirement, NodeTerm, Toleration},
    placement::{Candidate, requests},
    state::{PodPlace, Refusal, Unfit},
};

fn term(key: &str, operator: NodeOperator) -> NodeTerm {
    NodeTerm {
        labels: vec![NodeRequirement {
            key: key.to_owned(),
            operator,
        }],
        names: Vec::new(),
    }
}

fn tolerating(key: &str) -> Toleration {
    Toleration {
        key: Some(key.to_owned()),
        equal: None,
        effect: None,
        for_at_most: None,
    }
}

#[test]
fn a_refusal_counts_every_node_once_by_reason() {
    let cordoned = Candidate {
        cordoned: true,
        ..node("a", "")
    };
    let nodes = vec![
        cordoned,
        tainted(node("b", ""), "gpu:NoSchedule"),
        tainted(node("c", ""), "gpu:NoExecute"),
    ];
    let web = workload("web", "app=web");
    assert_eq!(
        places(&mut placer(nodes), &web, 1),
        "0 of 3 nodes: 1 cordoned, 2 have taint gpu"
    );
    assert_eq!(
        places(&mut placer(Vec::new()), &web, 1),
        "0 of 0 nodes: there are none"
    );
    let away = Candidate {
        ready: false,
        ..node("a", "")
    };
    assert_eq!(
        places(&mut placer(vec![away]), &web, 1),
        "0 of 1 nodes: 1 not ready"
    );
}

#[test]
fn the_pods_of_an_owner_are_spread_and_nodes_are_filled_evenly() {
    let (web, db) = (workload("web", ""), workload("db", ""));
    let mut placer = placer(vec![node("a", ""), node("b", ""), node("c", "")]);
    assert_eq!(places(&mut placer, &web, 4), "a b c a");
    // Pods are counted by owner: db has no pods yet, and a has the most pods.
    assert_eq!(places(&mut placer, &db, 3), "b c a");
    assert_eq!(places(&mut placer, &web, 2), "b c");
}

#[test]
fn a_choice_has_its_reasons() {
    let soft = tainted(node("a", ""), "slow:PreferNoSchedule");
    let mut web = workload("web", "");
    let ssd = term("disk", NodeOperator::In(vec!["ssd".to_owned()]));
    web.template.spec.affinity.node.preferred =
        vec![(80, ssd), (20, term("nobody", NodeOperator::Exists))];
    let off = Candidate {
        cordoned: true,
        ..node("c", "")
    };
    let mut placer = placer(vec![soft, node("b", "disk=ssd"), off]);
    let mut why = || placer.place(&web).expect("a node").why.to_string();
    insta::assert_snapshot!(why(), @"one of 2 of 3 nodes that may take it; preferred 80 of 100; had 0 of the same owner");
    insta::assert_snapshot!(why(), @"one of 2 of 3 nodes that may take it; preferred 80 of 100; had 1 of the same owner");
}

#[test]
fn a_prefer_no_schedule_taint_ranks_before_spread() {
    let nodes = || {
        vec![
            tainted(node("a", ""), "slow:PreferNoSchedule"),
            node("b", ""),
        ]
    };
    let mut web = workload("web", "");
    assert_eq!(places(&mut placer(nodes()), &web, 3), "b b b");
    web.template.spec.tolerations.push(tolerating("slow"));
    assert_eq!(places(&mut placer(nodes()), &web, 3), "a b a");
}

#[test]
fn tolerated_taints_exclude_no_pod() {
    let nodes = || {
        vec![
            tainted(node("a", ""), "gpu=yes:NoSchedule"),
            tainted(node("b", ""), "old:NoExecute"),
        ]
    };
    let mut web = workload("web", "");
    web.template.spec.tolerations.push(tolerating("old"));
    assert_eq!(places(&mut placer(nodes()), &web, 2), "b b");
    let equal = Toleration {
        equal: Some("no".to_owned()),
        ..tolerating("gpu")
    };
    web.template.spec.tolerations = vec![equal];
    assert_eq!(
        places(&mut placer(nodes()), &web, 1),
        "0 of 2 nodes: 1 have taint gpu, 1 have taint old"
    );
    let all = Toleration {
        key: None,
        for_at_most: Some(Duration::from_secs(1)),
        ..tolerating("")
    };
    web.template.spec.tolerations = vec![all];
    assert_eq!(places(&mut placer(nodes()), &web, 2), "a b");
}

#[test]
fn node_affinity_has_all_operators() {
    let nodes = || {
        vec![
            node("a", "cores=4,zone=x"),
            node("b", "cores=16"),
            node("c", "cores=many,zone=y"),
        ]
    };
    let values = |text: &str| vec![text.to_owned()];
    for (key, operator, expected) in [
        ("zone", NodeOperator::In(values("x")), "a a a"),
        ("zone", NodeOperator::NotIn(values("x")), "b c b"),
        ("zone", NodeOperator::Exists, "a c a"),
        ("zone", NodeOperator::DoesNotExist, "b b b"),
        ("cores", NodeOperator::Gt(4), "b b b"),
        ("cores", NodeOperator::Lt(16), "a a a"),
    ] {
        let mut web = workload("web", "");
        web.template.spec.affinity.node.required = Some(vec![term(key, operator.clone())]);
        assert_eq!(
            places(&mut placer(nodes()), &web, 3),
            expected,
            "{key} {operator:?}"
        );
    }
}

#[test]
fn one_term_of_node_affinity_is_enough_and_all_of_a_term_must_hold() {
    let nodes = || {
        vec![
            node("a", "x=1,y=1"),
            node("b", "x=1"),
            node("c", "z=1"),
            node("d", ""),
        ]
    };
    let exists = |key: &str| term(key, NodeOperator::Exists).labels.remove(0);
    let both = NodeTerm {
        labels: vec![exists("x"), exists("y")],
        names: Vec::new(),
    };
    let mut web = workload("web", "");
    web.template.spec.affinity.node.required = Some(vec![both, term("z", NodeOperator::Exists)]);
    assert_eq!(places(&mut placer(nodes()), &web, 3), "a c a");
    let named = NodeTerm {
        labels: Vec::new(),
        names: vec![NameRequirement::IsNot(NodeName::new("d"))],
    };
    web.template.spec.affinity.node.required = Some(vec![named]);
    assert_eq!(places(&mut placer(nodes()), &web, 4), "a b c a");
    let named = NodeTerm {
        labels: Vec::new(),
        names: vec![NameRequirement::Is(NodeName::new("d"))],
    };
    web.template.spec.affinity.node.required = Some(vec![named]);
    assert_eq!(places(&mut placer(nodes()), &web, 1), "d");
    web.template.spec.affinity.node.required = Some(vec![NodeTerm::default()]);
    let refused = "0 of 4 nodes: 4 do not match spec.affinity.nodeAffinity";
    assert_eq!(places(&mut placer(nodes()), &web, 1), refused);
}

#[test]
fn preferred_node_affinity_counts_by_weight_and_ranks_before_spread() {
    let mut web = workload("web", "");
    let is = |zone: &str| term("zone", NodeOperator::In(vec![zone.to_owned()]));
    web.template.spec.affinity.node.preferred = vec![(10, is("b")), (20, is("c"))];
    assert_eq!(places(&mut placer(zones()), &web, 2), "c1 c1");
    web.template
        .spec
        .affinity
        .node
        .preferred
        .push((15, term("host", NodeOperator::Exists)));
    web.template
        .spec
        .affinity
        .node
        .preferred
        .push((15, is("b")));
    assert_eq!(places(&mut placer(zones()), &web, 2), "b1 b1");
}

#[test]
fn a_pod_with_a_node_name_is_checked_by_the_rules_of_kubelet_only() {
    let cordoned = Candidate {
        cordoned: true,
        ..tainted(node("a", ""), "gpu:NoSchedule")
    };
    let mut web = with_port(workload("web", ""), 80);
    web.template.spec.node_name = Some(NodeName::new("a"));
    let nodes = vec![cordoned, node("b", "")];
    let refused = "0 of 2 nodes: 1 not the one of spec.nodeName, 1 have host port 80 in use";
    assert_eq!(
        places(&mut placer(nodes.clone()), &web, 2),
        format!("a {refused}")
    );
    web.template.spec.node_selector = labels("disk=ssd");
    let refused = "0 of 2 nodes: 1 not the one of spec.nodeName, 1 do not match spec.nodeSelector";
    assert_eq!(places(&mut placer(nodes), &web, 1), refused);
    web.template.spec.node_selector.clear();
    let nodes = vec![tainted(node("a", ""), "old:NoExecute")];
    assert_eq!(
        places(&mut placer(nodes), &web, 1),
        "0 of 1 nodes: 1 have taint old"
    );
}

#[test]
fn host_ports_and_the_number_of_pods_are_limited_per_node() {
    let web = with_port(workload("web", ""), 80);
    let nodes = vec![node("a", ""), node("b", "")];
    let mut placer = placer(nodes.clone());
    assert_eq!(
        places(&mut placer, &web, 3),
        "a b 0 of 2 nodes: 2 have host port 80 in use"
    );
    let none = std::collections::BTreeMap::new();
    let other = workload("other", "");
    let mut placer = crate::placement::Placer::new(nodes.into(), 1, &none);
    assert_eq!(places(&mut placer, &other, 3), "a b 0 of 2 nodes: 2 full");
}

#[test]
fn requests_must_fit_and_the_node_with_the_lowest_usage_is_chosen() {
    let nodes = vec![
        sized(node("a", ""), 1000, 1000),
        sized(node("b", ""), 4000, 1000),
        node("c", ""),
    ];
    let mut placer = placer(nodes);
    let big = requesting(workload("big", ""), 600, 100);
    // c has no limit; after that b would have a lower usage than a; a accepts one pod.
    assert_eq!(places(&mut placer, &big, 4), "c b a c");
    let own = requesting(workload("own", ""), 600, 950);
    assert_eq!(places(&mut placer, &own, 1), "c");
    let mut only = requesting(workload("only", ""), 500, 0);
    only.template.spec.affinity.node.required = Some(vec![term(
        "host",
        NodeOperator::NotIn(vec!["c".to_owned()]),
    )]);
    assert_eq!(places(&mut placer, &only, 1), "b");
    let mut memory = requesting(only.clone(), 0, 950);
    memory.key.object.name = "memory".to_owned();
    let refused =
        "0 of 3 nodes: 1 do not match spec.affinity.nodeAffinity, 2 have too little memory left";
    assert_eq!(places(&mut placer, &memory, 1), refused);
    // A pod without requests is not affected by the requests of others.
    let mut nothing = workload("nothing", "");
    nothing.template.spec.node_name = Some(NodeName::new("a"));
    assert_eq!(places(&mut placer, &nothing, 1), "a");
}

#[test]
fn init_containers_count_by_the_largest() {
    let mut pod = requesting(workload("pod", ""), 100, 50);
    let spec = &mut pod.template.spec;
    spec.containers.push(spec.containers[0].clone());
    spec.init_containers.push(spec.containers[0].clone());
    spec.init_containers.push(spec.containers[0].clone());
    spec.init_containers[1].resources.memory_request_bytes = Some(500);
    let requested = requests(spec);
    assert_eq!((requested.cpu_millis, requested.memory_bytes), (200, 500));
}

#[test]
fn pods_on_unknown_nodes_are_not_counted() {
    let web = workload("web", "");
    let mut placer = placer(vec![node("a", "")]);
    pin(&mut placer, &web, "gone");
    assert_eq!(result_text(placer.place(&web)), "a");
}

#[test]
fn a_refusal_is_stored_with_its_reasons_and_an_older_text_is_read() {
    let refusal = Refusal::Counted {
        nodes: 3,
        reasons: vec![(Unfit::Cordoned, 1), (Unfit::Taint("gpu".to_owned()), 2)],
    };
    let place = PodPlace::Unplaced(refusal.clone());
    let text = serde_json::to_string(&place).expect("JSON");
    insta::assert_snapshot!(text, @r#"{"Unplaced":{"nodes":3,"reasons":[["Cordoned",1],[{"Taint":"gpu"},2]]}}"#);
    assert_eq!(
        serde_json::from_str::<PodPlace>(&text).expect("read again"),
        place
    );
    let before = r#"{"Unplaced":"0 of 3 nodes: 1 cordoned, 2 have taint gpu"}"#;
    match serde_json::from_str(before).expect("an older state") {
        PodPlace::Unplaced(older @ Refusal::Text(_)) => {
            assert_eq!(older.to_string(), refusal.to_string())
        }
        other => panic!("{other:?}"),
    }
}
