//! Keeps the table `ip windlass` as wanted: one `nft -f -` for a change, and none without a change.

use std::{collections::BTreeSet, io, net::Ipv4Addr};

use reconciler::network::{HostNetwork, ServiceTable};

use crate::{
    error::{NetworkError, Refusal},
    netlink::{Message, Socket, attribute},
    program,
    table::{Ruleset, TABLE},
    text::{self, Count},
};

const NFT: &str = "nft";
/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN`.
const GET_GENERATION: u16 = 10 << 8 | 16;
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
#[derive(Debug, Default)]
pub(crate) struct Nft {
    committed: Option<Committed>,
    /// The wanted VXLAN peers; `None` until the first call that sets them.
    vxlan_peers: Option<BTreeSet<Ipv4Addr>>,
    /// The nftables generation in which the table and the accept rules were last verified. Every
    /// change of nftables, also by iptables-nft, starts a new generation; no check is needed while
    /// the generation stays the same.
    verified: Option<u32>,
}

#[derive(Debug)]
struct Committed {
    wanted: ServiceTable,
    vxlan_peers: BTreeSet<Ipv4Addr>,
    content: Ruleset,
}

impl Nft {
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
        let vxlan_peers = self.vxlan_peers.clone().unwrap_or_default();
        let content = Ruleset::of(host, &vxlan_peers, wanted);
        Committed {
            wanted: wanted.clone(),
            vxlan_peers,
            content,
        }
    }

    /// Changes the set of hosts whose VXLAN packets are accepted. Before the first sync the hosts
    /// are only remembered.
    pub(crate) async fn set_vxlan_peers(
        &mut self,
        host: &HostNetwork,
        peers: BTreeSet<Ipv4Addr>,
    ) -> Result<(), NetworkError> {
        self.vxlan_peers = Some(peers);
        if let Some(wanted) = self.wanted().cloned() {
            self.sync(host, &wanted).await?;
        }
        Ok(())
    }

    /// The hosts whose VXLAN packets are accepted; `None` until the first call that sets them.
    pub(crate) fn vxlan_peers(&self) -> Option<&BTreeSet<Ipv4Addr>> {
        self.vxlan_peers.as_ref()
    }

    /// Whether the table was committed with this content and the current peers.
    pub(crate) fn is_committed(&self, wanted: &ServiceTable) -> bool {
        self.committed.as_ref().is_some_and(|committed| {
            committed.wanted == *wanted
                && self
                    .vxlan_peers
                    .as_ref()
                    .is_none_or(|peers| committed.vxlan_peers == *peers)
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

    /// Removes the table. True if it existed.
    pub(crate) async fn remove(&mut self) -> Result<bool, NetworkError> {
        self.committed = None;
        self.verified = None;
        match program::run(NFT, &["delete", "table", "ip", TABLE], "").await {
            Ok(_) => Ok(true),
            Err(NetworkError::Refused {
                kind: Refusal::Drifted,
                ..
            }) => Ok(false),
            Err(error) => Err(error),
        }
    }
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
