//! Heads that are held, refused, superseded, missing or not followed.

use reconciler::{rollout::Head, state::CommitState};

use super::sim;
use crate::build::{PodSpecExt, bare, commit, commit_id, deployment, node_port, pod, replica_set};

#[test]
fn deletions_over_the_budget_are_held_until_a_commit_allows_them() {
    let mut sim = sim();
    let all = ["a", "b", "c", "d"].into_iter();
    let four = all.fold(commit("c1"), |commit, name| {
        commit.with(bare(name, pod("web:1")))
    });

    sim.push(four.build());
    sim.run_seconds(30);

    let before = sim.alive();
    sim.push(commit("c2").with(bare("a", pod("web:1"))).build());
    sim.run_seconds(60);
    sim.expect_healthy("c1");
    sim.expect(
        sim.outcome("c2")
            .is_some_and(|(state, _)| state == CommitState::Held),
        "held",
    );
    sim.expect(sim.alive() == before, "no container stopped");
    sim.expect_idle();

    sim.push(
        commit("c3")
            .with(bare("a", pod("web:1")))
            .allow_deletions()
            .build(),
    );
    sim.run_seconds(60);
    sim.expect_healthy("c3");
    sim.expect(
        sim.state.pods.len() == 1 && sim.host.containers.len() == 2,
        "only one pod is left",
    );
    sim.expect_idle();
}

#[test]
fn one_workload_may_always_be_deleted() {
    let mut sim = sim();
    sim.push(
        commit("c1")
            .with(bare("a", pod("web:1")))
            .with(bare("b", pod("web:1")))
            .build(),
    );
    sim.run_seconds(30);

    sim.push(commit("c2").with(bare("a", pod("web:1"))).build());
    sim.run_seconds(30);
    sim.expect_healthy("c2");
    sim.expect(sim.state.pods.len() == 1, "b is gone");
}

#[test]
fn a_refused_head_changes_no_pod_and_is_recorded_once() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("web:1"))).build());
    sim.run_seconds(30);
    let before = sim.alive();

    sim.head = Head::Refused {
        commit: commit_id("c2"),
        subject: "Change".to_owned(),
        signer: "dev@example.com".to_owned(),
        reason: "not signed".to_owned(),
    };
    sim.cycle();
    sim.run_seconds(60);
    sim.expect_healthy("c1");
    sim.expect(sim.alive() == before, "no container stopped");
    sim.expect(
        sim.outcome("c2") == Some((CommitState::Refused, "not signed".to_owned())),
        "the history has the refusal",
    );
    let signer = sim.state.rollout.history.last().map(|entry| &entry.signer);
    sim.expect(
        signer.is_some_and(|signer| signer == "dev@example.com"),
        "the history has the signer",
    );

    sim.head = Head::Unknown;
    sim.run_seconds(60);
    sim.expect_healthy("c1");
}

#[test]
fn a_suspended_daemon_follows_no_commit_and_still_repairs_pods() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("web:1"))).build());
    sim.run_seconds(30);

    sim.state.rollout.suspended = true;
    sim.push(commit("c2").with(bare("web", pod("web:2"))).build());
    let main = sim.main("web");
    sim.host.remove(&main);
    sim.cycle();
    sim.run_seconds(60);
    sim.expect_healthy("c1");
    sim.expect(sim.ready("web") == 1, "the pod was repaired");

    sim.state.rollout.suspended = false;
    sim.cycle();
    sim.run_seconds(60);
    sim.expect_healthy("c2");
}

#[test]
fn a_newer_commit_supersedes_a_rollout() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("web:1"))).build());
    sim.run_seconds(30);

    sim.push(
        commit("c2")
            .with(bare("web", pod("web:deaf").with_readiness()))
            .build(),
    );
    sim.run_seconds(20);

    sim.push(commit("c3").with(bare("web", pod("web:2"))).build());
    sim.run_seconds(30);
    sim.expect_healthy("c3");
    sim.expect(
        sim.outcome("c2")
            .is_some_and(|(state, _)| state == CommitState::Superseded),
        "the history has the commit as superseded",
    );
    sim.expect(!sim.is_bad("c2"), "a superseded commit is not bad");
}

#[test]
fn a_missing_commit_is_waited_for() {
    let mut sim = sim();
    sim.push(
        commit("c1")
            .with(replica_set("web", 2, pod("web:1")))
            .build(),
    );
    sim.run_seconds(5);
    let kept = std::mem::take(&mut sim.commits);
    let before = sim.alive();

    sim.head = Head::Unknown;
    sim.crash(false);
    sim.run_seconds(3600);
    sim.expect(
        sim.phase() != "Healthy" && sim.alive() == before,
        "the commit is not healthy, and its pods keep running",
    );
    sim.commits = kept;

    sim.crash(false);
    sim.run_seconds(60);
    sim.expect_healthy("c1");
}

#[test]
fn a_commit_with_other_content_stops_no_more_than_the_budget_allows() {
    let mut sim = sim();
    let names = ["a", "b", "c", "d"];
    let of = |id: &str, names: &[&str]| {
        names.iter().fold(commit(id), |commit, name| {
            commit.with(bare(name, pod("web:1")))
        })
    };

    sim.push(of("c1", &names).build());
    sim.run_seconds(30);
    let before = sim.alive();

    // The same commit has other content, as after a change of `source.paths`.
    sim.commits
        .insert(commit_id("c1"), of("c1", &["a"]).build());
    sim.crash(false);
    sim.run_seconds(60);
    sim.expect(sim.alive() == before, "no container stopped");
    let held = sim.decision().held;
    sim.expect(
        held.as_ref()
            .is_some_and(|held| held.workloads.len() == 3 && held.running == 4),
        &format!("{held:?}"),
    );
    sim.expect_idle();

    sim.push(of("c2", &["a"]).allow_deletions().build());
    sim.run_seconds(60);
    sim.expect_healthy("c2");
    sim.expect(
        sim.state.pods.len() == 1 && sim.decision().held.is_none(),
        "the allowed deletions are not held",
    );
}

#[test]
fn deletions_by_a_rollback_are_not_held() {
    let mut sim = sim();
    let of = |id: &str, names: &[&str]| {
        names
            .iter()
            .fold(commit(id), |commit, name| {
                commit.with(bare(name, pod("web:1")))
            })
            .build()
    };

    sim.push(of("c1", &["a"]));
    sim.run_seconds(30);
    // A bad commit adds many workloads: the rollback deletes all of them again.
    let names = ["a", "b", "c", "d", "e"];
    let bad = names.iter().fold(commit("c2"), |commit, name| {
        commit.with(bare(name, pod("web:1")))
    });

    sim.push(bad.with(bare("f", pod("web:crash"))).build());
    sim.run_seconds(120);
    sim.expect_healthy("c1");
    sim.expect(
        sim.state.pods.len() == 1 && sim.decision().held.is_none(),
        "only the pod of the healthy commit is left",
    );
    sim.expect(
        sim.state.rollout.left.is_empty(),
        "no superseded commit is left",
    );
}

#[test]
fn pods_of_a_superseded_commit_must_be_replaced_before_the_next_is_healthy() {
    let mut sim = sim();
    let web =
        |id: &str, image: &str| commit(id).with(deployment("web", 1, pod(image).with_readiness()));
    sim.push(web("c1", "web:1").build());
    sim.run_seconds(30);

    sim.push(web("c2", "web:deaf").build());
    sim.run_seconds(20);
    // c3 has the workloads of c1: they do not differ from the healthy commit, while pods of c2
    // still exist.
    sim.push(
        web("c3", "web:1")
            .service("web", "web", node_port(None))
            .build(),
    );
    sim.expect(sim.state.pods.len() == 2, "a pod of c2 still exists");
    sim.run_seconds(1);
    sim.expect(
        sim.phase() != "Healthy",
        "the commit must settle and soak first",
    );
    sim.run_seconds(60);
    sim.expect_healthy("c3");
    sim.expect(
        sim.state.rollout.left.is_empty(),
        "no superseded commit is left",
    );
    sim.expect_idle();
}

#[test]
fn old_bad_commits_and_restarts_of_deleted_workloads_are_dropped() {
    let mut sim = sim();
    let good = |id: &str, more: &str| {
        commit(id)
            .with(bare("web", pod("web:1")))
            .with(bare(more, pod("web:1")))
    };

    sim.push(good("c1", "old").build());
    sim.run_seconds(30);
    let owner = sim.pod("old").owner.clone();

    sim.state.rollout.restarts.insert(owner, sim.state.serial);
    sim.cycle();
    for number in 0..80 {
        sim.push(
            commit(&format!("bad{number}"))
                .with(bare("web", pod("nowhere:1")))
                .allow_deletions()
                .build(),
        );
        sim.run_seconds(60);
    }
    sim.expect(
        sim.state.rollout.bad.len() < 60 && sim.is_bad("bad79"),
        "no more bad commits are kept than the history has",
    );

    sim.push(good("c2", "new").build());
    sim.run_seconds(60);
    sim.expect_healthy("c2");
    sim.expect(
        sim.state.rollout.restarts.is_empty(),
        "no restart is kept for a deleted workload",
    );
}

#[test]
fn a_bad_head_or_target_stays_bad_after_the_history_has_forgotten_it() {
    let crash = |id: &str| commit(id).with(bare("web", pod("web:crash"))).build();
    let mut sim = sim();
    sim.push(crash("c1"));
    sim.run_seconds(60);
    sim.expect(sim.phase() == "Degraded", "there is no earlier commit");

    // The target is bad, and another commit is the head.
    sim.state.rollout.history.clear();
    sim.head = Head::Refused {
        commit: commit_id("c2"),
        subject: String::new(),
        signer: String::new(),
        reason: "a test".to_owned(),
    };
    sim.run_seconds(10);
    sim.expect(sim.is_bad("c1"), "the target stays bad");

    // The head is bad, and an earlier commit is the target.
    sim.push(commit("c3").with(bare("web", pod("web:1"))).build());
    sim.run_seconds(30);
    sim.expect_healthy("c3");
    sim.push(crash("c4"));
    sim.run_seconds(60);
    sim.expect_healthy("c3");
    sim.state.rollout.history.clear();
    sim.run_seconds(60);
    sim.expect(
        sim.is_bad("c4") && sim.is_target("c3"),
        "the head stays bad",
    );
    sim.expect(
        !sim.is_bad("c1"),
        "a commit that nothing names is forgotten",
    );
}
