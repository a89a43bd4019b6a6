//! Windlass: the daemon and its command line.

#![allow(dead_code, reason = "the modules are wired up by the daemon")]

mod apply;
mod command;
mod config;
mod dns;
mod control_loop;
mod cycle;
mod follow;
mod lanes;
mod library;
mod source;
mod state_file;
mod store;
mod trust;
mod http;
mod metrics;
mod view;

fn main() {}
