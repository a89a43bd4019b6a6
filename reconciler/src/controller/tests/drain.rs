//! Drained nodes.

use super::scene::{named, recreate, replica_set, rolling};
use crate::name::NodeName;

#[test]
fn pods_leave_a_drained_node_after_their_successors_are_available() {
    replica_set(2).draining("a").expect(&[
        ("new@a+ new@b+", "web-"),
        ("new@a+ new@b+ new@c", ""),
        ("new@a+ new@b+ new@c+", "stop 1 Drained"),
        ("new@a new@b+ new@c+", "stop 1 Drained"),
        (
            "new@a new@a+ new@b+ new@c+",
            "stop 1 Drained, stop 2 Drained",
        ),
        (
            "new@a+ new@b+ new@c+ new@b+",
            "stop 4 ScaledDown, stop 1 Drained",
        ),
        // The unplaced pod reports why no node accepts a successor.
        ("new@a+ new@-", ""),
    ]);
    rolling(2, 1, 0).draining("a").expect(&[
        ("new@a+ new@b+", "web-new-"),
        ("new@a+ new@b+ new@c+", "stop 1 Drained"),
    ]);
    // The update of the template comes first.
    rolling(1, 1, 0)
        .draining("a")
        .expect(&[("old@b+ new@a+", "stop 1 Replaced")]);
}

#[test]
fn without_surge_a_pod_leaves_if_another_may_be_unavailable_and_a_node_accepts_its_successor() {
    rolling(2, 0, 1).draining("a").expect(&[
        ("new@a+ new@b+", "stop 1 Drained"),
        ("new@a+ new@b", ""),
        ("new@a+ new@b+ new@b", ""),
        ("new@a+ new@b+ new@c+", "stop 1 Drained"),
        ("new@b+", "web-new-"),
    ]);
    rolling(2, 0, 1)
        .draining("a b c")
        .expect(&[("new@a+ new@b+", "")]);
    rolling(3, 0, 2)
        .draining("a")
        .expect(&[("new@a+ new@a+ new@b+", "stop 2 Drained")]);
}

#[test]
fn without_surge_a_pod_that_is_down_leaves_at_once_and_first() {
    rolling(2, 0, 1).draining("a").expect(&[
        ("new@a new@b+", "stop 1 Drained"),
        ("new@a+ new@a", "stop 2 Drained"),
        ("new@a new@b", "stop 1 Drained"),
        // Each successor must have a node before the next pod stops.
        ("new@a new@a", "stop 2 Drained"),
        ("new@a", "web-new-"),
        ("new@a new@-", ""),
        // A pod that is not reported may be up.
        ("new@a? new@b+", ""),
    ]);
    rolling(3, 0, 1)
        .draining("a")
        .expect(&[("new@a? new@a new@b+", "stop 2 Drained")]);
    // Only one goes at a time, even if more may be unavailable.
    rolling(3, 0, 2)
        .draining("a")
        .expect(&[("new@a+ new@a new@b+", "stop 2 Drained")]);
    recreate(1).draining("a").expect(&[
        ("new@a", "stop 1 Drained"),
        ("new@a new@bx", ""),
        ("new@a?", ""),
    ]);
    recreate(2)
        .draining("a")
        .expect(&[("new@a new@b+", "stop 1 Drained")]);

    rolling(2, 0, 1)
        .draining("a b c")
        .expect(&[("new@a new@b+", "")]);
    // It would return to the node that it names.
    for (pods, stays) in [("new@a new@b+", ""), ("new@a+ new@b+", "")] {
        rolling(2, 0, 1)
            .draining("a")
            .with(|scene| {
                scene.workload.template.spec.node_name = Some(NodeName::new("a"));
            })
            .expect(&[(pods, stays)]);
    }
}

#[test]
fn recreate_drains_one_pod_at_a_time_and_only_while_no_pod_stops() {
    recreate(2).draining("a").expect(&[
        ("new@a+ new@b+", "stop 1 Drained"),
        ("new@a+ new@b+ new@cx", ""),
        ("old@b+ new@a+", "stop 1 Replaced"),
    ]);
}

#[test]
fn pods_on_absent_nodes_and_pods_that_write_to_disk_are_not_drained() {
    replica_set(2)
        .draining("a")
        .with(|scene| scene.conditions.absent = named("a"))
        .expect(&[("new@a+~ new@b+", "")]);
    replica_set(2)
        .draining("a")
        .with_disk()
        .expect(&[("new@a+ new@b+", "")]);
    replica_set(2)
        .with(|scene| scene.conditions.absent = named("a"))
        .expect(&[("new@a+~ new@b+", "")]);
}
