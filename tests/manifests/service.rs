//! Services, as pods, the host and other machines reach them. The host's firewall drops what it
//! would forward and what comes in.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::support::{Outcome, run};
use crate::world::{cluster_ip, in_large, in_small, world};

/// The exit code of curl when its connection is refused; after a time-out the code is 28.
const CURL_REFUSED: i32 = 7;

/// The different answers to `calls` requests of a URL from the small pod, `failed` among them where
/// a request failed.
fn answers(url: &str, calls: u32) -> BTreeSet<String> {
    let script = format!("for call in $(seq {calls}); do wget -q -O - {url} || echo failed; done");
    in_small(&["sh", "-c", &script])
        .lines()
        .map(str::to_owned)
        .collect()
}

/// The different answers to `calls` requests from another machine to a port of the host, each on a
/// new connection, `failed` among them where a request failed.
fn answers_outside(port: u16, calls: u32) -> BTreeSet<String> {
    let url = world().url(port, "/");
    let script =
        format!("for call in $(seq {calls}); do curl -sS --max-time 10 {url} || echo failed; done");
    let outcome = run(world().host.network.command().args(["sh", "-c", &script]));
    outcome.ok().lines().map(str::to_owned).collect()
}

/// Requests a URL from another machine.
fn curl_outside(url: &str) -> Outcome {
    run(world()
        .host
        .network
        .command()
        .args(["curl", "-sS", "--max-time", "10", url]))
}

#[test]
fn requests_are_spread_unless_the_service_has_session_affinity() {
    for spread in [answers("http://web/", 40), answers_outside(30081, 40)] {
        assert_eq!(spread.len(), 3, "{spread:?}");
    }
    for sticky in [answers("http://sticky/", 20), answers_outside(30082, 20)] {
        assert_eq!(sticky.len(), 1, "{sticky:?}");
        assert!(!sticky.contains("failed"), "{sticky:?}");
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
    let by_address = format!("http://{}/", cluster_ip("without-pods"));
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
                &["wget", "-q", "-O", "-", "http://without-pods/"],
            ),
        ),
    ];
    assert!(
        start.elapsed() < Duration::from_secs(9),
        "the requests took {:?}: {outcomes:#?}",
        start.elapsed()
    );
    for (client, outcome) in outcomes {
        let refused = outcome.code == CURL_REFUSED || outcome.stderr.contains("Connection refused");
        assert!(!outcome.success() && refused, "{client}: {outcome:#?}");
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
fn a_host_port_is_forwarded_to_its_pod() {
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
fn udp_services_answer_pods_the_host_and_other_machines() {
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
fn the_firewall_accepts_only_traffic_of_pods() {
    let site = world();
    let rules = site.host.exec(&["iptables", "-S"]).ok();
    assert!(
        rules.contains("-P FORWARD DROP") && rules.contains("-P INPUT DROP"),
        "{rules}"
    );
    // The rules of Windlass accept by address, never for a whole interface.
    let pod_rules = rules.lines().filter(|rule| rule.contains("10.244.0.0/16"));
    let pod_rules: Vec<&str> = pod_rules.collect();
    assert!(
        !pod_rules.is_empty() && pod_rules.iter().all(|rule| !rule.contains(" -i ")),
        "{pod_rules:#?}"
    );
    // Other machines cannot reach the daemon's own ports.
    assert!(!curl_outside(&site.url(9464, "/metrics")).success());
}
