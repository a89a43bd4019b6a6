//! How workloads are counted and judged, by pods written as text.

use std::time::Duration;

use super::{Judgement, judge, tally::Tally, worst};
use crate::{
    controller::tests::scene::{
        Scene, at, daemon_set, named, paused, recreate, replica_set, rolling, workload,
    },
    name::WorkloadKind,
    object::{Control, DaemonSetUpdate, IntOrPercent},
    state::{FailureClass, Obstacle, UnreadyReason, Unsettled, WorkloadProgress},
};

/// The count of available and wanted pods, and whether the workload is settled.
fn tally(scene: &Scene, pods: &str) -> String {
    scene.view(pods, |view| {
        let tally = Tally::of(view, &view.current());
        let settled = if tally.settled { " settled" } else { "" };
        format!("{}/{}{settled}", tally.available, tally.wanted)
    })
}

#[track_caller]
fn expect(scene: &Scene, rows: &[(&str, &str)]) {
    for (pods, expected) in rows {
        assert_eq!(tally(scene, pods), *expected, "{pods}");
    }
}

fn faulty(scene: Scene, nodes: &str) -> Scene {
    scene.with(|scene| scene.conditions.faulty = named(nodes))
}

fn absent(scene: Scene, nodes: &str) -> Scene {
    scene.with(|scene| scene.conditions.absent = named(nodes))
}

fn lost(scene: Scene, nodes: &str) -> Scene {
    absent(scene, nodes).with(|scene| scene.conditions.lost = named(nodes))
}

/// A Deployment with this deadline, in seconds.
fn late_after(scene: Scene, seconds: u64) -> Scene {
    scene.with(|scene| {
        if let Control::Deployment {
            progress_deadline, ..
        } = &mut scene.workload.control
        {
            *progress_deadline = Some(Duration::from_secs(seconds));
        }
    })
}

fn bare() -> Scene {
    Scene::of(workload(WorkloadKind::Pod, "new", Control::Pod))
}

fn daemons() -> Scene {
    daemon_set(DaemonSetUpdate::RollingUpdate {
        max_unavailable: IntOrPercent::Int(1),
        max_surge: IntOrPercent::Int(0),
    })
}

#[test]
fn a_deployment_is_settled_when_exactly_its_new_pods_are_available() {
    let scene = || rolling(2, 1, 0);
    expect(
        &scene(),
        &[
            ("new@a+ new@b+", "2/2 settled"),
            ("new@a+ new@b", "1/2"),
            ("new@a+ new@b!", "1/2"),
            ("new@a new@b", "0/2"),
            ("new@a+", "1/2"),
            ("new@a+ new@b+ new@c+", "3/2"),
            ("new@a+ new@b+ new@c", "2/2"),
            ("new@a+ new@b+ old@c+", "2/2"),
            ("new@a+ new@b+ old@c", "2/2"),
            ("new@a+ new@b+ old@c!", "2/2 settled"),
            ("new@a+ new@b+ old@cx", "2/2"),
            ("new@a+ new@b+ new@cx", "2/2"),
        ],
    );
    expect(
        &faulty(scene(), "b c"),
        &[
            ("new@a+ new@b+", "2/2 settled"),
            ("new@a+ new@b", "1/2 settled"),
            // Without one available pod nothing is known about the template.
            ("new@b new@c", "0/2"),
            ("new@a new@b", "0/2"),
            ("new@a+ new@b new@c", "1/2"),
        ],
    );
    expect(
        &lost(scene(), "c"),
        &[
            ("new@a+ new@c~", "1/2 settled"),
            ("new@a+ new@b+ old@c~", "2/2 settled"),
            ("new@a+ new@b+ old@c~x", "2/2 settled"),
        ],
    );
    expect(
        &absent(scene(), "c"),
        &[
            ("new@a+ new@c~", "1/2"),
            ("new@a+ new@b+ old@c~", "2/2"),
            ("new@a+ new@b+ old@c~x", "2/2 settled"),
        ],
    );
    expect(
        &scene().canary("a", 2),
        &[("new@a+ old@b+", "1/1 settled"), ("new@a old@b+", "0/1")],
    );
    expect(
        &paused(2),
        &[("old@a+", "0/0 settled"), ("", "0/0 settled")],
    );
}

#[test]
fn a_daemon_set_is_settled_when_each_counted_node_has_an_available_pod() {
    expect(
        &daemons(),
        &[
            ("new@a+ new@b+ new@c+", "3/3 settled"),
            ("new@a+ new@b+ new@c", "2/3"),
            ("new@a+ new@b+", "2/3"),
            ("new@a+ new@b+ new@c+ old@b+", "3/3"),
            ("new@a+ new@b+ new@c+ old@bx", "3/3"),
        ],
    );
    expect(
        &faulty(daemons(), "c"),
        &[
            ("new@a+ new@b+ new@c+", "2/2 settled"),
            ("new@a+ new@b+ old@c+", "2/2 settled"),
            ("new@a+ new@b+ old@cx", "2/2 settled"),
            ("new@a+ old@c+", "1/2"),
        ],
    );
    expect(
        &absent(daemons(), "c"),
        &[
            ("new@a+ new@b+ new@c+~", "2/2 settled"),
            ("new@a+ new@b+", "2/2 settled"),
            // What stopped or was down on a node that is out may come back as it was.
            ("new@a+ new@b+ new@c~", "2/2"),
            ("new@a+ new@b+ old@c+x", "2/2"),
            ("new@a+ new@b+ old@c+x new@c+", "2/2 settled"),
        ],
    );
    expect(
        &lost(daemons(), "c"),
        &[("new@a+ new@b+ new@c~", "2/2 settled")],
    );
    let on_delete = || daemon_set(DaemonSetUpdate::OnDelete);
    expect(
        &on_delete(),
        &[
            ("old@a+ old@b+ new@c+", "3/3 settled"),
            ("old@a+ old@b+ new@c", "2/3"),
            ("old@a+ old@b+", "2/3"),
        ],
    );
    expect(
        &faulty(on_delete(), "c"),
        &[
            ("old@a+ new@b+ new@c+", "2/2 settled"),
            ("old@a+ new@c+", "1/2"),
        ],
    );
}

#[test]
fn a_replica_set_and_a_bare_pod_count_by_their_own_rules() {
    expect(
        &replica_set(2),
        &[
            ("old@a+ new@b+", "2/2 settled"),
            ("new@a+", "1/2"),
            ("new@a+ new@b", "1/2"),
            ("new@a+ new@b+ new@c+", "3/2"),
            ("new@a+ new@b+ new@cx", "2/2"),
        ],
    );
    expect(
        &faulty(replica_set(2), "b"),
        &[
            ("new@a+ new@b", "1/2 settled"),
            ("new@a+ new@b+", "2/2 settled"),
            ("new@a+ new@b!", "1/2"),
            ("new@a+ new@b new@b", "1/2"),
        ],
    );
    expect(
        &lost(replica_set(2), "c"),
        &[("new@a+ new@b+ new@c~x", "2/2 settled")],
    );
    expect(
        &bare(),
        &[
            ("new@a+", "1/1 settled"),
            ("new@a", "0/1"),
            ("new@a!", "0/1 settled"),
            ("old@a!", "0/1"),
            ("new@a+ old@bx", "1/1"),
            ("new@a+ new@b+", "2/1"),
        ],
    );
    expect(&absent(bare(), "b"), &[("new@a+ old@b~x", "1/1 settled")]);
}

/// The judgement of an owner that has made no progress for 100 s.
fn judgement(scene: &Scene, pods: &str) -> Judgement {
    let progress = WorkloadProgress {
        updated: 0,
        available: 0,
        since: at(0),
        template: scene.workload.template.hash.clone(),
    };
    scene.view(pods, |view| judge(view, Some(&progress), Some(at(0))))
}

/// The judgement in a word or two.
fn judged(scene: &Scene, pods: &str) -> String {
    match judgement(scene, pods) {
        Judgement::Settled => "settled".to_owned(),
        Judgement::Progressing(Unsettled::Pods(pods)) => {
            format!("progressing {}/{}", pods.available, pods.wanted)
        }
        Judgement::Progressing(other) => format!("progressing {other:?}"),
        Judgement::Waiting(Obstacle::LeftDown { node, .. }) => format!("left down on {node}"),
        Judgement::Waiting(Obstacle::EndsOnAbsentNode { pod, node, .. }) => {
            format!("{} ends on {node}", pod.name)
        }
        Judgement::Waiting(Obstacle::Unfinished { .. }) => "does not end".to_owned(),
        Judgement::Waiting(Obstacle::Pod { pod, .. }) => match pod.why {
            UnreadyReason::NodeUnreachable(node) => format!("{node} is unreachable"),
            why => format!("waiting {why:?}"),
        },
        Judgement::Waiting(other) => format!("waiting {other:?}"),
        Judgement::Failed(failure) => format!("failed {:?}", failure.class),
    }
}

#[test]
fn a_workload_waits_for_what_is_outside_of_the_commit() {
    let long = |scene: Scene| late_after(scene, 600);
    let cases = [
        (long(rolling(2, 1, 0)), "new@a+ new@b+", "settled"),
        (long(rolling(2, 1, 0)), "new@a+ new@b", "progressing 1/2"),
        (long(rolling(2, 1, 0)), "new@a+ new@b~", "b is unreachable"),
        // An unreachable node at fault is waited for only while no pod is available.
        (
            faulty(long(rolling(2, 1, 0)), "b"),
            "new@a new@b~",
            "b is unreachable",
        ),
        (
            faulty(long(rolling(3, 1, 0)), "b"),
            "new@a+ new@b~ new@c",
            "progressing 1/3",
        ),
        // A stop that takes longer than 30 s is waited for once all new pods are available.
        (long(rolling(1, 1, 0)), "new@a+ old@bx", "does not end"),
        (long(rolling(1, 1, 0)), "new@a old@bx", "progressing 0/1"),
        (
            absent(daemons(), "c"),
            "new@a+ new@b+ new@c~",
            "left down on c",
        ),
        (absent(long(recreate(1)), "c"), "old@c~x", "web-1 ends on c"),
        (
            absent(long(rolling(1, 1, 0)), "c"),
            "old@c~x",
            "progressing 0/1",
        ),
        (absent(bare(), "b"), "old@b~x", "web-1 ends on b"),
    ];
    for (scene, pods, expected) in cases {
        assert_eq!(judged(&scene, pods), expected, "{pods}");
    }
}

#[test]
fn a_workload_fails_at_its_deadline() {
    let within = |seconds| late_after(rolling(1, 1, 0), seconds);
    assert_eq!(judged(&within(101), "new@a"), "progressing 0/1");
    assert_eq!(judged(&within(100), "new@a"), "failed Deadline");
    assert_eq!(judged(&within(100), "new@a+"), "settled");
}

#[test]
fn a_failure_is_worse_than_waiting_and_waiting_than_progress() {
    let keys: Vec<_> = ["a", "b", "c"]
        .map(|name| {
            let mut key = workload(WorkloadKind::Deployment, "new", Control::Pod).key;
            key.object.name = name.into();
            key
        })
        .into();
    let failed = judgement(&late_after(rolling(1, 1, 0), 1), "new@a");
    assert!(
        matches!(&failed, Judgement::Failed(failure) if failure.class == FailureClass::Deadline)
    );
    let waiting = judgement(&rolling(2, 1, 0), "new@a+ new@b~");
    assert!(matches!(waiting, Judgement::Waiting(_)));
    let all = |judgements: [&Judgement; 3]| {
        worst(keys.iter().zip(judgements.map(Clone::clone)).collect())
    };
    let settled = Judgement::Settled;
    let progressing = judgement(&rolling(2, 1, 0), "new@a+ new@b");
    assert_eq!(all([&settled, &settled, &settled]), settled);
    assert_eq!(all([&settled, &progressing, &settled]), progressing);
    assert_eq!(all([&progressing, &waiting, &settled]), waiting);
    assert_eq!(all([&progressing, &waiting, &failed]), failed);
}
