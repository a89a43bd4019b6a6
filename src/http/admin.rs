//! `admin.sock`: the only way to act. A user who can open the socket may do everything; the log
//! names the user.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{ConnectInfo, State, connect_info::Connected, rejection::JsonRejection},
    http::StatusCode,
    routing::post,
    serve::IncomingStream,
};
use serde::{Deserialize, Serialize};
use tokio::{net::UnixListener, sync::oneshot, time::timeout};

use super::HttpContext;
use crate::{
    command::{Command, Request},
    connections::{
        Bounded, Caller,
        request::{Proof, watched},
    },
};

/// The loop handles a command between two cycles; if it does not answer within this time, it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommandAnswer {
    /// Whether the command was executed.
    pub ok: bool,
    /// What was done, or why the command failed.
    pub message: String,
}

/// The user at the other end of a Unix socket.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    caller: Caller,
    uid: Option<u32>,
    pid: Option<i32>,
}

impl Connected<IncomingStream<'_, Bounded<UnixListener>>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Bounded<UnixListener>>) -> Self {
        let connection = stream.io();
        let credentials = connection.get_ref().peer_cred().ok();
        Self {
            caller: Caller(Arc::clone(connection.life())),
            uid: credentials.as_ref().map(tokio::net::unix::UCred::uid),
            pid: credentials.and_then(|credentials| credentials.pid()),
        }
    }
}

impl AsRef<Caller> for Peer {
    fn as_ref(&self) -> &Caller {
        &self.caller
    }
}

/// The route of commands, the only one of `admin.sock`.
pub(super) fn router(daemon: &Arc<HttpContext>) -> Router {
    let router = Router::new()
        .route("/windlass/v1/command", post(command))
        .with_state(daemon.clone());
    watched::<Peer>(router, Proof::Request)
}

async fn command(
    State(daemon): State<Arc<HttpContext>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    command: Result<Json<Command>, JsonRejection>,
) -> (StatusCode, Json<CommandAnswer>) {
    let refused =
        |code: StatusCode, message: String| (code, Json(CommandAnswer { ok: false, message }));
    let command = match command {
        Ok(Json(command)) => command,
        Err(rejection) => return refused(StatusCode::BAD_REQUEST, rejection.body_text()),
    };

    tracing::info!(?command, uid = peer.uid, pid = peer.pid, "command");
    let (sender, receiver) = oneshot::channel();
    let request = Request {
        command,
        answer: sender,
    };

    let answered = timeout(PATIENCE, async {
        daemon.requests.send(request).await.ok()?;
        receiver.await.ok()
    });

    match answered.await {
        Ok(Some(Ok(message))) => (StatusCode::OK, Json(CommandAnswer { ok: true, message })),
        Ok(Some(Err(error))) => {
            let message = format!("{:#}", anyhow::Error::from(error));
            refused(StatusCode::CONFLICT, message)
        }
        Ok(None) => refused(
            StatusCode::SERVICE_UNAVAILABLE,
            "the daemon is shutting down".to_owned(),
        ),
        Err(_) => {
            let message = format!(
                "the control loop did not answer within {} s",
                PATIENCE.as_secs()
            );
            refused(StatusCode::GATEWAY_TIMEOUT, message)
        }
    }
}
