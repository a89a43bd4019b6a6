//! Windlass: the daemon and its command line.

mod command;
mod view;

fn main() {}
