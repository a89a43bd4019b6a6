//! What the host's configuration allows pods to do on the host.

use super::{CheckSettings, ObjectProblems, ProblemObject, containers, pod_field};
use crate::object::{PodSpec, VolumeSource, Workload};

pub(super) fn check(findings: &mut ObjectProblems<'_>, settings: &CheckSettings) {
    for workload in findings.objects.workloads.values() {
        host_paths(findings, workload, settings);
        namespaces(findings, workload, settings);
        rights(findings, workload, settings);
    }
}

fn host_paths(findings: &mut ObjectProblems<'_>, workload: &Workload, settings: &CheckSettings) {
    for (name, volume) in &workload.template.spec.volumes {
        let VolumeSource::HostPath { path, .. } = volume else {
            continue;
        };
        let forbidden = settings
            .forbidden_host_paths
            .iter()
            .find(|own| lies_in(path, own) || lies_in(own, path));
        let problem = match (forbidden, &settings.allowed_host_paths) {
            _ if is_link_of_process(path) => format!(
                "{path:?} leads to the files of a process, which may be any files of the host: write the path of the files themselves"
            ),
            (Some(own), _) => format!(
                "{path:?} would give the pod {own}, which is the daemon's own: choose another path"
            ),
            (None, Some(allowed)) if !allowed.iter().any(|root| lies_in(path, root)) => format!(
                "the host does not allow {path:?}: choose a path in one of {}",
                allowed.join(", ")
            ),
            (None, _) => continue,
        };
        let field = format!(
            "{}.hostPath.path",
            findings.volume_field(&workload.key, name)
        );
        findings.error(&ProblemObject::workload(&workload.key), field, problem);
    }
}

/// Whether a path equals a directory or is inside it, compared by whole path components.
fn lies_in(path: &str, directory: &str) -> bool {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    directory
        .split('/')
        .filter(|part| !part.is_empty())
        .all(|part| parts.next() == Some(part))
}

/// Whether a path is or passes through `root`, `cwd` or `fd` of a process in `/proc` (proc(5)). Where
/// these links lead depends on the process, and no rule about paths is true behind them.
fn is_link_of_process(path: &str) -> bool {
    let mut parts = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".");
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let is_process = |part: &str| is_number(part) || matches!(part, "self" | "thread-self");
    if parts.next() != Some("proc") || !parts.next().is_some_and(is_process) {
        return false;
    }

    let mut file = parts.next();
    if file == Some("task") {
        // `/proc/PID/task/TID` has the same files as `/proc/PID`.
        file = parts.nth(1);
    }
    matches!(file, Some("root" | "cwd" | "fd"))
}

fn namespaces(findings: &mut ObjectProblems<'_>, workload: &Workload, settings: &CheckSettings) {
    if settings.allow_host_namespaces {
        return;
    }
    let PodSpec {
        host_network,
        host_pid,
        host_ipc,
        ..
    } = workload.template.spec;
    for (field, given) in [
        ("hostNetwork", host_network),
        ("hostPID", host_pid),
        ("hostIPC", host_ipc),
    ] {
        if given {
            let field = format!("{}.{field}", pod_field(workload.key.kind));
            let message = "the host does not allow its namespaces to pods: run the pod without, or set host-namespaces under [allow] on the hosts";
            findings.error(
                &ProblemObject::workload(&workload.key),
                field,
                message.to_owned(),
            );
        }
    }
}

fn rights(findings: &mut ObjectProblems<'_>, workload: &Workload, settings: &CheckSettings) {
    for (field, container) in containers(workload) {
        let security = &container.security;
        if security.privileged && !settings.allow_privileged {
            let message = "the host does not allow privileged containers: add the capabilities that it needs, or set privileged under [allow] on the hosts";
            findings.error(
                &ProblemObject::workload(&workload.key),
                format!("{field}.securityContext.privileged"),
                message.to_owned(),
            );
        }
        let Some(allowed) = &settings.allowed_capabilities else {
            continue;
        };
        for (index, name) in security.add_capabilities.iter().enumerate() {
            if !allowed.contains(name.strip_prefix("CAP_").unwrap_or(name)) {
                let names: Vec<&str> = allowed.iter().map(String::as_str).collect();
                let message = format!(
                    "the host does not allow {name}: do without, or add it to capabilities under [allow] on the hosts; allowed are {}",
                    names.join(", ")
                );
                findings.error(
                    &ProblemObject::workload(&workload.key),
                    format!("{field}.securityContext.capabilities.add[{index}]"),
                    message,
                );
            }
        }
    }
}
