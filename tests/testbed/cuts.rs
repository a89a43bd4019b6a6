//! Cuts and partitions drop exactly the frames that they name, and a poller counts the requests
//! that fail for that.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::support::{GATEWAY, Host, HostOptions, Machine, Network, Poller, eventually};
use crate::{SOON, start_app};

/// Whether a machine gets an answer to a ping.
fn reaches(one: &Machine, other: Ipv4Addr) -> bool {
    let mut ping = one.command();
    ping.args(["busybox", "ping", "-c", "1", "-W", "1", &other.to_string()]);
    crate::support::run(&mut ping).success()
}

fn machines(network: &std::sync::Arc<Network>) -> [Machine; 3] {
    [21, 22, 23].map(|last| Machine::start(network, Ipv4Addr::new(192, 168, 77, last)))
}

#[test]
fn a_cut_disconnects_a_machine_until_it_is_healed() {
    let network = Network::start();
    let [a, b, c] = machines(&network);
    assert!(reaches(&a, b.address) && reaches(&b, a.address));

    network.cut(&a);
    assert!(!reaches(&a, b.address) && !reaches(&b, a.address) && !reaches(&a, GATEWAY));
    assert!(reaches(&b, c.address) && reaches(&b, GATEWAY));
    let link = crate::support::run(a.command().args(["ip", "-br", "link", "show", "eth0"])).ok();
    assert!(
        link.contains("LOWER_UP"),
        "the link of a machine that is cut off must stay up: {link}"
    );

    network.heal(&a);
    eventually(SOON, "the machine is connected again", || {
        reaches(&a, b.address) && reaches(&a, GATEWAY)
    });
}

#[test]
fn a_partition_is_between_two_machines_and_either_can_be_healed() {
    let network = Network::start();
    let [a, b, c] = machines(&network);
    network.partition(&a, &b);
    network.partition(&b, &c);
    assert!(!reaches(&a, b.address) && !reaches(&b, a.address) && !reaches(&c, b.address));
    assert!(reaches(&a, c.address) && reaches(&c, a.address) && reaches(&b, GATEWAY));

    network.heal(&a);
    eventually(SOON, "one of two partitions is healed", || {
        reaches(&b, a.address)
    });
    assert!(!reaches(&c, b.address));
    network.heal_all();
    eventually(SOON, "both are healed", || reaches(&c, b.address));
}

#[test]
fn one_machine_can_be_cut_off_from_one_address() {
    let network = Network::start();
    let [a, b, c] = machines(&network);
    network.cut_from(&a, GATEWAY);
    network.cut_from(&a, b.address);
    assert!(!reaches(&a, GATEWAY) && !reaches(&a, b.address) && !reaches(&b, a.address));
    assert!(reaches(&a, c.address) && reaches(&b, GATEWAY) && reaches(&b, c.address));
    network.heal(&a);
    eventually(SOON, "the machine reaches both addresses again", || {
        reaches(&a, GATEWAY) && reaches(&a, b.address)
    });
}

#[test]
fn a_host_has_its_configured_name_and_a_poller_counts_failed_requests() {
    let network = Network::start();
    let options = HostOptions {
        name: Some("n7".to_owned()),
        number: Some(7),
        ..HostOptions::default()
    };
    let host = Host::start_on(&network, options);
    assert_eq!(host.exec(&["hostname"]).ok(), "n7");
    assert_eq!(host.address, Ipv4Addr::new(192, 168, 77, 17));
    start_app(&host, "app");

    let url = format!("http://{}:18080/", host.address);
    let poller = Poller::start(network.namespace(), &url);
    eventually(SOON, "the poller has sent more than 20 requests", || {
        poller.answers().total > 20
    });
    assert_eq!(poller.answers().failed, 0, "{:?}", poller.answers());
    assert!(
        poller
            .answers()
            .bodies
            .iter()
            .all(|body| body.starts_with("app 1 "))
    );

    network.cut(&host);
    eventually(SOON, "a request fails", || poller.answers().failed > 0);
    network.heal(&host);
    let before_heal = poller.answers().total;
    // A gap is counted when a good answer ends it.
    eventually(SOON, "requests are answered again", || {
        let answers = poller.answers();
        answers.total > before_heal + 5 && answers.longest_gap > Duration::from_secs(1)
    });
    let answers = poller.finish();
    assert!(
        answers.failed < 10 && answers.longest_gap < SOON,
        "{answers:?}"
    );
    assert!(
        answers.failed > 0 && answers.first_failure.is_some(),
        "{answers:?}"
    );
}
