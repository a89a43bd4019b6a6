//! A Service, with the rules by which its fields depend on its type.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::util::intstr::IntOrString};

use super::{
    container::protocol,
    meta::{Named, labels, object_meta},
};
use crate::{
    manifest::at::At,
    name::ObjectKey,
    object::{Service, ServiceKind, ServicePort, TargetPort},
    syntax,
};

/// `spec.type`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ServiceType {
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalName,
}

impl ServiceType {
    /// Whether callers outside the cluster reach such a Service, by a port of each node.
    fn is_external(self) -> bool {
        match self {
            Self::NodePort | Self::LoadBalancer => true,
            Self::ClusterIp | Self::ExternalName => false,
        }
    }
}

const TYPES: &[(&str, ServiceType)] = &[
    ("ClusterIP", ServiceType::ClusterIp),
    ("NodePort", ServiceType::NodePort),
    ("LoadBalancer", ServiceType::LoadBalancer),
    ("ExternalName", ServiceType::ExternalName),
];

/// `spec.clusterIP`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Address {
    None,
    Any,
    Given(Ipv4Addr),
}

/// Reads a Service.
pub(in crate::manifest) fn service(service: core::Service, at: &At<'_>) -> (ObjectKey, Service) {
    let core::Service {
        metadata,
        spec,
        status: _,
    } = service;
    let (key, meta) = object_meta(metadata, Named::Service, at);

    let at = at.field("spec");
    let core::ServiceSpec {
        allocate_load_balancer_node_ports,
        cluster_ip,
        cluster_ips,
        external_ips,
        external_name,
        external_traffic_policy,
        health_check_node_port,
        internal_traffic_policy,
        ip_families,
        ip_family_policy,
        load_balancer_class,
        load_balancer_ip,
        load_balancer_source_ranges,
        ports,
        publish_not_ready_addresses,
        selector,
        session_affinity,
        session_affinity_config,
        traffic_distribution,
        type_,
    } = spec.unwrap_or_default();

    let service_type = at
        .field("type")
        .word(type_.as_deref(), TYPES, ServiceType::ClusterIp);
    let of_one_type = OfOneType {
        addresses: [
            (
                "externalIPs",
                external_ips.is_some_and(|list| !list.is_empty()),
            ),
            (
                "loadBalancerIP",
                load_balancer_ip.is_some_and(|address| !address.is_empty()),
            ),
            ("loadBalancerClass", load_balancer_class.is_some()),
        ],
        source_ranges: load_balancer_source_ranges.is_some_and(|list| !list.is_empty()),
        allocate_node_ports: allocate_load_balancer_node_ports,
        external_policy: external_traffic_policy.filter(|policy| !policy.is_empty()),
        health_check: health_check_node_port.is_some_and(|port| port != 0),
    };
    of_one_type.check(service_type, &at);

    check_routing(
        internal_traffic_policy.as_deref(),
        traffic_distribution.is_some(),
        &at,
    );
    check_ip_family(ip_families, ip_family_policy, service_type, &at);

    let address = cluster_address(cluster_ip, cluster_ips, &at);
    let selector = selector.unwrap_or_default();
    labels(&selector, &at.field("selector"));

    let kind = service_kind(service_type, address, external_name, &at);
    let needs_ports = !matches!(
        kind,
        ServiceKind::Headless | ServiceKind::ExternalName { .. }
    );
    let service = Service {
        meta,
        ports: service_ports(ports, service_type, needs_ports, &at.field("ports")),
        kind,
        selector,
        publish_not_ready: publish_not_ready_addresses.unwrap_or(false),
        client_ip_affinity: affinity(session_affinity, session_affinity_config, &at),
    };
    (key, service)
}

/// Words of the traffic policies; true for the pods of the caller's node alone.
const TRAFFIC: &[(&str, bool)] = &[("Cluster", false), ("Local", true)];

/// Checks which endpoints the calls of pods are to go to: all of them, always.
fn check_routing(internal_policy: Option<&str>, distribution_given: bool, at: &At<'_>) {
    let at_policy = at.field("internalTrafficPolicy");
    let local = at_policy.word(internal_policy, TRAFFIC, false);
    at_policy.refuse(
        local,
        "send calls to pods of other nodes",
        "give the pods a hostPort, and call it at status.hostIP, in its place",
    );

    at.field("trafficDistribution")
        .ignore(distribution_given, "all endpoints are used alike");
}

/// Fields that Kubernetes accepts only with some types of Services (`ValidateService`).
struct OfOneType {
    addresses: [(&'static str, bool); 3],
    source_ranges: bool,
    allocate_node_ports: Option<bool>,
    external_policy: Option<String>,
    health_check: bool,
}

impl OfOneType {
    fn check(&self, service_type: ServiceType, at: &At<'_>) {
        self.check_callers(at);
        self.check_node_ports(service_type, at);
        self.check_external_policy(service_type, at);
        self.check_health_check(service_type, at);
    }

    /// Refuses other addresses to call the Service at, and bounds on who calls it.
    fn check_callers(&self, at: &At<'_>) {
        for (field, given) in self.addresses {
            at.field(field).refuse(
                given,
                "leave the service unreachable at that address",
                "make the type NodePort or LoadBalancer, and call the hosts' own addresses, in its place",
            );
        }

        at.field("loadBalancerSourceRanges").refuse(
            self.source_ranges,
            "let everyone in",
            "let the firewall of the hosts choose who may call",
        );
    }

    fn check_node_ports(&self, service_type: ServiceType, at: &At<'_>) {
        let at_allocation = at.field("allocateLoadBalancerNodePorts");
        at_allocation.refuse(
            self.allocate_node_ports == Some(false),
            "open ports you did not want",
            "make the type ClusterIP in its place",
        );

        if service_type != ServiceType::LoadBalancer && self.allocate_node_ports == Some(true) {
            at_allocation
                .error_in_new_heads("only for the type LoadBalancer: set the type, or remove it");
        }
    }

    fn check_external_policy(&self, service_type: ServiceType, at: &At<'_>) {
        let at = at.field("externalTrafficPolicy");
        let policy = self.external_policy.as_deref();
        // In Kubernetes, externalIPs (refused above) also allow such fields on a ClusterIP Service.
        let external = service_type.is_external() || self.addresses[0].1;
        match policy {
            Some("Cluster") if !external => at.error_in_new_heads(
                "only for the types NodePort and LoadBalancer: set the type, or remove it",
            ),
            Some("Local") if !external => {
                at.error("only for the types NodePort and LoadBalancer: remove it");
            }
            _ => {
                let local = at.word(policy, TRAFFIC, false);
                at.refuse(
                    local,
                    "hide the callers' addresses",
                    "let pods with hostNetwork take the calls in its place: they see who calls",
                );
            }
        }
    }

    fn check_health_check(&self, service_type: ServiceType, at: &At<'_>) {
        let at_health_check = at.field("healthCheckNodePort");
        if self.health_check
            && !(service_type == ServiceType::LoadBalancer
                && self.external_policy.as_deref() == Some("Local"))
        {
            at_health_check.error_in_new_heads(
                "only for the type LoadBalancer with externalTrafficPolicy Local: remove it",
            );
        } else {
            at_health_check.ignore(
                self.health_check,
                "externalTrafficPolicy Local needs it only",
            );
        }
    }
}

/// Checks that a Service is content with an IPv4 address, which is the only one it gets.
fn check_ip_family(
    families: Option<Vec<String>>,
    policy: Option<String>,
    service_type: ServiceType,
    at: &At<'_>,
) {
    let families = families.unwrap_or_default();
    if service_type == ServiceType::ExternalName {
        for (field, given) in [
            ("ipFamilies", !families.is_empty()),
            ("ipFamilyPolicy", policy.is_some()),
        ] {
            if given {
                at.field(field)
                    .error_in_new_heads("an ExternalName has no address of a family: remove it");
            }
        }
    }

    if families.iter().any(|family| family != "IPv4") {
        at.field("ipFamilies")
            .error("not supported yet: services have IPv4 addresses only; write IPv4");
    }

    match policy.as_deref() {
        None | Some("" | "SingleStack") => {}
        Some("PreferDualStack") => {
            at.field("ipFamilyPolicy").warning("no effect: services have IPv4 addresses only");
        }
        Some("RequireDualStack") => {
            at.field("ipFamilyPolicy").error(
                "not supported yet: services have IPv4 addresses only; write PreferDualStack, which does without IPv6",
            );
        }
        Some(other) => at.field("ipFamilyPolicy").error(format_args!(
            "{other:?} is not known here: write one of SingleStack, PreferDualStack, RequireDualStack"
        )),
    }
}

/// `clusterIP` and `clusterIPs`, which hold the same address.
fn cluster_address(
    address: Option<String>,
    addresses: Option<Vec<String>>,
    at: &At<'_>,
) -> Address {
    let addresses = addresses.unwrap_or_default();
    let first = addresses.first().cloned().unwrap_or_default();
    let address = address.filter(|address| !address.is_empty());
    let differs = match &address {
        Some(address) => !addresses.is_empty() && *address != first,
        None => false,
    };
    if differs || addresses.len() > 1 {
        at.field("clusterIPs")
            .error("must hold the one address that clusterIP has: correct or remove it");
    }

    match address.unwrap_or(first).as_str() {
        "" => Address::Any,
        "None" => Address::None,
        text => match text.parse() {
            Ok(address) => Address::Given(address),
            Err(_) => {
                at.field("clusterIP").error(format_args!(
                    "{text:?} is not an IPv4 address: write one, or None, or remove it"
                ));
                Address::Any
            }
        },
    }
}

fn service_kind(
    service_type: ServiceType,
    address: Address,
    external_name: Option<String>,
    at: &At<'_>,
) -> ServiceKind {
    let external_name = external_name.filter(|name| !name.is_empty());
    if service_type != ServiceType::ExternalName && external_name.is_some() {
        at.field("externalName")
            .error("only a Service of type ExternalName has it: set the type, or remove it");
    }

    let given = match address {
        Address::Given(address) => Some(address),
        Address::None | Address::Any => None,
    };
    if address == Address::None && service_type.is_external() {
        at.field("clusterIP")
            .error("None is only for type ClusterIP: remove it, or change the type");
    }

    match service_type {
        ServiceType::ClusterIp if address == Address::None => ServiceKind::Headless,
        ServiceType::ClusterIp => ServiceKind::ClusterIp { address: given },
        ServiceType::NodePort => ServiceKind::NodePort { address: given },
        ServiceType::LoadBalancer => ServiceKind::LoadBalancer { address: given },
        ServiceType::ExternalName => {
            if given.is_some() {
                at.field("clusterIP")
                    .error("an ExternalName has no address: remove it");
            } else if address == Address::None {
                at.field("clusterIP")
                    .error_in_new_heads("an ExternalName has no address, not even None: remove it");
            }
            ServiceKind::ExternalName {
                target: external_target(external_name, &at.field("externalName")),
            }
        }
    }
}

fn external_target(name: Option<String>, at: &At<'_>) -> String {
    let name = name.unwrap_or_default();
    // ValidateService of Kubernetes accepts it as a name too: four labels of digits.
    if name.parse::<Ipv4Addr>().is_ok() {
        at.warning(
            "an address, not a name: DNS answers it as an A record, which Kubernetes does not",
        );
        return name;
    }
    at.checked(name.trim_end_matches('.').to_owned(), syntax::subdomain)
}

/// `sessionAffinity`: how long the calls of one address go to the same pod.
fn affinity(
    affinity: Option<String>,
    config: Option<core::SessionAffinityConfig>,
    at: &At<'_>,
) -> Option<Duration> {
    let client_ip = at.field("sessionAffinity").word(
        affinity.as_deref(),
        &[("None", false), ("ClientIP", true)],
        false,
    );

    let core::SessionAffinityConfig { client_ip: config } = config.unwrap_or_default();
    let at = at.field("sessionAffinityConfig");
    if !client_ip && config.is_some() {
        at.error("only for sessionAffinity ClientIP: set it, or remove this");
    }

    // Both numbers are those of Kubernetes: three hours, and one day at most.
    let seconds = config
        .and_then(|core::ClientIPConfig { timeout_seconds }| timeout_seconds)
        .unwrap_or(10_800);
    let seconds = at
        .field("clientIP")
        .field("timeoutSeconds")
        .within(seconds.into(), 1, 86_400);
    client_ip.then(|| Duration::from_secs(seconds.unsigned_abs()))
}

fn service_ports(
    ports: Option<Vec<core::ServicePort>>,
    service_type: ServiceType,
    required: bool,
    at: &At<'_>,
) -> Vec<ServicePort> {
    let ports = ports.unwrap_or_default();
    if required && ports.is_empty() {
        at.error("required: a Service needs at least one port");
    }

    let several = ports.len() > 1;
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    let mut read = Vec::new();
    for (index, port) in ports.into_iter().enumerate() {
        let at = at.index(index);
        let port = service_port(port, service_type, several, &at);
        if several && !port.name.is_empty() && !names.insert(port.name.clone()) {
            at.field("name").error(format_args!(
                "the port name {:?} is there twice: rename one",
                port.name
            ));
        }
        if !numbers.insert((port.port, port.protocol)) {
            at.field("port").error(format_args!(
                "{}/{} is there twice: change one",
                port.port,
                port.protocol.as_str()
            ));
        }
        read.push(port);
    }
    read
}

fn service_port(
    port: core::ServicePort,
    service_type: ServiceType,
    several: bool,
    at: &At<'_>,
) -> ServicePort {
    let core::ServicePort {
        app_protocol,
        name,
        node_port,
        port,
        protocol: transport,
        target_port,
    } = port;
    at.field("appProtocol")
        .ignore(app_protocol.is_some(), "bytes are passed on as they are");

    let name = at
        .field("name")
        .optional(name, syntax::label)
        .unwrap_or_default();
    if several && name.is_empty() {
        at.field("name")
            .error("required: each port of several needs a name");
    }

    let node_port = match node_port {
        // Kubernetes reads 0 as a missing field: its Go type has no other value for one.
        None | Some(0) => None,
        Some(port) => Some(at.field("nodePort").port(port)),
    };
    if node_port.is_some() && !service_type.is_external() {
        at.field("nodePort")
            .error("only for the types NodePort and LoadBalancer: set the type, or remove it");
    }

    let number = at.field("port").port(port);
    let target = match target_port {
        None | Some(IntOrString::Int(0)) => TargetPort::Number(number),
        Some(IntOrString::Int(target)) => TargetPort::Number(at.field("targetPort").port(target)),
        Some(IntOrString::String(name)) => {
            if name.parse::<u16>().is_ok() {
                at.field("targetPort")
                    .error("a number in quotes is the name of a port: remove the quotes");
            }
            TargetPort::Name(at.field("targetPort").checked(name, syntax::port_name))
        }
    };
    ServicePort {
        name,
        protocol: protocol(transport.as_deref(), &at.field("protocol")),
        port: number,
        target,
        node_port,
    }
}
