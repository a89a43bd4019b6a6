#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::Arc,
    thread,
};

use tokio::{sync::mpsc, task::JoinSet};

use super::*;
use crate::{connections::Times, descriptors::Taker};

const KNOWN: &str = "known.example.com.";
/// Longer than any step here; a query without an answer ends after 2 s.
const LONG: Duration = Duration::from_secs(30);

/// A name server that answers `KNOWN` only. The names that it is asked for are received.
fn name_server() -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let (sender, names) = mpsc::unbounded_channel();
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let asked = Message::from_vec(&buffer[..length]).unwrap();
            let query = asked.queries[0].clone();
            let name = query.name().clone();
            if name.to_string() == KNOWN {
                let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
                let data = RData::A(Ipv4Addr::new(192, 0, 2, 7).into());
                answer.add_answer(Record::from_rdata(name.clone(), 60, data));
                answer.add_query(query);
                socket.send_to(&answer.to_vec().unwrap(), client).unwrap();
            }
            if sender.send(name.to_string()).is_err() {
                return;
            }
        }
    });
    (address, names)
}

fn source(last: u8) -> Source {
    let address = SocketAddr::from((Ipv4Addr::new(10, 244, 1, last), 53));
    Source::from(address)
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// Queries to a silent name server, each of which holds its place.
struct Waiting {
    upstream: Arc<Upstream>,
    names: mpsc::UnboundedReceiver<String>,
    tasks: JoinSet<()>,
}

impl Waiting {
    fn new(total: usize, per_source: usize) -> Self {
        let times = Times {
            head: LONG,
            unproven: LONG,
            idle: LONG,
            request: LONG,
        };
        let bounds = Bounds {
            total,
            per_source,
            times,
        };
        let (address, names) = name_server();
        Self {
            upstream: Arc::new(Upstream::new(&[address], bounds).unwrap()),
            names,
            tasks: JoinSet::new(),
        }
    }

    /// Asks for a name, and waits until the name server is asked.
    async fn ask(&mut self, text: &str, source: Source) {
        let (upstream, asked) = (Arc::clone(&self.upstream), name(text));
        self.tasks.spawn(async move {
            upstream.ask(&asked, RecordType::A, source).await;
        });
        while time::timeout(LONG, self.names.recv())
            .await
            .unwrap()
            .unwrap()
            != text
        {}
    }

    /// The answer to a query that must not reach the name server.
    async fn answer(&mut self, text: &str, source: Source) -> Reply {
        let reply = self.upstream.ask(&name(text), RecordType::A, source).await;
        while let Ok(asked) = self.names.try_recv() {
            assert_ne!(asked, text);
        }
        reply
    }
}

#[tokio::test]
async fn a_source_holds_its_share_of_the_queries_and_leaves_the_rest_to_others() {
    let mut waiting = Waiting::new(16, 2);
    for text in ["a.example.com.", "b.example.com."] {
        waiting.ask(text, source(2)).await;
    }
    let refused = waiting.answer("c.example.com.", source(2)).await;
    assert_eq!(refused.code, ResponseCode::ServFail);
    waiting.ask("d.example.com.", source(3)).await;

    let bounds = Taker::DnsUpstream.bounds();
    assert_eq!(bounds.per_source, bounds.total / 4);
}

#[tokio::test]
async fn a_source_gives_way_to_others_where_all_places_are_taken() {
    let mut waiting = Waiting::new(4, 3);
    for text in ["a.example.com.", "b.example.com.", "c.example.com."] {
        waiting.ask(text, source(2)).await;
    }
    waiting.ask("d.example.com.", source(3)).await;
}

#[tokio::test]
async fn a_cached_name_is_answered_while_all_places_are_taken() {
    let mut waiting = Waiting::new(2, 1);
    waiting.ask(KNOWN, source(2)).await;
    waiting.tasks.join_next().await.unwrap().unwrap();
    waiting.ask("a.example.com.", source(2)).await;

    let refused = waiting.answer("b.example.com.", source(3)).await;
    assert_eq!(refused.code, ResponseCode::ServFail);
    for last in [2, 3] {
        let cached = waiting.answer(KNOWN, source(last)).await;
        assert_eq!(cached.code, ResponseCode::NoError);
        assert_eq!(cached.answers.len(), 1);
        assert!((1..=60).contains(&cached.answers[0].ttl));
    }
}
