//! The connections of a listener: limited in total and for each source, so that no source can shut
//! out another.
//!
//! If there is no room, the least valuable connection is closed: of a source that is at its own
//! limit, or of the source that has most, the oldest connection that has proven nothing, then the
//! one that has been idle for longest. So the connections of a silent flood are closed for the next
//! one, also from the same address.

pub(crate) mod life;
pub(crate) mod listen;
pub(crate) mod request;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::{sync::Notify, time::Instant};

pub(crate) use self::{
    life::{Life, Times},
    listen::{Bounded, Caller, LimitedConnection},
};

/// The shortest time between two warnings that a listener is full.
const WARNINGS: Duration = Duration::from_secs(60);
/// How long the next connection waits for closed ones to release their descriptors.
const CLOSING_TIME: Duration = Duration::from_secs(1);

/// The source of a connection, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// A host or a pod. For IPv6 the first 64 bits, since one host can use all addresses with them.
    Address(IpAddr),
    /// A user of this host.
    User(u32),
    /// The kernel does not report the source.
    Unknown,
}

impl From<SocketAddr> for Source {
    fn from(address: SocketAddr) -> Self {
        match address.ip().to_canonical() {
            IpAddr::V6(ip) => {
                let network = ip.to_bits() & (u128::MAX << 64);
                Self::Address(IpAddr::V6(Ipv6Addr::from_bits(network)))
            }
            ip => Self::Address(ip),
        }
    }
}

/// The limits of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// All connections, including closed ones that have not released their descriptor.
    pub(crate) total: usize,
    /// Connections of one source.
    pub(crate) per_source: usize,
    /// The time limits of a connection.
    pub(crate) times: Times,
}

impl Bounds {
    /// Closed connections that still have a descriptor.
    fn closing(&self) -> usize {
        (self.total / 8).max(1)
    }

    /// Connections that are served.
    fn open(&self) -> usize {
        self.total.saturating_sub(self.closing()).max(1)
    }
}

/// The connections of one listener, shared by clones.
#[derive(Clone, Debug)]
pub(crate) struct Connections {
    table: Arc<Table>,
}

#[derive(Debug)]
struct Table {
    listener: &'static str,
    bounds: Bounds,
    state: Mutex<OpenConnections>,
    given_back: Notify,
}

#[derive(Debug, Default)]
struct OpenConnections {
    /// In the order of their arrival.
    open: BTreeMap<u64, Arc<Life>>,
    closing: usize,
    next: u64,
    warned: Option<Instant>,
}

/// A place among the connections; released when dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    table: Arc<Table>,
    number: u64,
    life: Arc<Life>,
}

impl Connections {
    /// No connections; `listener` is the name in log messages.
    pub(crate) fn new(listener: &'static str, bounds: Bounds) -> Self {
        let table = Table {
            listener,
            bounds,
            state: Mutex::default(),
            given_back: Notify::new(),
        };
        Self {
            table: Arc::new(table),
        }
    }

    /// Waits for a short time until closed connections have released descriptors.
    pub(crate) async fn room(&self) {
        let table = &self.table;
        while table.lock().closing >= table.bounds.closing() {
            if tokio::time::timeout(CLOSING_TIME, table.given_back.notified())
                .await
                .is_err()
            {
                return;
            }
        }
    }

    /// Admits a new connection; `None` if it must be refused.
    pub(crate) fn admit(&self, source: Source) -> Option<Admission> {
        let table = &self.table;
        let mut state = table.lock();
        let of_source = state
            .open
            .values()
            .filter(|life| life.source() == source)
            .count();
        let at_its_bound = of_source >= table.bounds.per_source;
        if at_its_bound || state.open.len() >= table.bounds.open() {
            // A closed connection keeps its descriptor until its task has ended.
            let victim = if state.closing >= table.bounds.closing() {
                None
            } else if at_its_bound {
                state.of_own(source)
            } else {
                state.of_most(source, of_source)
            };
            state.warn(table.listener, source, victim.is_some());
            state.close(victim?);
        }

        let number = state.next;
        state.next += 1;
        let life = Arc::new(Life::new(source, table.bounds.times));
        state.open.insert(number, Arc::clone(&life));
        Some(Admission {
            table: Arc::clone(table),
            number,
            life,
        })
    }

    /// The number of open connections.
    #[cfg(test)]
    pub(crate) fn open(&self) -> usize {
        self.table.lock().open.len()
    }
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, OpenConnections> {
        self.state.lock()
    }
}

impl OpenConnections {
    /// The connection of a source that is closed for the source's next one: never one with a
    /// request under way.
    fn of_own(&self, source: Source) -> Option<u64> {
        let own = self.open.iter().filter(|(_, life)| life.source() == source);
        let idle = own.filter(|(_, life)| !life.is_busy());
        idle.min_by_key(|(number, life)| (life.is_proven(), life.since(), **number))
            .map(|(number, _)| *number)
    }

    /// The connection that is closed for one of a source with `of_source` connections, if the
    /// listener is full.
    fn of_most(&self, source: Source, of_source: usize) -> Option<u64> {
        let mut counts = BTreeMap::new();
        for life in self.open.values() {
            *counts.entry(life.source()).or_insert(0_usize) += 1;
        }
        let (largest, most) = counts.into_iter().max_by_key(|(_, count)| *count)?;

        // With equal counts the two sources would close each other's connections without end.
        if most > of_source + 1 {
            let newest_request = || {
                let of_largest = self
                    .open
                    .iter()
                    .filter(|(_, life)| life.source() == largest);
                of_largest.map(|(number, _)| *number).next_back()
            };
            return self.of_own(largest).or_else(newest_request);
        }

        // No source has more than its share: many silent sources must not shut out one that sends
        // requests.
        let unproven = self.open.iter().filter(|(_, life)| !life.is_proven());
        let oldest = unproven
            .min_by_key(|(number, life)| (life.since(), **number))
            .map(|(number, _)| *number);
        oldest.or_else(|| self.of_own(source))
    }

    fn close(&mut self, number: u64) {
        if let Some(life) = self.open.remove(&number) {
            self.closing += 1;
            life.close();
        }
    }

    fn warn(&mut self, listener: &str, source: Source, closed: bool) {
        let now = Instant::now();
        if self.warned.is_some_and(|warned| now < warned + WARNINGS) {
            return;
        }
        self.warned = Some(now);

        let open = self.open.len();
        let done = if closed {
            "an older one is closed for a new one"
        } else {
            "a new one is refused"
        };
        tracing::warn!(
            listener,
            ?source,
            open,
            "the listener has reached its limit of connections: {done}"
        );
    }
}

impl Admission {
    /// The phase and the deadline of the connection.
    pub(crate) fn life(&self) -> &Arc<Life> {
        &self.life
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut state = self.table.lock();
        if state.open.remove(&self.number).is_none() {
            state.closing = state.closing.saturating_sub(1);
        }
        drop(state);
        self.table.given_back.notify_one();
    }
}

#[cfg(test)]
mod tests;
