//! Checks that need the whole commit: references to missing objects, conflicting ports and
//! addresses, and limits in the host's settings.

mod address;
mod host;
mod port;
mod reference;

use std::{collections::BTreeSet, net::Ipv4Addr, ops::RangeInclusive};

use ipnet::Ipv4Net;

use crate::{
    manifest::{self, Limits, Problem, ReadAs, Severity, SourceFile, one_line},
    name::{ObjectKey, WorkloadKey, WorkloadKind},
    object::{Container, ObjectId, Objects, PodSpec, Workload},
};

/// The part of the host's own configuration that limits what a commit may request.
#[derive(Clone, Debug)]
pub struct CheckSettings {
    /// Range of nodePorts; 30000 to 32767 by default.
    pub node_ports: RangeInclusive<u16>,
    /// Range of cluster addresses; 10.96.0.0/12 by default.
    pub service_range: Ipv4Net,
    /// Addresses of that range that are in use, such as that of the cluster's DNS; none by default.
    pub reserved_addresses: Vec<Ipv4Addr>,
    /// The daemon's own directories (data, configuration, sockets): a hostPath that equals,
    /// contains or is inside one of them is refused. None by default.
    pub forbidden_host_paths: Vec<String>,
    /// A hostPath must equal one of these paths or be inside one; `None`, the default, allows any
    /// path.
    pub allowed_host_paths: Option<Vec<String>>,
    /// Whether containers may be privileged; true by default.
    pub allow_privileged: bool,
    /// Whether pods may use the host's network, process or IPC namespace; true by default.
    pub allow_host_namespaces: bool,
    /// Capabilities that containers may add, without `CAP_`; `None`, the default, allows any.
    pub allowed_capabilities: Option<BTreeSet<String>>,
}

impl Default for CheckSettings {
    fn default() -> Self {
        Self {
            node_ports: 30_000..=32_767,
            service_range: Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 12),
            reserved_addresses: Vec::new(),
            forbidden_host_paths: Vec::new(),
            allowed_host_paths: None,
            allow_privileged: true,
            allow_host_namespaces: true,
            allowed_capabilities: None,
        }
    }
}

/// Reads and checks a commit: [`manifest::parse`], [`check`] and [`manifest::locate`] in one.
///
/// If a document could not be read at all, references are not checked, since that document may
/// contain the objects they name.
pub fn read(
    files: &[SourceFile<'_>],
    limits: &Limits,
    settings: &CheckSettings,
    read_as: ReadAs,
) -> (Objects, Vec<Problem>) {
    let (objects, mut problems) = manifest::parse(files, limits, read_as);
    let complete = !problems
        .iter()
        .any(|problem| problem.severity == Severity::Error && problem.field.is_empty());
    let mut found = findings(&objects, settings, complete);
    manifest::locate(&mut found, files);
    problems.append(&mut found);
    problems.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    (objects, problems)
}

/// Problems that involve more than one object, or the host's settings. They carry the line of their
/// document; [`manifest::locate`] adds the position of the field.
pub fn check(objects: &Objects, settings: &CheckSettings) -> Vec<Problem> {
    findings(objects, settings, true)
}

fn findings(objects: &Objects, settings: &CheckSettings, complete: bool) -> Vec<Problem> {
    let mut findings = ObjectProblems {
        objects,
        problems: Vec::new(),
    };
    if complete {
        reference::check(&mut findings);
    }
    port::check(&mut findings, settings);
    address::check(&mut findings, settings);
    host::check(&mut findings, settings);
    findings.problems
}

/// The problems of objects, as they are collected.
struct ObjectProblems<'a> {
    objects: &'a Objects,
    problems: Vec<Problem>,
}

impl ObjectProblems<'_> {
    fn error(&mut self, of: &ProblemObject, field: String, message: String) {
        self.push(Severity::Error, of, field, message);
    }

    fn warning(&mut self, of: &ProblemObject, field: String, message: String) {
        self.push(Severity::Warning, of, field, message);
    }

    fn push(&mut self, severity: Severity, of: &ProblemObject, field: String, message: String) {
        let position = self.objects.positions.get(&of.0);
        self.problems.push(Problem {
            file: position
                .map(|position| position.file.clone())
                .unwrap_or_default(),
            line: position.map_or(0, |position| position.line),
            column: 0,
            severity,
            field,
            message: one_line(&message),
        });
    }

    /// The position of another object, such as `web.yaml:12`, for a message.
    fn position(&self, of: &ProblemObject) -> String {
        self.objects
            .positions
            .get(&of.0)
            .map_or_else(String::new, |position| {
                format!("{}:{}", position.file, position.line)
            })
    }

    /// The field of one volume of a workload.
    fn volume_field(&self, key: &WorkloadKey, volume: &str) -> String {
        let pod = pod_field(key.kind);
        let original = self.objects.originals.get(&ProblemObject::workload(key).0);
        let volumes = original.and_then(|original| original.pod_spec()?.volumes.as_ref());
        let index = volumes.and_then(|volumes| volumes.iter().position(|one| one.name == volume));
        index.map_or_else(
            || format!("{pod}.volumes"),
            |index| format!("{pod}.volumes[{index}]"),
        )
    }
}

/// The object that a problem concerns.
struct ProblemObject(ObjectId);

impl ProblemObject {
    fn workload(key: &WorkloadKey) -> Self {
        let api_version = match key.kind {
            WorkloadKind::Pod | WorkloadKind::ReplicationController => "v1",
            WorkloadKind::ReplicaSet | WorkloadKind::Deployment | WorkloadKind::DaemonSet => {
                "apps/v1"
            }
        };
        Self(ObjectId {
            api_version: api_version.to_owned(),
            kind: key.kind.as_str().to_owned(),
            key: key.object.clone(),
        })
    }

    fn service(key: &ObjectKey) -> Self {
        Self(ObjectId {
            api_version: "v1".to_owned(),
            kind: "Service".to_owned(),
            key: key.clone(),
        })
    }
}

/// The field of a workload's `PodSpec`.
fn pod_field(kind: WorkloadKind) -> &'static str {
    match kind {
        WorkloadKind::Pod => "spec",
        WorkloadKind::ReplicaSet
        | WorkloadKind::ReplicationController
        | WorkloadKind::Deployment
        | WorkloadKind::DaemonSet => "spec.template.spec",
    }
}

/// All containers of a workload's pods, with their fields.
fn containers(workload: &Workload) -> impl Iterator<Item = (String, &Container)> {
    let pod = pod_field(workload.key.kind);
    let PodSpec {
        init_containers,
        containers,
        ..
    } = &workload.template.spec;
    let init = init_containers.iter().enumerate();
    let init =
        init.map(move |(index, container)| (format!("{pod}.initContainers[{index}]"), container));
    let main = containers.iter().enumerate();
    init.chain(
        main.map(move |(index, container)| (format!("{pod}.containers[{index}]"), container)),
    )
}

#[cfg(test)]
pub(crate) mod tests;
