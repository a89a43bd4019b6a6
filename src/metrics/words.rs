//! The values that labels may have: closed sets, so that no metric can grow.

use reconciler::{plan::Drift, state::FailureClass};

/// The commit that this was built from; empty where the build was not told.
pub(super) const COMMIT: &str = env!("WINDLASS_COMMIT");

/// The compiler that built this.
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
    /// How a cycle ended.
    CycleResult {
        /// There was nothing to do.
        Unchanged = "unchanged",
        /// Something was done, or is being done.
        Changed = "changed",
        /// It could not be carried through: the engine did not answer.
        Failed = "failed",
    }
}

words! {
    /// A stretch of the way from push to healthy.
    PushPhase {
        /// From being seen to being verified and checked.
        Judge = "judge",
        /// Pulling images.
        Prepare = "prepare",
        /// Moving workloads.
        Progress = "progress",
        /// Staying settled.
        Soak = "soak",
        /// All of it.
        Total = "total",
    }
}

words! {
    /// The three answers of verification.
    SignatureOutcome {
        /// By a trusted key.
        Trusted = "trusted",
        /// Not by a trusted key.
        Untrusted = "untrusted",
        /// It could not be judged.
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
        /// It was never run.
        Refused = "refused",
        /// It waits for a word about what it deletes.
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
        /// Something else.
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
        /// Something else.
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
