//! Requests of any bytes, from another host or an unauthenticated client.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    cell::RefCell,
    net::{Ipv4Addr, SocketAddr},
};

use axum::extract::connect_info::MockConnectInfo;
use proptest::prelude::*;
use reconciler::foreign::is_unprintable;
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::*;
use crate::{
    connections::{Caller, Connections},
    descriptors::Taker,
    fuzz::Fuzz,
    http::{
        fixture::{Fixture, fixture},
        fuzz::{answer, runtime, statuses},
    },
    peer::{
        certificate,
        tests::{Disk, disk, first, offer},
    },
};

/// The place of a valid token's secret in the corpus.
const SECRET: &str = "SECRET";
const WORDS: [&str; 17] = [
    "/peer/v1/join\n",
    "/peer/v1/renew\n",
    "/peer/v1/logs?",
    "/peer/v1/outputs?commits=",
    "namespace=default&name=",
    "\"secret\":",
    "\"node\":",
    "\"request\":",
    SECRET,
    "\"n2\"",
    "\"n1\"",
    "\"root\"",
    "\\u0000",
    "\\ud800",
    "-----BEGIN CERTIFICATE REQUEST-----\\n",
    "{",
    "}",
];

/// A host with the authority, an unused token, and the certificate of a node.
struct AuthorityHost {
    _disk: Disk,
    authority: Authority,
    secret: String,
    node: CertificateDer<'static>,
}

impl AuthorityHost {
    fn new() -> Self {
        let disk = disk();
        let now = Timestamp::now();
        let authority = first(&disk, now);
        let token = authority.token(&offer(), ([127, 0, 0, 1], 1).into(), now);
        let node = std::fs::read(disk.directory.node()).unwrap();
        Self {
            _disk: disk,
            authority,
            secret: Base64UrlUnpadded::encode_string(&token.unwrap().secret),
            node: CertificateDer::from_pem_slice(&node).unwrap(),
        }
    }

    fn router(&self, fixture: &Fixture, certificate: Option<&CertificateDer<'static>>) -> Router {
        let served = Served {
            node: NodeName::new("n1"),
            host: NodeName::new("n1"),
            authority: Some(self.authority.clone()),
            daemon: fixture.daemon.clone(),
            attempts: Attempts::new(Instant::now()),
        };
        let connections = Connections::new("peer", Taker::Peers.bounds());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let admission = connections.admit(address.into()).unwrap();
        let remote = Remote {
            address,
            certificate: certificate.cloned(),
            caller: Caller(Arc::clone(admission.life())),
        };
        router(Arc::new(served)).layer(MockConnectInfo(remote))
    }
}

/// Builds a request from an entry of the corpus: a path, a line break and a body.
fn request(text: &str) -> Vec<u8> {
    let (path, body) = text.split_once('\n').unwrap_or((text, ""));
    let method = if body.is_empty() { "GET" } else { "POST" };
    let path: String = path.chars().filter(char::is_ascii_graphic).collect();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: n1\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[test]
fn any_request_of_a_stranger_or_a_host_is_answered_within_bounds() {
    let runtime = runtime();
    let fixture = fixture();
    let site = RefCell::new(AuthorityHost::new());
    Fuzz::new("src/peer/server/corpus", &WORDS).run(|bytes| {
        let secret = site.borrow().secret.clone();
        let text = String::from_utf8_lossy(bytes).replace(SECRET, &secret);
        let sent = request(&text);

        let router = site.borrow().router(&fixture, None);
        let joined = runtime.block_on(answer(router, &[&sent]));
        let statuses_of_stranger = statuses(&joined)?;
        prop_assert!(!statuses_of_stranger.contains(&500));
        prop_assert!(fixture.asked.lock().is_empty(), "a stranger has read a log");
        let message = String::from_utf8_lossy(&joined);
        let taken = statuses_of_stranger == [200];
        if taken {
            joined_by_right(&message, &text, &secret)?;
            *site.borrow_mut() = AuthorityHost::new();
        } else {
            refused(&message)?;
        }

        let node = site.borrow().node.clone();
        let router = site.borrow().router(&fixture, Some(&node));
        let answered = runtime.block_on(answer(router, &[&sent]));
        prop_assert!(!statuses(&answered)?.contains(&500));
        fixture.asked.lock().clear();
        Ok(taken)
    });
}

/// Checks that a certificate was only issued for a valid token, and for the requested name.
fn joined_by_right(answer: &str, asked: &str, secret: &str) -> Result<(), TestCaseError> {
    let (_, body) = asked.split_once('\n').unwrap_or_default();
    let asked: serde_json::Value = serde_json::from_str(body).unwrap();
    let shown = asked["secret"].as_str().unwrap_or_default();
    let shown = Base64UrlUnpadded::decode_vec(shown).unwrap_or_default();
    prop_assert_eq!(Base64UrlUnpadded::encode_string(&shown), secret);

    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let certified: Certified = serde_json::from_str(body).unwrap();
    let facts = certificate::facts_of_pem(&certified.certificate).unwrap();
    prop_assert!(facts.node().is_some(), "{facts:?}");
    prop_assert_eq!(asked["node"].as_str(), Some(facts.name.as_str()));
    Ok(())
}

fn refused(answer: &str) -> Result<(), TestCaseError> {
    let Some((_, body)) = answer.split_once("\r\n\r\n") else {
        return Ok(());
    };
    prop_assert!(body.len() < 2048, "{} bytes", body.len());
    prop_assert!(!body.contains(is_unprintable), "{body:?}");
    Ok(())
}
