//! Containers that exit, ignore signals or have a probe that hangs, and an engine that hangs for
//! one container.

use std::time::{Duration, Instant};

use crate::manifest::{
    APP, APP_2, deployment, deployment_with, idle, pod, service, shell, shell_with,
};
use crate::support::{SOON, Site, eventually, is, pause_after, run};

#[test]
fn a_container_that_exits_at_once_fails_its_commit() {
    let mut site = Site::started("");
    let good = site.deploy(&[
        ("web.yaml", &pod("web", APP)),
        ("service.yaml", &service("web")),
    ]);
    let before = site.running();
    let once = pod(
        "once",
        &shell("echo cannot find the cheese >/dev/termination-log; exit 3"),
    );
    let never = once.replace("spec:\n", "spec:\n  restartPolicy: Never\n");
    let bad = site.push(&[("once.yaml", &never)], "exits at once");
    let reason = site.wait_rolled_back(&bad, &good);
    for words in ["Pod/default/once", "cannot find the cheese"] {
        assert!(reason.contains(words), "{words:?} is not in {reason:?}");
    }
    eventually(
        SOON,
        "the same containers run as before the bad commit",
        || site.running() == before,
    );
}

#[test]
fn a_container_that_ignores_term_is_killed_after_its_grace_period() {
    let mut site = Site::started("");
    let ignores_term = shell("trap \"\" TERM; echo ready; while :; do sleep 1; done");
    site.deploy(&[
        ("web.yaml", &pod("web", APP)),
        ("stubborn.yaml", &pod("stubborn", &ignores_term)),
    ]);
    let (web, stubborn) = (site.running_of("web"), site.running_of("stubborn"));
    let begin = Instant::now();
    site.deploy(&[("stubborn.yaml", &pod("stubborn", &idle()))]);
    let took = begin.elapsed();
    assert!(
        took >= Duration::from_secs(2),
        "the grace period is 2 s, and the container was killed after {took:?}"
    );
    assert!(
        took < Duration::from_secs(30),
        "the pod was replaced only after {took:?}"
    );
    assert!(
        site.running_of("stubborn")
            .iter()
            .all(|new| stubborn.iter().all(|old| old.id != new.id))
    );
    assert_eq!(
        site.running_of("web"),
        web,
        "a container of web was touched"
    );
}

#[test]
fn an_exec_probe_that_hangs_is_killed_and_delays_no_other_probe() {
    let mut site = Site::started("");
    let good = site.deploy(&[
        ("web.yaml", &deployment("web", 1, APP)),
        ("service.yaml", &service("web")),
        ("other.yaml", &pod("other", APP)),
    ]);
    let before = site.running();
    let field =
        "readinessProbe: {exec: {command: [sleep, \"1234\"]}, periodSeconds: 1, timeoutSeconds: 1}";
    let hanging = shell_with("while :; do sleep 1; done", field);
    let late = "progressDeadlineSeconds: 20\n  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}";
    let bad = site.push(
        &[("web.yaml", &deployment_with("web", 1, &hanging, late))],
        "a probe that hangs",
    );

    let mut most_probes = 0;
    let mut other_stays_ready = true;
    let begin = Instant::now();
    loop {
        let check = Instant::now();
        let status = site.status();
        if is(&status["rollback"]["from"], &bad) && is(&status["phase"], "Healthy") {
            break;
        }
        let all = run(site.host.network.command().args(["ps", "-eo", "args"])).ok();
        most_probes = most_probes.max(all.lines().filter(|line| *line == "sleep 1234").count());
        let other = site.get("pod", "other");
        other_stays_ready &= other["status"]["containerStatuses"][0]["ready"] == true;
        assert!(begin.elapsed() < SOON, "{status:#}");
        pause_after(check);
    }
    let reason = site.status()["rollback"]["reason"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        reason.contains("is not ready: readiness probe exec ")
            && reason.contains(": the command did not end within 1 s and was killed"),
        "{reason}"
    );
    // A probe that is being killed may still exist when the next probe starts.
    assert!(
        (1..=2).contains(&most_probes),
        "{most_probes} probes ran at the same time"
    );
    assert!(other_stays_ready, "the probe of another pod was delayed");
    assert!(is(&site.status()["target"]["id"], &good));
    assert_eq!(
        site.running(),
        before,
        "containers of the good commit were touched"
    );
    let processes = run(site.host.network.command().args(["ps", "-eo", "args"])).ok();
    assert!(
        !processes.lines().any(|line| line == "sleep 1234"),
        "a process of the probe still runs"
    );
}

#[test]
fn an_engine_that_hangs_on_one_container_delays_no_other_container() {
    let mut site = Site::started("");
    site.deploy(&[
        ("stuck.yaml", &pod("stuck", APP)),
        ("web.yaml", &deployment("web", 1, APP)),
        ("service.yaml", &service("web")),
        ("still.yaml", &pod("still", APP)),
    ]);
    let still = site.running_of("still");
    let process = site.host.docker(&[
        "inspect",
        "-f",
        "{{.State.Pid}}",
        &site.container("stuck").id,
    ]);
    let shim = site
        .host
        .exec(&["ps", "-o", "ppid=", "-p", &process])
        .ok()
        .trim()
        .to_owned();
    let name = site.host.exec(&["ps", "-o", "args=", "-p", &shim]).ok();
    assert!(name.contains("containerd-shim"), "{name}");
    site.host.exec(&["kill", "-STOP", &shim]).ok();

    // From here on requests to the engine about the stuck container may hang. The list of all
    // containers does not, because the engine has it in memory.
    let list = || {
        site.host
            .docker(&["ps", "--format", "{{.Names}} {{.Status}}"])
    };
    let next = site.push(
        &[
            ("stuck.yaml", &pod("stuck", APP_2)),
            ("web.yaml", &deployment("web", 1, APP_2)),
            ("more.yaml", &pod("more", &idle())),
        ],
        "the engine hangs on one container",
    );
    site.wait_answer("/", "app 2 web");
    eventually(SOON, "a new pod runs", || {
        list().contains("windlass_app_more_default_")
    });
    let old_stuck = |list: &str| list.contains("windlass_app_stuck_default_");
    assert!(
        old_stuck(&list()),
        "the stuck container was stopped, although its shim is frozen"
    );
    let status = site.status();
    assert!(
        is(&status["target"]["id"], &next) && !is(&status["phase"], "Healthy"),
        "{status:#}"
    );

    site.host.exec(&["kill", "-CONT", &shim]).ok();
    site.wait_healthy(&next);
    assert_eq!(
        site.running_of("still"),
        still,
        "a container of still was touched"
    );
    assert_eq!(
        site.exec("stuck", "app", &["cat", "/www/index.html"]).ok(),
        "app 2 stuck"
    );
}
