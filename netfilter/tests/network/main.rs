//! The host's network with real packets. Needs root, `ip`, `nft` and `iptables`; fails without
//! them.

#![expect(clippy::unwrap_used, reason = "tests")]

mod cluster;
mod drift;
mod overlay;
mod peers;
mod pods;
mod services;
mod world;
