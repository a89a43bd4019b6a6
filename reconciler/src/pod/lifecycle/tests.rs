//! What a pod's containers, probes and end make of its life.

mod begin;
mod fixture;

use self::fixture::*;
use super::*;
use crate::{
    object::{Handler, Probe},
    observed::ProbeFact,
    plan::ProbeKind,
    pod::memory::ContainerMemory,
    status::ContainerPhase,
};

#[test]
fn a_stop_drains_a_ready_pod_of_a_service_for_at_most_half_its_grace_period() {
    let seconds = Duration::from_secs;
    for (ready, in_service, drain, grace, expected) in [
        (
            true,
            true,
            seconds(2),
            seconds(30),
            vec!["drain 2s", "stop main-0 28s"],
        ),
        (
            true,
            true,
            seconds(2),
            seconds(3),
            vec!["drain 1.5s", "stop main-0 1.5s"],
        ),
        (
            false,
            true,
            seconds(2),
            seconds(30),
            vec!["stop main-0 30s"],
        ),
        (
            true,
            false,
            seconds(2),
            seconds(30),
            vec!["stop main-0 30s"],
        ),
        (true, true, seconds(0), seconds(30), vec!["stop main-0 30s"]),
        (true, true, seconds(2), seconds(0), vec!["stop main-0 0ns"]),
    ] {
        let mut pod = healthy().stopped();
        pod.memory.ready = ready.then(|| at(NOW - 50));
        (pod.in_service, pod.drain, pod.spec.termination_grace) = (in_service, drain, grace);
        let rest = ["remove main-0, -0", "disconnect", "remove files"];
        assert_eq!(pod.steps(), [expected, rest.to_vec()].concat());
    }
}

#[test]
fn a_stopped_pod_is_gone_once_neither_containers_nor_link_nor_files_are_left() {
    let left = |containers: bool, link: bool, files: bool| {
        let mut pod = Fixture::new(&["main"]).stopped();
        if containers {
            pod = pod.with(Role::Main, "main", 0, exited(0, ""));
        }
        if !link {
            pod.observed.links.clear();
        }
        if !files {
            pod.observed.files.clear();
        }
        pod
    };
    for (pod, expected) in [
        (
            left(true, false, false),
            vec!["remove main-0", "remove files"],
        ),
        (left(false, true, false), vec!["disconnect", "remove files"]),
        (left(false, false, true), vec!["remove files"]),
        (left(false, false, false), vec![]),
    ] {
        assert_eq!(pod.steps(), expected);
        assert_eq!(pod.decide().memory.is_none(), expected.is_empty());
        assert!(pod.decide().status.terminating);
    }

    let mut busy = left(false, false, false);
    busy.observed.lanes.insert(busy.lane());
    let output = busy.decide();
    assert!(
        output.lane.is_none() && output.memory.is_some(),
        "its lane still runs"
    );
}

#[test]
fn a_failure_before_the_stop_is_not_the_fault_of_the_stop() {
    for (removes, kind, fault, message) in [
        (false, FaultKind::Rejected, None, None),
        (
            true,
            FaultKind::Rejected,
            Some(FaultKind::Rejected),
            Some("it failed"),
        ),
        (true, FaultKind::Cancelled, None, Some("it failed")),
    ] {
        let status = healthy().stopped().failing(removes, kind).decide().status;
        assert_eq!(status.fault, fault, "{removes} {kind:?}");
        assert_eq!(status.message.as_deref(), message, "{removes} {kind:?}");
    }
}

#[test]
fn a_stopping_pod_serves_while_it_was_ready_and_all_its_containers_run() {
    for (ready, state, serving) in [
        (true, running(), true),
        (false, running(), false),
        (true, exited(0, ""), false),
    ] {
        let mut pod = Fixture::new(&["main"])
            .with(Role::Main, "main", 0, state.clone())
            .stopped();
        pod.memory.ready = ready.then(|| at(NOW - 50));
        assert_eq!(pod.decide().status.serving, serving, "{ready} {state:?}");
    }
}

#[test]
fn of_a_pod_that_has_ended_what_runs_is_stopped_and_its_exited_containers_stay() {
    let ended = |mut pod: Fixture| {
        pod.memory.ended = Some((PodPhase::Failed, "its deadline passed".to_owned()));
        pod
    };
    let all = ended(healthy());
    assert_eq!(all.steps(), ["stop main-0 30s", "remove -0"]);

    let sandbox = Fixture::new(&["main"])
        .with(Role::Sandbox, "", 0, running())
        .with(Role::Main, "main", 0, exited(1, ""));
    assert_eq!(ended(sandbox).steps(), ["remove -0"]);

    let nothing = Fixture::new(&["main"])
        .with(Role::Sandbox, "", 0, exited(0, ""))
        .with(Role::Main, "main", 0, exited(1, ""));
    let nothing = ended(nothing).failing(false, FaultKind::Rejected);
    let output = nothing.decide();
    assert_eq!(output.lane, None);
    assert_eq!(output.status.fault, None, "the failure of a start is past");
    assert_eq!(
        output.status.message.as_deref(),
        Some("its deadline passed")
    );

    let mut succeeded = nothing;
    succeeded.memory.ended = Some((PodPhase::Succeeded, String::new()));
    let status = succeeded.decide().status;
    assert_eq!((status.phase, status.message), (PodPhase::Succeeded, None));
}

#[test]
fn the_fault_of_a_failed_lane_remains_while_it_runs_again() {
    let mut pod = healthy().failing(false, FaultKind::Rejected);
    assert_eq!(pod.decide().status.fault, None);
    pod.observed.lanes.insert(pod.lane());
    assert_eq!(pod.decide().status.fault, Some(FaultKind::Rejected));
}

#[test]
fn the_end_of_a_pod_has_the_messages_of_its_failed_containers() {
    let mut pod = Fixture::new(&["a", "b", "c"])
        .with(Role::Sandbox, "", 0, running())
        .with(Role::Main, "a", 0, exited(1, " no space\n"))
        .with(Role::Main, "b", 0, exited(0, "done"))
        .with(Role::Main, "c", 0, exited(2, " \n"));
    pod.spec.restart_policy = RestartPolicy::Never;
    let memory = pod.decide().memory.expect("a memory");
    let reason = "its containers ended with exit codes [1, 0, 2]; a: no space".to_owned();
    assert_eq!(memory.ended, Some((PodPhase::Failed, reason)));
}

#[test]
fn a_container_is_ready_after_its_hook_its_startup_probe_and_its_readiness_probe() {
    let id = ContainerId::new("main-0");
    for (hooked, startup, readiness, started, ready) in [
        (None, None, None, true, true),
        (Some(false), None, None, false, false),
        (Some(true), None, None, true, true),
        (None, Some(false), None, false, false),
        (None, Some(true), None, true, true),
        (None, None, Some(false), true, false),
        (None, None, Some(true), true, true),
    ] {
        let mut pod = healthy();
        let main = &mut pod.spec.containers[0];
        main.post_start = hooked.map(|_| handler());
        main.startup = startup.map(|_| probe());
        main.readiness = readiness.map(|_| probe());
        if hooked == Some(true) {
            pod.observed.hooked.insert(id.clone());
        }
        for (kind, result) in [
            (ProbeKind::Startup, startup),
            (ProbeKind::Readiness, readiness),
        ] {
            if let Some(ok) = result {
                let fact = ProbeFact {
                    ok,
                    since: at(NOW),
                    message: "no answer".to_owned(),
                };
                pod.observed.probes.insert((id.clone(), kind), fact);
            }
        }
        let what = format!("{hooked:?} {startup:?} {readiness:?}");
        let status = pod.status("main");
        assert_eq!((status.started, status.ready), (started, ready), "{what}");
        assert_eq!(pod.decide().status.ready, ready.then(|| at(NOW)), "{what}");
    }
}

#[test]
fn a_running_container_is_probed_for_its_start_first_and_only_after_its_hook() {
    let mut pod = healthy();
    let main = &mut pod.spec.containers[0];
    main.post_start = Some(handler());
    (main.startup, main.readiness, main.liveness) = (Some(probe()), Some(probe()), Some(probe()));
    let probes = |pod: &Fixture| -> Vec<(ProbeKind, Option<bool>)> {
        let probes = pod.decide().probes;
        probes
            .iter()
            .map(|task| (task.kind, task.initial))
            .collect()
    };
    assert!(probes(&pod).is_empty());
    assert_eq!(pod.steps(), ["hook of main-0"]);

    let id = ContainerId::new("main-0");
    pod.observed.hooked.insert(id.clone());
    assert_eq!(probes(&pod), [(ProbeKind::Startup, None)]);

    let memory = ContainerMemory {
        id: Some(id),
        next_attempt: 1,
        past_startup: true,
        ready: Some(false),
        ..ContainerMemory::default()
    };
    pod.memory.containers.insert("main".to_owned(), memory);
    let both = [
        (ProbeKind::Readiness, Some(false)),
        (ProbeKind::Liveness, None),
    ];
    assert_eq!(probes(&pod), both);
}

#[test]
fn the_state_of_a_container_says_why_it_waits() {
    let waiting = |reason: &str, message: &str| ContainerPhase::Waiting {
        reason: reason.to_owned(),
        message: message.to_owned(),
    };
    let creating = || waiting("ContainerCreating", "");
    let one = |state| Fixture::new(&["main"]).with(Role::Main, "main", 0, state);
    assert_eq!(Fixture::new(&["main"]).status("main").state, creating());
    assert_eq!(
        one(ContainerState::Created).status("main").state,
        creating()
    );
    assert_eq!(one(ContainerState::Dead).status("main").state, creating());

    let pod = healthy().with(Role::Main, "main", 1, exited(3, "no space\n"));
    let status = pod.status("main");
    let message = "ended with exit code 3: no space; back-off 0 s";
    assert_eq!(status.state, waiting("CrashLoopBackOff", message));
    assert_eq!(
        (status.restarts, status.last.map(|last| last.code)),
        (1, Some(3))
    );

    let mut pod = Fixture::new(&["main"]);
    pod.spec.init_containers.push(container("setup"));
    assert_eq!(pod.status("main").state, waiting("PodInitializing", ""));
    assert!(!pod.decide().status.initialized);
    assert!(Fixture::new(&["main"]).decide().status.initialized);
}

#[test]
fn the_end_of_a_container_has_its_cause() {
    let ended = |state: ContainerState| {
        let mut pod = healthy();
        pod.spec.containers[0].liveness = Some(Probe {
            handler: Handler::HttpGet {
                host: None,
                port: 80,
                path: "/alive?token=secret".to_owned(),
                https: false,
                headers: Vec::new(),
            },
            ..probe()
        });
        pod.spec.containers[0].resources.memory_limit_bytes = Some(8 << 20);
        let fact = ProbeFact {
            ok: false,
            since: at(NOW),
            message: "HTTP status 404".to_owned(),
        };
        let probe = (ContainerId::new("main-0"), ProbeKind::Liveness);
        pod.observed.probes.insert(probe, fact);
        assert_eq!(pod.steps(), ["stop main-0 30s"]);

        pod.memory = pod.decide().memory.expect("a pod that has ended");
        pod.with(Role::Main, "main", 0, state).status("main").last
    };
    let cause = "stopped: liveness probe GET :80/alive: HTTP status 404";
    assert_eq!(
        ended(exited(0, "")).expect("a pod that has ended").message,
        cause
    );
    let with_message = format!("{cause}: bye");
    assert_eq!(
        ended(exited(0, "bye"))
            .expect("a pod that has ended")
            .message,
        with_message
    );
    let oom = ContainerState::Exited {
        started: at(NOW - 20),
        finished: at(NOW - 10),
        code: 137,
        oom: true,
        message: String::new(),
    };
    let message = "out of memory, the limit is 8 MiB";
    assert_eq!(
        ended(oom).expect("a container that has ended").message,
        message
    );
    // Another container of the name has ended by itself.
    let other = healthy().with(Role::Main, "main", 1, exited(0, ""));
    assert_eq!(
        other
            .status("main")
            .last
            .expect("a container that has ended")
            .message,
        ""
    );
}

#[test]
fn a_whole_name_that_the_kernel_does_not_take_fails_the_pod() {
    let mut pod = Fixture::new(&["main"]).pulled();
    pod.spec.hostname_as_fqdn = true;
    for (subdomain, fails) in [("s".repeat(47), false), ("s".repeat(48), true)] {
        pod.spec.subdomain = Some(subdomain);
        let output = pod.decide();
        assert_eq!(output.lane.is_none(), fails, "{:?}", output.lane);
        let message = output.status.message.unwrap_or_default();
        assert_eq!(
            message.contains("of 65 characters, and 64 is the most"),
            fails,
            "{message}"
        );
    }
}

#[test]
fn nothing_is_done_to_a_healthy_pod() {
    assert_eq!(healthy().steps(), Vec::<String>::new());
}
