//! What a host does next, with nothing left to decide: applying a plan is one `match`.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    name::{
        CommitId, ContainerId, ImageId, ImageReference, LinkName, ObjectKey, PodUid, TemplateHash,
        WorkloadKey,
    },
    network::PodLink,
    object::{Handler, HostPathKind, MountPropagation, Probe, Resources, Sensitive},
};

/// The ordered steps of one pod or one image. Lanes run concurrently; a lane ends at its first
/// failed step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The pod or image of the lane; at most one lane runs for a key at a time.
    pub key: LaneKey,
    /// Why the lane exists, for people, the log and the metrics.
    pub why: Why,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// The pod, the image or the link of a lane.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LaneKey {
    /// A pod of this host.
    Pod(PodUid),
    /// An image that a commit needs, as written in the manifest.
    Image(CommitId, ImageReference),
    /// The link of a pod of which nothing else is known: no record, and no container.
    Link(LinkName),
}

/// Why a lane exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// A new pod is started.
    Start {
        /// Namespace and name of the pod.
        pod: ObjectKey,
        /// The commit in which the pod is resolved.
        commit: CommitId,
    },
    /// The next container of a starting pod is started: the next init container, or the main
    /// containers.
    Continue {
        /// Namespace and name of the pod.
        pod: ObjectKey,
    },
    /// A container exited and is started again.
    Restart {
        /// Namespace and name of the pod.
        pod: ObjectKey,
        /// Name of the container in the pod.
        container: String,
    },
    /// Something of the pod was changed outside of Windlass, and is restored.
    Repair {
        /// Namespace and name of the pod.
        pod: ObjectKey,
        /// The change that was observed.
        drift: Drift,
    },
    /// A liveness or startup probe failed, so the container is restarted.
    Unhealthy {
        /// Namespace and name of the pod.
        pod: ObjectKey,
        /// Name of the container in the pod.
        container: String,
        /// The message of the failed probe.
        message: String,
    },
    /// A ConfigMap or Secret that the pod mounts has changed, so its files are replaced.
    Refresh {
        /// Namespace and name of the pod.
        pod: ObjectKey,
    },
    /// The pod has a stop record.
    Stop {
        /// Namespace and name of the pod.
        pod: ObjectKey,
        /// The reason in the stop record.
        reason: String,
    },
    /// The pod has ended; what is left of it is removed.
    Clean {
        /// Namespace and name of the pod.
        pod: ObjectKey,
    },
    /// A link or a directory of files is on the host, and no record and no container of its pod: it
    /// is removed. The lane's key names it.
    Leftover,
    /// A commit needs an image that is not pinned yet, or that is no longer on the disk.
    Image {
        /// The image as written in the manifest.
        image: ImageReference,
    },
}

impl Why {
    /// Whether the lane stops or removes a pod.
    pub fn is_removal(&self) -> bool {
        matches!(
            self,
            Self::Stop { .. } | Self::Clean { .. } | Self::Leftover
        )
    }
}

/// A change of a pod on this host that Windlass did not make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Drift {
    /// The sandbox was removed or has exited.
    SandboxGone,
    /// A container was removed.
    ContainerRemoved,
    /// A container was paused.
    ContainerPaused,
    /// The pod's link or route is missing.
    LinkGone,
}

/// One thing to do. Every step is idempotent: repeated after a crash, it observes what was done and
/// does the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make sure that an image is on this host, and record which image it is.
    PullImage {
        /// The commit for which the pin is recorded.
        commit: CommitId,
        /// The image as written in the manifest.
        image: ImageReference,
        /// The reference to pull: the image as written, or a recorded `name@sha256:...`.
        reference: String,
        /// Whether the registry is asked.
        mode: PullMode,
    },
    /// Make the pod's directory, its resolv.conf, hosts and hostname files and its volumes.
    PrepareFiles(PodFiles),
    /// Create and start the sandbox.
    StartSandbox(SandboxSpec),
    /// Connect the sandbox to the pod network.
    Connect {
        /// Uid of the pod, whose sandbox must be running.
        pod: PodUid,
        /// The veth pair, address and route to create.
        link: PodLink,
    },
    /// Create and start a container in the sandbox of its pod.
    StartContainer(Box<ContainerSpec>),
    /// Run a postStart hook. If the hook fails, the container is killed and the step fails.
    PostStart {
        /// The container in which the hook runs.
        container: ContainerId,
        /// The action of the hook.
        handler: Handler,
        /// The pod's address, for hooks that name no host.
        address: Ipv4Addr,
    },
    /// Resume a container that was paused outside of Windlass.
    Unpause(ContainerId),
    /// Wait for this time, so that endpoints and connections drain before anything is stopped.
    Drain(Duration),
    /// Stop containers concurrently: preStop hook, stop signal, and SIGKILL after the grace period.
    Stop(Vec<StopSpec>),
    /// Remove containers that do not run, whatever state the engine reports.
    Remove(Vec<ContainerId>),
    /// Remove the link with this name, the host's side of a pod's network.
    Disconnect(LinkName),
    /// Remove the pod's directory, its emptyDir and tmpfs volumes included.
    RemoveFiles(PodUid),
}

/// Whether the registry is asked for an image, as `imagePullPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullMode {
    /// Use the local image; fail if there is none.
    Never,
    /// Use the local image; pull if there is none.
    IfNotPresent,
    /// Pull; if the registry is unreachable, use the local image with a warning.
    Always,
}

/// An image that was resolved once for a commit on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePin {
    /// The engine's id of the image: containers are created from this id.
    pub id: ImageId,
    /// `name@sha256:...`, by which the image can be pulled again; `None` for an image that was
    /// never in a registry.
    pub digest: Option<String>,
    /// A warning for people, for example "the registry did not answer, the local image is used".
    pub warning: Option<String>,
}

/// The pod that a container belongs to. All fields are written to the container's labels and read
/// back from them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodIdentity {
    /// Uid of the pod.
    pub uid: PodUid,
    /// Namespace and name of the pod.
    pub pod: ObjectKey,
    /// The workload that owns the pod.
    pub owner: WorkloadKey,
    /// The commit in which the pod was first resolved.
    pub commit: CommitId,
    /// Hash of the pod's template.
    pub template: TemplateHash,
}

/// The role of a container in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// The sandbox, which holds the pod's namespaces.
    Sandbox,
    /// One of `initContainers`.
    Init,
    /// One of `containers`.
    Main,
}

/// The sandbox container, ready to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxSpec {
    /// The pod of the sandbox.
    pub identity: PodIdentity,
    /// Number of the sandbox: 0 for the first, increased each time the sandbox is made again.
    pub attempt: u32,
    /// The host name inside the pod.
    pub hostname: String,
    /// Whether the pod uses the host's network namespace instead of its own.
    pub host_network: bool,
    /// Whether the pod uses the host's IPC namespace.
    pub host_ipc: bool,
    /// Settings of the kernel in the pod's namespaces.
    pub sysctls: BTreeMap<String, String>,
}

/// A container of a pod, ready to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerSpec {
    /// The pod of the container.
    pub identity: PodIdentity,
    /// Whether the container is an init container or a main container.
    pub role: Role,
    /// Name of the container in the pod.
    pub name: String,
    /// Number of the container: how often it was started before.
    pub attempt: u32,
    /// Id of the image.
    pub image: ImageId,
    /// The image as written in the manifest, for people.
    pub image_name: ImageReference,
    /// `Entrypoint`; empty keeps the image's.
    pub command: Vec<String>,
    /// `Cmd`; empty keeps the image's, unless `command` is given.
    pub args: Vec<String>,
    /// `WorkingDir`; `None` keeps the image's.
    pub working_dir: Option<String>,
    /// The environment, with references expanded, in order.
    pub env: Vec<(String, Sensitive<String>)>,
    /// The mounts, in order.
    pub mounts: Vec<Mount>,
    /// Requests and limits of CPU and memory.
    pub resources: Resources,
    /// `hostPID`.
    pub host_pid: bool,
    /// `stdin`.
    pub stdin: bool,
    /// `tty`.
    pub tty: bool,
    /// The merged security context.
    pub security: crate::object::ContainerSecurity,
    /// The signal of a stop; `None` is the image's signal, or SIGTERM.
    pub stop_signal: Option<String>,
    /// `terminationMessagePath`; empty mounts none.
    pub termination_message_path: String,
    /// `terminationMessagePolicy: FallbackToLogsOnError`.
    pub message_from_logs: bool,
}

/// One mount of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The source of the mount.
    pub source: MountSource,
    /// Absolute path in the container.
    pub target: String,
    /// Whether the mount is read-only.
    pub read_only: bool,
    /// Mount propagation between host and container.
    pub propagation: MountPropagation,
}

/// The source of a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// A path of the host, with an optional path below it.
    HostPath {
        /// Absolute path of the volume on the host.
        path: String,
        /// `subPath`. It is not joined to `path` here: a container that writes to the volume could
        /// place a symbolic link there that leads elsewhere, so the path is resolved where the
        /// links are.
        sub_path: Option<String>,
    },
    /// A file in the pod's directory: `resolv.conf`, `hosts` or `hostname`.
    PodFile(&'static str),
    /// A volume in the pod's directory, with an optional path below it.
    Volume {
        /// Name of the volume.
        volume: String,
        /// `subPath`; resolved as for `HostPath`.
        sub_path: Option<String>,
    },
}

/// The files that the pod's directory must contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFiles {
    /// Uid of the pod.
    pub pod: PodUid,
    /// The content of `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// The content of `/etc/hosts`.
    pub hosts: String,
    /// The content of `/etc/hostname`.
    pub hostname: String,
    /// The volumes to prepare.
    pub volumes: Vec<VolumeFiles>,
}

/// One volume to be prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeFiles {
    /// An empty directory; an existing one keeps its content.
    EmptyDir {
        /// Name of the volume.
        name: String,
        /// Whether the volume is a tmpfs (`medium: Memory`).
        memory: bool,
        /// Size of the tmpfs in bytes; `None` is the kernel's default.
        size_limit: Option<u64>,
        /// The group that owns the directory and what is made in it; `None` is root's.
        group: Option<u32>,
    },
    /// Files of a ConfigMap or Secret, replaced atomically through a symbolic link `..data`.
    Files {
        /// Name of the volume.
        name: String,
        /// Whether the files are on a tmpfs: true for Secrets, so that they are not on the disk.
        memory: bool,
        /// The complete set of files.
        files: Vec<VolumeFile>,
        /// The group that owns the files; `None` is root's.
        group: Option<u32>,
    },
    /// A path of the host to check or create.
    HostPath {
        /// Absolute path on the host.
        path: String,
        /// The file type that the path must have.
        kind: HostPathKind,
    },
}

/// One file of a ConfigMap or Secret volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeFile {
    /// Path relative to the volume.
    pub path: String,
    /// Content of the file.
    pub content: Sensitive<Vec<u8>>,
    /// Permission bits, for example 0o644.
    pub mode: u32,
}

/// How one container is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopSpec {
    /// The container to stop.
    pub container: ContainerId,
    /// The container's preStop hook. The hook runs within the grace period, which it may exceed
    /// once by 2 s.
    pub pre_stop: Option<Handler>,
    /// The pod's address, for handlers that name no host.
    pub address: Ipv4Addr,
    /// Time until SIGKILL; zero kills at once.
    pub grace: Duration,
}

/// A probe that must run; a plan has the complete set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeTask {
    /// The container to probe.
    pub container: ContainerId,
    /// Which of the container's probes it is.
    pub kind: ProbeKind,
    /// The action, with period, timeout and thresholds.
    pub probe: Probe,
    /// The pod's address, for probes that name no host.
    pub address: Ipv4Addr,
    /// When the container started: `initialDelaySeconds` counts from then.
    pub started: jiff::Timestamp,
    /// The last known result before a restart of the daemon; `None` if there is none.
    pub initial: Option<bool>,
}

/// Which of a container's probes a probe is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ProbeKind {
    /// `startupProbe`: the other two probes run once it has succeeded.
    Startup,
    /// `readinessProbe`: decides whether the container receives traffic.
    Readiness,
    /// `livenessProbe`: decides whether the container must be restarted.
    Liveness,
}

/// When the next cycle is due if nothing changes before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Next {
    /// No cycle is due until something changes.
    AwaitChange,
    /// A cycle is due after this time.
    After(Duration),
}

impl Next {
    /// Due at a time. A time in the past is due in a millisecond, so that the loop does not spin.
    pub fn at(time: Timestamp, now: Timestamp) -> Self {
        let wait = Duration::try_from(time.duration_since(now)).unwrap_or_default();
        Self::After(wait.max(Duration::from_millis(1)))
    }

    /// The earlier of the two.
    pub fn sooner(self, other: Self) -> Self {
        match (self, other) {
            (Self::After(a), Self::After(b)) => Self::After(a.min(b)),
            (Self::After(a), Self::AwaitChange) | (Self::AwaitChange, Self::After(a)) => {
                Self::After(a)
            }
            (Self::AwaitChange, Self::AwaitChange) => Self::AwaitChange,
        }
    }
}
