//! DaemonSets.

use super::scene::{Scene, daemon_set, named};
use crate::object::{DaemonSetUpdate, IntOrPercent};

fn rolling(max_surge: u32, max_unavailable: u32) -> Scene {
    daemon_set(DaemonSetUpdate::RollingUpdate {
        max_unavailable: IntOrPercent::Int(max_unavailable),
        max_surge: IntOrPercent::Int(max_surge),
    })
}

#[test]
fn a_daemon_set_has_one_pod_on_every_node() {
    rolling(0, 1).expect(&[
        ("", "web- on a, web- on b, web- on c"),
        ("new@a+ new@b+ new@c+", ""),
        ("new@ax new@b+ new@c+", ""),
        ("new@a! new@b+ new@c+", "stop 1 Failed"),
        ("new@a+ old@a+ new@b+ new@c+", "stop 2 ScaledDown"),
        ("new@a? new@a+ new@b+ new@c+", ""),
        ("new@a~ new@a+ new@b+ new@c+", "stop 1 ScaledDown"),
    ]);
    rolling(0, 1)
        .with(|scene| scene.conditions.absent = named("c"))
        .expect(&[("", "web- on a, web- on b")]);
}

#[test]
fn an_update_takes_down_at_most_max_unavailable_nodes() {
    let all = "old@a+ old@b+ old@c+";
    for (surge, unavailable) in [(0, 1), (0, 0)] {
        rolling(surge, unavailable).expect(&[
            (all, "stop 1 Replaced"),
            ("new@a old@b+ old@c+", ""),
            ("old@a old@b+ old@c+", "stop 1 Replaced"),
            // A pod without a recent report does not count as down, and its node does.
            ("old@a? old@b+ old@c+", ""),
            ("old@a~ old@b+ old@c+", ""),
        ]);
    }
    rolling(0, 2).expect(&[(all, "stop 1 Replaced, stop 2 Replaced")]);
    rolling(0, 1)
        .with(|scene| {
            scene.canaries = Some(named("a b c"));
            scene.down_elsewhere = 1;
        })
        .expect(&[(all, "")]);
}

#[test]
fn nodes_that_are_down_count_against_max_unavailable_unless_they_are_at_fault() {
    let absent = || rolling(0, 1).with(|scene| scene.conditions.absent = named("c"));
    absent().expect(&[
        ("old@a+ old@b+ old@c+~", "stop 1 Replaced"),
        ("old@a+ old@b+ old@c~", ""),
        ("old@a+ old@b+", "stop 1 Replaced"),
    ]);
    absent()
        .with(|scene| scene.conditions.lost = named("c"))
        .expect(&[("old@a+ old@b+ old@c~", "stop 1 Replaced")]);
    absent()
        .with(|scene| scene.conditions.faulty = named("c"))
        .expect(&[("old@a+ old@b+ old@c~", "stop 1 Replaced")]);
    // The pod of an earlier commit may be the only one that runs on a faulty node.
    rolling(0, 1)
        .with(|scene| scene.conditions.faulty = named("c"))
        .expect(&[("old@a+ old@b+ old@c", "stop 1 Replaced")]);
    // One node down, one absent, and one elsewhere.
    let three = |unavailable| {
        rolling(0, unavailable).with(|scene| {
            scene.conditions.absent = named("c");
            scene.canaries = Some(named("a b c"));
            scene.down_elsewhere = 1;
        })
    };
    three(3).expect(&[("old@a+ new@b old@c~", "")]);
    three(4).expect(&[("old@a+ new@b old@c~", "stop 1 Replaced")]);
}

#[test]
fn with_surge_a_new_pod_is_available_before_the_old_one_stops() {
    rolling(1, 0).expect(&[
        ("old@a+ old@b+ old@c+", "web- on a"),
        ("new@a old@a+ old@b+ old@c+", ""),
        ("new@a+ old@a+ old@b+ old@c+", "stop 2 Replaced"),
        ("new@a+ new@a+ new@b+ new@c+", "stop 2 ScaledDown"),
    ]);
    rolling(2, 0).expect(&[
        ("old@a+ old@b+ old@c+", "web- on a, web- on b"),
        ("new@a old@a+ old@b+ old@c+", "web- on b"),
    ]);
}

#[test]
fn on_delete_only_a_restart_replaces_pods() {
    let all = "old@a+ old@b+ old@c+";
    daemon_set(DaemonSetUpdate::OnDelete).expect(&[(all, ""), ("old@a", "web- on b, web- on c")]);
    daemon_set(DaemonSetUpdate::OnDelete)
        .with(|scene| scene.restarted = Some(2))
        .expect(&[
            (all, "stop 1 Restarted"),
            ("old@a old@b+ old@c+", "stop 1 Restarted"),
            ("old@cx old@b old@a+ old@c+", "stop 2 Restarted"),
        ]);
    rolling(0, 1)
        .with(|scene| scene.restarted = Some(1))
        .expect(&[
            (all, "stop 1 Restarted"),
            ("new@a+ new@b+ new@c+", "stop 1 Restarted"),
        ]);
}

#[test]
fn a_pod_is_stopped_only_on_a_known_and_present_node_that_refuses_it() {
    let only_on_a = |scene: &mut Scene| {
        let spec = &mut scene.workload.template.spec;
        spec.node_selector.insert("host".to_owned(), "a".to_owned());
    };
    rolling(0, 1).with(only_on_a).expect(&[
        ("new@a+ new@b+", "stop 2 NodeExcluded"),
        ("new@a+ new@bx", ""),
        ("new@a+ new@z+", ""),
    ]);
    rolling(0, 1)
        .with(only_on_a)
        .with(|scene| scene.conditions.absent = named("b"))
        .expect(&[("new@a+ new@b+~", "")]);
}
