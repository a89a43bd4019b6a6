//! `status` of a pod, in Kubernetes' words.

use reconciler::{
    foreign,
    object::Workload,
    state::{PodPlace, PodRecord},
    status::{ContainerPhase, ContainerStatus, PodPhase, PodStatus, Termination},
};
use serde_json::{Value, json};

use super::{ObjectSource, meta::time, pod::qos_class};

pub(super) fn render(
    source: &ObjectSource<'_>,
    record: &PodRecord,
    status: &PodStatus,
    owner: Option<&Workload>,
) -> Value {
    let mut rendered = json!({
        "phase": status.phase.as_str(),
        "conditions": conditions(record, status),
        "containerStatuses": containers(&status.containers),
    });
    if !status.init_containers.is_empty() {
        rendered["initContainerStatuses"] = containers(&status.init_containers);
    }
    if let Some(owner) = owner {
        rendered["qosClass"] = json!(qos_class(&owner.template.spec));
    }
    let unplaced = match &record.place {
        PodPlace::Unplaced(why) => Some(why.to_string()),
        PodPlace::Node(_) => None,
    };
    if let Some(reason) = &status.reason {
        rendered["reason"] = json!(reason);
    }
    if let Some(message) = status.message.as_ref().or(unplaced.as_ref()) {
        rendered["message"] = json!(message);
    }
    if let Some(address) = status.address {
        rendered["podIP"] = json!(address);
        rendered["podIPs"] = json!([{ "ip": address }]);
    }
    if let Some(node) = record
        .place
        .node()
        .and_then(|node| source.view.nodes.get(node))
    {
        rendered["hostIP"] = json!(node.facts.address);
        rendered["hostIPs"] = json!([{ "ip": node.facts.address }]);
    }
    if let Some(started) = status.started {
        rendered["startTime"] = json!(time(started));
    }
    // Foreign text: another host may have written the messages, and `kubectl describe` prints them
    // unescaped.
    foreign::escape_value(&mut rendered);
    rendered
}

fn conditions(record: &PodRecord, status: &PodStatus) -> Value {
    let condition =
        |kind: &str, holds: bool, since: jiff::Timestamp, reason: &str, message: &str| {
            let mut condition = json!({
                "type": kind,
                "status": if holds { "True" } else { "False" },
                "lastTransitionTime": time(since),
            });
            if !holds && !reason.is_empty() {
                condition["reason"] = json!(reason);
                condition["message"] = json!(message);
            }
            condition
        };
    let began = status.started.unwrap_or(record.created);
    let ready_since = status.ready.unwrap_or(began);
    let unready = unready_message(&status.containers);
    let reason = if status.phase == PodPhase::Succeeded {
        "PodCompleted"
    } else {
        "ContainersNotReady"
    };
    let placed = match &record.place {
        PodPlace::Node(_) => condition("PodScheduled", true, record.created, "", ""),
        PodPlace::Unplaced(why) => condition(
            "PodScheduled",
            false,
            record.created,
            "Unschedulable",
            &why.to_string(),
        ),
    };
    json!([
        condition(
            "Initialized",
            status.initialized,
            began,
            "ContainersNotInitialized",
            "init containers have not all ended well"
        ),
        condition(
            "Ready",
            status.ready.is_some(),
            ready_since,
            reason,
            &unready
        ),
        condition(
            "ContainersReady",
            status.ready.is_some(),
            ready_since,
            reason,
            &unready
        ),
        placed,
    ])
}

fn unready_message(containers: &[ContainerStatus]) -> String {
    let names: Vec<&str> = containers
        .iter()
        .filter(|container| !container.ready)
        .map(|container| container.name.as_str())
        .collect();
    format!("containers with unready status: [{}]", names.join(" "))
}

fn containers(containers: &[ContainerStatus]) -> Value {
    containers.iter().map(container).collect()
}

fn container(status: &ContainerStatus) -> Value {
    let state = match &status.state {
        ContainerPhase::Waiting { reason, message } if message.is_empty() => {
            json!({ "waiting": { "reason": reason } })
        }
        ContainerPhase::Waiting { reason, message } => {
            json!({ "waiting": { "reason": reason, "message": message } })
        }
        ContainerPhase::Running { started } => {
            json!({ "running": { "startedAt": time(*started) } })
        }
        ContainerPhase::Terminated(end) => termination(end),
    };
    let id = status
        .container_id
        .as_ref()
        .map(|id| format!("docker://{id}"));
    json!({
        "name": status.name,
        "image": status.image,
        "imageID": status.image_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        "containerID": id.unwrap_or_default(),
        "ready": status.ready,
        "started": status.started,
        "restartCount": status.restarts,
        "state": state,
        "lastState": status.last.as_ref().map_or_else(|| json!({}), termination),
    })
}

fn termination(end: &Termination) -> Value {
    let mut terminated = json!({
        "exitCode": end.code,
        "reason": end.reason,
        "startedAt": time(end.started),
        "finishedAt": time(end.finished),
    });
    if !end.message.is_empty() {
        terminated["message"] = json!(end.message);
    }
    json!({ "terminated": terminated })
}
