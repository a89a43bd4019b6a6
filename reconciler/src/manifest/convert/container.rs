//! Containers and init containers of a pod.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::api::resource::Quantity};

use super::{
    env::{env, env_from},
    probe::{Asks, LifeHooks, lifecycle, probe},
    quantity,
    security::{PodSecurity, container_security},
    volume::{below_root, mounts},
};
use crate::{
    image_name::ImageName,
    manifest::at::At,
    name::ImageReference,
    object::{Container, ContainerPort, Protocol, PullPolicy, Resources, VolumeSource},
    syntax,
};

/// The parts of a pod that its containers refer to.
pub(super) struct OfPod<'a> {
    pub(super) volumes: &'a BTreeMap<String, VolumeSource>,
    pub(super) security: PodSecurity,
    pub(super) service_account: &'a str,
    pub(super) host_network: bool,
    /// Whether `os` is written.
    pub(super) names_os: bool,
}

/// One of `containers` or `initContainers`.
pub(super) fn container(
    container: core::Container,
    init: bool,
    pod: &OfPod<'_>,
    at: &At<'_>,
) -> Container {
    let sidecar = init && container.restart_policy.as_deref() == Some("Always");
    refuse_restarts(&container, sidecar, at);
    report_devices_and_terminals(&container, at);
    if init && !sidecar {
        refuse_probes(&container, at);
    }

    // Without `..`: a field that a later API brings does not compile before it is read or refused.
    let core::Container {
        args,
        command,
        env: variables,
        env_from: sources,
        image,
        image_pull_policy,
        lifecycle: hooks,
        liveness_probe,
        name,
        ports,
        readiness_probe,
        resize_policy: _,
        resources: wanted,
        restart_policy: _,
        restart_policy_rules: _,
        security_context,
        startup_probe,
        stdin,
        stdin_once: _,
        termination_message_path,
        termination_message_policy,
        tty,
        volume_devices: _,
        volume_mounts,
        working_dir,
    } = container;
    let image = image_name(image.unwrap_or_default(), &at.field("image"));
    let pull = at.field("imagePullPolicy").word(
        image_pull_policy.as_deref(),
        PULL_POLICIES,
        default_pull(&image),
    );
    let security = container_security(
        security_context,
        &pod.security,
        &at.field("securityContext"),
    );
    let ports = container_ports(ports, pod.host_network, &at.field("ports"));
    let LifeHooks {
        post_start,
        pre_stop,
        stop_signal,
    } = lifecycle(hooks, &ports, pod.names_os, &at.field("lifecycle"));
    Container {
        name: at.field("name").checked(name, syntax::label),
        pull,
        image: ImageReference::new(image),
        command: command.unwrap_or_default(),
        args: args.unwrap_or_default(),
        working_dir: at
            .field("workingDir")
            .optional(working_dir, syntax::working_directory),
        env_from: env_from(sources, &at.field("envFrom")),
        env: env(variables, pod.service_account, &at.field("env")),
        resources: resources(wanted, &at.field("resources")),
        mounts: mounts(
            volume_mounts,
            pod.volumes,
            security.privileged,
            &at.field("volumeMounts"),
        ),
        post_start,
        pre_stop,
        stop_signal,
        startup: probe(startup_probe, Asks::Life, &ports, &at.field("startupProbe")),
        readiness: probe(
            readiness_probe,
            Asks::Readiness,
            &ports,
            &at.field("readinessProbe"),
        ),
        liveness: probe(
            liveness_probe,
            Asks::Life,
            &ports,
            &at.field("livenessProbe"),
        ),
        ports,
        termination_message_path: at
            .field("terminationMessagePath")
            .optional(
                termination_message_path.map(below_root),
                syntax::absolute_path,
            )
            .unwrap_or_else(|| "/dev/termination-log".to_owned()),
        message_from_logs: at.field("terminationMessagePolicy").word(
            termination_message_policy.as_deref(),
            &[("File", false), ("FallbackToLogsOnError", true)],
            false,
        ),
        stdin: stdin.unwrap_or(false),
        tty: tty.unwrap_or(false),
        security,
    }
}

const PULL_POLICIES: &[(&str, PullPolicy)] = &[
    ("Always", PullPolicy::Always),
    ("IfNotPresent", PullPolicy::IfNotPresent),
    ("Never", PullPolicy::Never),
];

/// Refuses a restart policy of the container's own: only pods have one here.
fn refuse_restarts(container: &core::Container, sidecar: bool, at: &At<'_>) {
    const RESTARTED: &str = "restart the container as its pod says";
    const INSTEAD: &str =
        "set the restartPolicy of the pod, or make the container a pod of its own, in its place";

    if sidecar {
        at.field("restartPolicy").error(
            "not supported yet: a sidecar would hold up the others; make it one of containers",
        );
    } else {
        at.field("restartPolicy")
            .refuse(container.restart_policy.is_some(), RESTARTED, INSTEAD);
    }

    let rules = container.restart_policy_rules.as_ref();
    at.field("restartPolicyRules").refuse(
        rules.is_some_and(|rules| !rules.is_empty()),
        RESTARTED,
        INSTEAD,
    );
}

/// Refuses devices; warns of fields that change nothing here.
fn report_devices_and_terminals(container: &core::Container, at: &At<'_>) {
    let devices = container.volume_devices.as_ref();
    at.field("volumeDevices").refuse(
        devices.is_some_and(|devices| !devices.is_empty()),
        "start the container without its device",
        "mount the device with a hostPath volume of type BlockDevice in its place",
    );

    let policies = container.resize_policy.as_ref();
    at.field("resizePolicy").ignore(
        policies.is_some_and(|policies| !policies.is_empty()),
        "a changed container is replaced",
    );
    at.field("stdinOnce").ignore(
        container.stdin_once == Some(true),
        "nothing attaches to a container",
    );
}

/// Refuses what Kubernetes refuses too: an init container is ready when it has ended.
fn refuse_probes(container: &core::Container, at: &At<'_>) {
    for (field, given) in [
        ("lifecycle", container.lifecycle.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
    ] {
        if given {
            at.field(field)
                .error("an init container has none: it runs to its end; remove it");
        }
    }
}

/// `image`; errors that only the engine reported before are a rule for new heads.
fn image_name(image: String, at: &At<'_>) -> String {
    let image = at.checked(image, syntax::image);
    if syntax::image(&image).is_ok()
        && let Err(fault) = ImageName::parse(&image)
    {
        at.error_in_new_heads(format_args!("{image:?} is no image: {fault}"));
    }
    image
}

/// The default of `imagePullPolicy`: Always for `:latest` and for no tag, since such a tag is moved
/// often.
fn default_pull(image: &str) -> PullPolicy {
    if image.contains('@') {
        return PullPolicy::IfNotPresent;
    }
    let last = image.rsplit_once('/').map_or(image, |(_, last)| last);
    match last.split_once(':') {
        None | Some((_, "latest")) => PullPolicy::Always,
        Some(_) => PullPolicy::IfNotPresent,
    }
}

const PROTOCOLS: &[(&str, Protocol)] = &[
    ("TCP", Protocol::Tcp),
    ("UDP", Protocol::Udp),
    ("SCTP", Protocol::Sctp),
];

/// `protocol` of a port.
pub(super) fn protocol(protocol: Option<&str>, at: &At<'_>) -> Protocol {
    at.word(protocol, PROTOCOLS, Protocol::Tcp)
}

fn container_ports(
    ports: Option<Vec<core::ContainerPort>>,
    host_network: bool,
    at: &At<'_>,
) -> Vec<ContainerPort> {
    let mut names = BTreeSet::new();
    let mut read = Vec::new();
    for (index, port) in ports.unwrap_or_default().into_iter().enumerate() {
        let at = at.index(index);
        let core::ContainerPort {
            container_port,
            host_ip,
            host_port,
            name,
            protocol: transport,
        } = port;
        let port = ContainerPort {
            name: at.field("name").optional(name, syntax::port_name),
            port: at.field("containerPort").port(container_port),
            protocol: protocol(transport.as_deref(), &at.field("protocol")),
            host_port: match host_port {
                // Kubernetes reads 0 as a missing field: its Go type has no other value for one.
                None | Some(0) => None,
                Some(port) => Some(at.field("hostPort").port(port)),
            },
            host_ip: host_address(host_ip, &at.field("hostIP")),
        };

        if let Some(name) = &port.name
            && !names.insert(name.clone())
        {
            at.field("name").error(format_args!(
                "the port name {name:?} is there twice: rename one"
            ));
        }
        if host_network && port.host_port.is_some_and(|host| host != port.port) {
            at.field("hostPort")
                .error("must equal containerPort with hostNetwork: correct or remove it");
        }

        read.push(port);
    }
    read
}

/// `hostIP`; `0.0.0.0` means every address, as does a missing field.
fn host_address(address: Option<String>, at: &At<'_>) -> Option<std::net::Ipv4Addr> {
    let address = address.filter(|address| !address.is_empty())?;
    match address.parse::<std::net::Ipv4Addr>() {
        Ok(address) if address.is_unspecified() => None,
        Ok(address) => Some(address),
        Err(_) => {
            at.error(format_args!(
                "{address:?} is not an IPv4 address: correct or remove it"
            ));
            None
        }
    }
}

/// Minimum memory limit that Docker accepts, in bytes.
const LEAST_MEMORY: u64 = 6 << 20;

fn resources(resources: Option<core::ResourceRequirements>, at: &At<'_>) -> Resources {
    let core::ResourceRequirements {
        claims,
        limits,
        requests,
    } = resources.unwrap_or_default();
    at.field("claims").refuse(
        claims.is_some_and(|claims| !claims.is_empty()),
        "start the container without its device",
        "mount the device with a hostPath volume in its place",
    );

    let limits = amounts(limits, &at.field("limits"));
    let requests = amounts(requests, &at.field("requests"));
    if let Some(bytes) = limits.memory_bytes
        && bytes < LEAST_MEMORY
    {
        at.field("limits")
            .field("memory")
            .error("Docker takes no memory limit below 6Mi: raise it");
    }

    for (field, request, limit) in [
        ("cpu", requests.cpu_milli, limits.cpu_milli),
        ("memory", requests.memory_bytes, limits.memory_bytes),
    ] {
        if let (Some(request), Some(limit)) = (request, limit)
            && request > limit
        {
            at.field("requests")
                .field(field)
                .error("more than the limit: lower it, or raise the limit");
        }
    }

    // As in Kubernetes, a container with a limit and no request requests what it is limited to.
    Resources {
        cpu_request_milli: requests.cpu_milli.or(limits.cpu_milli),
        cpu_limit_milli: limits.cpu_milli,
        memory_request_bytes: requests.memory_bytes.or(limits.memory_bytes),
        memory_limit_bytes: limits.memory_bytes,
    }
}

#[derive(Default)]
struct Amounts {
    cpu_milli: Option<u64>,
    memory_bytes: Option<u64>,
}

fn amounts(quantities: Option<BTreeMap<String, Quantity>>, at: &At<'_>) -> Amounts {
    let mut amounts = Amounts::default();
    for (resource, Quantity(text)) in quantities.unwrap_or_default() {
        let at = at.field(&resource);
        let invalid =
            |rule: &str| at.error(format_args!("{text:?} is not valid: it must be {rule}"));
        match resource.as_str() {
            "cpu" => {
                amounts.cpu_milli = positive(quantity::milli(&text).map_err(invalid));
            }
            // Kubernetes rounds the fraction up to whole bytes; authors of `128m` usually mean
            // mebibytes.
            "memory" if text.ends_with('m') && quantity::is_fraction(&text) => {
                at.error(format_args!(
                    "{text:?} is a fraction of a byte: write Mi for mebibytes"
                ));
            }
            "memory" => {
                amounts.memory_bytes = positive(quantity::whole(&text).map_err(invalid));
            }
            "ephemeral-storage" => {
                at.warning("no effect: the size of a container's layer is not bounded here")
            }
            _ => at.refuse(
                true,
                "place the pod where this resource may not be",
                "label the nodes that have it, and choose them by nodeSelector in its place",
            ),
        }
    }
    amounts
}

/// An amount other than 0, which bounds nothing, as for Docker.
fn positive(amount: Result<u64, ()>) -> Option<u64> {
    match amount {
        Ok(0) | Err(()) => None,
        Ok(amount) => Some(amount),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_changes_under_its_name_is_pulled_always() {
        for image in ["httpd", "httpd:latest", "registry.example.com:5000/httpd"] {
            assert_eq!(default_pull(image), PullPolicy::Always, "{image}");
        }
        for image in [
            "httpd:2.4",
            "httpd@sha256:00",
            "registry.example.com:5000/httpd:2.4",
        ] {
            assert_eq!(default_pull(image), PullPolicy::IfNotPresent, "{image}");
        }
    }
}
