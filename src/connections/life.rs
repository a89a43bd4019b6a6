//! The life of one connection: whether it has proven itself, whether a request is under way, and
//! until when it may continue.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::Source;

/// The time limits of a connection's phases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    /// From the start of the connection, or the first byte of a request, to the end of that
    /// request's head.
    pub(crate) head: Duration,
    /// From the start of the connection until it has proven itself.
    pub(crate) unproven: Duration,
    /// From the end of an answer to the first byte of the next request.
    pub(crate) idle: Duration,
    /// One request, with its answer.
    pub(crate) request: Duration,
}

/// The phase of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The connection waits for the head of a request, or for the handshake.
    Head,
    /// A request is under way.
    Request,
    /// The last request was answered.
    Idle,
}

/// One connection, as its listener, its stream and its requests use it.
#[derive(Debug)]
pub(crate) struct Life {
    source: Source,
    times: Times,
    state: Mutex<LifeState>,
    closed: AtomicBool,
    waker: AtomicWaker,
}

#[derive(Clone, Copy, Debug)]
struct LifeState {
    begun: Instant,
    proven: bool,
    phase: Phase,
    since: Instant,
}

/// A request that is under way; the connection is idle when this is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Life>);

impl Life {
    pub(super) fn new(source: Source, times: Times) -> Self {
        let now = Instant::now();
        let state = LifeState {
            begun: now,
            proven: false,
            phase: Phase::Head,
            since: now,
        };
        Self {
            source,
            times,
            state: Mutex::new(state),
            closed: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// Starts the time limits again, after a handshake that has a limit of its own.
    pub(crate) fn begin(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        (state.begun, state.since) = (now, now);
    }

    /// The client has presented what this listener requires: a token, a signature, a certificate, a
    /// query.
    pub(crate) fn prove(&self) {
        self.lock().proven = true;
    }

    /// A request's head is complete.
    pub(crate) fn start_request(self: &Arc<Self>) -> UnderWay {
        self.enter(Phase::Request);
        UnderWay(Arc::clone(self))
    }

    /// Returns when the connection was closed for another one.
    pub(crate) async fn closed(&self) {
        poll_fn(|context| {
            if self.is_closed(context) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    pub(super) fn is_closed(&self, context: &Context<'_>) -> bool {
        self.waker.register(context.waker());
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// The client has sent something.
    pub(super) fn has_read(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Idle {
            (state.phase, state.since) = (Phase::Head, Instant::now());
        }
    }

    /// The client has received a part of an answer that is complete but not all sent.
    pub(super) fn has_written(&self) {
        let mut state = self.lock();
        // While a request is under way its own limit counts.
        if state.phase == Phase::Idle {
            state.since = Instant::now();
        }
    }

    /// When the connection ends if nothing is received or sent until then.
    pub(super) fn deadline(&self) -> Instant {
        let LifeState {
            begun,
            proven,
            phase,
            since,
        } = *self.lock();

        let times = &self.times;
        let end = match phase {
            Phase::Head => since + times.head,
            Phase::Request => since + times.request,
            Phase::Idle => since + times.idle,
        };
        if proven {
            end
        } else {
            end.min(begun + times.unproven)
        }
    }

    pub(super) fn source(&self) -> Source {
        self.source
    }

    pub(super) fn since(&self) -> Instant {
        self.lock().since
    }

    pub(super) fn is_proven(&self) -> bool {
        self.lock().proven
    }

    /// Whether a request is under way of a client that has proven itself.
    pub(super) fn is_busy(&self) -> bool {
        let state = self.lock();
        state.proven && state.phase == Phase::Request
    }

    fn enter(&self, phase: Phase) {
        let mut state = self.lock();
        (state.phase, state.since) = (phase, Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, LifeState> {
        self.state.lock()
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
    }
}
