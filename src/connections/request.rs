//! Notes in a connection's life that a request is under way, from its head to the last byte of its
//! answer.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::{ConnectInfo, Request, State},
    middleware::{self, Next},
    response::Response,
};
use http_body::{Frame, SizeHint};

use super::{Caller, life::UnderWay};

/// What a client must present before its connection counts as proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The client has sent the whole head of a request.
    Request,
    /// What the route requires: the route calls [`Life::prove`](super::Life::prove), and finds the
    /// [`Caller`] in the request.
    Shown,
}

/// Follows the requests of routes. `C` is the listener's description of a connection.
pub(crate) fn watched<C>(router: Router, proof: Proof) -> Router
where
    C: AsRef<Caller> + Clone + Send + Sync + 'static,
{
    router.layer(middleware::from_fn_with_state(proof, follow::<C>))
}

async fn follow<C>(
    State(proof): State<Proof>,
    ConnectInfo(connection): ConnectInfo<C>,
    mut request: Request,
    next: Next,
) -> Response
where
    C: AsRef<Caller> + Clone + Send + Sync + 'static,
{
    let caller = connection.as_ref().clone();
    let under_way = caller.0.start_request();
    if proof == Proof::Request {
        caller.0.prove();
    }
    request.extensions_mut().insert(caller);
    let response = next.run(request).await;
    response.map(|body| Body::new(TrackedBody { body, under_way }))
}

/// The body of an answer; the request ends when the body is dropped.
struct TrackedBody {
    body: Body,
    #[expect(dead_code, reason = "its end is the request's")]
    under_way: UnderWay,
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
