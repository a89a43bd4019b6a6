//! Keeps the table `ip windlass` as wanted: one `nft -f -` for a change, and none for no change.

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
    /// The table already said so; nothing was called.
    Unchanged,
    /// The table was changed.
    Changed {
        /// The whole table was replaced: the first sync, or somebody else had changed it.
        replaced: bool,
        /// Elements put in.
        added: usize,
        /// Elements taken out.
        removed: usize,
    },
}

/// The table as it was last committed.
#[derive(Debug, Default)]
pub(crate) struct Nft {
    committed: Option<Committed>,
    /// The hosts that packets are unpacked from, as wanted; unknown until somebody says so.
    vxlan_peers: Option<BTreeSet<Ipv4Addr>>,
    /// The generation of nftables in which everything of ours was found as it should be. Whoever
    /// changes anything in nftables, iptables-nft included, makes a new one; as long as it stays
    /// there is nothing to look for.
    verified: Option<u32>,
}

#[derive(Debug)]
struct Committed {
    wanted: ServiceTable,
    vxlan_peers: BTreeSet<Ipv4Addr>,
    content: Ruleset,
}

impl Nft {
    /// Makes the table say what is wanted.
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
            Err(NetworkError::Refused {
                kind: Refusal::Drifted,
                ..
            }) => self.replace(host, wanted).await,
            Err(error) => Err(error),
        }
    }

    /// Puts the whole table in place of whatever is there, atomically.
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

    /// Makes the table unpack VXLAN packets of these hosts only. Before the first sync it only
    /// remembers them.
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

    /// The hosts that packets are unpacked from; `None` while nobody has said so.
    pub(crate) fn vxlan_peers(&self) -> Option<&BTreeSet<Ipv4Addr>> {
        self.vxlan_peers.as_ref()
    }

    /// Whether the table was made to say this, for the peers there are now.
    pub(crate) fn is_committed(&self, wanted: &ServiceTable) -> bool {
        self.committed.as_ref().is_some_and(|committed| {
            committed.wanted == *wanted
                && self
                    .vxlan_peers
                    .as_ref()
                    .is_none_or(|peers| committed.vxlan_peers == *peers)
        })
    }

    /// Runs one transaction. If it was the only one since everything was verified, everything still
    /// is.
    async fn commit(&mut self, text: &str) -> Result<(), NetworkError> {
        let before = generation()?;
        program::run(NFT, &["-f", "-"], text).await?;
        let after = generation()?;
        let undisturbed = self.verified == Some(before) && after == before.wrapping_add(1);
        self.verified = undisturbed.then_some(after);
        Ok(())
    }

    /// Looks whether the table is as committed, and puts it right. True if it was not. Nothing
    /// committed yet is nothing to look for.
    pub(crate) async fn verify(&mut self, host: &HostNetwork) -> Result<bool, NetworkError> {
        let Some(committed) = &self.committed else {
            return Ok(false);
        };
        let listing = match program::run(NFT, &["-p", "list", "table", "ip", TABLE], "").await {
            Ok(listing) => listing,
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

    /// What the table was last made to say.
    pub(crate) fn wanted(&self) -> Option<&ServiceTable> {
        self.committed.as_ref().map(|committed| &committed.wanted)
    }

    /// Whether nobody has touched nftables since everything was verified.
    pub(crate) fn is_undisturbed(&self) -> Result<bool, NetworkError> {
        Ok(self.verified.is_some() && self.verified == Some(generation()?))
    }

    /// Everything was found as it should be, and `generation` was read before that.
    pub(crate) fn set_verified(&mut self, generation: u32) {
        self.verified = Some(generation);
    }

    /// Removes the table. True if there was one.
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

/// The number that each change of nftables in this network namespace increases.
pub(crate) fn generation() -> Result<u32, NetworkError> {
    let ask = || -> io::Result<u32> {
        let answer = Socket::netfilter()?.get(Message::new(GET_GENERATION, 0, &[0; 4]))?;
        let id = answer
            .body
            .get(4..)
            .and_then(|rest| attribute(rest, GENERATION_ID));
        id.and_then(|id| id.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)))
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    };
    ask().map_err(|source| NetworkError::List {
        what: "nftables generation",
        source,
    })
}
