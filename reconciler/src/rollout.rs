//! The rollout of a commit: which commit the controllers follow, its phase, and its outcome.

mod change;
mod faults;
mod history;
mod judge;
mod prepare;
mod step;
mod stopping;

pub use change::retry;
pub use faults::{Suspects, suspects};
pub(crate) use judge::pod_failure;
pub use judge::{
    Judgement, config_sources, judge, judged_workloads, progress, progress_deadline, worst,
};
pub use step::{Head, StepInput, step};
pub use stopping::{first_unfinished, with_regard_to};
