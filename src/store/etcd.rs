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
use reconciler::name::NodeName;
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

/// How long a clean end waits for etcd to hear of it. Leases run out by themselves.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// How to reach etcd.
#[derive(Clone)]
pub(crate) struct EtcdConfig {
    /// `https://10.0.0.1:2379`; one is used at a time, the next when it does not answer.
    pub(crate) endpoints: Vec<String>,
    /// What every key of this cluster begins with, such as `/windlass/prod`.
    pub(crate) prefix: String,
    /// Without it the connection is plain text.
    pub(crate) tls: Option<EtcdTls>,
    /// A user of etcd and its password, where the certificate's common name is not the user.
    pub(crate) user: Option<(String, SecretText)>,
}

/// Files in PEM, read anew at each connection, so that renewed ones are taken up.
#[derive(Debug, Clone)]
pub(crate) struct EtcdTls {
    /// Who signed etcd's certificate.
    pub(crate) ca: PathBuf,
    /// This host's certificate.
    pub(crate) certificate: PathBuf,
    /// Its key.
    pub(crate) key: PathBuf,
}

/// What this host is in the store.
#[derive(Debug, Clone)]
pub(crate) struct SessionConfig {
    /// Its name.
    pub(crate) node: NodeName,
    /// The value of `nodes/NAME/alive` at first: a JSON object whose field `installation` is that
    /// below.
    pub(crate) alive: Vec<u8>,
    /// Which installation this is: an alive key of another one is not taken over.
    pub(crate) installation: String,
    /// Whether it stands for election at first.
    pub(crate) candidate: bool,
    /// After this time without a word the node counts as gone; whole seconds.
    pub(crate) node_ttl: Duration,
    /// After this time without a word there is no leader any more; whole seconds.
    pub(crate) leader_ttl: Duration,
}

/// A key and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredValue {
    /// Without the prefix.
    pub(crate) key: String,
    /// As it was written.
    pub(crate) value: Vec<u8>,
    /// When it was last changed (etcd's mod revision).
    pub(crate) revision: i64,
}

/// What happened to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyChange {
    /// It was made or changed.
    Put(StoredValue),
    /// It is gone: deleted, or its lease ran out.
    Delete {
        /// Without the prefix.
        key: String,
        /// When.
        revision: i64,
    },
}

/// What the store tells.
#[derive(Debug)]
pub(crate) enum StoreEvent {
    /// Everything under the prefix at one revision: after start, compaction, on request, and where
    /// a watch could not be resumed.
    Listed {
        /// Etcd's own id of its cluster.
        etcd_cluster: u64,
        /// The revision of the list. Lower than one seen before: etcd was restored or replaced.
        revision: i64,
        /// How often it had been asked to list again when this list was begun: see
        /// [`Etcd::relist`].
        asked: u64,
        /// Ordered by key.
        pairs: Vec<StoredValue>,
    },
    /// What changed since, in the order of revisions; a revision is never split.
    Changed {
        /// The last one of `changes`.
        revision: i64,
        /// At least one.
        changes: Vec<KeyChange>,
    },
    /// The store does not answer, or has no quorum. Said once an outage; it ends with `Listed` or
    /// `Resumed`.
    Lost {
        /// What failed, where, and what to do.
        why: String,
    },
    /// The store answers again, and goes on where it ended: what changed meanwhile follows.
    Resumed,
    /// This host is the leader.
    Elected(Fence),
    /// It is no longer.
    Demoted {
        /// Why not.
        why: String,
    },
    /// Another machine holds this host's name. Said once; the name is asked for each second.
    Conflict {
        /// Who, and what to do.
        why: String,
    },
    /// The name is this host's again.
    Named,
}

/// What proves leadership: every write compares the creation revision of the election key.
#[derive(Debug, Clone)]
pub(crate) struct Fence {
    /// The election key, with the prefix.
    pub(crate) key: String,
    /// Its creation revision: higher than that of every leader before.
    pub(crate) revision: i64,
    until: Deadline,
}

impl Fence {
    /// Whether the lease cannot have run out yet, by the monotonic clock. It turns false by itself.
    pub(crate) fn holds(&self) -> bool {
        !self.until.passed()
    }

    /// As [`Fence::holds`], at a time that the caller has read.
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

/// One thing to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Write {
    /// Make or change a key.
    Put {
        /// Without the prefix.
        key: String,
        /// What it shall say.
        value: Vec<u8>,
    },
    /// Delete a key; it need not be there.
    Delete {
        /// Without the prefix.
        key: String,
    },
}

/// What became of `create`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Created {
    /// It is ours, since this revision.
    Made(i64),
    /// It was there already.
    Exists(StoredValue),
}

/// Why a write is not, or not surely, done. Of several transactions the ones before may be done in
/// every case.
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

/// How far the leases are to be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not at all.
    Run,
    /// Leadership only: the host is back soon.
    Resign,
    /// The node's lease too.
    Leave,
}

/// What one task notices that another must know.
#[derive(Debug)]
struct Hints {
    /// The election key seen deleted last.
    election_gone: watch::Sender<String>,
    /// This host's alive key is not there.
    alive_gone: tokio::sync::Notify,
}

/// The store. Its tasks end with the last clone.
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
    /// Closed by the tasks that end.
    election_end: watch::Receiver<()>,
    session_end: watch::Receiver<()>,
}

impl Etcd {
    /// Starts the tasks, within a tokio runtime. Never waits for etcd to answer: only what is wrong
    /// in the configuration is an error.
    pub(crate) fn start(
        config: EtcdConfig,
        session: SessionConfig,
    ) -> anyhow::Result<(Self, mpsc::UnboundedReceiver<StoreEvent>)> {
        let prefix = checked_prefix(&config.prefix)?;
        if installation_of(&session.alive).as_deref() != Some(session.installation.as_str()) {
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

    /// Lists everything again, linearizably, and tells `Listed`: after an unknown write, for
    /// example. Gives how often that was asked: a list with a lower count was begun before.
    pub(crate) fn relist(&self) -> u64 {
        self.inner.relist.send_modify(|count| *count += 1);
        *self.inner.relist.borrow()
    }

    /// Stands for election or not. A leader who no longer stands gives up.
    pub(crate) fn set_candidate(&self, candidate: bool) {
        self.inner
            .candidate
            .send_if_modified(|before| std::mem::replace(before, candidate) != candidate);
    }

    /// What `nodes/NAME/alive` says from now on; it must name the same installation.
    pub(crate) fn set_alive(&self, alive: Vec<u8>) {
        self.inner.alive.send_if_modified(|before| {
            let differs = *before != alive;
            *before = alive;
            differs
        });
    }

    /// Gives up leadership now, for good, and if this host is to `leave`, its node's lease too.
    /// Otherwise that lease is kept alive until the last handle is dropped, and runs out after.
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

/// Runs the leases on a thread and a runtime of their own.
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

/// Which installation an alive value is of.
fn installation_of(alive: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(alive).ok()?;
    Some(value.get("installation")?.as_str()?.to_owned())
}

/// Waits from 0.1 to 2 s, each time about twice as long, never two hosts alike.
#[derive(Debug)]
struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LAST: Duration = Duration::from_secs(2);

    fn new() -> Self {
        Self { next: Self::FIRST }
    }

    fn reset(&mut self) {
        self.next = Self::FIRST;
    }

    /// Half of the step is chance.
    fn step(&mut self) -> Duration {
        use std::hash::{BuildHasher, Hasher};
        let chance = std::hash::RandomState::new().build_hasher().finish() % 1000;
        let step = self.next;
        self.next = (step * 2).min(Self::LAST);
        step / 2 + (step / 2).mul_f64(f64::from(u16::try_from(chance).unwrap_or(0)) / 1000.0)
    }
}

/// Ends when the last handle is dropped.
async fn dropped(stage: &mut watch::Receiver<Stage>) {
    while stage.changed().await.is_ok() {}
}

/// A point on the monotonic clock as tokio's timers take it.
fn at(instant: Instant) -> tokio::time::Instant {
    tokio::time::Instant::from_std(instant)
}
