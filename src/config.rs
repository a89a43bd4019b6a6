//! The one configuration tree: read once from a TOML file and the flags of `run`; each part gets
//! its section.
//!
//! No commit can change a setting: the configuration limits what a commit may request.

mod check;
mod cluster;
mod detect;
mod docker;
mod forbidden_paths;
mod parse;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use ipnet::Ipv4Net;
use netfilter::Exposed;
use reconciler::{
    name::{CommitId, NodeName},
    network::{HostNetwork, PeerPath, VxlanSettings},
    object::Taint,
    settings::{ClusterSettings, RolloutSettings, ServiceRanges},
};
use serde::Deserialize;

use crate::source::{sandbox::UserIds, verify::Mode};

use self::parse::{duration, taints};
pub(crate) use cluster::{PeerConfig, StoreConfig};
pub(crate) use detect::{dns_facts, node_address};
pub(crate) use docker::DockerConfig;
use docker::{DockerLogsConfig, RegistryConfig};

/// The data directory, unless the configuration names another one.
pub(crate) const DEFAULT_DATA_DIR: &str = "/var/lib/windlass";
/// The directory of the sockets, unless the configuration names another one.
pub(crate) const DEFAULT_SOCKET_DIR: &str = "/run/windlass";

/// The whole configuration. Every section may be left out but the repository's URL.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Config {
    /// The data directory: state, mirror of the repository, files of pods. Default
    /// `/var/lib/windlass`.
    pub(crate) data_dir: Option<PathBuf>,
    /// The file that the configuration was read from; `None` without a file.
    #[serde(skip)]
    pub(crate) file: Option<PathBuf>,
    /// The directory of `windlass.sock` and `admin.sock`. Default `/run/windlass`.
    pub(crate) socket_dir: Option<PathBuf>,
    /// The repository that commits come from.
    pub(crate) source: SourceConfig,
    /// Whose commits are trusted.
    pub(crate) trust: TrustConfig,
    /// This host as a node: its name, address, labels and taints.
    pub(crate) node: NodeConfig,
    /// The store that the hosts of a cluster share.
    pub(crate) store: StoreConfig,
    /// The addresses of pods, Services and DNS.
    pub(crate) network: NetworkConfig,
    /// The limits and times of a rollout.
    pub(crate) rollout: RolloutConfig,
    /// The container engine and its registries.
    pub(crate) docker: DockerConfig,
    /// What a commit may request of this host.
    pub(crate) allow: AllowConfig,
    /// The addresses of the listeners for metrics, webhooks and kubectl.
    pub(crate) listen: ListenConfig,
    /// The secret of webhooks.
    pub(crate) webhook: WebhookConfig,
    /// The listener for the other hosts of the cluster.
    pub(crate) peer: PeerConfig,
}

/// The repository that commits come from.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct SourceConfig {
    /// A path, `file://`, `https://` or `ssh://`. No default.
    pub(crate) url: String,
    /// The branch that is followed. Default `main`.
    pub(crate) branch: String,
    /// Directories or files with manifests, from the repository's root. Default the whole
    /// repository.
    pub(crate) paths: Vec<String>,
    /// The interval of fetches, with jitter. Default `15s`.
    #[serde(deserialize_with = "duration")]
    pub(crate) poll: Duration,
    /// The time limit of a fetch. Default `2m`.
    #[serde(deserialize_with = "duration")]
    pub(crate) deadline: Duration,
    /// The size limit of a fetch, in bytes received. Default 512 MiB.
    pub(crate) max_bytes: u64,
    /// The size limit of one object of the repository, inflated, in bytes. Default 64 MiB.
    pub(crate) max_object_bytes: u64,
    /// The size limit of the mirror, in bytes. Default 4 GiB.
    pub(crate) max_mirror_bytes: u64,
    /// The file with a forge's access token. Default none.
    pub(crate) token_file: Option<PathBuf>,
    /// The user for basic authentication. Default none.
    pub(crate) user: Option<String>,
    /// The file with the password of `user`. Default none.
    pub(crate) password_file: Option<PathBuf>,
    /// The file with the private key for ssh. Default none.
    pub(crate) ssh_key_file: Option<PathBuf>,
    /// The file with the keys of ssh servers, in the format of OpenSSH's `known_hosts`. Default none.
    pub(crate) known_hosts_file: Option<PathBuf>,
    /// The file with the only authorities that may vouch for an https server. Default the system's.
    pub(crate) ca_file: Option<PathBuf>,
    /// The user that downloads and reads what a remote sends. Default `windlass-fetch`, if there is
    /// that user.
    pub(crate) fetch_user: Option<String>,
}

impl Default for SourceConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            branch: "main".to_owned(),
            paths: Vec::new(),
            poll: Duration::from_secs(15),
            deadline: Duration::from_secs(120),
            max_bytes: 512 * 1024 * 1024,
            max_object_bytes: 64 * 1024 * 1024,
            max_mirror_bytes: 4 * 1024 * 1024 * 1024,
            token_file: None,
            user: None,
            password_file: None,
            ssh_key_file: None,
            known_hosts_file: None,
            ca_file: None,
            fetch_user: None,
        }
    }
}

/// The user of fetches if the configuration names none.
const FETCH_USER: &str = "windlass-fetch";

impl SourceConfig {
    /// The user of fetches; `None` if none is configured, and the host has not the usual one.
    pub(crate) fn fetch_user(&self) -> Result<Option<UserIds>> {
        let name = self.fetch_user.as_deref().unwrap_or(FETCH_USER);
        let user = UserIds::named(name).with_context(|| format!("look up the user {name}"))?;
        if self.fetch_user.is_some() {
            ensure!(
                user.is_some(),
                "[source] fetch-user: there is no user {name} in /etc/passwd; make it, as README.md shows"
            );
            ensure!(
                !user.is_some_and(UserIds::is_root),
                "[source] fetch-user: {name} is root; name a user without rights"
            );
        }
        Ok(user)
    }
}

/// Whose commits are trusted.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct TrustConfig {
    /// `mainline`, `all`, `head` or `off`. Default `mainline`.
    pub(crate) mode: Mode,
    /// The file of trusted keys: git's `gpg.ssh.allowedSignersFile`. Needed unless the mode is `off`
    /// or there is an anchor.
    pub(crate) allowed_signers: Option<PathBuf>,
    /// The commit that every head must descend from. Default none.
    pub(crate) anchor: Option<CommitId>,
    /// Whether a head is accepted that does not descend from the verified commit. Default false.
    pub(crate) allow_rewrite: bool,
}

/// This host as a node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct NodeConfig {
    /// The name of the node. Default the host name.
    pub(crate) name: Option<String>,
    /// The IPv4 address of this host. Default the source address of the default route.
    pub(crate) address: Option<Ipv4Addr>,
    /// Labels of the node, beside `kubernetes.io/hostname`, `kubernetes.io/os` and `kubernetes.io/arch`.
    pub(crate) labels: BTreeMap<String, String>,
    /// Taints of the node, as `key=value:NoSchedule`, beside those of its `Node` manifest in Git.
    /// Default none.
    #[serde(deserialize_with = "taints")]
    pub(crate) taints: Vec<Taint>,
    /// The most pods of the node. Default 250.
    pub(crate) max_pods: Option<usize>,
}

/// The addresses of pods, Services and DNS.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct NetworkConfig {
    /// The addresses of all pods of the cluster. Default `10.244.0.0/16`.
    pub(crate) pod_range: Ipv4Net,
    /// The part of `pod-range` for the pods of this host. Default the first /24; in a cluster the
    /// first one that no node has, reserved under the node's name.
    pub(crate) pod_subnet: Option<Ipv4Net>,
    /// The networks that the addresses of other hosts must lie in. Default any.
    pub(crate) node_ranges: Vec<Ipv4Net>,
    /// The addresses of Services. Default `10.96.0.0/16`.
    pub(crate) service_range: Ipv4Net,
    /// The address of the cluster's DNS. Default the tenth address of `service-range`.
    pub(crate) dns: Option<Ipv4Addr>,
    /// The DNS zone of the cluster. Default `cluster.local`.
    pub(crate) zone: String,
    /// The largest MTU of pod links, in bytes. Default 1500; in a cluster it is at most the uplink's,
    /// less 50 with VXLAN.
    pub(crate) mtu: u32,
    /// How packets reach the pods of other hosts: `vxlan`, or `direct` where all hosts are on one
    /// link that forwards the addresses of pods. Default `vxlan`.
    pub(crate) path: PeerPath,
    /// The identifier and the UDP port of the VXLAN, the same on all hosts. Default
    /// `{ id = 87, port = 8487 }`.
    pub(crate) vxlan: VxlanSettings,
    /// The first node port. Default 30000.
    pub(crate) node_port_first: u16,
    /// The last node port. Default 32767.
    pub(crate) node_port_last: u16,
    /// How long a stopping pod that takes traffic drains before its containers are stopped. Default
    /// `2s`.
    #[serde(deserialize_with = "duration")]
    pub(crate) drain_delay: Duration,
    /// What the host's whole network may reach, of `dns`, `pods` and `services`. Default none; an
    /// installation that is older than this setting keeps all of it open until the setting is
    /// written.
    pub(crate) expose: Option<std::collections::BTreeSet<Exposed>>,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            pod_range: Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16),
            pod_subnet: None,
            node_ranges: Vec::new(),
            service_range: Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16),
            dns: None,
            zone: "cluster.local".to_owned(),
            mtu: 1500,
            path: PeerPath::Vxlan,
            vxlan: VxlanSettings::default(),
            node_port_first: 30000,
            node_port_last: 32767,
            drain_delay: Duration::from_secs(2),
            expose: None,
        }
    }
}

/// The limits and times of a rollout.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct RolloutConfig {
    /// How long all workloads must stay settled before the commit is healthy. Default `10s`.
    #[serde(deserialize_with = "duration")]
    pub(crate) soak: Duration,
    /// The time in which the changed workloads must make progress towards being settled. Default
    /// `10m`.
    #[serde(deserialize_with = "duration")]
    pub(crate) deadline: Duration,
    /// The share of workloads, in per cent, that a commit may delete without the trailer
    /// `Windlass-Allow-Deletions`. Default 30.
    pub(crate) deletion_percent: u32,
    /// How many nodes may be at fault themselves before the commit fails. Default 1, or 5 % of the
    /// nodes if that is more.
    pub(crate) max_faulty_nodes: Option<usize>,
    /// The canaries: the nodes on which a commit is rolled out first. Default none.
    pub(crate) canary_nodes: std::collections::BTreeSet<NodeName>,
    /// How long all workloads must stay settled on the canaries before the other nodes follow.
    /// Default `30s`.
    #[serde(deserialize_with = "duration")]
    pub(crate) canary_soak: Duration,
    /// On how many nodes an image is pulled before its commit is driving, beyond the nodes where its
    /// pods would be placed. Default 2.
    pub(crate) spare_images: usize,
    /// How many commits back a rollback may go. Default 10.
    pub(crate) history: usize,
    /// The interval at which the whole state is observed again, in case an event was lost. Default
    /// `1m`.
    #[serde(deserialize_with = "duration")]
    pub(crate) resync: Duration,
}

impl Default for RolloutConfig {
    fn default() -> Self {
        let RolloutSettings {
            soak,
            deadline,
            deletion_percent,
            max_faulty_nodes,
            canary_nodes,
            canary_soak,
            spare_images,
        } = RolloutSettings::default();
        Self {
            soak,
            deadline,
            deletion_percent,
            max_faulty_nodes,
            canary_nodes,
            canary_soak,
            spare_images,
            history: 10,
            resync: Duration::from_secs(60),
        }
    }
}

/// What a commit may request of this host. As permissive as Kubernetes by default; the daemon's own
/// directories are always refused.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct AllowConfig {
    /// Whether containers may be privileged. Default true.
    pub(crate) privileged: bool,
    /// Whether pods may use `hostNetwork`, `hostPID` and `hostIPC`. Default true.
    pub(crate) host_namespaces: bool,
    /// The directories that a hostPath must lie under. Default any.
    pub(crate) host_paths: Option<Vec<String>>,
    /// The capabilities that containers may add, without `CAP_`. Default any.
    pub(crate) capabilities: Option<std::collections::BTreeSet<String>>,
}

impl Default for AllowConfig {
    fn default() -> Self {
        Self {
            privileged: true,
            host_namespaces: true,
            host_paths: None,
            capabilities: None,
        }
    }
}

/// The addresses of the listeners for metrics, webhooks and kubectl.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ListenConfig {
    /// The address for `/metrics`, `/healthz` and `/readyz`. Default `127.0.0.1:9464`.
    pub(crate) metrics: Option<SocketAddr>,
    /// The address for `/webhook/github` and `/webhook/generic`. Default that of `metrics`.
    pub(crate) webhook: Option<SocketAddr>,
    /// The address of the read-only Kubernetes API over TLS. Default none.
    pub(crate) api: Option<SocketAddr>,
    /// The file with the bearer token that kubectl must send. Needed with `api`.
    pub(crate) api_token_file: Option<PathBuf>,
    /// The PEM file with the certificate chain of `api`. Needed with `api`.
    pub(crate) api_certificate: Option<PathBuf>,
    /// The PEM file with the key of that certificate. Needed with `api`.
    pub(crate) api_key: Option<PathBuf>,
}

/// The secret of webhooks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct WebhookConfig {
    /// The file with the secret that the forge has too, of at least 16 characters. Default none: no
    /// webhook is accepted.
    pub(crate) secret_file: Option<PathBuf>,
}

impl Config {
    /// Reads a configuration file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("read configuration {}", path.display()))?;
        let config: Self =
            toml::from_str(&text).with_context(|| format!("configuration {}", path.display()))?;
        Ok(Self {
            file: Some(path.to_owned()),
            ..config
        })
    }

    /// The directory of the state, of the mirror and of pods' files.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.data_dir
            .clone()
            .unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR))
    }

    /// The directory of `windlass.sock` and `admin.sock`.
    pub(crate) fn socket_dir(&self) -> PathBuf {
        self.socket_dir
            .clone()
            .unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET_DIR))
    }

    /// The directory of the certificates for other hosts, and of their keys.
    pub(crate) fn peer_directory(&self) -> PathBuf {
        self.peer
            .directory
            .clone()
            .unwrap_or_else(|| self.data_dir().join("peer"))
    }

    /// The address at which this host listens for other hosts.
    pub(crate) fn peer_address(&self) -> Result<SocketAddr> {
        let port = self
            .peer
            .listen
            .map_or(crate::peer::PEER_PORT, |listen| listen.port());
        if let Some(listen) = self.peer.listen
            && !listen.ip().is_unspecified()
        {
            return Ok(listen);
        }
        let address = match self.node.address {
            Some(address) => address,
            None => node_address()?,
        };
        Ok(SocketAddr::from((address, port)))
    }

    /// The name of this host as a node.
    pub(crate) fn node_name(&self) -> Result<NodeName> {
        match &self.node.name {
            Some(name) => Ok(NodeName::new(name.clone())),
            None => detect::host_name().map(NodeName::new),
        }
    }

    /// The network of this host; `subnet` is its pod subnet in a cluster, reserved in the store.
    pub(crate) fn host_network(&self, subnet: Option<Ipv4Net>) -> Result<HostNetwork> {
        let node_address = match self.node.address {
            Some(address) => address,
            None => node_address()?,
        };
        Ok(HostNetwork {
            pod_range: self.network.pod_range,
            pod_subnet: subnet.unwrap_or_else(|| self.pod_subnet()),
            service_range: self.network.service_range,
            dns: self.dns_address(),
            node_address,
            mtu: self.network.mtu,
            vxlan: VxlanSettings::default(),
        })
    }

    fn pod_subnet(&self) -> Ipv4Net {
        let first = || {
            let length = self.network.pod_range.prefix_len().max(24);
            Ipv4Net::new(self.network.pod_range.network(), length).unwrap_or(self.network.pod_range)
        };
        self.network.pod_subnet.unwrap_or_else(first)
    }

    fn dns_address(&self) -> Ipv4Addr {
        let tenth =
            || Ipv4Addr::from(u32::from(self.network.service_range.network()).saturating_add(10));
        self.network.dns.unwrap_or_else(tenth)
    }

    /// The limits and times of the leader's decisions.
    pub(crate) fn cluster_settings(&self) -> ClusterSettings {
        ClusterSettings {
            rollout: RolloutSettings {
                soak: self.rollout.soak,
                deadline: self.rollout.deadline,
                deletion_percent: self.rollout.deletion_percent,
                max_faulty_nodes: self.rollout.max_faulty_nodes,
                canary_nodes: self.rollout.canary_nodes.clone(),
                canary_soak: self.rollout.canary_soak,
                spare_images: self.rollout.spare_images,
            },
            ranges: ServiceRanges {
                addresses: self.network.service_range,
                dns: self.dns_address(),
                node_ports: self.network.node_port_first..=self.network.node_port_last,
            },
            max_pods: self.node.max_pods.unwrap_or(250),
        }
    }
}

/// A secret from a file, without the end of its line.
pub(crate) fn read_secret(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("read the secret in {}", path.display()))?;
    let secret = text.trim_end_matches(['\n', '\r']).to_owned();
    ensure!(
        !secret.is_empty(),
        "the secret in {} is empty",
        path.display()
    );
    Ok(secret)
}

#[cfg(test)]
mod tests;
