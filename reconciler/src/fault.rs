//! Why a step failed, in classes: whether the commit is at fault decides what follows.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::foreign::{self, ForeignText};

/// Limit on a message, since faults are printed in lists and an engine's message can fill a page.
const MESSAGE_BYTES: usize = 2048;

/// The fault of a failed step. The effect crates classify an error once, where the failing call is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The class of the fault.
    pub kind: FaultKind,
    /// What failed, on what object, why, and what to do: one line for people. Most of the text
    /// comes from the engine, a registry, the kernel or a container, so it is escaped and bounded.
    #[serde(deserialize_with = "foreign::sentence")]
    pub message: String,
}

impl Fault {
    /// A fault of this class with this message.
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

/// The classes of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FaultKind {
    /// The registry answers that the image does not exist, or not for this architecture. The commit
    /// is at fault.
    ImageMissing,
    /// The registry rejects our credentials, or requires some. The rollout waits: a person must
    /// correct the host's configuration.
    RegistryDenied,
    /// The registry does not answer. The rollout waits.
    RegistryUnreachable,
    /// The engine rejects the container as specified: command not found, invalid mount, invalid
    /// user. The commit is at fault.
    Rejected,
    /// A hostPath is not of the type that the manifest requires. The commit is at fault, on this
    /// host.
    HostPath,
    /// A postStart hook failed; the container is killed and restarted, until the deadline.
    HookFailed,
    /// The engine does not answer. The rollout waits.
    EngineUnreachable,
    /// The disk is full. The rollout waits.
    DiskFull,
    /// The object of the step is gone (container removed, process exited); the next cycle observes
    /// anew, until the deadline.
    Gone,
    /// The host's network could not be set up. The rollout waits.
    Network,
    /// A later plan cancelled the step.
    Cancelled,
    /// Any other fault. The step is retried, until the deadline.
    Other,
}

impl FaultKind {
    /// Whether the commit is at fault, so that a retry with the same commit cannot succeed.
    pub fn is_commits_fault(self) -> bool {
        matches!(self, Self::ImageMissing | Self::Rejected | Self::HostPath)
    }

    /// Whether the cause is known to be outside of the commit, so that the rollout waits without
    /// limit. For all other faults the deadline applies.
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

    /// The consequence for a pod that must stop, whatever failed in detail.
    pub fn stopping_reason(self) -> &'static str {
        match self {
            Self::EngineUnreachable => "StopFailed: the container engine does not answer",
            Self::DiskFull => "StopFailed: the disk is full",
            Self::Network => "StopFailed: its network cannot be taken down",
            _ => "StopFailed: what is left of it cannot be removed",
        }
    }

    /// The reason that Kubernetes shows for a waiting container with this fault.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_fault_has_the_reasons_that_people_see() {
        let kinds = [
            FaultKind::ImageMissing,
            FaultKind::RegistryDenied,
            FaultKind::RegistryUnreachable,
            FaultKind::EngineUnreachable,
            FaultKind::DiskFull,
            FaultKind::Network,
            FaultKind::Rejected,
            FaultKind::HostPath,
            FaultKind::HookFailed,
            FaultKind::Gone,
            FaultKind::Cancelled,
            FaultKind::Other,
        ];
        let line =
            |kind: FaultKind| format!("{} | {}", kind.waiting_reason(), kind.stopping_reason());
        insta::assert_snapshot!(kinds.map(line).join("\n"), @r"
        ErrImagePull | StopFailed: what is left of it cannot be removed
        ImagePullBackOff | StopFailed: what is left of it cannot be removed
        ImagePullBackOff | StopFailed: what is left of it cannot be removed
        EngineUnreachable | StopFailed: the container engine does not answer
        DiskFull | StopFailed: the disk is full
        NetworkNotReady | StopFailed: its network cannot be taken down
        CreateContainerError | StopFailed: what is left of it cannot be removed
        CreateContainerError | StopFailed: what is left of it cannot be removed
        PostStartHookError | StopFailed: what is left of it cannot be removed
        ContainerCreating | StopFailed: what is left of it cannot be removed
        ContainerCreating | StopFailed: what is left of it cannot be removed
        ContainerCreating | StopFailed: what is left of it cannot be removed
        ");
    }

    #[test]
    fn a_fault_is_the_commits_or_outside_of_it_or_has_until_the_deadline() {
        let kinds = [
            (FaultKind::ImageMissing, true, false),
            (FaultKind::RegistryDenied, false, true),
            (FaultKind::RegistryUnreachable, false, true),
            (FaultKind::EngineUnreachable, false, true),
            (FaultKind::DiskFull, false, true),
            (FaultKind::Network, false, true),
            (FaultKind::Rejected, true, false),
            (FaultKind::HostPath, true, false),
            (FaultKind::HookFailed, false, false),
            (FaultKind::Gone, false, false),
            (FaultKind::Cancelled, false, false),
            (FaultKind::Other, false, false),
        ];
        for (kind, of_commit, outside) in kinds {
            assert_eq!(kind.is_commits_fault(), of_commit, "{kind:?}");
            assert_eq!(kind.is_outside(), outside, "{kind:?}");
        }
        let fault = Fault::new(FaultKind::DiskFull, "no space left\n");
        assert_eq!(fault.to_string(), fault.message);
        assert!(fault.message.starts_with("no space left"));
    }
}
