//! Which pods a host forbids by the required rules between pods.

use super::build::{labels, node, spread, tainted, term, workload, zones};
use crate::{
    name::{NodeName, PodUid},
    object::Workload,
    placement::{Candidate, Neighbour, Surroundings, relates, repels},
    state::Unfit,
};

/// An existing pod: its workload, its node, and whether it is stopping.
type Pod<'a> = (&'a Workload, &'static str, bool);

fn near(name: &str, text: &str, pods: &str) -> Workload {
    let mut workload = workload(name, text);
    let terms = &mut workload.template.spec.affinity.pods.required;
    terms.push(term(pods, "zone"));
    workload
}

fn apart(name: &str, text: &str, pods: &str) -> Workload {
    let mut workload = workload(name, text);
    let terms = &mut workload.template.spec.affinity.anti.required;
    terms.push(term(pods, "zone"));
    workload
}

fn spread_by_zone(text: &str, max_skew: u32) -> Workload {
    let mut workload = workload("pod", text);
    let constraint = spread("app=pod", "zone", max_skew);
    workload.template.spec.spread.push(constraint);
    workload
}

/// The zones a, b and c, and two nodes without a zone.
fn nodes() -> Vec<Candidate> {
    let mut nodes = zones();
    nodes.extend([node("x", ""), node("y", "")]);
    nodes
}

fn forbidden_if(
    (nodes, blind): (&[Candidate], bool),
    pods: &[Pod<'_>],
    (workload, on): (&Workload, &str),
    before: bool,
) -> Option<Unfit> {
    let none = std::collections::BTreeMap::new();
    let numbers = 0..pods.len();
    let uids: Vec<PodUid> = numbers
        .map(|number| PodUid::new(number.to_string()))
        .collect();
    let names: Vec<NodeName> = pods.iter().map(|(_, on, _)| NodeName::new(*on)).collect();
    let around = pods.iter().zip(&uids).zip(&names);
    let around = around.map(|(((workload, _, stopping), uid), node)| Neighbour {
        uid,
        node,
        workload,
        stopping: *stopping,
    });
    Surroundings::new(nodes, &none, around.collect(), blind).forbid(
        workload,
        &PodUid::new("new"),
        &NodeName::new(on),
        &|_| before,
    )
}

fn forbidden(pods: &[Pod<'_>], workload: &Workload, on: &str) -> Option<Unfit> {
    forbidden_if((&nodes(), false), pods, (workload, on), true)
}

#[test]
fn a_required_pod_must_be_in_the_same_domain() {
    let (store, noise) = (
        workload("store", "app=store"),
        workload("noise", "app=noise"),
    );
    let web = near("web", "app=web", "app=store");
    let without = Some(Unfit::PodAffinity);
    let pods = [(&noise, "b1", false), (&store, "a1", false)];
    for (on, expected) in [
        ("a1", None),
        ("a2", None),
        ("b1", without.clone()),
        ("x", without.clone()),
        ("gone", None),
    ] {
        assert_eq!(forbidden(&pods, &web, on), expected, "{on}");
    }
    assert_eq!(forbidden(&[(&store, "a1", true)], &web, "a1"), None);
    assert_eq!(forbidden(&[(&store, "x", false)], &web, "x"), without);
    assert_eq!(forbidden(&[], &web, "a1"), without);

    let mut both = near("both", "", "app=a");
    let terms = &mut both.template.spec.affinity.pods.required;
    terms.push(term("tier=x", "zone"));
    let (one, two) = (workload("one", "app=a"), workload("two", "tier=x"));
    let three = workload("three", "app=a,tier=x");
    let pods = [(&one, "b1", false), (&two, "b1", false)];
    assert_eq!(forbidden(&pods, &both, "b1"), without);
    assert_eq!(forbidden(&[(&three, "b1", false)], &both, "b1"), None);
}

#[test]
fn the_first_pod_that_requires_pods_of_its_own_kind_needs_a_label_only() {
    let web = near("web", "app=web", "app=web");
    let without = Some(Unfit::PodAffinity);
    assert_eq!(forbidden(&[], &web, "a1"), None);
    assert_eq!(forbidden(&[], &web, "x"), without);
    // A pod on a node without the label is in no domain.
    assert_eq!(forbidden(&[(&web, "y", false)], &web, "a1"), None);
    let pods = [(&web, "b1", false)];
    assert_eq!(forbidden(&pods, &web, "a1"), without);
    assert_eq!(forbidden(&pods, &web, "b1"), None);
}

#[test]
fn a_pod_is_not_measured_by_itself() {
    let none = std::collections::BTreeMap::new();
    let (shy, web) = (
        apart("shy", "app=shy", "app=shy"),
        near("web", "app=web", "app=web"),
    );
    let (uid, here, nodes) = (PodUid::new("new"), NodeName::new("a1"), nodes());
    for (workload, on) in [(&shy, "a2"), (&web, "b1")] {
        let itself = Neighbour {
            uid: &uid,
            node: &here,
            workload,
            stopping: false,
        };
        let around = Surroundings::new(&nodes, &none, vec![itself], false);
        let forbidden = around.forbid(workload, &uid, &NodeName::new(on), &|_| true);
        assert_eq!(forbidden, None, "{}", workload.key.object.name);
    }
}

#[test]
fn anti_affinity_holds_in_both_directions_within_a_domain() {
    let shy = apart("shy", "app=shy", "app=loud");
    let (loud, noise) = (workload("loud", "app=loud"), workload("noise", "app=noise"));
    let own = Some(Unfit::PodAntiAffinity);
    let others = Some(Unfit::ExistingPodAntiAffinity);
    let around = |excluded| [(&noise, "b1", false), (excluded, "a1", false)];
    for (existing, new, on, expected) in [
        (&loud, &shy, "a2", own.clone()),
        (&loud, &shy, "b1", None),
        (&shy, &loud, "a2", others.clone()),
        (&shy, &loud, "b1", None),
        (&shy, &noise, "a2", None),
        (&shy, &shy, "a2", None),
    ] {
        let name = &new.key.object.name;
        let pods = around(existing);
        assert_eq!(forbidden(&pods, new, on), expected, "{name} on {on}");
        // A pod that came later does not count.
        let later = forbidden_if((&nodes(), false), &pods, (new, on), false);
        assert_eq!(later, None, "{name} on {on}");
    }
    // Nodes without the label are in no domain.
    assert_eq!(forbidden(&[(&loud, "x", false)], &shy, "x"), None);
    assert_eq!(forbidden(&[(&loud, "x", false)], &shy, "y"), None);
    assert_eq!(forbidden(&[(&shy, "x", false)], &loud, "y"), None);
}

#[test]
fn with_unknown_pods_only_anti_affinity_is_checked() {
    let nodes = nodes();
    let web = near("web", "app=web", "app=store");
    let pod = spread_by_zone("app=pod", 1);
    let shy = apart("shy", "app=shy", "app=pod");
    let pods = [(&pod, "a1", false)];
    for (workload, sighted, blind) in [
        (&web, Some(Unfit::PodAffinity), None),
        (&pod, Some(Unfit::Spread), None),
        (
            &shy,
            Some(Unfit::PodAntiAffinity),
            Some(Unfit::PodAntiAffinity),
        ),
    ] {
        let result = |blind| forbidden_if((&nodes, blind), &pods, (workload, "a2"), true);
        assert_eq!((result(false), result(true)), (sighted, blind));
    }
}

#[test]
fn a_spread_is_broken_only_above_its_skew() {
    let (pod, wide) = (spread_by_zone("app=pod", 1), spread_by_zone("app=pod", 2));
    // Not selected by its own constraint.
    let other = spread_by_zone("app=other", 1);
    let broken = Some(Unfit::Spread);
    let one = [(&pod, "a1", false)];
    let each = [
        (&pod, "a1", false),
        (&pod, "b1", false),
        (&pod, "c1", false),
    ];
    assert_eq!(forbidden(&[], &pod, "a1"), None);
    assert_eq!(forbidden(&[], &pod, "x"), Some(Unfit::SpreadLabel));
    assert_eq!(forbidden(&one, &pod, "a2"), broken);
    assert_eq!(forbidden(&one, &pod, "b1"), None);
    assert_eq!(forbidden(&one, &wide, "a2"), None);
    assert_eq!(forbidden(&one, &other, "a2"), None);
    assert_eq!(forbidden(&each, &pod, "a2"), None);
    let two = [(&pod, "a1", false), (&pod, "a2", false)];
    assert_eq!(forbidden(&two, &other, "a2"), broken);
    assert_eq!(forbidden(&two, &wide, "a2"), broken);

    let mut preferred = pod.clone();
    preferred.template.spec.spread[0].required = false;
    assert_eq!(forbidden(&one, &preferred, "a2"), None);

    let mut many = pod.clone();
    many.template.spec.spread[0].min_domains = 3;
    assert_eq!(forbidden(&each, &many, "a2"), None);
    many.template.spec.spread[0].min_domains = 4;
    assert_eq!(forbidden(&each, &many, "a2"), broken);
}

#[test]
fn stopping_and_later_pods_count_only_in_favour_of_a_spread() {
    let pod = spread_by_zone("app=pod", 1);
    let nodes = nodes();
    assert_eq!(forbidden(&[(&pod, "a1", true)], &pod, "a2"), None);
    let elsewhere_stopping = [(&pod, "a1", false), (&pod, "b1", true), (&pod, "c1", true)];
    assert_eq!(forbidden(&elsewhere_stopping, &pod, "a2"), None);
    let later = forbidden_if((&nodes, false), &[(&pod, "a1", false)], (&pod, "a2"), false);
    assert_eq!(later, None);
}

#[test]
fn only_nodes_that_the_policies_honour_have_domains_of_a_spread() {
    let nodes = vec![
        node("a1", "zone=a,disk=ssd"),
        node("b1", "zone=b,disk=ssd"),
        tainted(node("c1", "zone=c"), "gpu:NoSchedule"),
    ];
    let pod = spread_by_zone("app=pod", 1);
    let around = [(&pod, "a1", false), (&pod, "b1", false)];
    let broken = Some(Unfit::Spread);
    for (selects, honor_affinity, honor_taints, expected) in [
        (true, true, false, None),
        (true, false, false, broken.clone()),
        (false, true, false, broken.clone()),
        (false, true, true, None),
        (false, false, true, None),
    ] {
        let mut pod = pod.clone();
        let spec = &mut pod.template.spec;
        if selects {
            spec.node_selector = labels("disk=ssd");
        }
        spec.spread[0].honor_affinity = honor_affinity;
        spec.spread[0].honor_taints = honor_taints;
        let result = forbidden_if((&nodes, false), &around, (&pod, "a1"), true);
        let case = (selects, honor_affinity, honor_taints);
        assert_eq!(result, expected, "{case:?}");
    }
}

#[test]
fn a_node_without_the_label_of_another_constraint_has_no_domain() {
    let nodes = vec![
        node("a1", "zone=a,rack=1"),
        node("b1", "zone=b,rack=2"),
        node("c1", "zone=c"),
    ];
    let mut pod = spread_by_zone("app=pod", 1);
    let around = [(&pod.clone(), "a1", false), (&pod.clone(), "b1", false)];
    let result = |pod: &Workload| forbidden_if((&nodes, false), &around, (pod, "a1"), true);
    assert_eq!(result(&pod), Some(Unfit::Spread));
    let by_rack = spread("app=pod", "rack", 1);
    pod.template.spec.spread.push(by_rack);
    assert_eq!(result(&pod), None);
}

#[test]
fn only_required_rules_relate_a_workload_to_other_pods() {
    let mut wish = workload("wish", "");
    let preferred = (1, term("app=a", "zone"));
    wish.template.spec.affinity.pods.preferred = vec![preferred.clone()];
    wish.template.spec.affinity.anti.preferred = vec![preferred];
    let mut loose = spread_by_zone("", 1);
    loose.template.spec.spread[0].required = false;
    for (workload, expected) in [
        (wish, (false, false)),
        (loose, (false, false)),
        (spread_by_zone("", 1), (true, false)),
        (near("near", "", "app=a"), (true, false)),
        (apart("apart", "", "app=a"), (true, true)),
    ] {
        let result = (relates(&workload), repels(&workload));
        assert_eq!(result, expected, "{}", workload.key.object.name);
    }
}
