//! Commits that tests build.

#[path = "../../../tests/support/ids.rs"]
mod ids;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use reconciler::{
    commit::Commit,
    digest::sha256_hex,
    name::{CommitId, ImageReference, ObjectKey, TemplateHash, WorkloadKey, WorkloadKind},
    object::{
        ConfigMap, ConfigSource, Container, ContainerPort, Control, DaemonSetUpdate,
        DeploymentStrategy, Handler, HostPathKind, IntOrPercent, ManifestPosition, Meta,
        MountPropagation, Objects, PodSpec, PodTemplate, Probe, Protocol, PullPolicy,
        RestartPolicy, Selector, Service, ServiceKind, ServicePort, TargetPort, VolumeMount,
        VolumeSource, Workload,
    },
};

pub(crate) use self::ids::commit_id;

/// A pod with one container, `main`, of this image.
pub(crate) fn pod(image: &str) -> PodSpec {
    PodSpec {
        termination_grace: Duration::from_secs(30),
        enable_service_links: true,
        containers: vec![container("main", image)],
        ..PodSpec::default()
    }
}

/// A container with the pull policy that Kubernetes gives its tag by default.
pub(crate) fn container(name: &str, image: &str) -> Container {
    let may_change = !image.contains(':') || image.ends_with(":latest");
    Container {
        name: name.to_owned(),
        image: ImageReference::new(image),
        pull: if may_change {
            PullPolicy::Always
        } else {
            PullPolicy::IfNotPresent
        },
        ..Container::default()
    }
}

/// A probe with Kubernetes' defaults.
pub(crate) fn probe() -> Probe {
    Probe {
        handler: Handler::TcpSocket {
            host: None,
            port: 80,
        },
        initial_delay: Duration::ZERO,
        period: Duration::from_secs(10),
        timeout: Duration::from_secs(1),
        success_threshold: 1,
        failure_threshold: 3,
        termination_grace: None,
    }
}

/// Changes that tests make to a pod.
pub(crate) trait PodSpecExt: Sized {
    fn with_readiness(self) -> Self;
    fn with_liveness(self) -> Self;
    fn with_policy(self, policy: RestartPolicy) -> Self;
    fn with_init(self, name: &str, image: &str) -> Self;
    fn with_config(self, map: &str) -> Self;
    fn with_host_port(self, port: u16) -> Self;
    fn with_post_start(self) -> Self;
    fn with_disk(self) -> Self;
    fn with_disk_at(self, path: &str) -> Self;
}

impl PodSpecExt for PodSpec {
    fn with_readiness(mut self) -> Self {
        self.containers[0].readiness = Some(probe());
        self
    }

    fn with_liveness(mut self) -> Self {
        self.containers[0].liveness = Some(probe());
        self
    }

    fn with_policy(mut self, policy: RestartPolicy) -> Self {
        self.restart_policy = policy;
        self
    }

    fn with_init(mut self, name: &str, image: &str) -> Self {
        self.init_containers.push(container(name, image));
        self
    }

    fn with_config(mut self, map: &str) -> Self {
        let source = ConfigSource::ConfigMap(map.to_owned());
        let volume = VolumeSource::Config {
            source,
            items: Vec::new(),
            mode: 0o644,
            optional: false,
        };
        self.volumes.insert("config".to_owned(), volume);
        self
    }

    fn with_host_port(mut self, port: u16) -> Self {
        self.containers[0].ports.push(ContainerPort {
            name: None,
            port: 80,
            protocol: Protocol::Tcp,
            host_port: Some(port),
            host_ip: None,
        });
        self
    }

    fn with_post_start(mut self) -> Self {
        self.containers[0].post_start = Some(Handler::Exec {
            command: vec!["true".to_owned()],
        });
        self
    }

    /// Mounts a directory of the host that the pod writes to.
    fn with_disk(self) -> Self {
        self.with_disk_at("/srv/db")
    }

    fn with_disk_at(mut self, path: &str) -> Self {
        let volume = VolumeSource::HostPath {
            path: path.into(),
            kind: HostPathKind::Any,
        };
        self.volumes.insert("data".to_owned(), volume);
        self.containers[0].mounts.push(VolumeMount {
            volume: "data".into(),
            path: "/data".into(),
            sub_path: None,
            read_only: false,
            propagation: MountPropagation::default(),
        });
        self
    }
}

fn workload(kind: WorkloadKind, name: &str, spec: PodSpec, control: Control) -> Workload {
    let meta = Meta {
        labels: labels(name),
        annotations: BTreeMap::new(),
    };
    let content_hash = sha256_hex(format!("{meta:?}{spec:?}").as_bytes());
    Workload {
        key: WorkloadKey {
            kind,
            object: ObjectKey::new("default", name),
        },
        meta: Meta::default(),
        template: PodTemplate {
            meta,
            spec,
            hash: TemplateHash::new(format!("1-{}", &content_hash[..16])),
        },
        control,
        position: ManifestPosition {
            file: "all.yaml".to_owned(),
            line: 1,
        },
    }
}

fn labels(name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("app".to_owned(), name.to_owned())])
}

fn selector(name: &str) -> Selector {
    Selector {
        labels: labels(name),
        expressions: Vec::new(),
    }
}

pub(crate) fn bare(name: &str, spec: PodSpec) -> Workload {
    workload(WorkloadKind::Pod, name, spec, Control::Pod)
}

pub(crate) fn replica_set(name: &str, replicas: u32, spec: PodSpec) -> Workload {
    let control = Control::Replicas {
        replicas,
        min_ready: Duration::ZERO,
        selector: selector(name),
    };
    workload(WorkloadKind::ReplicaSet, name, spec, control)
}

pub(crate) fn replication_controller(name: &str, replicas: u32, spec: PodSpec) -> Workload {
    let control = Control::Replicas {
        replicas,
        min_ready: Duration::ZERO,
        selector: selector(name),
    };
    workload(WorkloadKind::ReplicationController, name, spec, control)
}

/// A Deployment with the defaults of Kubernetes: `maxSurge` and `maxUnavailable` 25 %, deadline 600
/// s.
pub(crate) fn deployment(name: &str, replicas: u32, spec: PodSpec) -> Workload {
    rolling(
        name,
        replicas,
        spec,
        IntOrPercent::Percent(25),
        IntOrPercent::Percent(25),
    )
}

pub(crate) fn rolling(
    name: &str,
    replicas: u32,
    spec: PodSpec,
    max_surge: IntOrPercent,
    max_unavailable: IntOrPercent,
) -> Workload {
    let strategy = DeploymentStrategy::RollingUpdate {
        max_surge,
        max_unavailable,
    };
    let control = Control::Deployment {
        replicas,
        min_ready: Duration::ZERO,
        selector: selector(name),
        strategy,
        progress_deadline: Some(Duration::from_secs(600)),
        paused: false,
    };
    workload(WorkloadKind::Deployment, name, spec, control)
}

pub(crate) fn recreate(name: &str, replicas: u32, spec: PodSpec) -> Workload {
    let mut workload = deployment(name, replicas, spec);
    if let Control::Deployment { strategy, .. } = &mut workload.control {
        *strategy = DeploymentStrategy::Recreate;
    }
    workload
}

pub(crate) fn paused(mut workload: Workload) -> Workload {
    if let Control::Deployment { paused, .. } = &mut workload.control {
        *paused = true;
    }
    workload
}

pub(crate) fn daemon_set(name: &str, spec: PodSpec) -> Workload {
    let update = DaemonSetUpdate::RollingUpdate {
        max_unavailable: IntOrPercent::Int(1),
        max_surge: IntOrPercent::Int(0),
    };
    let control = Control::DaemonSet {
        min_ready: Duration::ZERO,
        selector: selector(name),
        update,
    };
    workload(WorkloadKind::DaemonSet, name, spec, control)
}

pub(crate) fn on_delete(mut workload: Workload) -> Workload {
    if let Control::DaemonSet { update, .. } = &mut workload.control {
        *update = DaemonSetUpdate::OnDelete;
    }
    workload
}

pub(crate) fn node_port(port: Option<u16>) -> Service {
    Service {
        meta: Meta::default(),
        kind: ServiceKind::NodePort { address: None },
        selector: BTreeMap::new(),
        ports: vec![ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: 80,
            target: TargetPort::Number(80),
            node_port: port,
        }],
        publish_not_ready: false,
        client_ip_affinity: None,
    }
}

/// A commit under construction.
pub(crate) struct CommitBuilder {
    id: CommitId,
    objects: Objects,
    allow_deletions: bool,
}

pub(crate) fn commit(id: &str) -> CommitBuilder {
    CommitBuilder {
        id: commit_id(id),
        objects: Objects::default(),
        allow_deletions: false,
    }
}

impl CommitBuilder {
    pub(crate) fn with(mut self, workload: Workload) -> Self {
        self.objects
            .workloads
            .insert(workload.key.clone(), workload);
        self
    }

    /// A Service `name` that selects `app`.
    pub(crate) fn service(mut self, name: &str, app: &str, mut service: Service) -> Self {
        service.selector = labels(app);
        self.objects
            .services
            .insert(ObjectKey::new("default", name), service);
        self
    }

    pub(crate) fn config_map(mut self, name: &str, content: &str) -> Self {
        let data = BTreeMap::from([("file".to_owned(), content.as_bytes().to_vec())]);
        self.objects.config_maps.insert(
            ObjectKey::new("default", name),
            ConfigMap {
                meta: Meta::default(),
                data,
            },
        );
        self
    }

    pub(crate) fn allow_deletions(mut self) -> Self {
        self.allow_deletions = true;
        self
    }

    pub(crate) fn build(self) -> Arc<Commit> {
        Arc::new(Commit {
            subject: format!("Change to {}", self.id),
            id: self.id,
            signer: "deployer@example.com".to_owned(),
            time: Timestamp::UNIX_EPOCH,
            allow_deletions: self.allow_deletions,
            objects: self.objects,
            warnings: Vec::new(),
        })
    }
}
