//! Join tokens: the text that a person copies from the authority's host to a new one, and the hash
//! that the authority keeps.

use std::{fmt, net::SocketAddr, str::FromStr, time::Duration};

use anyhow::{Context, Result};
use jiff::Timestamp;
use reconciler::name::NodeName;
use ring::{digest, hmac, rand::SystemRandom};
use serde::{Deserialize, Serialize};
use ssh_encoding::base64::{Base64UrlUnpadded, Encoding};
use thiserror::Error;

use super::{PeerDirectory, SCHEMA, random};
use crate::state_file;
use reconciler::digest::hex;

/// The beginning of a token, with the version of its format.
const PREFIX: &str = "wlj1.";
/// The length limit of a token, in bytes.
const LONGEST: usize = 2048;
/// The most tokens that are stored, including used and expired ones.
const KEPT: usize = 256;
/// For this time after its end a token is reported as expired and not as unknown.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A one-time token, as the new host reads it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct JoinToken {
    /// The host that has the authority.
    pub(crate) host: NodeName,
    /// The address of that host's listener.
    pub(crate) address: SocketAddr,
    /// SHA-256 of the authority's certificate, by which the new host verifies the authority's host.
    pub(crate) authority: [u8; 32],
    /// The secret by which the authority's host verifies the new host.
    pub(crate) secret: [u8; 32],
}

/// Why a text is no token.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum JoinTokenError {
    /// The text does not have the form of a token.
    #[error(
        "this is no join token: one begins with {PREFIX} and is printed by `windlass cluster token`"
    )]
    Other,
    /// A part of the token is missing or changed.
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

/// Prints no secret.
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

/// What a new token allows.
#[derive(Clone, Debug)]
pub(crate) struct TokenOffer {
    /// For how long the token is valid.
    pub(crate) life: Duration,
    /// The only node that may use the token; `None` for any node.
    pub(crate) node: Option<NodeName>,
    /// Whether the token also replaces a valid certificate of that node, which then is not renewed
    /// any more.
    pub(crate) replace: bool,
}

/// Why a presented token is refused.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum TokenRefusal {
    /// The token was made elsewhere, was removed long ago, or never existed.
    #[error("the join token is not known here: make a new one with `windlass cluster token`")]
    Unknown,
    /// The token was used before.
    #[error(
        "the join token was used at {when:.0} by {node}: make a new one with `windlass cluster token`"
    )]
    Used {
        /// The node that used the token.
        node: String,
        /// When the token was used.
        when: Timestamp,
    },
    /// The token has expired.
    #[error("the join token has expired at {0:.0}: make a new one with `windlass cluster token`")]
    Expired(Timestamp),
    /// The token is for another node.
    #[error("the join token is for the node {0} only")]
    OtherNode(String),
}

/// `tokens.json`: the tokens that this authority has made.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Tokens {
    tokens: Vec<StoredToken>,
}

/// A token as the authority's host stores it.
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
    /// Reads the stored tokens.
    pub(super) fn read(directory: &PeerDirectory) -> Result<Self> {
        Ok(state_file::read(&directory.tokens(), SCHEMA)?.unwrap_or_default())
    }

    /// Writes the stored tokens.
    pub(super) fn write(&self, directory: &PeerDirectory) -> Result<()> {
        Ok(state_file::write(&directory.tokens(), SCHEMA, self)?)
    }

    /// Makes a token's secret, and stores its hash.
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

    /// Uses up a token, if it is valid for this node. Returns whether an existing certificate may
    /// be replaced.
    pub(super) fn redeem(
        &mut self,
        secret: &[u8],
        node: &NodeName,
        now: Timestamp,
    ) -> Result<bool, TokenRefusal> {
        let presented = hash(secret);
        let same = SameBytes::new();
        // All tokens are compared, so that the time does not show which one matches.
        let matching = self
            .tokens
            .iter_mut()
            .filter(|kept| same.are(&kept.hash, &presented))
            .fold(None, |_, one| Some(one));
        let kept = matching.ok_or(TokenRefusal::Unknown)?;

        if let Some(Used { when, node }) = &kept.used {
            return Err(TokenRefusal::Used {
                node: node.clone(),
                when: *when,
            });
        }
        if kept.expires <= now {
            return Err(TokenRefusal::Expired(kept.expires));
        }
        if let Some(bound) = &kept.node
            && bound.as_str() != node.as_str()
        {
            return Err(TokenRefusal::OtherNode(bound.clone()));
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

/// Compares with a random key, so that the time shows neither content nor length.
struct SameBytes(Option<hmac::Key>);

impl SameBytes {
    fn new() -> Self {
        Self(hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok())
    }

    /// Whether both texts are equal; false without randomness.
    fn are(&self, one: &str, other: &str) -> bool {
        let Some(key) = &self.0 else { return false };
        let tag = hmac::sign(key, other.as_bytes());
        hmac::verify(key, one.as_bytes(), tag.as_ref()).is_ok()
    }
}

#[cfg(test)]
mod fuzz;
