//! Scenarios, by what they are about.

mod convergence;
mod images;
mod kinds;
mod life;
mod rollout;
mod services;
