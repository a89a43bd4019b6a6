//! The test bed of the whole-system tests: isolated hosts on this machine, each with a Docker
//! engine of its own, a network between them, a registry, Git repositories with signing keys, and
//! the daemon.
//!
//! ```text
//! Network  a namespace with a bridge: 192.168.77.1, the hosts' default gateway, registry and Git server
//!   Machine  a namespace on that network and nothing more; Etcd has one for each member, 192.168.77.5, .6, .7
//!   Host   192.168.77.11, .12, ...: network and mount namespace, dockerd, FORWARD and INPUT policy DROP
//!     Daemon   the windlass binary under test, inside its host
//! Cluster  all of these together: hosts whose daemons share one store
//! GitRepo  a bare repository, a work tree to commit from, keys and allowed_signers
//! ```
//!
//! The test bed needs root. Its processes and files end with the test, also when the test is
//! killed.

#![allow(
    dead_code,
    reason = "every test binary includes the whole bed and uses a part of it"
)]
#![allow(
    unused_imports,
    reason = "every test binary includes the whole bed and uses a part of it"
)]
#![allow(
    clippy::unwrap_used,
    reason = "a test bed that cannot be set up is a failed test"
)]

mod cluster;
mod command;
mod container;
mod daemon;
mod etcd;
mod git_repo;
mod git_server;
mod guard;
mod host;
mod machine;
mod network;
mod poller;
mod registry;
mod relay;
mod site;
mod socket;
mod wait;
mod wall_clock;

pub(crate) use cluster::{Cluster, ClusterBuilder, ClusterHost};
pub(crate) use command::{Outcome, repository_root, run, unwrapped};
pub(crate) use container::{Container, is, is_ready, text};
pub(crate) use daemon::{DATA_DIR, Daemon};
pub(crate) use etcd::{ClientFiles, Etcd, EtcdOptions};
pub(crate) use git_repo::{GitRepo, Signer};
pub(crate) use git_server::{Behaviour, DOMAIN, GitServer};
pub(crate) use host::{Answer, Host, HostOptions};
pub(crate) use machine::Machine;
pub(crate) use network::{GATEWAY, Network, Port};
pub(crate) use poller::{Answers, Poller, assert_all_answered};
pub(crate) use registry::Registry;
pub(crate) use site::{MAY_DELETE, NODE_PORT, SOON, Site};
pub(crate) use wait::{eventually, eventually_some, pause_after};
pub(crate) use wall_clock::WallClock;
