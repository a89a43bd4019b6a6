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
    /// What became of a commit.
    RolloutResult {
        /// It ran and was good.
        Healthy = "healthy",
        /// It failed, and another one runs.
        RolledBack = "rolled_back",
        /// It failed, and there was none to go back to.
        Degraded = "degraded",
        /// A newer one took its place.
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
        /// Something did not become ready in time.
        Deadline = "deadline",
        /// The engine refuses a container.
        Rejected = "rejected",
        /// Somebody asked for it.
        Manual = "manual",
        /// Something else.
        Other = "other",
    }
}

words! {
    /// What was found changed.
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
    /// What became of a webhook request.
    WebhookResult {
        /// It made the daemon look again.
        Accepted = "accepted",
        /// It is not about the followed branch.
        Ignored = "ignored",
        /// Its body was seen before.
        Replayed = "replayed",
        /// It has no signature.
        Unsigned = "unsigned",
        /// Its signature is wrong.
        BadSignature = "bad_signature",
        /// Its body is too large.
        TooLarge = "too_large",
        /// Its body did not come, or not in time.
        Incomplete = "incomplete",
        /// There are too many of them.
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
