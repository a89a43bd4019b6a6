//! Windlass: the daemon and its command line.

#![allow(dead_code, reason = "the modules are wired up by the daemon")]

mod command;
mod config;
mod dns;
mod library;
mod source;
mod state_file;
mod store;
mod trust;
mod view;

fn main() {}
