//! How a pod begins, and why it waits.

use super::*;

#[test]
fn a_pod_waits_with_the_first_message_of_its_containers() {
    let status = |pod: &Fixture| {
        let status = pod.decide().status;
        (status.reason, status.message)
    };
    // A container that waits for an init container that runs has no message.
    let mut initializing = Fixture::new(&["main"])
        .with(Role::Sandbox, "", 0, running())
        .with(Role::Init, "setup", 0, running());
    initializing.spec.init_containers.push(container("setup"));
    assert_eq!(status(&initializing), (None, None));
    let mut pod = Fixture::new(&["first", "main"])
        .with(Role::Sandbox, "", 0, running())
        .with(Role::Main, "main", 1, exited(3, ""));
    let message = "container main: ended with exit code 3; back-off 0 s";
    let expected = (
        Some("CrashLoopBackOff".to_owned()),
        Some(message.to_owned()),
    );
    assert_eq!(status(&pod), expected);
    pod.spec.containers.reverse();
    assert_eq!(status(&pod), expected);
}

#[test]
fn a_sandbox_that_was_only_created_is_started_unless_that_failed() {
    let created = || {
        let pod = Fixture::new(&["main"]).pulled();
        pod.with(Role::Sandbox, "", 2, ContainerState::Created)
    };
    let has = |steps: &[String], word: &str| steps.iter().any(|step| step.contains(word));
    let steps = created().steps();
    assert!(!has(&steps, "remove"), "{steps:?}");
    assert!(has(&steps, "attempt: 2"), "{steps:?}");
    let steps = created().failing(true, FaultKind::Other).steps();
    assert_eq!(steps.first().map(String::as_str), Some("remove -2"));
}

#[test]
fn a_sandbox_is_connected_unless_it_has_the_network_of_the_host() {
    for host_network in [false, true] {
        let mut pod = Fixture::new(&["main"]).pulled();
        pod.spec.host_network = host_network;
        let steps = pod.steps();
        let connects = steps.iter().any(|step| step.starts_with("Connect"));
        assert_eq!(connects, !host_network, "{steps:?}");
    }
}
