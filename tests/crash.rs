//! Crashes and restarts: a daemon that is killed between the effect of a step and its record,
//! restarts of daemon, engine and host, a full disk, and lost or damaged state files.

#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

#[path = "crash/files.rs"]
mod files;
#[path = "crash/points.rs"]
mod points;
#[path = "crash/restart.rs"]
mod restart;
#[path = "crash/sample.rs"]
mod sample;
