//! A listener with a limited number of connections, each of which ends by itself.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream, unix},
    time::{Sleep, sleep_until},
};

use super::{Admission, Connections, Life, Source};

/// A listener that knows the source of a connection.
pub(crate) trait Sourced: Listener {
    /// The source of a connection.
    fn source(io: &Self::Io, address: &Self::Addr) -> Source;
}

impl Sourced for TcpListener {
    fn source(_: &TcpStream, address: &SocketAddr) -> Source {
        Source::from(*address)
    }
}

impl Sourced for UnixListener {
    fn source(io: &UnixStream, _: &unix::SocketAddr) -> Source {
        io.peer_cred().map_or(Source::Unknown, |credentials| {
            Source::User(credentials.uid())
        })
    }
}

/// Wraps a listener. A connection beyond the limit is closed at once: in the kernel's queue it
/// would delay others.
pub(crate) struct Bounded<L> {
    listener: L,
    connections: Connections,
}

impl<L> Bounded<L> {
    /// Limits the connections of `listener` by `connections`.
    pub(crate) fn new(listener: L, connections: Connections) -> Self {
        Self {
            listener,
            connections,
        }
    }
}

impl<L: Sourced> Listener for Bounded<L> {
    type Io = LimitedConnection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            self.connections.room().await;
            let (io, address) = self.listener.accept().await;
            if let Some(admission) = self.connections.admit(L::source(&io, &address)) {
                return (LimitedConnection::new(io, admission), address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection with a limited life. It releases its place when it is dropped.
pub(crate) struct LimitedConnection<T> {
    // Declared first, so that the descriptor is closed before its place is released.
    io: T,
    admission: Admission,
    end: Pin<Box<Sleep>>,
}

impl<T> LimitedConnection<T> {
    pub(crate) fn new(io: T, admission: Admission) -> Self {
        let end = Box::pin(sleep_until(admission.life().deadline()));
        Self { io, admission, end }
    }

    pub(crate) fn get_ref(&self) -> &T {
        &self.io
    }

    /// The phase and the deadline of the connection.
    pub(crate) fn life(&self) -> &Arc<Life> {
        self.admission.life()
    }

    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let life = self.admission.life();
        if life.is_closed(context) {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "closed for another connection",
            ));
        }

        let deadline = life.deadline();
        if self.end.deadline() != deadline {
            self.end.as_mut().reset(deadline);
        }
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the connection took too long",
            )),
            Poll::Pending => Ok(()),
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for LimitedConnection<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.life().has_read();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for LimitedConnection<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let written = ready!(Pin::new(&mut self.io).poll_write(context, data))?;
        self.life().has_written();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// The connection that a request came by.
#[derive(Clone, Debug)]
pub(crate) struct Caller(pub(crate) Arc<Life>);

impl<L: Sourced> Connected<IncomingStream<'_, Bounded<L>>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Bounded<L>>) -> Self {
        Self(Arc::clone(stream.io().life()))
    }
}

impl AsRef<Caller> for Caller {
    fn as_ref(&self) -> &Caller {
        self
    }
}
