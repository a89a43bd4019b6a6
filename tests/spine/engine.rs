//! An engine that is slow, or cannot do something: what runs is left alone, and no commit is blamed
//! for it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::manifest::{APP, APP_2, deployment, pod, shell_with};
use crate::support::{Container, Host, SOON, Site, eventually, is, pause_after, run};

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
fn an_engine_that_is_slow_to_start_probes_ends_no_container() {
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
    // One that is never ready holds up its own commit, and no other pod.
    site.push(
        &[("hangs.yaml", &pod("hangs", &shell_with(line, &hangs)))],
        "one that hangs",
    );
    eventually(SOON, "its probe runs", || {
        // The sandbox comes first.
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
    // The fault itself: so long does nothing that the probes ask for begin.
    std::thread::sleep(Duration::from_secs(4));
    drop(frozen);

    // What was asked for meanwhile is started now, late; it is killed, and no two of one probe run
    // at once.
    while began.elapsed() < Duration::from_secs(12) {
        let look = Instant::now();
        let hanging = sleeping(&site, &containers[2], &["7777"]);
        assert!(
            hanging.len() <= 1,
            "a probe's command was started beside the one before: {hanging:?}"
        );
        pause_after(look);
    }
    assert_eq!(site.running(), before, "no container ended");
    assert_eq!(
        own(&site),
        own_before,
        "no process of a container was killed"
    );

    // The probes go on; only the liveness probe ends a container.
    for container in &containers[..2] {
        site.host.docker(&["exec", container, "touch", "/bad"]);
    }
    eventually(SOON, "the container that is not alive is restarted", || {
        site.running().iter().all(|one| one.id != containers[1])
    });
    eventually(SOON, "the pod that is not ready is out", || {
        let pod = site.get("pod", "ready");
        pod["status"]["containerStatuses"][0]["ready"] == false
    });
    let ready = |all: &BTreeSet<Container>| {
        let mut all = all.iter();
        all.find(|one| one.id == containers[0]).cloned()
    };
    assert_eq!(
        ready(&site.running()),
        ready(&before),
        "a readiness probe ended a container"
    );
}

/// A directory that nobody can remove, nor anything in it; until this is dropped.
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

/// For how long a pod has been stopping, and what status says of that.
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
fn a_container_that_the_engine_cannot_remove_is_waited_for_past_the_dead_line() {
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
    let status = site.wait_status("it waits well past its deadline", |status| {
        unfinished_stop(status).is_some_and(|(seconds, _)| seconds > DEADLINE + 5)
    });
    let (_, words) = unfinished_stop(&status).unwrap();
    assert!(
        words.contains("StopFailed") && words.contains("operation not permitted"),
        "{words}"
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
        "the engine's words stay on the host: {message}"
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
    let wanted = site
        .host
        .docker(&["image", "inspect", "-f", "{{.Id}}", "windlass-test/app:2"]);
    assert!(
        other.contains("app:2") || other == wanted,
        "the other workload went on: {other}"
    );

    drop(immutable);
    // It is tried again at least every minute.
    eventually(Duration::from_secs(90), "the commit is healthy", || {
        let status = site.status();
        is(&status["healthy"]["id"], &commit) && is(&status["phase"], "Healthy")
    });
    let history = site.windlass(&["history"]).ok();
    assert!(!history.contains("StopFailed"), "{history}");
}
