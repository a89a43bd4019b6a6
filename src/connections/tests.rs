//! Which connection is closed for which, and when a connection ends by itself.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// 16 in total, 2 of them for connections that are closing; 6 of one source.
fn connections() -> Connections {
    let times = Times {
        head: 10 * SECOND,
        unproven: 30 * SECOND,
        idle: 60 * SECOND,
        request: 3600 * SECOND,
    };
    Connections::new(
        "test",
        Bounds {
            total: 16,
            per_source: 6,
            times,
        },
    )
}

fn source(last: u8) -> Source {
    Source::from(SocketAddr::from(([10, 244, 0, last], 4000)))
}

/// A connection as a listener makes it, and its other end.
fn connect(
    connections: &Connections,
    from: Source,
) -> Option<(LimitedConnection<DuplexStream>, DuplexStream)> {
    let (near, far) = duplex(64);
    connections
        .admit(from)
        .map(|admission| (LimitedConnection::new(near, admission), far))
}

fn is_open(life: &Life) -> bool {
    !life.is_closed(&std::task::Context::from_waker(std::task::Waker::noop()))
}

async fn read(connection: &mut LimitedConnection<DuplexStream>) -> io::Result<u8> {
    connection.read_u8().await
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_one_source_leaves_the_others_their_room() {
    let connections = connections();
    let mut flood: Vec<_> = (0..1000)
        .filter_map(|_| connections.admit(source(1)))
        .collect();
    // Closed connections release their places when they end.
    flood.retain(|admission| is_open(admission.life()));
    assert_eq!(flood.len(), 6);
    let others: Vec<_> = (2..=9)
        .filter_map(|last| connections.admit(source(last)))
        .collect();
    assert_eq!(others.len(), 8, "each other source gets in");
    assert_eq!(connections.open(), 14);
}

#[tokio::test(start_paused = true)]
async fn a_mute_connection_gives_way_to_the_next_of_its_source() {
    let connections = connections();
    let mut kept: Vec<_> = (0..6)
        .filter_map(|_| connections.admit(source(1)))
        .collect();
    let newest = connections
        .admit(source(1))
        .expect("a genuine client of the same address");
    assert!(is_open(newest.life()));
    assert!(!is_open(kept[0].life()), "the oldest is closed");
    assert!(kept[1..].iter().all(|admission| is_open(admission.life())));
    kept.remove(0);
    // A connection that has proven itself is not closed for one that has not.
    newest.life().prove();
    for _ in 0..100 {
        kept.retain(|admission| is_open(admission.life()));
        kept.push(connections.admit(source(1)).unwrap());
    }
    assert!(is_open(newest.life()));
}

#[tokio::test(start_paused = true)]
async fn a_request_under_way_is_not_closed_for_its_own_source() {
    let connections = connections();
    let mut busy: Vec<_> = (0..6)
        .filter_map(|_| connections.admit(source(1)))
        .map(|admission| {
            admission.life().prove();
            let under_way = admission.life().start_request();
            (admission, under_way)
        })
        .collect();
    assert!(
        connections.admit(source(1)).is_none(),
        "the newest is refused"
    );
    assert!(busy.iter().all(|(admission, _)| is_open(admission.life())));
    let (first, under_way) = busy.remove(0);
    drop(under_way);
    assert!(
        connections.admit(source(1)).is_some(),
        "an idle one gives way"
    );
    assert!(!is_open(first.life()));
}

#[tokio::test(start_paused = true)]
async fn the_source_that_has_most_gives_way_where_all_is_full() {
    let connections = connections();
    let mut most = Vec::new();
    for (last, count) in [(1, 6), (2, 4), (3, 4)] {
        for _ in 0..count {
            let admission = connections.admit(source(last)).unwrap();
            admission.life().prove();
            let under_way = admission.life().start_request();
            most.push((admission, under_way));
        }
    }
    assert_eq!(connections.open(), 14);
    assert!(connections.admit(source(4)).is_some());
    let closed: Vec<_> = (0..most.len())
        .filter(|index| !is_open(most[*index].0.life()))
        .collect();
    assert_eq!(closed, [5], "the newest of the source that has most");
}

#[tokio::test(start_paused = true)]
async fn many_mute_sources_do_not_shut_out_one_more() {
    let connections = connections();
    let mute: Vec<_> = (1..=14)
        .map(|last| connections.admit(source(last)).unwrap())
        .collect();
    assert!(connections.admit(source(100)).is_some());
    assert!(!is_open(mute[0].life()));
}

#[tokio::test(start_paused = true)]
async fn a_closed_connection_ends_and_gives_its_place_back() {
    let connections = connections();
    let (mut first, _far) = connect(&connections, source(1)).unwrap();
    let reading = tokio::spawn(async move { read(&mut first).await });
    tokio::task::yield_now().await;
    let others: Vec<_> = (0..6)
        .filter_map(|_| connections.admit(source(1)))
        .collect();
    let error = reading.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    connections.room().await;
    assert_eq!((others.len(), connections.open()), (6, 6));
    drop(others);
    assert_eq!(connections.open(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_request_ends_after_ten_seconds() {
    let connections = connections();
    let begun = Instant::now();
    let (mut connection, mut far) = connect(&connections, source(1)).unwrap();
    far.write_all(b"GE").await.unwrap();
    read(&mut connection).await.unwrap();
    read(&mut connection).await.unwrap();
    let error = read(&mut connection).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(
        begun.elapsed(),
        10 * SECOND,
        "bytes of the head win no time"
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_may_stay_and_a_slow_second_head_may_not() {
    let connections = connections();
    let (mut connection, mut far) = connect(&connections, source(1)).unwrap();
    connection.life().prove();
    drop(connection.life().start_request());
    let begun = Instant::now();
    tokio::time::sleep(50 * SECOND).await;
    far.write_all(b"G").await.unwrap();
    read(&mut connection).await.unwrap();
    assert_eq!(
        read(&mut connection).await.unwrap_err().kind(),
        io::ErrorKind::TimedOut
    );
    assert_eq!(begun.elapsed(), 60 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_unproven_connection_is_closed_although_its_requests_are_answered() {
    let connections = connections();
    let begun = Instant::now();
    let (mut connection, _far) = connect(&connections, source(1)).unwrap();
    let under_way = connection.life().start_request();
    assert_eq!(
        read(&mut connection).await.unwrap_err().kind(),
        io::ErrorKind::TimedOut
    );
    assert_eq!(begun.elapsed(), 30 * SECOND);
    drop(under_way);
}

#[test]
fn one_host_has_the_first_half_of_an_ipv6_address() {
    let from = |text: &str| Source::from(SocketAddr::new(text.parse().unwrap(), 1));
    assert_eq!(from("2001:db8::1"), from("2001:db8::ffff:2"));
    assert_ne!(from("2001:db8::1"), from("2001:db8:0:1::1"));
    assert_eq!(from("::ffff:192.0.2.1"), from("192.0.2.1"));
}
