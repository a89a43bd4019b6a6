//! Deployments: rolling updates with and without canaries, `Recreate`, and paused ones.

use super::scene::{at, named, paused, recreate, rolling};

#[test]
fn a_rolling_update_keeps_max_surge_and_max_unavailable() {
    rolling(3, 1, 0).expect(&[
        ("", "3 web-new-"),
        ("new@a+", "2 web-new-"),
        ("new@a+ new@-", ""),
        ("new@a+ new@b+ new@c+", ""),
        ("old@a+ old@b+ old@c+", "web-new-"),
        ("new@a old@a+ old@b+ old@c+", ""),
        ("new@a old@a old@b+ old@c+", ""),
        ("new@a+ old@a+ old@b+ old@c+", "stop 4 Replaced"),
        ("old@a old@b+ old@c+", "web-new-"),
        ("new@a+ new@b+ new@c+ new@a+", "stop 4 ScaledDown"),
        (
            "new@a+ new@b+ new@c+ new@a+ new@b+",
            "stop 5 ScaledDown, stop 4 ScaledDown",
        ),
    ]);
    rolling(3, 0, 1).expect(&[
        ("old@a+ old@b+ old@c+", "stop 3 Replaced"),
        ("old@a old@b+ old@c+", "stop 1 Replaced"),
        ("old@a old@b old@c+", "stop 2 Replaced"),
    ]);
    rolling(4, 1, 1).expect(&[("new@a+ new@b old@c+ old@a old@b+", "stop 4 Replaced")]);
    rolling(5001, 0, 1).expect(&[("", "5000 web-new-")]);
}

#[test]
fn during_the_wave_only_canaries_get_new_pods_and_old_ones_stay() {
    let canary = |scene: super::scene::Scene| scene.canary("a", 3);
    canary(rolling(3, 1, 0)).expect(&[
        ("old@a+ old@b+ old@c+", "web-new- on a"),
        ("old@a+ old@b+ old@c+ new@a+", "stop 1 Replaced"),
        // A canary that needs no pod to stop takes none from another node.
        ("old@b+ old@c+ old@b+ new@a+", ""),
        ("old@b+ old@c+ new@a+", ""),
        // Pods of the new template from an earlier commit stay.
        ("new@b+ old@a+ old@c+", "web-new- on a"),
        // A lost pod is made again from the old template.
        ("new@a+ old@b+", "web-old- like a 1-old"),
        ("new@a+ old@-", ""),
    ]);
    canary(rolling(3, 0, 1)).expect(&[("old@b+ old@c+ old@b+", "stop 3 Replaced")]);
    canary(rolling(4, 0, 2)).expect(&[("old@a old@b+ old@c+ old@b+", "stop 1 Replaced")]);
    rolling(3, 2, 0).canary("a b", 3).expect(&[(
        "new@a+ old@a+ old@b+ old@c+",
        "web-new- on b, stop 3 Replaced",
    )]);
    // Pods that a new commit adds have the new template.
    rolling(3, 1, 0)
        .canary("a", 1)
        .expect(&[("new@a+ old@b+", "")]);
    // A node that accepts no pod of the owner is no canary of it.
    rolling(3, 1, 0)
        .canary("a b", 3)
        .with(|scene| scene.nodes[1].cordoned = true)
        .expect(&[("old@a+ old@b+ old@c+", "web-new- on a")]);
}

#[test]
fn recreate_starts_no_pod_before_all_old_ones_are_gone() {
    recreate(2).expect(&[
        ("", "2 web-new-"),
        ("old@a+ old@b+", "stop 1 Replaced, stop 2 Replaced"),
        ("old@ax", ""),
        ("new@ax", ""),
        ("new@a+", "web-new-"),
        ("new@-", ""),
        ("new@a+ new@b+", ""),
        ("new@a!", "stop 1 Failed"),
        ("new@a! old@b+", "stop 1 Failed, stop 2 Replaced"),
        (
            "new@a+ new@b+ new@c+ new@a+ new@b+",
            "stop 5 ScaledDown, stop 4 ScaledDown, stop 3 ScaledDown",
        ),
    ]);
    let lost = |scene: super::scene::Scene| {
        scene.with(|scene| {
            scene.conditions.absent = named("a");
            scene.conditions.lost = named("a");
        })
    };
    lost(recreate(1)).expect(&[("old@ax~", "web-new-"), ("old@bx", "")]);
    // Two pods must never write to the same data.
    lost(recreate(1)).with_disk().expect(&[("old@ax~", "")]);
}

#[test]
fn a_paused_deployment_is_scaled_with_the_templates_that_it_has() {
    paused(2).expect(&[
        ("", ""),
        ("new@a+", "web-new-"),
        ("old@a+", "web-old- like c 1-old"),
        ("old@a+ new@b+", ""),
        (
            "old@a+ new@a+ old@b+ old@c+ old@a+",
            "stop 5 ScaledDown, stop 4 ScaledDown, stop 3 ScaledDown",
        ),
    ]);
    paused(4).expect(&[
        ("old@a+", "3 web-old- like c 1-old"),
        ("old@a+ new@b+", "2 web-new-"),
        ("new@a+ old@b+", "2 web-old- like c 1-old"),
    ]);
    paused(5002).expect(&[("new@a+", "5000 web-new-")]);
}

#[test]
fn a_pod_that_a_faulty_node_had_before_the_fault_is_given_up() {
    let faulty = |scene: super::scene::Scene| {
        scene.with(|scene| {
            scene.conditions.faulty = named("a");
            scene.conditions.clock = Some(at(10));
        })
    };
    faulty(rolling(1, 1, 0)).expect(&[
        ("new@a", "stop 1 Failed, web-new-"),
        ("new@a+", ""),
        ("new@a*", ""),
        ("new@b", ""),
    ]);
    faulty(rolling(1, 1, 0))
        .with_disk()
        .expect(&[("new@a", "")]);
    faulty(rolling(1, 1, 0))
        .with(|scene| scene.conditions.clock = None)
        .expect(&[("new@a", "")]);
    faulty(paused(1)).expect(&[("new@a", "")]);
}
