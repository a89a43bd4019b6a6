//! The daemon: opens, binds and connects its parts. No decision is made here.

mod auditor;
mod logs;
mod planner;

use std::{net::Ipv4Addr, path::Path, sync::Arc};

use anyhow::{Context, Result};
use jiff::Timestamp;
use netfilter::{HostNet, Network};
use parking_lot::Mutex;
use reconciler::{
    desired::CheckSettings,
    name::Installation,
    network::{PeerPath, VXLAN_OVERHEAD},
    object::Sensitive,
    state::{NodeFacts, NodeSystem, RecordFormat},
};
use runtime::{Pods, Prober, RegistryAuth, Runtime, RuntimeConfig};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
};

use crate::{
    apply::Effects,
    commit_cache::Reader,
    config::{Config, dns_facts, read_secret},
    control_loop::{ControlLoop, Inputs},
    cycle::{AddressBook, DetourFile, Fixed, Host, HostMemory, Inquiry, Parts},
    data_dir::DataDir,
    descriptors,
    dns::{Dns, cache::NamesFile, upstreams},
    follow::{Follower, Judge},
    host_info,
    http::{
        HttpContext,
        serve::{Bound, KubectlConfig, ListenerConfig},
        views::Views,
        webhook::{WebhookSettings, Webhooks},
    },
    lanes::Lanes,
    metrics::Metrics,
    peer::PeerHost,
    readdress::{Ended, moved},
    refused::RefusedHeads,
    source::{
        child::ChildProgram,
        fetch::{Credentials, FetchLimits, FetchRequest, RemoteUrl, SecretText, Task},
        mirror::{Check, Mirror},
        snapshot::{SnapshotLimits, SourcePath},
        verify::Mode,
        watch::RefWatch,
    },
    store::{LocalStore, ReplicatedStore, Store, StoreEvent},
    trust::TrustStore,
    view::{HostNote, SourceStatus},
    watchdog::Watchdog,
};

/// How many requests may wait for the loop.
const REQUESTS: usize = 64;
/// The hidden subcommand that fetches.
pub(crate) const FETCH_CHILD: &str = "fetch-child";
/// The address of the metrics unless the configuration names another one.
pub(crate) const DEFAULT_LISTEN: std::net::SocketAddr =
    std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9464);

/// Runs the daemon until it must end.
pub(crate) async fn run(config: Config) -> Result<Ended> {
    config.check()?;
    descriptors::raise()?;
    let data = config.data_dir();
    let bound = Bound::bind(&listen_config(&config)).await?;
    let _ours = DataDir::take(&data)?;
    let end = Arc::new(Notify::new());
    stop_on_signals(&end)?;

    let node = config.node_name()?;
    let (store, store_events) = open_store(&config, &data, &bound, &end).await?;
    let trust = Arc::new(Mutex::new(TrustStore::open(&data.join("trust"))?));
    let mut memory = HostMemory::open(&data)?;
    let metrics = Arc::new(Metrics::new().context("set up the metrics")?);

    let mut network = config.host_network(store.replicated().map(ReplicatedStore::subnet))?;
    let peers = PeerHost::bind(&config.peer_directory(), &node, config.peer.listen, || {
        config.peer_address()
    })
    .await?;
    // The addresses of the other hosts' daemons, by the store.
    let book = AddressBook::default();
    let address_of = book.address_of();
    let net = Arc::new(Network::open(network.clone(), &netfilter::record_path(&data)).await?);
    net.prepare().await.context("prepare the host's network")?;
    if config.is_clustered() {
        let overhead = if config.network.path == PeerPath::Vxlan {
            VXLAN_OVERHEAD
        } else {
            0
        };
        network.mtu = network
            .mtu
            .min(net.uplink_mtu().await?)
            .saturating_sub(overhead);
    }
    let obstacles = net.obstacles().await?;
    for obstacle in &obstacles {
        tracing::warn!("{obstacle}");
    }
    let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = upstreams(&resolv_conf);
    let dns_address = std::net::SocketAddrV4::new(network.dns, 53);
    let names = NamesFile::in_dir(&data);
    let dns = Dns::start(dns_address, names.read(&config.network.zone), servers)
        .context("start the DNS server")?;

    let runtime = Runtime::open(runtime_config(&config, store.installation(), &data)?).await?;
    tokio::spawn({
        let runtime = runtime.clone();
        async move { runtime.load_sandbox_image().await }
    });
    let pods: Arc<dyn Pods> = Arc::new(runtime.clone());
    let effects = Arc::new(Effects::new(
        Arc::clone(&pods),
        net.clone(),
        data.join("pods"),
    ));
    match effects.files_on_disk().await {
        Ok(files) => memory.files = files.into_iter().collect(),
        Err(fault) => tracing::warn!("{fault}"),
    }
    memory.recover_addresses(&net.addresses().await?);
    let (lanes, lane_events) = Lanes::new(effects);
    let prober = Prober::new(runtime.clone());
    let reader = reader(&config, &data)?;

    let (found, found_events) = mpsc::channel(4);
    let nudge = Arc::new(Notify::new());
    let judge = judge(&config, reader.clone())?;
    let follower = follower(
        &config,
        &data,
        judge.clone(),
        Arc::clone(&trust),
        Arc::clone(&nudge),
        found,
    )?;
    let url: RemoteUrl = config.source.url.parse()?;
    let watch = watch_local(&url, &nudge);

    let engine = runtime.engine_info().await.ok();
    let (requests, asked) = mpsc::channel(REQUESTS);
    let readdressed = watch_address(&config, network.node_address, &end);
    let etcd = store.replicated().map(ReplicatedStore::etcd);
    let inquiry = Inquiry::new(peers.as_ref().map(PeerHost::client), etcd, book);
    let inputs = Inputs {
        source: found_events,
        lanes: lane_events,
        store: store_events,
        asked,
        engine: runtime.changed(),
        network: net.changed(),
        probes: prober.changed(),
        inquiry: inquiry.changed(),
        end,
    };
    let fixed = Fixed {
        facts: NodeFacts {
            name: node.clone(),
            address: network.node_address,
            installation: store.installation().clone(),
            pod_subnet: network.pod_subnet,
            mtu: network.mtu,
            labels: labels(&config, node.as_str()),
            taints: config.node.taints.clone(),
            record_format: RecordFormat::NEWEST,
            system: NodeSystem {
                installed: store.installed(),
                max_pods: config.cluster_settings().max_pods,
                ..host_info::read(engine.as_ref().map(|info| info.version.as_str()))
            },
        },
        network: network.clone(),
        dns: dns_facts(network.dns, &config.network.zone),
        settings: config.cluster_settings(),
        drain: config.network.drain_delay,
        history: config.rollout.history,
        judge: judge.clone(),
        peer: peers.as_ref().map(PeerHost::address).map(|address| {
            match address.ip().is_unspecified() {
                true => (network.node_address, address.port()).into(),
                false => address,
            }
        }),
        path: config.network.path,
        away: config.store.away,
        clock: Timestamp::now,
        notes: notes(&config)
            .into_iter()
            .chain(obstacles.into_iter().map(HostNote::Firewall))
            .collect(),
    };
    let parts = Parts {
        runtime: pods,
        network: net,
        prober: Arc::new(prober),
        dns,
        names,
        lanes,
        reader: reader.clone(),
        metrics: Arc::clone(&metrics),
        nudge: Arc::clone(&nudge),
        inquiry,
    };
    let source = SourceStatus {
        url: url.to_string(),
        branch: config.source.branch.clone(),
        verification: config.trust.mode.as_str().to_owned(),
        ..SourceStatus::default()
    };
    let presence = store.replicated().map(ReplicatedStore::presence);
    let watchdog = Watchdog::start(presence).context("start the watchdog")?;
    let host = Host::new(
        fixed,
        parts,
        store,
        Arc::clone(&trust),
        memory,
        DetourFile::open(&data)?,
        source,
    );
    let (view, views) = watch::channel(Arc::new(host.view()));

    let remote_logs = peers.as_ref().map(|peers| logs::RemoteLogs {
        client: peers.client(),
        address_of: address_of.clone(),
    });
    let daemon = Arc::new(HttpContext {
        views: Views::new(views.clone()),
        metrics: Arc::clone(&metrics),
        logs: Arc::new(logs::EngineLogs::new(runtime.clone(), remote_logs)),
        auditor: Arc::new(auditor::TrustAuditor::new(
            judge.clone(),
            Arc::clone(&trust),
            views.clone(),
            config.rollout.history,
        )),
        planner: Arc::new(planner::OfflinePlanner::new(
            judge,
            trust,
            views,
            config.clone(),
        )),
        requests,
        silence: config.rollout.resync * 2 + std::time::Duration::from_secs(60),
    });
    let webhooks = webhooks(&config, &metrics, &nudge)?;
    let (stop_serving, stopped) = watch::channel(());
    let among_hosts =
        peers.map(|peers| tokio::spawn(peers.serve(daemon.clone(), address_of, stopped.clone())));
    let serving = tokio::spawn(bound.serve(daemon, webhooks, stopped));
    let following = tokio::spawn(follower.run());
    tracing::info!(node = %node, address = %network.node_address, url = %url, "started");
    // Fails without systemd, where no process waits for the notification.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);

    let control = ControlLoop::new(host, inputs, view, watchdog, config.rollout.resync);
    let ended = control.run().await;
    following.abort();
    drop(watch);
    drop(stop_serving);
    // The listeners end by themselves; a client that hangs must not delay the end of the daemon.
    let serving = async {
        let _ = serving.await;
        if let Some(serving) = among_hosts {
            let _ = serving.await;
        }
    };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), serving).await;
    let moved = readdressed.is_some_and(|task| task.is_finished());
    ended.map(|()| if moved { Ended::Moved } else { Ended::Told })
}

/// Ends the daemon when this host gets another address, unless the configuration names the address.
fn watch_address(config: &Config, from: Ipv4Addr, end: &Arc<Notify>) -> Option<JoinHandle<()>> {
    let end = Arc::clone(end);
    config.node.address.is_none().then(|| {
        tokio::spawn(async move {
            let to = moved(from).await;
            tracing::warn!(
                "this host's address was {from} and is {to} now: the daemon starts anew"
            );
            end.notify_one();
        })
    })
}

/// Opens the store: the local one, or that of a cluster, which a new host has to wait for.
async fn open_store(
    config: &Config,
    data: &Path,
    bound: &Bound,
    end: &Notify,
) -> Result<(Store, mpsc::UnboundedReceiver<StoreEvent>)> {
    let Some(joining) = config.joining()? else {
        anyhow::ensure!(
            !data.join(crate::store::MARKER).exists(),
            "this host is of a cluster ({} is there), and [store] of the configuration has no endpoints: alone it would \
             run the whole cluster's pods; put them back, or `windlass uninstall` first",
            data.join(crate::store::MARKER).display()
        );
        // A host that is alone receives no events of a store.
        let (_, events) = mpsc::unbounded_channel();
        return Ok((
            Store::Local(Box::new(LocalStore::open(data, &config.node_name()?)?)),
            events,
        ));
    };
    let (waiting, waits) = watch::channel("it opens the cluster's store".to_owned());
    let _answering = bound.say_waiting(&waits).context("answer on the sockets")?;
    tokio::select! {
        opened = ReplicatedStore::open(data, joining, &waiting) => {
            let (store, events) = opened.context("open the cluster's store")?;
            Ok((Store::Replicated(Box::new(store)), events))
        }
        () = end.notified() => anyhow::bail!("told to end while waiting for the cluster's store"),
    }
}

fn stop_on_signals(end: &Arc<Notify>) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).context("listen for signals")?;
        let end = Arc::clone(end);
        tokio::spawn(async move {
            signals.recv().await;
            end.notify_one();
        });
    }
    Ok(())
}

fn listen_config(config: &Config) -> ListenerConfig {
    let listen = &config.listen;
    let kubectl = match (
        &listen.api,
        &listen.api_token_file,
        &listen.api_certificate,
        &listen.api_key,
    ) {
        (Some(address), Some(token), Some(certificate), Some(key)) => Some(KubectlConfig {
            address: *address,
            token: token.clone(),
            certificate: certificate.clone(),
            key: key.clone(),
        }),
        _ => None,
    };
    ListenerConfig {
        socket_dir: config.socket_dir(),
        listen: Some(listen.metrics.unwrap_or(DEFAULT_LISTEN)),
        webhook: listen.webhook,
        kubectl,
    }
}

fn runtime_config(
    config: &Config,
    installation: &Installation,
    data: &Path,
) -> Result<RuntimeConfig> {
    let mut runtime = RuntimeConfig::new(installation.clone(), data);
    if let Some(socket) = &config.docker.socket {
        runtime.socket = socket.clone();
    }
    runtime.forbidden_paths = config.guarded_paths();
    let allowed = config.allow.host_paths.as_ref();
    runtime.allowed_paths =
        allowed.map(|paths| paths.iter().map(std::path::PathBuf::from).collect());
    runtime.docker_config = config.docker.config_file.clone();
    for registry in &config.docker.registries {
        // A file that cannot be read is an error at the start, and not only at the first pull,
        // which reads the file again.
        read_secret(&registry.password_file)?;
        runtime.registries.push(RegistryAuth {
            host: registry.host.clone(),
            user: registry.user.clone(),
            password_file: registry.password_file.clone(),
        });
    }
    runtime.cgroup_parent = config.docker.cgroup_parent.clone();
    Ok(runtime)
}

/// The reader of commits, with this host's limits.
pub(crate) fn reader(config: &Config, data: &Path) -> Result<Reader> {
    let paths = match config.source.paths.as_slice() {
        [] => vec![SourcePath::root()],
        paths => paths
            .iter()
            .map(|path| {
                path.parse::<SourcePath>()
                    .map_err(|why| anyhow::anyhow!("[source] paths: {path}: {why}"))
            })
            .collect::<Result<_>>()?,
    };
    Ok(Reader {
        mirror: Mirror::new(data.join("mirror.git")),
        paths,
        limits: SnapshotLimits::default(),
        check: check_settings(config),
    })
}

/// The host's limits and permissions for manifests, for the daemon and for `check`.
pub(crate) fn check_settings(config: &Config) -> CheckSettings {
    let ranges = config.cluster_settings().ranges;
    CheckSettings {
        node_ports: ranges.node_ports,
        service_range: ranges.addresses,
        forbidden_host_paths: config
            .guarded_paths()
            .into_iter()
            .map(|path| path.display().to_string())
            .collect(),
        allowed_host_paths: config.allow.host_paths.clone(),
        allow_privileged: config.allow.privileged,
        allow_host_namespaces: config.allow.host_namespaces,
        allowed_capabilities: config.allow.capabilities.clone(),
        reserved_addresses: vec![ranges.dns],
    }
}

/// The judge of heads, by this configuration.
fn judge(config: &Config, reader: Reader) -> Result<Judge> {
    let judge = Judge {
        mode: config.trust.mode,
        allowed_signers: config.trust.allowed_signers.clone(),
        anchor: config.trust.anchor.clone(),
        allow_rewrite: config.trust.allow_rewrite,
        reader,
    };
    // A file that cannot be read is an error at the start, and not only at the first push.
    crate::follow::read_signers(judge.allowed_signers.as_deref())?;
    Ok(judge)
}

fn follower(
    config: &Config,
    data: &Path,
    judge: Judge,
    trust: Arc<Mutex<TrustStore>>,
    nudge: Arc<Notify>,
    found: mpsc::Sender<crate::follow::SourceUpdate>,
) -> Result<Follower> {
    let source = &config.source;
    let request = FetchRequest {
        url: source.url.clone(),
        branch: source.branch.clone(),
        mirror: data.join("mirror.git"),
        credentials: None,
        ca_file: source.ca_file.clone(),
        known_hosts: source.known_hosts_file.clone(),
        limits: FetchLimits {
            deadline: source.deadline,
            received_bytes: source.max_bytes,
            object_bytes: source.max_object_bytes,
            ..FetchLimits::default()
        },
        task: Task::Fetch,
        keep: std::collections::BTreeSet::new(),
        refused: std::collections::BTreeSet::new(),
        check: Check::Thorough,
    };
    let program = std::env::current_exe().context("find our own binary")?;
    let child = ChildProgram {
        program,
        arguments: vec![FETCH_CHILD.into()],
    };
    // Files that cannot be read are an error at the start, and not only at the first fetch.
    credentials(config)?;
    let (followed, poll) = (config.clone(), source.poll);
    let credentials = Box::new(move || credentials(&followed));
    let refused = RefusedHeads::open(&data.join("trust"));
    let mirror_bytes = source.max_mirror_bytes;
    Ok(Follower {
        request,
        mirror_bytes,
        refused,
        credentials,
        child,
        judge,
        trust,
        poll,
        nudge,
        updates: found,
    })
}

fn credentials(config: &Config) -> Result<Option<Credentials>> {
    let source = &config.source;
    Ok(
        match (&source.token_file, &source.user, &source.ssh_key_file) {
            (Some(file), _, _) => Some(Credentials::Token(SecretText::new(read_secret(file)?))),
            (None, Some(user), _) => {
                let file = source
                    .password_file
                    .as_deref()
                    .context("[source] user needs password-file")?;
                Some(Credentials::Basic {
                    user: user.clone(),
                    password: SecretText::new(read_secret(file)?),
                })
            }
            (None, None, Some(key)) => Some(Credentials::SshKey {
                private_key: key.clone(),
                passphrase: None,
            }),
            (None, None, None) => None,
        },
    )
}

/// Watches a local repository, so that a push is fetched at once; without the watch the next poll
/// fetches it.
fn watch_local(url: &RemoteUrl, nudge: &Arc<Notify>) -> Option<RefWatch> {
    let RemoteUrl::Local(repository) = url else {
        return None;
    };
    match RefWatch::start(repository.clone(), Arc::clone(nudge)) {
        Ok(watch) => Some(watch),
        Err(error) => {
            tracing::warn!(
                "pushes are seen at the next poll only: {:#}",
                anyhow::Error::from(error)
            );
            None
        }
    }
}

fn webhooks(
    config: &Config,
    metrics: &Arc<Metrics>,
    nudge: &Arc<Notify>,
) -> Result<Option<Webhooks>> {
    let secret = match &config.webhook.secret_file {
        Some(file) => Some(Sensitive::new(read_secret(file)?)),
        None => None,
    };
    let webhook = WebhookSettings {
        secret,
        branch: config.source.branch.clone(),
    };
    Ok(Webhooks::new(
        &webhook,
        Arc::clone(metrics),
        Arc::clone(nudge),
    )?)
}

fn labels(config: &Config, node: &str) -> std::collections::BTreeMap<String, String> {
    let own = [
        ("kubernetes.io/hostname", node),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", host_info::architecture()),
    ];
    let own = own
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    own.chain(config.node.labels.clone()).collect()
}

/// Notes about the configuration that `status` shows.
fn notes(config: &Config) -> Vec<HostNote> {
    let mut notes = Vec::new();
    if config.trust.mode == Mode::Off {
        notes.push(HostNote::VerificationOff);
    }
    if config.trust.allow_rewrite {
        notes.push(HostNote::RewriteAllowed);
    }
    notes.push(HostNote::Allowed {
        host_paths: config.allow.host_paths.clone(),
        privileged: config.allow.privileged,
        host_namespaces: config.allow.host_namespaces,
    });
    notes
}
