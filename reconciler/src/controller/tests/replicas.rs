//! ReplicaSets and bare Pods.

use super::scene::{Scene, replica_set, workload};
use crate::{name::WorkloadKind, object::Control};

#[test]
fn a_replica_set_has_the_wanted_number_of_pods() {
    replica_set(2).expect(&[
        ("", "2 web-"),
        ("new@a+ new@b+", ""),
        ("old@a+ old@b", ""),
        (
            "new@a+ new@b+ new@c+ new@a+ new@b+",
            "stop 5 ScaledDown, stop 4 ScaledDown, stop 3 ScaledDown",
        ),
        ("new@a! new@b+", "stop 1 Failed, web-"),
        ("new@a!x new@b+", "web-"),
        ("new@-", ""),
    ]);
    replica_set(3).expect(&[("new@a+", "2 web-")]);
    replica_set(5001).expect(&[("", "5000 web-")]);
}

#[test]
fn a_restart_replaces_available_pods_one_by_one_and_others_at_once() {
    let restarted =
        |replicas, serial| replica_set(replicas).with(|scene| scene.restarted = Some(serial));
    restarted(2, 2).expect(&[
        ("new@a+ new@b+", "stop 1 Restarted"),
        ("new@a new@b+", "stop 1 Restarted"),
        ("new@a new@b", "stop 1 Restarted, stop 2 Restarted"),
        ("new@a? new@b+", ""),
    ]);
    restarted(2, 1).expect(&[
        ("new@a+", "web-"),
        ("new@a+ new@b", ""),
        ("new@a+ new@b+", "stop 1 Restarted"),
        // Pods that must restart go first where there are too many.
        ("new@a+ new@b+ new@c+", "stop 1 ScaledDown"),
        (
            "new@a+ new@b+ new@c+ new@b+",
            "stop 1 ScaledDown, stop 4 ScaledDown",
        ),
    ]);
    restarted(2, 2)
        .draining("a")
        .expect(&[("new@a+ new@b+", "stop 1 Restarted")]);
}

#[test]
fn a_bare_pod_is_made_once_and_replaced_after_it_is_gone() {
    let scene = Scene::of(workload(WorkloadKind::Pod, "new", Control::Pod));
    scene.expect(&[
        ("", "web"),
        ("new@a+", ""),
        ("new@a!", ""),
        ("old@a+", "stop 1 Replaced"),
        ("old@ax", ""),
        ("old@a+ new@b+", "stop 1 Replaced"),
        ("new@a+ new@b+", "stop 2 ScaledDown"),
        ("new@a new@b+", "stop 1 ScaledDown"),
        // Which of them stays is decided when both are reported, or cannot be.
        ("new@a? new@b+", ""),
        ("new@a~ new@b+", "stop 1 ScaledDown"),
    ]);
    let scene = scene.with(|scene| scene.restarted = Some(1));
    scene.expect(&[("new@a+", "stop 1 Restarted"), ("new@ax new@a+", "")]);
}
