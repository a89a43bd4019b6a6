//! Connections of other hosts, bounded. Who shows no certificate can neither take the nodes' places nor stay.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use rustls::pki_types::CertificateDer;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::server::TlsStream;

use crate::http::{bounded::Connection, tls::TlsListener};

/// Connections of nodes at a time.
const NODES: usize = 128;
/// Connections without a certificate at a time: those that join.
const STRANGERS: usize = 16;
/// A followed log may last; it ends by itself after this.
const NODE_LIFETIME: Duration = Duration::from_secs(2 * 3600);
/// Joining is one question.
const STRANGER_LIFETIME: Duration = Duration::from_secs(15);

/// The listener behind TLS.
pub(super) struct PeerListener {
    tls: TlsListener,
    nodes: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
}

impl PeerListener {
    /// Starts accepting.
    pub(super) fn new(listener: TcpListener, config: rustls::ServerConfig) -> Self {
        Self {
            tls: TlsListener::new(listener, config),
            nodes: Arc::new(Semaphore::new(NODES)),
            strangers: Arc::new(Semaphore::new(STRANGERS)),
        }
    }
}

impl Listener for PeerListener {
    type Io = Connection<TlsStream<TcpStream>>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.tls.accept().await;
            let (slots, lifetime) = match certificate(&stream) {
                Some(_) => (&self.nodes, NODE_LIFETIME),
                None => (&self.strangers, STRANGER_LIFETIME),
            };
            match slots.clone().try_acquire_owned() {
                Ok(slot) => return (Connection::new(stream, Some(slot), lifetime), address),
                Err(_) => tracing::warn!(%address, "too many connections of other hosts: one is dropped"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.tls.local_addr()
    }
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    /// Its address.
    pub(super) address: SocketAddr,
    /// Its certificate, which TLS has found to be from this cluster's authority.
    pub(super) certificate: Option<CertificateDer<'static>>,
}

impl Connected<IncomingStream<'_, PeerListener>> for Remote {
    fn connect_info(stream: IncomingStream<'_, PeerListener>) -> Self {
        let certificate = certificate(stream.io().get_ref());
        Self { address: *stream.remote_addr(), certificate: certificate.cloned() }
    }
}

fn certificate(stream: &TlsStream<TcpStream>) -> Option<&CertificateDer<'static>> {
    stream.get_ref().1.peer_certificates()?.first()
}
