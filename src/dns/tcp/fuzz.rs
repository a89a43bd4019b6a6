//! DNS queries of any bytes: each is answered by a whole message, or not at all.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::net::Ipv4Addr;

use hickory_server::proto::op::{Message, MessageType};
use parking_lot::RwLock;
use proptest::prelude::*;
use reconciler::network::{DnsAnswer, DnsRecords};

use super::{
    super::{Callers, DnsService, upstream::Upstream, zone::Zone},
    *,
};
use crate::{descriptors::Taker, fuzz::Fuzz};

const WORDS: [&str; 14] = [
    "\x07cluster\x05local\0",
    "\x03svc",
    "\x03web\x04shop",
    "\x04many\x04shop",
    "\x05round",
    "\x07in-addr\x04arpa\0",
    "\0\x01\0\x01",
    "\0\u{1c}\0\x01",
    "\0\x0c\0\x01",
    "\0\u{29}\x04\0",
    "\0\u{7f}\0\x01",
    "\x01*",
    "\0",
    "\u{3f}",
];

fn handler() -> Handler {
    let addresses = |count: u8| {
        let addresses = (1..=count).map(|last| Ipv4Addr::new(10, 244, 1, last));
        DnsAnswer::Addresses(addresses.collect())
    };
    let alias = |target: &str| DnsAnswer::Alias(target.to_owned());
    let names = [
        ("web.shop.svc.cluster.local", addresses(2)),
        ("many.shop.svc.cluster.local", addresses(200)),
        (
            "db.shop.svc.cluster.local",
            alias("web.shop.svc.cluster.local"),
        ),
        (
            "round.shop.svc.cluster.local",
            alias("round.shop.svc.cluster.local"),
        ),
    ];
    let records = DnsRecords {
        zone: "cluster.local".to_owned(),
        names: names.map(|(name, answer)| (name.to_owned(), answer)).into(),
    };
    Handler {
        service: DnsService {
            zone: Arc::new(RwLock::new(Arc::new(Zone::new(records)))),
            callers: Arc::new(RwLock::new(Callers::Anyone)),
        },
        upstream: Arc::new(Upstream::new(&[], Taker::DnsUpstream.bounds()).unwrap()),
    }
}

#[test]
fn any_question_has_a_whole_answer_or_none() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let handler = handler();
    let ask = |question: &[u8]| {
        let address = ([127, 0, 0, 1], 1).into();
        runtime.block_on(answer(question.to_vec(), address, &handler))
    };
    Fuzz::new("src/dns/tcp/corpus", &WORDS).run(|question| {
        let answer = ask(question);
        prop_assert_eq!(&ask(question), &answer);
        let Some(answer) = answer else {
            let is_answer = question.get(2).is_some_and(|flags| flags & 0x80 != 0);
            prop_assert!(is_answer || question.len() < HEADER);
            return Ok(false);
        };
        prop_assert!(answer.len() <= usize::from(u16::MAX));
        prop_assert_eq!(&answer[..2], &question[..2]);
        // The server repeats the question as it came. A name there that points into the header
        // (RFC 1035, 4.1.4) points at other bytes in the answer.
        if question[HEADER..].iter().any(|byte| *byte >= 0xc0) {
            return Ok(false);
        }
        let read = Message::from_vec(&answer);
        let read = read.map_err(|error| TestCaseError::fail(format!("{error}")))?;
        prop_assert_eq!(read.metadata.message_type, MessageType::Response);
        let count = read.answers.len();
        prop_assert!(count <= 200 + super::super::ALIASES, "{count} answers");
        Ok(count > 0)
    });
}
