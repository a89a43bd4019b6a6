//! The behaviour of each kind of workload.

use reconciler::object::RestartPolicy;

use crate::{
    build::{
        PodSpecExt, bare, commit, daemon_set, deployment, on_delete, paused, pod, recreate,
        replica_set, replication_controller,
    },
    daemon::Sim,
    registry::Behaviour,
};

pub(super) fn sim() -> Sim {
    let mut sim = Sim::default();
    sim.registry.push("web:1", Behaviour::Fine);
    sim.registry.push("web:2", Behaviour::Fine);
    sim
}

#[test]
fn a_changed_replica_set_keeps_its_running_pods() {
    for make in [replica_set, replication_controller] {
        let mut sim = sim();
        sim.push(commit("c1").with(make("web", 3, pod("web:1"))).build());
        sim.run_seconds(30);
        sim.expect_healthy("c1");

        let before = sim.alive();
        sim.push(commit("c2").with(make("web", 3, pod("web:2"))).build());
        sim.run_seconds(30);
        sim.expect_healthy("c2");
        sim.expect(sim.alive() == before, "no container was changed");

        sim.push(commit("c3").with(make("web", 4, pod("web:2"))).build());
        sim.run_seconds(30);
        sim.expect_healthy("c3");
        let newest = sim.pods("web").last().unwrap().uid.clone();
        let oldest = sim.pods("web").first().unwrap().uid.clone();
        sim.expect(
            sim.image(&newest) != sim.image(&oldest),
            "a new pod has the new template",
        );
        sim.expect_idle();
    }
}

#[test]
fn an_old_pod_of_a_changed_replica_set_restarts_with_its_own_image() {
    let mut sim = sim();
    sim.push(
        commit("c1")
            .with(replica_set("web", 1, pod("web:1")))
            .build(),
    );
    sim.run_seconds(30);

    let image = sim.image(&sim.pod("web").uid);
    sim.push(
        commit("c2")
            .with(replica_set("web", 1, pod("web:2")))
            .build(),
    );
    sim.run_seconds(30);
    let main = sim.main("web");
    sim.host.remove(&main);
    sim.cycle();
    sim.run_seconds(5);
    sim.expect(
        sim.ready("web") == 1 && sim.image(&sim.pod("web").uid) == image,
        "the pod restarts with the old image",
    );
    sim.expect_idle();
}

#[test]
fn scaling_down_stops_pods_that_are_not_ready_and_then_the_newest() {
    let mut sim = sim();
    sim.push(
        commit("c1")
            .with(replica_set("web", 4, pod("web:1").with_readiness()))
            .build(),
    );
    sim.run_seconds(30);
    let uids = sim.uids("web");

    // The second pod's container ends twice, so that its next start is delayed by the back-off.
    for _ in 0..2 {
        let id = sim.container(&uids[1], "main").unwrap().0.clone();
        sim.host.end(&id, 1, sim.now);
        sim.cycle();
        sim.run_seconds(1);
    }
    sim.expect(sim.ready("web") == 3, "one pod is not ready");

    sim.push(
        commit("c2")
            .with(replica_set("web", 2, pod("web:1").with_readiness()))
            .build(),
    );
    sim.run_seconds(30);
    sim.expect(
        sim.uids("web") == [uids[0].clone(), uids[2].clone()],
        "the oldest ready pods stay",
    );
    sim.expect_idle();
}

#[test]
fn recreate_stops_all_old_pods_before_the_first_new_one_starts() {
    let mut sim = sim();
    sim.registry.push("stubborn:1", Behaviour::IgnoresTerm);
    sim.push(
        commit("c1")
            .with(recreate("web", 3, pod("stubborn:1")))
            .build(),
    );
    sim.run_seconds(30);

    let old = sim.uids("web");
    sim.push(commit("c2").with(recreate("web", 3, pod("web:2"))).build());
    sim.run_seconds(20);
    sim.expect(
        sim.pods("web").is_empty(),
        "no new pod is made while old ones are stopping",
    );
    sim.run_seconds(30);
    sim.expect_healthy("c2");
    sim.expect(sim.ready("web") == 3, "all new pods are ready");
    sim.expect(
        old.iter().all(|uid| !sim.state.pods.contains_key(uid)),
        "no old pod is left",
    );
    sim.expect_idle();
}

#[test]
fn a_paused_deployment_scales_with_its_old_template_and_settles_at_once() {
    let mut sim = sim();
    sim.push(
        commit("c1")
            .with(deployment("web", 2, pod("web:1")))
            .build(),
    );
    sim.run_seconds(30);

    let image = sim.image(&sim.pods("web")[0].uid.clone());
    sim.push(
        commit("c2")
            .with(paused(deployment("web", 3, pod("web:2"))))
            .build(),
    );
    sim.run_seconds(30);
    sim.expect_healthy("c2");
    sim.expect(sim.ready("web") == 3, "the Deployment was scaled");
    sim.expect(
        sim.uids("web").iter().all(|uid| sim.image(uid) == image),
        "all pods have the old template",
    );
    sim.expect_idle();

    sim.push(
        commit("c3")
            .with(deployment("web", 3, pod("web:2")))
            .build(),
    );
    sim.run_seconds(60);
    sim.expect_healthy("c3");
    sim.expect(
        sim.uids("web").iter().all(|uid| sim.image(uid) != image),
        "all pods have the new template after the pause",
    );
    sim.expect_idle();
}

#[test]
fn a_daemon_set_runs_one_pod_and_replaces_it_after_it_has_stopped() {
    let mut sim = sim();
    sim.push(commit("c1").with(daemon_set("agent", pod("web:1"))).build());
    sim.run_seconds(30);
    sim.expect_healthy("c1");
    let before = sim.pod("agent").uid.clone();
    sim.extremes = Default::default();

    sim.push(commit("c2").with(daemon_set("agent", pod("web:2"))).build());
    sim.run_seconds(30);
    sim.expect_healthy("c2");
    sim.expect(
        sim.pod("agent").uid != before && sim.extremes.most_active["agent"] == 1,
        "the old pod stops before the new one is made",
    );
    sim.expect_idle();
}

#[test]
fn a_daemon_set_on_delete_keeps_its_old_pod() {
    let mut sim = sim();
    sim.push(
        commit("c1")
            .with(on_delete(daemon_set("agent", pod("web:1"))))
            .build(),
    );
    sim.run_seconds(30);

    let before = sim.alive();
    sim.push(
        commit("c2")
            .with(on_delete(daemon_set("agent", pod("web:2"))))
            .build(),
    );
    sim.run_seconds(30);
    sim.expect_healthy("c2");
    sim.expect(sim.alive() == before, "no container was changed");
    sim.expect_idle();
}

#[test]
fn restarts_go_by_the_owners_strategy() {
    let mut sim = sim();
    let all = commit("c1")
        .with(deployment("rolling", 4, pod("web:1").with_readiness()))
        .with(recreate("anew", 2, pod("web:1")))
        .with(replica_set("set", 3, pod("web:1").with_readiness()))
        .with(daemon_set("agent", pod("web:1")))
        .with(bare("one", pod("web:1")));

    let all = all.build();
    sim.push(all.clone());
    sim.run_seconds(30);
    sim.expect_healthy("c1");
    let names = ["rolling", "anew", "set", "agent", "one"];
    let before: Vec<_> = names.iter().flat_map(|name| sim.uids(name)).collect();
    sim.extremes = Default::default();
    for key in all.objects.workloads.keys() {
        sim.state
            .rollout
            .restarts
            .insert(key.clone(), sim.state.serial);
    }
    sim.cycle();
    sim.run_seconds(60);
    sim.expect_healthy("c1");
    let after: Vec<_> = names.iter().flat_map(|name| sim.uids(name)).collect();
    sim.expect(
        after.len() == before.len(),
        "the number of pods is unchanged",
    );
    sim.expect(
        !after.iter().any(|uid| before.contains(uid)),
        "all pods were replaced",
    );
    sim.expect(
        sim.extremes.least_ready["rolling"] >= 3,
        "a Deployment honours maxUnavailable",
    );
    sim.expect(
        sim.extremes.least_ready["set"] >= 2,
        "a ReplicaSet restarts one pod at a time",
    );
    sim.expect(
        sim.extremes.least_ready["anew"] == 0,
        "Recreate stops all pods first",
    );
    sim.expect_idle();
}

#[test]
fn a_restart_replaces_pods_of_kinds_that_keep_old_ones() {
    let mut sim = sim();
    sim.registry.push("crash:1", Behaviour::ExitsAtOnce(1));
    let both = |id: &str, image: &str| {
        commit(id)
            .with(replica_set("set", 2, pod(image).with_readiness()))
            .with(on_delete(daemon_set("agent", pod(image).with_readiness())))
            .build()
    };

    sim.push(both("c1", "crash:1"));
    sim.run_seconds(60);

    let fixed = both("c2", "web:1");
    sim.push(fixed.clone());
    sim.run_seconds(30);
    sim.expect(sim.ready("set") == 0, "the pods of the old template stay");
    for key in fixed.objects.workloads.keys() {
        sim.state
            .rollout
            .restarts
            .insert(key.clone(), sim.state.serial);
    }
    sim.cycle();
    sim.run_seconds(60);
    sim.expect_healthy("c2");
    sim.expect(
        sim.ready("set") == 2 && sim.ready("agent") == 1,
        "all pods were replaced",
    );
    sim.expect_idle();
}

#[test]
fn a_bare_pod_that_has_completed_stays_completed() {
    let mut sim = sim();
    let ten = std::time::Duration::from_secs(10);
    sim.registry.push("job:1", Behaviour::Ends(ten, 0));

    let job = pod("job:1").with_policy(RestartPolicy::Never);
    sim.push(commit("c1").with(bare("job", job)).build());
    sim.run_seconds(60);
    sim.expect_healthy("c1");
    let uid = sim.pod("job").uid.clone();
    sim.expect(
        sim.status(&uid).phase.as_str() == "Succeeded",
        "the pod succeeded",
    );
    sim.expect(
        sim.sandbox(&uid).is_none() && sim.container(&uid, "main").is_some(),
        "the sandbox is removed, and the container is kept for its log",
    );

    sim.reboot();
    sim.run_seconds(60);
    sim.expect(
        sim.status(&uid).phase.as_str() == "Succeeded" && sim.alive().is_empty(),
        "the pod does not run again",
    );
    sim.expect_idle();
}

#[test]
fn a_taint_in_the_hosts_configuration_keeps_pods_off() {
    let mut sim = sim();
    sim.taints = vec![
        "node.kubernetes.io/disk-pressure:NoSchedule"
            .parse()
            .unwrap(),
    ];

    sim.push(
        commit("c1")
            .with(deployment("web", 1, pod("web:1")))
            .with(daemon_set("agent", pod("web:1")))
            .build(),
    );
    sim.run_seconds(30);
    sim.expect(sim.ready("web") == 0, "no node takes the pod");
    sim.expect(
        sim.ready("agent") == 1,
        "a DaemonSet tolerates this taint by itself",
    );
    sim.taints.clear();
    sim.cycle();
    sim.run_seconds(60);
    sim.expect_healthy("c1");
}

#[test]
fn a_restart_happens_once_even_if_the_clock_is_set_back() {
    let mut sim = sim();
    sim.push(
        commit("c1")
            .with(deployment("web", 2, pod("web:1").with_readiness()))
            .build(),
    );
    sim.run_seconds(30);
    let before = sim.uids("web");
    let owner = sim.pods("web")[0].owner.clone();

    sim.state.rollout.restarts.insert(owner, sim.state.serial);
    sim.now -= std::time::Duration::from_secs(3600);
    sim.cycle();
    sim.run_seconds(60);
    let after = sim.uids("web");
    sim.expect(
        after.len() == 2 && !after.iter().any(|uid| before.contains(uid)),
        "all pods were replaced",
    );
    sim.run_seconds(60);
    sim.expect(sim.uids("web") == after, "the pods are not replaced again");
}

#[test]
fn a_pod_with_a_low_deletion_cost_stops_before_newer_ones() {
    let mut sim = sim();
    let web = |id: &str, replicas: u32, image: &str, cost: &str| {
        let mut set = replica_set("web", replicas, pod(image).with_readiness());
        let cost = (
            "controller.kubernetes.io/pod-deletion-cost".to_owned(),
            cost.to_owned(),
        );
        set.template.meta.annotations.extend([cost]);
        commit(id).with(set).build()
    };

    sim.push(web("c1", 2, "web:1", "-5"));
    sim.run_seconds(30);
    sim.push(web("c2", 3, "web:2", "10"));
    sim.run_seconds(30);

    let uids = sim.uids("web");
    sim.push(web("c3", 2, "web:2", "10"));
    sim.run_seconds(30);
    sim.expect(
        sim.uids("web") == [uids[0].clone(), uids[2].clone()],
        "the old pod with the low cost stopped",
    );
    sim.expect_idle();
}
