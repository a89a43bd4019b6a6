//! Windlass: the daemon and its command line.

mod command;
mod http;
mod metrics;
mod view;

fn main() {}
