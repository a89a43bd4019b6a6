//! Whether a workload has settled on the target, still makes progress, waits for something outside
//! of the commit, or has failed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;

use crate::{
    commit::Commit,
    controller::{OwnedPod, OwnerView},
    fault::FaultKind,
    name::{CommitId, NodeName, WorkloadKey},
    object::{
        ConfigSource, Control, DaemonSetUpdate, EnvValue, Objects, PodSpec, VolumeSource, Workload,
    },
    placement::eligible_for_daemon,
    rollout::stopping::unfinished_stop,
    state::{Failure, FailureClass, PodPlace, Rollout, WorkloadProgress},
    status::{ContainerPhase, ContainerStatus, PodPhase},
    time::later,
};

/// Number of restarts of one new pod that count as a crash loop.
const CRASH_LOOP_RESTARTS: u32 = 3;

/// The judgement of one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The workload is as the commit wants it. Old pods that a workload's kind does not replace by
    /// design count as settled.
    Settled,
    /// The workload is being updated, for example "web: 1 of 3 updated pods are available".
    Progressing(String),
    /// Something outside of the commit prevents progress; the text is the reason.
    Waiting(String),
    /// The workload has failed, and the commit is at fault.
    Failed(Failure),
}

/// The workloads that are judged while `target` is driven: those that differ between it and its
/// base, and between it and the commits that were driven in between, since pods of the latter are
/// still being replaced. If one of these commits cannot be read, or no commit was healthy yet, all
/// workloads are judged.
pub fn judged_workloads<'a>(
    rollout: &Rollout,
    commits: &BTreeMap<CommitId, Arc<Commit>>,
    target: &'a Commit,
) -> Vec<&'a Workload> {
    let before: Vec<Option<&Arc<Commit>>> = rollout
        .base()
        .map(|id| commits.get(&id))
        .into_iter()
        .chain(rollout.left.iter().map(|id| commits.get(id)))
        .collect();
    let workloads = target.objects.workloads.values();
    workloads
        .filter(|workload| {
            rollout.base().is_none()
                || before
                    .iter()
                    .any(|before| before.is_none_or(|before| differs(target, before, workload)))
        })
        .collect()
}

fn differs(target: &Commit, base: &Commit, workload: &Workload) -> bool {
    let Some(before) = base.objects.workloads.get(&workload.key) else {
        return true;
    };
    before.template.hash != workload.template.hash
        || before.control != workload.control
        || config_sources(&workload.template.spec)
            .iter()
            .any(|source| {
                let namespace = &workload.key.object.namespace;
                !same_config(&target.objects, &base.objects, namespace, source)
            })
}

fn same_config(a: &Objects, b: &Objects, namespace: &str, source: &ConfigSource) -> bool {
    match source {
        ConfigSource::ConfigMap(name) => {
            let key = crate::name::ObjectKey::new(namespace, name);
            a.config_maps.get(&key).map(|map| &map.data)
                == b.config_maps.get(&key).map(|map| &map.data)
        }
        ConfigSource::Secret(name) => {
            let key = crate::name::ObjectKey::new(namespace, name);
            a.secrets.get(&key).map(|secret| &secret.data)
                == b.secrets.get(&key).map(|secret| &secret.data)
        }
    }
}

/// The ConfigMaps and Secrets that a pod refers to in its environment or as volumes.
pub fn config_sources(spec: &PodSpec) -> Vec<&ConfigSource> {
    let volumes = spec.volumes.values().filter_map(|volume| match volume {
        VolumeSource::Config { source, .. } => Some(source),
        VolumeSource::HostPath { .. } | VolumeSource::EmptyDir { .. } => None,
    });
    let environment = spec
        .init_containers
        .iter()
        .chain(&spec.containers)
        .flat_map(|container| {
            let keys = container
                .env
                .iter()
                .filter_map(|variable| match &variable.value {
                    EnvValue::Key { source, .. } => Some(source),
                    EnvValue::Text(_) | EnvValue::Field(_) => None,
                });
            container
                .env_from
                .iter()
                .map(|from| &from.source)
                .chain(keys)
        });
    volumes.chain(environment).collect()
}

/// When a Deployment that makes no progress is late, if it has such a deadline; `clock` is
/// [`Rollout::clock`].
///
/// [`Rollout::clock`]: crate::state::Rollout::clock
pub fn progress_deadline(
    workload: &Workload,
    progress: Option<&WorkloadProgress>,
    clock: Option<Timestamp>,
    now: Timestamp,
) -> Option<Timestamp> {
    let Control::Deployment {
        progress_deadline: Some(deadline),
        ..
    } = workload.control
    else {
        return None;
    };
    let progress = progress.filter(|progress| progress.template == workload.template.hash)?;
    // A previous leader's clock may have been ahead of this leader's clock.
    let since = progress.since.min(now);
    Some(later(
        clock.map_or(since, |clock| clock.max(since)),
        deadline,
    ))
}

/// The judgement of a workload without known faults, see [`suspects`](super::suspects). `progress`
/// is the stored progress of the workload; deadlines and crashes count from `clock`.
pub fn judge(
    view: &OwnerView<'_>,
    progress: Option<&WorkloadProgress>,
    clock: Option<Timestamp>,
) -> Judgement {
    let key = &view.workload.key;
    let current: Vec<&OwnedPod<'_>> = view
        .pods
        .iter()
        .filter(|pod| !pod.is_stopping() && view.is_current(pod))
        .collect();
    // Pods on nodes that are unreachable or at fault are no evidence about the commit.
    let standing = view.conditions;
    let stopping = view
        .pods
        .iter()
        .any(|pod| pod.is_stopping() && !standing.is_absent(pod));
    let available = current.iter().filter(|pod| view.is_available(pod)).count();
    let aside = current
        .iter()
        .filter(|pod| !view.is_available(pod) && standing.is_aside(pod))
        .count();
    let outdated = |pod: &&OwnedPod<'_>| pod.is_active() && !view.is_current(pod);
    let any_available = view
        .pods
        .iter()
        .filter(|pod| view.is_available(pod))
        .count();
    let any_aside =
        |pod: &&OwnedPod<'_>| pod.is_active() && !view.is_available(pod) && standing.is_aside(pod);

    let (settled, wanted, number) = match &view.workload.control {
        Control::Deployment { paused: true, .. } => return Judgement::Settled,
        Control::Deployment { replicas, .. } => {
            let wanted = view.updated_wanted(*replicas);
            let lost = |pod: &&OwnedPod<'_>| {
                pod.record
                    .place
                    .node()
                    .is_some_and(|node| standing.lost.contains(node))
            };
            let old = view
                .pods
                .iter()
                .filter(outdated)
                .filter(|pod| !lost(pod))
                .count();
            let exact = available + aside == wanted
                && current.len() == wanted
                && (aside == 0 || available > 0);
            (
                exact && (old == 0 || view.canary.is_some()) && !stopping,
                wanted,
                available,
            )
        }
        Control::DaemonSet { update, .. } => {
            let counted: BTreeSet<&NodeName> = view
                .nodes
                .iter()
                .filter(|node| eligible_for_daemon(&view.workload.template.spec, node))
                .map(|node| &node.name)
                .filter(|node| !standing.absent.contains(*node) && !standing.faulty.contains(*node))
                .collect();
            let (wanted, on) = (counted.len(), |pod: &&OwnedPod<'_>| {
                pod.record
                    .place
                    .node()
                    .is_some_and(|node| counted.contains(node))
            });
            let left = |pod: &&OwnedPod<'_>| !standing.is_absent(pod) && !standing.is_aside(pod);
            match update {
                DaemonSetUpdate::OnDelete => {
                    let up = view
                        .pods
                        .iter()
                        .filter(on)
                        .filter(|pod| view.is_available(pod))
                        .count();
                    (up >= wanted, wanted, up)
                }
                DaemonSetUpdate::RollingUpdate { .. } => {
                    let up = current
                        .iter()
                        .copied()
                        .filter(on)
                        .filter(|pod| view.is_available(pod))
                        .count();
                    // Old pods on a node that accepts no new ones are not replaced, so the rollout
                    // does not wait for them.
                    let old = view.pods.iter().filter(outdated).filter(on).count();
                    let stopping = view.pods.iter().filter(left).any(OwnedPod::is_stopping);
                    // A pod that was down in the last report of its node has not shown that the
                    // commit works.
                    let left_down = view
                        .nodes
                        .iter()
                        .any(|node| standing.left_down(&node.name, view.pods));
                    (
                        up >= wanted && old == 0 && !stopping && !left_down,
                        wanted,
                        up,
                    )
                }
            }
        }
        Control::Replicas { replicas, .. } => {
            let wanted = *replicas as usize;
            let aside = view.pods.iter().filter(any_aside).count();
            (
                any_available + aside == wanted && !stopping,
                wanted,
                any_available,
            )
        }
        Control::Pod => {
            let ended = current.iter().any(|pod| pod.is_final());
            (ended || (available == 1 && !stopping), 1, available)
        }
    };
    if settled {
        return Judgement::Settled;
    }
    if let Control::DaemonSet { .. } = &view.workload.control
        && let Some(node) = view
            .nodes
            .iter()
            .find(|node| standing.left_down(&node.name, view.pods))
    {
        let name = &node.name;
        return Judgement::Waiting(format!(
            "{key}: node {name} is out, and its pod was down; it holds up the others"
        ));
    }
    let held_up = |pod: &&OwnedPod<'_>| view.may_still_run(pod) && standing.is_absent(pod);
    if view.never_overlaps()
        && let Some(pod) = view.pods.iter().find(held_up)
        && let Some(node) = pod.record.place.node()
    {
        return Judgement::Waiting(format!(
            "{key}: node {node} is out, and pod {} must end there before another is made; `windlass node rm {node}` \
             gives it up",
            pod.record.key.name
        ));
    }
    let all_nodes_ready = view.nodes.iter().all(|node| node.ready);
    // A template that is available on no node has not shown that it works.
    let counted = || {
        current
            .iter()
            .filter(|pod| number == 0 || !standing.is_aside(pod))
    };
    if let Some(reason) = counted().find_map(|pod| pod_obstacle(pod, all_nodes_ready)) {
        return Judgement::Waiting(format!("{key}: {reason}"));
    }
    if let Some(reason) = unfinished_stop(view, &current) {
        return Judgement::Waiting(format!("{key}: {reason}"));
    }
    if progress_deadline(view.workload, progress, clock, view.now)
        .is_some_and(|deadline| deadline <= view.now)
    {
        let reason = format!(
            "{key}: no progress within progressDeadlineSeconds: {available} of {wanted} pods available{}",
            last_words(&current),
            available = number
        );
        return Judgement::Failed(Failure {
            class: FailureClass::Deadline,
            reason,
        });
    }
    Judgement::Progressing(format!(
        "{key}: {number} of {wanted} pods available{}",
        last_words(&current)
    ))
}

/// The permanent failure of a pod, if it has one. Crashes before the controllers followed the
/// commit do not count.
pub(crate) fn pod_failure(pod: &OwnedPod<'_>, clock: Option<Timestamp>) -> Option<Failure> {
    let name = &pod.record.key.name;
    let status = pod.status?;
    let message = || status.message.clone().unwrap_or_default();
    if status.phase == PodPhase::Failed {
        let reason = format!("pod {name} failed: {}", message());
        return Some(Failure {
            class: FailureClass::Other,
            reason,
        });
    }
    if let Some(fault) = status.fault.filter(|fault| fault.is_commits_fault()) {
        let class = match fault {
            FaultKind::ImageMissing => FailureClass::Image,
            _ => FailureClass::Rejected,
        };
        return Some(Failure {
            class,
            reason: format!("pod {name}: {}", message()),
        });
    }
    let looping = status
        .init_containers
        .iter()
        .chain(&status.containers)
        .filter(|container| container.restarts >= CRASH_LOOP_RESTARTS && !container.ready)
        .find(|container| last_end(container).is_some_and(|end| pod.is_since(clock, end)))?;
    let last = match (&looping.state, &looping.last) {
        (ContainerPhase::Terminated(end), _) | (_, Some(end)) => {
            let message = if end.message.is_empty() {
                String::new()
            } else {
                format!(": {}", end.message.trim_end())
            };
            format!(", the last time with exit code {}{message}", end.code)
        }
        _ => String::new(),
    };
    let restarts = looping.restarts;
    let name = &pod.record.key.name;
    let reason = format!(
        "crash loop: container {} of pod {name} was restarted {restarts} times{last}",
        looping.name
    );
    Some(Failure {
        class: FailureClass::CrashLoop,
        reason,
    })
}

/// When a container last exited.
pub(super) fn last_end(container: &ContainerStatus) -> Option<Timestamp> {
    let ended = match &container.state {
        ContainerPhase::Terminated(end) => Some(end),
        ContainerPhase::Waiting { .. } | ContainerPhase::Running { .. } => container.last.as_ref(),
    };
    ended.map(|end| end.finished)
}

/// The obstacle outside of the commit that keeps a pod from starting. If no node accepts the pod
/// although all nodes are ready, the commit itself may be the cause, so the deadline applies.
fn pod_obstacle(pod: &OwnedPod<'_>, all_nodes_ready: bool) -> Option<String> {
    if pod.record.place.node().is_none() {
        return if all_nodes_ready {
            None
        } else {
            not_placed(pod)
        };
    }
    if let (true, Some(node)) = (pod.unreachable, pod.record.place.node()) {
        return Some(format!(
            "pod {}: nobody hears from its node {node}",
            pod.record.key.name
        ));
    }
    let status = pod.status?;
    let outside = status.fault.is_some_and(FaultKind::is_outside);
    (outside || status.is_pulling()).then_some(())?;
    Some(format!(
        "pod {}: {}",
        pod.record.key.name,
        status.message.clone().unwrap_or_default()
    ))
}

fn not_placed(pod: &OwnedPod<'_>) -> Option<String> {
    match &pod.record.place {
        PodPlace::Unplaced(why) => {
            Some(format!("pod {} is not placed: {why}", pod.record.key.name))
        }
        PodPlace::Node(_) => None,
    }
}

/// What the first pod that is not ready reports.
pub(super) fn last_words(pods: &[&OwnedPod<'_>]) -> String {
    pods.iter()
        .filter(|pod| !pod.is_ready())
        .find_map(|pod| {
            let message = pod.status.and_then(|status| status.message.as_ref());
            let words = message.map(|message| format!("pod {}: {message}", pod.record.key.name));
            words
                .or_else(|| not_placed(pod))
                .map(|words| format!("; {words}"))
        })
        .unwrap_or_default()
}

/// The new progress of a workload to be stored; `None` if it has not changed.
pub fn progress(
    view: &OwnerView<'_>,
    before: Option<&WorkloadProgress>,
) -> Option<WorkloadProgress> {
    let current: Vec<&OwnedPod<'_>> = view
        .pods
        .iter()
        .filter(|pod| pod.is_active() && view.is_current(pod))
        .collect();
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let updated = count(current.len());
    let available = count(current.iter().filter(|pod| view.is_available(pod)).count());
    let template = view.workload.template.hash.clone();
    // Only a new maximum is progress: a number that falls and rises again is not.
    let (updated, available, since) = match before.filter(|before| before.template == template) {
        Some(before) if updated <= before.updated && available <= before.available => {
            (before.updated, before.available, before.since)
        }
        Some(before) => (
            updated.max(before.updated),
            available.max(before.available),
            view.now,
        ),
        None => (updated, available, view.now),
    };
    let now = WorkloadProgress {
        updated,
        available,
        since,
        template,
    };
    (before != Some(&now)).then_some(now)
}

/// The most important of several judgements: a failure first, then waiting, then progress.
pub fn worst(judgements: BTreeMap<&WorkloadKey, Judgement>) -> Judgement {
    let mut waiting = None;
    let mut progressing = None;
    for judgement in judgements.into_values() {
        match judgement {
            Judgement::Failed(_) => return judgement,
            Judgement::Waiting(_) => waiting = waiting.or(Some(judgement)),
            Judgement::Progressing(_) => progressing = progressing.or(Some(judgement)),
            Judgement::Settled => {}
        }
    }
    waiting.or(progressing).unwrap_or(Judgement::Settled)
}
