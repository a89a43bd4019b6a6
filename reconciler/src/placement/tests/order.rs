//! The order of nodes while pods of several templates are placed by turns.

use super::build::{
    labels, node, pin, placer, places, record, requesting, result_text, sized, with_port, workload,
};
use crate::{
    name::{NodeName, TemplateHash},
    object::Workload,
    placement::{Candidate, Placer, names::Names},
};

fn only_on(mut workload: Workload, node: &str) -> Workload {
    workload.template.spec.node_selector = labels(&format!("host={node}"));
    workload
}

fn two() -> Vec<Candidate> {
    vec![node("a", ""), node("b", "")]
}

#[test]
fn pods_of_other_templates_count_although_the_order_was_computed_before() {
    let (web, later) = (workload("web", ""), workload("later", ""));
    let other = only_on(workload("other", ""), "b");
    let mut placer = placer(vec![node("a", ""), node("b", ""), node("c", "")]);
    assert_eq!(places(&mut placer, &web, 1), "a");
    assert_eq!(places(&mut placer, &other, 2), "b b");
    assert_eq!(places(&mut placer, &later, 3), "c a b");
}

#[test]
fn requests_of_other_templates_count_although_the_order_was_computed_before() {
    let web = requesting(workload("web", ""), 100, 0);
    let later = requesting(workload("later", ""), 100, 0);
    let (tiny, huge) = (
        workload("tiny", ""),
        requesting(workload("huge", ""), 500, 0),
    );
    let nodes = ["a", "b", "c"].map(|name| sized(node(name, ""), 1000, 1000));
    let mut placer = placer(nodes.to_vec());
    assert_eq!(places(&mut placer, &web, 1), "a");
    pin(&mut placer, &tiny, "b b b");
    pin(&mut placer, &huge, "c");
    // Usage ranks before the number of pods.
    assert_eq!(places(&mut placer, &later, 3), "b a c");
}

#[test]
fn a_node_without_pods_of_the_owner_ranks_before_one_with_fewer_pods() {
    let (web, noise) = (workload("web", ""), workload("noise", ""));
    let mut existing = placer(two());
    pin(&mut existing, &noise, "a a");
    pin(&mut existing, &web, "b");
    assert_eq!(places(&mut existing, &web, 1), "a");

    let mut placed = placer(two());
    pin(&mut placed, &noise, "b b b");
    assert_eq!(places(&mut placed, &web, 3), "a b a");
}

#[test]
fn among_nodes_with_as_many_pods_of_the_owner_the_present_load_decides() {
    let (web, noise) = (workload("web", ""), workload("noise", ""));
    let mut by_pods = placer(two());
    pin(&mut by_pods, &noise, "a a b");
    pin(&mut by_pods, &web, "b");
    assert_eq!(places(&mut by_pods, &web, 2), "a b");

    let web = requesting(web.clone(), 300, 0);
    let noise = requesting(noise.clone(), 1600, 0);
    let nodes = vec![
        sized(node("a", ""), 1000, 1000),
        sized(node("b", ""), 4000, 1000),
    ];
    let mut by_usage = placer(nodes);
    pin(&mut by_usage, &noise, "b");
    // With one pod more: a 15 %, b 23 %; then a 30 %, b 27 %.
    assert_eq!(places(&mut by_usage, &web, 3), "a b b");
}

#[test]
fn pods_of_one_owner_do_not_count_for_the_next_owner() {
    let (web, db, noise) = (
        workload("web", ""),
        workload("db", ""),
        workload("noise", ""),
    );
    let mut placer = placer(two());
    assert_eq!(places(&mut placer, &web, 1), "a");
    pin(&mut placer, &noise, "b b");
    assert_eq!(places(&mut placer, &db, 1), "a");
}

#[test]
fn pods_of_the_same_template_count_before_other_pods_of_the_owner() {
    let (old, mut new) = (workload("web", ""), workload("web", ""));
    new.template.hash = TemplateHash::new("1-bbbbbbbbbbbbbbbb");
    let mut placer = placer(two());
    pin(&mut placer, &old, "a a");
    pin(&mut placer, &new, "b");
    let chosen = placer.place(&new).expect("a node");
    assert_eq!((chosen.node.as_str(), chosen.why.owned), ("a", 2));
}

#[test]
fn a_node_with_the_images_is_chosen_before_one_with_a_lower_load() {
    let (web, noise) = (workload("web", ""), workload("noise", ""));
    let mut placer = placer(two());
    pin(&mut placer, &noise, "b b");
    placer.prefer(&web, [&NodeName::new("b"), &NodeName::new("gone")]);
    // The spread of the owner's pods ranks before the images.
    assert_eq!(places(&mut placer, &web, 3), "b a b");
}

#[test]
fn a_workload_is_kept_off_a_node_and_other_workloads_are_not() {
    let (web, db) = (workload("web", ""), workload("db", ""));
    let mut placer = placer(two());
    placer.keep_off(&NodeName::new("a"), &web);
    placer.keep_off(&NodeName::new("gone"), &web);
    assert_eq!(places(&mut placer, &web, 2), "b b");
    assert_eq!(places(&mut placer, &db, 1), "a");

    let record = record(&db, &NodeName::new("a"), false);
    placer.turn_away(&NodeName::new("b"), &record);
    assert_eq!(places(&mut placer, &db, 2), "a a");
}

#[test]
fn existing_pods_count_by_their_own_owner_and_template() {
    let with = |name: &str, hash: &str, port: u16| {
        let mut workload = with_port(workload(name, ""), port);
        workload.template.hash = TemplateHash::new(hash);
        workload
    };
    let old = with("web", "1-aaaaaaaaaaaaaaaa", 80);
    let new = with("web", "1-bbbbbbbbbbbbbbbb", 81);
    let db = with("db", "1-bbbbbbbbbbbbbbbb", 82);
    let existing = [(&old, "a"), (&new, "b"), (&db, "c")];
    let records = existing.map(|(workload, on)| record(workload, &NodeName::new(on), false));
    for (port, expected) in [(80, "b c"), (81, "a c"), (82, "a b")] {
        let next = with("next", "1-cccccccccccccccc", port);
        let mut placer = placer(vec![node("a", ""), node("b", ""), node("c", "")]);
        for (record, (workload, _)) in records.iter().zip(existing) {
            placer.add(record, || Some(workload));
        }
        let refused = format!("0 of 3 nodes: 3 have host port {port} in use");
        assert_eq!(
            places(&mut placer, &next, 3),
            format!("{expected} {refused}")
        );
    }
}

#[test]
fn a_refusal_names_the_present_reason_after_further_pods() {
    let none = std::collections::BTreeMap::new();
    let (big, tiny) = (
        requesting(workload("big", ""), 600, 0),
        workload("tiny", ""),
    );
    let little = "0 of 1 nodes: 1 have too little cpu left";
    let full = "0 of 1 nodes: 1 full";
    let record = record(&tiny, &NodeName::new("a"), false);
    for added in [false, true] {
        let nodes = vec![sized(node("a", ""), 1000, 1000)];
        let mut placer = Placer::new(nodes.into(), 2, &none);
        assert_eq!(places(&mut placer, &big, 2), format!("a {little}"));
        if added {
            placer.add(&record, || Some(&tiny));
        } else {
            pin(&mut placer, &tiny, "a");
        }
        assert_eq!(result_text(placer.place(&big)), full, "added: {added}");
    }
}

#[test]
fn every_node_and_no_other_is_looked_up_by_name() {
    let name = |number: u32| format!("n{number:03}");
    let nodes: Vec<Candidate> = (0..200).map(|number| node(&name(number), "")).collect();
    let names = Names::new(&nodes);
    for number in 0..400 {
        let found = names.find(&nodes, &NodeName::new(name(number)));
        assert_eq!(found, (number < 200).then_some(number));
    }
}
