//! The one configuration tree: read once from a TOML file and the flags of `run`; each part gets
//! its slice.
//!
//! Nothing of it can be changed from Git: it bounds what Git may ask for.

mod cluster;
mod detect;
mod guarded;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use ipnet::Ipv4Net;
use reconciler::{
    name::{CommitId, NodeName},
    network::{HostNetwork, PeerPath, VxlanSettings},
    object::Taint,
    settings::{ClusterSettings, RolloutSettings, ServiceRanges},
};
use serde::Deserialize;

use crate::source::{quarantine::MAX_TREE_BYTES, verify::Mode};

pub(crate) use cluster::{PeerConfig, StoreConfig};
pub(crate) use detect::{dns_facts, node_address};

/// Where the daemon keeps what it must not forget.
pub(crate) const DEFAULT_DATA_DIR: &str = "/var/lib/windlass";
/// Where its sockets are.
pub(crate) const DEFAULT_SOCKET_DIR: &str = "/run/windlass";

/// The whole configuration. Every section may be left out but the repository's URL.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Config {
    /// State, mirror, pods. Default `/var/lib/windlass`.
    pub(crate) data_dir: Option<PathBuf>,
    /// The file it was read from, if it was.
    #[serde(skip)]
    pub(crate) file: Option<PathBuf>,
    /// `windlass.sock` and `admin.sock`. Default `/run/windlass`.
    pub(crate) socket_dir: Option<PathBuf>,
    /// Where commits come from.
    pub(crate) source: SourceConfig,
    /// Who is believed.
    pub(crate) trust: TrustConfig,
    /// This host.
    pub(crate) node: NodeConfig,
    /// What several hosts share.
    pub(crate) store: StoreConfig,
    /// Addresses.
    pub(crate) network: NetworkConfig,
    /// Bounds of a rollout.
    pub(crate) rollout: RolloutConfig,
    /// The engine.
    pub(crate) docker: DockerConfig,
    /// What Git may ask for.
    pub(crate) allow: AllowConfig,
    /// Listeners.
    pub(crate) listen: ListenConfig,
    /// Secrets of webhooks.
    pub(crate) webhook: WebhookConfig,
    /// The cluster's other hosts.
    pub(crate) peer: PeerConfig,
}

/// Where commits come from.
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
    /// How often the remote is asked, with jitter. Default `15s`.
    #[serde(deserialize_with = "duration")]
    pub(crate) poll: Duration,
    /// The longest a fetch may take. Default `2m`.
    #[serde(deserialize_with = "duration")]
    pub(crate) deadline: Duration,
    /// The most a fetch may receive, in bytes. Default 512 MiB.
    pub(crate) max_bytes: u64,
    /// The most that one object of the repository may have, inflated, in bytes. Default 64 MiB.
    pub(crate) max_object_bytes: u64,
    /// The most that the local repository may have, in bytes. Default 4 GiB.
    pub(crate) max_mirror_bytes: u64,
    /// A file that holds a forge's access token. Default none.
    pub(crate) token_file: Option<PathBuf>,
    /// User for basic authentication. Default none.
    pub(crate) user: Option<String>,
    /// A file that holds that user's password. Default none.
    pub(crate) password_file: Option<PathBuf>,
    /// A private key for ssh. Default none.
    pub(crate) ssh_key_file: Option<PathBuf>,
    /// The hosts ssh connects to, as OpenSSH's `known_hosts`. Default none.
    pub(crate) known_hosts_file: Option<PathBuf>,
    /// The only authorities an https server is believed by. Default the system's.
    pub(crate) ca_file: Option<PathBuf>,
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
        }
    }
}

/// Who is believed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct TrustConfig {
    /// `mainline`, `all`, `head` or `off`. Default `mainline`.
    pub(crate) mode: Mode,
    /// An `allowed_signers` file, as git means it. Needed unless the mode is `off`.
    pub(crate) allowed_signers: Option<PathBuf>,
    /// The commit that every head must descend from. Default none.
    pub(crate) anchor: Option<CommitId>,
    /// Take a head that does not descend from the last verified one. Default false.
    pub(crate) allow_rewrite: bool,
}

/// This host.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct NodeConfig {
    /// Its name. Default the host's.
    pub(crate) name: Option<String>,
    /// Its address. Default that of the route to everywhere.
    pub(crate) address: Option<Ipv4Addr>,
    /// Its labels, beside `kubernetes.io/hostname`, `kubernetes.io/os` and `kubernetes.io/arch`.
    pub(crate) labels: BTreeMap<String, String>,
    /// Its taints, as `key=value:NoSchedule`, beside those that Git gives it. Default none.
    #[serde(deserialize_with = "taints")]
    pub(crate) taints: Vec<Taint>,
    /// The most pods it may have. Default 250.
    pub(crate) max_pods: Option<usize>,
}

/// Addresses.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct NetworkConfig {
    /// Addresses of all pods. Default `10.244.0.0/16`.
    pub(crate) pod_range: Ipv4Net,
    /// This host's part of them. Default the first /24; in a cluster the first that is free, kept
    /// by the node's name.
    pub(crate) pod_subnet: Option<Ipv4Net>,
    /// Networks that the addresses of other hosts must lie in. Default any.
    pub(crate) node_ranges: Vec<Ipv4Net>,
    /// Addresses of Services. Default `10.96.0.0/16`.
    pub(crate) service_range: Ipv4Net,
    /// The cluster's DNS. Default the tenth address of `service-range`.
    pub(crate) dns: Option<Ipv4Addr>,
    /// The zone. Default `cluster.local`.
    pub(crate) zone: String,
    /// The greatest MTU of pod links. Default 1500; the uplink's is never exceeded in a cluster,
    /// and VXLAN takes 50.
    pub(crate) mtu: u32,
    /// How packets reach the pods of other hosts: `vxlan`, or `direct` where all hosts are on one
    /// link that lets the pods' addresses pass. Default `vxlan`.
    pub(crate) path: PeerPath,
    /// Identifier and UDP port of the VXLAN, as `{ id = 87, port = 8487 }`; the same on all hosts.
    /// Default these.
    pub(crate) vxlan: VxlanSettings,
    /// The first node port. Default 30000.
    pub(crate) node_port_first: u16,
    /// The last node port. Default 32767.
    pub(crate) node_port_last: u16,
    /// How long a stopping pod that takes traffic drains before it is told to end. Default `2s`.
    #[serde(deserialize_with = "duration")]
    pub(crate) drain_delay: Duration,
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
        }
    }
}

/// Bounds of a rollout.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct RolloutConfig {
    /// How long everything must stay settled before a commit is called healthy. Default `10s`.
    #[serde(deserialize_with = "duration")]
    pub(crate) soak: Duration,
    /// From becoming the target to settled. Default `10m`.
    #[serde(deserialize_with = "duration")]
    pub(crate) deadline: Duration,
    /// The share of workloads, in per cent, that one commit may delete without a word. Default 30.
    pub(crate) deletion_percent: u32,
    /// How many nodes may be at fault themselves without failing a commit. Default 1, or 5 % of
    /// them if that is more.
    pub(crate) max_faulty_nodes: Option<usize>,
    /// The nodes that a commit comes to first. Default none.
    pub(crate) canary_nodes: std::collections::BTreeSet<NodeName>,
    /// How long all must be well on them before the others follow. Default `30s`.
    #[serde(deserialize_with = "duration")]
    pub(crate) canary_soak: Duration,
    /// On how many nodes beyond those where its pods would go an image is pulled before its commit
    /// is driven. Default 2.
    pub(crate) spare_images: usize,
    /// How many commits back a rollback may go. Default 10.
    pub(crate) history: usize,
    /// How often everything is looked at again though nothing has changed. Default `1m`.
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

/// The engine.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct DockerConfig {
    /// Its socket. Default `/var/run/docker.sock`.
    pub(crate) socket: Option<PathBuf>,
    /// A Docker `config.json` whose `auths` are used for pulls. Default none.
    pub(crate) config_file: Option<PathBuf>,
    /// Credentials for single registries, which win over that file's. Default none.
    pub(crate) registries: Vec<RegistryConfig>,
    /// `CgroupParent` of every container. Default the engine's own.
    pub(crate) cgroup_parent: Option<String>,
}

/// Credentials for one registry.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct RegistryConfig {
    /// Its name in images, with the port: `registry.example.com:5000`; the public one is
    /// `docker.io`. Needed.
    pub(crate) host: String,
    /// User. Needed.
    pub(crate) user: String,
    /// A file that holds the user's password or token. Needed.
    pub(crate) password_file: PathBuf,
}

/// What Git may ask for. As permissive as Kubernetes by default; our own directories are always
/// refused.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct AllowConfig {
    /// Privileged containers. Default true.
    pub(crate) privileged: bool,
    /// `hostNetwork`, `hostPID`, `hostIPC`. Default true.
    pub(crate) host_namespaces: bool,
    /// Prefixes that a hostPath must lie under. Default any.
    pub(crate) host_paths: Option<Vec<String>>,
    /// Capabilities that containers may add, without `CAP_`. Default any.
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

/// Listeners.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ListenConfig {
    /// `/metrics`, `/healthz`, `/readyz`. Default `127.0.0.1:9464`.
    pub(crate) metrics: Option<SocketAddr>,
    /// `/webhook/github` and `/webhook/generic`. Default none.
    pub(crate) webhook: Option<SocketAddr>,
    /// The read-only Kubernetes API over TCP. Default none.
    pub(crate) api: Option<SocketAddr>,
    /// A file that holds the bearer token for it. Needed with `api`.
    pub(crate) api_token_file: Option<PathBuf>,
    /// PEM file with its certificate chain. Needed with `api`.
    pub(crate) api_certificate: Option<PathBuf>,
    /// PEM file with the certificate's key. Needed with `api`.
    pub(crate) api_key: Option<PathBuf>,
}

/// Secrets of webhooks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct WebhookConfig {
    /// A file that holds the secret shared with the forge, at least 16 characters. Without it there
    /// are no webhooks.
    pub(crate) secret_file: Option<PathBuf>,
}

impl Config {
    /// Reads a file.
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

    /// Checks for settings that cannot be right, before the daemon changes anything.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(
            !self.source.url.is_empty(),
            "no repository is configured: give --repo URL, or `url` in [source] of the configuration"
        );
        if self.trust.mode != Mode::Off
            && self.trust.allowed_signers.is_none()
            && self.trust.anchor.is_none()
        {
            bail!(
                "nobody is believed: give --allowed-signers FILE (as for `git config gpg.ssh.allowedSignersFile`), \
                 or write out --verify off"
            );
        }
        let source = &self.source;
        ensure!(
            source.max_object_bytes >= MAX_TREE_BYTES,
            "[source] max-object-bytes {} is below {MAX_TREE_BYTES}, which a directory or a manifest may have",
            source.max_object_bytes
        );
        ensure!(
            source.max_mirror_bytes >= source.max_object_bytes,
            "[source] max-mirror-bytes {} is below max-object-bytes {}",
            source.max_mirror_bytes,
            source.max_object_bytes
        );
        let network = &self.network;
        let subnet = self.pod_subnet();
        ensure!(
            network.pod_range.contains(&subnet),
            "[network] pod-subnet {subnet} is not in pod-range {}",
            network.pod_range
        );
        ensure!(
            !network.pod_range.contains(&network.service_range)
                && !network.service_range.contains(&network.pod_range),
            "[network] pod-range {} and service-range {} overlap",
            network.pod_range,
            network.service_range
        );
        ensure!(
            network.service_range.contains(&self.dns_address()),
            "[network] dns {} is not in service-range {}",
            self.dns_address(),
            network.service_range
        );
        ensure!(
            network.node_port_first <= network.node_port_last,
            "[network] node-port-first {} is above node-port-last {}",
            network.node_port_first,
            network.node_port_last
        );
        ensure!(
            self.listen.api.is_none()
                || (self.listen.api_token_file.is_some()
                    && self.listen.api_certificate.is_some()
                    && self.listen.api_key.is_some()),
            "[listen] api needs api-token-file, api-certificate and api-key: over TCP it always asks for a token, \
             and kubectl sends one over TLS only"
        );
        self.check_store()
    }

    /// State, mirror, pods.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.data_dir
            .clone()
            .unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR))
    }

    /// The sockets.
    pub(crate) fn socket_dir(&self) -> PathBuf {
        self.socket_dir
            .clone()
            .unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET_DIR))
    }

    /// Certificates and their keys.
    pub(crate) fn peer_directory(&self) -> PathBuf {
        self.peer
            .directory
            .clone()
            .unwrap_or_else(|| self.data_dir().join("peer"))
    }

    /// Where other hosts reach this one.
    pub(crate) fn peer_address(&self) -> Result<SocketAddr> {
        let port = self
            .peer
            .listen
            .map_or(crate::peer::PEER_PORT, |listen| listen.port());
        if let Some(listen) = self
            .peer
            .listen
            .filter(|listen| !listen.ip().is_unspecified())
        {
            return Ok(listen);
        }
        let address = match self.node.address {
            Some(address) => address,
            None => node_address()?,
        };
        Ok(SocketAddr::from((address, port)))
    }

    /// This host's name.
    pub(crate) fn node_name(&self) -> Result<NodeName> {
        match &self.node.name {
            Some(name) => Ok(NodeName::new(name.clone())),
            None => detect::host_name().map(NodeName::new),
        }
    }

    /// This host's network; `subnet` is the one that a cluster has reserved for it.
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

/// The longest duration of a setting: it can be added to any time.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A duration as people write it: `10s`, `2m`, `1h 30m`.
fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let span: jiff::SignedDuration = text.parse().map_err(|error| {
        serde::de::Error::custom(format!(
            "{text:?} is not a duration such as 10s or 2m: {error}"
        ))
    })?;
    let duration = Duration::try_from(span)
        .map_err(|_| serde::de::Error::custom(format!("{text:?} is negative")))?;
    if duration > LONGEST {
        return Err(serde::de::Error::custom(format!(
            "{text:?} is too long: 8760h, a year, is the longest"
        )));
    }
    Ok(duration)
}

/// Taints as people write them.
fn taints<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Taint>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts
        .iter()
        .map(|text| text.parse().map_err(serde::de::Error::custom))
        .collect()
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
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_and_bad_durations_are_refused_by_name() {
        let error = toml::from_str::<Config>("[source]\nurll = 'x'").expect_err("a misspelt field");
        assert!(error.to_string().contains("urll"), "{error}");
        let error = toml::from_str::<Config>("[rollout]\nsoak = 'soon'").expect_err("no duration");
        assert!(
            error.to_string().contains("\"soon\" is not a duration"),
            "{error}"
        );
        let error = toml::from_str::<Config>("[rollout]\nsoak = '9000000h'").expect_err("too long");
        assert!(error.to_string().contains("is too long"), "{error}");
    }

    #[test]
    fn a_repository_and_a_signers_file_are_enough() {
        let text = "[source]\nurl = '/srv/repo'\n[trust]\nallowed-signers = '/etc/signers'\n[rollout]\nsoak = '1m 30s'";
        let config: Config = toml::from_str(text).expect("a good configuration");
        config.check().expect("complete");
        assert_eq!(config.rollout.soak, Duration::from_secs(90));
        assert_eq!(config.pod_subnet().to_string(), "10.244.0.0/24");
        assert_eq!(config.dns_address(), Ipv4Addr::new(10, 96, 0, 10));
    }

    #[test]
    fn bounds_of_the_repository_that_leave_no_room_are_refused() {
        for (setting, words) in [
            ("max-object-bytes = 4194303", "is below 4194304"),
            (
                "max-mirror-bytes = 67108863",
                "is below max-object-bytes 67108864",
            ),
        ] {
            let text = format!("[source]\nurl = '/srv/repo'\n{setting}\n[trust]\nmode = 'off'");
            let config: Config = toml::from_str(&text).expect("reads");
            let error = config.check().expect_err("no room").to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn taints_are_read_and_bad_ones_refused() {
        let text = "[node]\ntaints = ['gpu=yes:NoSchedule', 'example.com/old:NoExecute']";
        let config: Config = toml::from_str(text).expect("good taints");
        let read: Vec<_> = config
            .node
            .taints
            .iter()
            .map(|taint| (taint.key.as_str(), taint.value.as_str()))
            .collect();
        assert_eq!(read, [("gpu", "yes"), ("example.com/old", "")]);
        for bad in ["gpu", "gpu:Never", "=yes:NoSchedule"] {
            let text = format!("[node]\ntaints = ['{bad}']");
            let error = toml::from_str::<Config>(&text).expect_err("a bad taint");
            assert!(
                error
                    .to_string()
                    .contains(&format!("{bad:?} is not a taint")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_registrys_credentials_are_complete_or_refused() {
        let text = "[[docker.registries]]\nhost = 'r.example.com:5000'\nuser = 'deployer'\n";
        let config: Config = toml::from_str(&format!("{text}password-file = '/etc/registry'"))
            .expect("a good configuration");
        assert_eq!(config.docker.registries[0].host, "r.example.com:5000");
        let error = toml::from_str::<Config>(text).expect_err("no password");
        assert!(error.to_string().contains("password-file"), "{error}");
    }

    #[test]
    fn nobody_believed_must_be_written_out() {
        let config: Config = toml::from_str("[source]\nurl = '/srv/repo'").expect("reads");
        assert!(
            config
                .check()
                .expect_err("no signers")
                .to_string()
                .contains("nobody is believed")
        );
    }
}
