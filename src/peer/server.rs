//! The requests of the cluster's other hosts, `/peer/v1`. All routes but `join` require a node's
//! certificate.

mod attempts;

use std::{sync::Arc, time::Instant};

use axum::{
    Extension, Json, Router,
    extract::{
        ConnectInfo, DefaultBodyLimit, Query, Request, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::{StatusCode, Uri},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use jiff::Timestamp;
use reconciler::{foreign::ForeignText, name::NodeName};
use ssh_encoding::base64::{Base64UrlUnpadded, Encoding};

pub(super) use self::attempts::Attempts;
use super::{
    Authority,
    authority::CertificateRefusal,
    certificate::Facts,
    client::{Certified, Message, Ping, RenewRequest},
    join::JoinRequest,
    listener::Remote,
    token::TokenRefusal,
};
use crate::{
    connections::Source,
    http::{HttpContext, api},
    last_outputs::{OutputParameters, OutputQuery},
};

/// The size limit of a body: a secret, a name and a certificate request fit many times.
const BODY_BYTES: usize = 16 * 1024;
/// The size limit of a refusal, which may quote the request.
const MESSAGE_BYTES: usize = 1024;

/// The state of the routes.
pub(super) struct Served {
    pub(super) node: NodeName,
    /// The host that has the authority, named in the refusal of a host without it.
    pub(super) host: NodeName,
    /// The authority, if this host has it.
    pub(super) authority: Option<Authority>,
    /// The views, logs and metrics of the daemon.
    pub(super) daemon: Arc<HttpContext>,
    /// The recent attempts to join.
    pub(super) attempts: Attempts,
}

impl Served {
    /// Whether a node was removed, and not installed again since.
    fn is_removed(&self, node: &NodeName) -> bool {
        // Not through the views of readers, since those are kept for a while.
        self.daemon
            .views
            .subscribe()
            .borrow()
            .state
            .removed
            .contains_key(node)
    }
}

/// The routes of `/peer/v1`.
pub(super) fn router(served: Arc<Served>) -> Router {
    let nodes = Router::new()
        .route("/peer/v1/ping", get(ping))
        .route("/peer/v1/logs", get(logs))
        .route("/peer/v1/outputs", get(outputs))
        .route("/peer/v1/renew", post(renew))
        .fallback(|| async {
            refuse(
                StatusCode::NOT_FOUND,
                "there is no such route between hosts",
            )
        })
        .layer(middleware::from_fn_with_state(served.clone(), nodes_only));
    Router::new()
        .route("/peer/v1/join", post(join))
        .merge(nodes)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(served)
}

fn refuse(status: StatusCode, message: impl Into<String>) -> Response {
    (
        status,
        Json(Message {
            message: ForeignText::bounded(&message.into(), MESSAGE_BYTES).into(),
        }),
    )
        .into_response()
}

/// Passes on requests of nodes, with the name of the node.
async fn nodes_only(
    State(served): State<Arc<Served>>,
    ConnectInfo(remote): ConnectInfo<Remote>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(certificate) = &remote.certificate else {
        return refuse(
            StatusCode::UNAUTHORIZED,
            "a certificate of this cluster is needed",
        );
    };
    match Facts::read(certificate) {
        Ok(facts) if facts.node().is_some_and(|node| served.is_removed(&node)) => {
            let message = format!(
                "node {} was taken out of the cluster by `windlass node rm`",
                facts.name
            );
            refuse(StatusCode::FORBIDDEN, message)
        }
        Ok(facts) if facts.node().is_some() => {
            request.extensions_mut().insert(facts);
            next.run(request).await
        }
        Ok(facts) => {
            let message = format!(
                "the certificate of {} is not a node's: it opens nothing here",
                facts.name
            );
            refuse(StatusCode::FORBIDDEN, message)
        }
        Err(error) => refuse(StatusCode::FORBIDDEN, format!("{error:#}")),
    }
}

async fn ping(State(served): State<Arc<Served>>) -> Json<Ping> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Json(Ping {
        node: served.node.clone(),
        version,
        now: Timestamp::now(),
    })
}

async fn logs(State(served): State<Arc<Served>>, uri: Uri) -> Response {
    api::log_for_peer(&served.daemon, &uri).await
}

/// What failed containers of this host printed.
async fn outputs(
    State(served): State<Arc<Served>>,
    parameters: Result<Query<OutputParameters>, QueryRejection>,
) -> Response {
    let query = match parameters {
        Ok(Query(parameters)) => OutputQuery::try_from(parameters),
        Err(rejection) => return refuse(rejection.status(), rejection.body_text()),
    };
    match query {
        Ok(query) => {
            let outputs = served.daemon.outputs.here().await;
            Json(query.select(outputs.iter().cloned())).into_response()
        }
        Err(error) => refuse(StatusCode::BAD_REQUEST, error.to_string()),
    }
}

async fn renew(
    State(served): State<Arc<Served>>,
    Extension(presented): Extension<Facts>,
    body: Result<Json<RenewRequest>, JsonRejection>,
) -> Response {
    let Json(RenewRequest { request }) = match body {
        Ok(body) => body,
        Err(rejection) => return refuse(rejection.status(), rejection.body_text()),
    };

    let node = presented.name.clone();
    let signed = sign(&served, move |authority| {
        authority.renew(&presented, &request, Timestamp::now())
    })
    .await;
    tracing::info!(%node, signed = signed.status().is_success(), "a host requested a new certificate");
    signed
}

async fn join(
    State(served): State<Arc<Served>>,
    ConnectInfo(remote): ConnectInfo<Remote>,
    body: Result<Json<JoinRequest>, JsonRejection>,
) -> Response {
    let address = remote.address;
    let answer = if served.attempts.may(Source::from(address), Instant::now()) {
        answer_join(&served, &remote, body).await
    } else {
        refuse(
            StatusCode::TOO_MANY_REQUESTS,
            "too many attempts to join: wait a minute",
        )
    };
    // Whoever is refused must not be able to fill the log.
    if !answer.status().is_success()
        && let Some(refused) = served.attempts.refused(Instant::now())
    {
        tracing::info!(%address, refused, "requests to join were refused; the address is that of the last one");
    }
    answer
}

async fn answer_join(
    served: &Arc<Served>,
    remote: &Remote,
    body: Result<Json<JoinRequest>, JsonRejection>,
) -> Response {
    let Json(JoinRequest {
        secret,
        node,
        request,
    }) = match body {
        Ok(body) => body,
        Err(rejection) => return refuse(rejection.status(), rejection.body_text()),
    };

    // A text that is not base64url counts as an unknown secret.
    let secret = Base64UrlUnpadded::decode_vec(&secret).unwrap_or_default();
    let name = node.clone();
    let signed = sign(served, move |authority| {
        authority.join(&secret, &node, &request, Timestamp::now())
    })
    .await;
    if signed.status().is_success() {
        tracing::info!(node = %name, address = %remote.address, "a host has joined");
    }
    signed
}

/// Lets the authority sign on a thread for blocking work, since signing writes files.
async fn sign(
    served: &Arc<Served>,
    how: impl FnOnce(&Authority) -> Result<String, CertificateRefusal> + Send + 'static,
) -> Response {
    let Some(authority) = served.authority.clone() else {
        let message = format!(
            "{} does not have the cluster's authority: {} has",
            served.node, served.host
        );
        return refuse(StatusCode::NOT_FOUND, message);
    };

    let signed = tokio::task::spawn_blocking(move || {
        let certificate = how(&authority)?;
        Ok(Certified {
            certificate,
            cluster: authority.cluster().to_owned(),
        })
    });
    match signed.await {
        Ok(Ok(certified)) => Json(certified).into_response(),
        Ok(Err(refusal)) => refuse(status(&refusal), refusal.to_string()),
        Err(_) => refuse(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the authority stopped while signing",
        ),
    }
}

fn status(refusal: &CertificateRefusal) -> StatusCode {
    match refusal {
        CertificateRefusal::Token(TokenRefusal::Unknown) => StatusCode::UNAUTHORIZED,
        CertificateRefusal::Token(_) | CertificateRefusal::Replaced(_) => StatusCode::FORBIDDEN,
        CertificateRefusal::Name(_)
        | CertificateRefusal::NotANode
        | CertificateRefusal::Request(_) => StatusCode::BAD_REQUEST,
        CertificateRefusal::Taken { .. } => StatusCode::CONFLICT,
        CertificateRefusal::Broken(error) => {
            tracing::error!("a certificate could not be signed: {error:#}");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

#[cfg(test)]
mod fuzz;
