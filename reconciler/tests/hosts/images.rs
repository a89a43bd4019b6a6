//! Which hosts pull which images, and when: the hosts that need an image before their commit
//! becomes the driving one, and all others after it is healthy.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use reconciler::{
    commit::Commit,
    fault::FaultKind,
    name::{ImageId, ImageReference, NodeName},
    node::{Pins, images_in_use},
    observed::Observed,
    plan::ImagePin,
    state::{FailureClass, NodeLife, Phase, Share},
};

use crate::{
    build::{bare, commit, commit_id, daemon_set, deployment, pod, recreate},
    host_plan::{plan_of, sandbox},
    pulls::Images,
    world::{World, name},
};

const TEN: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

fn web(id: &str, replicas: u32, image: &str) -> Arc<Commit> {
    commit(id)
        .with(deployment("web", replicas, pod(image)))
        .build()
}

impl World {
    fn pulling(nodes: &[&str]) -> Self {
        let mut world = Self::new(nodes);
        world.images = Some(Images::default());
        world
    }

    fn images(&mut self) -> &mut Images {
        self.images.as_mut().unwrap()
    }

    fn stick(&mut self, nodes: impl IntoIterator<Item = NodeName>) {
        self.images().stuck = nodes.into_iter().collect();
    }

    /// The hosts that pulled an image while the commit was healthy, or while it was not, sorted.
    fn pulled(&self, image: &str, healthy: bool) -> Vec<&str> {
        let pulled = &self.images.as_ref().unwrap().pulled;
        let these = pulled.iter().filter(|(_, pulled, phase)| {
            pulled.as_str() == image && (phase == "Healthy") == healthy
        });
        let mut hosts: Vec<&str> = these.map(|(node, ..)| node.as_str()).collect();
        hosts.sort_unstable();
        hosts
    }

    /// The first node that is chosen for pods of an owner.
    fn first_chosen_for(&self, owner: &str) -> NodeName {
        let shares = self.state.rollout.shares_of_target().unwrap();
        let is_chosen = |share: &Share| share.pods.iter().any(|key| key.object.name == owner);
        let mut nodes = shares.nodes.iter();
        nodes.find(|(_, share)| is_chosen(share)).unwrap().0.clone()
    }

    /// The nodes that are recorded as late with the images of the target.
    fn late(&self) -> Vec<NodeName> {
        let shares = self.state.rollout.shares_of_target().unwrap();
        shares.off.keys().cloned().collect()
    }

    /// The nodes that are chosen for the pods of the target. No pull ends until `stick` is called
    /// again.
    fn chosen(&mut self) -> Vec<NodeName> {
        let all = self.nodes.keys().cloned().collect::<Vec<_>>();
        self.stick(all);
        self.run_second();
        let shares = self.state.rollout.shares_of_target().unwrap();
        shares
            .nodes
            .iter()
            .filter(|(_, share)| !share.pods.is_empty())
            .map(|(node, _)| node.clone())
            .collect()
    }
}

/// Ten nodes that run two pods of the first commit; all nodes have its image.
fn two_on_ten() -> World {
    let mut world = World::pulling(&TEN);
    world.push(web("c1", 2, "web:1"));
    world.run(60);
    world.expect_healthy("c1");
    world
}

#[test]
fn an_image_is_pulled_by_the_chosen_nodes_and_two_spare_ones_and_later_by_all() {
    let mut world = two_on_ten();
    assert_eq!(world.pulled("web:1", false).len(), 4);
    world.push(web("c2", 2, "web:2"));
    world.run(60);
    world.expect_healthy("c2");
    let before = world.pulled("web:2", false);
    assert_eq!(before.len(), 4, "{before:?}");
    for place in world.nodes_of("web") {
        assert!(before.contains(&place), "{place} is not one of {before:?}");
    }
    assert_eq!(
        world.pulled("web:2", true).len(),
        6,
        "the other nodes pull after the commit was healthy"
    );
}

#[test]
fn a_first_commit_has_no_canaries_and_prepares_none() {
    let chosen = |canary: Option<&NodeName>| {
        let mut world = World::pulling(&TEN);
        world.settings.rollout.canary_nodes = canary.into_iter().cloned().collect();
        world.push(web("c1", 2, "web:1"));
        world.chosen()
    };
    let expected = chosen(None);
    let other = TEN
        .map(name)
        .into_iter()
        .find(|node| !expected.contains(node));
    assert_eq!(chosen(other.as_ref()), expected);
}

#[test]
fn without_spare_images_only_the_chosen_nodes_pull() {
    let mut world = two_on_ten();
    world.settings.rollout.spare_images = 0;
    world.push(web("c2", 2, "web:2"));
    world.run(60);
    world.expect_healthy("c2");
    assert_eq!(world.pulled("web:2", false), world.nodes_of("web"));
    assert_eq!(world.pulled("web:2", true).len(), 8);
}

#[test]
fn a_chosen_host_whose_pull_never_ends_delays_nothing() {
    let mut world = two_on_ten();
    world.push(web("c2", 2, "web:2"));
    let chosen = world.chosen();
    assert_eq!(chosen.len(), 2);
    world.stick([chosen[0].clone()]);
    world.run(25);
    assert_eq!(
        world.state.rollout.phase.as_str(),
        "Preparing",
        "the image may still arrive"
    );
    world.run(60);
    world.expect_healthy("c2");
    assert!(!world.nodes_of("web").contains(&chosen[0].as_str()));
    assert_eq!(
        world.pulled("web:2", false).len(),
        3,
        "the spare nodes have the image"
    );
    assert_eq!(world.pulled("web:2", true).len(), 6);
    world.stick([]);
    world.run(10);
    assert_eq!(
        world.pulled("web:2", true).len(),
        7,
        "the chosen node pulls when it can"
    );
    assert!(world.state.rollout.faulty.is_empty());
}

#[test]
fn a_chosen_host_counts_as_late_until_it_has_the_images() {
    let with_one = |id: &str, web: &str, one: &str| {
        commit(id)
            .with(deployment("web", 2, pod(web)))
            .with(recreate("one", 1, pod(one)))
            .build()
    };
    let mut world = World::pulling(&TEN);
    world.settings.rollout.spare_images = 0;
    world.push(with_one("c1", "web:1", "one:1"));
    world.run(60);
    world.expect_healthy("c1");

    world.push(with_one("c2", "web:2", "one:2"));
    world.chosen();
    let [one, late] = ["one", "web"].map(|owner| world.first_chosen_for(owner));
    // The commit waits for the only host that pulls the image of `one`.
    world.stick([one, late.clone()]);
    world.run(40);
    assert_eq!(world.late(), std::slice::from_ref(&late));

    world.images().stuck.remove(&late);
    world.run(5);
    assert_eq!(world.state.rollout.phase.as_str(), "Preparing");
    assert!(world.late().is_empty());
}

#[test]
fn a_host_that_was_late_gets_pods_once_it_has_the_images() {
    let mut world = World::pulling(&["a", "b", "c", "d"]);
    world.push(web("c1", 2, "web:1"));
    world.run(60);
    world.push(web("c2", 2, "web:2"));
    let chosen = world.chosen();
    world.stick(chosen.clone());
    world.run(60);
    world.expect_healthy("c2");
    assert_eq!(world.late(), chosen);

    world.stick([chosen[1].clone()]);
    world.run(5);
    let others = world.nodes_of("web").into_iter().map(name);
    let [lost, stays] = others.collect::<Vec<_>>().try_into().unwrap();
    world.set_life(lost.as_str(), NodeLife::Lost);
    world.run(5);

    let mut expected = [chosen[0].as_str(), stays.as_str()];
    expected.sort_unstable();
    assert_eq!(world.nodes_of("web"), expected);
}

#[test]
fn images_of_running_containers_and_of_kept_commits_are_in_use() {
    let world = two_on_ten();
    let pinned = |image: &str| ImagePin {
        id: ImageId::new(image),
        digest: None,
        warning: None,
    };
    let pins = |image: &str| BTreeMap::from([(ImageReference::new(image), pinned(image))]);
    let all = Pins::from([
        (commit_id("c1"), pins("kept")),
        (commit_id("c2"), pins("forgotten")),
    ]);
    let (id, running) = sandbox(World::identity(world.pods("web")[0]), world.now);
    let mut observed = Observed::default();
    observed.containers.insert(id, running);

    let used = images_in_use(&observed, &all, &BTreeSet::from([commit_id("c1")]));

    let expected = [ImageId::new("kept"), ImageId::new("pause")];
    assert_eq!(used, BTreeSet::from(expected));
}

#[test]
fn a_slow_host_that_alone_pulls_an_image_is_waited_for_until_the_deadline() {
    let mut world = two_on_ten();
    world.settings.rollout.spare_images = 0;

    world.push(
        commit("c2")
            .with(deployment("web", 2, pod("web:1")))
            .with(recreate("one", 1, pod("one:1")))
            .build(),
    );
    world.run(60);

    world.expect_healthy("c2");
    world.push(
        commit("c3")
            .with(deployment("web", 2, pod("web:1")))
            .with(recreate("one", 1, pod("one:2")))
            .build(),
    );
    let chosen = world.chosen();
    assert_eq!(chosen.len(), 1);
    world.stick(chosen.clone());
    world.run(590);
    assert_eq!(
        world.state.rollout.phase.as_str(),
        "Preparing",
        "no other node shows that the image can be pulled"
    );
    world.run(60);
    world.expect_healthy("c3");
    assert!(!world.nodes_of("one").contains(&chosen[0].as_str()));
}

#[test]
fn a_chosen_host_that_is_lost_is_replaced() {
    let mut world = two_on_ten();
    world.settings.rollout.spare_images = 0;
    world.push(web("c2", 2, "web:2"));
    let chosen = world.chosen();

    world.set_life(chosen[0].as_str(), NodeLife::Lost);
    world.stick([]);
    world.run(60);
    world.expect_healthy("c2");
    let places: Vec<String> = world
        .nodes_of("web")
        .into_iter()
        .map(str::to_owned)
        .collect();
    assert!(!places.contains(&chosen[0].to_string()));
    assert_eq!(
        world.pulled("web:2", false),
        places,
        "one node replaces the lost one, and no other node pulls"
    );
}

#[test]
fn daemon_sets_are_prepared_on_every_node() {
    let daemons = |id: &str, image: &str| commit(id).with(daemon_set("agent", pod(image))).build();
    let mut world = World::pulling(&["a", "b", "c"]);
    world.push(daemons("c1", "agent:1"));
    world.run(60);

    world.push(daemons("c2", "agent:2"));
    world.stick([name("c")]);
    world.run(25);
    assert_eq!(world.pulled("agent:2", false), ["a", "b"]);
    assert_eq!(world.state.rollout.phase.as_str(), "Preparing");
    world.run(90);
    world.expect_healthy("c2");
    assert!(
        world.state.rollout.faulty[&name("c")]
            .to_string()
            .contains("still pulling")
    );
    assert_eq!(
        world.on("agent", "c").unwrap().commit,
        commit_id("c1"),
        "no pod is stopped before its image is present"
    );
    world.stick([]);
    world.run(30);
    assert_eq!(world.on("agent", "c").unwrap().commit, commit_id("c2"));
}

#[test]
fn a_node_that_may_never_run_a_pod_never_pulls_its_image() {
    let mut world = World::pulling(&TEN);
    for node in ["h", "i", "j"] {
        let facts = &mut world.nodes.get_mut(&name(node)).unwrap().facts;
        facts.labels.insert("disk".to_owned(), "fast".to_owned());
    }
    let mut spec = pod("web:1");
    spec.node_selector
        .insert("disk".to_owned(), "fast".to_owned());
    let mut named = pod("one:1");
    named.node_name = Some(name("c"));
    world.settings.rollout.spare_images = 1;

    world.push(
        commit("c1")
            .with(deployment("web", 1, spec))
            .with(bare("one", named))
            .build(),
    );
    world.run(60);
    world.expect_healthy("c1");
    assert_eq!(world.pulled("web:1", false).len(), 2);
    assert_eq!(world.pulled("web:1", true).len(), 1);
    assert_eq!(world.pulled("one:1", false), ["c"]);
    assert!(world.pulled("one:1", true).is_empty());
}

#[test]
fn an_image_that_no_node_has_and_that_does_not_exist_fails_the_commit() {
    let mut world = two_on_ten();
    let all: Vec<NodeName> = world.nodes.keys().cloned().collect();
    world.images().failing = all
        .into_iter()
        .map(|node| (node, FaultKind::ImageMissing))
        .collect();
    world.push(web("c2", 2, "web:2"));
    world.run(20);
    world.expect_healthy("c1");
    assert_eq!(
        world
            .state
            .rollout
            .rollback
            .as_ref()
            .map(|rollback| rollback.class),
        Some(FailureClass::Image)
    );
}

#[test]
fn a_registry_that_no_host_reaches_is_waited_for_and_a_single_host_without_it_is_not() {
    let mut world = two_on_ten();
    let all: Vec<NodeName> = world.nodes.keys().cloned().collect();
    world.images().failing = all
        .into_iter()
        .map(|node| (node, FaultKind::RegistryUnreachable))
        .collect();
    world.push(web("c2", 2, "web:2"));
    world.run(100);
    assert!(
        matches!(world.state.rollout.phase, Phase::Preparing { .. }),
        "{:?}",
        world.state.rollout.phase
    );
    let shares = world.state.rollout.shares_of_target().unwrap().clone();
    assert_eq!(shares.nodes.len(), 4, "no other node pulls: {shares:?}");
    let first = shares
        .nodes
        .iter()
        .find(|(_, share)| !share.pods.is_empty())
        .unwrap()
        .0
        .clone();
    world.images().failing.retain(|node, _| *node == first);
    world.run(90);
    world.expect_healthy("c2");
    assert!(!world.nodes_of("web").contains(&first.as_str()));
}

#[test]
fn an_unchanged_workload_keeps_its_image_on_every_host() {
    let with = |id: &str, other: &str| {
        commit(id)
            .with(deployment("web", 2, pod("web:latest")))
            .with(deployment("other", 1, pod(other)))
            .build()
    };
    let mut world = World::pulling(&TEN);
    world.push(with("c1", "other:1"));
    world.run(60);
    world.images().generation = 1;
    world.push(with("c2", "other:2"));
    world.run(60);
    world.expect_healthy("c2");
    for (node, pins) in &world.images.as_ref().unwrap().pins {
        let pins = &pins[&commit_id("c2")];
        let pinned = |image: &str| &pins[&ImageReference::new(image)].id;
        assert_eq!(*pinned("web:latest"), ImageId::new("0"), "{node}");
        assert_eq!(*pinned("other:2"), ImageId::new("1"), "{node}");
    }
}

#[test]
fn pods_of_a_lost_host_are_replaced_on_hosts_with_their_image() {
    let mut world = two_on_ten();
    world.push(web("c2", 2, "web:2"));
    world.chosen();
    world.stick([]);

    // Wait only until the commit is soaking, before the other nodes have pulled its image.
    for _ in 0..30 {
        if world.state.rollout.phase != Phase::Soaking {
            world.run_second();
        }
    }
    assert_eq!(world.state.rollout.phase, Phase::Soaking);
    let before: Vec<String> = world
        .pulled("web:2", false)
        .into_iter()
        .map(str::to_owned)
        .collect();
    let all: Vec<NodeName> = world.nodes.keys().cloned().collect();
    world.stick(all);
    world.run(15);
    world.expect_healthy("c2");
    let node = world.nodes_of("web")[0].to_owned();

    world.set_life(&node, NodeLife::Lost);
    world.run(5);
    for place in world.nodes_of("web") {
        assert!(
            place != node && before.iter().any(|node| node == place),
            "{place} is not one of {before:?}"
        );
    }
}

#[test]
fn a_host_that_is_alone_prepares_nothing_for_a_commit_that_is_healthy() {
    for (nodes, prepares) in [(&["a"][..], false), (&["a", "b"][..], true)] {
        let mut world = World::new(nodes);
        world.push(web("c1", 1, "web:1"));
        world.run(30);
        world.expect_healthy("c1");
        let plan = plan_of(&world, "a", Vec::new(), &[]);
        assert_eq!(!plan.report.prepared.is_empty(), prepares, "{nodes:?}");
    }
}
