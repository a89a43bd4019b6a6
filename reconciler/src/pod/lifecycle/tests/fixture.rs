//! A pod as it is written, recorded and observed, and what is decided for it, as text.

use super::super::*;
use crate::{
    ids::commit_id,
    name::{CommitId, ImageId, ObjectKey, PodUid, TemplateHash, WorkloadKey, WorkloadKind},
    object::{Control, Handler, ManifestPosition, Meta, Objects, PodTemplate, Probe},
    observed::LaneFailure,
    plan::{ImagePin, PodIdentity},
    pod::link::link_name,
    state::{PodPlace, StopReason, StopRecord},
    status::ContainerStatus,
};

pub(super) fn at(seconds: u64) -> Timestamp {
    Timestamp::UNIX_EPOCH + Duration::from_secs(seconds)
}

pub(super) const NOW: u64 = 1000;

pub(super) fn container(name: &str) -> Container {
    Container {
        name: name.to_owned(),
        image: ImageReference::new("web:1"),
        ..Container::default()
    }
}

pub(super) fn handler() -> Handler {
    Handler::TcpSocket {
        host: None,
        port: 80,
    }
}

pub(super) fn probe() -> Probe {
    Probe {
        handler: handler(),
        initial_delay: Duration::ZERO,
        period: Duration::from_secs(10),
        timeout: Duration::from_secs(1),
        success_threshold: 1,
        failure_threshold: 3,
        termination_grace: None,
    }
}

pub(super) fn exited(code: i64, message: &str) -> ContainerState {
    ContainerState::Exited {
        started: at(NOW - 20),
        finished: at(NOW - 10),
        code,
        oom: false,
        message: message.to_owned(),
    }
}

pub(super) fn running() -> ContainerState {
    ContainerState::Running {
        started: at(NOW - 100),
    }
}

/// One pod on its host, with all that is decided from.
pub(super) struct Fixture {
    pub(super) spec: PodSpec,
    pub(super) record: PodRecord,
    pub(super) observed: Observed,
    pub(super) memory: PodMemory,
    pub(super) pins: BTreeMap<CommitId, BTreeMap<ImageReference, ImagePin>>,
    pub(super) in_service: bool,
    pub(super) drain: Duration,
}

impl Fixture {
    /// A pod with these containers that has its files and its link, and no container yet.
    pub(super) fn new(containers: &[&str]) -> Self {
        let spec = PodSpec {
            termination_grace: Duration::from_secs(30),
            containers: containers.iter().map(|name| container(name)).collect(),
            ..PodSpec::default()
        };
        let uid = PodUid::new("u1");
        let record = PodRecord {
            uid: uid.clone(),
            key: ObjectKey::new("default", "web"),
            owner: WorkloadKey {
                kind: WorkloadKind::Pod,
                object: ObjectKey::new("default", "web"),
            },
            place: PodPlace::Node(NodeName::new("n1")),
            commit: commit_id("c1"),
            template: TemplateHash::new("1-0123456789"),
            created: at(0),
            serial: 1,
            stop: None,
        };
        let mut observed = Observed::default();
        observed.links.insert(link_name(&uid));
        observed.files.insert(uid, String::new());
        Self {
            spec,
            record,
            observed,
            memory: PodMemory {
                address: Some(Ipv4Addr::new(10, 42, 1, 7)),
                ..PodMemory::default()
            },
            pins: BTreeMap::new(),
            in_service: true,
            drain: Duration::from_secs(2),
        }
    }

    pub(super) fn stopped(mut self) -> Self {
        self.record.stop = Some(StopRecord {
            at: at(NOW),
            reason: StopReason::ScaledDown,
        });
        self
    }

    /// The image of all containers has been pulled.
    pub(super) fn pulled(mut self) -> Self {
        let pin = ImagePin {
            id: ImageId::new("sha256:1"),
            digest: None,
            warning: None,
        };
        self.observed.images.insert(pin.id.clone());
        let pins = BTreeMap::from([(ImageReference::new("web:1"), pin)]);
        self.pins.insert(self.record.commit.clone(), pins);
        self
    }

    pub(super) fn with(
        mut self,
        role: Role,
        name: &str,
        attempt: u32,
        state: ContainerState,
    ) -> Self {
        let container = ObservedContainer {
            identity: PodIdentity {
                uid: self.record.uid.clone(),
                pod: self.record.key.clone(),
                owner: self.record.owner.clone(),
                commit: self.record.commit.clone(),
                template: self.record.template.clone(),
            },
            role,
            name: name.to_owned(),
            attempt,
            image: ImageId::new("sha256:1"),
            state,
        };
        let id = ContainerId::new(format!("{name}-{attempt}"));
        self.observed.containers.insert(id, container);
        self
    }

    pub(super) fn failing(mut self, removes: bool, kind: FaultKind) -> Self {
        let failure = LaneFailure {
            fault: Fault::new(kind, "it failed"),
            container: None,
            since: at(NOW - 500),
            at: at(NOW - 500),
            count: 1,
            removes,
        };
        self.observed.failures.insert(self.lane(), failure);
        self
    }

    pub(super) fn lane(&self) -> LaneKey {
        LaneKey::Pod(self.record.uid.clone())
    }

    pub(super) fn decide(&self) -> PodOutput {
        let workload = Workload {
            key: self.record.owner.clone(),
            meta: Meta::default(),
            template: PodTemplate {
                meta: Meta::default(),
                spec: self.spec.clone(),
                hash: self.record.template.clone(),
            },
            control: Control::Pod,
            position: ManifestPosition {
                file: "web.yaml".to_owned(),
                line: 1,
            },
        };
        let commit = Commit {
            id: self.record.commit.clone(),
            subject: String::new(),
            signer: String::new(),
            time: at(0),
            allow_deletions: false,
            objects: Objects::default(),
            warnings: Vec::new(),
        };
        let (services, allocations) = (BTreeMap::new(), BTreeMap::new());
        let containers: Vec<_> = self.observed.containers.iter().collect();
        live(&PodInput {
            now: at(NOW),
            host: &HostFacts {
                node: &NodeName::new("n1"),
                address: Ipv4Addr::new(192, 0, 2, 1),
                mtu: 1500,
                dns: &DnsFacts::default(),
                pins: &self.pins,
                drain: self.drain,
            },
            record: &self.record,
            commit: Some(&commit),
            workload: Some(&workload),
            services: &ServiceVariables::new("default", &services, &allocations),
            in_service: self.in_service,
            containers: &containers,
            observed: &self.observed,
            memory: self.memory.clone(),
        })
    }

    /// The steps of the lane in short words.
    pub(super) fn steps(&self) -> Vec<String> {
        let line = |step: &Step| match step {
            Step::Drain(time) => format!("drain {time:?}"),
            Step::Stop(specs) => {
                let spec = |spec: &StopSpec| format!("{} {:?}", spec.container, spec.grace);
                let specs: Vec<String> = specs.iter().map(spec).collect();
                format!("stop {}", specs.join(", "))
            }
            Step::Remove(removed) => {
                let removed: Vec<&str> = removed.iter().map(ContainerId::as_str).collect();
                format!("remove {}", removed.join(", "))
            }
            Step::Disconnect(_) => "disconnect".to_owned(),
            Step::RemoveFiles(_) => "remove files".to_owned(),
            Step::PostStart { container, .. } => format!("hook of {container}"),
            other => format!("{other:?}"),
        };
        let lane = self.decide().lane;
        lane.iter().flat_map(|lane| &lane.steps).map(line).collect()
    }

    /// The status of one container.
    pub(super) fn status(&self, name: &str) -> ContainerStatus {
        let status = self.decide().status;
        let mut all = status.init_containers.iter().chain(&status.containers);
        all.find(|one| one.name == name).cloned().expect(name)
    }
}

/// A pod with a sandbox and one container that runs.
pub(super) fn healthy() -> Fixture {
    Fixture::new(&["main"])
        .with(Role::Sandbox, "", 0, running())
        .with(Role::Main, "main", 0, running())
}
