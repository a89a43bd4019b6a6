//! `status` of a pod, in Kubernetes' words. Its texts are foreign: another host may have written
//! them.

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use reconciler::{
    object::Workload,
    state::{PodPlace, PodRecord},
    status::{ContainerPhase, ContainerStatus, PodPhase, PodStatus, Termination},
};

use runtime::LastOutput;

use super::{ObjectSource, count, escaped, meta::time, pod::qos_class};

pub(super) fn render(
    source: &ObjectSource<'_>,
    record: &PodRecord,
    status: &PodStatus,
    owner: Option<&Workload>,
) -> core::PodStatus {
    let unplaced = match &record.place {
        PodPlace::Unplaced(why) => Some(why.to_string()),
        PodPlace::Node(_) => None,
    };
    let message = status.message.as_ref().or(unplaced.as_ref());
    let nodes = &source.view.nodes;
    let node = record.place.node().and_then(|node| nodes.get(node));
    let pod_ip = status.address.map(|address| address.to_string());
    let host_ip = node.map(|node| node.facts.address.to_string());
    let init_containers = &status.init_containers;
    let outputs = &source.view.last_outputs;
    let printed = |name: &str| {
        let is_its = |one: &&LastOutput| one.uid == record.uid && one.container == name;
        outputs.iter().find(is_its)
    };
    let shown = |status: &ContainerStatus| container(status, printed(&status.name));
    core::PodStatus {
        phase: Some(status.phase.as_str().to_owned()),
        reason: status.reason.as_deref().map(escaped),
        message: message.map(|message| escaped(message)),
        conditions: Some(conditions(record, status)),
        init_container_statuses: match init_containers.is_empty() {
            true => None,
            false => Some(init_containers.iter().map(shown).collect()),
        },
        container_statuses: Some(status.containers.iter().map(shown).collect()),
        qos_class: owner.map(|owner| qos_class(&owner.template.spec).to_owned()),
        pod_ips: pod_ip.clone().map(|ip| vec![core::PodIP { ip }]),
        pod_ip,
        host_ips: host_ip.clone().map(|ip| vec![core::HostIP { ip }]),
        host_ip,
        start_time: status.started.map(time),
        ..core::PodStatus::default()
    }
}

/// The `status` of a condition; one that is false has a reason and a message.
enum ConditionStatus {
    True,
    False {
        reason: &'static str,
        message: String,
    },
}

fn conditions(record: &PodRecord, status: &PodStatus) -> Vec<core::PodCondition> {
    let false_unless = |holds: bool, reason, message: &str| match holds {
        true => ConditionStatus::True,
        false => ConditionStatus::False {
            reason,
            message: message.to_owned(),
        },
    };
    let began = status.started.unwrap_or(record.created);
    let ready_since = status.ready.unwrap_or(began);
    let unready_reason = match status.phase {
        PodPhase::Succeeded => "PodCompleted",
        PodPhase::Pending | PodPhase::Running | PodPhase::Failed | PodPhase::Unknown => {
            "ContainersNotReady"
        }
    };
    let unready = unready_message(&status.containers);
    let is_ready = || false_unless(status.ready.is_some(), unready_reason, &unready);

    let initialized = false_unless(
        status.initialized,
        "ContainersNotInitialized",
        "init containers have not all ended well",
    );
    let placed = match &record.place {
        PodPlace::Node(_) => ConditionStatus::True,
        PodPlace::Unplaced(why) => false_unless(false, "Unschedulable", &why.to_string()),
    };
    vec![
        condition("Initialized", initialized, began),
        condition("Ready", is_ready(), ready_since),
        condition("ContainersReady", is_ready(), ready_since),
        condition("PodScheduled", placed, record.created),
    ]
}

fn condition(name: &str, status: ConditionStatus, since: Timestamp) -> core::PodCondition {
    let mut condition = core::PodCondition {
        type_: name.to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(time(since)),
        ..core::PodCondition::default()
    };
    if let ConditionStatus::False { reason, message } = status {
        condition.status = "False".to_owned();
        condition.reason = Some(reason.to_owned());
        condition.message = Some(escaped(&message));
    }
    condition
}

fn unready_message(containers: &[ContainerStatus]) -> String {
    let unready = containers.iter().filter(|container| !container.ready);
    let names: Vec<&str> = unready.map(|container| container.name.as_str()).collect();
    format!("containers with unready status: [{}]", names.join(" "))
}

fn container(status: &ContainerStatus, printed: Option<&LastOutput>) -> core::ContainerStatus {
    let image_id = status.image_id.as_ref().map(|id| escaped(id.as_str()));
    let container_id = status.container_id.as_ref();
    let container_id = container_id.map(|id| escaped(&format!("docker://{id}")));
    let last = status.last.as_ref();
    core::ContainerStatus {
        name: escaped(&status.name),
        image: escaped(&status.image),
        image_id: image_id.unwrap_or_default(),
        container_id: Some(container_id.unwrap_or_default()),
        ready: status.ready,
        started: Some(status.started),
        restart_count: count(status.restarts),
        state: Some(state(&status.state, printed)),
        last_state: Some(last.map(|end| terminated(end, printed)).unwrap_or_default()),
        ..core::ContainerStatus::default()
    }
}

fn state(phase: &ContainerPhase, printed: Option<&LastOutput>) -> core::ContainerState {
    match phase {
        ContainerPhase::Waiting { reason, message } => core::ContainerState {
            waiting: Some(core::ContainerStateWaiting {
                reason: Some(escaped(reason)),
                message: unless_empty(message),
            }),
            ..core::ContainerState::default()
        },
        ContainerPhase::Running { started } => core::ContainerState {
            running: Some(core::ContainerStateRunning {
                started_at: Some(time(*started)),
            }),
            ..core::ContainerState::default()
        },
        ContainerPhase::Terminated(end) => terminated(end, printed),
    }
}

/// An end without a message is shown with what the container printed last, where this host knows
/// that.
fn terminated(end: &Termination, printed: Option<&LastOutput>) -> core::ContainerState {
    let printed = printed.filter(|one| one.finished == end.finished);
    let message = match (end.message.as_str(), printed) {
        ("", Some(printed)) => printed.one_line(),
        (message, _) => message.to_owned(),
    };
    core::ContainerState {
        terminated: Some(core::ContainerStateTerminated {
            exit_code: i32::try_from(end.code).unwrap_or(i32::MAX),
            reason: Some(escaped(&end.reason)),
            message: unless_empty(&message),
            started_at: Some(time(end.started)),
            finished_at: Some(time(end.finished)),
            ..core::ContainerStateTerminated::default()
        }),
        ..core::ContainerState::default()
    }
}

fn unless_empty(text: &str) -> Option<String> {
    match text {
        "" => None,
        text => Some(escaped(text)),
    }
}
