//! A listener that never holds more than so many connections, none of them longer than so long.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};

/// Wraps a listener. A connection that is over the limit waits in the kernel's queue.
pub(crate) struct Bounded<L> {
    listener: L,
    slots: Arc<Semaphore>,
    lifetime: Duration,
}

impl<L> Bounded<L> {
    /// At most `connections`, each for at most `lifetime`.
    pub(crate) fn new(listener: L, connections: usize, lifetime: Duration) -> Self {
        Self { listener, slots: Arc::new(Semaphore::new(connections)), lifetime }
    }
}

impl<L: Listener> Listener for Bounded<L> {
    type Io = Connection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The semaphore is never closed; if it were, the limit would be gone, not the service.
        let slot = self.slots.clone().acquire_owned().await.ok();
        let (io, address) = self.listener.accept().await;
        (Connection::new(io, slot, self.lifetime), address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection with an end, which gives its slot back when it is dropped.
pub(crate) struct Connection<T> {
    io: T,
    _slot: Option<OwnedSemaphorePermit>,
    end: Pin<Box<Sleep>>,
}

impl<T> Connection<T> {
    /// Lasts so long at most, and holds the slot meanwhile.
    pub(crate) fn new(io: T, slot: Option<OwnedSemaphorePermit>, lifetime: Duration) -> Self {
        Self { io, _slot: slot, end: Box::pin(sleep(lifetime)) }
    }

    /// What is inside.
    pub(crate) fn get_ref(&self) -> &T {
        &self.io
    }

    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "the connection has lasted too long"))
            }
            Poll::Pending => Ok(()),
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Connection<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Connection<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.io).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
