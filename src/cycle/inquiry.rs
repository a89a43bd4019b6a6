//! Asking other hosts directly: before the leader gives one up, it hears it out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use reconciler::{name::NodeName, plan::Next};

use crate::{
    follow::lock,
    peer::{AddressOf, PeerClient},
};

/// How long an answer, or the lack of one, is believed.
const FRESH: Duration = Duration::from_secs(2);
/// When to look whether an answer has come.
const SOON: Duration = Duration::from_millis(100);

/// Where other hosts' daemons listen, as the store says.
#[derive(Clone, Debug, Default)]
pub(crate) struct AddressBook(Arc<Mutex<BTreeMap<NodeName, SocketAddr>>>);

impl AddressBook {
    /// Replaces what was known.
    pub(super) fn set(&self, addresses: BTreeMap<NodeName, SocketAddr>) {
        *lock(&self.0) = addresses;
    }

    fn get(&self, node: &NodeName) -> Option<SocketAddr> {
        lock(&self.0).get(node).copied()
    }

    /// The book as a question.
    pub(crate) fn address_of(&self) -> AddressOf {
        let book = self.clone();
        Arc::new(move |node| book.get(node))
    }
}

/// What asking one host has come to.
#[derive(Clone, Copy, Debug)]
struct Answer {
    asked: Instant,
    /// `None` while the question is under way.
    lives: Option<bool>,
    /// What the question before came to.
    before: Option<bool>,
}

/// Asks hosts whether they live.
#[derive(Clone)]
pub(crate) struct Inquiry {
    client: Option<PeerClient>,
    book: AddressBook,
    answers: Arc<Mutex<BTreeMap<NodeName, Answer>>>,
}

impl Inquiry {
    /// Without a client nobody can be asked, and silence alone decides.
    pub(crate) fn new(client: Option<PeerClient>, book: AddressBook) -> Self {
        Self { client, book, answers: Arc::default() }
    }

    pub(super) fn book(&self) -> &AddressBook {
        &self.book
    }

    /// Asks these, unless that was done just now, and says who answered. Who is being asked for the first time counts as
    /// answering until that is over.
    pub(super) fn ask(&self, nodes: BTreeSet<NodeName>) -> BTreeMap<NodeName, bool> {
        let mut answers = lock(&self.answers);
        answers.retain(|node, _| nodes.contains(node));
        let Some(client) = &self.client else { return BTreeMap::new() };
        let mut known = BTreeMap::new();
        for node in nodes {
            let Some(address) = self.book.get(&node) else { continue };
            let last = answers.get(&node).copied();
            let due = last.is_none_or(|last| last.lives.is_some() && last.asked.elapsed() >= FRESH);
            if due {
                let before = last.and_then(|last| last.lives);
                answers.insert(node.clone(), Answer { asked: Instant::now(), lives: None, before });
                self.send(client.clone(), node.clone(), address);
            }
            let lives = answers.get(&node).and_then(|answer| answer.lives.or(answer.before)).unwrap_or(true);
            known.insert(node, lives);
        }
        known
    }

    fn send(&self, client: PeerClient, node: NodeName, address: SocketAddr) {
        let answers = Arc::clone(&self.answers);
        tokio::spawn(async move {
            let lives = match client.ping(&node, address).await {
                Ok(_) => true,
                Err(error) => {
                    tracing::debug!(%node, "no direct answer: {error}");
                    false
                }
            };
            if let Some(answer) = lock(&answers).get_mut(&node) {
                answer.lives = Some(lives);
            }
        });
    }

    /// When to look again.
    pub(super) fn next(&self) -> Next {
        let answers = lock(&self.answers);
        let waits = answers.values().map(|answer| match answer.lives {
            None => SOON,
            Some(_) => FRESH.saturating_sub(answer.asked.elapsed()).max(SOON),
        });
        waits.min().map_or(Next::AwaitChange, Next::After)
    }
}
