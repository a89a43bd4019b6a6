//! Rules between pods whose domains are single nodes, and rules of several workloads together.

use std::collections::BTreeMap;

use super::build::{labels, node, pin, placer, places, result_text, spread, term, workload, zones};
use crate::{
    object::{NodeOperator, NodeRequirement, NodeTerm, PodTerm, Selector, Workload},
    placement::{Candidate, Placer},
};

fn hosts(count: usize) -> Vec<Candidate> {
    (1..=count)
        .map(|number| node(&format!("n{number}"), ""))
        .collect()
}

fn near(name: &str, text: &str, term: PodTerm) -> Workload {
    let mut workload = workload(name, text);
    workload.template.spec.affinity.pods.required.push(term);
    workload
}

fn apart(name: &str, text: &str, term: PodTerm) -> Workload {
    let mut workload = workload(name, text);
    workload.template.spec.affinity.anti.required.push(term);
    workload
}

#[test]
fn pods_with_affinity_to_their_own_group_follow_the_first_to_its_node() {
    let web = near("web", "app=web", term("app=web", "host"));
    assert_eq!(places(&mut placer(hosts(3)), &web, 3), "n1 n1 n1");
}

#[test]
fn a_required_spread_over_nodes_begins_again_when_every_node_has_a_pod() {
    let mut pod = workload("pod", "app=pod");
    pod.template.spec.spread.push(spread("app=pod", "host", 1));
    let mut required = placer(hosts(3));
    assert_eq!(places(&mut required, &pod, 7), "n1 n2 n3 n1 n2 n3 n1");
}

#[test]
fn a_preferred_spread_over_nodes_ranks_before_load() {
    let (placed, noise) = (workload("placed", "app=pod"), workload("noise", ""));
    let mut pod = workload("pod", "app=pod");
    pod.template.spec.spread.push(spread("app=pod", "host", 1));
    pod.template.spec.spread[0].required = false;
    let mut preferred = placer(hosts(2));
    pin(&mut preferred, &placed, "n1");
    pin(&mut preferred, &noise, "n2 n2 n2");
    assert_eq!(places(&mut preferred, &pod, 1), "n2");
}

#[test]
fn preferences_for_nodes_and_for_pods_are_added() {
    let store = workload("store", "app=store");
    let mut web = workload("web", "app=web");
    let affinity = &mut web.template.spec.affinity;
    affinity
        .pods
        .preferred
        .push((50, term("app=store", "zone")));
    let zone = NodeRequirement {
        key: "zone".to_owned(),
        operator: NodeOperator::In(vec!["a".to_owned()]),
    };
    let in_zone = NodeTerm {
        labels: vec![zone],
        names: Vec::new(),
    };
    affinity.node.preferred = vec![(20, in_zone)];
    for (weight, expected) in [
        (
            50,
            "b1: one of 4 of 4 nodes that may take it; preferred 50 of 70; had 0 of the same owner",
        ),
        (
            15,
            "a1: one of 4 of 4 nodes that may take it; preferred 20 of 35; had 0 of the same owner",
        ),
    ] {
        let mut web = web.clone();
        web.template.spec.affinity.pods.preferred[0].0 = weight;
        let mut placer = placer(zones());
        pin(&mut placer, &store, "b1");
        let chosen = placer.place(&web).expect("a node");
        assert_eq!(format!("{}: {}", chosen.node, chosen.why), expected);
    }
}

#[test]
fn each_workload_repels_by_its_own_topology() {
    let (first, loud) = (workload("first", ""), workload("loud", "app=loud"));
    let by_zone = apart("by-zone", "app=shy", term("app=loud", "zone"));
    let by_host = apart("by-host", "app=shy", term("app=loud", "host"));
    let mut placer = placer(zones());
    pin(&mut placer, &first, "c1");
    pin(&mut placer, &by_zone, "b1");
    pin(&mut placer, &by_host, "a1");
    // Of the zone a only the node itself is taken, of the zone b every node.
    assert_eq!(places(&mut placer, &loud, 3), "a2 c1 a2");
    let mut elsewhere = loud.clone();
    elsewhere.key.object.name = "elsewhere".to_owned();
    elsewhere.template.spec.node_selector = labels("zone=b");
    assert_eq!(
        result_text(placer.place(&elsewhere)),
        "0 of 4 nodes: 3 do not match spec.nodeSelector, 1 have a pod near whose podAntiAffinity \
         forbids this one"
    );
}

#[test]
fn a_term_that_names_namespaces_leaves_out_its_own() {
    let declared = BTreeMap::new();
    let store = workload("store", "app=store");
    let selector = |text: &str| Selector {
        labels: labels(text),
        expressions: Vec::new(),
    };
    for (namespaces, selected, expected) in [
        (Vec::new(), None, true),
        (vec!["red"], None, false),
        (Vec::new(), Some("kubernetes.io/metadata.name=red"), false),
        (
            vec!["default"],
            Some("kubernetes.io/metadata.name=red"),
            true,
        ),
    ] {
        let mut to_store = term("app=store", "zone");
        to_store.namespaces = namespaces.iter().map(|name| (*name).to_owned()).collect();
        to_store.namespace_selector = selected.map(selector);
        let web = near("web", "app=web", to_store);
        let mut placer = Placer::new(zones().into(), 110, &declared);
        pin(&mut placer, &store, "b1");
        let found = placer.place(&web).is_ok();
        assert_eq!(found, expected, "{namespaces:?} {selected:?}");
    }
}

#[test]
fn a_pod_counts_once_however_many_workloads_have_rules() {
    let mut pod = workload("pod", "app=pod");
    pod.template.spec.spread.push(spread("app=pod", "zone", 2));
    pod.template.spec.spread[0].honor_affinity = false;
    pod.template.spec.node_selector = labels("host=a1");
    let other = near("other", "", term("app=pod", "zone"));
    let mut placer = placer(zones());
    assert_eq!(places(&mut placer, &pod, 1), "a1");
    assert_eq!(places(&mut placer, &other, 1), "a2");
    assert_eq!(places(&mut placer, &pod, 1), "a1");
    let refused = "0 of 4 nodes: 3 do not match spec.nodeSelector, 1 would break \
                   spec.topologySpreadConstraints";
    assert_eq!(result_text(placer.place(&pod)), refused);
}
