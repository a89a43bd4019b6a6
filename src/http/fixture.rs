//! A view of a small host, made by hand, and a daemon that serves this view.

#![expect(clippy::unwrap_used, reason = "test code")]

mod objects;
mod originals;
mod plans;
mod pods;
mod view;

use std::{io, sync::Arc, time::Duration};

use axum::body::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use jiff::Timestamp;
use parking_lot::Mutex;
use reconciler::{
    foreign::ForeignText,
    name::{NodeName, ObjectKey, PodUid, WorkloadKey, WorkloadKind},
};
use runtime::{ImagePull, LastOutput, LastOutputs, PullStage};
use tokio::sync::{mpsc, watch};

pub(crate) use self::{
    pods::running,
    view::{unescaped, view},
};
use super::{
    AuditError, Auditor, HttpContext, OutputSource, PlanError, Planner,
    api::{LogError, LogOptions, LogSource, LogStream, LogTarget, RemotePod},
    plan::{LocalManifests, PlanReport},
    report::{PodTrust, TrustReport},
    views::Views,
};
use crate::{
    command::Request, ids::commit_id, last_outputs::OutputQuery, metrics::Metrics,
    source::allowed_signers::Signer, view::View,
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
        views: Views::new(receiver.clone()),
        metrics: Arc::new(Metrics::new().unwrap()),
        logs: Arc::new(FakeLogs(asked.clone())),
        outputs: Arc::new(FakeOutputs(receiver.clone())),
        pulls: Arc::new(|| vec![pull()]),
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

/// A pull under way, which is half done.
pub(crate) fn pull() -> ImagePull {
    ImagePull {
        image: "registry.example.com/web:3".to_owned(),
        stage: PullStage::Downloading,
        received_bytes: 20 << 20,
        total_bytes: Some(40 << 20),
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

/// The outputs of the view; each other host has one that is newer.
struct FakeOutputs(watch::Receiver<Arc<View>>);

impl OutputSource for FakeOutputs {
    fn here(&self) -> BoxFuture<'_, LastOutputs> {
        let outputs = self.0.borrow().last_outputs.clone();
        async { outputs }.boxed()
    }

    fn there(&self, node: NodeName, query: OutputQuery) -> BoxFuture<'_, Vec<LastOutput>> {
        let there = || LastOutput {
            lines: vec![ForeignText::new(&format!("fatal on {node}"))],
            ..output()
        };
        let commits = query
            .commits
            .into_iter()
            .map(|commit| LastOutput { commit, ..there() });
        let view = self.0.borrow().clone();
        let finished = |uid: &PodUid| {
            let last = view.pods.get(uid)?.containers.first()?.last.as_ref()?;
            Some(last.finished)
        };
        let pods = query.pods.into_iter().map(|uid| LastOutput {
            finished: finished(&uid).unwrap_or(output().finished),
            uid,
            ..there()
        });
        let outputs = commits.chain(pods).collect();
        async { outputs }.boxed()
    }
}

struct FakePlanner;

impl Planner for FakePlanner {
    fn plan(&self, revision: Option<String>) -> BoxFuture<'_, Result<PlanReport, PlanError>> {
        let plan = match revision.as_deref() {
            None | Some("HEAD") => Ok(PlanReport {
                commit: Some(commit_id(NEW)),
                ..PlanReport::default()
            }),
            Some("held") => Ok(plans::held()),
            Some("refused") => Ok(plans::refused()),
            Some(other) => Err(PlanError::NoCommit {
                revision: other.to_owned(),
                url: "https://example.com/site.git".to_owned(),
            }),
        };
        async { plan }.boxed()
    }

    fn plan_local(
        &self,
        manifests: LocalManifests,
    ) -> BoxFuture<'_, Result<PlanReport, PlanError>> {
        let files = manifests.files.iter();
        let texts: Vec<&str> = files.map(|file| file.content.as_str()).collect();
        let subject = format!("{}: {}", manifests.name, texts.join(" "));
        let plan = PlanReport {
            subject,
            ..plans::held()
        };
        async { Ok(plan) }.boxed()
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

/// What the container of the failing pod has printed before it failed.
pub(crate) fn output() -> LastOutput {
    LastOutput {
        pod: ObjectKey::new("default", "web-bbbbbbbbbb-c3333"),
        uid: PodUid::new("00000000-0000-4000-8000-000000000003"),
        owner: key(WorkloadKind::Deployment, "web"),
        commit: commit_id(NEW),
        container: "httpd".into(),
        attempt: 2,
        finished: ago(3030),
        code: 1,
        oom: false,
        lines: vec![
            ForeignText::new("reading the configuration"),
            ForeignText::new("fatal: no \u{1b}[1mkey"),
        ],
    }
}

/// A time in the past. It is near the present, because tables show ages.
fn ago(seconds: u64) -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap() - Duration::from_secs(seconds)
}

fn key(kind: WorkloadKind, name: &str) -> WorkloadKey {
    WorkloadKey {
        kind,
        object: ObjectKey::new("default", name),
    }
}
