//! Ports of the host: hostPorts of pods and nodePorts of Services.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::{CheckSettings, ObjectProblems, ProblemObject, containers};
use crate::object::{Control, DaemonSetUpdate, PodSpec, Protocol, Workload};

/// A container's port on its host.
struct RequestedHostPort<'a> {
    workload: &'a Workload,
    field: String,
    address: Option<Ipv4Addr>,
}

type RequestedHostPorts<'a> = BTreeMap<(u16, Protocol), Vec<RequestedHostPort<'a>>>;

pub(super) fn check(findings: &mut ObjectProblems<'_>, settings: &CheckSettings) {
    let host_ports = host_ports(findings);
    node_ports(findings, settings, &host_ports);
}

fn host_ports<'a>(findings: &mut ObjectProblems<'a>) -> RequestedHostPorts<'a> {
    let mut taken = RequestedHostPorts::new();
    for workload in findings
        .objects
        .workloads
        .values()
        .filter(|workload| replicas(workload) > 0)
    {
        let mut first = None;
        for (field, container) in containers(workload) {
            for (index, port) in container.ports.iter().enumerate() {
                let (number, last) = match port.host_port {
                    Some(number) => (number, "hostPort"),
                    None if workload.template.spec.host_network => (port.port, "containerPort"),
                    None => continue,
                };

                let port_field = format!("{field}.ports[{index}].{last}");
                let at = (number, port.protocol);
                let new = RequestedHostPort {
                    workload,
                    field: port_field.clone(),
                    address: port.host_ip,
                };
                let before = taken.entry(at).or_default();
                if let Some(other) = before.iter().find(|other| clash(other, &new)) {
                    let message = format!(
                        "{number}/{} of the host is taken by {} ({}): choose another port",
                        port.protocol.as_str(),
                        other.workload.key,
                        findings.position(&ProblemObject::workload(&other.workload.key)),
                    );
                    findings.error(
                        &ProblemObject::workload(&workload.key),
                        port_field.clone(),
                        message,
                    );
                }
                before.push(new);
                first.get_or_insert(port_field);
            }
        }
        if let Some(field) = first {
            room(findings, workload, field);
        }
    }
    taken
}

/// Whether two requests for one port number use the same address on a host that may run both pods.
fn clash(a: &RequestedHostPort<'_>, b: &RequestedHostPort<'_>) -> bool {
    let same_address = a.address.is_none() || b.address.is_none() || a.address == b.address;
    let (
        PodSpec {
            node_name: a_name,
            node_selector: a_labels,
            ..
        },
        PodSpec {
            node_name: b_name,
            node_selector: b_labels,
            ..
        },
    ) = (&a.workload.template.spec, &b.workload.template.spec);

    // Pods that cannot run on one node cannot contend for its ports.
    let apart_by_name = a_name.is_some() && b_name.is_some() && a_name != b_name;
    let apart_by_label = a_labels
        .iter()
        .any(|(key, value)| b_labels.get(key).is_some_and(|other| other != value));
    same_address && !apart_by_name && !apart_by_label
}

fn replicas(workload: &Workload) -> u32 {
    match workload.control {
        Control::Pod | Control::DaemonSet { .. } => 1,
        Control::Replicas { replicas, .. } | Control::Deployment { replicas, .. } => replicas,
    }
}

/// Checks the number of hosts: several pods with one hostPort need as many hosts, and a rolling
/// update needs one more host or must stop a pod first.
fn room(findings: &mut ObjectProblems<'_>, workload: &Workload, field: String) {
    let of = ProblemObject::workload(&workload.key);
    let replicas = replicas(workload);
    if replicas > 1 {
        let message = format!(
            "the {replicas} replicas cannot run on one host with it: use a Service, or one replica"
        );
        findings.warning(&of, field, message);
        return;
    }

    let way_out = match workload.control {
        Control::Deployment { strategy, .. }
            if strategy
                .bounds(replicas)
                .is_some_and(|(_, unavailable)| unavailable == 0) =>
        {
            "set spec.strategy.type to Recreate"
        }
        Control::DaemonSet {
            update:
                DaemonSetUpdate::RollingUpdate {
                    max_unavailable, ..
                },
            ..
        } if max_unavailable.round_up(1) == 0 => {
            "set spec.updateStrategy.rollingUpdate.maxUnavailable to 1 and maxSurge to 0"
        }
        Control::Pod
        | Control::Replicas { .. }
        | Control::Deployment { .. }
        | Control::DaemonSet { .. } => {
            return;
        }
    };
    let message = format!(
        "a new pod cannot start beside the old one with it, so a rollout cannot go on: {way_out}"
    );
    findings.warning(&of, field, message);
}

fn node_ports(
    findings: &mut ObjectProblems<'_>,
    settings: &CheckSettings,
    host_ports: &RequestedHostPorts<'_>,
) {
    let mut taken = BTreeMap::new();
    for (key, service) in &findings.objects.services {
        for (index, port) in service.ports.iter().enumerate() {
            let Some(number) = port.node_port else {
                continue;
            };
            let field = format!("spec.ports[{index}].nodePort");
            let of = ProblemObject::service(key);
            if !settings.node_ports.contains(&number) {
                let (least, most) = (settings.node_ports.start(), settings.node_ports.end());
                findings.error(
                    &of,
                    field,
                    format!("{number} is out of range: choose one from {least} to {most}"),
                );
                continue;
            }

            let at = (number, port.protocol);
            let transport = port.protocol.as_str();
            if let Some(other) = taken.get(&at) {
                let message = format!(
                    "{number}/{transport} is taken by the Service {other} ({}): choose another port",
                    findings.position(&ProblemObject::service(other))
                );
                findings.error(&of, field, message);
            } else if let Some(other) = host_ports.get(&at).and_then(|ports| ports.first()) {
                let message = format!(
                    "{number}/{transport} of the host is taken by {} ({}), {}: choose another port",
                    other.workload.key,
                    findings.position(&ProblemObject::workload(&other.workload.key)),
                    other.field,
                );
                findings.error(&of, field, message);
            }
            taken.entry(at).or_insert_with(|| key.clone());
        }
    }
}
