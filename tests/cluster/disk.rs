//! A disk that does not answer: its host keeps its leases, and can neither decide nor act.

use crate::{
    manifest::{APP, deployment},
    scene::{
        deploy, everything, leader, push, readiness, wait_leader_other_than, wait_running,
        wait_whole,
    },
    support::{Cluster, ClusterHost, NODE_PORT, SOON, assert_all_answered},
};

const DATA: &str = "/var/lib/windlass";

/// A file system of its own for the data directory of a host, that can be frozen: whoever writes to
/// it waits.
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
        // Nobody who waits for it could be ended. It is not frozen any more where all went well.
        self.0.host.exec(&["fsfreeze", "-u", DATA]);
    }
}

#[test]
fn a_leader_whose_disk_hangs_is_followed_by_another_and_takes_no_pods() {
    let cluster = Cluster::builder(3).without_daemons().start();
    let first = cluster.host("n1");
    let disk = Disk::mount(first);
    first.start();
    cluster.wait_for(SOON, "the first host leads", || {
        leader(&cluster).filter(|name| *name == "n1")
    });
    cluster.start_daemons();
    deploy(&cluster, &everything(APP, "n2"));
    wait_whole(&cluster);
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
    let leads = cluster.host(&next);
    cluster.wait_for(SOON, "the host with the disk is not ready", || {
        readiness(leads, "n1").contains("NotReady").then_some(())
    });
    leads.wait_status("the push is rolled out without it", |status| {
        status["healthy"]["id"] == commit.as_str()
    });
    wait_running(&cluster, "more", 4, &["n1"]);
    assert_eq!(first.containers(), before, "what runs there goes on");

    disk.thaw();
    first.wait_status("it follows", |status| {
        status["cluster"]["leader"] == next.as_str()
    });
    wait_whole(&cluster);
    assert_eq!(first.containers(), before, "nothing was moved");
    calls
        .into_iter()
        .for_each(|call| assert_all_answered(&call.finish()));
}
