//! A cluster of three hosts in network namespaces, each with its own Docker engine, and a real
//! etcd: everything from a push to an HTTP answer.

#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "spine/manifest.rs"]
mod manifest;
mod support;

#[path = "cluster/clocks.rs"]
mod clocks;
#[path = "cluster/detour.rs"]
mod detour;
#[path = "cluster/disk.rs"]
mod disk;
#[path = "cluster/exposure.rs"]
mod exposure;
#[path = "cluster/given.rs"]
mod given;
#[path = "cluster/hosts.rs"]
mod hosts;
#[path = "cluster/images.rs"]
mod images;
#[path = "cluster/leader.rs"]
mod leader;
#[path = "cluster/main_path.rs"]
mod main_path;
#[path = "cluster/nodes.rs"]
mod nodes;
#[path = "cluster/outputs.rs"]
mod outputs;
#[path = "cluster/rollout.rs"]
mod rollout;
#[path = "cluster/scene.rs"]
mod scene;
#[path = "cluster/stolen.rs"]
mod stolen;
#[path = "cluster/store.rs"]
mod store;
#[path = "cluster/thief.rs"]
mod thief;
#[path = "cluster/unsigned.rs"]
mod unsigned;
#[path = "cluster/watch.rs"]
mod watch;
#[path = "cluster/wrong.rs"]
mod wrong;
