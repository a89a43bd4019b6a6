//! Windlass.

#![allow(dead_code, reason = "the modules are wired up by the daemon")]

mod source;
mod state_file;
mod trust;

fn main() {}
