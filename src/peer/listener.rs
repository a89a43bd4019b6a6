//! Connections of other hosts, with limits. Clients without a certificate make room for the nodes,
//! and are disconnected soon.

use std::{io, net::SocketAddr, sync::Arc};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use rustls::pki_types::CertificateDer;
use tokio::net::TcpListener;

use crate::{
    connections::{Bounded, Caller, Connections},
    descriptors::Taker,
    http::tls::{TlsConnection, TlsListener},
};

/// The listener behind TLS.
pub(super) struct PeerListener {
    tls: TlsListener,
}

impl PeerListener {
    /// Accepts connections of this listener, within the limits of [`Taker::Peers`].
    pub(super) fn new(listener: TcpListener, config: rustls::ServerConfig) -> Self {
        let connections = Connections::new("peer", Taker::Peers.bounds());
        Self {
            tls: TlsListener::new(Bounded::new(listener, connections), config),
        }
    }
}

impl Listener for PeerListener {
    type Io = TlsConnection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = self.tls.accept().await;
        if certificate(&stream).is_some() {
            stream.get_ref().0.life().prove();
        }
        (stream, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.tls.local_addr()
    }
}

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    pub(super) address: SocketAddr,
    /// The client's certificate, which TLS has verified against this cluster's authority; `None` if
    /// the client presented none.
    pub(super) certificate: Option<CertificateDer<'static>>,
    /// The life of the connection, with its time limits.
    pub(super) caller: Caller,
}

impl AsRef<Caller> for Remote {
    fn as_ref(&self) -> &Caller {
        &self.caller
    }
}

impl Connected<IncomingStream<'_, PeerListener>> for Remote {
    fn connect_info(stream: IncomingStream<'_, PeerListener>) -> Self {
        let caller = Caller(Arc::clone(stream.io().get_ref().0.life()));
        let certificate = certificate(stream.io()).cloned();
        Self {
            address: *stream.remote_addr(),
            certificate,
            caller,
        }
    }
}

fn certificate(stream: &TlsConnection) -> Option<&CertificateDer<'static>> {
    stream.get_ref().1.peer_certificates()?.first()
}
