//! Pure: translates the specification of a container into the engine's request.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountType, RestartPolicy, RestartPolicyNameEnum,
};
use reconciler::{
    name::{ContainerId, Installation},
    object::{ContainerSecurity, MountPropagation, Resources},
    plan::{ContainerSpec, Role, SandboxSpec},
};

use crate::{config::LogBounds, docker::LogDriver, labels::Labels};

#[cfg(test)]
mod tests;

/// Enough for the start-up of the container's runtime inside of the cgroup; the sandbox's program
/// needs almost nothing.
const SANDBOX_MEMORY_BYTES: i64 = 32 << 20;
/// As in Kubernetes: the OOM killer selects the sandbox last.
const SANDBOX_OOM_SCORE: i64 = -998;
/// The engine's least number of CPU shares.
const MIN_CPU_SHARES: u64 = 2;

/// Facts of this host that the core does not know.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) installation: Installation,
    pub(crate) cgroup_parent: Option<String>,
    pub(crate) memory_bytes: u64,
    /// The lowest OOM score that a container can have on this host: a score below 0 needs
    /// `CAP_SYS_RESOURCE`, which some hosts (containers that run whole systems) do not have, and a
    /// container with a lower score would not start there.
    pub(crate) lowest_oom_score: i64,
    /// The bounds of a container's log.
    pub(crate) logs: LogBounds,
}

/// A mount whose source on this host has been resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BoundMount {
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) read_only: bool,
    pub(crate) propagation: MountPropagation,
}

/// The sandbox: an empty network namespace, unless the pod uses the host's.
pub(crate) fn sandbox(
    spec: &SandboxSpec,
    image: &str,
    host: &Host,
) -> (Labels, ContainerCreateBody) {
    let labels = Labels {
        identity: spec.identity.clone(),
        role: Role::Sandbox,
        name: String::new(),
        attempt: spec.attempt,
        message_from_logs: false,
    };
    let host_config = HostConfig {
        network_mode: Some(if spec.host_network { "host" } else { "none" }.to_owned()),
        // The sandbox's program prints nothing.
        log_config: Some(HostConfigLogConfig {
            typ: Some("none".to_owned()),
            config: None,
        }),
        ipc_mode: Some(if spec.host_ipc { "host" } else { "shareable" }.to_owned()),
        sysctls: match spec.sysctls.is_empty() {
            true => None,
            false => Some(spec.sysctls.clone().into_iter().collect()),
        },
        memory: Some(SANDBOX_MEMORY_BYTES),
        memory_swap: Some(SANDBOX_MEMORY_BYTES),
        cpu_shares: Some(i64::try_from(MIN_CPU_SHARES).unwrap_or_default()),
        readonly_rootfs: Some(true),
        // Half of the time of a pod's start is the start of its sandbox, most of which the engine
        // spends around the program: a system call filter and a dozen mounts over /proc, for a
        // program of ours that only sleeps and has no capability.
        security_opt: Some(vec![
            "no-new-privileges".to_owned(),
            "seccomp=unconfined".to_owned(),
        ]),
        masked_paths: Some(Vec::new()),
        readonly_paths: Some(Vec::new()),
        cap_drop: Some(vec!["ALL".to_owned()]),
        oom_score_adj: Some(SANDBOX_OOM_SCORE.max(host.lowest_oom_score)),
        ..common_host_config(host)
    };
    let body = ContainerCreateBody {
        hostname: if spec.hostname.is_empty() {
            None
        } else {
            Some(spec.hostname.clone())
        },
        image: Some(image.to_owned()),
        entrypoint: Some(vec!["/pause".to_owned()]),
        stop_signal: Some("SIGKILL".to_owned()),
        // A network namespace of its own with a loopback device, created by the container's
        // runtime; the engine's network code, which starts another process for every container, is
        // not used.
        network_disabled: only_if(!spec.host_network),
        healthcheck: Some(no_healthcheck()),
        labels: Some(labels.write(&host.installation)),
        host_config: Some(host_config),
        ..ContainerCreateBody::default()
    };
    (labels, body)
}

/// One container, joined to its pod's sandbox. `user` replaces the user of the security context.
pub(crate) fn container(
    spec: &ContainerSpec,
    sandbox: &ContainerId,
    mounts: Vec<BoundMount>,
    user: Option<String>,
    log_driver: LogDriver,
    host: &Host,
) -> (Labels, ContainerCreateBody) {
    let labels = labels_of(spec);
    let joined = format!("container:{sandbox}");
    let Resources {
        cpu_request_milli,
        cpu_limit_milli,
        memory_request_bytes: _,
        memory_limit_bytes,
    } = spec.resources;
    let ContainerSecurity {
        privileged,
        run_as_user,
        run_as_group,
        run_as_non_root: _,
        groups,
        read_only_root,
        no_new_privileges,
        add_capabilities,
        drop_capabilities,
    } = &spec.security;
    // The engine counts memory and swap together: the same number for both is no swap, as kubelet
    // sets it.
    let memory = memory_limit_bytes.map(signed);
    let host_config = HostConfig {
        network_mode: Some(joined.clone()),
        ipc_mode: Some(joined),
        pid_mode: if spec.host_pid {
            Some("host".to_owned())
        } else {
            None
        },
        memory,
        memory_swap: memory,
        nano_cpus: cpu_limit_milli.map(|milli| signed(milli.saturating_mul(1_000_000))),
        cpu_shares: Some(cpu_shares(cpu_request_milli.or(cpu_limit_milli))),
        mounts: Some(mounts.into_iter().map(mount).collect()),
        privileged: only_if(*privileged),
        readonly_rootfs: only_if(*read_only_root),
        security_opt: if *no_new_privileges {
            Some(vec!["no-new-privileges".to_owned()])
        } else {
            None
        },
        group_add: unless_empty(&groups.iter().map(u32::to_string).collect::<Vec<_>>()),
        cap_add: unless_empty(add_capabilities),
        cap_drop: unless_empty(drop_capabilities),
        oom_score_adj: Some(
            oom_score(&spec.resources, host.memory_bytes).max(host.lowest_oom_score),
        ),
        log_config: log_config(log_driver, host.logs),
        ..common_host_config(host)
    };
    let body = ContainerCreateBody {
        image: Some(spec.image.to_string()),
        // With an entry point in the request the engine ignores the image's command, as Kubernetes
        // does.
        entrypoint: unless_empty(&spec.command),
        cmd: unless_empty(&spec.args),
        working_dir: spec.working_dir.clone(),
        env: Some(
            spec.env
                .iter()
                .map(|(name, value)| format!("{name}={}", value.expose()))
                .collect(),
        ),
        user: user.or_else(|| user_text(*run_as_user, *run_as_group)),
        stop_signal: spec.stop_signal.clone(),
        tty: only_if(spec.tty),
        open_stdin: only_if(spec.stdin),
        healthcheck: Some(no_healthcheck()),
        labels: Some(labels.write(&host.installation)),
        host_config: Some(host_config),
        ..ContainerCreateBody::default()
    };
    (labels, body)
}

/// The labels of a container of a pod.
pub(crate) fn labels_of(spec: &ContainerSpec) -> Labels {
    Labels {
        identity: spec.identity.clone(),
        role: spec.role,
        name: spec.name.clone(),
        attempt: spec.attempt,
        message_from_logs: spec.message_from_logs,
    }
}

fn common_host_config(host: &Host) -> HostConfig {
    HostConfig {
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        cgroup_parent: host.cgroup_parent.clone(),
        ..HostConfig::default()
    }
}

/// The driver of a container's log, with its bounds; `None` for the engine's default. Not `local`
/// where that is the default: agents read the files of json-file on the host.
fn log_config(driver: LogDriver, bounds: LogBounds) -> Option<HostConfigLogConfig> {
    let LogBounds {
        max_bytes,
        max_files,
    } = bounds;
    let options = [
        ("max-size", max_bytes.to_string()),
        ("max-file", max_files.to_string()),
    ];
    match driver {
        LogDriver::Files => Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(options.map(|(name, value)| (name.to_owned(), value)).into()),
        }),
        LogDriver::Chosen => None,
    }
}

/// Probes are run by the daemon; an image's own health check would run in addition.
fn no_healthcheck() -> HealthConfig {
    HealthConfig {
        test: Some(vec!["NONE".to_owned()]),
        ..HealthConfig::default()
    }
}

fn mount(mount: BoundMount) -> Mount {
    let propagation = match mount.propagation {
        MountPropagation::None => MountBindOptionsPropagationEnum::RPRIVATE,
        MountPropagation::HostToContainer => MountBindOptionsPropagationEnum::RSLAVE,
        MountPropagation::Bidirectional => MountBindOptionsPropagationEnum::RSHARED,
    };
    Mount {
        typ: Some(MountType::BIND),
        source: Some(mount.source),
        target: Some(mount.target),
        read_only: Some(mount.read_only),
        bind_options: Some(MountBindOptions {
            propagation: Some(propagation),
            // Kubernetes' readOnly is not recursive. Engines since API 1.44 make it recursive by
            // default; older engines do not know the field and are not recursive.
            read_only_non_recursive: only_if(mount.read_only),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    }
}

/// A field that the engine takes for false where it is left out.
fn only_if(condition: bool) -> Option<bool> {
    if condition { Some(true) } else { None }
}

/// A list that the engine takes from the image, or from its own defaults, where it is left out.
fn unless_empty(list: &[String]) -> Option<Vec<String>> {
    if list.is_empty() {
        None
    } else {
        Some(list.to_vec())
    }
}

fn user_text(user: Option<i64>, group: Option<i64>) -> Option<String> {
    match (user, group) {
        (Some(user), Some(group)) => Some(format!("{user}:{group}")),
        (Some(user), None) => Some(user.to_string()),
        // The engine accepts a group only together with a user: the caller reads the user from the
        // image.
        (None, _) => None,
    }
}

/// Converts `requests.cpu` as kubelet does: 1024 shares for each core, at least two.
fn cpu_shares(milli: Option<u64>) -> i64 {
    signed((milli.unwrap_or(0).saturating_mul(1024) / 1000).clamp(MIN_CPU_SHARES, 262_144))
}

/// The OOM scores of Kubernetes: best effort is killed first, then burstable by its request, then
/// guaranteed.
fn oom_score(resources: &Resources, host_memory_bytes: u64) -> i64 {
    let Resources {
        cpu_request_milli,
        cpu_limit_milli,
        memory_request_bytes,
        memory_limit_bytes,
    } = *resources;
    // A limit without a request is the request too.
    let cpu = cpu_request_milli.or(cpu_limit_milli);
    let memory = memory_request_bytes.or(memory_limit_bytes);

    let has_limits = cpu_limit_milli.is_some() && memory_limit_bytes.is_some();
    let is_guaranteed = has_limits && cpu == cpu_limit_milli && memory == memory_limit_bytes;
    if is_guaranteed {
        return -997;
    }
    let is_best_effort = cpu.is_none() && memory.is_none();
    if is_best_effort {
        return 1000;
    }

    let share = memory.unwrap_or(0).saturating_mul(1000) / host_memory_bytes.max(1);
    (1000 - signed(share)).clamp(3, 999)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Labels as the engine returns them; absent ones count as none.
pub(crate) fn labels_or_none(labels: Option<HashMap<String, String>>) -> HashMap<String, String> {
    labels.unwrap_or_default()
}
