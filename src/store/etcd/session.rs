//! This host's place in the store: `nodes/NAME/alive`, kept by a lease.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use etcd_client::{Compare, CompareOp, KeyValue, PutOptions, Txn, TxnOp};
use reconciler::name::{Installation, NodeName};
use tokio::sync::{mpsc, watch};

use super::{
    Backoff, Hints, SessionConfig, Stage, StoreEvent, at,
    failure::CallFailure,
    installation_of,
    lease::{self, Lease},
    link::{CALL_TIMEOUT, Link},
};

const RENEWAL_TIMEOUT: Duration = Duration::from_secs(1);
const CONFLICT_RETRY: Duration = Duration::from_secs(1);
/// How many of its own leases a host remembers: a lease that etcd granted without an answer may
/// appear later.
const REMEMBERED: usize = 16;

/// The key that shows that a node lives, without the prefix.
pub(super) fn alive_key(node: &NodeName) -> String {
    format!("nodes/{node}/alive")
}

pub(super) struct Session {
    link: Link,
    key: String,
    config: SessionConfig,
    alive: watch::Receiver<Vec<u8>>,
    hints: Arc<Hints>,
    stage: watch::Receiver<Stage>,
    events: mpsc::UnboundedSender<StoreEvent>,
    /// Leases of this process.
    own: Vec<i64>,
    /// Whether this process has held the key: then another holder is not the process before it.
    held: bool,
    reported: bool,
}

/// How an attempt to hold the name ended.
enum End {
    /// The daemon gives the name up for good.
    Left,
    /// Another process holds the name.
    Taken,
    /// The name was held until its lease was lost.
    LostLease,
}

impl Session {
    pub(super) fn new(
        link: Link,
        key: String,
        config: SessionConfig,
        alive: watch::Receiver<Vec<u8>>,
        hints: Arc<Hints>,
        stage: watch::Receiver<Stage>,
        events: mpsc::UnboundedSender<StoreEvent>,
    ) -> Self {
        Self {
            link,
            key,
            config,
            alive,
            hints,
            stage,
            events,
            own: Vec::new(),
            held: false,
            reported: false,
        }
    }

    /// Holds the name until the daemon ends.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new();
        loop {
            let wait = match self.hold().await {
                Ok(End::Left) => return,
                Ok(End::Taken) => CONFLICT_RETRY,
                Ok(End::LostLease) => {
                    backoff.reset();
                    Duration::ZERO
                }
                Err(failure) => {
                    tracing::debug!("no lease for this host: {failure}");
                    backoff.step()
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = left(&mut self.stage) => return,
            }
        }
    }

    /// Claims the name and keeps it while the lease lasts.
    async fn hold(&mut self) -> Result<End, CallFailure> {
        if let Some(held) = self.read_key().await?
            && let Some(why) = self.stranger(&held)
        {
            return Ok(self.conflict(why));
        }
        let mut lease = Lease::grant(&self.link, self.config.node_ttl).await?;
        self.own.push(lease.id);
        if self.own.len() > REMEMBERED {
            self.own.remove(0);
        }
        if let Some(why) = self.claim(lease.id).await? {
            return Ok(self.conflict(why));
        }
        let mut backoff = Backoff::new();
        let mut due = lease.due();
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(at(due)) => match lease.renew(&self.link, RENEWAL_TIMEOUT).await {
                    Ok(()) => {
                        due = lease.due();
                        backoff.reset();
                    }
                    Err(CallFailure::LeaseGone) => return Ok(End::LostLease),
                    Err(failure) => {
                        tracing::debug!("this host's lease is not renewed: {failure}");
                        // The next end point is tried at once, after that more slowly: only etcd
                        // knows whether the lease is gone.
                        due = Instant::now() + backoff.step().min(CONFLICT_RETRY);
                    }
                },
                () = stale(&self.hints, &mut self.alive) => match self.claim(lease.id).await {
                    Ok(None) => {}
                    Ok(Some(why)) => return Ok(self.conflict(why)),
                    Err(CallFailure::LeaseGone) => return Ok(End::LostLease),
                    Err(failure) => {
                        tracing::debug!("this host's alive key is not put back: {failure}");
                        self.hints.alive_gone.notify_one();
                        tokio::time::sleep(backoff.step()).await;
                    }
                },
                () = left(&mut self.stage) => {
                    if *self.stage.borrow() == Stage::Leave
                        && let Err(failure) = lease::revoke(&self.link, lease.id).await
                    {
                        tracing::info!("this host's lease is left to run out: {failure}");
                    }
                    return Ok(End::Left);
                }
            }
        }
    }

    /// Reads who holds the name.
    async fn read_key(&self) -> Result<Option<KeyValue>, CallFailure> {
        let connection = self.link.connection().await?;
        let mut client = connection.client.clone();
        let mut answer = self
            .link
            .call(
                &connection,
                CALL_TIMEOUT,
                Box::pin(client.get(self.key.as_str(), None)),
            )
            .await?;
        Ok(answer.take_kvs().into_iter().next())
    }

    /// Puts the alive key under a lease. Returns the reason if another process holds the key.
    async fn claim(&mut self, lease: i64) -> Result<Option<String>, CallFailure> {
        loop {
            let alive = self.alive.borrow_and_update().clone();
            let before = self.read_key().await?;
            if let Some(before) = &before {
                if before.lease() == lease && before.value() == alive {
                    self.held = true;
                    if std::mem::take(&mut self.reported) {
                        let _ = self.events.send(StoreEvent::Named);
                    }
                    return Ok(None);
                }
                if let Some(why) = self.stranger(before) {
                    return Ok(Some(why));
                }
            }
            let revision = before.as_ref().map_or(0, KeyValue::mod_revision);
            let key = self.key.as_str();
            let put = TxnOp::put(key, alive, Some(PutOptions::new().with_lease(lease)));
            let unchanged = Compare::mod_revision(key, CompareOp::Equal, revision);
            let connection = self.link.connection().await?;
            let mut client = connection.client.clone();
            let txn = Box::pin(client.txn(Txn::new().when([unchanged]).and_then([put])));
            if !self
                .link
                .call(&connection, CALL_TIMEOUT, txn)
                .await?
                .succeeded()
            {
                // Another process changed the key in between, so it is read again. Each such round
                // needs another change, so the rounds end.
                continue;
            }
            self.held = true;
            if std::mem::take(&mut self.reported) {
                let _ = self.events.send(StoreEvent::Named);
            }
            let old = before.map_or(0, |before| before.lease());
            if old != 0
                && old != lease
                && let Err(failure) = lease::revoke(&self.link, old).await
            {
                tracing::debug!("this host's lease of before is left to run out: {failure}");
            }
            return Ok(None);
        }
    }

    /// Why the holder of the name is not this host; `None` if it is.
    fn stranger(&self, held: &KeyValue) -> Option<String> {
        if self.own.contains(&held.lease()) {
            return None;
        }
        let node = &self.config.node;
        match installation_of(held.value()) {
            Some(installation) if installation != self.config.installation => {
                Some(name_taken(node, &installation, &self.config.installation))
            }
            None => Some(format!(
                "the key {} is not of a host of this cluster: check the prefix, or delete the key",
                self.key
            )),
            // This process held the key and another one took it: not a restart of this host, but a
            // copy of its disk.
            Some(_) if self.held => Some(format!(
                "another machine with this host's installation ({}) uses the name {node} now: one is a copy of the \
                 other; stop one, and remove its data directory before it starts under another name",
                self.config.installation
            )),
            Some(_) => None,
        }
    }

    fn conflict(&mut self, why: String) -> End {
        if !std::mem::replace(&mut self.reported, true) {
            tracing::error!("{why}");
            let _ = self.events.send(StoreEvent::Conflict { why });
        }
        End::Taken
    }
}

/// The message that another host has this host's name.
pub(crate) fn name_taken(node: &NodeName, holder: &Installation, own: &Installation) -> String {
    format!(
        "another installation ({holder}; this one is {own}) holds the name {node} in the cluster: give one of the two \
         hosts another `name` in [node], or stop the other one"
    )
}

/// Returns when the alive key is gone, or must have another value.
async fn stale(hints: &Hints, alive: &mut watch::Receiver<Vec<u8>>) {
    tokio::select! {
        () = hints.alive_gone.notified() => {}
        Ok(()) = alive.changed() => {}
    }
}

/// Returns when the name must be given up, or the last handle was dropped.
async fn left(stage: &mut watch::Receiver<Stage>) {
    let _ = stage.wait_for(|stage| *stage == Stage::Leave).await;
}
