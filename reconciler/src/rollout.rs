//! The rollout of a commit: which commit the controllers follow, its phase, and its outcome.

mod change;
mod comparison;
mod faults;
mod head;
mod history;
mod input;
mod judge;
mod pod_failure;
mod prepare;
mod progress;
mod standing;
mod step;
mod stopping;

pub use change::retry;
pub use comparison::{config_sources, judged_workloads};
pub use faults::{Suspects, suspects};
pub use input::{Head, StepInput};
pub use judge::{Judgement, judge, worst};
pub(crate) use pod_failure::pod_failure;
pub use progress::{progress, progress_deadline};
pub use standing::{Standing, standings};
pub use step::step;
pub use stopping::{first_unfinished, with_regard_to};
