//! The content of the store: a list at one revision, then every change since.
//!
//! A watch that broke off is resumed after the last published change, if etcd's history contains
//! that change: a store that was restored from a backup may have come to the same revision by other
//! changes. If the history differs, or was compacted away, everything is listed again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use etcd_client::{
    EventType, GetOptions, KeyValue, ResponseHeader, WatchOptions, WatchResponse, WatchStream,
};
use tokio::sync::{mpsc, watch};

use super::{
    Backoff, Hints, KeyChange, Stage, StoreEvent, StoredValue, dropped,
    failure::CallFailure,
    link::{CALL_TIMEOUT, EtcdConnection, Link, Preferred},
    published::PublishedKeys,
};

/// The number of keys in a page: an answer stays small beside the limit of a message.
const PAGE: i64 = 200;
/// Longer than for other calls: a page is large where its values are.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// etcd takes requests of 1.5 MB, but answers of any size.
const MESSAGE_LIMIT: usize = 256 * 1024 * 1024;
/// An outage is reported after this time at the latest, however many end points are left to try.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct Replica {
    link: Link,
    prefix: String,
    alive_key: String,
    hints: Arc<Hints>,
    relist: watch::Receiver<u64>,
    preferred: watch::Receiver<Preferred>,
    stage: watch::Receiver<Stage>,
    events: mpsc::UnboundedSender<StoreEvent>,
    backoff: Backoff,
    outage: Option<Outage>,
    published: Option<PublishedKeys>,
}

/// The state while the store does not answer.
struct Outage {
    since: Instant,
    /// The number of failed attempts.
    failed: usize,
    reported: bool,
}

/// All keys and values at one revision.
struct Listing {
    etcd_cluster: u64,
    revision: i64,
    pairs: Vec<StoredValue>,
}

impl Replica {
    pub(super) fn new(
        link: Link,
        prefix: String,
        alive_key: String,
        hints: Arc<Hints>,
        relist: watch::Receiver<u64>,
        stage: watch::Receiver<Stage>,
        events: mpsc::UnboundedSender<StoreEvent>,
    ) -> Self {
        let preferred = link.endpoints.subscribe();
        Self {
            link,
            prefix,
            alive_key,
            hints,
            relist,
            preferred,
            stage,
            events,
            backoff: Backoff::new(),
            outage: None,
            published: None,
        }
    }

    /// Lists and watches until the last handle is dropped.
    pub(super) async fn run(mut self) {
        let mut stage = self.stage.clone();
        tokio::select! {
            () = self.replicate() => {}
            () = dropped(&mut stage) => {}
        }
    }

    async fn replicate(&mut self) {
        loop {
            match self.follow().await {
                Ok(()) => {}
                Err(CallFailure::Compacted) => {
                    tracing::info!("etcd was compacted: listing everything again");
                    self.published = None;
                }
                Err(failure) => {
                    self.failed(&failure);
                    // Every end point is tried once before the first pause.
                    if self
                        .outage
                        .as_ref()
                        .is_some_and(|outage| outage.failed < self.link.endpoints.count())
                    {
                        continue;
                    }
                }
            }
            // A pause also follows an end that is no failure, which must not cause a busy loop.
            if self.outage.is_some() {
                tokio::time::sleep(self.backoff.step()).await;
            }
        }
    }

    fn failed(&mut self, failure: &CallFailure) {
        let outage = self.outage.get_or_insert_with(|| Outage {
            since: Instant::now(),
            failed: 0,
            reported: false,
        });
        outage.failed += 1;
        let waited =
            outage.failed >= self.link.endpoints.count() || outage.since.elapsed() >= PATIENCE;
        if waited && !std::mem::replace(&mut outage.reported, true) {
            let why = failure.to_string();
            tracing::info!("the store is lost: {why}");
            let _ = self.events.send(StoreEvent::Lost { why });
        }
    }

    /// Watches the store, from the last published change or from a new list. `Ok` if the watch must
    /// be started again without a failure.
    async fn follow(&mut self) -> Result<(), CallFailure> {
        self.preferred.borrow_and_update();
        let asked = *self.relist.borrow_and_update();
        let connection = self.link.connection().await?;
        self.probe(&connection).await?;
        let (mut stream, etcd_cluster) = match self.resume(&connection, asked).await? {
            Some(resumed) => resumed,
            None => {
                let listing = self.list(&connection).await?;
                let (stream, _) = self.watch(&connection, listing.revision + 1).await?;
                let etcd_cluster = listing.etcd_cluster;
                self.listed(listing, asked);
                (stream, etcd_cluster)
            }
        };
        loop {
            tokio::select! {
                message = stream.message() => {
                    let message = self.message(&connection, message).await?;
                    let changes = self.changes(&connection, etcd_cluster, &message)?;
                    self.changed(changes);
                }
                _ = self.relist.changed() => return Ok(()),
                _ = self.preferred.changed() => {
                    if self.preferred.borrow_and_update().index != connection.index {
                        return Ok(());
                    }
                    self.probe(&connection).await?;
                }
            }
        }
    }

    /// Resumes a watch after the last published change; `None` if everything must be listed.
    async fn resume(
        &mut self,
        connection: &EtcdConnection,
        asked: u64,
    ) -> Result<Option<(WatchStream, u64)>, CallFailure> {
        let Some(published) = self
            .published
            .as_ref()
            .filter(|published| published.is_of(asked))
        else {
            return Ok(None);
        };
        let Some((from, to)) = published.span() else {
            return Ok(None);
        };
        let etcd_cluster = published.etcd_cluster();
        let (mut stream, begun) = self.watch(connection, from).await?;
        let reaches = |header: &ResponseHeader| {
            header.cluster_id() == etcd_cluster && header.revision() >= to
        };
        if !begun.header().is_some_and(reaches) {
            return Ok(None);
        }
        // A history that came to this revision by other changes may have no change here, so no
        // message.
        let Ok(first) = tokio::time::timeout(PAGE_TIMEOUT, stream.message()).await else {
            return Ok(None);
        };
        let first = self.message(connection, first).await?;
        let Some(new) = published.go_on(self.changes(connection, etcd_cluster, &first)?) else {
            tracing::info!(
                "etcd's history is not the one that was watched: listing everything again"
            );
            return Ok(None);
        };
        if self.is_back(first.header().map_or(0, ResponseHeader::revision)) {
            let _ = self.events.send(StoreEvent::Resumed);
        }
        self.changed(new);
        Ok(Some((stream, etcd_cluster)))
    }

    async fn message(
        &self,
        connection: &EtcdConnection,
        message: Result<Option<WatchResponse>, etcd_client::Error>,
    ) -> Result<WatchResponse, CallFailure> {
        let message = self
            .link
            .call(
                connection,
                CALL_TIMEOUT,
                Box::pin(std::future::ready(message)),
            )
            .await?;
        if message.is_none() {
            self.link.give_up(connection).await;
        }
        message.ok_or_else(|| CallFailure::Unreachable("etcd ended the watch".to_owned()))
    }

    /// Whether etcd answers and has quorum.
    async fn probe(&self, connection: &EtcdConnection) -> Result<(), CallFailure> {
        let options = GetOptions::new()
            .with_prefix()
            .with_limit(1)
            .with_keys_only();
        let mut client = connection.client.clone();
        let probe = Box::pin(client.get(self.prefix.as_str(), Some(options)));
        self.link
            .call(connection, CALL_TIMEOUT, probe)
            .await
            .map(|_| ())
    }

    /// Lists everything, in pages at the revision of the first page.
    async fn list(&self, connection: &EtcdConnection) -> Result<Listing, CallFailure> {
        let mut client = connection
            .client
            .kv_client()
            .max_decoding_message_size(MESSAGE_LIMIT);
        let end = range_end(&self.prefix);
        let mut start = self.prefix.clone().into_bytes();
        let mut listing = Listing {
            etcd_cluster: 0,
            revision: 0,
            pairs: Vec::new(),
        };
        let (mut expected, mut seen) = (None, 0);
        loop {
            let options = GetOptions::new()
                .with_range(end.clone())
                .with_limit(PAGE)
                .with_revision(listing.revision);
            let get = Box::pin(client.get(start.clone(), Some(options)));
            let mut page = self.link.call(connection, PAGE_TIMEOUT, get).await?;
            let incomplete = || {
                CallFailure::Unreachable(
                    "etcd gave an incomplete list; it is asked again".to_owned(),
                )
            };
            let header = page.header().ok_or_else(incomplete)?;
            if listing.revision == 0 {
                listing.etcd_cluster = header.cluster_id();
                listing.revision = header.revision();
            } else if listing.etcd_cluster != header.cluster_id() {
                return Err(incomplete());
            }
            if listing.revision <= 0 {
                return Err(incomplete());
            }
            let expected = *expected.get_or_insert(page.count());
            let more = page.more();
            let pairs = page.take_kvs();
            seen += i64::try_from(pairs.len()).unwrap_or(i64::MAX);
            match pairs.last() {
                Some(last) => start = [last.key(), b"\0"].concat(),
                None if more => return Err(incomplete()),
                None => {}
            }
            listing
                .pairs
                .extend(pairs.into_iter().filter_map(|pair| self.pair(pair)));
            if !more {
                return if seen == expected {
                    Ok(listing)
                } else {
                    Err(incomplete())
                };
            }
        }
    }

    /// Starts a watch, and waits until etcd has confirmed it.
    async fn watch(
        &self,
        connection: &EtcdConnection,
        revision: i64,
    ) -> Result<(WatchStream, WatchResponse), CallFailure> {
        let mut client = connection
            .client
            .watch_client()
            .max_decoding_message_size(MESSAGE_LIMIT);
        let options = WatchOptions::new()
            .with_prefix()
            .with_start_revision(revision);
        let begun = Box::pin(async {
            let mut stream = client.watch(self.prefix.as_str(), Some(options)).await?;
            let first = stream.message().await?;
            Ok((stream, first))
        });
        let (stream, first) = self.link.call(connection, CALL_TIMEOUT, begun).await?;
        match first {
            Some(first) if first.canceled() => Err(self.canceled(connection, &first)),
            Some(first) if first.created() && first.events().is_empty() => Ok((stream, first)),
            _ => {
                self.link.give_up(connection).await;
                Err(CallFailure::Unreachable(
                    "etcd did not begin to watch".to_owned(),
                ))
            }
        }
    }

    fn canceled(&self, connection: &EtcdConnection, message: &WatchResponse) -> CallFailure {
        match message.compact_revision() {
            0 => self
                .link
                .endpoints
                .refusal(connection, message.cancel_reason()),
            _ => CallFailure::Compacted,
        }
    }

    /// Notes that the store answers; true if an outage had been reported.
    fn is_back(&mut self, revision: i64) -> bool {
        self.backoff.reset();
        let was_lost = self.outage.take().is_some_and(|outage| outage.reported);
        if was_lost {
            tracing::info!("the store is back, at revision {revision}");
        }
        was_lost
    }

    fn listed(&mut self, listing: Listing, asked: u64) {
        self.is_back(listing.revision);
        // A list does not show what was deleted before it: a watch is resumed only after a change.
        self.published = Some(PublishedKeys::new(listing.etcd_cluster, asked));
        if !listing.pairs.iter().any(|pair| pair.key == self.alive_key) {
            self.hints.alive_gone.notify_one();
        }
        let Listing {
            etcd_cluster,
            revision,
            pairs,
        } = listing;
        let _ = self.events.send(StoreEvent::Listed {
            etcd_cluster,
            revision,
            asked,
            pairs,
        });
    }

    /// The changes of a message, in the order of revisions.
    fn changes(
        &self,
        connection: &EtcdConnection,
        etcd_cluster: u64,
        message: &WatchResponse,
    ) -> Result<Vec<KeyChange>, CallFailure> {
        if message.canceled() {
            return Err(self.canceled(connection, message));
        }
        if message
            .header()
            .is_some_and(|header| header.cluster_id() != etcd_cluster)
        {
            return Err(CallFailure::Unreachable(
                "another etcd answers at the same address".to_owned(),
            ));
        }
        let mut changes = Vec::with_capacity(message.events().len());
        for event in message.events() {
            let Some(pair) = event.kv().and_then(|kv| self.pair(kv.clone())) else {
                continue;
            };
            changes.push(match event.event_type() {
                EventType::Put => KeyChange::Put(pair),
                EventType::Delete => {
                    self.hint(&pair.key);
                    KeyChange::Delete {
                        key: pair.key,
                        revision: pair.revision,
                    }
                }
            });
        }
        Ok(changes)
    }

    fn changed(&mut self, changes: Vec<KeyChange>) {
        // A message's header may be ahead of its changes while the watch catches up.
        let Some(revision) = changes.last().map(KeyChange::revision) else {
            return;
        };
        if let Some(published) = &mut self.published {
            published.publish(&changes);
        }
        let _ = self.events.send(StoreEvent::Changed { revision, changes });
    }

    fn hint(&self, deleted: &str) {
        if deleted == self.alive_key {
            self.hints.alive_gone.notify_one();
        } else if deleted.starts_with("election/") {
            self.hints
                .election_gone
                .send_replace(format!("{}{deleted}", self.prefix));
        }
    }

    fn pair(&self, kv: KeyValue) -> Option<StoredValue> {
        let revision = kv.mod_revision();
        let (key, value) = kv.into_key_value();
        let key = String::from_utf8(key)
            .ok()
            .and_then(|key| Some(key.strip_prefix(&self.prefix)?.to_owned()));
        if key.is_none() {
            tracing::warn!(
                "a key under {} in etcd is not text: it is not of this cluster",
                self.prefix
            );
        }
        Some(StoredValue {
            key: key?,
            value,
            revision,
        })
    }
}

impl KeyChange {
    pub(super) fn key(&self) -> &str {
        match self {
            Self::Put(pair) => &pair.key,
            Self::Delete { key, .. } => key,
        }
    }

    pub(super) fn revision(&self) -> i64 {
        match self {
            Self::Put(pair) => pair.revision,
            Self::Delete { revision, .. } => *revision,
        }
    }
}

/// The first key after all keys with a prefix; the prefix ends with a slash.
fn range_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.trim_end_matches('/').as_bytes().to_vec();
    end.push(b'/' + 1);
    end
}
