//! Asks other hosts directly whether they live, before the leader gives one of them up.
//!
//! While this host leads, it asks all other hosts at intervals, so that an answer, or its absence,
//! is known when a lease ends. When a host stops answering, this host follows the remaining time of
//! that host's lease, since etcd reports the end of a lease up to half a second late.

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

/// The interval at which a host is asked.
const PACE: Duration = Duration::from_millis(1500);
/// The interval for a host that has stopped answering, while its lease is followed.
const AGAIN: Duration = Duration::from_millis(500);
/// The first questions of a new leader are spread over this time.
const SPREAD: Duration = Duration::from_secs(1);
/// How many leases are followed at the same time; if more hosts stop answering at once, etcd's own
/// report is early enough.
const FOLLOWED: usize = 8;
/// How long an observed end of a lease counts: by then etcd has reported it, or the host has a new
/// lease.
const HOLDS: Duration = Duration::from_secs(3);

/// The addresses of other hosts' daemons, by the store.
#[derive(Clone, Debug, Default)]
pub(crate) struct AddressBook(Arc<Mutex<BTreeMap<NodeName, SocketAddr>>>);

impl AddressBook {
    /// Replaces the addresses by those in the store now.
    pub(super) fn set(&self, addresses: BTreeMap<NodeName, SocketAddr>) {
        *self.0.lock() = addresses;
    }

    fn get(&self, node: &NodeName) -> Option<SocketAddr> {
        self.0.lock().get(node).copied()
    }

    /// The address book as a function from a node's name to its address.
    pub(crate) fn address_of(&self) -> AddressOf {
        let book = self.clone();
        Arc::new(move |node| book.get(node))
    }
}

/// Asks the daemons of other hosts whether they live.
pub(crate) struct Inquiry {
    /// `None` if there is no client for other hosts or no etcd: then no host is asked, and only its
    /// lease decides.
    with: Option<(PeerClient, Etcd)>,
    book: AddressBook,
    asked: Arc<Mutex<BTreeMap<NodeName, AskedHost>>>,
    followed: Arc<Semaphore>,
    changed: watch::Sender<u64>,
}

/// A host that is asked at intervals until this value is dropped.
struct AskedHost {
    answer: NodeAnswer,
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

    /// Changes when there is a new result.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Asks exactly these nodes from now on, and returns the results. A node whose first question
    /// has no result yet counts as answering.
    pub(super) fn ask(&self, nodes: &BTreeSet<NodeName>) -> BTreeMap<NodeName, NodeAnswer> {
        let mut asked = self.asked.lock();
        asked.retain(|node, _| nodes.contains(node));
        let Some((client, etcd)) = &self.with else {
            return BTreeMap::new();
        };

        let mut answers = BTreeMap::new();
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
                    answer: first,
                    task: tokio::spawn(asking.run()).abort_handle(),
                }
            });
            answers.insert(node.clone(), entry.answer);
        }
        answers
    }
}

/// The task that asks one host.
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
            // The host has no lease, or renews it: its lease shows nothing new before the host has
            // answered again.
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

    /// Whether the host's lease runs out before the host answers again.
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

    fn record(&self, answer: NodeAnswer) {
        let Some(asked) = self.asked.upgrade() else {
            return;
        };
        if let Some(entry) = asked.lock().get_mut(&self.node)
            && entry.answer != answer
        {
            entry.answer = answer;
            self.changed.send_modify(|count| *count += 1);
        }
    }
}

/// A fraction from 0 to 1 that depends on the node's name, so that not all nodes are asked at the
/// same instant.
fn share(node: &NodeName) -> f64 {
    let mut hasher = DefaultHasher::new();
    node.as_str().hash(&mut hasher);
    f64::from(u8::try_from(hasher.finish() % 256).unwrap_or(0)) / 256.0
}
