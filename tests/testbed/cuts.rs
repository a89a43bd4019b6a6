//! Cuts and partitions lose what they say they lose, and nothing else; a poller counts it.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::support::{GATEWAY, Host, HostOptions, Machine, Network, Poller, eventually};
use crate::{SOON, start_app};

/// Whether a machine hears another.
fn hears(one: &Machine, other: Ipv4Addr) -> bool {
    let mut ping = one.command();
    ping.args(["busybox", "ping", "-c", "1", "-W", "1", &other.to_string()]);
    crate::support::run(&mut ping).success()
}

fn machines(network: &std::sync::Arc<Network>) -> [Machine; 3] {
    [21, 22, 23].map(|last| Machine::start(network, Ipv4Addr::new(192, 168, 77, last)))
}

#[test]
fn a_cut_takes_one_off_the_network_until_it_is_healed() {
    let network = Network::start();
    let [a, b, c] = machines(&network);
    assert!(hears(&a, b.address) && hears(&b, a.address));

    network.cut(&a);
    assert!(!hears(&a, b.address) && !hears(&b, a.address) && !hears(&a, GATEWAY));
    assert!(hears(&b, c.address) && hears(&b, GATEWAY));
    let link = crate::support::run(a.command().args(["ip", "-br", "link", "show", "eth0"])).ok();
    assert!(link.contains("LOWER_UP"), "the machine sees it: {link}");

    network.heal(&a);
    eventually(SOON, "the machine is back", || {
        hears(&a, b.address) && hears(&a, GATEWAY)
    });
}

#[test]
fn a_partition_is_between_two_and_healed_with_either() {
    let network = Network::start();
    let [a, b, c] = machines(&network);
    network.partition(&a, &b);
    network.partition(&b, &c);
    assert!(!hears(&a, b.address) && !hears(&b, a.address) && !hears(&c, b.address));
    assert!(hears(&a, c.address) && hears(&c, a.address) && hears(&b, GATEWAY));

    network.heal(&a);
    eventually(SOON, "one of two partitions is healed", || {
        hears(&b, a.address)
    });
    assert!(!hears(&c, b.address));
    network.heal_all();
    eventually(SOON, "both are healed", || hears(&c, b.address));
}

#[test]
fn one_address_can_be_taken_from_one_machine() {
    let network = Network::start();
    let [a, b, c] = machines(&network);
    network.cut_from(&a, GATEWAY);
    network.cut_from(&a, b.address);
    assert!(!hears(&a, GATEWAY) && !hears(&a, b.address) && !hears(&b, a.address));
    assert!(hears(&a, c.address) && hears(&b, GATEWAY) && hears(&b, c.address));
    network.heal(&a);
    eventually(SOON, "the addresses are back", || {
        hears(&a, GATEWAY) && hears(&a, b.address)
    });
}

#[test]
fn a_host_has_its_name_and_a_poller_counts_what_it_does_not_answer() {
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
    eventually(SOON, "it asks often", || poller.answers().total > 20);
    assert_eq!(poller.answers().failed, 0, "{:?}", poller.answers());
    assert!(
        poller
            .answers()
            .bodies
            .iter()
            .all(|body| body.starts_with("app 1 "))
    );

    network.cut(&host);
    eventually(SOON, "the cut is noticed", || poller.answers().failed > 0);
    network.heal(&host);
    let failed = poller.answers().total;
    eventually(SOON, "it is answered again", || {
        let answers = poller.answers();
        answers.total > failed + 5 && answers.longest_gap > Duration::from_secs(1)
    });
    let answers = poller.finish();
    assert!(
        answers.failed < 10 && answers.longest_gap < SOON,
        "{answers:?}"
    );
    // It may have been connected already, and wait for an answer that never came.
    assert!(
        answers.failed > 0 && answers.first_failure.is_some(),
        "{answers:?}"
    );
}
