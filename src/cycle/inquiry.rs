//! Asking other hosts directly: before the leader gives one up, it hears it out.
//!
//! As long as this host leads it asks all others again and again, so that the answer, or the lack
//! of one, is there when a lease ends. Of one that no longer answers the lease is followed to its
//! end: etcd itself says it up to half a second later.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use reconciler::name::NodeName;
use tokio::{
    sync::{Semaphore, watch},
    task::AbortHandle,
};

use crate::{
    peer::{AddressOf, PeerClient, PeerLine},
    store::{Etcd, LeaseFate, NodeAnswer},
};

/// How often a host is asked.
const PACE: Duration = Duration::from_millis(1500);
/// How often one that has stopped answering is, as long as its lease is followed.
const AGAIN: Duration = Duration::from_millis(500);
/// The first questions of a leader go out within this time.
const SPREAD: Duration = Duration::from_secs(1);
/// So many leases are followed at a time; of more that go at once etcd's own word is good enough.
const FOLLOWED: usize = 8;
/// So long a lease that has run out counts as that: by then etcd has said it, or the host has a new
/// one.
const HOLDS: Duration = Duration::from_secs(3);

/// Where other hosts' daemons listen, as the store says.
#[derive(Clone, Debug, Default)]
pub(crate) struct AddressBook(Arc<Mutex<BTreeMap<NodeName, SocketAddr>>>);

impl AddressBook {
    /// Replaces what was known.
    pub(super) fn set(&self, addresses: BTreeMap<NodeName, SocketAddr>) {
        *self.0.lock() = addresses;
    }

    fn get(&self, node: &NodeName) -> Option<SocketAddr> {
        self.0.lock().get(node).copied()
    }

    /// The book as a question.
    pub(crate) fn address_of(&self) -> AddressOf {
        let book = self.clone();
        Arc::new(move |node| book.get(node))
    }
}

/// Asks hosts whether they live.
pub(crate) struct Inquiry {
    /// Without both nobody is asked, and silence alone decides.
    with: Option<(PeerClient, Etcd)>,
    book: AddressBook,
    asked: Arc<Mutex<BTreeMap<NodeName, AskedHost>>>,
    followed: Arc<Semaphore>,
    changed: watch::Sender<u64>,
}

/// A host that is being asked, until this is dropped.
struct AskedHost {
    found: NodeAnswer,
    task: AbortHandle,
}

impl Drop for AskedHost {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Inquiry {
    pub(crate) fn new(client: Option<PeerClient>, etcd: Option<Etcd>, book: AddressBook) -> Self {
        let followed = Arc::new(Semaphore::new(FOLLOWED));
        let changed = watch::channel(0).0;
        Self {
            with: client.zip(etcd),
            book,
            asked: Arc::default(),
            followed,
            changed,
        }
    }

    pub(super) fn book(&self) -> &AddressBook {
        &self.book
    }

    /// Goes up when something new was found.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Asks exactly these from now on, and says what was found. Who has not been asked to the end
    /// yet counts as answering.
    pub(super) fn ask(&self, nodes: &BTreeSet<NodeName>) -> BTreeMap<NodeName, NodeAnswer> {
        let mut asked = self.asked.lock();
        asked.retain(|node, _| nodes.contains(node));
        let Some((client, etcd)) = &self.with else {
            return BTreeMap::new();
        };
        let mut found = BTreeMap::new();
        for node in nodes {
            if self.book.get(node).is_none() {
                asked.remove(node);
                continue;
            }
            let entry = asked.entry(node.clone()).or_insert_with(|| {
                let asking = Asking {
                    line: client.line(node),
                    etcd: etcd.clone(),
                    node: node.clone(),
                    book: self.book.clone(),
                    asked: Arc::downgrade(&self.asked),
                    followed: self.followed.clone(),
                    changed: self.changed.clone(),
                };
                let first = NodeAnswer {
                    answers: Some(true),
                    ran_out: None,
                };
                AskedHost {
                    found: first,
                    task: tokio::spawn(asking.run()).abort_handle(),
                }
            });
            found.insert(node.clone(), entry.found);
        }
        found
    }
}

/// Asking one host.
struct Asking {
    line: PeerLine,
    etcd: Etcd,
    node: NodeName,
    book: AddressBook,
    asked: Weak<Mutex<BTreeMap<NodeName, AskedHost>>>,
    followed: Arc<Semaphore>,
    changed: watch::Sender<u64>,
}

impl Asking {
    async fn run(mut self) {
        tokio::time::sleep(SPREAD.mul_f64(share(&self.node))).await;
        loop {
            if self.answers().await {
                self.record(NodeAnswer {
                    answers: Some(true),
                    ran_out: None,
                });
                tokio::time::sleep(PACE).await;
                continue;
            }
            self.record(NodeAnswer {
                answers: Some(false),
                ran_out: None,
            });
            if self.is_outlasted().await {
                self.record(NodeAnswer {
                    answers: Some(false),
                    ran_out: Some(Instant::now()),
                });
                tokio::time::sleep(HOLDS).await;
                self.record(NodeAnswer {
                    answers: Some(false),
                    ran_out: None,
                });
            }
            // It has no lease, or keeps one that is renewed: nothing is learnt from its lease
            // before it has answered again.
            while !self.answers().await {
                tokio::time::sleep(PACE).await;
            }
        }
    }

    async fn answers(&mut self) -> bool {
        let Some(address) = self.book.get(&self.node) else {
            return false;
        };
        match self.line.ping(address).await {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(node = %self.node, "no direct answer: {error}");
                false
            }
        }
    }

    /// Whether its lease runs out before it answers again.
    async fn is_outlasted(&mut self) -> bool {
        let Ok(_one_of_few) = self.followed.clone().try_acquire_owned() else {
            return false;
        };
        let (etcd, node) = (self.etcd.clone(), self.node.clone());
        let ends = async move { etcd.outlast(&node).await == LeaseFate::RanOut };
        let answers = async {
            while !self.answers().await {
                tokio::time::sleep(AGAIN).await;
            }
        };
        tokio::select! {
            ran_out = ends => ran_out,
            () = answers => false,
        }
    }

    fn record(&self, found: NodeAnswer) {
        let Some(asked) = self.asked.upgrade() else {
            return;
        };
        if let Some(entry) = asked.lock().get_mut(&self.node)
            && entry.found != found
        {
            entry.found = found;
            self.changed.send_modify(|count| *count += 1);
        }
    }
}

/// A share of a whole, another one for each node, so that not all are asked at once.
fn share(node: &NodeName) -> f64 {
    let mut hasher = DefaultHasher::new();
    node.as_str().hash(&mut hasher);
    f64::from(u8::try_from(hasher.finish() % 256).unwrap_or(0)) / 256.0
}
