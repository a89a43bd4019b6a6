//! Which pods receive the traffic of a Service.

use std::time::Duration;

use super::*;
use crate::{
    name::TemplateHash,
    object::{Container, Handler, Meta, PodSpec, Probe, Protocol},
};

fn labelled(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn template(labels: &str, containers: Vec<Container>) -> PodTemplate {
    PodTemplate {
        meta: Meta {
            labels: labelled(labels),
            ..Meta::default()
        },
        spec: PodSpec {
            containers,
            ..PodSpec::default()
        },
        hash: TemplateHash::new("1-0123456789abcdef"),
    }
}

fn probe() -> Probe {
    Probe {
        handler: Handler::Exec {
            command: vec!["true".to_owned()],
        },
        initial_delay: Duration::ZERO,
        period: Duration::from_secs(10),
        timeout: Duration::from_secs(1),
        success_threshold: 1,
        failure_threshold: 3,
        termination_grace: None,
    }
}

fn service(selector: &str) -> Service {
    Service {
        meta: Meta::default(),
        kind: ServiceKind::ClusterIp { address: None },
        selector: labelled(selector),
        ports: Vec::new(),
        publish_not_ready: false,
        client_ip_affinity: None,
    }
}

#[test]
fn a_pod_serves_by_its_readiness_and_by_what_its_host_reports_while_it_stops() {
    let (ready, stopping, no) = (Serving::Ready, Serving::Stopping, Serving::No);
    for (stops, terminating, is_ready, serving, expected) in [
        (false, false, false, false, no),
        (false, false, true, false, ready),
        (false, false, false, true, no),
        (true, false, true, false, stopping),
        (true, false, false, false, no),
        (true, false, false, true, stopping),
        (false, true, true, false, stopping),
        (false, true, false, true, stopping),
        (false, true, false, false, no),
        (true, true, true, true, stopping),
    ] {
        let status = PodStatus {
            ready: is_ready.then_some(jiff::Timestamp::UNIX_EPOCH),
            terminating,
            serving,
            ..PodStatus::pending()
        };
        let case = (stops, terminating, is_ready, serving);
        assert_eq!(Serving::of(&status, stops), expected, "{case:?}");
    }
}

#[test]
fn readiness_is_proven_by_a_probe_of_every_container_or_by_time() {
    let with = |readiness: Option<Probe>| Container {
        readiness,
        ..Container::default()
    };
    let (probed, plain) = (with(Some(probe())), with(None));
    let (steady, shorter) = (STEADY, STEADY - Duration::from_nanos(1));
    for (containers, ready_for, expected) in [
        (vec![&probed], Duration::ZERO, true),
        (vec![&probed, &plain], shorter, false),
        (vec![&plain], Duration::ZERO, false),
        (vec![&plain], shorter, false),
        (vec![&plain], steady, true),
        (vec![&probed, &plain], steady, true),
    ] {
        let number = containers.len();
        let template = template("", containers.into_iter().cloned().collect());
        let status = PodStatus {
            ready_for,
            ..PodStatus::pending()
        };
        let proven = is_proven(&template, &status);
        assert_eq!(proven, expected, "{number} containers, {ready_for:?}");
    }
}

#[test]
fn a_service_selects_pods_with_all_labels_of_its_selector() {
    for (selector, labels, expected) in [
        ("", "", false),
        ("", "app=web", false),
        ("app=web", "app=web", true),
        ("app=web", "app=web,tier=x", true),
        ("app=web,tier=x", "app=web", false),
        ("app=web", "app=db", false),
        ("app=web", "", false),
    ] {
        let result = selects(&service(selector), &labelled(labels));
        assert_eq!(result, expected, "{selector} against {labels}");
    }
}

/// The addresses of the pods that receive the traffic of a Service `app=new` that selected
/// `app=old` before; pods are `LABEL STATE`, and get the addresses 10.42.0.1 onwards.
fn behind(publish_not_ready: bool, pods: &[(&str, &str)]) -> Vec<u8> {
    let key = ObjectKey::new("default", "web");
    let now = Service {
        publish_not_ready,
        ..service("app=new")
    };
    let services = Services::from([(key.clone(), now.clone())]);
    let before = Services::from([(key.clone(), service("app=old"))]);
    let templates: Vec<PodTemplate> = pods
        .iter()
        .map(|(app, _)| template(&format!("app={app}"), Vec::new()))
        .collect();
    let endpoints: Vec<Endpoint<'_>> = (1..)
        .zip(pods.iter().zip(&templates))
        .map(|(number, ((_, state), template))| Endpoint {
            key: &key,
            template,
            address: Ipv4Addr::new(10, 42, 0, number),
            serving: match *state {
                "proven" | "ready" => Serving::Ready,
                "stopping" => Serving::Stopping,
                _ => Serving::No,
            },
            proven: *state == "proven",
            local: true,
        })
        .collect();
    // The newest of the earlier commits has the present selector already.
    let selection = ServiceSelection::new(&services, vec![&services, &before], &endpoints);
    let behind = selection.behind(&key, &now);
    let from_old = !behind.pods.is_empty() && behind.by.selector == labelled("app=old");
    let pods = behind.pods.iter();
    let numbers: Vec<u8> = pods.map(|pod| pod.address.octets()[3]).collect();
    let old = numbers.iter().any(|number| {
        let place = usize::from(*number) - 1;
        endpoints[place].template.meta.labels == labelled("app=old")
    });
    assert_eq!(from_old, old, "the Service that selected the pods");
    numbers
}

#[test]
fn traffic_goes_to_the_first_group_of_pods_that_is_not_empty() {
    let old = ("old", "ready");
    for (pods, expected) in [
        (vec![old, ("new", "proven"), ("new", "ready")], vec![2, 3]),
        // Not one of the new pods is proven.
        (vec![old, ("new", "ready")], vec![1]),
        (vec![("new", "ready"), ("old", "no")], vec![1]),
        (vec![("new", "ready"), ("old", "stopping")], vec![1]),
        (vec![("new", "stopping"), ("old", "proven")], vec![2]),
        (vec![("new", "stopping"), ("old", "stopping")], vec![1]),
        (vec![("new", "no"), ("old", "stopping")], vec![2]),
        (vec![("new", "no"), ("old", "no")], vec![]),
        (vec![("other", "proven")], vec![]),
    ] {
        assert_eq!(behind(false, &pods), expected, "{pods:?}");
    }
}

#[test]
fn a_service_that_publishes_pods_that_are_not_ready_does_not_wait_for_a_proven_one() {
    for (pods, expected) in [
        (vec![("new", "no"), ("old", "proven")], vec![1]),
        (vec![("new", "stopping"), ("new", "ready")], vec![1, 2]),
        (vec![("old", "no")], vec![1]),
    ] {
        assert_eq!(behind(true, &pods), expected, "{pods:?}");
    }
}

#[test]
fn a_port_is_found_by_protocol_and_number_in_an_earlier_version() {
    let port = |protocol, port, target| ServicePort {
        name: String::new(),
        protocol,
        port,
        target: TargetPort::Number(target),
        node_port: None,
    };
    let mut before = service("app=old");
    before.ports = vec![
        port(Protocol::Udp, 80, 1),
        port(Protocol::Tcp, 81, 2),
        port(Protocol::Tcp, 80, 3),
    ];
    for (wanted, expected) in [
        (port(Protocol::Tcp, 80, 9), 3),
        (port(Protocol::Udp, 80, 9), 1),
        (port(Protocol::Udp, 81, 9), 9),
    ] {
        let target = &port_of(&before, &wanted).target;
        assert_eq!(*target, TargetPort::Number(expected));
    }
}
