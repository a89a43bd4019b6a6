//! A pod's specification: every field that Windlass honours, and no others.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Affinity, SpreadConstraint, Toleration};
use crate::name::{ImageReference, NodeName};

/// `PodSpec`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSpec {
    /// `restartPolicy`.
    pub restart_policy: RestartPolicy,
    /// `terminationGracePeriodSeconds`; zero kills at once.
    pub termination_grace: Duration,
    /// `activeDeadlineSeconds`.
    pub active_deadline: Option<Duration>,
    /// `hostNetwork`.
    pub host_network: bool,
    /// `hostPID`.
    pub host_pid: bool,
    /// `hostIPC`.
    pub host_ipc: bool,
    /// `hostname`; `None` is the pod's name.
    pub hostname: Option<String>,
    /// `subdomain`.
    pub subdomain: Option<String>,
    /// `hostAliases`: address to names.
    pub host_aliases: Vec<(std::net::IpAddr, Vec<String>)>,
    /// `dnsPolicy`.
    pub dns_policy: DnsPolicy,
    /// `dnsConfig`.
    pub dns_config: DnsConfig,
    /// `enableServiceLinks`.
    pub enable_service_links: bool,
    /// `nodeName`.
    pub node_name: Option<NodeName>,
    /// `nodeSelector`.
    pub node_selector: BTreeMap<String, String>,
    /// `affinity`.
    pub affinity: Affinity,
    /// `topologySpreadConstraints`.
    pub spread: Vec<SpreadConstraint>,
    /// `tolerations`.
    pub tolerations: Vec<Toleration>,
    /// `initContainers`, in order.
    pub init_containers: Vec<Container>,
    /// `containers`, in order, at least one.
    pub containers: Vec<Container>,
    /// `volumes` by name.
    pub volumes: BTreeMap<String, VolumeSource>,
    /// `securityContext.sysctls`: settings of the kernel in the pod's own namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// `setHostnameAsFQDN`.
    pub hostname_as_fqdn: bool,
    /// `securityContext.fsGroup`: the group that may write to the pod's own volumes.
    pub fs_group: Option<u32>,
}

impl PodSpec {
    /// Whether a container may write to the host's own disk, where its data would stay. A socket
    /// stores no data.
    pub fn writes_to_host(&self) -> bool {
        !self.written_host_paths().is_empty()
    }

    /// The paths of the host to which a container may write, sockets excluded.
    pub fn written_host_paths(&self) -> Vec<String> {
        let containers = self.init_containers.iter().chain(&self.containers);
        let mounts = containers
            .flat_map(|container| &container.mounts)
            .filter(|mount| !mount.read_only);
        let written = mounts.filter_map(|mount| match self.volumes.get(&mount.volume) {
            Some(VolumeSource::HostPath { path, kind }) if *kind != HostPathKind::Socket => {
                let below = mount
                    .sub_path
                    .as_ref()
                    .map_or_else(String::new, |below| format!("/{below}"));
                Some(format!("{}{below}", path.trim_end_matches('/')))
            }
            _ => None,
        });
        written.collect()
    }
}

/// `restartPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// Restart whatever the exit code.
    #[default]
    Always,
    /// Restart unless it exited with 0.
    OnFailure,
    /// Never restart.
    Never,
}

/// `dnsPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DnsPolicy {
    /// The cluster's DNS, except for pods on the host's network.
    #[default]
    ClusterFirst,
    /// The cluster's DNS, on the host's network too.
    ClusterFirstWithHostNet,
    /// The host's own resolv.conf.
    Default,
    /// Only the values of `dnsConfig`.
    None,
}

/// `dnsConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsConfig {
    /// `nameservers`.
    pub nameservers: Vec<std::net::IpAddr>,
    /// `searches`.
    pub searches: Vec<String>,
    /// `options`, each `name` or `name:value`.
    pub options: Vec<String>,
}

/// `Container`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// `name`.
    pub name: String,
    /// `image`, as written.
    pub image: ImageReference,
    /// `imagePullPolicy`, with its default for the tag applied.
    pub pull: PullPolicy,
    /// `command`: replaces the image's ENTRYPOINT; empty keeps it.
    pub command: Vec<String>,
    /// `args`: replaces the image's CMD; empty keeps it.
    pub args: Vec<String>,
    /// `workingDir`.
    pub working_dir: Option<String>,
    /// `envFrom`, in order: later sources override earlier ones, and `env` overrides all of them.
    pub env_from: Vec<EnvFrom>,
    /// `env`, in order.
    pub env: Vec<EnvVar>,
    /// `ports`.
    pub ports: Vec<ContainerPort>,
    /// `resources`.
    pub resources: Resources,
    /// `volumeMounts`.
    pub mounts: Vec<VolumeMount>,
    /// `lifecycle.postStart`.
    pub post_start: Option<Handler>,
    /// `lifecycle.preStop`.
    pub pre_stop: Option<Handler>,
    /// `lifecycle.stopSignal`; `None` is the image's signal, or SIGTERM.
    pub stop_signal: Option<String>,
    /// `startupProbe`.
    pub startup: Option<Probe>,
    /// `readinessProbe`.
    pub readiness: Option<Probe>,
    /// `livenessProbe`.
    pub liveness: Option<Probe>,
    /// `terminationMessagePath`.
    pub termination_message_path: String,
    /// `terminationMessagePolicy: FallbackToLogsOnError`.
    pub message_from_logs: bool,
    /// `stdin`.
    pub stdin: bool,
    /// `tty`.
    pub tty: bool,
    /// `securityContext`.
    pub security: ContainerSecurity,
}

/// `securityContext` of a container, merged with the pod's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerSecurity {
    /// `privileged`.
    pub privileged: bool,
    /// `runAsUser`.
    pub run_as_user: Option<i64>,
    /// `runAsGroup`.
    pub run_as_group: Option<i64>,
    /// `runAsNonRoot: true`, where `runAsUser` does not say it already: the image's own user must be
    /// the number of another user than root.
    pub run_as_non_root: bool,
    /// `supplementalGroups` and `fsGroup`.
    pub groups: Vec<u32>,
    /// `readOnlyRootFilesystem`.
    pub read_only_root: bool,
    /// `allowPrivilegeEscalation: false`.
    pub no_new_privileges: bool,
    /// `capabilities.add`.
    pub add_capabilities: Vec<String>,
    /// `capabilities.drop`.
    pub drop_capabilities: Vec<String>,
}

/// `imagePullPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PullPolicy {
    /// Use the local image; fail if there is none.
    Never,
    /// Pull if there is no local image.
    #[default]
    IfNotPresent,
    /// Ask the registry; if it is unreachable, use the local image with a warning.
    Always,
}

/// One of `envFrom`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvFrom {
    /// `prefix`.
    pub prefix: String,
    /// The ConfigMap or Secret.
    pub source: ConfigSource,
    /// `optional`: a missing ConfigMap or Secret is no error.
    pub optional: bool,
}

/// A ConfigMap or Secret of the pod's namespace, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigSource {
    /// A ConfigMap.
    ConfigMap(String),
    /// A Secret.
    Secret(String),
}

/// One of `env`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvVar {
    /// `name`.
    pub name: String,
    /// The source of the variable's value.
    pub value: EnvValue,
}

/// The source of a variable's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvValue {
    /// `value`, with `$(VAR)` still to be expanded.
    Text(String),
    /// `valueFrom.fieldRef`.
    Field(FieldRef),
    /// `valueFrom.configMapKeyRef` or `secretKeyRef`.
    Key {
        /// The ConfigMap or Secret.
        source: ConfigSource,
        /// The key in it.
        key: String,
        /// `optional`: if the key is missing, the variable is left out.
        optional: bool,
    },
}

/// The fields that `fieldRef` may refer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldRef {
    /// `metadata.name`.
    Name,
    /// `metadata.namespace`.
    Namespace,
    /// `metadata.uid`.
    Uid,
    /// `metadata.labels['key']`.
    Label(String),
    /// `metadata.annotations['key']`.
    Annotation(String),
    /// `spec.nodeName`.
    NodeName,
    /// `spec.serviceAccountName`.
    ServiceAccountName,
    /// `status.podIP` and `status.podIPs`.
    PodIp,
    /// `status.hostIP` and `status.hostIPs`.
    HostIp,
}

/// One of a container's `ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPort {
    /// `name`, which Services may use as targetPort.
    pub name: Option<String>,
    /// `containerPort`.
    pub port: u16,
    /// `protocol`.
    pub protocol: Protocol,
    /// `hostPort`.
    pub host_port: Option<u16>,
    /// `hostIP`.
    pub host_ip: Option<std::net::Ipv4Addr>,
}

/// A transport protocol.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The name in manifests, such as `TCP`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

/// `resources`, in the units that Docker uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// `requests.cpu` in thousandths of a core (defaults to the limit).
    pub cpu_request_milli: Option<u64>,
    /// `limits.cpu` in thousandths of a core.
    pub cpu_limit_milli: Option<u64>,
    /// `requests.memory` in bytes (defaults to the limit).
    pub memory_request_bytes: Option<u64>,
    /// `limits.memory` in bytes.
    pub memory_limit_bytes: Option<u64>,
}

/// One of `volumeMounts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeMount {
    /// `name` of the volume.
    pub volume: String,
    /// `mountPath`, absolute.
    pub path: String,
    /// `subPath`, relative and without `..`.
    pub sub_path: Option<String>,
    /// `readOnly`.
    pub read_only: bool,
    /// `mountPropagation`.
    pub propagation: MountPropagation,
}

/// `mountPropagation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MountPropagation {
    /// Docker's `rprivate`.
    #[default]
    None,
    /// Docker's `rslave`.
    HostToContainer,
    /// Docker's `rshared`.
    Bidirectional,
}

/// One of `volumes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeSource {
    /// `hostPath`.
    HostPath {
        /// `path`, absolute and normalised.
        path: String,
        /// `type`.
        kind: HostPathKind,
    },
    /// `emptyDir`.
    EmptyDir {
        /// `medium: Memory`.
        memory: bool,
        /// `sizeLimit` in bytes.
        size_limit: Option<u64>,
    },
    /// `configMap` or `secret`.
    Config {
        /// The ConfigMap or Secret.
        source: ConfigSource,
        /// `items`: key, path and mode; empty selects all keys.
        items: Vec<ConfigItem>,
        /// `defaultMode`.
        mode: u32,
        /// `optional`.
        optional: bool,
    },
}

/// One of the `items` of a configMap or secret volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigItem {
    /// `key`.
    pub key: String,
    /// `path`, relative and without `..`.
    pub path: String,
    /// `mode`.
    pub mode: Option<u32>,
}

/// `hostPath.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostPathKind {
    /// No check; Docker creates a directory if the path does not exist.
    #[default]
    Any,
    /// A directory is created with mode 0755 if the path does not exist.
    DirectoryOrCreate,
    /// Must be a directory.
    Directory,
    /// An empty file is created with mode 0644 if the path does not exist.
    FileOrCreate,
    /// Must be a file.
    File,
    /// Must be a Unix socket.
    Socket,
    /// Must be a character device.
    CharDevice,
    /// Must be a block device.
    BlockDevice,
}

/// What a lifecycle hook or probe does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Handler {
    /// `exec`: succeeds if the command exits with 0.
    Exec {
        /// The command and its arguments, run without a shell.
        command: Vec<String>,
    },
    /// `httpGet`: succeeds for status codes 200 to 399.
    HttpGet {
        /// `host`; `None` is the pod's address.
        host: Option<String>,
        /// `port`; a port name is already resolved.
        port: u16,
        /// `path`.
        path: String,
        /// `scheme: HTTPS`; the certificate is not checked, as in Kubernetes.
        https: bool,
        /// `httpHeaders`.
        headers: Vec<(String, String)>,
    },
    /// `tcpSocket`: succeeds if the connection is accepted.
    TcpSocket {
        /// `host`; `None` is the pod's address.
        host: Option<String>,
        /// `port`; a port name is already resolved.
        port: u16,
    },
    /// `sleep`, for hooks only.
    Sleep {
        /// How long the hook sleeps.
        duration: Duration,
    },
}

/// What is asked, for messages. Arguments and queries may hold secrets.
impl fmt::Display for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = |host: &Option<String>| host.clone().unwrap_or_default();
        match self {
            Self::Exec { command } => {
                write!(f, "exec {}", command.first().map_or("", String::as_str))
            }
            Self::HttpGet {
                host: at,
                port,
                path,
                https,
                ..
            } => {
                let scheme = if *https { "https://" } else { "" };
                let path = path.split('?').next().unwrap_or_default();
                write!(f, "GET {scheme}{}:{port}{path}", host(at))
            }
            Self::TcpSocket { host: at, port } => write!(f, "TCP {}:{port}", host(at)),
            Self::Sleep { duration } => write!(f, "sleep {}", duration.as_secs()),
        }
    }
}

/// A probe with its defaults applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The action of the probe.
    pub handler: Handler,
    /// `initialDelaySeconds`, 0 by default.
    pub initial_delay: Duration,
    /// `periodSeconds`, 10 by default.
    pub period: Duration,
    /// `timeoutSeconds`, 1 by default.
    pub timeout: Duration,
    /// `successThreshold`, 1 by default.
    pub success_threshold: u32,
    /// `failureThreshold`, 3 by default.
    pub failure_threshold: u32,
    /// `terminationGracePeriodSeconds` of a liveness or startup probe.
    pub termination_grace: Option<Duration>,
}

#[cfg(test)]
mod tests;
