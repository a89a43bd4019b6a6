//! The host's network, its DNS server and its listener for other hosts, as the daemon opens them.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use netfilter::{Exposure, HostNet, Network, Obstacle};
use reconciler::{
    name::NodeName,
    network::{HostNetwork, PeerPath, VXLAN_OVERHEAD},
};
use tokio::{sync::Notify, task::JoinHandle};

use crate::{
    config::Config,
    dns::{Callers, Dns, cache::NamesFile, upstreams},
    peer::PeerHost,
    readdress::moved,
};

/// The port of every DNS server.
const DNS_PORT: u16 = 53;

/// The network of this host, prepared for pods.
pub(super) struct OpenedNetwork {
    /// The addresses and the MTU of this host's pods.
    pub(super) host: HostNetwork,
    /// What is open to other machines.
    pub(super) exposure: Exposure,
    pub(super) kernel: Arc<Network>,
    /// Settings of the host that keep packets from pods.
    pub(super) obstacles: Vec<Obstacle>,
    pub(super) dns: Dns,
    pub(super) names: NamesFile,
    /// The listener for other hosts; `None` without a certificate.
    pub(super) peers: Option<PeerHost>,
}

impl OpenedNetwork {
    /// Binds the listener for other hosts, prepares the kernel, and starts the DNS server. `subnet`
    /// is the pod subnet that the cluster has assigned to this host.
    pub(super) async fn open(
        config: &Config,
        data: &Path,
        node: &NodeName,
        subnet: Option<Ipv4Net>,
        exposure: Exposure,
    ) -> Result<Self> {
        let mut host = config.host_network(subnet)?;
        let peers = PeerHost::bind(&config.peer_directory(), node, config.peer.listen, || {
            config.peer_address()
        })
        .await?;

        let record = netfilter::record_path(data);
        let kernel = Arc::new(Network::open(host.clone(), exposure.clone(), &record).await?);
        kernel
            .prepare()
            .await
            .context("prepare the host's network")?;
        if config.is_clustered() {
            let overhead = match config.network.path {
                PeerPath::Vxlan => VXLAN_OVERHEAD,
                PeerPath::Direct => 0,
            };
            let uplink = kernel.uplink_mtu().await?;
            host.mtu = host.mtu.min(uplink).saturating_sub(overhead);
        }
        let obstacles = kernel.obstacles().await?;
        for obstacle in &obstacles {
            tracing::warn!("{obstacle}");
        }

        let resolv_conf = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let names = NamesFile::in_dir(data);
        let dns = Dns::start(
            SocketAddrV4::new(host.dns, DNS_PORT),
            names.read(&config.network.zone),
            Callers::of(kernel.dns_callers().await),
            upstreams(&resolv_conf),
        )
        .context("start the DNS server")?;
        Ok(Self {
            host,
            exposure,
            kernel,
            obstacles,
            dns,
            names,
            peers,
        })
    }

    /// The address at which other hosts' daemons reach this host.
    pub(super) fn peer_address(&self) -> Option<SocketAddr> {
        let address = self.peers.as_ref()?.address();
        if address.ip().is_unspecified() {
            Some((self.host.node_address, address.port()).into())
        } else {
            Some(address)
        }
    }
}

/// Ends the daemon when this host gets another address, unless the configuration names the address.
pub(super) fn watch_address(
    config: &Config,
    from: Ipv4Addr,
    end: &Arc<Notify>,
) -> Option<JoinHandle<()>> {
    if config.node.address.is_some() {
        return None;
    }
    let end = Arc::clone(end);
    Some(tokio::spawn(async move {
        let to = moved(from).await;
        tracing::warn!("this host's address was {from} and is {to} now: the daemon restarts");
        end.notify_one();
    }))
}
