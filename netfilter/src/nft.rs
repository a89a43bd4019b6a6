//! Keeps the table `ip windlass` as wanted: one `nft -f -` for a change, and none without a change.

use std::{collections::BTreeSet, io, net::Ipv4Addr};

use reconciler::network::{HostNetwork, Peers, ServiceTable};

use crate::{
    error::{NetworkError, Refusal},
    exposure::{Exposure, OutsideSource},
    netlink::{Message, Socket, attribute},
    peer, program,
    table::{OUTSIDE_SOURCES, Ruleset, Senders, TABLE},
    text::{self, Count},
};

const NFT: &str = "nft";
/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN`.
const GET_GENERATION: u16 = 10 << 8 | 16;
/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN`.
pub(crate) const NEW_GENERATION: u16 = 10 << 8 | 15;
const GENERATION_ID: u16 = 1;

/// What a sync did to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synced {
    /// The table had this content already; `nft` was not called.
    Unchanged,
    /// The table was changed.
    Changed {
        /// The whole table was replaced: at the first sync, or because another program had changed
        /// it.
        replaced: bool,
        /// Number of elements that were added to sets and maps.
        added: usize,
        /// Number of elements that were deleted from sets and maps.
        removed: usize,
    },
}

/// The table as it was last committed.
#[derive(Debug)]
pub(crate) struct Nft {
    exposure: Exposure,
    committed: Option<Committed>,
    /// The other hosts; `None` until the first call that sets them.
    peers: Option<Peers>,
    /// The bridges of this host's other containers.
    bridges: BTreeSet<String>,
    /// The nftables generation in which the table and the accept rules were last verified. Every
    /// change of nftables, also by iptables-nft, starts a new generation; no check is needed while
    /// the generation stays the same.
    verified: Option<u32>,
}

#[derive(Debug)]
struct Committed {
    wanted: ServiceTable,
    senders: Senders,
    content: Ruleset,
}

impl Nft {
    /// A table of which nothing is known yet, with this exposure.
    pub(crate) fn new(exposure: Exposure) -> Self {
        Self {
            exposure,
            committed: None,
            peers: None,
            bridges: BTreeSet::new(),
            verified: None,
        }
    }

    /// Changes the table to the wanted content.
    pub(crate) async fn sync(
        &mut self,
        host: &HostNetwork,
        wanted: &ServiceTable,
    ) -> Result<Synced, NetworkError> {
        if self.is_committed(wanted) {
            return Ok(Synced::Unchanged);
        }
        let Some(committed) = &self.committed else {
            return self.replace(host, wanted).await;
        };
        let new = self.content(host, wanted);
        let (text, count) = text::difference(&committed.content, &new.content);
        if text.is_empty() {
            self.committed = Some(new);
            return Ok(Synced::Unchanged);
        }

        match self.commit(&text).await {
            Ok(()) => {
                self.committed = Some(new);
                Ok(changed(false, count))
            }
            // The transaction names an object that the table no longer has: another program has
            // changed the table, and no part of the transaction was done.
            Err(NetworkError::Refused {
                kind: Refusal::Drifted,
                ..
            }) => self.replace(host, wanted).await,
            Err(error) => Err(error),
        }
    }

    /// Replaces the whole table atomically, whatever its content.
    async fn replace(
        &mut self,
        host: &HostNetwork,
        wanted: &ServiceTable,
    ) -> Result<Synced, NetworkError> {
        let new = self.content(host, wanted);
        let (text, count) = text::replace(&new.content);
        self.commit(&text).await?;
        self.committed = Some(new);
        Ok(changed(true, count))
    }

    fn content(&self, host: &HostNetwork, wanted: &ServiceTable) -> Committed {
        let senders = self.senders();
        let content = Ruleset::of(host, &self.exposure, &senders, wanted);
        Committed {
            wanted: wanted.clone(),
            senders,
            content,
        }
    }

    fn senders(&self) -> Senders {
        let none = Peers::new();
        Senders::of(self.peers.as_ref().unwrap_or(&none), self.bridges.clone())
    }

    /// Changes the hosts whose packets are accepted. Before the first sync the hosts are only
    /// remembered.
    pub(crate) async fn set_peers(
        &mut self,
        host: &HostNetwork,
        peers: Peers,
    ) -> Result<(), NetworkError> {
        self.peers = Some(peers);
        self.sync_again(host).await
    }

    /// Changes the bridges whose packets count as this host's. Before the first sync the bridges
    /// are only remembered.
    pub(crate) async fn set_bridges(
        &mut self,
        host: &HostNetwork,
        bridges: BTreeSet<String>,
    ) -> Result<(), NetworkError> {
        self.bridges = bridges;
        self.sync_again(host).await
    }

    async fn sync_again(&mut self, host: &HostNetwork) -> Result<(), NetworkError> {
        if let Some(wanted) = self.wanted().cloned() {
            self.sync(host, &wanted).await?;
        }
        Ok(())
    }

    /// The hosts whose VXLAN packets are accepted; `None` until the first call that sets them.
    pub(crate) fn vxlan_peers(&self) -> Option<BTreeSet<Ipv4Addr>> {
        self.peers.as_ref().map(peer::vxlan_addresses)
    }

    /// The other hosts; `None` until the first call that sets them.
    pub(crate) fn peers(&self) -> Option<&Peers> {
        self.peers.as_ref()
    }

    /// What is open to all senders.
    pub(crate) fn exposure(&self) -> &Exposure {
        &self.exposure
    }

    /// Whether the table was committed with this content and the current senders.
    pub(crate) fn is_committed(&self, wanted: &ServiceTable) -> bool {
        self.committed.as_ref().is_some_and(|committed| {
            committed.wanted == *wanted && committed.senders == self.senders()
        })
    }

    /// Runs one transaction. If it was the only change since the last verification, everything
    /// counts as verified still.
    async fn commit(&mut self, text: &str) -> Result<(), NetworkError> {
        let before = generation()?;
        program::run(NFT, &["-f", "-"], text).await?;
        let after = generation()?;

        // Each transaction, of whatever program, adds one to the generation.
        let is_only_change = after == before.wrapping_add(1);
        if self.verified == Some(before) && is_only_change {
            self.verified = Some(after);
        } else {
            self.verified = None;
        }
        Ok(())
    }

    /// Compares the table with the committed content and repairs it. True if it differed. False if
    /// nothing is committed yet.
    pub(crate) async fn verify(&mut self, host: &HostNetwork) -> Result<bool, NetworkError> {
        let Some(committed) = &self.committed else {
            return Ok(false);
        };
        let listing = match program::run(NFT, &["-p", "list", "table", "ip", TABLE], "").await {
            Ok(listing) => listing,
            // The table is gone: an empty listing differs from any content.
            Err(NetworkError::Refused {
                kind: Refusal::Drifted,
                ..
            }) => String::new(),
            Err(error) => return Err(error),
        };
        if text::matches(&committed.content, &listing) {
            return Ok(false);
        }

        let wanted = committed.wanted.clone();
        self.replace(host, &wanted).await?;
        Ok(true)
    }

    /// The service table of the last commit; `None` before it.
    pub(crate) fn wanted(&self) -> Option<&ServiceTable> {
        self.committed.as_ref().map(|committed| &committed.wanted)
    }

    /// Whether nftables is unchanged since the last verification.
    pub(crate) fn is_undisturbed(&self) -> Result<bool, NetworkError> {
        Ok(self.verified.is_some() && self.verified == Some(generation()?))
    }

    /// Records that everything was verified, with the `generation` that was read before the
    /// verification.
    pub(crate) fn set_verified(&mut self, generation: u32) {
        self.verified = Some(generation);
    }
}

/// Removes the table. True if it existed.
pub(crate) async fn remove() -> Result<bool, NetworkError> {
    match program::run(NFT, &["delete", "table", "ip", TABLE], "").await {
        Ok(_) => Ok(true),
        Err(NetworkError::Refused {
            kind: Refusal::Drifted,
            ..
        }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The outside senders that the table has counted, those with the most packets first.
pub(crate) async fn outside_sources() -> Result<Vec<OutsideSource>, NetworkError> {
    let listing = match program::run(NFT, &["list", "set", "ip", TABLE, OUTSIDE_SOURCES], "").await
    {
        Ok(listing) => listing,
        // There is no table before the first cycle, and none of this version after an upgrade.
        Err(NetworkError::Refused {
            kind: Refusal::Drifted,
            ..
        }) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    Ok(text::counted_sources(&listing))
}

fn changed(replaced: bool, count: Count) -> Synced {
    Synced::Changed {
        replaced,
        added: count.added,
        removed: count.removed,
    }
}

/// The generation of nftables in this network namespace, which each change increases.
pub(crate) fn generation() -> Result<u32, NetworkError> {
    let request = || -> io::Result<u32> {
        let answer = Socket::netfilter()?.get(Message::new(GET_GENERATION, 0, &[0; 4]))?;
        // Behind `struct nfgenmsg` of four bytes; numbers of nftables are in network byte order.
        let attributes = answer.body.get(4..);
        let id = attributes.and_then(|attributes| attribute(attributes, GENERATION_ID));
        match id.and_then(|id| id.first_chunk()) {
            Some(bytes) => Ok(u32::from_be_bytes(*bytes)),
            None => Err(io::Error::from(io::ErrorKind::InvalidData)),
        }
    };
    request().map_err(|source| NetworkError::List {
        what: "nftables generation",
        source,
    })
}
