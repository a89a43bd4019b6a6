//! Rules between pods: affinity, anti-affinity and spread, by the examples in Kubernetes'
//! documentation.

use std::collections::BTreeMap;

use super::build::{
    labels, node, pin, placer, places, result_text, spread, tainted, term, workload, zones,
};
use crate::{
    name::WorkloadKind,
    object::{Meta, NodeOperator, NodeRequirement, NodeTerm, Selector, Workload},
    placement::Placer,
};

fn with_anti_affinity(mut workload: Workload, pods: &str, key: &str) -> Workload {
    workload
        .template
        .spec
        .affinity
        .anti
        .required
        .push(term(pods, key));
    workload
}

fn with_affinity(mut workload: Workload, pods: &str, key: &str) -> Workload {
    workload
        .template
        .spec
        .affinity
        .pods
        .required
        .push(term(pods, key));
    workload
}

fn hosts(count: usize) -> Vec<crate::placement::Candidate> {
    (1..=count)
        .map(|number| node(&format!("n{number}"), ""))
        .collect()
}

#[test]
fn a_cache_runs_on_every_node_and_a_server_beside_each() {
    // The documented example of three Redis caches and three web servers on three nodes.
    let store = with_anti_affinity(workload("redis-cache", "app=store"), "app=store", "host");
    let web = with_affinity(workload("web-server", "app=web-store"), "app=store", "host");
    let web = with_anti_affinity(web, "app=web-store", "host");
    let mut placer = placer(hosts(4));
    assert_eq!(places(&mut placer, &store, 3), "n1 n2 n3");
    assert_eq!(places(&mut placer, &web, 3), "n1 n2 n3");
    assert_eq!(
        result_text(placer.place(&web)),
        "0 of 4 nodes: 1 have no pod near that spec.affinity.podAffinity asks for, 3 have a pod near that \
         spec.affinity.podAntiAffinity forbids"
    );
    assert_eq!(
        places(&mut placer, &store, 2),
        "n4 0 of 4 nodes: 4 have a pod near that spec.affinity.podAntiAffinity forbids"
    );
}

#[test]
fn the_first_pod_with_affinity_to_its_own_group_is_placed() {
    let web = with_affinity(workload("web", "app=web"), "app=web", "zone");
    let mut nodes = zones();
    nodes.insert(0, node("a0", ""));
    // No pod is placed on a0, which is in no zone; then all pods are in the zone of the first.
    assert_eq!(places(&mut placer(nodes), &web, 3), "a1 a2 a1");
    let other = with_affinity(workload("other", "app=other"), "app=web", "zone");
    let refused = "0 of 4 nodes: 4 have no pod near that spec.affinity.podAffinity asks for";
    assert_eq!(places(&mut placer(zones()), &other, 1), refused);
    // Both terms must select the pod itself.
    let both = with_affinity(web, "tier=x", "zone");
    assert_eq!(places(&mut placer(zones()), &both, 1), refused);
}

#[test]
fn one_pod_must_be_selected_by_all_terms() {
    let (one, two) = (workload("one", "app=a"), workload("two", "tier=x"));
    let both = with_affinity(
        with_affinity(workload("both", ""), "app=a", "zone"),
        "tier=x",
        "zone",
    );
    let mut placer = placer(zones());
    pin(&mut placer, &one, "b1");
    pin(&mut placer, &two, "b1");
    assert!(result_text(placer.place(&both)).starts_with("0 of 4"));
    let three = workload("three", "app=a,tier=x");
    pin(&mut placer, &three, "c1");
    assert_eq!(result_text(placer.place(&both)), "c1");
}

#[test]
fn anti_affinity_of_existing_pods_excludes_a_new_pod() {
    let excluding = with_anti_affinity(workload("shy", "app=shy"), "app=loud", "zone");
    let excluded = workload("loud", "app=loud");
    let mut placer = placer(zones());
    pin(&mut placer, &excluding, "a1 b1");
    assert_eq!(places(&mut placer, &excluded, 2), "c1 c1");
    pin(&mut placer, &excluding, "c1");
    let refused = "0 of 4 nodes: 4 have a pod near whose podAntiAffinity forbids this one";
    assert_eq!(result_text(placer.place(&excluded)), refused);
}

#[test]
fn anti_affinity_does_not_apply_on_a_node_without_the_label() {
    let excluding = with_anti_affinity(workload("shy", "app=shy"), "app=shy", "zone");
    let nodes = vec![node("a", "zone=a"), node("x", ""), node("y", "")];
    assert_eq!(places(&mut placer(nodes), &excluding, 4), "a x y x");
}

#[test]
fn terms_select_pods_of_their_own_namespace_unless_they_name_others() {
    let mut elsewhere = workload("store", "app=store");
    elsewhere.key.object.namespace = "red".to_owned();
    let declared = BTreeMap::from([(
        "red".to_owned(),
        Meta {
            labels: labels("team=red"),
            ..Meta::default()
        },
    )]);
    let with = |namespaces: &[&str], selector: Option<&str>| {
        let mut web = with_affinity(workload("web", "app=web"), "app=store", "zone");
        let term = &mut web.template.spec.affinity.pods.required[0];
        term.namespaces = namespaces.iter().map(|name| (*name).to_owned()).collect();
        term.namespace_selector = selector.map(|text| Selector {
            labels: labels(text),
            expressions: Vec::new(),
        });
        let mut placer = Placer::new(zones().into(), 110, &declared);
        pin(&mut placer, &elsewhere, "b1");
        places(&mut placer, &web, 1)
    };
    let refused = "0 of 4 nodes: 4 have no pod near that spec.affinity.podAffinity asks for";
    assert_eq!(with(&[], None), refused);
    assert_eq!(with(&["default"], None), refused);
    assert_eq!(with(&["red"], None), "b1");
    assert_eq!(with(&[], Some("")), "b1");
    assert_eq!(with(&[], Some("team=red")), "b1");
    assert_eq!(
        with(&["default"], Some("kubernetes.io/metadata.name=red")),
        "b1"
    );
    assert_eq!(with(&[], Some("team=blue")), refused);
}

#[test]
fn match_label_keys_select_pods_of_the_same_template() {
    let version = |hash: &str| {
        let mut web = with_anti_affinity(workload("web", "app=web"), "app=web", "host");
        web.key.kind = WorkloadKind::Deployment;
        web.template.hash = crate::name::TemplateHash::new(hash);
        web.template.spec.affinity.anti.required[0]
            .pods
            .same
            .push("pod-template-hash".to_owned());
        web
    };
    let (old, new) = (version("1-aaaaaaaaaaaaaaaa"), version("1-bbbbbbbbbbbbbbbb"));
    let mut placer = placer(hosts(2));
    pin(&mut placer, &old, "n1 n2");
    assert_eq!(places(&mut placer, &new, 2), "n1 n2");
    assert!(result_text(placer.place(&new)).starts_with("0 of 2"));
}

#[test]
fn preferred_affinity_counts_by_weight_and_excludes_no_node() {
    let (store, noise) = (
        workload("store", "app=store"),
        workload("noise", "app=noise"),
    );
    let mut web = workload("web", "app=web");
    web.template
        .spec
        .affinity
        .pods
        .preferred
        .push((50, term("app=store", "zone")));
    web.template
        .spec
        .affinity
        .anti
        .preferred
        .push((60, term("app=noise", "host")));
    let mut placer = placer(zones());
    pin(&mut placer, &store, "a1");
    pin(&mut placer, &noise, "a1 b1 c1");
    assert_eq!(places(&mut placer, &web, 2), "a2 a2");
    pin(&mut placer, &noise, "a2");
    // Noise runs on all nodes now, so the pods are placed near the store, and spread there.
    assert_eq!(places(&mut placer, &web, 2), "a1 a1");
}

/// Pods labelled foo=bar on three nodes of two zones: 3 in zone A, 1 in zone B.
fn spread_example<'a>(placed: &'a Workload) -> Placer<'a> {
    let nodes = [
        ("node1", "A"),
        ("node2", "A"),
        ("node3", "B"),
        ("node4", "B"),
    ];
    let mut placer = placer(
        nodes
            .iter()
            .map(|(name, zone)| node(name, &format!("zone=zone{zone}")))
            .collect(),
    );
    pin(&mut placer, placed, "node1 node2 node3");
    placer
}

#[test]
fn one_spread_constraint_holds_as_in_the_documentation() {
    // zoneA has 2, zoneB 1; maxSkew 1 leaves only zoneB.
    let placed = workload("placed", "foo=bar");
    let mut pod = workload("mypod", "foo=bar");
    pod.template.spec.spread.push(spread("foo=bar", "zone", 1));
    assert_eq!(places(&mut spread_example(&placed), &pod, 1), "node4");
    pod.template.spec.spread[0].max_skew = 2;
    pod.template.spec.node_selector = labels("host=node1");
    pod.template.spec.spread[0].honor_affinity = false;
    assert_eq!(places(&mut spread_example(&placed), &pod, 1), "node1");
}

#[test]
fn two_spread_constraints_must_both_hold() {
    let placed = workload("placed", "foo=bar");
    let mut pod = workload("mypod", "foo=bar");
    pod.template.spec.spread = vec![spread("foo=bar", "zone", 1), spread("foo=bar", "host", 1)];
    assert_eq!(places(&mut spread_example(&placed), &pod, 1), "node4");
    // The documented conflict: zone wants zoneB, host wants node2.
    let nodes = || {
        vec![
            node("node1", "zone=A"),
            node("node2", "zone=A"),
            node("node3", "zone=B"),
        ]
    };
    let mut conflict = placer(nodes());
    pin(&mut conflict, &placed, "node1 node1 node2 node3 node3");
    assert_eq!(
        result_text(conflict.place(&pod)),
        "0 of 3 nodes: 3 would break spec.topologySpreadConstraints"
    );
    let mut preferred = pod.clone();
    preferred.template.spec.spread[1].required = false;
    let mut conflict = placer(nodes());
    pin(&mut conflict, &placed, "node1 node1 node2 node3 node3");
    assert_eq!(result_text(conflict.place(&preferred)), "node3");
}

#[test]
fn a_zone_that_node_affinity_excludes_does_not_count() {
    // zoneC is empty, and would be the least if it counted.
    let placed = workload("placed", "foo=bar");
    let nodes = || {
        let zones = [
            ("node1", "A"),
            ("node2", "A"),
            ("node3", "B"),
            ("node4", "B"),
            ("node5", "C"),
        ];
        zones
            .iter()
            .map(|(name, zone)| node(name, &format!("zone={zone}")))
            .collect()
    };
    let mut pod = workload("mypod", "foo=bar");
    pod.template.spec.spread.push(spread("foo=bar", "zone", 1));
    let not_zone_c = NodeRequirement {
        key: "zone".to_owned(),
        operator: NodeOperator::NotIn(vec!["C".to_owned()]),
    };
    pod.template.spec.affinity.node.required = Some(vec![NodeTerm {
        labels: vec![not_zone_c],
        names: Vec::new(),
    }]);
    let result = |pod: &Workload| {
        let mut placer = placer(nodes());
        pin(&mut placer, &placed, "node1 node2 node3");
        result_text(placer.place(pod))
    };
    assert_eq!(result(&pod), "node4");
    pod.template.spec.spread[0].honor_affinity = false;
    assert_eq!(
        result(&pod),
        "0 of 5 nodes: 1 do not match spec.affinity.nodeAffinity, 4 would break spec.topologySpreadConstraints"
    );
}

#[test]
fn tainted_nodes_count_unless_the_policy_honours_taints() {
    let nodes = || {
        vec![
            node("a", "zone=a"),
            tainted(node("b", "zone=b"), "gpu:NoSchedule"),
        ]
    };
    let mut pod = workload("pod", "app=pod");
    pod.template.spec.spread.push(spread("app=pod", "zone", 1));
    let refused = "0 of 2 nodes: 1 have taint gpu, 1 would break spec.topologySpreadConstraints";
    assert_eq!(
        places(&mut placer(nodes()), &pod, 2),
        format!("a {refused}")
    );
    pod.template.spec.spread[0].honor_taints = true;
    assert_eq!(places(&mut placer(nodes()), &pod, 2), "a a");
}

#[test]
fn with_fewer_domains_than_min_domains_the_least_count_is_zero() {
    // maxSkew 2, minDomains 5, three zones with 2/2/2: no more.
    let nodes = vec![
        node("a", "zone=a"),
        node("b", "zone=b"),
        node("c", "zone=c"),
        node("d", ""),
    ];
    let mut pod = workload("pod", "app=pod");
    pod.template.spec.spread.push(spread("app=pod", "zone", 2));
    pod.template.spec.spread[0].min_domains = 5;
    let refused = "0 of 4 nodes: 1 have no label of spec.topologySpreadConstraints, 3 would break \
                   spec.topologySpreadConstraints";
    assert_eq!(
        places(&mut placer(nodes), &pod, 7),
        format!("a b c a b c {refused}")
    );
}

#[test]
fn a_preferred_spread_ranks_after_preferred_rules_and_before_the_owners_spread() {
    let nodes = || {
        vec![
            node("a1", "zone=a"),
            node("a2", "zone=a"),
            node("a3", "zone=a"),
            node("b1", "zone=b"),
        ]
    };
    let mut pod = workload("pod", "app=pod");
    assert_eq!(places(&mut placer(nodes()), &pod, 4), "a1 a2 a3 b1");
    pod.template.spec.spread.push(spread("app=pod", "zone", 1));
    pod.template.spec.spread[0].required = false;
    assert_eq!(places(&mut placer(nodes()), &pod, 4), "a1 b1 a2 b1");
    let zone = NodeRequirement {
        key: "zone".to_owned(),
        operator: NodeOperator::In(vec!["a".to_owned()]),
    };
    pod.template.spec.affinity.node.preferred = vec![(
        1,
        NodeTerm {
            labels: vec![zone],
            names: Vec::new(),
        },
    )];
    assert_eq!(places(&mut placer(nodes()), &pod, 4), "a1 a2 a3 a1");
}

#[test]
fn a_missing_selector_selects_no_pod() {
    let mut pod = with_affinity(workload("pod", "app=pod"), "app=pod", "zone");
    pod.template.spec.affinity.pods.required[0].pods.labels = None;
    assert!(places(&mut placer(zones()), &pod, 1).starts_with("0 of 4"));
    let mut pod = with_anti_affinity(workload("pod", "app=pod"), "", "zone");
    assert!(places(&mut placer(zones()), &pod, 4).starts_with("a1 b1 c1 0 of 4"));
    pod.template.spec.affinity.anti.required[0].pods.labels = None;
    assert_eq!(places(&mut placer(zones()), &pod, 4), "a1 a2 b1 c1");
}
