//! A view of a small host, made by hand, and a daemon that serves this view.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::{collections::BTreeMap, io, net::Ipv4Addr, sync::Arc, time::Duration};

use axum::body::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use jiff::Timestamp;
use parking_lot::Mutex;
use reconciler::{
    foreign::ForeignText,
    manifest::{Problem, Severity},
    name::{
        ContainerId, ImageReference, Installation, NodeName, ObjectKey, PodUid, TemplateHash,
        WorkloadKey, WorkloadKind,
    },
    object::{
        Container, ContainerPort, Control, DeploymentStrategy, IntOrPercent, Meta, ObjectId,
        Objects, Place, PodSpec, PodTemplate, PortKey, Protocol, Secret, Selector, Sensitive,
        Service, ServiceKind, ServicePort, TargetPort, Workload,
    },
    state::{
        ClusterState, CommitReason, CommitState, HistoryEntry, KnownNode, NodeFacts, NodeLife,
        NodeSystem, NotReady, Phase, PodPlace, PodRecord, RecordFormat, Rollout, ServiceAllocation,
        StopReason, StopRecord, Stored,
    },
    status::{ContainerPhase, ContainerStatus, PodPhase, PodStatus, Termination},
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::{
    AuditError, Auditor, HttpContext, PlanError, Planner,
    api::{LogError, LogOptions, LogSource, LogStream, LogTarget, RemotePod},
    report::{PlanReport, PodTrust, TrustReport},
    views::Views,
};
use crate::{
    command::Request,
    ids::commit_id,
    metrics::Metrics,
    source::allowed_signers::Signer,
    uptime::Uptime,
    view::{Commit, EventView, HostNote, HostTrouble, LaneView, SourceStatus, View},
};

/// The commit that runs.
pub(crate) const NEW: &str = "2222222222222222222222222222222222222222";
/// The commit before `NEW`.
pub(crate) const OLD: &str = "1111111111111111111111111111111111111111";
/// The value of a Secret, which no answer may contain.
pub(crate) const HIDDEN: &str = "correct horse battery staple";

/// Installs the TLS provider that clients need, even those that never use TLS.
pub(crate) fn crypto() {
    // Another test may have installed the provider first.
    rustls::crypto::ring::default_provider()
        .install_default()
        .unwrap_or_default();
}

/// A daemon over a view, with the parts that tests use.
pub(crate) struct Fixture {
    pub(crate) daemon: Arc<HttpContext>,
    pub(crate) publish: watch::Sender<Arc<View>>,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) asked: Arc<Mutex<Vec<(LogTarget, LogOptions)>>>,
}

pub(crate) fn fixture() -> Fixture {
    let (publish, receiver) = watch::channel(Arc::new(view()));
    let (sender, requests) = mpsc::channel(4);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let daemon = HttpContext {
        views: Views::new(receiver),
        metrics: Arc::new(Metrics::new().unwrap()),
        logs: Arc::new(FakeLogs(asked.clone())),
        planner: Arc::new(FakePlanner),
        auditor: Arc::new(FakeAuditor),
        requests: sender,
        silence: Duration::from_secs(60),
    };
    Fixture {
        daemon: Arc::new(daemon),
        publish,
        requests,
        asked,
    }
}

/// Records the requests for logs, and returns two lines with the name of the container.
struct FakeLogs(Arc<Mutex<Vec<(LogTarget, LogOptions)>>>);

impl LogSource for FakeLogs {
    fn logs(
        &self,
        target: LogTarget,
        options: LogOptions,
    ) -> BoxFuture<'_, Result<LogStream, LogError>> {
        let line = format!("hello from {} of {}\n", target.container, target.pod);
        self.0.lock().push((target, options));
        let lines: Vec<io::Result<Bytes>> =
            vec![Ok(Bytes::from(line)), Ok(Bytes::from("second line\n"))];
        async { Ok(stream::iter(lines).boxed()) }.boxed()
    }

    fn remote(
        &self,
        pod: RemotePod,
        _options: LogOptions,
    ) -> BoxFuture<'_, Result<LogStream, LogError>> {
        let line = format!("hello from {} on {}\n", pod.key.name, pod.node);
        async { Ok(stream::iter([Ok(Bytes::from(line))]).boxed()) }.boxed()
    }
}

struct FakePlanner;

impl Planner for FakePlanner {
    fn plan(&self, revision: String) -> BoxFuture<'_, Result<PlanReport, PlanError>> {
        async move {
            match revision.as_str() {
                "HEAD" => Ok(PlanReport {
                    commit: Some(commit_id(NEW)),
                    lanes: Vec::new(),
                }),
                other => Err(PlanError::NoCommit {
                    revision: other.to_owned(),
                    url: "https://example.com/site.git".to_owned(),
                }),
            }
        }
        .boxed()
    }
}

struct FakeAuditor;

impl Auditor for FakeAuditor {
    fn audit(&self) -> BoxFuture<'_, Result<TrustReport, AuditError>> {
        let signer = Signer {
            principal: "dev@example.com".to_owned(),
            fingerprint: "SHA256:abc".to_owned(),
        };
        let signed = PodTrust {
            pod: "default/web-1".to_owned(),
            commit: commit_id(NEW),
            grounds: "signature".to_owned(),
            signer: Some(signer),
            judged: Some(ago(120)),
            note: "its key was withdrawn since: it is not in the signers file".to_owned(),
        };
        let kept = PodTrust {
            pod: "default/old".to_owned(),
            commit: commit_id(OLD),
            grounds: "none".to_owned(),
            signer: None,
            judged: None,
            note: "kept up in place".to_owned(),
        };
        let report = TrustReport {
            node: "host-a".to_owned(),
            mode: "mainline".to_owned(),
            pods: vec![kept, signed],
        };
        async { Ok(report) }.boxed()
    }
}

/// A time in the past. It is near the present, because tables show ages.
fn ago(seconds: u64) -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap() - Duration::from_secs(seconds)
}

pub(crate) fn view() -> View {
    let new = Arc::new(commit(
        NEW,
        "Serve the new page",
        "httpd:2.4.62",
        "1-bbbbbbbbbbbbbbbb",
    ));
    let old = Arc::new(commit(
        OLD,
        "Serve the page",
        "httpd:2.4.61",
        "1-aaaaaaaaaaaaaaaa",
    ));
    let node = NodeName::new("host-a");
    let (records, pods) = pods(&node);
    let mut services = BTreeMap::new();
    let allocation = ServiceAllocation {
        cluster_ip: Some(Ipv4Addr::new(10, 96, 0, 11)),
        node_ports: BTreeMap::from([(PortKey::new(Protocol::Tcp, 80), 30080)]),
    };
    services.insert(ObjectKey::new("default", "web"), allocation);
    let state = ClusterState {
        cluster: "test".into(),
        serial: 9,
        rollout: rollout(),
        pods: records,
        services,
        ..ClusterState::default()
    };
    let facts = NodeFacts {
        name: node.clone(),
        installation: Installation::new("test"),
        address: Ipv4Addr::new(192, 0, 2, 10),
        pod_subnet: "10.244.0.0/24".parse().unwrap(),
        mtu: 1500,
        labels: BTreeMap::from([("kubernetes.io/hostname".to_owned(), "host-a".to_owned())]),
        taints: Vec::new(),
        record_format: RecordFormat::NEWEST,
        system: NodeSystem {
            kernel: "6.1.0".into(),
            os: "Debian GNU/Linux 12".into(),
            engine: "docker://20.10.24".into(),
            architecture: "amd64".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            cpus: 2,
            memory_kib: 4_194_304,
            max_pods: 110,
            installed: Some(Timestamp::now() - Duration::from_secs(3 * 24 * 3600)),
        },
    };
    View {
        at: Timestamp::now(),
        made: Uptime::now(),
        node: node.clone(),
        cluster: None,
        nodes: BTreeMap::from([(
            node,
            KnownNode {
                facts,
                life: NodeLife::Ready,
            },
        )]),
        state: Arc::new(state),
        pods: Arc::new(pods),
        commits: BTreeMap::from([(new.id.clone(), new), (old.id.clone(), old)]),
        ineligible: BTreeMap::new(),
        origins: BTreeMap::new(),
        source: SourceStatus {
            url: "https://git.example.com/site.git".into(),
            branch: "main".into(),
            verification: "mainline".into(),
            head: Some(commit_id(NEW)),
            verified: Some(commit_id(NEW)),
            fetched: Some(ago(3)),
            fetched_uptime_nanos: Some(Uptime::now().before(Duration::from_secs(3))),
            error: None,
            refusal: None,
        },
        plan: vec![LaneView {
            subject: "default/web-bbbbbbbbbb-c3333".into(),
            why: "container httpd is started again".into(),
            steps: vec!["start container httpd".into()],
        }],
        converged: true,
        troubles: Vec::new(),
        notes: vec![HostNote::VerificationOff],
        events: vec![EventView {
            kind: "Pod".into(),
            key: ObjectKey::new("default", "web-bbbbbbbbbb-c3333"),
            uid: Some(PodUid::new("00000000-0000-4000-8000-000000000003")),
            warning: true,
            reason: "BackOff".into(),
            message: "httpd exited with 1 and is started again in 20 s".into(),
            first: ago(50),
            last: ago(5),
            count: 3,
        }],
    }
}

/// A text that acts on a terminal, forges a line and reverses the direction of writing.
const ODD: &str = "x\u{1b}[2J\u{1b}]0;owned\u{7}\r\nforged\tline\u{9b}1m\u{202e}y\u{200b}";

/// A view as an older version or a malicious host may have made it: none of its texts is escaped.
pub(crate) fn unescaped() -> View {
    let mut view = view();
    let state = Arc::make_mut(&mut view.state);
    let odd = || Stored::Read(ForeignText::new(ODD));
    state.rollout.phase = Phase::Degraded { message: odd() };
    state.rollout.bad.insert(commit_id(OLD), odd());
    for entry in &mut state.rollout.history {
        (entry.subject, entry.signer) = (ODD.into(), ODD.into());
        entry.reason = Stored::Read(ForeignText::new(ODD));
    }
    for status in Arc::make_mut(&mut view.pods).values_mut() {
        status.message = Some(ODD.into());
        status.containers.iter_mut().for_each(|container| {
            container.last = Some(Termination {
                code: 1,
                reason: ODD.into(),
                message: ODD.into(),
                started: ago(60),
                finished: ago(50),
            });
            container.state = ContainerPhase::Waiting {
                reason: format!("Odd{ODD}"),
                message: ODD.into(),
            };
        });
    }
    for node in view.nodes.values_mut() {
        node.facts.system.os = ODD.into();
        node.facts.labels.insert(ODD.into(), ODD.into());
        node.life = NodeLife::NotReady(NotReady::Reported(ForeignText::new(ODD)));
    }
    let refusal = crate::view::RefusedCommit {
        commit: commit_id(NEW),
        summary: ODD.into(),
        problems: vec![format!("2{ODD}")],
    };
    view.source.refusal = Some(refusal);
    view.source.error = Some(ODD.into());
    view.troubles
        .push(HostTrouble::Failed(ForeignText::new(ODD)));
    view.notes.push(HostNote::SpareImage(ForeignText::new(ODD)));
    view.events
        .iter_mut()
        .for_each(|event| event.message = ODD.into());
    view.plan.iter_mut().for_each(|lane| {
        (lane.subject, lane.why, lane.steps) = (ODD.into(), ODD.into(), vec![ODD.into()])
    });
    view
}

fn rollout() -> Rollout {
    let entry = |commit: &str, subject: &str, state, ended| HistoryEntry {
        commit: commit_id(commit),
        subject: subject.into(),
        signer: "deployer@example.com".into(),
        state,
        reason: CommitReason::None.into(),
        class: None,
        began: ago(7200),
        ended,
    };
    Rollout {
        target: Some(commit_id(NEW)),
        healthy: Some(commit_id(OLD)),
        driving: Some(commit_id(NEW)),
        phase: Phase::Progressing {
            message: Stored::Read(ForeignText::new(
                "Deployment default/web: 1 of 2 updated pods are available",
            )),
        },
        since: Some(ago(60)),
        began: Some(ago(70)),
        history: vec![
            entry(OLD, "Serve the page", CommitState::Healthy, Some(ago(7000))),
            entry(NEW, "Serve the new page", CommitState::Progressing, None),
        ],
        ..Rollout::default()
    }
}

fn commit(id: &str, subject: &str, image: &str, hash: &str) -> Commit {
    Commit {
        id: commit_id(id),
        subject: subject.into(),
        signer: "deployer@example.com".into(),
        time: if id == OLD { ago(86_400) } else { ago(80) },
        allow_deletions: false,
        objects: objects(image, hash),
        warnings: vec![Problem {
            file: "deploy/rbac.yaml".into(),
            line: 1,
            column: 1,
            severity: Severity::Warning,
            field: "kind".into(),
            message: "a Role has no effect here".into(),
        }],
    }
}

fn objects(image: &str, hash: &str) -> Objects {
    let mut objects = Objects::default();
    let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    let meta = Meta {
        labels: labels.clone(),
        annotations: BTreeMap::new(),
    };
    let web = key(WorkloadKind::Deployment, "web");
    let port = ContainerPort {
        name: Some("http".into()),
        port: 80,
        protocol: Protocol::Tcp,
        host_port: None,
        host_ip: None,
    };
    let container = Container {
        name: "httpd".into(),
        image: ImageReference::new(image),
        ports: vec![port],
        ..Container::default()
    };
    let spec = PodSpec {
        termination_grace: Duration::from_secs(30),
        containers: vec![container],
        ..PodSpec::default()
    };
    let control = Control::Deployment {
        replicas: 2,
        min_ready: Duration::ZERO,
        selector: Selector {
            labels: labels.clone(),
            expressions: Vec::new(),
        },
        strategy: DeploymentStrategy::RollingUpdate {
            max_surge: IntOrPercent::Percent(25),
            max_unavailable: IntOrPercent::Percent(25),
        },
        progress_deadline: None,
        paused: false,
    };
    let place = Place {
        file: "deploy/web.yaml".into(),
        line: 1,
    };
    let template = PodTemplate {
        meta: meta.clone(),
        spec: spec.clone(),
        hash: TemplateHash::new(hash),
    };
    objects.workloads.insert(
        web.clone(),
        Workload {
            key: web,
            meta: meta.clone(),
            template,
            control,
            place: place.clone(),
        },
    );
    let batch = key(WorkloadKind::Pod, "batch");
    let hash = TemplateHash::new("1-cccccccccccccccc");
    let init = Container {
        name: "prepare".into(),
        image: ImageReference::new("busybox:1"),
        ..Container::default()
    };
    let batch_spec = PodSpec {
        init_containers: vec![init],
        ..spec
    };
    let template = PodTemplate {
        meta: Meta::default(),
        spec: batch_spec,
        hash,
    };
    let workload = Workload {
        key: batch.clone(),
        meta: Meta::default(),
        template,
        control: Control::Pod,
        place: place.clone(),
    };
    objects.workloads.insert(batch, workload);
    objects.services.insert(
        ObjectKey::new("default", "web"),
        service(meta.clone(), labels),
    );
    let secret = Secret {
        meta: Meta::default(),
        kind: "Opaque".into(),
        data: BTreeMap::from([(
            "password".to_owned(),
            Sensitive::new(HIDDEN.as_bytes().to_vec()),
        )]),
    };
    objects
        .secrets
        .insert(ObjectKey::new("default", "db"), secret);
    for (api_version, kind, name, original) in originals(image) {
        let id = ObjectId {
            api_version: api_version.into(),
            kind: kind.into(),
            key: ObjectKey::new(if kind == "Namespace" { "" } else { "default" }, name),
        };
        objects.places.insert(id.clone(), place.clone());
        objects.originals.insert(id, original);
    }
    objects
}

fn service(meta: Meta, selector: BTreeMap<String, String>) -> Service {
    Service {
        meta,
        kind: ServiceKind::NodePort { address: None },
        selector,
        ports: vec![ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: 80,
            target: TargetPort::Name("http".into()),
            node_port: None,
        }],
        publish_not_ready: false,
        client_ip_affinity: None,
    }
}

/// The manifests contain the values of the Secret on purpose: the API itself must remove them.
fn originals(image: &str) -> Vec<(&'static str, &'static str, &'static str, Value)> {
    let container = json!({ "name": "httpd", "image": image, "ports": [{ "name": "http", "containerPort": 80 }] });
    vec![
        (
            "apps/v1",
            "Deployment",
            "web",
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": { "name": "web", "labels": { "app": "web" } },
                "spec": { "template": {
                    "metadata": { "labels": { "app": "web" } },
                    "spec": { "containers": [container] },
                } },
            }),
        ),
        (
            "v1",
            "Pod",
            "batch",
            json!({
                "metadata": { "name": "batch" },
                "spec": { "initContainers": [{ "name": "prepare", "image": "busybox:1" }], "containers": [container] },
            }),
        ),
        (
            "v1",
            "Service",
            "web",
            json!({
                "metadata": { "name": "web" },
                "spec": { "type": "NodePort", "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": "http" }] },
            }),
        ),
        (
            "v1",
            "ConfigMap",
            "settings",
            json!({ "metadata": { "name": "settings" }, "data": { "a": "1", "b": "2" } }),
        ),
        (
            "v1",
            "Secret",
            "db",
            json!({
                "metadata": { "name": "db", "annotations": { "kubectl.kubernetes.io/last-applied-configuration": HIDDEN } },
                "stringData": { "password": HIDDEN },
            }),
        ),
        (
            "v1",
            "Namespace",
            "staging",
            json!({ "metadata": { "name": "staging", "labels": { "team": "a" } } }),
        ),
    ]
}

fn key(kind: WorkloadKind, name: &str) -> WorkloadKey {
    WorkloadKey {
        kind,
        object: ObjectKey::new("default", name),
    }
}

type FixturePods = (BTreeMap<PodUid, PodRecord>, BTreeMap<PodUid, PodStatus>);

fn pods(node: &NodeName) -> FixturePods {
    let (mut records, mut statuses) = (BTreeMap::new(), BTreeMap::new());
    let mut add = |number: u64,
                   owner: WorkloadKey,
                   name: &str,
                   commit: &str,
                   hash: &str,
                   status: PodStatus| {
        let uid = PodUid::new(format!("00000000-0000-4000-8000-{number:012}"));
        let record = PodRecord {
            uid: uid.clone(),
            key: ObjectKey::new("default", name),
            owner,
            place: PodPlace::Node(node.clone()),
            commit: commit_id(commit),
            template: TemplateHash::new(hash),
            created: ago(3600),
            serial: number,
            stop: None,
        };
        records.insert(uid.clone(), record);
        statuses.insert(uid, status);
    };
    let web = key(WorkloadKind::Deployment, "web");
    let (old, new) = ("1-aaaaaaaaaaaaaaaa", "1-bbbbbbbbbbbbbbbb");
    add(1, web.clone(), "web-aaaaaaaaaa-a1111", OLD, old, running(1));
    add(2, web.clone(), "web-bbbbbbbbbb-b2222", NEW, new, running(2));
    add(3, web, "web-bbbbbbbbbb-c3333", NEW, new, crashing());
    add(
        4,
        key(WorkloadKind::Pod, "batch"),
        "batch",
        NEW,
        "1-cccccccccccccccc",
        initializing(),
    );
    let first = PodUid::new("00000000-0000-4000-8000-000000000001");
    if let Some(record) = records.get_mut(&first) {
        record.stop = Some(StopRecord {
            at: ago(2),
            reason: StopReason::Replaced,
        });
    }
    (records, statuses)
}

fn container(name: &str, number: u8, state: ContainerPhase) -> ContainerStatus {
    ContainerStatus {
        name: name.into(),
        image: "httpd:2.4.62".into(),
        image_id: None,
        container_id: Some(ContainerId::new(format!("{number:064x}"))),
        ready: matches!(state, ContainerPhase::Running { .. }),
        started: true,
        restarts: 0,
        state,
        last: None,
    }
}

pub(crate) fn running(number: u8) -> PodStatus {
    let state = ContainerPhase::Running { started: ago(3590) };
    PodStatus {
        phase: PodPhase::Running,
        address: Some(Ipv4Addr::new(10, 244, 0, number)),
        started: Some(ago(3595)),
        initialized: true,
        ready: Some(ago(3580)),
        containers: vec![container("httpd", number, state)],
        ..PodStatus::pending()
    }
}

fn crashing() -> PodStatus {
    let state = ContainerPhase::Waiting {
        reason: "CrashLoopBackOff".into(),
        message: "back-off 20 s".into(),
    };
    let last = Termination {
        code: 1,
        reason: "Error".into(),
        message: String::new(),
        started: ago(15),
        finished: ago(12),
    };
    let container = ContainerStatus {
        restarts: 2,
        last: Some(last),
        ..container("httpd", 3, state)
    };
    PodStatus {
        address: Some(Ipv4Addr::new(10, 244, 0, 3)),
        ready: None,
        containers: vec![container],
        ..running(3)
    }
}

fn initializing() -> PodStatus {
    let waiting = ContainerPhase::Waiting {
        reason: "PodInitializing".into(),
        message: String::new(),
    };
    let mut main = container("httpd", 5, waiting);
    main.container_id = None;
    PodStatus {
        phase: PodPhase::Pending,
        started: Some(ago(10)),
        init_containers: vec![container(
            "prepare",
            4,
            ContainerPhase::Running { started: ago(9) },
        )],
        containers: vec![main],
        ..PodStatus::pending()
    }
}
