//! Why one pod failed, or is not ready, by the last report of its node.

use jiff::Timestamp;

use crate::{
    controller::OwnedPod,
    fault::FaultKind,
    foreign::ForeignText,
    state::{Failure, FailureClass, FailureReason, LastExit, PodPlace, UnreadyPod, UnreadyReason},
    status::{ContainerPhase, ContainerStatus, PodPhase, PodStatus, Termination},
};

/// Number of restarts of one new pod that count as a crash loop.
const CRASH_LOOP_RESTARTS: u32 = 3;

/// The permanent failure of a pod, if it has one. Crashes before the controllers followed the
/// commit do not count.
pub(crate) fn pod_failure(pod: &OwnedPod<'_>, clock: Option<Timestamp>) -> Option<Failure> {
    let status = pod.status?;
    let workload = || pod.record.owner.clone();
    let key = || pod.record.key.clone();

    if status.phase == PodPhase::Failed {
        return Some(Failure {
            class: FailureClass::Other,
            reason: FailureReason::PodFailed {
                workload: workload(),
                pod: key(),
                message: reported_message(status),
            },
        });
    }

    if let Some(fault) = status.fault
        && fault.is_commits_fault()
    {
        let class = match fault {
            FaultKind::ImageMissing => FailureClass::Image,
            _ => FailureClass::Rejected,
        };
        return Some(Failure {
            class,
            reason: FailureReason::PodFault {
                workload: workload(),
                pod: key(),
                message: reported_message(status),
            },
        });
    }

    let looping = looping_container(pod, status, clock)?;
    Some(Failure {
        class: FailureClass::CrashLoop,
        reason: FailureReason::CrashLoop {
            workload: workload(),
            pod: key(),
            container: ForeignText::new(&looping.name),
            restarts: looping.restarts,
            last: last_exit(looping).map(|exit| LastExit {
                code: exit.code,
                message: ForeignText::sentence(exit.message.trim_end()),
            }),
        },
    })
}

/// The first container that exits again and again, and did so since deadlines began to count. A
/// container that has become ready after its restarts is not in a loop.
fn looping_container<'s>(
    pod: &OwnedPod<'_>,
    status: &'s PodStatus,
    clock: Option<Timestamp>,
) -> Option<&'s ContainerStatus> {
    status
        .init_containers
        .iter()
        .chain(&status.containers)
        .filter(|container| container.restarts >= CRASH_LOOP_RESTARTS && !container.ready)
        .find(|container| last_end(container).is_some_and(|end| pod.is_since(clock, end)))
}

/// When a container last exited.
pub(super) fn last_end(container: &ContainerStatus) -> Option<Timestamp> {
    last_exit(container).map(|exit| exit.finished)
}

/// The last exit of a container: the present one if the container is not running, otherwise the
/// one before its restart.
fn last_exit(container: &ContainerStatus) -> Option<&Termination> {
    match &container.state {
        ContainerPhase::Terminated(exit) => Some(exit),
        ContainerPhase::Waiting { .. } | ContainerPhase::Running { .. } => container.last.as_ref(),
    }
}

/// The first of these pods that is not ready and has a reason for it.
pub(super) fn first_unready(pods: &[&OwnedPod<'_>]) -> Option<UnreadyPod> {
    pods.iter()
        .filter(|pod| !pod.is_ready())
        .find_map(|pod| reported_reason(pod).or_else(|| unplaced(pod)))
}

/// A pod with the message that its node reports, if it reports one.
fn reported_reason(pod: &OwnedPod<'_>) -> Option<UnreadyPod> {
    let message = pod.status?.message.as_ref()?;
    Some(UnreadyPod {
        pod: pod.record.key.clone(),
        why: UnreadyReason::Reported(ForeignText::sentence(message)),
    })
}

/// A pod that no node accepts, with the reason; `None` for a pod that is placed.
pub(super) fn unplaced(pod: &OwnedPod<'_>) -> Option<UnreadyPod> {
    match &pod.record.place {
        PodPlace::Unplaced(refusal) => Some(UnreadyPod {
            pod: pod.record.key.clone(),
            why: UnreadyReason::Unplaced(refusal.clone()),
        }),
        PodPlace::Node(_) => None,
    }
}

/// The message of a pod's last report; empty if there is none.
pub(super) fn reported_message(status: &PodStatus) -> ForeignText {
    ForeignText::sentence(status.message.as_deref().unwrap_or_default())
}
