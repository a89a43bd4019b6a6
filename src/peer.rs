//! How the hosts of a cluster reach each other: certificates from the cluster's own authority, and
//! one listener over mutual TLS for direct requests of other hosts.
//!
//! ```text
//! cluster init   authority + own certificate         (the authority's key never leaves this host)
//! cluster token  one-time secret, kept as a hash  ─► cluster join   key made there, only a request travels
//! renewal        over mutual TLS, the name taken from the certificate that is presented
//! listener       /peer/v1/{ping,logs,renew} for the cluster's nodes, /peer/v1/join for the holder of a token
//! ```

mod authority;
pub(crate) mod certificate;
pub(crate) mod client;
pub(crate) mod directory;
mod host;
mod identity;
mod join;
mod listener;
mod renewal;
mod server;
mod token;

#[cfg(test)]
mod tests;

use std::{net::SocketAddr, sync::Arc};

use reconciler::name::NodeName;
use rustls::pki_types::DnsName;
use thiserror::Error;

pub(crate) use self::{
    authority::{Authority, Other},
    client::{LogRequest, PeerClient, PeerLine},
    directory::{ClusterFacts, PeerDirectory},
    host::PeerHost,
    identity::Identity,
    join::join,
    renewal::renew,
    token::{JoinToken, TokenOffer},
};

/// The port of the listener, unless the configuration names another one.
pub(crate) const PEER_PORT: u16 = 9465;

/// The address of a node's listener; `None` if this host does not know it.
pub(crate) type AddressOf = Arc<dyn Fn(&NodeName) -> Option<SocketAddr> + Send + Sync>;

/// The end of every node's name in its certificate. No DNS resolves these names: the addresses come
/// from the store.
const NODE_SUFFIX: &str = ".node.windlass";

/// Schema of `tokens.json`, `issued.json` and `cluster.json`.
const SCHEMA: u32 = 1;

/// Why no host may have a certificate under a name.
#[derive(Debug, Error)]
pub(crate) enum NodeNameError {
    #[error(
        "`{}` cannot be a node's name in a cluster: expected lower case letters, digits, `-` and `.`",
        .0.chars().take(80).collect::<String>().escape_debug()
    )]
    NotADnsName(String),
    /// etcd takes the common name of a client's certificate as its user, and the user root has all
    /// permissions.
    #[error("a node cannot be called root: that is the name of etcd's administrator")]
    Root,
}

/// The name that a node's certificate must carry.
pub(crate) fn server_name(node: &NodeName) -> String {
    format!("{}{NODE_SUFFIX}", node.as_str().to_ascii_lowercase())
}

/// Checks whether a host may have a certificate under this name.
fn check_node_name(name: &str) -> Result<NodeName, NodeNameError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let node = NodeName::new(name);
    if name.is_empty() || !name.chars().all(plain) || DnsName::try_from(server_name(&node)).is_err()
    {
        return Err(NodeNameError::NotADnsName(name.to_owned()));
    }
    if name == "root" {
        return Err(NodeNameError::Root);
    }
    Ok(node)
}

/// The message about a certificate that has expired, with the next step.
pub(crate) fn expired_advice(cluster: &ClusterFacts, node: &NodeName) -> String {
    if cluster.host == *node {
        return "run `windlass cluster rotate` here".to_owned();
    }
    format!(
        "run `windlass cluster token --node {node}` on {}, and `windlass cluster join` here",
        cluster.host
    )
}

/// Random bytes from the system.
fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    use ring::rand::SecureRandom;
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| anyhow::anyhow!("the system returned no random bytes"))?;
    Ok(bytes)
}
