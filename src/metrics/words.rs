//! The values of labels: closed sets, so that the number of series is fixed.

use reconciler::{plan::Drift, state::FailureClass};

/// The commit that the binary was built from; empty if the build did not have it.
pub(super) const COMMIT: &str = env!("WINDLASS_COMMIT");

/// The version of the compiler that built the binary.
pub(super) const RUST: &str = env!("WINDLASS_RUSTC");

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            pub(super) const ALL: &'static [Self] = &[$(Self::$variant,)*];

            pub(super) fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)*
                }
            }
        }
    };
}

words! {
    /// The result of a cycle.
    CycleResult {
        /// There was nothing to do.
        Unchanged = "unchanged",
        /// The cycle decided something, or started steps.
        Changed = "changed",
        /// The engine did not answer, or a part of the daemon has failed.
        Failed = "failed",
    }
}

words! {
    /// A phase of a commit, from the start of its fetch until it is healthy.
    PushPhase {
        /// The commit is fetched, verified and checked.
        Judge = "judge",
        /// The images of the commit are pulled.
        Prepare = "prepare",
        /// The controllers update the workloads.
        Progress = "progress",
        /// All workloads have settled and must stay settled.
        Soak = "soak",
        /// From the start of the rollout until the commit is healthy.
        Total = "total",
    }
}

words! {
    /// The judgement of a head by its signatures.
    SignatureOutcome {
        /// The signatures are of trusted keys.
        Trusted = "trusted",
        /// A signature is missing, or is not of a trusted key.
        Untrusted = "untrusted",
        /// The head could not be judged.
        Error = "error",
    }
}

words! {
    /// The end of a commit's rollout.
    RolloutResult {
        /// The commit ran and became healthy.
        Healthy = "healthy",
        /// The commit failed, and an earlier one runs.
        RolledBack = "rolled_back",
        /// The commit failed, and there was no commit to go back to.
        Degraded = "degraded",
        /// A newer commit took its place.
        Superseded = "superseded",
        /// The commit was refused, and was never the target.
        Refused = "refused",
        /// The commit deletes more than the budget, and waits for a later commit that allows it.
        Held = "held",
    }
}

words! {
    /// Why an earlier commit became the target.
    RollbackReason {
        /// An image is missing or for another architecture.
        Image = "image",
        /// A container does not stay up.
        CrashLoop = "crash_loop",
        /// A workload did not become ready before its deadline.
        Deadline = "deadline",
        /// The engine refuses a container.
        Rejected = "rejected",
        /// A person requested the rollback.
        Manual = "manual",
        /// A cause without a class of its own.
        Other = "other",
    }
}

words! {
    /// The drift that was repaired.
    DriftCause {
        /// A sandbox was gone.
        SandboxGone = "sandbox_gone",
        /// A container was removed.
        ContainerRemoved = "container_removed",
        /// A container was paused.
        ContainerPaused = "container_paused",
        /// A link or route was gone.
        LinkGone = "link_gone",
        /// The service table was changed.
        ServiceTable = "service_table",
        /// Drift of the host's network without a label of its own.
        Other = "other",
    }
}

words! {
    /// The result of a webhook request.
    WebhookResult {
        /// The webhook caused a fetch.
        Accepted = "accepted",
        /// The webhook is not about the followed branch.
        Ignored = "ignored",
        /// The body was received before.
        Replayed = "replayed",
        /// The request has no signature.
        Unsigned = "unsigned",
        /// The signature is wrong.
        BadSignature = "bad_signature",
        /// The body is too large.
        TooLarge = "too_large",
        /// The body did not arrive, or not in time.
        Incomplete = "incomplete",
        /// The rate of requests is too high.
        RateLimited = "rate_limited",
    }
}

impl From<FailureClass> for RollbackReason {
    fn from(class: FailureClass) -> Self {
        match class {
            FailureClass::Image => Self::Image,
            FailureClass::CrashLoop => Self::CrashLoop,
            FailureClass::Deadline => Self::Deadline,
            FailureClass::Rejected => Self::Rejected,
            FailureClass::Manual => Self::Manual,
            FailureClass::Other => Self::Other,
        }
    }
}

impl From<Drift> for DriftCause {
    fn from(drift: Drift) -> Self {
        match drift {
            Drift::SandboxGone => Self::SandboxGone,
            Drift::ContainerRemoved => Self::ContainerRemoved,
            Drift::ContainerPaused => Self::ContainerPaused,
            Drift::LinkGone => Self::LinkGone,
        }
    }
}
