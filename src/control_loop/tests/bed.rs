//! A daemon's loop over a fake engine, a fake network and a real data directory. Time is tokio's
//! paused clock: it moves on as soon as everybody waits.

use std::{
    cell::Cell,
    net::{Ipv4Addr, SocketAddrV4},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use jiff::Timestamp;
use netfilter::fake::FakeNet;
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
    state::{NodeFacts, NodeSystem, Phase},
};
use runtime::{
    Pods,
    fake::{FakeProber, FakeRuntime},
};
use tempfile::TempDir;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinHandle,
    time::Instant,
};

use crate::{
    apply::Effects,
    command::{Command, Request},
    commit_cache::{Reader, Reading},
    control_loop::{ControlLoop, Inputs},
    cycle::{AddressBook, DetourFile, Fixed, Host, HostMemory, Inquiry, Parts},
    dns::{Dns, cache::NamesFile},
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
    store::{LocalStore, Store},
    trust::TrustStore,
    view::{FetchStart, SourceStatus, View},
    watchdog::Watchdog,
};

/// More than anything here takes, by the paused clock.
const LONG: Duration = Duration::from_secs(4 * 3600);
/// When every test begins, by the clock on the wall.
const BEGINNING: Timestamp = Timestamp::constant(1_780_318_800, 0);
/// How often everything is looked at afresh.
const RESYNC: Duration = Duration::from_secs(300);
const ZONE: &str = "cluster.local";

thread_local! {
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A clock on the wall that moves with the paused clock of the test on this thread.
fn wall_clock() -> Timestamp {
    let began = BEGAN.get().expect("a bed was made");
    BEGINNING + began.elapsed()
}

/// What outlives a daemon: the repository, the data directory, what runs, and the network.
pub(super) struct LoopBed {
    work: Work,
    data: TempDir,
    pub(super) engine: FakeRuntime,
    pub(super) network: Arc<FakeNet>,
}

/// A daemon that runs until it is told to end.
pub(super) struct RunningLoop {
    view: watch::Receiver<Arc<View>>,
    source: mpsc::Sender<SourceUpdate>,
    asked: mpsc::Sender<Request>,
    links: watch::Sender<u64>,
    trust: Arc<Mutex<TrustStore>>,
    judge: Judge,
    end: Arc<Notify>,
    task: JoinHandle<Result<()>>,
    _probes: watch::Sender<u64>,
}

impl LoopBed {
    pub(super) fn new() -> Self {
        BEGAN.set(Some(Instant::now()));
        let data = tempfile::tempdir().unwrap();
        let engine = FakeRuntime::new(wall_clock, data.path().join("pods"));
        for image in ["web:1", "web:2", "db:1", "db:2"] {
            engine.publish(
                image,
                ImageId::new(format!("sha256:{}", image.replace(':', "-"))),
            );
        }
        Self {
            work: Work::new(),
            data,
            engine,
            network: Arc::default(),
        }
    }

    /// A file that the daemon is going to write.
    pub(super) fn data_file(&self, name: &str) -> PathBuf {
        self.data.path().join(name)
    }

    /// The containers of pods whose name begins so and that live, without sandboxes.
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

    /// How many calls to the engine began so.
    pub(super) fn count_calls(&self, begin: &str) -> usize {
        let calls = self.engine.calls();
        calls.iter().filter(|call| call.starts_with(begin)).count()
    }

    /// Commits these manifests, and nothing else, to the mirror of this host.
    fn commit(&self, manifests: &str) -> CommitId {
        self.work.write("all.yaml", manifests);
        let id = self.work.commit("a push", None);
        let mirror = self.data_file("mirror.git");
        bring(&request(self.work.path().to_str().unwrap(), &mirror)).unwrap();
        id
    }

    /// Starts a daemon on what is in the data directory.
    pub(super) async fn start(&self) -> RunningLoop {
        let data = self.data.path();
        let node = NodeName::new("n1");
        let local = LocalStore::open(data, &node).unwrap();
        let store = Store::Local(Box::new(local));
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
        let dns = Dns::start(anywhere, names.read(ZONE), Vec::new()).unwrap();
        let judge = judge(self.data_file("mirror.git"));
        let (source, source_events) = mpsc::channel(4);
        let (asked, requests) = mpsc::channel(4);
        let (links, network) = watch::channel(0);
        let (probes, probe_events) = watch::channel(0);
        let end = Arc::new(Notify::new());
        let inquiry = Inquiry::new(None, None, AddressBook::default());
        let inputs = Inputs {
            source: source_events,
            lanes: lane_events,
            // Nobody tells a lonely host anything.
            store: mpsc::unbounded_channel().1,
            asked: requests,
            engine: self.engine.changed(),
            network,
            probes: probe_events,
            inquiry: inquiry.changed(),
            end: Arc::clone(&end),
        };
        let parts = Parts {
            runtime: pods,
            network: self.network.clone(),
            prober: Arc::new(FakeProber::default()),
            dns,
            names,
            lanes,
            reader: judge.reader.clone(),
            metrics: Arc::new(Metrics::new().unwrap()),
            nudge: Arc::new(Notify::new()),
            inquiry,
        };
        let host = Host::new(
            fixed(node, store.installation(), judge.clone()),
            parts,
            store,
            Arc::clone(&trust),
            memory,
            DetourFile::open(data).unwrap(),
            SourceStatus::default(),
        );
        let (sender, view) = watch::channel(Arc::new(host.view()));
        let control = ControlLoop::new(host, inputs, sender, Watchdog::default(), RESYNC);
        RunningLoop {
            view,
            source,
            asked,
            links,
            trust,
            judge,
            end,
            task: tokio::spawn(control.run()),
            _probes: probes,
        }
    }
}

impl RunningLoop {
    /// Pushes a commit with these manifests: the follower reports it once it is judged.
    pub(super) async fn push(&self, bed: &LoopBed, manifests: &str) -> CommitId {
        let id = bed.commit(manifests);
        let update = self.judge(&id);
        self.source.send(update).await.unwrap();
        id
    }

    /// What the follower makes of a head that is trusted.
    fn judge(&self, id: &CommitId) -> SourceUpdate {
        let signers = AllowedSigners::default();
        let policy = Policy {
            mode: self.judge.mode,
            signers: &signers,
            anchor: None,
            allow_rewrite: false,
            now: wall_clock(),
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
            took: Duration::ZERO,
        }
    }

    /// Asks as a person does, and gives the answer.
    pub(super) async fn ask(&self, command: Command) -> Result<String, String> {
        let (answer, answered) = oneshot::channel();
        self.asked.send(Request { command, answer }).await.unwrap();
        answered.await.unwrap()
    }

    /// A link or route changes.
    pub(super) fn links_change(&self) {
        self.links.send_modify(|count| *count += 1);
    }

    /// Waits until something holds after a cycle.
    pub(super) async fn until(&mut self, what: &str, mut holds: impl FnMut(&View) -> bool) {
        let waited = tokio::time::timeout(LONG, self.view.wait_for(|view| holds(view)));
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

    /// Waits until something stands in the way whose message has these words.
    pub(super) async fn until_troubled(&mut self, words: &str) {
        self.until("there is no such trouble", |view| {
            view.troubles.iter().any(|trouble| trouble.contains(words))
        })
        .await;
    }

    /// The view after the last cycle.
    pub(super) fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Ends the daemon, which must end well.
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

fn fixed(name: NodeName, installation: &str, judge: Judge) -> Fixed {
    let dns = Ipv4Addr::new(10, 43, 0, 10);
    let network = HostNetwork {
        pod_range: "10.42.0.0/16".parse().unwrap(),
        pod_subnet: "10.42.0.0/24".parse().unwrap(),
        service_range: "10.43.0.0/16".parse().unwrap(),
        dns,
        node_address: Ipv4Addr::new(192, 0, 2, 1),
        mtu: 1500,
        vxlan: VxlanSettings::default(),
    };
    Fixed {
        facts: NodeFacts {
            name,
            installation: installation.to_owned(),
            address: network.node_address,
            pod_subnet: network.pod_subnet,
            mtu: network.mtu,
            labels: [].into(),
            taints: Vec::new(),
            system: NodeSystem::default(),
        },
        settings: ClusterSettings {
            rollout: RolloutSettings::default(),
            ranges: ServiceRanges {
                addresses: network.service_range,
                dns,
                node_ports: 30000..=32767,
            },
            max_pods: 110,
        },
        network,
        dns: DnsFacts {
            cluster: Some(dns),
            zone: ZONE.to_owned(),
            host_searches: Vec::new(),
            host_servers: Vec::new(),
            host_options: Vec::new(),
        },
        drain: Duration::from_secs(2),
        history: 10,
        judge,
        notes: Vec::new(),
        peer: None,
        path: PeerPath::Vxlan,
        away: Duration::from_secs(60),
        clock: wall_clock,
    }
}
