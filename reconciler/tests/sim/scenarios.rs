//! Scenarios, by subject.

mod convergence;
mod host_ports;
mod images;
mod kinds;
mod life;
mod repair;
mod rollout;
mod services;
