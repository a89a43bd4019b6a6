//! `PodSpec`.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use k8s_openapi::api::core::v1 as core;

use super::{
    affinity::affinity,
    container::{OfPod, container},
    meta::labels,
    node::tolerations,
    security::pod_security,
    spread::spread,
    volume::volumes,
};
use crate::{
    manifest::at::At,
    name::NodeName,
    object::{Container, DnsConfig, DnsPolicy, PodSpec, RestartPolicy, VolumeSource},
    syntax,
};

const RESTART: &[(&str, RestartPolicy)] = &[
    ("Always", RestartPolicy::Always),
    ("OnFailure", RestartPolicy::OnFailure),
    ("Never", RestartPolicy::Never),
];

const DNS: &[(&str, DnsPolicy)] = &[
    ("ClusterFirst", DnsPolicy::ClusterFirst),
    (
        "ClusterFirstWithHostNet",
        DnsPolicy::ClusterFirstWithHostNet,
    ),
    ("Default", DnsPolicy::Default),
    ("None", DnsPolicy::None),
];

/// `spec` of a pod or of a pod template.
pub(super) fn pod_spec(spec: core::PodSpec, at: &At<'_>) -> PodSpec {
    refuse_placement(&spec, at);
    refuse_other_lives(&spec, at);
    ignore_without_effect(&spec, at);

    // Without `..`: a field that a later API brings does not compile before it is read or refused.
    let core::PodSpec {
        active_deadline_seconds,
        affinity: wanted_near,
        automount_service_account_token: _,
        containers,
        dns_config,
        dns_policy,
        enable_service_links,
        ephemeral_containers: _,
        host_aliases: aliases,
        host_ipc,
        host_network,
        host_pid,
        host_users: _,
        hostname,
        hostname_override: _,
        image_pull_secrets: _,
        init_containers,
        node_name,
        node_selector,
        os,
        overhead: _,
        preemption_policy: _,
        priority: _,
        priority_class_name: _,
        readiness_gates: _,
        resource_claims: _,
        resources: _,
        restart_policy,
        runtime_class_name: _,
        scheduler_name: _,
        scheduling_gates: _,
        security_context,
        service_account,
        service_account_name,
        set_hostname_as_fqdn,
        share_process_namespace: _,
        subdomain,
        termination_grace_period_seconds,
        tolerations: tolerated,
        topology_spread_constraints,
        volumes: sources,
    } = spec;

    let host_network = host_network.unwrap_or(false);
    let volumes = volumes(sources, &at.field("volumes"));
    let of_pod = OfPod {
        volumes: &volumes,
        security: pod_security(security_context, &at.field("securityContext")),
        service_account: service_account_name
            .as_deref()
            .or(service_account.as_deref())
            .filter(|name| !name.is_empty())
            .unwrap_or("default"),
        host_network,
        names_os: os.is_some(),
    };
    let fs_group = of_pod.security.fs_group;
    let sysctls = of_pod.security.sysctls.clone();
    for (name, given, namespace) in [
        ("hostNetwork", host_network, "net."),
        ("hostIPC", host_ipc == Some(true), "kernel."),
    ] {
        if given && sysctls.keys().any(|sysctl| sysctl.starts_with(namespace)) {
            at.field(name).error(format_args!(
                "sets {namespace}* of the whole host by securityContext.sysctls: take one of the two away"
            ));
        }
    }
    let has_host_path = |volume: &VolumeSource| matches!(volume, VolumeSource::HostPath { .. });
    if fs_group.is_some() && volumes.values().any(has_host_path) {
        at.field("securityContext").field("fsGroup").warning(
            "has no effect on hostPath volumes, as in Kubernetes: their files keep their owners and modes",
        );
    }
    let (init_containers, containers) = all_containers(init_containers, containers, &of_pod, at);

    let node_selector = node_selector.unwrap_or_default();
    labels(&node_selector, &at.field("nodeSelector"));
    let (dns_policy, dns_config) = dns(dns_policy.as_deref(), dns_config, at);
    PodSpec {
        restart_policy: at.field("restartPolicy").word(
            restart_policy.as_deref(),
            RESTART,
            RestartPolicy::Always,
        ),
        termination_grace: seconds(
            termination_grace_period_seconds.unwrap_or(30),
            0,
            &at.field("terminationGracePeriodSeconds"),
        ),
        active_deadline: active_deadline_seconds
            .map(|number| seconds(number, 1, &at.field("activeDeadlineSeconds"))),
        host_network,
        host_pid: host_pid.unwrap_or(false),
        host_ipc: host_ipc.unwrap_or(false),
        hostname: at.field("hostname").optional(hostname, syntax::label),
        subdomain: at.field("subdomain").optional(subdomain, syntax::label),
        host_aliases: host_aliases(aliases, &at.field("hostAliases")),
        dns_policy,
        dns_config,
        enable_service_links: enable_service_links.unwrap_or(true),
        node_name: at
            .field("nodeName")
            .optional(node_name, syntax::subdomain)
            .map(NodeName::new),
        node_selector,
        affinity: affinity(wanted_near, &at.field("affinity")),
        spread: spread(
            topology_spread_constraints,
            &at.field("topologySpreadConstraints"),
        ),
        tolerations: tolerations(tolerated, &at.field("tolerations")),
        init_containers,
        containers,
        volumes,
        sysctls,
        hostname_as_fqdn: set_hostname_as_fqdn == Some(true),
        fs_group,
    }
}

/// Refuses fields that would place a pod on other hosts, or count other amounts there.
fn refuse_placement(spec: &core::PodSpec, at: &At<'_>) {
    const PLACED_ELSEWHERE: &str = "place the pod where you did not ask for it";

    let scheduler = spec.scheduler_name.as_deref().unwrap_or_default();
    at.field("schedulerName").refuse(
        !matches!(scheduler, "" | "default-scheduler"),
        PLACED_ELSEWHERE,
        "say where the pod belongs with nodeSelector or affinity in its place",
    );
    at.field("overhead").refuse(
        spec.overhead
            .as_ref()
            .is_some_and(|overhead| !overhead.is_empty()),
        PLACED_ELSEWHERE,
        "add the amounts to the requests of a container in its place",
    );

    let resources = spec.resources.as_ref();
    at.field("resources").refuse(
        resources.is_some_and(|resources| *resources != core::ResourceRequirements::default()),
        "leave the pod without bounds",
        "give the bounds to its containers in its place",
    );
}

/// Refuses fields that would change how a pod is run or what it can see.
fn refuse_other_lives(spec: &core::PodSpec, at: &At<'_>) {
    let another_name = (
        "give the pod another name",
        "write the first part of the name as hostname in its place",
    );
    for (field, given, (ignoring_would, instead)) in [
        (
            "schedulingGates",
            some(&spec.scheduling_gates),
            (
                "start the pod before its gates open",
                "keep the pod out of the configured paths until it may start",
            ),
        ),
        (
            "readinessGates",
            some(&spec.readiness_gates),
            (
                "call the pod ready too early",
                "let the readinessProbe of a container ask for the condition in its place",
            ),
        ),
        (
            "ephemeralContainers",
            some(&spec.ephemeral_containers),
            ("leave containers out", "make them containers of the pod"),
        ),
        (
            "resourceClaims",
            some(&spec.resource_claims),
            (
                "start the pod without its devices",
                "mount each device with a hostPath volume in its place",
            ),
        ),
        (
            "runtimeClassName",
            spec.runtime_class_name.is_some(),
            (
                "run the pod by another runtime",
                "make that runtime the default of Docker on the hosts, and then leave this field out",
            ),
        ),
        (
            "hostUsers",
            spec.host_users == Some(false),
            (
                "run the pod as users of the host",
                "give the pod a user of its own with securityContext.runAsUser in its place",
            ),
        ),
        (
            "hostnameOverride",
            spec.hostname_override.is_some(),
            another_name,
        ),
        (
            "shareProcessNamespace",
            spec.share_process_namespace == Some(true),
            (
                "hide the containers' processes from each other",
                "put programs that must see each other into one container",
            ),
        ),
    ] {
        at.field(field).refuse(given, ignoring_would, instead);
    }

    if some(&spec.image_pull_secrets) {
        at.field("imagePullSecrets").error(
            "not supported yet: put the registry's credentials into the file that docker.config-file names on the \
             hosts, and then leave this field out",
        );
    }
    if spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        at.field("os")
            .error("only linux runs here: keep this pod out of the configured paths");
    }
}

/// Warns of fields that have no effect here and that a pod does without.
fn ignore_without_effect(spec: &core::PodSpec, at: &At<'_>) {
    const NO_PRIORITY: &str = "pods are not preempted here";
    const NO_ACCOUNT: &str = "there is no API server to speak to";

    let class = spec.priority_class_name.as_deref().unwrap_or_default();
    for (field, given, reason) in [
        (
            "automountServiceAccountToken",
            spec.automount_service_account_token == Some(true),
            NO_ACCOUNT,
        ),
        ("priority", spec.priority.unwrap_or(0) != 0, NO_PRIORITY),
        ("priorityClassName", !class.is_empty(), NO_PRIORITY),
        (
            "preemptionPolicy",
            spec.preemption_policy.is_some(),
            NO_PRIORITY,
        ),
        (
            "serviceAccount",
            names_account(spec.service_account.as_deref()),
            NO_ACCOUNT,
        ),
        (
            "serviceAccountName",
            names_account(spec.service_account_name.as_deref()),
            NO_ACCOUNT,
        ),
    ] {
        at.field(field).ignore(given, reason);
    }
}

fn some<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|list| !list.is_empty())
}

/// Whether a pod asks for an account other than the one that every namespace has.
fn names_account(name: Option<&str>) -> bool {
    name.is_some_and(|name| !matches!(name, "" | "default"))
}

fn seconds(number: i64, least: i64, at: &At<'_>) -> Duration {
    Duration::from_secs(at.within(number, least, i64::from(i32::MAX)).unsigned_abs())
}

fn all_containers(
    init: Option<Vec<core::Container>>,
    main: Vec<core::Container>,
    pod: &OfPod<'_>,
    at: &At<'_>,
) -> (Vec<Container>, Vec<Container>) {
    let mut names = BTreeSet::new();
    let mut read = |containers: Vec<core::Container>, field: &str, init: bool| -> Vec<Container> {
        let at = at.field(field);
        let containers = containers.into_iter().enumerate();
        containers
            .map(|(index, spec)| {
                let at = at.index(index);
                let read = container(spec, init, pod, &at);
                if !names.insert(read.name.clone()) {
                    at.field("name").error(format_args!(
                        "the container {:?} is there twice: rename one",
                        read.name
                    ));
                }
                read
            })
            .collect()
    };
    let init = read(init.unwrap_or_default(), "initContainers", true);
    let main = read(main, "containers", false);
    if main.is_empty() {
        at.field("containers")
            .error("required: a pod needs at least one container");
    }
    (init, main)
}

fn host_aliases(aliases: Option<Vec<core::HostAlias>>, at: &At<'_>) -> Vec<(IpAddr, Vec<String>)> {
    let mut read = Vec::new();
    for (index, core::HostAlias { hostnames, ip }) in
        aliases.unwrap_or_default().into_iter().enumerate()
    {
        let at = at.index(index);
        let names_at = at.field("hostnames");
        let names = hostnames
            .unwrap_or_default()
            .into_iter()
            .enumerate()
            .map(|(index, name)| names_at.index(index).checked(name, syntax::subdomain))
            .collect();

        if let Some(address) = address(&ip, &at.field("ip")) {
            read.push((address, names));
        }
    }
    read
}

/// `dnsPolicy` and `dnsConfig`.
fn dns(
    policy: Option<&str>,
    config: Option<core::PodDNSConfig>,
    at: &At<'_>,
) -> (DnsPolicy, DnsConfig) {
    let policy = at
        .field("dnsPolicy")
        .word(policy, DNS, DnsPolicy::ClusterFirst);
    let config = dns_config(config, &at.field("dnsConfig"));

    if policy == DnsPolicy::None && config.nameservers.is_empty() {
        at.field("dnsConfig")
            .field("nameservers")
            .error("required: dnsPolicy None has no other name servers");
    }
    (policy, config)
}

fn dns_config(config: Option<core::PodDNSConfig>, at: &At<'_>) -> DnsConfig {
    let core::PodDNSConfig {
        nameservers,
        options,
        searches,
    } = config.unwrap_or_default();
    let searches = searches.unwrap_or_default();
    check_searches(&searches, &at.field("searches"));
    DnsConfig {
        nameservers: name_servers(&nameservers.unwrap_or_default(), &at.field("nameservers")),
        searches,
        options: resolver_options(options.unwrap_or_default(), &at.field("options")),
    }
}

fn name_servers(texts: &[String], at: &At<'_>) -> Vec<IpAddr> {
    // MAXNS of resolv.conf(5): resolvers leave a fourth one out without a word.
    if texts.len() > 3 {
        at.error("resolvers ask at most 3 name servers: remove some");
    }

    texts
        .iter()
        .enumerate()
        .filter_map(|(index, text)| address(text, &at.index(index)))
        .collect()
}

fn check_searches(domains: &[String], at: &At<'_>) {
    for (index, domain) in domains.iter().enumerate() {
        // A single dot is the root domain, and a trailing dot is allowed.
        if domain != "." {
            at.index(index).checked(
                domain.trim_end_matches('.').to_owned(),
                syntax::search_domain,
            );
        }
    }

    if domains.len() > 32 {
        at.error("resolvers search at most 32 domains: remove some");
    }
}

/// Options as resolv.conf(5) writes them: `name`, or `name:value`.
fn resolver_options(options: Vec<core::PodDNSConfigOption>, at: &At<'_>) -> Vec<String> {
    let mut texts = Vec::new();
    for (index, core::PodDNSConfigOption { name, value }) in options.into_iter().enumerate() {
        let at = at.index(index);
        let name = at
            .field("name")
            .checked(name.unwrap_or_default(), syntax::word);
        texts.push(match value {
            Some(value) => {
                let value = at.field("value").checked(value, syntax::word);
                format!("{name}:{value}")
            }
            None => name,
        });
    }
    texts
}

fn address(text: &str, at: &At<'_>) -> Option<IpAddr> {
    let address = text.parse().ok();
    if address.is_none() {
        at.error(format_args!("{text:?} is not an IP address: correct it"));
    }
    address
}
