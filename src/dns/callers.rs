//! Who is answered. The table of the host's network keeps other senders away already; this is for
//! the time without the table, and for a host where another program has removed it.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::Ipv4Net;

/// Those whose queries are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Callers {
    /// Everybody who reaches the server.
    Anyone,
    /// The addresses in these networks: pods, this host with its other containers, and peers.
    In(BTreeSet<Ipv4Net>),
}

impl Callers {
    /// The callers in these networks; `None` is anyone.
    pub(crate) fn of(networks: Option<BTreeSet<Ipv4Net>>) -> Self {
        networks.map_or(Self::Anyone, Self::In)
    }

    pub(super) fn admit(&self, caller: IpAddr) -> bool {
        match (self, caller) {
            (Self::Anyone, _) => true,
            (Self::In(networks), IpAddr::V4(caller)) => {
                networks.iter().any(|network| network.contains(&caller))
            }
            // The server has an IPv4 address only.
            (Self::In(_), IpAddr::V6(_)) => false,
        }
    }
}
