//! An engine that is slow or cannot remove a container: no running container is touched, and no
//! commit fails for it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::manifest::{APP, APP_2, deployment, pod, shell_with};
use crate::support::{Container, Host, SOON, Site, eventually, is, pause_after, run};

/// The engine's containerd, frozen until this value is dropped.
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

/// The process ids of a container's processes `sleep TIME`, with one of these times.
fn sleeping(site: &Site, container: &str, times: &[&str]) -> BTreeSet<String> {
    let top = site
        .host
        .try_docker(&["top", container, "-eo", "pid,args"])
        .stdout;
    let pid = |line: &str| match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        [pid, "sleep", time] if times.contains(time) => Some((*pid).to_owned()),
        _ => None,
    };
    top.lines().filter_map(pid).collect()
}

#[test]
fn probes_that_a_slow_engine_starts_late_restart_no_container() {
    let probe = |kind: &str, command: &str| {
        format!(
            "{kind}: {{exec: {{command: [sh, -c, \"{command}\"]}}, periodSeconds: 1, timeoutSeconds: 1, \
             failureThreshold: 1}}"
        )
    };
    let (ready, live) = (
        probe("readinessProbe", "[ ! -e /bad ]"),
        probe("livenessProbe", "[ ! -e /bad ]"),
    );
    let hangs = probe("readinessProbe", "exec sleep 7777");
    let line = "sleep 1111 & exec sleep 2222";
    let mut site = Site::started("");
    site.deploy(&[
        ("ready.yaml", &pod("ready", &shell_with(line, &ready))),
        ("live.yaml", &pod("live", &shell_with(line, &live))),
    ]);
    // A pod that is never ready blocks its own commit, and no other pod.
    site.push(
        &[("hangs.yaml", &pod("hangs", &shell_with(line, &hangs)))],
        "a probe that hangs",
    );
    eventually(SOON, "the probe of the pod hangs runs", || {
        // The sandbox runs before the container does.
        site.running_of("hangs").len() == 2
            && !sleeping(&site, &site.container("hangs").id, &["7777"]).is_empty()
    });
    let pods = ["ready", "live", "hangs"];
    let containers = pods.map(|pod| site.container(pod).id);
    let before = site.running();
    let own = |site: &Site| {
        containers
            .each_ref()
            .map(|container| sleeping(site, container, &["1111", "2222"]))
    };
    let own_before = own(&site);
    assert!(
        own_before.iter().all(|own| own.len() == 2),
        "{own_before:?}"
    );

    let frozen = Frozen::new(site.host);
    let began = Instant::now();
    // This is the fault, not a wait: for 4 s the engine starts no command of a probe.
    std::thread::sleep(Duration::from_secs(4));
    drop(frozen);

    // The engine starts the late commands now. The daemon kills them, so that no two commands of
    // one probe run at the same time.
    while began.elapsed() < Duration::from_secs(12) {
        let check = Instant::now();
        let hanging = sleeping(&site, &containers[2], &["7777"]);
        assert!(
            hanging.len() <= 1,
            "two commands of one probe run at the same time: {hanging:?}"
        );
        pause_after(check);
    }
    assert_eq!(site.running(), before, "a container has ended");
    assert_eq!(
        own(&site),
        own_before,
        "a process of a container was killed with a probe"
    );

    // The probes still work, and only the liveness probe ends a container.
    for container in &containers[..2] {
        site.host.docker(&["exec", container, "touch", "/bad"]);
    }
    eventually(SOON, "the container that is not alive is restarted", || {
        site.running()
            .iter()
            .all(|container| container.id != containers[1])
    });
    eventually(
        SOON,
        "the pod whose readiness probe fails is not ready",
        || {
            let pod = site.get("pod", "ready");
            pod["status"]["containerStatuses"][0]["ready"] == false
        },
    );
    let ready = |running: &BTreeSet<Container>| {
        let mut running = running.iter();
        running
            .find(|container| container.id == containers[0])
            .cloned()
    };
    assert_eq!(
        ready(&site.running()),
        ready(&before),
        "a readiness probe ended a container"
    );
}

/// A directory that not even root can remove or change, until this value is dropped.
struct Immutable(std::path::PathBuf);

impl Immutable {
    #[track_caller]
    fn new(directory: std::path::PathBuf) -> Immutable {
        run(std::process::Command::new("chattr")
            .arg("+i")
            .arg(&directory))
        .ok();
        Immutable(directory)
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        run(std::process::Command::new("chattr").arg("-i").arg(&self.0));
    }
}

/// For how many seconds a pod has been stopping, with the sentence about it in the status.
fn unfinished_stop(status: &Value) -> Option<(u64, String)> {
    let sentences = status["unwell"]
        .as_array()?
        .iter()
        .filter_map(Value::as_str);
    sentences.into_iter().find_map(|sentence| {
        let (_, rest) = sentence.split_once("the old pod has been stopping for ")?;
        Some((
            rest.split_once(" s: ")?.0.parse().ok()?,
            sentence.to_owned(),
        ))
    })
}

#[test]
fn a_rollout_waits_past_its_deadline_for_a_container_that_the_engine_cannot_remove() {
    const DEADLINE: u64 = 20;
    let mut site = Site::started(&format!(
        "[rollout]\ndeadline = '{DEADLINE}s'\nresync = '2s'\n"
    ));
    site.deploy(&[
        ("web.yaml", &pod("web", APP)),
        ("other.yaml", &deployment("other", 1, APP)),
    ]);
    let id = site.container("web").id;
    let immutable = Immutable::new(site.host.path("/var/lib/docker/containers").join(id));

    let files = [
        ("web.yaml", pod("web", APP_2)),
        ("other.yaml", deployment("other", 1, APP_2)),
    ];
    let commit = site.push(
        &files.each_ref().map(|(name, text)| (*name, text.as_str())),
        "the next",
    );
    let status = site.wait_status("the old pod is stopping 5 s past the deadline", |status| {
        unfinished_stop(status).is_some_and(|(seconds, _)| seconds > DEADLINE + 5)
    });
    let (_, sentence) = unfinished_stop(&status).unwrap();
    assert!(
        sentence.contains("StopFailed") && sentence.contains("operation not permitted"),
        "{sentence}"
    );
    assert!(
        is(&status["target"]["id"], &commit) && is(&status["phase"], "Progressing"),
        "{status:#}"
    );
    assert_eq!(status["waiting"], true, "{status:#}");
    let message = status["message"].as_str().unwrap();
    assert!(
        message.contains("the old pod web has been stopping for "),
        "{message}"
    );
    assert!(
        !message.contains("operation not permitted"),
        "the message, which the store holds, contains the engine's text: {message}"
    );
    let events = site.windlass(&["get", "events"]).ok();
    assert!(
        events.contains("FailedKillPod") && events.contains("operation not permitted"),
        "{events}"
    );
    let history = site.windlass(&["history"]).ok();
    assert!(history.contains("StopFailed"), "{history}");
    let other = site.host.docker(&[
        "inspect",
        "-f",
        "{{.Config.Image}}",
        &site.container("other").id,
    ]);
    let new_image = site
        .host
        .docker(&["image", "inspect", "-f", "{{.Id}}", "windlass-test/app:2"]);
    assert!(
        other.contains("app:2") || other == new_image,
        "the other workload was not updated: {other}"
    );

    drop(immutable);
    // The daemon tries to remove the container at least once a minute.
    eventually(Duration::from_secs(90), "the commit is healthy", || {
        let status = site.status();
        is(&status["healthy"]["id"], &commit) && is(&status["phase"], "Healthy")
    });
    let history = site.windlass(&["history"]).ok();
    assert!(!history.contains("StopFailed"), "{history}");
}
