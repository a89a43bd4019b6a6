//! Scenarios, by subject.

mod convergence;
mod images;
mod kinds;
mod life;
mod rollout;
mod services;
