//! Pods as text, and the actions of their owner as text.

use std::{collections::BTreeSet, fmt::Write, time::Duration};

use jiff::Timestamp;

use crate::{
    controller::{Action, CanaryView, NodeConditions, OwnedPod, OwnerView, PodNaming, control},
    ids::commit_id,
    name::{CommitId, NodeName, ObjectKey, PodUid, TemplateHash, WorkloadKey, WorkloadKind},
    object::{
        Container, Control, DaemonSetUpdate, DeploymentStrategy, HostPathKind, IntOrPercent,
        ManifestPosition, Meta, MountPropagation, PodSpec, PodTemplate, Selector, VolumeMount,
        VolumeSource, Workload,
    },
    placement::Candidate,
    state::{PodPlace, PodRecord, Refusal, StopReason, StopRecord},
    status::{PULLING, PodPhase, PodStatus},
};

/// An owner with its nodes.
pub(crate) struct Scene {
    pub(crate) workload: Workload,
    pub(crate) nodes: Vec<Candidate>,
    pub(crate) conditions: NodeConditions,
    pub(crate) restarted: Option<u64>,
    /// The canaries, while only they follow the new template.
    pub(crate) canaries: Option<BTreeSet<NodeName>>,
    /// The owner as the commit before has it.
    pub(crate) before: Option<Workload>,
    pub(crate) down_elsewhere: usize,
}

pub(crate) fn at(second: u64) -> Timestamp {
    Timestamp::UNIX_EPOCH + Duration::from_secs(second)
}

/// The nodes with these names, separated by spaces.
pub(crate) fn named(nodes: &str) -> BTreeSet<NodeName> {
    nodes.split_whitespace().map(NodeName::new).collect()
}

pub(crate) fn workload(kind: WorkloadKind, template: &str, control: Control) -> Workload {
    Workload {
        key: WorkloadKey {
            kind,
            object: ObjectKey::new("default", "web"),
        },
        meta: Meta::default(),
        template: PodTemplate {
            meta: Meta::default(),
            spec: PodSpec {
                containers: vec![Container::default()],
                ..PodSpec::default()
            },
            hash: TemplateHash::new(format!("1-{template}")),
        },
        control,
        position: ManifestPosition {
            file: "web.yaml".to_owned(),
            line: 1,
        },
    }
}

pub(crate) fn deployment(replicas: u32, strategy: DeploymentStrategy) -> Workload {
    let control = Control::Deployment {
        replicas,
        min_ready: Duration::ZERO,
        selector: Selector::default(),
        strategy,
        progress_deadline: None,
        paused: false,
    };
    workload(WorkloadKind::Deployment, "new", control)
}

/// A Deployment that is updated within these numbers of pods.
pub(crate) fn rolling(replicas: u32, surge: u32, unavailable: u32) -> Scene {
    let strategy = DeploymentStrategy::RollingUpdate {
        max_surge: IntOrPercent::Int(surge),
        max_unavailable: IntOrPercent::Int(unavailable),
    };
    Scene::of(deployment(replicas, strategy))
}

pub(crate) fn recreate(replicas: u32) -> Scene {
    Scene::of(deployment(replicas, DeploymentStrategy::Recreate))
}

pub(crate) fn paused(replicas: u32) -> Scene {
    let mut scene = rolling(replicas, 1, 0);
    if let Control::Deployment { paused, .. } = &mut scene.workload.control {
        *paused = true;
    }
    scene
}

pub(crate) fn replica_set(replicas: u32) -> Scene {
    let control = Control::Replicas {
        replicas,
        min_ready: Duration::ZERO,
        selector: Selector::default(),
    };
    Scene::of(workload(WorkloadKind::ReplicaSet, "new", control))
}

pub(crate) fn daemon_set(update: DaemonSetUpdate) -> Scene {
    let control = Control::DaemonSet {
        min_ready: Duration::ZERO,
        selector: Selector::default(),
        update,
    };
    Scene::of(workload(WorkloadKind::DaemonSet, "new", control))
}

impl Scene {
    /// The owner on the nodes a, b and c.
    pub(crate) fn of(workload: Workload) -> Self {
        Self {
            workload,
            nodes: ["a", "b", "c"].map(candidate).into(),
            conditions: NodeConditions::default(),
            restarted: None,
            canaries: None,
            before: None,
            down_elsewhere: 0,
        }
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The nodes that are drained accept no new pods.
    pub(crate) fn draining(self, nodes: &str) -> Self {
        self.with(|scene| {
            scene.conditions.draining = named(nodes);
            for node in &mut scene.nodes {
                node.cordoned = scene.conditions.draining.contains(&node.name);
            }
        })
    }

    /// Only the canaries follow the new template; before, the owner wanted this number of pods.
    pub(crate) fn canary(self, nodes: &str, replicas_before: u32) -> Self {
        self.with(|scene| {
            scene.canaries = Some(named(nodes));
            let mut before = scene.workload.clone();
            before.template.hash = TemplateHash::new("1-old");
            if let Control::Deployment { replicas, .. } = &mut before.control {
                *replicas = replicas_before;
            }
            scene.before = Some(before);
        })
    }

    /// The pods write to a directory of the host.
    pub(crate) fn with_disk(self) -> Self {
        self.with(|scene| {
            let spec = &mut scene.workload.template.spec;
            let volume = VolumeSource::HostPath {
                path: "/srv/db".into(),
                kind: HostPathKind::Any,
            };
            spec.volumes.insert("data".to_owned(), volume);
            spec.containers[0].mounts.push(VolumeMount {
                volume: "data".into(),
                path: "/data".into(),
                sub_path: None,
                read_only: false,
                propagation: MountPropagation::default(),
            });
        })
    }

    /// The owner's actions for these pods.
    pub(crate) fn actions(&self, pods: &str) -> String {
        self.view(pods, |view| describe(&control(view)))
    }

    /// Calls a function with the owner and these pods.
    pub(crate) fn view<T>(&self, pods: &str, then: impl FnOnce(&OwnerView<'_>) -> T) -> T {
        let parsed: Vec<ScenePod> = pods
            .split_whitespace()
            .zip(1..)
            .map(|(text, serial)| parse(text, serial, &self.workload.key))
            .collect();
        let owned: Vec<OwnedPod<'_>> = parsed.iter().map(ScenePod::owned).collect();
        let before: Option<(CommitId, &Workload)> =
            self.before.as_ref().map(|before| (commit_id("a"), before));
        then(&OwnerView {
            now: at(100),
            workload: &self.workload,
            pods: &owned,
            nodes: &self.nodes,
            restarted: self.restarted,
            conditions: &self.conditions,
            canary: self.canaries.as_ref().map(|nodes| CanaryView {
                nodes,
                before: before.as_ref().map(|(commit, before)| (commit, *before)),
                down_elsewhere: self.down_elsewhere,
            }),
        })
    }

    /// Compares the actions of each row.
    #[track_caller]
    pub(crate) fn expect(&self, rows: &[(&str, &str)]) {
        for (pods, expected) in rows {
            assert_eq!(self.actions(pods), *expected, "{pods}");
        }
    }
}

fn candidate(name: &str) -> Candidate {
    Candidate {
        name: NodeName::new(name),
        labels: [("host".to_owned(), name.to_owned())].into(),
        taints: Vec::new(),
        cordoned: false,
        ready: true,
        allocatable: None,
        max_pods: None,
    }
}

struct ScenePod {
    record: PodRecord,
    status: Option<PodStatus>,
    unreachable: bool,
}

impl ScenePod {
    fn owned(&self) -> OwnedPod<'_> {
        OwnedPod {
            record: &self.record,
            status: self.status.as_ref(),
            cost: 0,
            crowd: 0,
            unreachable: self.unreachable,
            clock: None,
        }
    }
}

/// A pod such as `new@a+`: its template, its node (`-` for none), and signs for its state: `+`
/// ready, `^` pulling, `?` not reported, `!` failed, `x` stopping, `~` on an unreachable node, `*` made at 10 s
/// and not at 0 s. Without a sign a pod is reported and not ready.
fn parse(text: &str, serial: u64, owner: &WorkloadKey) -> ScenePod {
    let (template, rest) = text.split_once('@').expect("template@node");
    let (node, signs) = rest.split_at(1);
    let has = |sign| signs.contains(sign);
    let status = PodStatus {
        phase: if has('!') {
            PodPhase::Failed
        } else {
            PodPhase::Running
        },
        ready: has('+').then(|| at(1)),
        ready_for: Duration::from_secs(if has('+') { 99 } else { 0 }),
        reason: has('^').then(|| PULLING.to_owned()),
        ..PodStatus::pending()
    };
    let stop = StopRecord {
        at: at(1),
        reason: StopReason::Replaced,
    };
    ScenePod {
        record: PodRecord {
            uid: PodUid::new(serial.to_string()),
            key: ObjectKey::new("default", format!("web-{serial}")),
            owner: owner.clone(),
            place: match node {
                "-" => PodPlace::Unplaced(Refusal::default()),
                node => PodPlace::Node(NodeName::new(node)),
            },
            commit: commit_id("c"),
            template: TemplateHash::new(format!("1-{template}")),
            created: if has('*') { at(10) } else { at(0) },
            serial,
            stop: has('x').then_some(stop),
        },
        status: (!has('?')).then_some(status),
        unreachable: has('~'),
    }
}

/// The actions as text; equal ones in a row are counted.
fn describe(actions: &[Action]) -> String {
    let mut words: Vec<(String, usize)> = Vec::new();
    for action in actions {
        let mut word = match action {
            Action::Stop(uid, reason) => format!("stop {uid} {reason:?}"),
            Action::Create { name, .. } => match name {
                PodNaming::Exact => "web".to_owned(),
                PodNaming::Generated(prefix) => prefix.clone(),
            },
        };
        if let Action::Create { node, like, .. } = action {
            if let Some(node) = node {
                write!(word, " on {node}").expect("text");
            }
            if let Some((commit, template)) = like {
                write!(word, " like {} {template}", &commit.short()[..1]).expect("text");
            }
        }
        match words.last_mut() {
            Some((last, count)) if *last == word => *count += 1,
            _ => words.push((word, 1)),
        }
    }
    let words: Vec<String> = words
        .into_iter()
        .map(|(word, count)| match count {
            1 => word,
            _ => format!("{count} {word}"),
        })
        .collect();
    words.join(", ")
}
