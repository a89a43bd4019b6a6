//! `/webhook/github` and `/webhook/generic`: a sender that knows the secret causes the next fetch.
//!
//! No content of a webhook is trusted: it only makes the next fetch come sooner. The checks are
//! therefore about cost and noise: size, signature, rate, branch, replay. Only signed requests
//! count against the rate, so that no other client can use it up; an unsigned request costs its
//! sender a connection, and the listener limits those.
//!
//! A body that was received within the last hour does not count again. GitHub has a button that
//! repeats a delivery, so its repeated body is answered with 200 "already seen"; a generic sender
//! that repeats a body byte by byte would never have an effect, so it is answered with 409 and
//! should add a commit id or a time to the body.

mod bucket;
mod nudge;
mod replay;
mod signature;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Extension, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header::CONNECTION},
    response::{IntoResponse, Response},
    routing::post,
};
use futures_util::StreamExt;
use parking_lot::Mutex;
use reconciler::object::Sensitive;
use serde::Deserialize;
use thiserror::Error;
use tokio::sync::Notify;

use self::{bucket::Bucket, nudge::Nudger, replay::Seen, signature::WebhookKey};
use crate::{
    connections::Caller,
    metrics::{Metrics, WebhookResult},
};

/// The size limit of a body. GitHub's own limit is 25 MB, but the branch name is all that is read
/// of a push.
const BODY_BYTES: usize = 1024 * 1024;
/// The time limit for receiving a body.
const BODY_TIME: Duration = Duration::from_secs(10);

/// How webhooks are checked.
#[derive(Clone)]
pub(crate) struct WebhookSettings {
    /// The shared secret; `None` if there are no webhooks.
    pub secret: Option<Sensitive<String>>,
    /// The followed branch, without `refs/heads/`.
    pub branch: String,
}

/// The secret is too short to protect anything.
#[derive(Debug, Error)]
#[error(
    "the webhook secret has {0} characters: at least 16 are needed, for example from `openssl rand -hex 32`"
)]
pub(crate) struct WeakSecret(usize);

/// The state of the webhooks: their key, rate and recent bodies.
pub(crate) struct Webhooks {
    shared: Arc<Shared>,
}

struct Shared {
    secret: WebhookKey,
    reference: String,
    metrics: Arc<Metrics>,
    nudger: Nudger,
    bucket: Mutex<Bucket>,
    seen: Mutex<Seen>,
}

impl Webhooks {
    /// `None` without a secret: then the routes do not exist. An accepted webhook notifies
    /// `notify`.
    pub(crate) fn new(
        config: &WebhookSettings,
        metrics: Arc<Metrics>,
        notify: Arc<Notify>,
    ) -> Result<Option<Self>, WeakSecret> {
        let Some(secret) = &config.secret else {
            return Ok(None);
        };
        let secret = secret.expose().trim();
        if secret.len() < 16 {
            return Err(WeakSecret(secret.len()));
        }
        let shared = Shared {
            secret: WebhookKey::new(secret.as_bytes()),
            reference: format!("refs/heads/{}", config.branch),
            metrics,
            nudger: Nudger::new(notify),
            bucket: Mutex::new(Bucket::new(Instant::now())),
            seen: Mutex::new(Seen::default()),
        };
        Ok(Some(Self {
            shared: Arc::new(shared),
        }))
    }

    /// The routes, one for each [`Forge`].
    pub(super) fn router(self) -> Router {
        Router::new()
            .route("/webhook/github", post(github))
            .route("/webhook/generic", post(generic))
            .with_state(self.shared)
    }
}

type WebhookAnswer = (StatusCode, &'static str);

type CallerExtension = Option<Extension<Caller>>;

async fn github(
    State(shared): State<Arc<Shared>>,
    caller: CallerExtension,
    headers: HeaderMap,
    body: Body,
) -> Response {
    shared.answer(Forge::Github, caller, &headers, body).await
}

async fn generic(
    State(shared): State<Arc<Shared>>,
    caller: CallerExtension,
    headers: HeaderMap,
    body: Body,
) -> Response {
    shared.answer(Forge::Generic, caller, &headers, body).await
}

/// The sender of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forge {
    Github,
    Generic,
}

impl Forge {
    fn label(self) -> &'static str {
        match self {
            Self::Github => "github",
            Self::Generic => "generic",
        }
    }

    fn signature_header(self) -> &'static str {
        match self {
            Self::Github => "x-hub-signature-256",
            Self::Generic => "x-windlass-signature",
        }
    }
}

/// The only field that is read from a body.
#[derive(Deserialize)]
struct Pushed {
    #[serde(rename = "ref")]
    reference: Option<String>,
}

impl Shared {
    async fn answer(
        &self,
        forge: Forge,
        caller: CallerExtension,
        headers: &HeaderMap,
        body: Body,
    ) -> Response {
        let caller = caller.map(|Extension(caller)| caller);
        let result = self.judge(forge, caller.as_ref(), headers, body).await;
        self.metrics.webhook(forge.label(), result);
        if result == WebhookResult::Accepted {
            self.nudger.nudge();
        }

        let mut answer = words(result, forge).into_response();
        if matches!(
            result,
            WebhookResult::Unsigned | WebhookResult::BadSignature
        ) {
            answer
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    async fn judge(
        &self,
        forge: Forge,
        caller: Option<&Caller>,
        headers: &HeaderMap,
        body: Body,
    ) -> WebhookResult {
        // The body of a request without a signature is not read.
        let signature = headers
            .get(forge.signature_header())
            .and_then(|value| value.to_str().ok());
        let Some(signature) = signature else {
            return WebhookResult::Unsigned;
        };

        let announced = headers
            .get("content-length")
            .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if announced.is_some_and(|bytes| bytes > BODY_BYTES) {
            return WebhookResult::TooLarge;
        }

        let body = match read(body).await {
            Ok(body) => body,
            Err(result) => return result,
        };
        if !self.secret.signed(&body, signature) {
            return WebhookResult::BadSignature;
        }
        if let Some(caller) = caller {
            caller.0.prove();
        }

        // Only a signed request counts against the rate: no other client can use the rate up.
        if !self.bucket.lock().take(Instant::now()) {
            return WebhookResult::RateLimited;
        }

        let event = headers
            .get("x-github-event")
            .and_then(|value| value.to_str().ok());
        if forge == Forge::Github && event != Some("push") {
            return WebhookResult::Ignored;
        }

        // A body without a branch is accepted: generic senders need not send one.
        let pushed = serde_json::from_slice::<Pushed>(&body)
            .ok()
            .and_then(|pushed| pushed.reference);
        let elsewhere = pushed.is_some_and(|pushed| pushed != self.reference);
        if elsewhere {
            return WebhookResult::Ignored;
        }

        // Last, so that a request that was refused before may be repeated.
        if self.seen.lock().again(&body, Instant::now()) {
            return WebhookResult::Replayed;
        }
        WebhookResult::Accepted
    }
}

/// The status and message of an answer.
fn words(result: WebhookResult, forge: Forge) -> WebhookAnswer {
    match (result, forge) {
        (WebhookResult::Accepted, _) => (StatusCode::ACCEPTED, "the repository is fetched now\n"),
        (WebhookResult::Ignored, _) => (StatusCode::OK, "not about the followed branch\n"),
        (WebhookResult::Replayed, Forge::Github) => (StatusCode::OK, "already seen\n"),
        (WebhookResult::Replayed, Forge::Generic) => (
            StatusCode::CONFLICT,
            "the same body was received within the last hour: add a commit id or a time to the body\n",
        ),
        (WebhookResult::Unsigned, Forge::Github) => (
            StatusCode::UNAUTHORIZED,
            "X-Hub-Signature-256 is missing: set the hook's secret\n",
        ),
        (WebhookResult::Unsigned, Forge::Generic) => (
            StatusCode::UNAUTHORIZED,
            "X-Windlass-Signature: sha256=<HMAC of the body> is missing\n",
        ),
        (WebhookResult::BadSignature, _) => (
            StatusCode::UNAUTHORIZED,
            "the signature does not match the body\n",
        ),
        (WebhookResult::TooLarge, _) => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body has more than 1 MiB\n",
        ),
        (WebhookResult::Incomplete, _) => (
            StatusCode::REQUEST_TIMEOUT,
            "the body was not received within 10 s\n",
        ),
        (WebhookResult::RateLimited, _) => (StatusCode::TOO_MANY_REQUESTS, "too many requests\n"),
    }
}

/// The whole body, if it is small enough and arrives in time.
async fn read(body: Body) -> Result<Vec<u8>, WebhookResult> {
    let mut chunks = body.into_data_stream();
    let reading = async {
        let mut whole = Vec::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| WebhookResult::Incomplete)?;
            if whole.len() + chunk.len() > BODY_BYTES {
                return Err(WebhookResult::TooLarge);
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole)
    };
    tokio::time::timeout(BODY_TIME, reading)
        .await
        .unwrap_or(Err(WebhookResult::Incomplete))
}
