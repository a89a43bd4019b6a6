//! The network of one host: what the control loop calls.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use ipnet::Ipv4Net;
use reconciler::{
    name::LinkName,
    network::{HostNetwork, Peers, PodLink, ServiceTable},
};
use tokio::sync::{Mutex, watch};

use crate::{
    accept,
    bridge::{self, Locals},
    conntrack::{self, Changed},
    device,
    drift::Drift,
    error::NetworkError,
    exposure::{Exposed, Exposure, OutsideSource},
    forwarding, link,
    netlink::Socket,
    nft::{self, Nft, Synced},
    peer,
    record::RecordFile,
    route,
    watch::{self as events, Watch},
};

mod obstacle;
mod uninstall;

pub use obstacle::Obstacle;
pub use uninstall::{Removed, uninstall};

/// A check after a repair is repeated until nothing was left to repair, at most this many times.
const REPAIR_ROUNDS: usize = 3;

/// The seam between the control loop and the host's network: the real one, or
/// [`crate::fake::FakeNet`].
#[async_trait]
pub trait HostNet: Send + Sync {
    /// Enables forwarding, and creates the service device, its route and the accept rules.
    /// Idempotent.
    async fn prepare(&self) -> Result<(), NetworkError>;
    /// Creates the link of a pod. Idempotent.
    async fn connect(&self, link: &PodLink, netns: OwnedFd) -> Result<(), NetworkError>;
    /// Removes the link of a pod by its name. A link that is gone is not an error.
    async fn disconnect(&self, name: &LinkName) -> Result<(), NetworkError>;
    /// The names of the complete links.
    async fn links(&self) -> Result<BTreeSet<LinkName>, NetworkError>;
    /// Changes the nftables table to this content.
    async fn sync(&self, table: &ServiceTable) -> Result<Synced, NetworkError>;
    /// Makes the pods of exactly these hosts reachable, and accepts VXLAN packets from these hosts
    /// only. Before the first call everything stays as an earlier run of the daemon left it; call
    /// it before the first [`sync`](Self::sync). A call with the peers of the last successful call
    /// changes nothing: [`resync`](Self::resync) repairs what others have changed.
    ///
    /// The error is the first of several; everything that could be done has been done, and the next
    /// call tries the rest.
    async fn set_peers(&self, peers: &Peers) -> Result<(), NetworkError>;
    /// Detects objects of Windlass that another program or a person has changed, repairs them, and
    /// returns the drift.
    async fn resync(&self) -> Result<Vec<Drift>, NetworkError>;
    /// The networks of those who may ask the cluster's DNS: pods, this host with its other
    /// containers, and peers, as the last of the other calls observed them. `None` if everybody
    /// may.
    async fn dns_callers(&self) -> Option<BTreeSet<Ipv4Net>>;
    /// The senders from outside whose new connections the table has counted since it was made,
    /// those with the most packets first.
    async fn outside_sources(&self) -> Result<Vec<OutsideSource>, NetworkError>;
}

/// The peers of the last call of `set_peers`.
#[derive(Debug)]
struct KnownPeers {
    wanted: Arc<Peers>,
    /// Whether everything for these peers succeeded.
    done: bool,
}

/// The network of this host, in the network namespace in which it was opened.
#[derive(Debug)]
pub struct Network {
    host: Arc<HostNetwork>,
    record: RecordFile,
    nft: Arc<Mutex<Nft>>,
    locals: Mutex<Locals>,
    peers: Mutex<Option<KnownPeers>>,
    watch: Watch,
    legacy_iptables: bool,
}

impl Network {
    /// Starts to watch the host's links, routes and nftables. Changes nothing yet.
    ///
    /// `record` is a file in the data directory that holds the host's settings from before, for
    /// [`uninstall()`].
    pub async fn open(
        host: HostNetwork,
        exposure: Exposure,
        record: &Path,
    ) -> Result<Self, NetworkError> {
        let record = RecordFile::at(record);
        // A record that cannot be read, perhaps one of a newer version, is reported now and not
        // when it is needed.
        record.read()?;
        let nft = Arc::new(Mutex::new(Nft::new(exposure)));
        Ok(Self {
            host: Arc::new(host),
            record,
            nft: Arc::clone(&nft),
            locals: Mutex::default(),
            peers: Mutex::default(),
            watch: events::start(nft)?,
            legacy_iptables: accept::is_legacy().await,
        })
    }

    /// A counter that increases whenever a link or route of Windlass may have been removed, or
    /// another program has changed nftables.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.watch.changes.clone()
    }

    /// The pod address that each complete pod link leads to, by the link's name.
    pub async fn addresses(&self) -> Result<BTreeMap<LinkName, Ipv4Addr>, NetworkError> {
        blocking(|| link::addresses(&Socket::route().map_err(NetworkError::Netlink)?)).await
    }

    /// Firewalls of this host that may drop pod traffic and in which Windlass sets no rules.
    pub async fn obstacles(&self) -> Result<Vec<Obstacle>, NetworkError> {
        let tunnels = self
            .nft
            .lock()
            .await
            .vxlan_peers()
            .is_some_and(|peers| !peers.is_empty());
        obstacle::find(&self.host, tunnels).await
    }

    /// The MTU, in bytes, of the device that carries the node address.
    /// [`pod_mtu`](reconciler::network::pod_mtu) computes the MTU of pod links from it.
    pub async fn uplink_mtu(&self) -> Result<u32, NetworkError> {
        let node_address = self.host.node_address;
        blocking(move || {
            link::uplink_mtu(
                &Socket::route().map_err(NetworkError::Netlink)?,
                node_address,
            )
        })
        .await
    }

    /// The part of `prepare` that uses netlink.
    async fn ensure_host_settings(&self) -> Result<Vec<Drift>, NetworkError> {
        let (host, record) = (Arc::clone(&self.host), self.record.clone());
        blocking(move || {
            let socket = Socket::route().map_err(NetworkError::Netlink)?;
            let mut repaired = Vec::new();
            if forwarding::ensure(&record)? {
                repaired.push(Drift::Forwarding);
            }
            // The route of the service range leads into the device, so the device comes first.
            if route::ensure_device(&socket, &host)? {
                repaired.push(Drift::ServiceDevice);
            }
            if route::ensure_service_route(&socket, &host)? {
                repaired.push(Drift::ServiceRoute);
            }
            Ok(repaired)
        })
        .await
    }

    /// Reads this host's addresses and bridges, and admits the bridges of its other containers.
    async fn admit_locals(&self) -> Result<(), NetworkError> {
        let node_address = self.host.node_address;
        let locals = blocking(move || {
            bridge::locals(
                &Socket::route().map_err(NetworkError::Netlink)?,
                node_address,
            )
        })
        .await?;
        let bridges = locals.bridges.clone();
        *self.locals.lock().await = locals;
        self.nft.lock().await.set_bridges(&self.host, bridges).await
    }

    /// The part of `set_peers` that uses netlink. The outer error means that nothing could be done.
    async fn ensure_peer_paths(&self, peers: Arc<Peers>) -> Result<peer::Outcome, NetworkError> {
        let host = Arc::clone(&self.host);
        blocking(move || {
            Ok(peer::ensure(
                &Socket::route().map_err(NetworkError::Netlink)?,
                &host,
                &peers,
            ))
        })
        .await
    }

    /// The part of `set_peers` that uses nftables and iptables.
    async fn admit_peers(&self, peers: &Peers) -> Result<(), NetworkError> {
        let mut nft = self.nft.lock().await;
        nft.set_peers(&self.host, peers.clone()).await?;
        accept::ensure(&self.host, nft.vxlan_peers().as_ref()).await?;
        Ok(())
    }

    /// The part of `resync` that uses nftables. It costs one request to the kernel while nftables
    /// is unchanged.
    async fn repair_filters(&self) -> Result<BTreeSet<Drift>, NetworkError> {
        let mut nft = self.nft.lock().await;
        let mut repaired = BTreeSet::new();
        for _ in 0..REPAIR_ROUNDS {
            let undisturbed = nft.is_undisturbed()?;
            // Legacy iptables has chains of its own in the kernel, and a change of them starts no
            // new generation of nftables.
            if undisturbed && !self.legacy_iptables {
                break;
            }

            // Read before the checks: what another program changes during them has a later
            // generation, and is checked the next time.
            let generation = nft::generation()?;
            let rules_differed = accept::ensure(&self.host, nft.vxlan_peers().as_ref()).await?;
            if rules_differed {
                repaired.insert(Drift::AcceptRules);
            }
            let table_differed = !undisturbed && nft.verify(&self.host).await?;
            if table_differed {
                repaired.insert(Drift::Table);
            }

            // A repair is a change too: only a round without a repair counts as a verification.
            if !rules_differed && !table_differed {
                nft.set_verified(generation);
                break;
            }
        }
        Ok(repaired)
    }

    /// Deletes the UDP flows that the new table sends elsewhere. If the kernel refuses, only these
    /// flows keep their old endpoint.
    async fn delete_stale_flows(&self, changed: Changed) {
        let deleted = blocking(move || {
            let socket = Socket::route().map_err(NetworkError::Netlink)?;
            let local = route::addresses(&socket)?
                .into_iter()
                .map(|(_, address)| address)
                .collect();
            conntrack::delete_stale(&changed, &local).map_err(|source| NetworkError::List {
                what: "tracked connections",
                source,
            })
        });
        match deleted.await {
            Ok(count) => tracing::debug!(count, "stale UDP flows deleted"),
            Err(error) => tracing::warn!(%error, "stale UDP flows may be left until they time out"),
        }
    }
}

#[async_trait]
impl HostNet for Network {
    async fn prepare(&self) -> Result<(), NetworkError> {
        self.ensure_host_settings().await?;
        self.admit_locals().await?;
        self.repair_filters().await?;
        Ok(())
    }

    async fn connect(&self, link: &PodLink, netns: OwnedFd) -> Result<(), NetworkError> {
        let (link, node_address) = (link.clone(), self.host.node_address);
        blocking(move || link::connect(&link, &netns, node_address)).await
    }

    async fn disconnect(&self, name: &LinkName) -> Result<(), NetworkError> {
        let link = name.to_string();
        blocking(move || {
            let socket = Socket::route().map_err(NetworkError::Netlink)?;
            device::remove(&socket, &link)
                .map_err(|source| NetworkError::Disconnect { link, source })
        })
        .await
    }

    async fn links(&self) -> Result<BTreeSet<LinkName>, NetworkError> {
        blocking(|| link::complete(&Socket::route().map_err(NetworkError::Netlink)?)).await
    }

    async fn sync(&self, table: &ServiceTable) -> Result<Synced, NetworkError> {
        let mut nft = self.nft.lock().await;
        if nft.is_committed(table) {
            return Ok(Synced::Unchanged);
        }
        let changed = Changed::between(nft.wanted().unwrap_or(&ServiceTable::default()), table);
        let synced = nft.sync(&self.host, table).await?;
        // Connection tracking is dumped without the lock: on a host with many flows that takes
        // time. After the sync, no new flow gets an endpoint of the old table.
        drop(nft);
        if !changed.is_empty() {
            self.delete_stale_flows(changed).await;
        }
        Ok(synced)
    }

    async fn set_peers(&self, peers: &Peers) -> Result<(), NetworkError> {
        let mut last_call = self.peers.lock().await;
        if let Some(known) = &*last_call
            && known.done
            && *known.wanted == *peers
        {
            return Ok(());
        }
        let wanted = Arc::new(peers.clone());
        let known = last_call.insert(KnownPeers {
            wanted: Arc::clone(&wanted),
            done: false,
        });

        // The paths are changed even if a filter could not be: both are tried, and then the first
        // error is returned.
        let admitted = self.admit_peers(peers).await;
        let outcome = self.ensure_peer_paths(wanted).await?;
        admitted?;
        known.done = outcome.failed.is_none();
        match outcome.failed {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }

    async fn resync(&self) -> Result<Vec<Drift>, NetworkError> {
        let mut drift = self.ensure_host_settings().await?;
        self.admit_locals().await?;
        drift.extend(self.repair_filters().await?);

        // Before the first call of `set_peers` the peers are unknown, and the paths of an earlier
        // run of the daemon stay.
        if let Some(known) = &mut *self.peers.lock().await {
            let outcome = self.ensure_peer_paths(Arc::clone(&known.wanted)).await?;
            known.done = outcome.failed.is_none();
            drift.extend(outcome.drift);
            if let Some(error) = outcome.failed {
                return Err(error);
            }
        }
        Ok(drift)
    }

    async fn dns_callers(&self) -> Option<BTreeSet<Ipv4Net>> {
        let nft = self.nft.lock().await;
        if nft.exposure().opens(Exposed::Dns) {
            return None;
        }
        let peers = nft.peers().into_iter().flat_map(Peers::values);
        let of_peers = peers.flat_map(|peer| [peer.address.into(), peer.pod_subnet.trunc()]);
        let locals = self.locals.lock().await;
        let mut callers: BTreeSet<Ipv4Net> = of_peers.chain(locals.networks.clone()).collect();
        callers.insert(self.host.pod_subnet.trunc());
        // Every address of this network is the host's own.
        callers.insert(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8));
        Some(callers)
    }

    async fn outside_sources(&self) -> Result<Vec<OutsideSource>, NetworkError> {
        outside_sources().await
    }
}

/// The senders from outside that the table on this host has counted, those with the most packets
/// first. It needs no daemon.
pub async fn outside_sources() -> Result<Vec<OutsideSource>, NetworkError> {
    nft::outside_sources().await
}

/// Runs blocking netlink calls on a thread where blocking is allowed.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NetworkError> + Send + 'static,
) -> Result<T, NetworkError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(NetworkError::Stopped))
}

/// The path of the record in a data directory.
pub fn record_path(data: &Path) -> PathBuf {
    data.join("network.json")
}
