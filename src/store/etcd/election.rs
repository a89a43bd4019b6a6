//! Leadership, by etcd's own election.
//!
//! Each term has its own lease. A campaign that broke off is never continued under its lease: etcd
//! ends that campaign late and deletes its key, which would then be the key of the second attempt.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, watch};

use super::{
    Backoff, Fence, Hints, SessionConfig, Stage, StoreEvent, at,
    failure::CallFailure,
    lease::{self, Lease},
    link::Link,
};

/// The time limit of one renewal: a second end point must be tried before the lease runs out.
const RENEWAL_TIMEOUT: Duration = Duration::from_millis(700);
const RETRY: Duration = Duration::from_millis(50);

pub(super) struct Election {
    link: Link,
    /// `PREFIX/election`; etcd appends a slash and the lease.
    name: String,
    node: String,
    ttl: Duration,
    stage: watch::Receiver<Stage>,
    candidate: watch::Receiver<bool>,
    gone: watch::Receiver<String>,
    events: mpsc::UnboundedSender<StoreEvent>,
    /// The lease of the last term: its key blocks the other candidates until the lease is revoked.
    last: Option<i64>,
}

impl Election {
    pub(super) fn new(
        link: Link,
        prefix: &str,
        session: &SessionConfig,
        hints: Arc<Hints>,
        stage: watch::Receiver<Stage>,
        candidate: watch::Receiver<bool>,
        events: mpsc::UnboundedSender<StoreEvent>,
    ) -> Self {
        Self {
            link,
            name: format!("{prefix}election"),
            node: session.node.as_str().to_owned(),
            ttl: session.leader_ttl,
            stage,
            candidate,
            gone: hints.election_gone.subscribe(),
            events,
            last: None,
        }
    }

    /// Stands for election, one term after the other, until the daemon ends.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new();
        loop {
            if let Some(last) = self.last.take()
                && let Err(failure) = lease::revoke(&self.link, last).await
            {
                tracing::debug!("the lease of the last term is left to run out: {failure}");
            }
            if !self.stands().await {
                return;
            }
            match self.term().await {
                Ok(()) => backoff.reset(),
                Err(failure) => {
                    tracing::debug!("no part in the election: {failure}");
                    let wait = tokio::time::sleep(backoff.step());
                    tokio::select! {
                        () = wait => {}
                        () = withdrawn(&mut self.stage, &mut self.candidate) => {}
                    }
                }
            }
        }
    }

    /// Waits until this host is to stand for election; false when the daemon ends.
    async fn stands(&mut self) -> bool {
        loop {
            if *self.stage.borrow_and_update() != Stage::Run || self.stage.has_changed().is_err() {
                return false;
            }
            if *self.candidate.borrow_and_update() {
                return true;
            }
            tokio::select! {
                changed = self.candidate.changed() => if changed.is_err() { return false },
                changed = self.stage.changed() => if changed.is_err() { return false },
            }
        }
    }

    /// One term: from the campaign to its end.
    async fn term(&mut self) -> Result<(), CallFailure> {
        let mut lease = Lease::grant(&self.link, self.ttl).await?;
        self.last = Some(lease.id);
        let Some(fence) = self.campaign(&mut lease).await? else {
            return Ok(());
        };
        tracing::info!("elected as the leader, revision {}", fence.revision);
        let _ = self.events.send(StoreEvent::Elected(fence.clone()));
        let why = self.reign(&mut lease, &fence).await;
        lease.holds.pass();
        tracing::info!("no longer the leader: {why}");
        let _ = self.events.send(StoreEvent::Demoted { why });
        Ok(())
    }

    /// Waits to be elected; `None` if this host no longer stands for election.
    async fn campaign(&mut self, lease: &mut Lease) -> Result<Option<Fence>, CallFailure> {
        let connection = self.link.connection().await?;
        let mut client = connection.client.clone();
        // The lease is the time-out of the campaign: when the lease cannot be renewed, the campaign
        // is given up.
        let call = Box::pin(client.campaign(self.name.as_str(), self.node.as_str(), lease.id));
        let call = self.link.call(&connection, Duration::from_secs(3600), call);
        tokio::pin!(call);
        let mut won = loop {
            tokio::select! {
                won = &mut call => break won?,
                () = tokio::time::sleep_until(at(lease.due())) => lease.renew(&self.link, RENEWAL_TIMEOUT).await?,
                () = withdrawn(&mut self.stage, &mut self.candidate) => return Ok(None),
            }
        };
        let leader = won.take_leader().ok_or_else(|| no_key(&self.name))?;
        let key = leader.key_str().map_err(|_| no_key(&self.name))?.to_owned();
        if leader.rev() <= 0 || lease.holds.passed() {
            return Err(no_key(&self.name));
        }
        Ok(Some(Fence {
            key,
            revision: leader.rev(),
            until: lease.holds.clone(),
        }))
    }

    /// Renews the lease of a leader; returns why the term has ended.
    async fn reign(&mut self, lease: &mut Lease, fence: &Fence) -> String {
        let mut due = lease.due();
        let mut last = None;
        loop {
            let wake = due.min(lease.holds.at());
            tokio::select! {
                () = tokio::time::sleep_until(at(wake)) => {}
                () = withdrawn(&mut self.stage, &mut self.candidate) => {
                    return "this host does not stand for election any more".to_owned();
                }
                _ = self.gone.wait_for(|gone| *gone == fence.key) => {
                    return "its election key was deleted, or another leader is elected".to_owned();
                }
            }
            let left = lease.holds.at().saturating_duration_since(Instant::now());
            if left.is_zero() {
                let why = last.unwrap_or_else(|| "this host itself was held up".to_owned());
                return format!("the lease could not be renewed in time: {why}");
            }
            let renewal = lease.renew(&self.link, RENEWAL_TIMEOUT.min(left));
            match tokio::time::timeout(left, renewal).await {
                Ok(Ok(())) => {
                    due = lease.due();
                    last = None;
                }
                Err(_) => {}
                Ok(Err(CallFailure::LeaseGone)) => return CallFailure::LeaseGone.to_string(),
                Ok(Err(failure)) => {
                    last = Some(failure.to_string());
                    due = Instant::now() + RETRY;
                }
            }
        }
    }
}

/// Returns when this host is to stop standing for election, for a while or for good.
async fn withdrawn(stage: &mut watch::Receiver<Stage>, candidate: &mut watch::Receiver<bool>) {
    tokio::select! {
        _ = stage.wait_for(|stage| *stage != Stage::Run) => {}
        _ = candidate.wait_for(|candidate| !candidate) => {}
    }
}

fn no_key(name: &str) -> CallFailure {
    CallFailure::Unreachable(format!(
        "the election {name} was won without a key, or too late"
    ))
}
