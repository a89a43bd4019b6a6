#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    io::{Read, Write},
    net::{IpAddr, TcpStream},
    time::{Duration, Instant},
};

use hickory_server::proto::{
    op::{Message, Query},
    rr::RData,
};
use reconciler::network::DnsAnswer;
use rustix::net::connect;

use super::*;

fn records() -> DnsRecords {
    let addresses = |addresses: &[&str]| {
        DnsAnswer::Addresses(
            addresses
                .iter()
                .map(|address| address.parse().unwrap())
                .collect(),
        )
    };
    let alias = |target: &str| DnsAnswer::Alias(target.to_owned());
    let many: Vec<String> = (1..=200).map(|last| format!("10.244.1.{last}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    DnsRecords {
        zone: "cluster.local".to_owned(),
        names: [
            ("mysql.default.svc.cluster.local", addresses(&["10.96.0.1"])),
            (
                "web.shop.svc.cluster.local",
                addresses(&["10.244.1.2", "10.244.1.3"]),
            ),
            ("many.shop.svc.cluster.local", addresses(&many)),
            (
                "db.shop.svc.cluster.local",
                alias("mysql.default.svc.cluster.local"),
            ),
            ("away.shop.svc.cluster.local", alias("db.example.com")),
            (
                "lost.shop.svc.cluster.local",
                alias("nothing.shop.svc.cluster.local"),
            ),
            (
                "round.shop.svc.cluster.local",
                alias("round.shop.svc.cluster.local"),
            ),
        ]
        .map(|(name, answer)| (name.to_owned(), answer))
        .into(),
    }
}

fn start(upstreams: Vec<SocketAddr>) -> Dns {
    Dns::start(
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0),
        records(),
        Callers::Anyone,
        upstreams,
    )
    .unwrap()
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.metadata.recursion_desired = true;
    message
}

fn ask_with(dns: &Dns, message: &Message) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    socket
        .send_to(&message.to_vec().unwrap(), dns.address())
        .unwrap();
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).unwrap();
    let answer = Message::from_vec(&buffer[..length]).unwrap();
    assert_eq!(answer.metadata.id, message.metadata.id);
    answer
}

fn ask(dns: &Dns, name: &str, kind: RecordType) -> Message {
    ask_with(dns, &question(name, kind))
}

fn ask_over_tcp(dns: &Dns, name: &str) -> Message {
    ask_over(&mut TcpStream::connect(dns.address()).unwrap(), name)
}

/// A connection of another address of this host's loopback.
fn connect_from(last: u8, dns: &Dns) -> TcpStream {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    bind(
        &socket,
        &SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, last), 0),
    )
    .unwrap();
    connect(&socket, &dns.address()).unwrap();
    let stream = TcpStream::from(socket);
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream
}

fn ask_over(stream: &mut TcpStream, name: &str) -> Message {
    let bytes = question(name, RecordType::A).to_vec().unwrap();
    stream
        .write_all(&u16::try_from(bytes.len()).unwrap().to_be_bytes())
        .unwrap();
    stream.write_all(&bytes).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).unwrap();
    Message::from_vec(&answer).unwrap()
}

fn addresses(message: &Message) -> Vec<String> {
    let mut addresses: Vec<String> = message
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(address) => Some(address.to_string()),
            _ => None,
        })
        .collect();
    addresses.sort();
    addresses
}

#[test]
fn services_have_addresses_in_any_case_of_letters() {
    let dns = start(Vec::new());
    let answer = ask(&dns, "MySQL.default.svc.Cluster.local.", RecordType::A);
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
    assert_eq!(addresses(&answer), ["10.96.0.1"]);
    assert_eq!(answer.answers[0].ttl, 5);
    let headless = ask(&dns, "web.shop.svc.cluster.local.", RecordType::A);
    assert_eq!(addresses(&headless), ["10.244.1.2", "10.244.1.3"]);
    let pod = ask(&dns, "10-244-1-9.shop.pod.cluster.local.", RecordType::A);
    assert_eq!(addresses(&pod), ["10.244.1.9"]);
}

#[test]
fn a_name_without_data_of_the_queried_type_exists() {
    let dns = start(Vec::new());
    for (name, kind, code) in [
        (
            "mysql.default.svc.cluster.local.",
            RecordType::AAAA,
            ResponseCode::NoError,
        ),
        (
            "default.svc.cluster.local.",
            RecordType::A,
            ResponseCode::NoError,
        ),
        ("svc.cluster.local.", RecordType::A, ResponseCode::NoError),
        ("cluster.local.", RecordType::A, ResponseCode::NoError),
        (
            "10-244-1-9.shop.pod.cluster.local.",
            RecordType::AAAA,
            ResponseCode::NoError,
        ),
        (
            "nothing.default.svc.cluster.local.",
            RecordType::A,
            ResponseCode::NXDomain,
        ),
        (
            "nothing.default.svc.cluster.local.",
            RecordType::AAAA,
            ResponseCode::NXDomain,
        ),
        (
            "mysql.default.svc.cluster.local.default.svc.cluster.local.",
            RecordType::A,
            ResponseCode::NXDomain,
        ),
    ] {
        let answer = ask(&dns, name, kind);
        assert_eq!(answer.metadata.response_code, code, "{name} {kind}");
        assert!(answer.answers.is_empty(), "{name} {kind}");
        assert_eq!(
            answer.authorities[0].record_type(),
            RecordType::SOA,
            "{name} {kind}"
        );
        assert_eq!(answer.authorities[0].ttl, 5);
    }
}

#[test]
fn the_version_and_the_names_of_addresses_are_answered() {
    let dns = start(Vec::new());
    let version = ask(&dns, "dns-version.cluster.local.", RecordType::TXT);
    assert_eq!(version.answers[0].data.to_string(), "1.1.0");
    let pointer = ask(&dns, "1.0.96.10.in-addr.arpa.", RecordType::PTR);
    assert_eq!(
        pointer.answers[0].data.to_string(),
        "mysql.default.svc.cluster.local."
    );
}

#[test]
fn an_alias_is_answered_with_the_data_of_its_target() {
    let dns = start(Vec::new());
    let inside = ask(&dns, "db.shop.svc.cluster.local.", RecordType::A);
    assert_eq!(
        inside.answers[0].data.to_string(),
        "mysql.default.svc.cluster.local."
    );
    assert_eq!(addresses(&inside), ["10.96.0.1"]);
    let lost = ask(&dns, "lost.shop.svc.cluster.local.", RecordType::A);
    assert_eq!(lost.metadata.response_code, ResponseCode::NXDomain);
    let round = ask(&dns, "round.shop.svc.cluster.local.", RecordType::A);
    assert_eq!(round.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn names_outside_of_the_zone_are_queried_from_the_hosts_name_servers() {
    // The upstream is a second server of this daemon, with another zone.
    let mut elsewhere = records();
    elsewhere.zone = "example.com".to_owned();
    let address = DnsAnswer::Addresses(["192.0.2.7".parse().unwrap()].into());
    elsewhere.names = [("db.example.com".to_owned(), address)].into();
    let upstream = Dns::start(
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0),
        elsewhere,
        Callers::Anyone,
        Vec::new(),
    )
    .unwrap();
    let dns = start(vec![SocketAddr::V4(upstream.address())]);

    let answer = ask(&dns, "db.example.com.", RecordType::A);
    assert_eq!(addresses(&answer), ["192.0.2.7"]);
    assert!(!answer.metadata.authoritative);
    let missing = ask(&dns, "missing.example.com.", RecordType::A);
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    let alias = ask(&dns, "away.shop.svc.cluster.local.", RecordType::A);
    assert_eq!(alias.answers[0].data.to_string(), "db.example.com.");
    assert_eq!(addresses(&alias), ["192.0.2.7"]);
}

#[test]
fn a_name_outside_of_the_zone_is_a_server_failure_in_time_if_no_upstream_answers() {
    let without_upstream = start(Vec::new());
    let answer = ask(&without_upstream, "example.com.", RecordType::A);
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let dns = start(vec![silent.local_addr().unwrap()]);
    let start = Instant::now();
    let answer = ask(&dns, "example.com.", RecordType::A);
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(
        start.elapsed() < Duration::from_millis(4900),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn the_server_never_queries_itself() {
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    let taken = Dns::start(address, records(), Callers::Anyone, Vec::new()).unwrap();
    let address = taken.address();
    drop(taken);
    let dns = Dns::start(
        address,
        records(),
        Callers::Anyone,
        vec![SocketAddr::V4(address)],
    )
    .unwrap();
    let start = Instant::now();
    let answer = ask(&dns, "example.com.", RecordType::A);
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn an_answer_too_large_for_udp_is_truncated_and_complete_over_tcp() {
    let dns = start(Vec::new());
    let name = "many.shop.svc.cluster.local.";
    let cut = ask(&dns, name, RecordType::A);
    assert!(cut.metadata.truncation);
    let mut message = question(name, RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    message.edns = Some(edns);
    let larger = ask_with(&dns, &message);
    assert!(larger.metadata.truncation && larger.edns.is_some());
    assert!(larger.answers.len() > cut.answers.len());
    assert_eq!(ask_over_tcp(&dns, name).answers.len(), 200);
}

#[test]
fn published_records_are_answered_from_then_on() {
    let dns = start(Vec::new());
    let mut changed = records();
    changed.names.remove("mysql.default.svc.cluster.local");
    let address = DnsAnswer::Addresses(["10.96.0.9".parse().unwrap()].into());
    changed
        .names
        .insert("new.default.svc.cluster.local".to_owned(), address);
    dns.publish(changed);
    assert_eq!(
        addresses(&ask(&dns, "new.default.svc.cluster.local.", RecordType::A)),
        ["10.96.0.9"]
    );
    let gone = ask(&dns, "mysql.default.svc.cluster.local.", RecordType::A);
    assert_eq!(gone.metadata.response_code, ResponseCode::NXDomain);
    assert!(dns.is_serving());
}

#[test]
fn malformed_queries_are_answered_with_an_error_and_stop_nothing() {
    let dns = start(Vec::new());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for garbage in [&b""[..], b"x", &[0xff; 12], &[0; 600]] {
        socket.send_to(garbage, dns.address()).unwrap();
    }
    let mut none = Message::query();
    none.metadata.recursion_desired = true;
    assert_eq!(
        ask_with(&dns, &none).metadata.response_code,
        ResponseCode::FormErr
    );
    assert_eq!(
        addresses(&ask(
            &dns,
            "mysql.default.svc.cluster.local.",
            RecordType::A
        )),
        ["10.96.0.1"]
    );
}

#[test]
fn upstreams_are_read_from_resolv_conf() {
    let text = "# nameserver 192.0.2.9\nsearch example.com\nnameserver 192.0.2.1\n nameserver 2001:db8::1\nnameserver x\n";
    let found: Vec<IpAddr> = upstreams(text).iter().map(SocketAddr::ip).collect();
    assert_eq!(
        found,
        [
            "192.0.2.1".parse::<IpAddr>().unwrap(),
            "2001:db8::1".parse().unwrap()
        ]
    );
}

#[test]
fn a_thousand_connections_of_one_address_leave_dns_to_all_clients() {
    const NAME: &str = "mysql.default.svc.cluster.local.";
    let dns = start(Vec::new());
    let mut talking = connect_from(3, &dns);
    assert_eq!(addresses(&ask_over(&mut talking, NAME)), ["10.96.0.1"]);
    let mut flood = Vec::new();
    for _ in 0..11 {
        flood.extend((0..100).map(|_| connect_from(2, &dns)));
        assert_eq!(
            addresses(&ask_over(&mut talking, NAME)),
            ["10.96.0.1"],
            "an earlier connection is still served"
        );
    }

    assert_eq!(
        addresses(&ask_over(&mut connect_from(4, &dns), NAME)),
        ["10.96.0.1"],
        "another address, over TCP"
    );
    assert_eq!(
        addresses(&ask_over(&mut connect_from(2, &dns), NAME)),
        ["10.96.0.1"],
        "the address of the flood, over TCP"
    );
    assert_eq!(
        addresses(&ask(&dns, NAME, RecordType::A)),
        ["10.96.0.1"],
        "over UDP"
    );

    let most = Taker::Dns.bounds().per_source;
    let is_open = |stream: &&TcpStream| {
        let mut stream = *stream;
        stream.set_nonblocking(true).unwrap();
        let read = stream.read(&mut [0]);
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while flood.iter().filter(is_open).count() > most {
        assert!(
            Instant::now() < deadline,
            "more than {most} connections of one address are open"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_malformed_query_over_tcp_is_a_format_error() {
    let dns = start(Vec::new());
    let mut stream = connect_from(1, &dns);
    let question = [0, 14, 0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    stream.write_all(&question).unwrap();
    let mut answer = [0; 14];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0, 12, 0x12, 0x34, 0x81, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(
        addresses(&ask_over(&mut stream, "mysql.default.svc.cluster.local.")),
        ["10.96.0.1"]
    );
}

#[test]
fn only_callers_are_answered_and_others_get_no_packet() {
    let dns = start(Vec::new());
    let own = "127.0.0.1/32".parse().unwrap();
    dns.admit(Callers::In([own].into()));
    let query = question("mysql.default.svc.cluster.local.", RecordType::A);
    let bytes = query.to_vec().unwrap();
    let stranger = UdpSocket::bind("127.0.0.2:0").unwrap();
    stranger.send_to(&bytes, dns.address()).unwrap();

    // The server reads the queries in their order, so the stranger's has been handled.
    assert_eq!(addresses(&ask_with(&dns, &query)), ["10.96.0.1"]);
    stranger.set_nonblocking(true).unwrap();
    let received = stranger.recv(&mut [0; 512]).unwrap_err();
    assert_eq!(received.kind(), std::io::ErrorKind::WouldBlock);

    let mut over_tcp = connect_from(2, &dns);
    let closed = over_tcp.read(&mut [0; 1]);
    assert!(!matches!(closed, Ok(1..)), "{closed:?}");
    assert!(
        ask_over_tcp(&dns, "mysql.default.svc.cluster.local.")
            .answers
            .len()
            == 1
    );

    dns.admit(Callers::Anyone);
    let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    let mut over_tcp = connect_from(2, &dns);
    over_tcp
        .write_all(&[&length, bytes.as_slice()].concat())
        .unwrap();
    assert_eq!(over_tcp.read(&mut [0; 1]).unwrap(), 1);
}
