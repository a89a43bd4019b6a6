#![expect(clippy::unwrap_used, reason = "a test")]

use super::*;
use crate::object::{Meta, PortKey, Protocol, TargetPort};

fn ranges() -> ServiceRanges {
    ServiceRanges {
        addresses: "10.96.0.0/16".parse().unwrap(),
        dns: "10.96.0.10".parse().unwrap(),
        node_ports: 30000..=32767,
    }
}

fn service(kind: ServiceKind, node_port: Option<u16>) -> Service {
    let target = TargetPort::Number(80);
    let port = ServicePort {
        name: String::new(),
        protocol: Protocol::Tcp,
        port: 80,
        target,
        node_port,
    };
    Service {
        meta: Meta::default(),
        kind,
        selector: BTreeMap::new(),
        ports: vec![port],
        publish_not_ready: false,
        client_ip_affinity: None,
    }
}

fn internal() -> Service {
    service(ServiceKind::ClusterIp { address: None }, None)
}

fn external(node_port: Option<u16>) -> Service {
    service(ServiceKind::NodePort { address: None }, node_port)
}

/// The allocations that a host accepts, as `NAME ADDRESS PORT`.
fn accepted_lines(services: &[(&str, Service)], given: &[(&str, &str, Option<u16>)]) -> String {
    let key = |name: &str| ObjectKey::new("default", name);
    let services = services
        .iter()
        .map(|(name, service)| (key(name), service.clone()))
        .collect();
    let given = given.iter().map(|(name, address, port)| {
        let node_ports = port
            .iter()
            .map(|port| (PortKey::new(Protocol::Tcp, 80), *port))
            .collect();
        (
            key(name),
            ServiceAllocation {
                cluster_ip: address.parse().ok(),
                node_ports,
            },
        )
    });
    let accepted = accepted_allocations(&ranges(), &services, &given.collect());
    let lines = accepted.iter().map(|(key, given)| {
        let address = given
            .cluster_ip
            .map_or("none".to_owned(), |address| address.to_string());
        format!(
            "{} {address} {:?}",
            key.name,
            given.node_ports.values().next()
        )
    });
    lines.collect::<Vec<_>>().join(", ")
}

#[test]
fn what_a_leader_allocates_is_believed_as_it_is() {
    let asked = "10.96.0.77".parse().ok();
    let services: BTreeMap<ObjectKey, Service> = [
        ("a", internal()),
        ("b", external(None)),
        ("c", external(Some(30080))),
        (
            "d",
            service(ServiceKind::LoadBalancer { address: asked }, None),
        ),
        ("e", service(ServiceKind::Headless, None)),
        (
            "f",
            service(
                ServiceKind::ExternalName {
                    target: "example.com".to_owned(),
                },
                None,
            ),
        ),
    ]
    .map(|(name, service)| (ObjectKey::new("default", name), service))
    .into();
    let mut given = BTreeMap::new();
    for change in allocate(&ranges(), &services, &given.clone(), |_| false).changes {
        let Change::Put(Record::Service(key, allocation)) = change else {
            panic!("{change:?}")
        };
        given.insert(key, allocation);
    }
    assert_eq!(accepted_allocations(&ranges(), &services, &given), given);
}

#[test]
fn an_address_that_is_none_of_a_services_is_not_believed() {
    for address in ["203.0.113.80", "10.96.0.10", "127.0.0.1"] {
        assert_eq!(
            accepted_lines(&[("a", internal())], &[("a", address, None)]),
            "a none None"
        );
    }
    let two = [("a", internal()), ("b", internal())];
    let given = [("a", "10.96.1.1", None), ("b", "10.96.1.1", None)];
    assert_eq!(
        accepted_lines(&two, &given),
        "a 10.96.1.1 None, b none None",
        "one address, one Service"
    );
    let named = service(
        ServiceKind::ClusterIp {
            address: "10.96.0.77".parse().ok(),
        },
        None,
    );
    let two = [("a", internal()), ("b", named)];
    let given = [("a", "10.96.0.77", None), ("b", "10.96.1.1", None)];
    assert_eq!(
        accepted_lines(&two, &given),
        "a none None, b 10.96.0.77 None",
        "who asks for it has it"
    );
}

#[test]
fn what_nobody_believes_is_allocated_anew() {
    let key = ObjectKey::new("default", "a");
    let services = BTreeMap::from([(key.clone(), external(None))]);
    let node_ports = BTreeMap::from([(PortKey::new(Protocol::Tcp, 80), 22)]);
    let forged = ServiceAllocation {
        cluster_ip: "203.0.113.80".parse().ok(),
        node_ports,
    };
    let given = BTreeMap::from([(key.clone(), forged)]);
    let Allocations { changes, .. } = allocate(&ranges(), &services, &given, |_| false);
    let [Change::Put(Record::Service(_, anew))] = &changes[..] else {
        panic!("{changes:?}")
    };
    let given = BTreeMap::from([(key, anew.clone())]);
    assert_eq!(accepted_allocations(&ranges(), &services, &given), given);
    let Allocations { changes, refused } = allocate(&ranges(), &services, &given, |_| false);
    assert!(changes.is_empty() && refused.is_empty());
}

#[test]
fn a_port_of_the_host_is_opened_only_for_who_asks_for_one() {
    let given = |port| [("a", "10.96.1.1", Some(port))];
    assert_eq!(
        accepted_lines(&[("a", internal())], &given(30001)),
        "a 10.96.1.1 None"
    );
    assert_eq!(
        accepted_lines(&[("a", external(None))], &given(30001)),
        "a 10.96.1.1 Some(30001)"
    );
    assert_eq!(
        accepted_lines(&[("a", external(None))], &given(22)),
        "a 10.96.1.1 None"
    );
    assert_eq!(
        accepted_lines(&[("a", external(Some(30080)))], &given(30001)),
        "a 10.96.1.1 Some(30080)"
    );
    let two = [("a", external(None)), ("b", external(Some(30080)))];
    let given = [("a", "10.96.1.1", Some(30080)), ("b", "10.96.1.2", None)];
    assert_eq!(
        accepted_lines(&two, &given),
        "a 10.96.1.1 None, b 10.96.1.2 Some(30080)"
    );
}
/// What is allocated to Services that have nothing yet, as `NAME ADDRESS PORTS`.
fn allocated_lines(ranges: &ServiceRanges, services: &[(&str, Service)]) -> Vec<String> {
    let services = services
        .iter()
        .map(|(name, service)| (ObjectKey::new("default", *name), service.clone()))
        .collect();
    let Allocations { changes, .. } = allocate(ranges, &services, &BTreeMap::new(), |_| true);
    let lines = changes.into_iter().map(|change| match change {
        Change::Put(Record::Service(key, allocation)) => {
            let address = allocation
                .cluster_ip
                .map_or("none".to_owned(), |address| address.to_string());
            let ports: Vec<&u16> = allocation.node_ports.values().collect();
            format!("{} {address} {ports:?}", key.name)
        }
        other => panic!("{other:?}"),
    });
    lines.collect()
}

#[test]
fn each_type_of_service_gets_what_it_needs_and_no_more() {
    let name = ServiceKind::ExternalName {
        target: "example.com".to_owned(),
    };
    let services = [
        ("a", internal()),
        ("b", external(None)),
        ("c", external(Some(32767))),
        (
            "d",
            service(ServiceKind::LoadBalancer { address: None }, None),
        ),
        ("e", service(ServiceKind::Headless, None)),
        ("f", service(name, None)),
    ];
    let expected = [
        "a 10.96.1.0 []",
        "b 10.96.1.1 [32766]",
        "c 10.96.1.2 [32767]",
        "d 10.96.1.3 [32765]",
        "e none []",
        "f none []",
    ];
    assert_eq!(allocated_lines(&ranges(), &services), expected);
}

#[test]
fn a_sixteenth_of_the_range_but_16_to_256_addresses_are_left_to_manifests() {
    for (range, dns, expected) in [
        ("10.96.0.0/12", "10.96.0.10", "a 10.96.1.0 []"),
        ("10.96.0.0/16", "10.96.0.10", "a 10.96.1.0 []"),
        ("10.96.0.0/22", "10.96.0.10", "a 10.96.0.64 []"),
        ("10.96.0.0/22", "10.96.0.64", "a 10.96.0.65 []"),
        ("10.96.0.0/24", "10.96.0.10", "a 10.96.0.16 []"),
    ] {
        let ranges = ServiceRanges {
            addresses: range.parse().unwrap(),
            dns: dns.parse().unwrap(),
            ..ranges()
        };
        let lines = allocated_lines(&ranges, &[("a", internal())]);
        assert_eq!(lines, [expected], "{range}");
    }
}

#[test]
fn services_beyond_the_end_of_a_range_get_nothing() {
    let ranges = ServiceRanges {
        addresses: "10.96.0.0/27".parse().unwrap(),
        dns: "10.96.0.10".parse().unwrap(),
        node_ports: 30000..=30001,
    };
    let names: Vec<String> = (10..40).map(|number| format!("s{number}")).collect();
    let services: Vec<(&str, Service)> = names
        .iter()
        .map(|name| (name.as_str(), external(None)))
        .collect();
    let lines = allocated_lines(&ranges, &services);
    assert_eq!(lines[0], "s10 10.96.0.16 [30001]");
    assert_eq!(lines[1], "s11 10.96.0.17 [30000]");
    assert_eq!(lines[2], "s12 10.96.0.18 []");
    assert_eq!(lines[14], "s24 10.96.0.30 []");
    // The upper part is full.
    assert_eq!(lines[15], "s25 10.96.0.1 []");
    assert_eq!(lines[23], "s33 10.96.0.9 []");
    assert_eq!(lines[24], "s34 10.96.0.11 []");
    assert_eq!(lines[28], "s38 10.96.0.15 []");
    assert_eq!(lines.get(29).map(String::as_str), Some("s39 none []"));
}

#[test]
fn a_small_range_has_addresses_and_its_end_is_refused_by_name() {
    let ranges = ServiceRanges {
        addresses: "10.96.0.0/28".parse().unwrap(),
        dns: "10.96.0.10".parse().unwrap(),
        node_ports: 30000..=30000,
    };
    let names: Vec<String> = (10..25).map(|number| format!("s{number}")).collect();
    let services: Vec<(&str, Service)> = names
        .iter()
        .map(|name| (name.as_str(), internal()))
        .collect();
    let lines = allocated_lines(&ranges, &services);
    assert_eq!(lines[0], "s10 10.96.0.1 []");
    assert_eq!(lines[9], "s19 10.96.0.11 []");
    assert_eq!(lines[12], "s22 10.96.0.14 []");
    assert_eq!(lines[13], "s23 none []");

    let key = |name: &str| ObjectKey::new("default", name);
    let mut all: BTreeMap<ObjectKey, Service> = services
        .into_iter()
        .map(|(name, service)| (key(name), service))
        .collect();
    let own_port = service(
        ServiceKind::NodePort {
            address: "10.96.0.1".parse().ok(),
        },
        None,
    );
    all.extend([(key("a"), own_port.clone()), (key("b"), own_port)]);
    let Allocations { refused, .. } = allocate(&ranges, &all, &BTreeMap::new(), |_| true);
    let refused: Vec<String> = refused
        .into_iter()
        .map(|RefusedAllocation { service, exhausted }| format!("{} {exhausted:?}", service.name))
        .collect();
    let expected = [
        "b NodePorts(30000..=30000)",
        "s22 Addresses(10.96.0.0/28)",
        "s23 Addresses(10.96.0.0/28)",
        "s24 Addresses(10.96.0.0/28)",
    ];
    assert_eq!(refused, expected);
}

#[test]
fn the_allocation_of_a_deleted_service_stays_while_a_rollback_may_need_it() {
    let key = |name| ObjectKey::new("default", name);
    let services = BTreeMap::from([(key("stays"), internal())]);
    let given = ["stays", "needed", "gone"].map(|name| {
        let allocation = ServiceAllocation {
            cluster_ip: format!("10.96.1.{}", name.len()).parse().ok(),
            node_ports: BTreeMap::new(),
        };
        (key(name), allocation)
    });
    let allocations = allocate(&ranges(), &services, &given.into(), |key| {
        key.name != "needed"
    });
    let changes = allocations.changes;
    let [Change::Delete(RecordKey::Service(deleted))] = &changes[..] else {
        panic!("{changes:?}")
    };
    assert_eq!(*deleted, key("gone"));
}
