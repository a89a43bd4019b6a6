//! What a host does next, with nothing left to decide: applying a plan is one `match`.

use std::{net::Ipv4Addr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    name::{CommitId, ContainerId, ImageId, ObjectKey, PodUid, TemplateHash, WorkloadKey},
    network::PodLink,
    object::{Handler, HostPathKind, MountPropagation, Probe, Resources, Sensitive},
};

/// One pod's, or one image's, ordered steps. Lanes run concurrently; a lane that fails stops there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// What the lane works on; there is at most one lane for a key at a time.
    pub key: LaneKey,
    /// Why, for people, the log and the metrics.
    pub why: Why,
    /// What is done, in order.
    pub steps: Vec<Step>,
}

/// What a lane works on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LaneKey {
    /// A pod of this host.
    Pod(PodUid),
    /// An image that a commit needs.
    Image(CommitId, String),
}

/// Why a lane exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// A new pod of this commit.
    Start {
        /// The pod.
        pod: ObjectKey,
        /// The commit it is resolved in.
        commit: CommitId,
    },
    /// The next container of a pod that is under way: the next init container, or the main ones.
    Continue {
        /// The pod.
        pod: ObjectKey,
    },
    /// A container ended and is started again.
    Restart {
        /// The pod.
        pod: ObjectKey,
        /// The container.
        container: String,
    },
    /// Something changed what we made.
    Repair {
        /// The pod.
        pod: ObjectKey,
        /// What was found.
        drift: Drift,
    },
    /// A probe says that the container must be restarted.
    Unhealthy {
        /// The pod.
        pod: ObjectKey,
        /// The container.
        container: String,
        /// What the probe found.
        message: String,
    },
    /// A ConfigMap or Secret that the pod mounts has changed.
    Refresh {
        /// The pod.
        pod: ObjectKey,
    },
    /// The pod's stop record says so.
    Stop {
        /// The pod.
        pod: ObjectKey,
        /// What the record says.
        reason: String,
    },
    /// The pod has ended; what it left is removed.
    Clean {
        /// The pod.
        pod: ObjectKey,
    },
    /// A commit needs an image that is not pinned yet, or that has gone from the disk.
    Image {
        /// As written in the manifest.
        image: String,
    },
}

impl Why {
    /// Whether it is about something that is to end.
    pub fn is_removal(&self) -> bool {
        matches!(self, Self::Stop { .. } | Self::Clean { .. })
    }
}

/// What was found changed under us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Drift {
    /// The sandbox was removed or has ended.
    SandboxGone,
    /// A container was removed.
    ContainerRemoved,
    /// A container was paused.
    ContainerPaused,
    /// The pod's link or route is gone.
    LinkGone,
}

/// One thing to do. Each is idempotent: done again after a crash it finds its own work and goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make sure that an image is here and say which one it is.
    PullImage {
        /// The commit the pin is recorded for.
        commit: CommitId,
        /// As written in the manifest.
        image: String,
        /// What is pulled: the image as written, or a recorded `name@sha256:...`.
        reference: String,
        /// How hard to try.
        mode: PullMode,
    },
    /// Make the pod's directory, its resolv.conf, hosts and hostname files and its volumes.
    PrepareFiles(PodFiles),
    /// Create and start the sandbox.
    StartSandbox(SandboxSpec),
    /// Give the sandbox its network.
    Connect {
        /// Whose: the running sandbox of this pod.
        pod: PodUid,
        /// The link.
        link: PodLink,
    },
    /// Create and start a container in the sandbox of its pod.
    StartContainer(Box<ContainerSpec>),
    /// Run a postStart hook. If it fails the container is killed, and so the step fails.
    PostStart {
        /// In which container.
        container: ContainerId,
        /// What to do.
        handler: Handler,
        /// The pod's address, for handlers that name no host.
        address: Ipv4Addr,
    },
    /// Take a pause away that is not ours.
    Unpause(ContainerId),
    /// Let endpoints and connections drain before anything is stopped.
    Drain(Duration),
    /// Stop containers side by side: preStop, signal, and KILL when the time is up.
    Stop(Vec<StopSpec>),
    /// Remove ended containers, whatever state they are in.
    Remove(Vec<ContainerId>),
    /// Remove the host's side of a pod's network.
    Disconnect(String),
    /// Remove the pod's directory with its emptyDir and tmpfs volumes.
    RemoveFiles(PodUid),
}

/// How an image is got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullMode {
    /// Only what is here.
    Never,
    /// What is here, else pull.
    IfNotPresent,
    /// Pull; if the registry cannot be reached, what is here, with a warning.
    Always,
}

/// An image as it was resolved once for a commit on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePin {
    /// The engine's id: containers are created from this.
    pub id: ImageId,
    /// `name@sha256:...` by which it can be pulled again; `None` for an image that never came from
    /// a registry.
    pub digest: Option<String>,
    /// What somebody should know: "the registry did not answer, the local image is used".
    pub warning: Option<String>,
}

/// Who a container belongs to. All of it goes into the container's labels, and is read back from
/// them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodIdentity {
    /// The pod's uid.
    pub uid: PodUid,
    /// Namespace and name.
    pub pod: ObjectKey,
    /// What owns it.
    pub owner: WorkloadKey,
    /// The commit it was first resolved in.
    pub commit: CommitId,
    /// The hash of its template.
    pub template: TemplateHash,
}

/// What a container is in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Holds the pod's namespaces.
    Sandbox,
    /// An init container.
    Init,
    /// One of `containers`.
    Main,
}

/// The sandbox container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxSpec {
    /// The pod.
    pub identity: PodIdentity,
    /// 0 for the first, one more each time the sandbox is made again.
    pub attempt: u32,
    /// The pod's host name.
    pub hostname: String,
    /// Use the host's network namespace instead of one of its own.
    pub host_network: bool,
    /// Use the host's IPC namespace.
    pub host_ipc: bool,
}

/// A container of a pod, ready to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerSpec {
    /// The pod.
    pub identity: PodIdentity,
    /// Init or main.
    pub role: Role,
    /// The container's name in the pod.
    pub name: String,
    /// How often it was started before.
    pub attempt: u32,
    /// The image, by id.
    pub image: ImageId,
    /// The image as written in the manifest, for people.
    pub image_name: String,
    /// `Entrypoint`; empty keeps the image's.
    pub command: Vec<String>,
    /// `Cmd`; empty keeps the image's, unless `command` is given.
    pub args: Vec<String>,
    /// `WorkingDir`.
    pub working_dir: Option<String>,
    /// The environment, expanded, in order.
    pub env: Vec<(String, Sensitive<String>)>,
    /// What is mounted where.
    pub mounts: Vec<Mount>,
    /// Limits.
    pub resources: Resources,
    /// `hostPID`.
    pub host_pid: bool,
    /// `stdin`.
    pub stdin: bool,
    /// `tty`.
    pub tty: bool,
    /// The merged security context.
    pub security: crate::object::ContainerSecurity,
    /// `terminationMessagePath`; empty mounts none.
    pub termination_message_path: String,
    /// `terminationMessagePolicy: FallbackToLogsOnError`.
    pub message_from_logs: bool,
}

/// One mount of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub source: MountSource,
    /// Where.
    pub target: String,
    /// Read only.
    pub read_only: bool,
    /// Propagation.
    pub propagation: MountPropagation,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// A path of the host, and a path in it.
    HostPath {
        /// The volume's path.
        path: String,
        /// `subPath`. Not joined to the path here: a container that writes the volume could put a
        /// link to elsewhere in it, so it is resolved where the links are.
        sub_path: Option<String>,
    },
    /// A file in the pod's directory: `resolv.conf`, `hosts`, `hostname`.
    PodFile(&'static str),
    /// A volume in the pod's directory, and a path in it.
    Volume {
        /// The volume's name.
        volume: String,
        /// `subPath`.
        sub_path: Option<String>,
    },
}

/// What the pod's directory must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFiles {
    /// Whose.
    pub pod: PodUid,
    /// The content of `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// The content of `/etc/hosts`.
    pub hosts: String,
    /// The content of `/etc/hostname`.
    pub hostname: String,
    /// The volumes.
    pub volumes: Vec<VolumeFiles>,
}

/// One volume to be prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeFiles {
    /// An empty directory, kept if it is there.
    EmptyDir {
        /// The volume's name.
        name: String,
        /// On a tmpfs.
        memory: bool,
        /// Size of the tmpfs in bytes.
        size_limit: Option<u64>,
    },
    /// Files of a ConfigMap or Secret, swapped atomically through a `..data` link.
    Files {
        /// The volume's name.
        name: String,
        /// On a tmpfs: true for Secrets.
        memory: bool,
        /// Path in the volume, content, mode.
        files: Vec<VolumeFile>,
    },
    /// A path of the host to be checked or made.
    HostPath {
        /// The path.
        path: String,
        /// What it must be.
        kind: HostPathKind,
    },
}

/// One file of a ConfigMap or Secret volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeFile {
    /// Relative path.
    pub path: String,
    /// Content.
    pub content: Sensitive<Vec<u8>>,
    /// Mode, like 0o644.
    pub mode: u32,
}

/// How one container is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopSpec {
    /// Which.
    pub container: ContainerId,
    /// Its preStop hook; runs inside the grace period, which it may exceed by 2 s once.
    pub pre_stop: Option<Handler>,
    /// The pod's address, for handlers that name no host.
    pub address: Ipv4Addr,
    /// From now to KILL. Zero kills at once.
    pub grace: Duration,
}

/// A probe that must be running; a plan carries the complete set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeTask {
    /// Which container.
    pub container: ContainerId,
    /// Which of its probes.
    pub kind: ProbeKind,
    /// What is asked, and how often.
    pub probe: Probe,
    /// The pod's address, for handlers that name no host.
    pub address: Ipv4Addr,
    /// When the container started: the initial delay counts from there.
    pub started: jiff::Timestamp,
    /// What was known before a daemon restart.
    pub initial: Option<bool>,
}

/// Which of a container's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ProbeKind {
    /// Holds back the other two until it succeeds.
    Startup,
    /// Says whether the container takes traffic.
    Readiness,
    /// Says whether the container must be restarted.
    Liveness,
}

/// When the next cycle is due though nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Next {
    /// Not before something changes.
    AwaitChange,
    /// After this time.
    After(Duration),
}

impl Next {
    /// The earlier of two.
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
