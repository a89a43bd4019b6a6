//! The daemon: opens, binds and connects its parts. No decision is made here.

mod auditor;
mod engine;
mod logs;
mod network;
mod outputs;
mod planner;
mod settings;
mod source;
mod state;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use jiff::Timestamp;
use netfilter::Exposure;
use reconciler::{
    name::NodeName,
    state::{NodeFacts, NodeSystem, RecordFormat, RecordKey},
};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
};

pub(crate) use self::settings::check_settings;
use self::{
    auditor::TrustAuditor,
    engine::OpenedEngine,
    network::OpenedNetwork,
    planner::OfflinePlanner,
    settings::{labels, listen_config},
    source::FollowedSource,
    state::OpenedState,
};
use crate::{
    config::{Config, dns_facts},
    control_loop::{ControlLoop, Inputs},
    cycle::{AddressBook, Fixed, Host, Inquiry, Parts},
    data_dir::DataDir,
    descriptors, exposure,
    follow::Follower,
    host_info,
    http::{HttpContext, serve::Bound, views::Views, webhook::Webhooks},
    metrics::Metrics,
    peer::{AddressOf, PeerHost},
    readdress::Ended,
    source::{fetch::RemoteUrl, verify::Mode, watch::RefWatch},
    store::{ReplicatedStore, Store},
    view::{HostNote, SourceStatus},
    watchdog::Watchdog,
};

/// How many requests may wait for the loop.
const REQUESTS: usize = 64;
/// The hidden subcommand that fetches.
pub(crate) const FETCH_CHILD: &str = "fetch-child";
/// The address of the metrics unless the configuration names another one.
pub(crate) const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// How long the listeners have to end: a client that hangs must not delay the end of the daemon.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Runs the daemon until it must end. The configuration has been checked.
pub(crate) async fn run(config: Config) -> Result<Ended> {
    descriptors::raise()?;
    let data = config.data_dir();
    let bound = Bound::bind(&listen_config(&config)).await?;
    // Held until the end: no other daemon may change this host meanwhile.
    let _ours = DataDir::take(&data)?;
    let end = Arc::new(Notify::new());
    stop_on_signals(&end)?;

    let exposure = exposure::settle(&data, config.network.expose.as_ref())?;
    let state = OpenedState::open(&config, &data, &bound, &end).await?;
    let daemon = Daemon::build(&config, &data, state, exposure, end).await?;
    daemon.serve(bound).await
}

/// The parts of the daemon, connected to each other. The DNS server answers; nothing else runs yet.
struct Daemon {
    node: NodeName,
    address: Ipv4Addr,
    url: RemoteUrl,
    control: ControlLoop,
    follower: Follower,
    /// The watch on a repository of this host, which ends when the value is dropped.
    watch: Option<RefWatch>,
    /// Ends when this host has got another address.
    readdressed: Option<JoinHandle<()>>,
    http: Arc<HttpContext>,
    webhooks: Option<Webhooks>,
    /// The listener for other hosts; `None` without a certificate.
    peers: Option<PeerHost>,
    address_of: AddressOf,
}

impl Daemon {
    async fn build(
        config: &Config,
        data: &Path,
        state: OpenedState,
        exposure: Exposure,
        end: Arc<Notify>,
    ) -> Result<Self> {
        let (node, store) = (&state.node, &state.store);
        let subnet = store.replicated().map(ReplicatedStore::subnet);
        let network = OpenedNetwork::open(config, data, node, subnet, exposure).await?;
        let kernel = &network.kernel;
        let engine = OpenedEngine::open(config, data, store.installation(), kernel).await?;
        let memory = engine.recover(state.memory, kernel).await?;
        let source = FollowedSource::open(config, data, &state.trust)?;
        let metrics = Arc::new(Metrics::new().context("set up the metrics")?);

        // The addresses of the other hosts' daemons, by the store.
        let book = AddressBook::default();
        let address_of = book.address_of();
        let client = network.peers.as_ref().map(PeerHost::client);
        let etcd = store.replicated().map(ReplicatedStore::etcd);
        let inquiry = Inquiry::new(client, etcd, book);

        let fixed = fixed(config, node.clone(), store, &network, &engine, &source).await;
        let readdressed = network::watch_address(config, network.host.node_address, &end);
        let presence = store.replicated().map(ReplicatedStore::presence);
        let watchdog = Watchdog::start(presence).context("start the watchdog")?;
        let (requests, asked) = mpsc::channel(REQUESTS);
        let outputs = engine.runtime.last_outputs();
        let inputs = Inputs {
            source: source.updates,
            lanes: engine.lane_events,
            store: state.store_events,
            asked,
            engine: engine.runtime.changed(),
            outputs: outputs.clone(),
            network: network.kernel.changed(),
            probes: engine.prober.changed(),
            inquiry: inquiry.changed(),
            end,
        };
        let parts = Parts {
            runtime: engine.pods,
            outputs: outputs.clone(),
            network: network.kernel,
            prober: Arc::new(engine.prober),
            dns: network.dns,
            names: network.names,
            lanes: engine.lanes,
            reader: source.judge.reader.clone(),
            metrics: Arc::clone(&metrics),
            nudge: Arc::clone(&source.nudge),
            inquiry,
        };
        let host = Host::new(
            fixed,
            parts,
            state.store,
            Arc::clone(&state.trust),
            memory,
            state.detour,
            source_status(config, &source.url),
        );
        let (view, views) = watch::channel(Arc::new(host.view()));

        let remote = network.peers.as_ref().map(|peers| logs::RemoteHosts {
            client: peers.client(),
            address_of: address_of.clone(),
        });
        let (judge, history) = (source.judge, config.rollout.history);
        let auditor = TrustAuditor::new(judge.clone(), state.trust.clone(), views.clone(), history);
        let planner = OfflinePlanner::new(judge, state.trust, views.clone(), config.clone());
        let pulling = engine.runtime.clone();
        let http = HttpContext {
            views: Views::new(views),
            metrics: Arc::clone(&metrics),
            logs: Arc::new(logs::EngineLogs::new(
                engine.runtime.clone(),
                remote.clone(),
            )),
            pulls: Arc::new(move || pulling.pulls()),
            outputs: Arc::new(outputs::KeptOutputs::new(engine.runtime, outputs, remote)),
            auditor: Arc::new(auditor),
            planner: Arc::new(planner),
            requests,
            silence: config.rollout.resync * 2 + Duration::from_secs(60),
        };

        Ok(Self {
            node: state.node,
            address: network.host.node_address,
            url: source.url,
            control: ControlLoop::new(host, inputs, view, watchdog, config.rollout.resync),
            follower: source.follower,
            watch: source.watch,
            readdressed,
            http: Arc::new(http),
            webhooks: source::webhooks(config, &metrics, &source.nudge)?,
            peers: network.peers,
            address_of,
        })
    }

    /// Starts the listeners and the follower, and runs the loop until the daemon must end.
    async fn serve(self, bound: Bound) -> Result<Ended> {
        let (stop_serving, stopped) = watch::channel(());
        let mut view = self.http.views.subscribe();
        let serving = tokio::spawn(async move {
            // Before the first cycle has read the store, the commits and the containers, a client
            // would be told that there are no objects, and a host that was removed meanwhile would
            // get a new certificate. Who connects before waits.
            if view.changed().await.is_err() {
                return;
            }
            let among_hosts = async {
                if let Some(peers) = self.peers {
                    let daemon = self.http.clone();
                    peers.serve(daemon, self.address_of, stopped.clone()).await;
                }
            };
            let to_clients = bound.serve(self.http.clone(), self.webhooks, stopped.clone());
            tokio::join!(among_hosts, to_clients);
        });
        let following = tokio::spawn(self.follower.run());
        tracing::info!(node = %self.node, address = %self.address, url = %self.url, "started");
        // Fails without systemd, where no process waits for the notification.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);

        let ended = self.control.run().await;

        following.abort();
        drop(self.watch);
        drop(stop_serving);
        let _ = tokio::time::timeout(LAST_ANSWERS, serving).await;
        let moved = self.readdressed.is_some_and(|task| task.is_finished());
        ended.map(|()| if moved { Ended::Moved } else { Ended::Stopped })
    }
}

/// What does not change while the daemon runs.
async fn fixed(
    config: &Config,
    node: NodeName,
    store: &Store,
    network: &OpenedNetwork,
    engine: &OpenedEngine,
    source: &FollowedSource,
) -> Fixed {
    let obstacles = network.obstacles.iter().cloned().map(HostNote::Firewall);
    Fixed {
        facts: node_facts(config, node, store, network, engine).await,
        network: network.host.clone(),
        exposure: network.exposure.clone(),
        dns: dns_facts(network.host.dns, &config.network.zone),
        settings: config.cluster_settings(),
        drain: config.network.drain_delay,
        history: config.rollout.history,
        judge: source.judge.clone(),
        peer: network.peer_address(),
        path: config.network.path,
        away: config.store.away,
        clock: Timestamp::now,
        record_since: RecordKey::since,
        notes: notes(config).into_iter().chain(obstacles).collect(),
    }
}

/// The repository as `status` shows it before the first fetch.
fn source_status(config: &Config, url: &RemoteUrl) -> SourceStatus {
    SourceStatus {
        url: url.to_string(),
        branch: config.source.branch.clone(),
        verification: config.trust.mode.as_str().to_owned(),
        ..SourceStatus::default()
    }
}

/// This host's own facts, as the leader and the other hosts receive them.
async fn node_facts(
    config: &Config,
    name: NodeName,
    store: &Store,
    network: &OpenedNetwork,
    engine: &OpenedEngine,
) -> NodeFacts {
    // Only shown to people: the daemon starts while the engine does not answer.
    let engine = engine.runtime.engine_info().await.ok();
    NodeFacts {
        address: network.host.node_address,
        installation: store.installation().clone(),
        pod_subnet: network.host.pod_subnet,
        mtu: network.host.mtu,
        labels: labels(config, name.as_str()),
        taints: config.node.taints.clone(),
        record_format: RecordFormat::NEWEST,
        system: NodeSystem {
            installed: store.installed(),
            max_pods: config.cluster_settings().max_pods,
            ..host_info::read(engine.as_ref().map(|info| info.version.as_str()))
        },
        name,
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
