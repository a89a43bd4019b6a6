//! A disk that hangs: its host keeps the host's leases in the store, but can neither decide nor
//! act.

use crate::{
    manifest::{APP, deployment},
    scene::{
        deploy, everything, leader, push, readiness, wait_all_running, wait_leader_other_than,
        wait_running,
    },
    support::{Cluster, ClusterHost, NODE_PORT, SOON, assert_all_answered},
};

const DATA: &str = "/var/lib/windlass";

/// A file system for the data directory of a host, which can be frozen: then writes to the
/// directory hang.
struct Disk<'a>(&'a ClusterHost);

impl<'a> Disk<'a> {
    fn mount(host: &'a ClusterHost) -> Self {
        let make = format!(
            "truncate -s 400M {DATA}.img && mkfs.ext4 -q {DATA}.img && mkdir -p {DATA} && mount -o loop {DATA}.img {DATA}"
        );
        host.host.exec(&["sh", "-c", &make]).ok();
        Self(host)
    }

    fn freeze(&self) {
        self.0.host.exec(&["fsfreeze", "-f", DATA]).ok();
    }

    fn thaw(&self) {
        self.0.host.exec(&["fsfreeze", "-u", DATA]).ok();
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        // A process that waits for a frozen file system cannot be killed, so the bed could not end
        // the host. Where the test succeeded, the file system is thawed already, and fsfreeze
        // fails.
        self.0.host.exec(&["fsfreeze", "-u", DATA]);
    }
}

#[test]
fn a_leader_whose_disk_hangs_is_replaced_and_gets_no_pods() {
    let cluster = Cluster::builder(3).without_daemons().start();
    let first = cluster.host("n1");
    let disk = Disk::mount(first);
    first.start();
    cluster.wait_for(SOON, "the first host leads", || {
        leader(&cluster).filter(|name| *name == "n1")
    });
    cluster.start_daemons();
    deploy(&cluster, &everything(APP, "n2"));
    wait_all_running(&cluster);
    let before = first.containers();
    let calls: Vec<_> = cluster
        .hosts
        .iter()
        .map(|host| host.poll(&first.url(NODE_PORT, "/")))
        .collect();

    disk.freeze();
    let mut files = everything(APP, "n2");
    files.push(("more.yaml", deployment("more", 4, APP)));
    let commit = push(&cluster, &files);
    let next = wait_leader_other_than(&cluster, "n1");
    let new_leader = cluster.host(&next);
    cluster.wait_for(SOON, "the host with the disk is not ready", || {
        readiness(new_leader, "n1")
            .contains("NotReady")
            .then_some(())
    });
    new_leader.wait_status("the push is healthy without n1", |status| {
        status["healthy"]["id"] == commit.as_str()
    });
    wait_running(&cluster, "more", 4, &["n1"]);
    assert_eq!(first.containers(), before, "a container of n1 was touched");

    disk.thaw();
    first.wait_status("n1 reads from the store who leads", |status| {
        status["cluster"]["leader"] == next.as_str()
    });
    wait_all_running(&cluster);
    assert_eq!(first.containers(), before, "a container of n1 was moved");
    calls
        .into_iter()
        .for_each(|call| assert_all_answered(&call.finish()));
}
