//! Tests of the host's network with real packets. They need root, `ip`, `nft` and `iptables`, and
//! fail without them.

#![expect(clippy::unwrap_used, reason = "tests")]

mod cluster;
mod drift;
mod exposure;
mod overlay;
mod peers;
mod pods;
mod services;
mod world;
