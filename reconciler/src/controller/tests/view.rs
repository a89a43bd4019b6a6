//! What controllers ask of a pod and of the nodes.

use super::scene::{at, daemon_set, named, recreate, replica_set, rolling};
use crate::{
    controller::OwnedPod,
    object::DaemonSetUpdate,
    state::{ReceivedTime, StopReason},
};

#[test]
fn an_event_counts_if_its_node_had_received_the_time_before() {
    replica_set(1).view("new@a+", |view| {
        let received = |told, at| Some(ReceivedTime { told, at });
        let is_since = |clock, received| {
            let pod = OwnedPod {
                clock: received,
                ..view.pods[0]
            };
            [49, 50, 51].map(|second| pod.is_since(clock, at(second)))
        };
        assert_eq!(is_since(None, None), [true, true, true]);
        assert_eq!(is_since(Some(at(7)), None), [false, false, false]);
        let same = received(at(7), at(50));
        assert_eq!(is_since(Some(at(7)), same), [false, true, true]);
        let other = received(at(6), at(50));
        assert_eq!(is_since(Some(at(7)), other), [false, false, false]);
    });
}

#[test]
fn a_pod_on_a_faulty_or_lost_node_is_no_evidence() {
    let scene = replica_set(4).with(|scene| {
        scene.conditions.faulty = named("a");
        scene.conditions.lost = named("b");
        scene.conditions.absent = named("b c");
    });
    scene.view("new@a+ new@b+ new@c+ new@d+ new@-", |view| {
        let of = |test: &dyn Fn(&OwnedPod<'_>) -> bool| -> Vec<bool> {
            view.pods.iter().map(test).collect()
        };
        let aside = of(&|pod| view.conditions.is_aside(pod));
        assert_eq!(aside, [true, true, false, false, false]);
        let absent = of(&|pod| view.conditions.is_absent(pod));
        assert_eq!(absent, [false, true, true, false, false]);
    });
}

#[test]
fn an_absent_node_left_down_had_pods_and_none_of_them_was_available() {
    let scene = replica_set(4).with(|scene| {
        scene.conditions.lost = named("b");
        scene.conditions.absent = named("b c");
    });
    let rows = [
        ("new@c", true),
        ("new@c+", false),
        ("new@c+x", true),
        ("new@c new@c+", false),
        ("new@b+", false),
        ("", false),
    ];
    for (pods, left_down) in rows {
        scene.view(pods, |view| {
            let is_down = |node| {
                let node = crate::name::NodeName::new(node);
                view.conditions.left_down(&node, view.pods)
            };
            assert_eq!(is_down("c"), left_down, "{pods}");
            // A lost node is not waited for, and a node that reports is not absent.
            assert!(!is_down("a") && !is_down("b"), "{pods}");
        });
    }
    scene.view("new@b new@a", |view| {
        for node in named("a b") {
            assert!(!view.conditions.left_down(&node, view.pods), "{node}");
        }
    });
}

#[test]
fn a_pod_is_current_by_its_template_and_the_last_restart() {
    let scene = rolling(4, 1, 0).with(|scene| scene.restarted = Some(2));
    scene.view("new@a+ old@a+ new@a+ old@a+", |view| {
        let current: Vec<bool> = view.pods.iter().map(|pod| view.is_current(pod)).collect();
        assert_eq!(current, [false, false, true, false]);
        let reasons: Vec<StopReason> = view
            .pods
            .iter()
            .map(|pod| view.outdated_reason(pod))
            .collect();
        let (restarted, replaced) = (StopReason::Restarted, StopReason::Replaced);
        assert_eq!(reasons, [restarted, replaced, restarted, replaced]);
    });
}

#[test]
fn pods_of_a_recreate_deployment_never_overlap_and_those_of_others_may() {
    let overlaps = |scene: super::scene::Scene| scene.view("", |view| !view.never_overlaps());
    assert!(!overlaps(recreate(1)));
    assert!(overlaps(rolling(1, 1, 0)));
    assert!(overlaps(replica_set(1)));
    assert!(overlaps(daemon_set(DaemonSetUpdate::OnDelete)));
}

#[test]
fn a_pod_is_available_if_it_is_active_and_ready_on_a_reachable_node() {
    replica_set(1).view("new@a+ new@a new@a+~ new@a+x new@a? new@a!", |view| {
        let of =
            |test: fn(&OwnedPod<'_>) -> bool| -> Vec<bool> { view.pods.iter().map(test).collect() };
        assert_eq!(
            of(|pod| pod.is_ready()),
            [true, false, false, true, false, false]
        );
        assert_eq!(
            of(|pod| pod.is_active()),
            [true, true, true, false, true, false]
        );
        let available: Vec<bool> = view.pods.iter().map(|pod| view.is_available(pod)).collect();
        assert_eq!(available, [true, false, false, false, false, false]);
    });
}
