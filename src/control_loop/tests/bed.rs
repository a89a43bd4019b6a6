//! A daemon's loop over a fake engine, a fake network and a real data directory. A host that is
//! alone uses tokio's paused clock, which advances as soon as every task waits; members of a
//! cluster use the real clock, since etcd does.

use std::{
    cell::Cell,
    net::{Ipv4Addr, SocketAddrV4},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use jiff::Timestamp;
use netfilter::{Exposure, fake::FakeNet};
use parking_lot::Mutex;
use reconciler::{
    desired::CheckSettings,
    manifest::ReadAs,
    name::{CommitId, ContainerId, ImageId, NodeName},
    network::{HostNetwork, PeerPath, VxlanSettings},
    observed::ObservedContainer,
    plan::Role,
    pod::files::DnsFacts,
    settings::{ClusterSettings, RolloutSettings, ServiceRanges},
    state::{NodeFacts, NodeSystem, Phase, RecordFormat, RecordKey},
};
use runtime::{
    LastOutputs, Pods,
    fake::{FakeProber, FakeRuntime},
};
use tempfile::TempDir;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinHandle,
    time::Instant,
};

use super::record::RecordedHost;
use crate::{
    apply::Effects,
    command::{Command, CommandResult, Request},
    commit_cache::{Reader, Reading},
    control_loop::{ControlLoop, Inputs},
    cycle::{AddressBook, DetourFile, Fixed, Host, HostMemory, Inquiry, Parts},
    dns::{Callers, Dns, cache::NamesFile},
    follow::{Judge, SourceUpdate},
    lanes::Lanes,
    metrics::Metrics,
    source::{
        allowed_signers::AllowedSigners,
        mirror::Mirror,
        snapshot::{SnapshotLimits, SourcePath},
        testing::{Work, bring, request},
        verify::{HeadVerdict, Mode, Policy, verify},
    },
    store::{Agreed, EtcdConfig, Joining, LocalStore, ReplicatedStore, Store, StoreEvent},
    trust::TrustStore,
    view::{FetchStart, SourceStatus, View},
    watchdog::{Keepalive, Watchdog},
};

/// Longer than any wait of these tests takes, by the paused clock.
const LONG: Duration = Duration::from_secs(4 * 3600);
/// Longer than any wait takes in a cluster, also on a busy machine.
const LONG_IN_CLUSTER: Duration = Duration::from_secs(120);
/// The wall clock's time at the start of every test.
const BEGINNING: Timestamp = Timestamp::constant(1_780_318_800, 0);
/// The interval of the resync, in which the whole state is observed again.
const RESYNC: Duration = Duration::from_secs(300);
const ZONE: &str = "cluster.local";

thread_local! {
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A wall clock that advances with the paused clock of the test on this thread.
fn wall_clock() -> Timestamp {
    let began = BEGAN.get().expect("a bed was made");
    BEGINNING + began.elapsed()
}

/// What outlives a daemon: the repository, the data directory, the fake engine's containers, and
/// the network.
pub(super) struct LoopBed {
    node: NodeName,
    host_network: HostNetwork,
    /// The newest format of records that the host publishes.
    pub(super) record_format: RecordFormat,
    /// The first format that has a kind of record.
    pub(super) record_since: fn(&RecordKey) -> RecordFormat,
    /// The reports to systemd's watchdog.
    pub(super) keepalive: Option<Keepalive>,
    /// How to reach the cluster's store; `None` for a host that is alone.
    store: Option<EtcdConfig>,
    clock: fn() -> Timestamp,
    pub(super) work: Work,
    data: TempDir,
    pub(super) engine: FakeRuntime,
    prober: Arc<FakeProber>,
    pub(super) network: Arc<FakeNet>,
}

/// A daemon's loop that runs until `end` is called.
pub(super) struct RunningLoop {
    view: watch::Receiver<Arc<View>>,
    source: mpsc::Sender<SourceUpdate>,
    asked: mpsc::Sender<Request>,
    links: watch::Sender<u64>,
    trust: Arc<Mutex<TrustStore>>,
    judge: Judge,
    clock: fn() -> Timestamp,
    patience: Duration,
    end: Arc<Notify>,
    task: JoinHandle<Result<()>>,
    _probes: watch::Sender<u64>,
}

impl LoopBed {
    /// A host that is alone, under a paused clock.
    pub(super) fn new() -> Self {
        BEGAN.set(Some(Instant::now()));
        Self::with(1, None, wall_clock)
    }

    /// A member of a cluster, whose name ends in this number.
    pub(super) fn member(number: u8, store: EtcdConfig) -> Self {
        Self::with(number, Some(store), Timestamp::now)
    }

    fn with(number: u8, store: Option<EtcdConfig>, clock: fn() -> Timestamp) -> Self {
        let data = tempfile::tempdir().unwrap();
        let engine = FakeRuntime::new(clock, data.path().join("pods"));
        for image in ["web:1", "web:2", "db:1", "db:2"] {
            engine.publish(
                image,
                ImageId::new(format!("sha256:{}", image.replace(':', "-"))),
            );
        }
        Self {
            node: NodeName::new(format!("n{number}")),
            host_network: network(Ipv4Addr::new(192, 0, 2, number)),
            record_format: RecordFormat::NEWEST,
            record_since: RecordKey::since,
            keepalive: None,
            store,
            clock,
            work: Work::new(),
            data,
            engine,
            prober: Arc::new(FakeProber::default()),
            network: Arc::default(),
        }
    }

    /// A member with the state directory and the containers of a recorded host; every probe of them
    /// succeeds.
    pub(super) fn recorded(host: &RecordedHost, store: EtcdConfig) -> Self {
        let mut bed = Self::with(host.number, Some(store), Timestamp::now);
        bed.host_network = host.network.clone();
        bed.prober = Arc::new(FakeProber::successful());
        host.copy_state(bed.data.path());
        bed.engine
            .load(&host.containers, &host.installation)
            .unwrap();
        for (reference, image) in &host.images {
            bed.engine.publish(reference, image.clone());
        }
        bed.work = host.clone_repository();
        bed.fetch(&bed.work);
        bed
    }

    /// The path of a file that the daemon writes into its data directory.
    pub(super) fn data_file(&self, name: &str) -> PathBuf {
        self.data.path().join(name)
    }

    /// The running containers, without sandboxes, of pods whose name begins with `pod`.
    pub(super) fn alive(&self, pod: &str) -> Vec<ContainerId> {
        let is_wanted = |container: &ObservedContainer| {
            container.role != Role::Sandbox
                && container.state.is_alive()
                && container.identity.pod.name.starts_with(pod)
        };
        let containers = self.engine.containers().into_iter();
        containers
            .filter(|(_, container)| is_wanted(container))
            .map(|(id, _)| id)
            .collect()
    }

    /// The number of calls to the engine whose text begins with `begin`.
    pub(super) fn count_calls(&self, begin: &str) -> usize {
        let calls = self.engine.calls();
        calls.iter().filter(|call| call.starts_with(begin)).count()
    }

    /// Commits these manifests, and no other files, to the mirror of this host.
    fn commit(&self, manifests: &str) -> CommitId {
        self.work.write("all.yaml", manifests);
        let id = self.work.commit("a push", None);
        self.fetch(&self.work);
        id
    }

    fn fetch(&self, from: &Work) {
        let url = from.path().to_str().unwrap();
        bring(&request(url, &self.data_file("mirror.git"))).unwrap();
    }

    /// Opens the store. A host that is alone receives no events of a store.
    async fn open_store(&self) -> (Store, mpsc::UnboundedReceiver<StoreEvent>) {
        let data = self.data.path();
        let Some(etcd) = self.store.clone() else {
            let local = LocalStore::open(data, &self.node).unwrap();
            return (Store::Local(Box::new(local)), mpsc::unbounded_channel().1);
        };
        let network = self.host_network.clone();
        let joining = Joining {
            etcd,
            node: self.node.clone(),
            agreed: Agreed {
                pod_range: network.pod_range,
                subnet_length: network.pod_subnet.prefix_len(),
                service_range: network.service_range,
                dns: network.dns,
                zone: ZONE.to_owned(),
                node_ports: (30000, 32767),
            },
            subnet: None,
            subnet_alone: network.pod_subnet,
            node_ranges: Vec::new(),
        };
        let waiting = watch::channel(String::new()).0;
        let opened = ReplicatedStore::open(data, joining, &waiting);
        let (store, events) = opened.await.unwrap();
        (Store::Replicated(Box::new(store)), events)
    }

    /// Starts a daemon on what is in the data directory.
    pub(super) async fn start(&self) -> RunningLoop {
        let data = self.data.path();
        let (store, store_events) = self.open_store().await;
        let trust = Arc::new(Mutex::new(TrustStore::open(&data.join("trust")).unwrap()));

        let pods: Arc<dyn Pods> = Arc::new(self.engine.clone());
        let effects = Effects::new(
            Arc::clone(&pods),
            self.network.clone(),
            self.data_file("pods"),
        );
        let mut memory = HostMemory::open(data).unwrap();
        memory.files = effects.files_on_disk().await.unwrap().into_iter().collect();
        let (lanes, lane_events) = Lanes::new(Arc::new(effects));

        let names = NamesFile::in_dir(data);
        let anywhere = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        let dns = Dns::start(anywhere, names.read(ZONE), Callers::Anyone, Vec::new()).unwrap();
        let judge = judge(self.data_file("mirror.git"));
        let (source, source_events) = mpsc::channel(4);
        let (asked, requests) = mpsc::channel(4);
        let (links, network) = watch::channel(0);
        let (probes, probe_events) = watch::channel(0);
        let (_, outputs) = watch::channel(LastOutputs::default());
        let end = Arc::new(Notify::new());
        let inquiry = Inquiry::new(None, None, AddressBook::default());
        let inputs = Inputs {
            source: source_events,
            lanes: lane_events,
            store: store_events,
            asked: requests,
            engine: self.engine.changed(),
            outputs: outputs.clone(),
            network,
            probes: probe_events,
            inquiry: inquiry.changed(),
            end: Arc::clone(&end),
        };
        let parts = Parts {
            runtime: pods,
            outputs,
            network: self.network.clone(),
            prober: self.prober.clone(),
            dns,
            names,
            lanes,
            reader: judge.reader.clone(),
            metrics: Arc::new(Metrics::new().unwrap()),
            nudge: Arc::new(Notify::new()),
            inquiry,
        };
        let host = Host::new(
            self.fixed(&store, judge.clone()),
            parts,
            store,
            Arc::clone(&trust),
            memory,
            DetourFile::open(data).unwrap(),
            SourceStatus::default(),
        );
        let (sender, view) = watch::channel(Arc::new(host.view()));
        let watchdog = Watchdog::reporting(self.keepalive.clone());
        let control = ControlLoop::new(host, inputs, sender, watchdog, RESYNC);
        RunningLoop {
            view,
            source,
            asked,
            links,
            trust,
            judge,
            clock: self.clock,
            patience: if self.store.is_some() {
                LONG_IN_CLUSTER
            } else {
                LONG
            },
            end,
            task: tokio::spawn(control.run()),
            _probes: probes,
        }
    }

    fn fixed(&self, store: &Store, judge: Judge) -> Fixed {
        let mut network = self.host_network.clone();
        if let Some(store) = store.replicated() {
            network.pod_subnet = store.subnet();
        }
        // By the real clock a long soak would make the test slow.
        let soak = Duration::from_secs(if self.store.is_some() { 1 } else { 10 });
        Fixed {
            facts: NodeFacts {
                name: self.node.clone(),
                installation: store.installation().clone(),
                address: network.node_address,
                pod_subnet: network.pod_subnet,
                mtu: network.mtu,
                labels: [].into(),
                taints: Vec::new(),
                record_format: self.record_format,
                system: NodeSystem::default(),
            },
            exposure: Exposure::Only([].into()),
            settings: ClusterSettings {
                rollout: RolloutSettings {
                    soak,
                    ..RolloutSettings::default()
                },
                ranges: ServiceRanges {
                    addresses: network.service_range,
                    dns: network.dns,
                    node_ports: 30000..=32767,
                },
                max_pods: 110,
            },
            dns: DnsFacts {
                cluster: Some(network.dns),
                zone: ZONE.to_owned(),
                host_searches: Vec::new(),
                host_servers: Vec::new(),
                host_options: Vec::new(),
            },
            network,
            drain: Duration::from_secs(2),
            history: 10,
            judge,
            notes: Vec::new(),
            peer: None,
            path: PeerPath::Vxlan,
            away: Duration::from_secs(60),
            clock: self.clock,
            record_since: self.record_since,
        }
    }
}

impl RunningLoop {
    /// Pushes a commit with these manifests: the follower reports the commit once it is judged.
    pub(super) async fn push(&self, bed: &LoopBed, manifests: &str) -> CommitId {
        let id = bed.commit(manifests);
        self.report(&id).await;
        id
    }

    /// Fetches the head that was pushed on another host.
    pub(super) async fn fetch(&self, bed: &LoopBed, from: &LoopBed) {
        bed.fetch(&from.work);
        self.report(&from.work.head()).await;
    }

    async fn report(&self, head: &CommitId) {
        let update = self.judge(head);
        self.source.send(update).await.unwrap();
    }

    /// What the follower reports for a head that is trusted.
    fn judge(&self, id: &CommitId) -> SourceUpdate {
        let signers = AllowedSigners::default();
        let policy = Policy {
            mode: self.judge.mode,
            signers: &signers,
            anchor: None,
            allow_rewrite: false,
            now: (self.clock)(),
        };
        let repo = self.judge.reader.mirror.open().unwrap();
        let mut trust = self.trust.lock();
        let before = trust.pointers().verified.clone();
        let HeadVerdict::Trusted(accepted) = verify(&repo, &policy, before.as_ref(), id).unwrap()
        else {
            panic!("{id} is not trusted");
        };
        trust.advance(&accepted, policy.now).unwrap();
        let verified = accepted.head;
        let Reading::Good(commit) = self.judge.reader.read(&verified, ReadAs::NewHead) else {
            panic!("{id} cannot be read");
        };
        trust.accept(id).unwrap();
        SourceUpdate::Good {
            commit,
            verified,
            asked: FetchStart::now(),
            elapsed: Duration::ZERO,
        }
    }

    /// Sends a request as a person does, and returns its answer.
    pub(super) async fn ask(&self, command: Command) -> CommandResult {
        let (answer, answered) = oneshot::channel();
        self.asked.send(Request { command, answer }).await.unwrap();
        answered.await.unwrap()
    }

    /// Reports a changed link or route to the loop.
    pub(super) fn links_change(&self) {
        self.links.send_modify(|count| *count += 1);
    }

    /// Waits until `holds` is true for the view after a cycle.
    pub(super) async fn until(&mut self, what: &str, mut holds: impl FnMut(&View) -> bool) {
        let waited = tokio::time::timeout(self.patience, self.view.wait_for(|view| holds(view)));
        if let Ok(Ok(_)) = waited.await {
            return;
        }
        let view = self.view.borrow().clone();
        panic!("{what}: {:#?} {:?}", view.state.rollout, view.troubles);
    }

    /// Waits until a commit is the target and healthy.
    pub(super) async fn until_healthy(&mut self, commit: &CommitId) {
        self.until("the commit is not healthy", |view| {
            let rollout = &view.state.rollout;
            rollout.target.as_ref() == Some(commit) && rollout.phase == Phase::Healthy
        })
        .await;
    }

    /// Waits until the view shows a trouble whose message contains these words.
    pub(super) async fn until_troubled(&mut self, words: &str) {
        self.until("there is no such trouble", |view| {
            view.troubles
                .iter()
                .any(|trouble| trouble.to_string().contains(words))
        })
        .await;
    }

    /// A count of the cycles from now on.
    pub(super) fn count_cycles(&self) -> Arc<AtomicU64> {
        let count = Arc::new(AtomicU64::new(0));
        let (counted, mut view) = (Arc::clone(&count), self.view.clone());
        view.mark_unchanged();
        tokio::spawn(async move {
            while view.changed().await.is_ok() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        count
    }

    /// The view after the last cycle.
    pub(super) fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Ends the daemon and checks that its loop ends without an error.
    pub(super) async fn end(self) {
        self.end.notify_one();
        self.task.await.unwrap().unwrap();
    }
}

fn judge(mirror: PathBuf) -> Judge {
    Judge {
        mode: Mode::Off,
        allowed_signers: None,
        anchor: None,
        allow_rewrite: false,
        reader: Reader {
            mirror: Mirror::new(mirror),
            paths: vec![SourcePath::root()],
            limits: SnapshotLimits::default(),
            check: CheckSettings::default(),
        },
    }
}

fn network(node_address: Ipv4Addr) -> HostNetwork {
    HostNetwork {
        pod_range: "10.42.0.0/16".parse().unwrap(),
        pod_subnet: "10.42.0.0/24".parse().unwrap(),
        service_range: "10.43.0.0/16".parse().unwrap(),
        dns: Ipv4Addr::new(10, 43, 0, 10),
        node_address,
        mtu: 1450,
        vxlan: VxlanSettings::default(),
    }
}
