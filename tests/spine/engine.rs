//! An engine that is slow, or cannot do something: what runs is left alone, and no commit is blamed for it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::manifest::{pod, shell_with};
use crate::site::{SOON, Site};
use crate::support::{Host, eventually, run};

/// The engine's containerd, frozen; it goes on when this is dropped.
struct Frozen(String);

impl Frozen {
    #[track_caller]
    fn new(host: &Host) -> Frozen {
        let file = host.path("/run/docker/containerd/containerd.pid");
        let pid = std::fs::read_to_string(file).unwrap().trim().to_owned();
        run(std::process::Command::new("kill").args(["-STOP", &pid])).ok();
        Frozen(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        run(std::process::Command::new("kill").args(["-CONT", &self.0])).ok();
    }
}

/// The processes of a container that are `sleep` with one of these times.
fn sleeping(site: &Site, container: &str, times: &[&str]) -> BTreeSet<String> {
    let top = site.host.try_docker(&["top", container, "-eo", "pid,args"]).stdout;
    let pid = |line: &str| match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        [pid, "sleep", time] if times.contains(time) => Some((*pid).to_owned()),
        _ => None,
    };
    top.lines().filter_map(pid).collect()
}

#[test]
fn an_engine_that_is_slow_to_start_probes_ends_no_container() {
    let probe = |kind: &str, command: &str| {
        format!(
            "{kind}: {{exec: {{command: [sh, -c, \"{command}\"]}}, periodSeconds: 1, timeoutSeconds: 1, \
             failureThreshold: 1}}"
        )
    };
    let (ready, live) = (probe("readinessProbe", "[ ! -e /bad ]"), probe("livenessProbe", "[ ! -e /bad ]"));
    let hangs = probe("readinessProbe", "exec sleep 7777");
    let line = "sleep 1111 & exec sleep 2222";
    let mut site = Site::start();
    site.deploy(&[
        ("ready.yaml", &pod("ready", &shell_with(line, &ready))),
        ("live.yaml", &pod("live", &shell_with(line, &live))),
    ]);
    // One that is never ready holds up its own commit, and no other pod.
    site.push(&[("hangs.yaml", &pod("hangs", &shell_with(line, &hangs)))], "one that hangs");
    eventually(SOON, "its probe runs", || {
        !site.containers_of("hangs").is_empty()
            && !sleeping(&site, &site.container("hangs"), &["7777"]).is_empty()
    });
    let pods = ["ready", "live", "hangs"];
    let containers = pods.map(|pod| site.container(pod));
    let before = site.containers();
    let own =
        |site: &Site| containers.each_ref().map(|container| sleeping(site, container, &["1111", "2222"]));
    let own_before = own(&site);
    assert!(own_before.iter().all(|own| own.len() == 2), "{own_before:?}");

    let frozen = Frozen::new(site.host);
    let began = Instant::now();
    // The fault itself: so long does nothing that the probes ask for begin.
    std::thread::sleep(Duration::from_secs(4));
    drop(frozen);

    // What was asked for meanwhile is started now, late; it is killed, and no two of one probe run at once.
    while began.elapsed() < Duration::from_secs(12) {
        let hanging = sleeping(&site, &containers[2], &["7777"]);
        assert!(hanging.len() <= 1, "a probe's command was started beside the one before: {hanging:?}");
    }
    assert_eq!(site.containers(), before, "no container ended");
    assert_eq!(own(&site), own_before, "no process of a container was killed");

    // The probes go on; only the liveness probe ends a container.
    for container in &containers[..2] {
        site.host.docker(&["exec", container, "touch", "/bad"]);
    }
    eventually(SOON, "the container that is not alive is restarted", || {
        site.containers().keys().all(|name| *name != containers[1])
    });
    eventually(SOON, "the pod that is not ready is out", || {
        let pod = site.object("pod", "ready");
        pod["status"]["containerStatuses"][0]["ready"] == false
    });
    let after = site.containers();
    assert_eq!(after.get(&containers[0]), before.get(&containers[0]), "a readiness probe ended a container");
}
