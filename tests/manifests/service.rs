//! Services as pods, the host and other machines reach them, on a host that forwards and admits
//! nothing by itself.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::support::{Outcome, run};
use crate::world::{cluster_ip, in_large, in_small, world};

/// How curl ends when its connection is refused; when it waits in vain it ends with 28.
const CURL_REFUSED: i32 = 7;

/// The pods that answer as many calls of a URL from the small pod.
fn who_answers(url: &str, calls: u32) -> BTreeSet<String> {
    let script = format!("for call in $(seq {calls}); do wget -q -O - {url} || echo nobody; done");
    in_small(&["sh", "-c", &script])
        .lines()
        .map(str::to_owned)
        .collect()
}

/// The pods that answer as many calls of a port of the host from another machine, on a connection
/// each.
fn who_answers_outside(port: u16, calls: u32) -> BTreeSet<String> {
    let url = world().url(port, "/");
    let script =
        format!("for call in $(seq {calls}); do curl -sS --max-time 10 {url} || echo nobody; done");
    let outcome = run(world().host.network.command().args(["sh", "-c", &script]));
    outcome.ok().lines().map(str::to_owned).collect()
}

/// Calls a URL from another machine.
fn curl_outside(url: &str) -> Outcome {
    run(world()
        .host
        .network
        .command()
        .args(["curl", "-sS", "--max-time", "10", url]))
}

#[test]
fn calls_are_spread_unless_the_service_asks_for_affinity() {
    for spread in [
        who_answers("http://web/", 40),
        who_answers_outside(30081, 40),
    ] {
        assert_eq!(spread.len(), 3, "{spread:?}");
    }
    for sticky in [
        who_answers("http://sticky/", 20),
        who_answers_outside(30082, 20),
    ] {
        assert_eq!(sticky.len(), 1, "{sticky:?}");
        assert!(!sticky.contains("nobody"), "{sticky:?}");
    }
}

#[test]
fn the_host_reaches_services_by_address_and_by_its_own_node_port() {
    let site = world();
    for url in [
        format!("http://{}/", cluster_ip("web")),
        site.url(30081, "/"),
    ] {
        let answer = site.host.http_get(&url).map(|answer| answer.body);
        assert!(
            answer
                .as_ref()
                .is_some_and(|body| body.starts_with("app 1 web-")),
            "{url}: {answer:?}"
        );
    }
    assert_eq!(site.host.http_get("http://127.0.0.1:30081/"), None);
}

#[test]
fn a_service_without_endpoints_refuses_at_once() {
    let site = world();
    let by_address = format!("http://{}/", cluster_ip("nobody"));
    let start = Instant::now();
    let outcomes = [
        ("another machine", curl_outside(&site.url(30083, "/"))),
        (
            "the host",
            site.host
                .exec(&["curl", "-sS", "--max-time", "10", &by_address]),
        ),
        (
            "a pod",
            site.exec("small", "busybox", &["wget", "-q", "-O", "-", &by_address]),
        ),
        (
            "a pod by name",
            site.exec(
                "small",
                "busybox",
                &["wget", "-q", "-O", "-", "http://nobody/"],
            ),
        ),
    ];
    assert!(
        start.elapsed() < Duration::from_secs(9),
        "they waited for {:?}: {outcomes:#?}",
        start.elapsed()
    );
    for (who, outcome) in outcomes {
        let refused = outcome.code == CURL_REFUSED || outcome.stderr.contains("Connection refused");
        assert!(!outcome.success() && refused, "{who}: {outcome:#?}");
    }
    // So does a port that no service has, on an address of the service range.
    let other_port = format!("http://{}:81/", cluster_ip("web"));
    let outcome = site.exec("small", "busybox", &["wget", "-q", "-O", "-", &other_port]);
    assert!(outcome.stderr.contains("refused"), "{outcome:#?}");
}

#[test]
fn a_pod_reaches_itself_through_its_own_service() {
    let site = world();
    let id = site.host.docker(&[
        "ps",
        "-q",
        "--filter",
        "label=io.windlass.pod.name=alone",
        "--filter",
        "label=io.windlass.container=app",
    ]);
    for _ in 0..5 {
        let page = site
            .host
            .docker(&["exec", &id, "wget", "-q", "-O", "-", "http://web/"]);
        assert_eq!(page, "app 1 alone");
    }
}

#[test]
fn a_host_port_leads_to_its_pod() {
    let site = world();
    assert_eq!(curl_outside(&site.url(8088, "/")).ok(), "app 1 alone");
    assert_eq!(
        site.host
            .http_get(&site.url(8088, "/"))
            .map(|answer| answer.body)
            .as_deref(),
        Some("app 1 alone")
    );
}

#[test]
fn datagrams_find_their_way_there_and_back() {
    let site = world();
    let ask = |address: &str, port: u16| {
        format!(
            "use IO::Socket::INET; $SIG{{ALRM}} = sub {{ die \"no answer\\n\" }}; alarm 5;
            my $socket = IO::Socket::INET->new(PeerAddr => '{address}', PeerPort => {port}, Proto => 'udp') or die $!;
            $socket->send('hello'); $socket->recv(my $answer, 100) // die \"refused: $!\\n\"; print $answer;"
        )
    };
    assert_eq!(
        in_large(&["perl", "-e", &ask("echo", 7)]),
        "echo hello",
        "from a pod by the service's name"
    );
    let outside = run(site.host.network.command().args([
        "perl",
        "-e",
        &ask(&site.host.address.to_string(), 30084),
    ]));
    assert_eq!(outside.ok(), "echo hello", "from another machine");
    let host = site
        .host
        .exec(&["perl", "-e", &ask(&cluster_ip("echo"), 7)]);
    assert_eq!(host.ok(), "echo hello", "from the host");
}

#[test]
fn the_firewall_stays_as_closed_as_it_was() {
    let site = world();
    let rules = site.host.exec(&["iptables", "-S"]).ok();
    assert!(
        rules.contains("-P FORWARD DROP") && rules.contains("-P INPUT DROP"),
        "{rules}"
    );
    // What is accepted is accepted by address, never for whole interfaces.
    let ours = rules.lines().filter(|rule| rule.contains("10.244.0.0/16"));
    let ours: Vec<&str> = ours.collect();
    assert!(
        !ours.is_empty() && ours.iter().all(|rule| !rule.contains(" -i ")),
        "{ours:#?}"
    );
    // Other machines reach the daemon's own ports no more than before.
    assert!(!curl_outside(&site.url(9464, "/metrics")).success());
}
