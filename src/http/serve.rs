//! The listeners. All of them are bound before the daemon does anything, so that a conflict is
//! reported at once.

use std::{
    fs, io,
    net::SocketAddr,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::connect_info::Connected,
    http::{StatusCode, header::CONNECTION},
    serve::IncomingStream,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use thiserror::Error;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
    task::JoinSet,
};

use super::{
    HttpContext, admin,
    auth::{self, BearerToken, BearerTokenError},
    health, reading,
    socket::{self, SocketError},
    tls::TlsListener,
    webhook::Webhooks,
};
use crate::{
    connections::{
        Bounded, Caller, Connections,
        request::{Proof, watched},
    },
    descriptors::Taker,
};

/// How long open streams have to end when the daemon stops.
const FAREWELL: Duration = Duration::from_secs(1);

/// The addresses and paths of the listeners.
#[derive(Clone, Debug)]
pub(crate) struct ListenerConfig {
    /// The directory of `windlass.sock` (0660; give the directory a group and setgid to let that
    /// group read) and `admin.sock` (0600).
    pub socket_dir: PathBuf,
    /// `/metrics`, `/healthz`, `/readyz`; `None` serves none of them.
    pub listen: Option<SocketAddr>,
    /// `/webhook/*`; `None` serves them on `listen`. Without a secret there are none.
    pub webhook: Option<SocketAddr>,
    /// The read API over TCP; `None` if it is not served there.
    pub kubectl: Option<KubectlConfig>,
}

/// The read API over TCP. It requires TLS, since kubectl sends a token only over TLS.
#[derive(Clone, Debug)]
pub(crate) struct KubectlConfig {
    pub address: SocketAddr,
    /// The path of the file with the token.
    pub token: PathBuf,
    /// The path of the PEM file with the certificate chain.
    pub certificate: PathBuf,
    /// The path of the PEM file with the certificate's key.
    pub key: PathBuf,
}

/// Why a listener cannot be set up.
#[derive(Debug, Error)]
pub(crate) enum ListenError {
    /// A Unix socket cannot be bound.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// A TCP port cannot be bound.
    #[error(
        "cannot listen at {0}: stop the process that uses the port (`ss -tlnp`), or configure another address"
    )]
    Bind(SocketAddr, #[source] io::Error),
    /// A file of the kubectl listener cannot be read.
    #[error("cannot read {0}")]
    File(PathBuf, #[source] io::Error),
    /// A file has no certificate or no key.
    #[error("{0} has no usable PEM block")]
    Pem(PathBuf, #[source] rustls::pki_types::pem::Error),
    /// The certificate and the key cannot be used.
    #[error("cannot use the certificate of the kubectl listener")]
    Tls(#[from] rustls::Error),
    /// The token cannot be used.
    #[error("cannot use the token of the kubectl listener")]
    Token(#[from] BearerTokenError),
}

/// Listeners that are bound and not served yet.
pub(crate) struct Bound {
    read: (UnixListener, Connections),
    admin: (UnixListener, Connections),
    listen: Option<TcpListener>,
    webhook: Option<TcpListener>,
    kubectl: Option<(TlsListener, BearerToken)>,
}

impl Bound {
    /// Binds all configured listeners, or none.
    pub(crate) async fn bind(config: &ListenerConfig) -> Result<Self, ListenError> {
        // The admin socket comes first: a running daemon is detected before any of its sockets is
        // changed.
        let admin = socket::bind(&config.socket_dir.join("admin.sock"), 0o600)?;
        let read = socket::bind(&config.socket_dir.join("windlass.sock"), 0o660)?;
        let kubectl = match &config.kubectl {
            Some(kubectl) => Some(bind_kubectl(kubectl).await?),
            None => None,
        };
        let connections = |name, taker: Taker| Connections::new(name, taker.bounds());
        Ok(Self {
            read: (read, connections("windlass.sock", Taker::ReadSocket)),
            admin: (admin, connections("admin.sock", Taker::AdminSocket)),
            listen: tcp(config.listen).await?,
            webhook: tcp(config.webhook).await?,
            kubectl,
        })
    }

    /// The address of the metrics, once the port is known.
    pub(crate) fn listen_address(&self) -> Option<SocketAddr> {
        self.listen
            .as_ref()
            .and_then(|listener| listener.local_addr().ok())
    }

    /// The address of the read API over TCP.
    pub(crate) fn kubectl_address(&self) -> Option<SocketAddr> {
        self.kubectl
            .as_ref()
            .and_then(|(listener, _)| axum::serve::Listener::local_addr(listener).ok())
    }

    /// Answers on the Unix sockets that the daemon waits, and for what, until the returned value is
    /// dropped.
    pub(crate) fn say_waiting(&self, why: &watch::Receiver<String>) -> io::Result<JoinSet<()>> {
        let mut tasks = JoinSet::new();
        for (listener, connections) in [&self.read, &self.admin] {
            let copy: std::os::unix::net::UnixListener =
                listener.as_fd().try_clone_to_owned()?.into();
            let listener = UnixListener::from_std(copy)?;
            let why = why.clone();
            let answer = move || {
                let message = format!("the daemon is not ready yet: {}", *why.borrow());
                let body = Json(serde_json::json!({ "message": message }));
                // The connection is closed, so that the next request reaches the daemon that has
                // started by then.
                std::future::ready((
                    StatusCode::SERVICE_UNAVAILABLE,
                    [(CONNECTION, "close")],
                    body,
                ))
            };
            let router = watched::<Caller>(Router::new().fallback(answer), Proof::Request);
            let listener = Bounded::new(listener, connections.clone());
            let serving = axum::serve(
                listener,
                router.into_make_service_with_connect_info::<Caller>(),
            );
            tasks.spawn(async move { report("waiting", serving.await) });
        }
        Ok(tasks)
    }

    /// Serves until `stop` changes or its sender is dropped.
    pub(crate) async fn serve(
        self,
        daemon: Arc<HttpContext>,
        webhooks: Option<Webhooks>,
        stop: watch::Receiver<()>,
    ) {
        let webhook = self
            .webhook
            .as_ref()
            .and_then(|listener| listener.local_addr().ok());
        tracing::info!(
            listen = ?self.listen_address(),
            webhook = ?webhook,
            kubectl = ?self.kubectl_address(),
            webhooks = webhooks.is_some(),
            "listening"
        );

        let mut tasks = JoinSet::new();
        let reading = reading(&daemon);
        let on_socket = watched::<Caller>(reading.clone(), Proof::Request);
        let (read, connections) = self.read;
        spawn(
            &mut tasks,
            "windlass.sock",
            Bounded::new(read, connections),
            on_socket,
            stop.clone(),
        );

        // Not by `spawn`: the log names the user of each command, so that the connections of this
        // socket have a type of their own.
        let (admin, connections) = self.admin;
        let acting = admin::router(&daemon).into_make_service_with_connect_info::<admin::Peer>();
        let mut stopped = stop.clone();
        let serving = axum::serve(Bounded::new(admin, connections), acting)
            .with_graceful_shutdown(async move { stopped.changed().await.unwrap_or_default() });
        tasks.spawn(async move { report("admin.sock", serving.await) });

        let mut on_listen = watched::<Caller>(health::router(&daemon), Proof::Request);
        // The signature of a webhook is its authentication.
        let hooks = webhooks.map(|hooks| watched::<Caller>(hooks.router(), Proof::Shown));
        if let Some(listener) = self.webhook {
            let listener = bounded(listener, "webhook", Taker::Webhook);
            spawn(
                &mut tasks,
                "webhook",
                listener,
                hooks.unwrap_or_default(),
                stop.clone(),
            );
        } else if let Some(hooks) = hooks {
            on_listen = on_listen.merge(hooks);
        }
        if let Some(listener) = self.listen {
            let listener = bounded(listener, "listen", Taker::Metrics);
            spawn(&mut tasks, "listen", listener, on_listen, stop.clone());
        }

        if let Some((listener, token)) = self.kubectl {
            let router = watched::<Caller>(auth::authenticated(reading, token), Proof::Shown);
            spawn(&mut tasks, "kubectl", listener, router, stop.clone());
        }

        let mut stop = stop;
        // A dropped sender counts as a stop.
        stop.changed().await.unwrap_or_default();
        // Watches and followed logs do not end by themselves; the clients start them again.
        let farewell = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
            tasks.shutdown().await;
        }
    }
}

async fn tcp(address: Option<SocketAddr>) -> Result<Option<TcpListener>, ListenError> {
    let Some(address) = address else {
        return Ok(None);
    };
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| ListenError::Bind(address, error))?;
    Ok(Some(listener))
}

async fn bind_kubectl(config: &KubectlConfig) -> Result<(TlsListener, BearerToken), ListenError> {
    let token = fs::read_to_string(&config.token)
        .map_err(|error| ListenError::File(config.token.clone(), error))?;
    let token = BearerToken::new(&token)?;

    let pem = |path: &Path| {
        let path = path.to_owned();
        move |error| ListenError::Pem(path, error)
    };
    let certificates = CertificateDer::pem_file_iter(&config.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(pem(&config.certificate))?;
    let key = PrivateKeyDer::from_pem_file(&config.key).map_err(pem(&config.key))?;

    let server = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    let listener = tcp(Some(config.address)).await?;
    let listener = listener
        .ok_or_else(|| ListenError::Bind(config.address, io::ErrorKind::NotFound.into()))?;
    Ok((
        TlsListener::new(bounded(listener, "kubectl", Taker::Api), server),
        token,
    ))
}

fn bounded(listener: TcpListener, name: &'static str, taker: Taker) -> Bounded<TcpListener> {
    Bounded::new(listener, Connections::new(name, taker.bounds()))
}

fn spawn<L>(
    tasks: &mut JoinSet<()>,
    name: &'static str,
    listener: L,
    router: Router,
    mut stop: watch::Receiver<()>,
) where
    L: axum::serve::Listener,
    L::Addr: std::fmt::Debug,
    Caller: for<'a> Connected<IncomingStream<'a, L>>,
{
    let serving = axum::serve(
        listener,
        router.into_make_service_with_connect_info::<Caller>(),
    )
    .with_graceful_shutdown(async move { stop.changed().await.unwrap_or_default() });
    tasks.spawn(async move { report(name, serving.await) });
}

fn report(name: &'static str, ended: io::Result<()>) {
    if let Err(error) = ended {
        tracing::error!(listener = name, %error, "a listener has ended");
    }
}
