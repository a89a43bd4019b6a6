//! The link to etcd v3: raw keys and values under one prefix, this host's lease, and the election.
//!
//! Nothing here knows what the values mean. Three tasks run beside each other:
//!
//! ```text
//! replica   a list, then a watch           -> Listed, Changed, Lost, Resumed
//! session   PREFIX/nodes/NAME/alive         -> Conflict
//! election  PREFIX/election/LEASE           -> Elected, Demoted
//! ```
//!
//! The latter two have a thread and a connection of their own: a full runtime or a large answer on
//! the way must not cost this host its leases.

mod election;
mod failure;
mod lease;
mod link;
mod published;
mod remaining;
mod replica;
mod session;
#[cfg(test)]
mod tests;
mod write;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use reconciler::{
    name::{Installation, NodeName},
    time::backoff,
};
use tokio::sync::{mpsc, watch};

use self::{
    election::Election,
    lease::Deadline,
    link::{Endpoints, Link},
    replica::Replica,
    session::Session,
};
pub(crate) use self::{remaining::LeaseFate, session::name_taken};
use crate::source::fetch::SecretText;

/// How long a clean end waits for etcd's answer. Leases that are not revoked run out by themselves.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// How to reach etcd.
#[derive(Clone)]
pub(crate) struct EtcdConfig {
    /// Such as `https://10.0.0.1:2379`; one end point is used at a time, and the next when it does
    /// not answer.
    pub(crate) endpoints: Vec<String>,
    /// What every key of this cluster begins with, such as `/windlass/prod`.
    pub(crate) prefix: String,
    /// `None` for a connection in plain text.
    pub(crate) tls: Option<EtcdTls>,
    /// A user of etcd and its password, if the certificate's common name is not the user.
    pub(crate) user: Option<(String, SecretText)>,
}

/// PEM files, read again for each connection, so that renewed ones take effect.
#[derive(Debug, Clone)]
pub(crate) struct EtcdTls {
    /// The certificate authority of etcd's server certificate.
    pub(crate) ca: PathBuf,
    /// This host's client certificate.
    pub(crate) certificate: PathBuf,
    /// The private key of that certificate.
    pub(crate) key: PathBuf,
}

/// This host's identity in the store.
#[derive(Debug, Clone)]
pub(crate) struct SessionConfig {
    /// The node's name.
    pub(crate) node: NodeName,
    /// The first value of `nodes/NAME/alive`: a JSON object whose field `installation` equals
    /// [`SessionConfig::installation`].
    pub(crate) alive: Vec<u8>,
    /// The id of this installation: an alive key of another installation is not taken over.
    pub(crate) installation: Installation,
    /// Whether this host stands for election at first.
    pub(crate) candidate: bool,
    /// After this time without a renewal the node counts as gone; whole seconds.
    pub(crate) node_ttl: Duration,
    /// After this time without a renewal there is no leader any more; whole seconds.
    pub(crate) leader_ttl: Duration,
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredValue {
    /// Without the prefix.
    pub(crate) key: String,
    /// The bytes as they were written.
    pub(crate) value: Vec<u8>,
    /// The revision of the last change (etcd's mod revision).
    pub(crate) revision: i64,
}

/// A change of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyChange {
    /// The key was created or changed.
    Put(StoredValue),
    /// The key is gone: it was deleted, or its lease ran out.
    Delete {
        /// Without the prefix.
        key: String,
        /// The revision of the deletion.
        revision: i64,
    },
}

/// What the tasks report to the daemon.
#[derive(Debug)]
pub(crate) enum StoreEvent {
    /// Everything under the prefix at one revision: after the start, after a compaction, on
    /// request, and if a watch could not be resumed.
    Listed {
        /// Etcd's own id of its cluster.
        etcd_cluster: u64,
        /// The revision of the list. If it is lower than an earlier one, etcd was restored or
        /// replaced.
        revision: i64,
        /// The number of requests for a list when this list was begun: see [`Etcd::relist`].
        asked: u64,
        /// Ordered by key.
        pairs: Vec<StoredValue>,
    },
    /// The changes since, in the order of revisions; all changes of a revision are in one event.
    Changed {
        /// The last one of `changes`.
        revision: i64,
        /// At least one.
        changes: Vec<KeyChange>,
    },
    /// The store does not answer, or has no quorum. Reported once for each outage, which ends with
    /// `Listed` or `Resumed`.
    Lost {
        /// What failed, where, and what to do.
        why: String,
    },
    /// The store answers again; the changes made during the outage follow.
    Resumed,
    /// This host is the leader.
    Elected(Fence),
    /// This host is no longer the leader.
    Demoted {
        /// Why the term has ended.
        why: String,
    },
    /// Another machine holds this host's name. Reported once; the name is claimed again each
    /// second.
    Conflict {
        /// Which machine, and what to do.
        why: String,
    },
    /// The name is this host's again.
    Named,
}

/// The proof of leadership: every write compares the creation revision of the election key.
#[derive(Debug, Clone)]
pub(crate) struct Fence {
    /// The election key, with the prefix.
    pub(crate) key: String,
    /// The key's creation revision: higher than that of every earlier leader.
    pub(crate) revision: i64,
    until: Deadline,
}

impl Fence {
    /// Whether the lease cannot have run out yet, by the monotonic clock. Turns false without an
    /// event.
    pub(crate) fn holds(&self) -> bool {
        !self.until.passed()
    }

    /// As [`Fence::holds`], at a time that the caller has read from the clock.
    pub(crate) fn holds_at(&self, now: Instant) -> bool {
        !self.until.passed_at(now)
    }

    #[cfg(test)]
    pub(crate) fn holding_until(revision: i64, until: Instant) -> Self {
        let deadline = Deadline::new();
        deadline.set(until);
        Self {
            key: "election/1".to_owned(),
            revision,
            until: deadline,
        }
    }
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Write {
    /// Creates or changes a key.
    Put {
        /// Without the prefix.
        key: String,
        /// The new value.
        value: Vec<u8>,
    },
    /// Deletes a key; the key need not exist.
    Delete {
        /// Without the prefix.
        key: String,
    },
}

/// The result of `create`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Created {
    /// The key was created, at this revision.
    Made(i64),
    /// The key existed already.
    Exists(StoredValue),
}

/// Why a write is not done, or not certainly done. If the write was split into several
/// transactions, earlier ones may be done in every case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WriteError {
    /// This host is no longer the leader: certainly not done.
    #[error("this host is no longer the leader")]
    Fenced,
    /// No answer: it may or may not be done.
    #[error("{0}; it may or may not be written")]
    Unknown(String),
    /// Certainly not done.
    #[error("{0}")]
    Refused(String),
}

/// How far this host's leases are to be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Both leases are kept.
    Run,
    /// The leader's lease is given up: the host will be back soon.
    Resign,
    /// The node's lease is given up, too.
    Leave,
}

/// What one task notices and another task must know.
#[derive(Debug)]
struct Hints {
    /// The election key whose deletion was observed last.
    election_gone: watch::Sender<String>,
    /// This host's alive key is missing.
    alive_gone: tokio::sync::Notify,
}

/// A handle of the store. The tasks end with the last clone.
#[derive(Debug, Clone)]
pub(crate) struct Etcd {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    link: Link,
    prefix: String,
    hints: Arc<Hints>,
    stage: watch::Sender<Stage>,
    candidate: watch::Sender<bool>,
    alive: watch::Sender<Vec<u8>>,
    relist: watch::Sender<u64>,
    /// Closed when the lease tasks have ended.
    election_end: watch::Receiver<()>,
    session_end: watch::Receiver<()>,
}

impl Etcd {
    /// Starts the tasks, within a tokio runtime. Does not wait for etcd to answer: only a mistake
    /// in the configuration is an error.
    pub(crate) fn start(
        config: EtcdConfig,
        session: SessionConfig,
    ) -> anyhow::Result<(Self, mpsc::UnboundedReceiver<StoreEvent>)> {
        let prefix = checked_prefix(&config.prefix)?;
        if installation_of(&session.alive).as_ref() != Some(&session.installation) {
            bail!(
                "the alive value must be a JSON object with `installation`: {}",
                session.installation
            );
        }
        let endpoints = Arc::new(Endpoints::new(config, prefix.clone())?);
        let (data, leases) = (Link::new(endpoints.clone()), Link::new(endpoints.clone()));
        let (events, receiver) = mpsc::unbounded_channel();
        let (stage, _) = watch::channel(Stage::Run);
        let (candidate, _) = watch::channel(session.candidate);
        let (alive, _) = watch::channel(session.alive.clone());
        let (relist, _) = watch::channel(0);
        let (election_open, election_end) = watch::channel(());
        let (session_open, session_end) = watch::channel(());
        let hints = Arc::new(Hints {
            election_gone: watch::channel(String::new()).0,
            alive_gone: tokio::sync::Notify::new(),
        });
        let alive_key = session::alive_key(&session.node);

        let election = Election::new(
            leases.clone(),
            &prefix,
            &session,
            hints.clone(),
            stage.subscribe(),
            candidate.subscribe(),
            events.clone(),
        );
        let node = Session::new(
            leases,
            format!("{prefix}{alive_key}"),
            session,
            alive.subscribe(),
            hints.clone(),
            stage.subscribe(),
            events.clone(),
        );
        start_lease_thread(async move {
            let elect = tokio::spawn(async {
                Box::pin(election.run()).await;
                drop(election_open);
            });
            Box::pin(node.run()).await;
            drop(session_open);
            let _ = elect.await;
        })?;
        let replica = Replica::new(
            data.clone(),
            prefix.clone(),
            alive_key,
            hints.clone(),
            relist.subscribe(),
            stage.subscribe(),
            events,
        );
        tokio::runtime::Handle::try_current()
            .context("etcd is used outside of a runtime")?
            .spawn(Box::pin(replica.run()));
        let inner = Inner {
            link: data,
            prefix,
            hints,
            stage,
            candidate,
            alive,
            relist,
            election_end,
            session_end,
        };
        Ok((
            Self {
                inner: Arc::new(inner),
            },
            receiver,
        ))
    }

    /// Requests a linearizable list, which `Listed` reports: for example after a write with an
    /// unknown result. Returns the number of requests: a list with a lower count was begun before.
    pub(crate) fn relist(&self) -> u64 {
        self.inner.relist.send_modify(|count| *count += 1);
        *self.inner.relist.borrow()
    }

    /// Sets whether this host stands for election. A leader that no longer stands gives leadership
    /// up.
    pub(crate) fn set_candidate(&self, candidate: bool) {
        self.inner
            .candidate
            .send_if_modified(|before| std::mem::replace(before, candidate) != candidate);
    }

    /// Sets the value of `nodes/NAME/alive`; it must name the same installation.
    pub(crate) fn set_alive(&self, alive: Vec<u8>) {
        self.inner.alive.send_if_modified(|before| {
            let differs = *before != alive;
            *before = alive;
            differs
        });
    }

    /// Gives up leadership for good, and with `leave` the node's lease, too. Otherwise that lease
    /// is renewed until the last handle is dropped, and then runs out.
    pub(crate) async fn end(&self, leave: bool) {
        let stage = if leave { Stage::Leave } else { Stage::Resign };
        self.inner.stage.send_replace(stage);
        let mut ends = vec![self.inner.election_end.clone()];
        if leave {
            ends.push(self.inner.session_end.clone());
        }
        let ended = async {
            for mut end in ends {
                while end.changed().await.is_ok() {}
            }
        };
        if tokio::time::timeout(END_TIMEOUT, ended).await.is_err() {
            tracing::info!(
                "etcd did not answer in time to give up the leases; they run out by themselves"
            );
        }
    }
}

/// Runs the lease tasks on a thread and a runtime of their own.
fn start_lease_thread(tasks: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime for the leases in etcd")?;
    std::thread::Builder::new()
        .name("etcd-leases".to_owned())
        .spawn(move || runtime.block_on(tasks))
        .context("no thread for the leases in etcd")?;
    Ok(())
}

/// The prefix with one slash at its end.
fn checked_prefix(prefix: &str) -> anyhow::Result<String> {
    let trimmed = prefix.trim_end_matches('/');
    if trimmed.is_empty() || trimmed.contains(|c: char| c.is_control() || c.is_whitespace()) {
        bail!(
            "the prefix of the keys in etcd must name this cluster, as in `/windlass/prod`, and not be {prefix:?}"
        );
    }
    Ok(format!("{trimmed}/"))
}

/// The installation in an alive value; `None` if the value has none.
fn installation_of(alive: &[u8]) -> Option<Installation> {
    let value: serde_json::Value = serde_json::from_slice(alive).ok()?;
    Some(Installation::new(value.get("installation")?.as_str()?))
}

/// Delays of 0.1 to 2 s, each about twice the one before, with a random part so that hosts differ.
#[derive(Debug)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LAST: Duration = Duration::from_secs(2);

    fn new() -> Self {
        Self { failures: 0 }
    }

    fn reset(&mut self) {
        self.failures = 0;
    }

    /// The next delay; half of it is random.
    fn step(&mut self) -> Duration {
        use std::hash::{BuildHasher, Hasher};
        let chance = std::hash::RandomState::new().build_hasher().finish() % 1000;
        let step = backoff(Self::FIRST, self.failures, Self::LAST);
        self.failures = self.failures.saturating_add(1);
        step / 2 + (step / 2).mul_f64(f64::from(u16::try_from(chance).unwrap_or(0)) / 1000.0)
    }
}

/// Returns when the last handle is dropped.
async fn dropped(stage: &mut watch::Receiver<Stage>) {
    while stage.changed().await.is_ok() {}
}

/// A monotonic time as tokio's timers take it.
fn at(instant: Instant) -> tokio::time::Instant {
    tokio::time::Instant::from_std(instant)
}
