//! This host's listener for other hosts, which is bound at the start of the daemon, and the renewal
//! of its certificate.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use reconciler::name::NodeName;
use tokio::{net::TcpListener, sync::watch, task::JoinSet, time::timeout};

use super::{
    AddressOf, Authority, Identity, PeerClient, PeerDirectory,
    listener::{PeerListener, Remote},
    renewal,
    server::{Attempts, Served, router},
};
use crate::{
    connections::request::{Proof, watched},
    http::HttpContext,
};

/// How long followed logs have to end when the daemon stops.
const FAREWELL: std::time::Duration = std::time::Duration::from_secs(1);

/// A host with a certificate.
pub(crate) struct PeerHost {
    node: NodeName,
    identity: Arc<Identity>,
    authority: Option<Authority>,
    listener: PeerListener,
    address: SocketAddr,
}

impl PeerHost {
    /// Binds the listener; `None` if this host has no certificate and needs none.
    pub(crate) async fn bind(
        directory: &Path,
        node: &NodeName,
        listen: Option<SocketAddr>,
        default: impl FnOnce() -> Result<SocketAddr>,
    ) -> Result<Option<Self>> {
        let directory = PeerDirectory::new(directory);
        let Some(identity) = Identity::open(&directory)? else {
            if let Some(address) = listen {
                bail!(
                    "[peer] listen is {address}, and there is no certificate in {}: begin a cluster with \
                     `windlass cluster init`, or join one with `windlass cluster join`",
                    directory.path().display()
                );
            }
            return Ok(None);
        };
        let facts = identity.facts();
        ensure!(
            facts.name == node.as_str(),
            "the certificate in {} is for {}, and this host is called {node}: set [node] name, or join again",
            directory.path().display(),
            facts.name
        );
        if facts.until <= Timestamp::now() {
            tracing::warn!(
                "this host's certificate has expired at {:.0}: no other host accepts its connections; {}",
                facts.until,
                super::expired_advice(identity.cluster(), node)
            );
        }

        let authority = Authority::open(&directory)?;
        let address = match listen {
            Some(address) => address,
            None => default()?,
        };
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| {
            format!(
                "cannot listen at {address} for other hosts: check whether another program listens there"
            )
        })?;
        let address = listener
            .local_addr()
            .context("read the listener's address")?;
        let listener = PeerListener::new(listener, identity.server_config()?);
        Ok(Some(Self {
            node: node.clone(),
            identity,
            authority,
            listener,
            address,
        }))
    }

    /// The address of the listener.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The client for requests to other hosts.
    pub(crate) fn client(&self) -> PeerClient {
        PeerClient::with(self.identity.clone())
    }

    /// Serves and renews until `stop` changes or its sender is dropped.
    pub(crate) async fn serve(
        self,
        daemon: Arc<HttpContext>,
        address_of: AddressOf,
        stop: watch::Receiver<()>,
    ) {
        let host = self.identity.cluster().host.clone();
        tracing::info!(address = %self.address, cluster = %self.identity.cluster().cluster, "listening for other hosts");
        let attempts = Attempts::new(Instant::now());
        let served = Served {
            node: self.node,
            host,
            authority: self.authority,
            daemon,
            attempts,
        };

        let router = watched::<Remote>(router(Arc::new(served)), Proof::Shown)
            .into_make_service_with_connect_info::<Remote>();
        let mut stopped = stop.clone();
        let serving = axum::serve(self.listener, router)
            .with_graceful_shutdown(async move { stopped.changed().await.unwrap_or_default() });

        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the listener for other hosts has ended");
            }
        });
        let renewing = tokio::spawn(renewal::keep(self.identity, address_of));

        let mut stop = stop;
        // A dropped sender counts as a stop.
        stop.changed().await.unwrap_or_default();

        renewing.abort();
        let farewell = async { while tasks.join_next().await.is_some() {} };
        if timeout(FAREWELL, farewell).await.is_err() {
            tasks.shutdown().await;
        }
    }
}
