//! What went wrong while doing a step, as the core needs to know it: whose fault it is decides what
//! follows.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::foreign::{self, ForeignText};

/// A fault is printed in lists; an engine may say a whole page.
const MESSAGE_BYTES: usize = 2048;

/// A step that failed. The effect crates classify an error once, where it is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What sort of failure it is.
    pub kind: FaultKind,
    /// What failed, on what, why, and what to do: one line for people. Most of it are words of the
    /// engine, a registry, the kernel or a container, so all of it is escaped and bounded.
    #[serde(deserialize_with = "foreign::sentence")]
    pub message: String,
}

impl Fault {
    /// Joins a kind and a message.
    pub fn new(kind: FaultKind, message: impl AsRef<str>) -> Self {
        Self {
            kind,
            message: ForeignText::bounded(message.as_ref(), MESSAGE_BYTES).into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// What sort of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FaultKind {
    /// The registry says that there is no such image, or that it is not for this architecture. The
    /// commit's fault.
    ImageMissing,
    /// The registry refuses our credentials, or wants some. Waiting: somebody must mend the host's
    /// configuration.
    RegistryDenied,
    /// The registry does not answer. Waiting.
    RegistryUnreachable,
    /// The engine refuses the container as specified: command not found, bad mount, bad user. The
    /// commit's fault.
    Rejected,
    /// A hostPath is not of the type the manifest asks for. The commit's fault on this host.
    HostPath,
    /// A postStart hook failed; the container is killed and restarted, until the deadline.
    HookFailed,
    /// The engine does not answer or hangs. Waiting.
    EngineUnreachable,
    /// No space left on the disk. Waiting.
    DiskFull,
    /// What the step works on is gone (container removed, process ended); look again, until the
    /// deadline.
    Gone,
    /// The host's network could not be set up. Waiting.
    Network,
    /// The step was cancelled by a later plan.
    Cancelled,
    /// Anything else. Tried again, until the deadline.
    Other,
}

impl FaultKind {
    /// Whether trying the same again with the same commit cannot help.
    pub fn is_commits_fault(self) -> bool {
        matches!(self, Self::ImageMissing | Self::Rejected | Self::HostPath)
    }

    /// Whether it is known to lie outside of the commit: then it is waited for, however long.
    /// Whatever else is in the way has until the deadline.
    pub fn is_outside(self) -> bool {
        matches!(
            self,
            Self::RegistryDenied
                | Self::RegistryUnreachable
                | Self::EngineUnreachable
                | Self::DiskFull
                | Self::Network
        )
    }

    /// What it means for a pod that must stop, whatever failed in detail.
    pub fn stopping_reason(self) -> &'static str {
        match self {
            Self::EngineUnreachable => "StopFailed: the container engine does not answer",
            Self::DiskFull => "StopFailed: the disk is full",
            Self::Network => "StopFailed: its network cannot be taken down",
            _ => "StopFailed: what is left of it cannot be removed",
        }
    }

    /// The word that Kubernetes uses for a waiting container in this state.
    pub fn waiting_reason(self) -> &'static str {
        match self {
            Self::ImageMissing => "ErrImagePull",
            Self::RegistryDenied | Self::RegistryUnreachable => "ImagePullBackOff",
            Self::Rejected | Self::HostPath => "CreateContainerError",
            Self::HookFailed => "PostStartHookError",
            Self::EngineUnreachable => "EngineUnreachable",
            Self::DiskFull => "DiskFull",
            Self::Network => "NetworkNotReady",
            Self::Gone | Self::Cancelled | Self::Other => "ContainerCreating",
        }
    }
}
