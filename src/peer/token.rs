//! Join tokens: what is handed from the authority's host to a new one, and what is kept of them.

use std::{fmt, net::SocketAddr, str::FromStr, time::Duration};

use anyhow::{Context, Result};
use jiff::Timestamp;
use reconciler::name::NodeName;
use ring::{digest, hmac, rand::SystemRandom};
use serde::{Deserialize, Serialize};
use ssh_encoding::base64::{Base64UrlUnpadded, Encoding};
use thiserror::Error;

use super::{PeerDirectory, SCHEMA, hex, random};
use crate::state_file;

/// What a token begins with; the number is its form's.
const PREFIX: &str = "wlj1.";
/// Longer than this no token is.
const LONGEST: usize = 2048;
/// Tokens that are kept at a time, used and expired ones among them.
const KEPT: usize = 256;
/// So long after its end a token is still named as expired and not as unknown.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A one-time token, as the new host sees it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct JoinToken {
    /// The host that has the authority.
    pub(crate) host: NodeName,
    /// Its listener.
    pub(crate) address: SocketAddr,
    /// SHA-256 of the authority's certificate: by it the new host knows whom it speaks to.
    pub(crate) authority: [u8; 32],
    /// By it the authority's host knows who may join.
    pub(crate) secret: [u8; 32],
}

/// No token.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum JoinTokenError {
    /// Something else altogether.
    #[error(
        "this is no join token: one begins with {PREFIX} and is printed by `windlass cluster token`"
    )]
    Other,
    /// A piece is missing, or changed.
    #[error("the join token is damaged: copy all of what `windlass cluster token` printed")]
    Damaged,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    host: String,
    address: SocketAddr,
    ca: String,
    secret: String,
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = Written {
            host: self.host.as_str().to_owned(),
            address: self.address,
            ca: Base64UrlUnpadded::encode_string(&self.authority),
            secret: Base64UrlUnpadded::encode_string(&self.secret),
        };
        let json = serde_json::to_vec(&written).map_err(|_| fmt::Error)?;
        write!(f, "{PREFIX}{}", Base64UrlUnpadded::encode_string(&json))
    }
}

/// The secret is not shown.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("host", &self.host)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = JoinTokenError;

    fn from_str(text: &str) -> Result<Self, JoinTokenError> {
        let body = text
            .trim()
            .strip_prefix(PREFIX)
            .ok_or(JoinTokenError::Other)?;
        if body.len() > LONGEST {
            return Err(JoinTokenError::Damaged);
        }
        let json = Base64UrlUnpadded::decode_vec(body).map_err(|_| JoinTokenError::Damaged)?;
        let written: Written =
            serde_json::from_slice(&json).map_err(|_| JoinTokenError::Damaged)?;
        let host = super::check_node_name(&written.host).map_err(|_| JoinTokenError::Damaged)?;
        Ok(Self {
            host,
            address: written.address,
            authority: bytes(&written.ca)?,
            secret: bytes(&written.secret)?,
        })
    }
}

fn bytes(text: &str) -> Result<[u8; 32], JoinTokenError> {
    let bytes = Base64UrlUnpadded::decode_vec(text).map_err(|_| JoinTokenError::Damaged)?;
    bytes.try_into().map_err(|_| JoinTokenError::Damaged)
}

/// What a token is to be good for.
#[derive(Clone, Debug)]
pub(crate) struct TokenOffer {
    /// How long.
    pub(crate) life: Duration,
    /// For this node only.
    pub(crate) node: Option<NodeName>,
    /// Also where that node has a valid certificate already, which then is not renewed any more.
    pub(crate) replace: bool,
}

/// What may be said to somebody who presents a token.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum TokenRefusal {
    /// Made by somebody else, long forgotten, or invented.
    #[error("the join token is not known here: make a new one with `windlass cluster token`")]
    Unknown,
    /// Once is enough.
    #[error(
        "the join token was used at {when:.0} by {node}: make a new one with `windlass cluster token`"
    )]
    Used {
        /// For whom.
        node: String,
        /// When.
        when: Timestamp,
    },
    /// Too late.
    #[error("the join token has expired at {0:.0}: make a new one with `windlass cluster token`")]
    Expired(Timestamp),
    /// Made for another node.
    #[error("the join token is for the node {0} only")]
    OtherNode(String),
}

/// `tokens.json`
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Tokens {
    tokens: Vec<StoredToken>,
}

/// A token as its maker keeps it.
#[derive(Debug, Serialize, Deserialize)]
struct StoredToken {
    /// SHA-256 of the secret, in hexadecimal.
    hash: String,
    expires: Timestamp,
    node: Option<String>,
    replace: bool,
    used: Option<Used>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Used {
    when: Timestamp,
    node: String,
}

impl Tokens {
    /// Reads what is kept.
    pub(super) fn read(directory: &PeerDirectory) -> Result<Self> {
        Ok(state_file::read(&directory.tokens(), SCHEMA)?.unwrap_or_default())
    }

    /// Writes it.
    pub(super) fn write(&self, directory: &PeerDirectory) -> Result<()> {
        Ok(state_file::write(&directory.tokens(), SCHEMA, self)?)
    }

    /// Makes a token's secret, and keeps its hash.
    pub(super) fn make(&mut self, offer: &TokenOffer, now: Timestamp) -> Result<[u8; 32]> {
        self.tokens.retain(|kept| kept.expires + REMEMBERED > now);
        anyhow::ensure!(
            self.tokens.len() < KEPT,
            "{KEPT} join tokens have been made within a week: wait until the oldest are forgotten"
        );
        let secret = random()?;
        let expires = now
            .checked_add(offer.life)
            .context("the token would never expire: give a shorter time")?;
        self.tokens.push(StoredToken {
            hash: hash(&secret),
            expires,
            node: offer.node.as_ref().map(|node| node.as_str().to_owned()),
            replace: offer.replace,
            used: None,
        });
        Ok(secret)
    }

    /// Uses a token up, if it is good for this node. Says whether an existing certificate may be
    /// replaced.
    pub(super) fn redeem(
        &mut self,
        secret: &[u8],
        node: &NodeName,
        now: Timestamp,
    ) -> Result<bool, TokenRefusal> {
        let presented = hash(secret);
        let same = SameBytes::new();
        // All are compared, so that the time says nothing about which one it is.
        let found = self
            .tokens
            .iter_mut()
            .filter(|kept| same.are(&kept.hash, &presented))
            .fold(None, |_, one| Some(one));
        let kept = found.ok_or(TokenRefusal::Unknown)?;
        if let Some(Used { when, node }) = &kept.used {
            return Err(TokenRefusal::Used {
                node: node.clone(),
                when: *when,
            });
        }
        if kept.expires <= now {
            return Err(TokenRefusal::Expired(kept.expires));
        }
        if let Some(other) = kept.node.as_ref().filter(|bound| *bound != node.as_str()) {
            return Err(TokenRefusal::OtherNode(other.clone()));
        }
        kept.used = Some(Used {
            when: now,
            node: node.as_str().to_owned(),
        });
        Ok(kept.replace)
    }
}

fn hash(secret: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, secret).as_ref())
}

/// Compares under a key of its own, so that neither content nor length shows in the time it takes.
struct SameBytes(Option<hmac::Key>);

impl SameBytes {
    fn new() -> Self {
        Self(hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok())
    }

    /// Never, without randomness.
    fn are(&self, one: &str, other: &str) -> bool {
        let Some(key) = &self.0 else { return false };
        let tag = hmac::sign(key, other.as_bytes());
        hmac::verify(key, one.as_bytes(), tag.as_ref()).is_ok()
    }
}

#[cfg(test)]
mod fuzz;
