//! The bearer token of the TCP listener for kubectl.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::header::AUTHORIZATION,
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use ring::{digest, hmac, rand::SystemRandom};

use super::api::ApiError;
use crate::connections::Caller;

/// A token to compare with. Only a keyed hash of the token is stored, and the time of a comparison
/// shows neither content nor length of the presented token.
pub(crate) struct BearerToken {
    key: hmac::Key,
    tag: hmac::Tag,
}

/// Why a token is refused as a protection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BearerTokenError {
    /// The token is too short to withstand guessing.
    #[error(
        "the token has {0} characters: at least 32 are needed, for example from `openssl rand -hex 32`"
    )]
    Short(usize),
    /// The kernel's random number generator failed.
    #[error("the kernel's random number generator failed")]
    Random,
}

impl BearerToken {
    /// Takes the content of the token's file, without white space around it.
    pub(crate) fn new(text: &str) -> Result<Self, BearerTokenError> {
        let text = text.trim();
        if text.len() < 32 {
            return Err(BearerTokenError::Short(text.len()));
        }
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| BearerTokenError::Random)?;
        let tag = hmac::sign(
            &key,
            digest::digest(&digest::SHA256, text.as_bytes()).as_ref(),
        );
        Ok(Self { key, tag })
    }

    fn is(&self, presented: &str) -> bool {
        let presented = digest::digest(&digest::SHA256, presented.as_bytes());
        hmac::verify(&self.key, presented.as_ref(), self.tag.as_ref()).is_ok()
    }
}

/// Passes on only requests with the token.
pub(super) fn authenticated(router: Router, token: BearerToken) -> Router {
    router.layer(middleware::from_fn_with_state(Arc::new(token), check))
}

async fn check(State(token): State<Arc<BearerToken>>, request: Request, next: Next) -> Response {
    let header = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let presented = header
        .and_then(|value| value.split_once(' '))
        .and_then(|(scheme, token)| {
            scheme
                .eq_ignore_ascii_case("bearer")
                .then_some(token.trim())
        });

    if presented.is_some_and(|presented| token.is(presented)) {
        // A connection without a valid token is closed soon.
        if let Some(caller) = request.extensions().get::<Caller>() {
            caller.0.prove();
        }
        next.run(request).await
    } else {
        ApiError::unauthorized().into_response()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]
    use super::*;

    #[test]
    fn only_the_token_is_the_token() {
        let token = BearerToken::new("0123456789abcdef0123456789abcdef\n").unwrap();
        assert!(token.is("0123456789abcdef0123456789abcdef"));
        assert!(!token.is("0123456789abcdef0123456789abcdee"));
        assert!(!token.is(""));
        assert!(matches!(
            BearerToken::new("short"),
            Err(BearerTokenError::Short(5))
        ));
    }
}
