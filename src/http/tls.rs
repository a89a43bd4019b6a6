//! TLS for the listeners of kubectl and of the cluster's other hosts.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::connections::{Bounded, Caller, LimitedConnection};

/// The time limit of a handshake; after it the client is disconnected.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The most connections with a complete handshake that wait to be served.
const READY: usize = 32;

/// A connection behind TLS.
pub(crate) type TlsConnection = TlsStream<LimitedConnection<TcpStream>>;

/// Accepts connections whose handshake is complete. The handshakes of all connections run
/// concurrently, so that a silent client delays no other.
pub(crate) struct TlsListener {
    ready: mpsc::Receiver<(TlsConnection, SocketAddr)>,
    address: io::Result<SocketAddr>,
    accepting: JoinHandle<()>,
}

impl TlsListener {
    /// Starts the task that accepts connections and makes their handshakes.
    pub(crate) fn new(listener: Bounded<TcpListener>, mut config: rustls::ServerConfig) -> Self {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let address = listener.local_addr();
        let (sender, ready) = mpsc::channel(READY);
        let accepting = tokio::spawn(accept_all(listener, acceptor, sender));
        Self {
            ready,
            address,
            accepting,
        }
    }
}

impl Drop for TlsListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept_all(
    mut listener: Bounded<TcpListener>,
    acceptor: TlsAcceptor,
    sender: mpsc::Sender<(TlsConnection, SocketAddr)>,
) {
    loop {
        let (stream, address) = listener.accept().await;
        let (acceptor, sender) = (acceptor.clone(), sender.clone());
        tokio::spawn(async move {
            if let Ok(Ok(stream)) = timeout(HANDSHAKE, acceptor.accept(stream)).await {
                // The time limit for a request's head begins now.
                stream.get_ref().0.life().begin();
                // Sending fails only if the listener was dropped.
                sender.send((stream, address)).await.unwrap_or_default();
            }
        });
    }
}

impl Listener for TlsListener {
    type Io = TlsConnection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            // The accepting task ends only with this listener.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.address
            .as_ref()
            .copied()
            .map_err(|error| io::Error::from(error.kind()))
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        Self(Arc::clone(stream.io().get_ref().0.life()))
    }
}
