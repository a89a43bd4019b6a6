//! Bad input: each bad commit is refused, held or failed with a message that names the problem and
//! its place, and the pods of the last good commit keep their containers.

#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

#[path = "bad_input/case.rs"]
mod case;
#[path = "bad_input/configuration.rs"]
mod configuration;
#[path = "bad_input/containers.rs"]
mod containers;
#[path = "bad_input/foreign.rs"]
mod foreign;
#[path = "spine/manifest.rs"]
mod manifest;
#[path = "bad_input/manifests.rs"]
mod manifests;
#[path = "bad_input/trust.rs"]
mod trust;
#[path = "bad_input/upgrade.rs"]
mod upgrade;
