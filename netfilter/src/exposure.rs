//! What of a host's pods, Services and DNS the host's whole network may reach.

use std::{collections::BTreeSet, fmt, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

/// A part that is closed to the host's network unless the configuration opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exposed {
    /// The cluster's DNS, which also asks the host's own name servers.
    Dns,
    /// The addresses of pods.
    Pods,
    /// The addresses of Services in the service range.
    Services,
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dns => "dns",
            Self::Pods => "pods",
            Self::Services => "services",
        })
    }
}

/// What is open to senders that are neither pods nor this host nor peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// Nothing but these parts.
    Only(BTreeSet<Exposed>),
    /// Everything, as before the setting existed: the senders are counted.
    Unset,
}

impl Exposure {
    /// Whether a part is open to every sender.
    pub fn opens(&self, part: Exposed) -> bool {
        match self {
            Self::Only(parts) => parts.contains(&part),
            Self::Unset => true,
        }
    }
}

/// The new connections of one outside address to pods, Services or the DNS that no setting opens:
/// dropped, or with [`Exposure::Unset`] let in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutsideSource {
    /// The sender.
    pub address: Ipv4Addr,
    /// The number of its packets; a connection that is not answered sends several.
    pub packets: u64,
}
