//! Host ports: pods that wait for one, and pods that release one.

use reconciler::object::RestartPolicy;

use super::kinds::sim;
use crate::{
    build::{PodSpecExt, bare, commit, deployment, node_port, pod},
    registry::Behaviour,
};

#[test]
fn a_pod_waits_until_the_old_pod_has_released_its_host_port() {
    let mut sim = sim();
    sim.push(
        commit("c1")
            .with(bare("web", pod("web:1").with_host_port(8080)))
            .build(),
    );
    sim.run_seconds(30);

    sim.push(
        commit("c2")
            .with(bare("web", pod("web:2").with_host_port(8080)))
            .build(),
    );
    sim.run_seconds(30);
    sim.expect_healthy("c2");
    sim.expect(
        sim.services().host_ports.len() == 1,
        "the host port leads to the new pod",
    );
}

#[test]
fn a_rollout_whose_old_pod_keeps_the_host_port_fails_at_the_deadline() {
    let mut sim = sim();
    sim.push(
        commit("c1")
            .with(deployment("web", 1, pod("web:1").with_host_port(8080)))
            .build(),
    );
    sim.run_seconds(30);

    let before = sim.alive();
    sim.push(
        commit("c2")
            .with(deployment("web", 1, pod("web:2").with_host_port(8080)))
            .build(),
    );
    sim.run_seconds(700);
    sim.expect_healthy("c1");
    sim.expect(
        sim.is_bad("c2") && sim.alive() == before,
        "the old pod never stopped",
    );
    let (_, reason) = sim.outcome("c2").unwrap();
    sim.expect(reason.contains("host port 8080"), &reason);
    sim.expect_idle();
}

#[test]
fn an_ended_pod_has_no_host_port_and_gets_no_traffic() {
    let mut sim = sim();
    let ten = std::time::Duration::from_secs(10);
    sim.registry.push("job:1", Behaviour::Ends(ten, 0));
    let job = || {
        bare(
            "job",
            pod("job:1")
                .with_policy(RestartPolicy::Never)
                .with_host_port(8080),
        )
    };
    let mut all = node_port(None);
    all.publish_not_ready = true;

    sim.push(
        commit("c1")
            .with(job())
            .service("job", "job", all.clone())
            .build(),
    );
    sim.run_seconds(5);
    sim.expect(
        sim.services().host_ports.len() == 1,
        "a running pod has its host port",
    );
    sim.run_seconds(60);
    sim.expect_healthy("c1");
    let table = sim.services();
    let endpoints: usize = table
        .node_ports
        .values()
        .map(|backends| backends.endpoints.len())
        .sum();
    sim.expect(
        table.host_ports.is_empty() && endpoints == 0,
        "no port leads to an ended pod",
    );

    let web = deployment("web", 1, pod("web:1").with_host_port(8080));
    sim.push(
        commit("c2")
            .with(job())
            .with(web)
            .service("job", "job", all)
            .build(),
    );
    sim.run_seconds(60);
    sim.expect_healthy("c2");
    sim.expect(
        sim.services().host_ports.len() == 1,
        "the host port leads to another pod",
    );
}
