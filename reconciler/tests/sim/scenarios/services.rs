//! Addresses, ports and endpoints of Services.

use std::collections::BTreeSet;

use reconciler::{name::ObjectKey, object::ServiceKind, plan::Step, state::ClusterState};

use crate::{
    build::{PodSpecExt, bare, commit, deployment, node_port, pod},
    daemon::Sim,
    registry::Behaviour,
};

fn sim() -> Sim {
    let mut sim = Sim::default();
    sim.registry.push("web:1", Behaviour::Fine);
    sim.registry.push("web:2", Behaviour::Fine);
    sim
}

fn endpoints(sim: &Sim) -> BTreeSet<String> {
    sim.services()
        .node_ports
        .values()
        .flat_map(|backends| &backends.endpoints)
        .map(ToString::to_string)
        .collect()
}

#[test]
fn node_ports_and_cluster_addresses_are_kept_over_commits_and_rollbacks() {
    let mut sim = sim();
    let web = |id: &str, image: &str| {
        commit(id)
            .with(deployment("web", 2, pod(image)))
            .service("web", "web", node_port(None))
    };

    sim.push(web("c1", "web:1").build());
    sim.run_seconds(30);
    let allocation = sim.state.services.clone();
    sim.expect(
        sim.node_port("web").is_some(),
        "the Service has a node port",
    );

    sim.push(
        web("c2", "web:2")
            .service("another", "web", node_port(None))
            .build(),
    );
    sim.run_seconds(60);
    sim.expect_healthy("c2");
    let key = ObjectKey::new("default", "web");
    sim.expect(
        sim.state.services[&key] == allocation[&key],
        "the allocation is kept",
    );
    // A bad commit deletes the Service: the rollback must restore its address and port.
    sim.push(
        commit("c3")
            .with(deployment("web", 2, pod("nowhere:1")))
            .build(),
    );
    sim.run_seconds(120);
    sim.expect_healthy("c2");
    sim.expect(
        sim.state.services[&key] == allocation[&key],
        "the allocation is kept during a rollback",
    );
    sim.push(
        commit("c4")
            .with(deployment("web", 2, pod("web:1")))
            .build(),
    );
    sim.run_seconds(60);
    sim.expect_healthy("c4");
    sim.expect(
        sim.state.services.is_empty(),
        "the allocation is dropped with the last commit that has the Service",
    );
}

#[test]
fn a_service_gets_the_port_and_address_that_it_requests() {
    let mut sim = sim();
    sim.push(
        commit("c1")
            .with(bare("web", pod("web:1")))
            .service("auto", "web", node_port(None))
            .build(),
    );
    sim.run_seconds(30);
    let key = ObjectKey::new("default", "auto");
    let allocation = sim.state.services[&key].clone();
    let mut request = node_port(sim.node_port("auto"));
    request.kind = ServiceKind::NodePort {
        address: allocation.cluster_ip,
    };

    sim.push(
        commit("c2")
            .with(bare("web", pod("web:1")))
            .service("auto", "web", node_port(None))
            .service("exact", "web", request)
            .build(),
    );
    sim.run_seconds(30);
    sim.expect_healthy("c2");
    sim.expect(
        sim.state.services[&ObjectKey::new("default", "exact")] == allocation,
        "the Service has the requested allocation",
    );
    sim.expect(
        sim.state.services[&key] != allocation,
        "the other Service got another allocation",
    );
    sim.expect_idle();
}

#[test]
fn a_stopping_pod_leaves_the_endpoints_first_and_drains() {
    let mut sim = sim();
    let web = |id: &str, replicas: u32| {
        let web = deployment("web", replicas, pod("web:1"));
        commit(id)
            .with(web)
            .service("web", "web", node_port(Some(30080)))
            .build()
    };

    sim.push(web("c1", 2));
    sim.run_seconds(30);
    sim.expect(endpoints(&sim).len() == 2, "both pods are endpoints");

    sim.push(web("c2", 1));
    sim.run_seconds(1);
    sim.expect(
        endpoints(&sim).len() == 1,
        "the stopping pod is no endpoint",
    );
    sim.expect(
        sim.alive().len() == 4,
        "the stopping pod runs while it drains",
    );
    sim.run_seconds(30);
    sim.expect_healthy("c2");
    sim.expect(sim.alive().len() == 2, "the stopping pod is gone");
}

#[test]
fn a_stopping_pod_stays_an_endpoint_if_there_is_no_other() {
    let mut sim = sim();
    let web = |id: &str, image: &str| {
        commit(id)
            .with(bare("web", pod(image)))
            .service("web", "web", node_port(Some(30080)))
            .build()
    };

    sim.push(web("c1", "web:1"));
    sim.run_seconds(30);
    let (old, before) = (sim.pod("web").uid.clone(), endpoints(&sim));

    sim.push(web("c2", "web:2"));
    let (mut drained, mut without_endpoints) = (false, 0);
    for _ in 0..600 {
        sim.run(std::time::Duration::from_millis(50));
        let now = endpoints(&sim);
        let stops = sim
            .state
            .pods
            .get(&old)
            .is_some_and(|record| record.stop.is_some());
        drained |= stops && now == before;
        without_endpoints += usize::from(now.is_empty());
        let main = sim
            .alive()
            .iter()
            .filter_map(|id| sim.host.containers.get(id))
            .any(|container| container.name == "main");
        sim.expect(
            main || now.is_empty(),
            "no endpoint is a pod without a running container",
        );
    }
    sim.expect_healthy("c2");
    sim.expect(drained, "the old pod is an endpoint while it drains");
    sim.expect(
        without_endpoints < 60,
        &format!("there was no endpoint for {} ms", without_endpoints * 50),
    );
    sim.expect(endpoints(&sim).len() == 1, "the new pod is the endpoint");
}

/// A commit in which the Service `web` selects `site`, which replaces `web`.
fn renamed(id: &str, image: &str) -> std::sync::Arc<reconciler::commit::Commit> {
    let mut service = node_port(None);
    service.ports[0].target = reconciler::object::TargetPort::Number(8080);
    let site = deployment("site", 2, pod(image).with_readiness());
    commit(id)
        .with(site)
        .service("web", "site", service)
        .build()
}

#[test]
fn a_service_keeps_its_endpoints_until_its_new_selector_has_one() {
    let mut sim = sim();
    sim.registry.push(
        "slow:1",
        Behaviour::SlowReady(std::time::Duration::from_secs(20)),
    );

    let web = deployment("web", 2, pod("web:1").with_readiness());
    sim.push(
        commit("c1")
            .with(web)
            .service("web", "web", node_port(None))
            .build(),
    );
    sim.run_seconds(30);

    let before = endpoints(&sim);
    sim.push(renamed("c2", "slow:1"));
    let (mut kept, mut moved) = (0, false);
    for _ in 0..1200 {
        sim.run(std::time::Duration::from_millis(50));
        let now = endpoints(&sim);
        sim.expect(!now.is_empty(), "the Service has an endpoint");
        let new = now.iter().all(|endpoint| endpoint.ends_with(":8080"));
        sim.expect(
            new || now == before,
            "the endpoints are the old pods with the old port, or the new pods with the new port",
        );
        sim.expect(!moved || new, "the endpoints do not change back");
        moved |= new;
        kept += usize::from(!new);
    }
    sim.expect_healthy("c2");
    sim.expect(
        moved && kept > 300,
        "the old pods are endpoints until the new ones are ready",
    );
    sim.expect(sim.uids("web").is_empty(), "no old pod is left");
    sim.expect_idle();
}

#[test]
fn a_failed_rename_keeps_the_endpoints() {
    for (image, probed) in [("crash:1", true), ("crash:1", false), ("deaf:1", true)] {
        let mut sim = sim();
        sim.registry.push("crash:1", Behaviour::ExitsAtOnce(1));
        sim.registry.push("deaf:1", Behaviour::NeverReady);

        let web = deployment("web", 2, pod("web:1").with_readiness());
        sim.push(
            commit("c1")
                .with(web)
                .service("web", "web", node_port(None))
                .build(),
        );
        sim.run_seconds(30);
        let (before, uids) = (endpoints(&sim), sim.uids("web"));
        let spec = if probed {
            pod(image).with_readiness()
        } else {
            pod(image)
        };

        let site = deployment("site", 2, spec);
        sim.push(
            commit("c2")
                .with(site)
                .service("web", "site", node_port(None))
                .build(),
        );
        for _ in 0..8000 {
            sim.run(std::time::Duration::from_millis(100));
            sim.expect(endpoints(&sim) == before, "the endpoints never change");
        }
        sim.expect_healthy("c1");
        sim.expect(sim.is_bad("c2"), "the rename failed");
        sim.expect(
            sim.uids("web") == uids && sim.uids("site").is_empty(),
            "the old pods are unchanged",
        );
    }
}

#[test]
fn a_pod_that_is_not_ready_is_no_endpoint() {
    let mut sim = sim();
    sim.registry.push(
        "slow:1",
        Behaviour::SlowReady(std::time::Duration::from_secs(20)),
    );

    let web = bare("web", pod("slow:1").with_readiness());
    sim.push(
        commit("c1")
            .with(web)
            .service("web", "web", node_port(None))
            .build(),
    );
    sim.run_seconds(10);
    sim.expect(endpoints(&sim).is_empty(), "the pod is not ready yet");
    sim.run_seconds(30);
    sim.expect(endpoints(&sim).len() == 1, "the ready pod is an endpoint");
}

#[test]
fn a_rollout_never_leaves_a_service_without_endpoints() {
    let mut sim = sim();
    let web = |id: &str, image: &str| {
        let web = deployment("web", 3, pod(image).with_readiness());
        commit(id)
            .with(web)
            .service("web", "web", node_port(None))
            .build()
    };

    sim.push(web("c1", "web:1"));
    sim.run_seconds(30);
    sim.push(web("c2", "web:2"));
    for _ in 0..600 {
        sim.run(std::time::Duration::from_millis(50));
        sim.expect(!endpoints(&sim).is_empty(), "the Service has an endpoint");
    }
    sim.expect_healthy("c2");
}

#[test]
fn without_the_driving_commit_services_stay_and_no_new_commit_starts() {
    let mut sim = sim();
    let web = |id: &str, image: &str| {
        commit(id)
            .with(bare("web", pod(image)))
            .service("web", "web", node_port(None))
            .build()
    };

    sim.push(web("c1", "web:1"));
    sim.run_seconds(30);
    sim.expect(endpoints(&sim).len() == 1, "the pod is an endpoint");
    let kept = std::mem::take(&mut sim.commits);

    sim.crash(false);
    let plan = sim.last_plan.as_ref().unwrap();
    sim.expect(
        plan.services.is_none() && plan.names.is_none(),
        "Services and names are not changed",
    );

    sim.push(web("c2", "web:2"));
    sim.run_seconds(60);
    sim.expect(sim.is_target("c1"), "what c2 would delete is not known yet");
    sim.commits.extend(kept);
    sim.cycle();
    sim.run_seconds(60);
    sim.expect_healthy("c2");
    sim.expect(endpoints(&sim).len() == 1, "the pod is an endpoint again");
}

#[test]
fn a_lost_state_empties_no_service_while_its_pods_run() {
    let mut sim = sim();
    sim.push(
        commit("c1")
            .with(bare("web", pod("web:1")))
            .service("web", "web", node_port(None))
            .build(),
    );
    sim.run_seconds(30);
    let serial = sim.state.serial;
    let cluster = format!("{}+{serial}", sim.state.cluster);

    sim.state = ClusterState {
        cluster,
        ..ClusterState::default()
    };
    let plan = sim.planned();
    sim.expect(
        plan.services.is_none() && plan.names.is_none(),
        "Services and names are not changed",
    );

    sim.crash(false);
    sim.run_seconds(60);
    sim.expect_healthy("c1");
    sim.expect(endpoints(&sim).len() == 1, "the pod is an endpoint again");
}

#[test]
fn draining_leaves_half_of_a_short_grace_period_for_the_signal() {
    let mut sim = sim();
    let web = |id: &str, image: &str| {
        let mut spec = pod(image);
        spec.termination_grace = std::time::Duration::from_secs(1);
        commit(id)
            .with(bare("web", spec))
            .service("web", "web", node_port(None))
            .build()
    };

    sim.push(web("c1", "web:1"));
    sim.run_seconds(30);

    let old = sim.pod("web").uid.clone();
    sim.push(web("c2", "web:2"));
    for _ in 0..100 {
        sim.run(std::time::Duration::from_millis(50));
        if sim
            .state
            .pods
            .get(&old)
            .is_some_and(|record| record.stop.is_some())
        {
            break;
        }
    }
    let half = std::time::Duration::from_millis(500);
    let steps: Vec<Step> = sim
        .lane(&old)
        .map(|lane| lane.steps.clone())
        .unwrap_or_default();
    let drained = steps
        .iter()
        .any(|step| matches!(step, Step::Drain(drain) if *drain == half));
    let stops_within_half = steps.iter().any(|step| {
        matches!(step, Step::Stop(specs) if !specs.is_empty() && specs.iter().all(|spec| spec.grace == half))
    });
    sim.expect(drained && stops_within_half, &format!("{steps:?}"));
}
