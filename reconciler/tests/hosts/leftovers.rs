//! What is on a host and belongs to no pod.

use std::collections::BTreeSet;

use reconciler::{
    name::LinkName,
    observed::Observed,
    plan::{LaneKey, Step},
    pod::link::link_name,
};

use crate::{
    build::{bare, commit, pod},
    host_plan::{plan_with, settled},
};

#[test]
fn the_link_of_a_pod_that_is_nowhere_is_removed() {
    let world = settled(commit("c1").with(bare("web", pod("web:1"))).build());
    let web = world.pods("web")[0];
    let host = web.place.node().unwrap().to_string();
    let strange = LinkName::parse(&format!("{}strange", LinkName::PREFIX)).unwrap();
    let observed = Observed {
        links: BTreeSet::from([strange.clone(), link_name(&web.uid)]),
        ..Observed::default()
    };

    let plan = plan_with(
        &world,
        &host,
        Vec::new(),
        Vec::new(),
        observed,
        &world.memory,
    );

    let links: Vec<_> = plan
        .lanes
        .iter()
        .filter(|lane| matches!(lane.key, LaneKey::Link(_)))
        .map(|lane| (lane.key.clone(), lane.steps.clone()))
        .collect();
    let removed = vec![Step::Disconnect(strange.clone())];
    assert_eq!(links, [(LaneKey::Link(strange), removed)]);
}
