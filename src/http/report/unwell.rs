//! Which pods are not as the commit wants them, and why, as sentences.

use reconciler::{
    fault::FaultKind,
    state::{PodPlace, PodRecord},
    status::{ContainerPhase, PodStatus},
};

use super::CrashingContainer;
use crate::view::{EventView, View};

/// The most pods that are named in `unwell`.
const NAMED: usize = 20;

/// The reason of a container that waits for its next start after a failure.
const CRASH_LOOP: &str = "CrashLoopBackOff";
/// After this number of seconds a stopping pod is named, also if its host has reported no reason.
const LONG_STOP: i64 = 30;

/// The sentence about a pod that must stop and has not. Only the pod's own host has the engine's
/// message.
fn unfinished_stop(view: &View, record: &PodRecord) -> Option<String> {
    let stop = record.stop.as_ref()?;
    let node = record.place.node()?;
    let seconds = view.at.duration_since(stop.at).as_secs().max(0);
    let status = view.pods.get(&record.uid);
    let fault = status.and_then(|status| status.fault);
    if fault.is_none() && seconds < LONG_STOP {
        return None;
    }

    let class = fault.map_or("the pod has not ended yet", FaultKind::stopping_reason);
    let details = match status.and_then(|status| status.message.as_ref()) {
        Some(message) if *node == view.node => format!(": {message}"),
        _ if *node == view.node => String::new(),
        _ => format!("; run `windlass status` on node {node} for details"),
    };
    Some(format!(
        "{}: the old pod has been stopping for {seconds} s: {class}{details}",
        record.key
    ))
}

/// The sentence about a pod that runs, is not ready, and has a probe that has failed since it
/// started. Only the pod's own host has the probe's message.
fn failing_probe(view: &View, record: &PodRecord, status: &PodStatus) -> Option<String> {
    let runs_unready = status.containers.iter().any(|container| {
        !container.ready && matches!(container.state, ContainerPhase::Running { .. })
    });
    if !runs_unready {
        return None;
    }
    let is_of_pod =
        |event: &&EventView| event.uid.as_ref() == Some(&record.uid) && event.reason == "Unhealthy";
    let events = view.events.iter().filter(is_of_pod);
    let event = events.max_by_key(|event| event.last)?;
    Some(format!(
        "{}: running, and not ready: {}",
        record.key, event.message
    ))
}

/// The first container of a pod that stays which exits again and again.
pub(super) fn crashing(view: &View) -> Option<CrashingContainer> {
    let records = view.state.pods.values();
    let mut staying = records.filter(|record| record.stop.is_none());
    staying.find_map(|record| {
        let status = view.pods.get(&record.uid)?;
        let mut containers = status.init_containers.iter().chain(&status.containers);
        let container = containers.find(|container| {
            matches!(&container.state, ContainerPhase::Waiting { reason, .. } if reason == CRASH_LOOP)
        })?;
        Some(CrashingContainer {
            namespace: record.key.namespace.clone(),
            pod: record.key.name.clone(),
            container: container.name.clone(),
        })
    })
}

/// Sentences about the pods that wait for something or have failed.
pub(super) fn sentences(view: &View) -> Vec<String> {
    let mut sentences: Vec<String> = view
        .state
        .pods
        .values()
        .filter_map(|record| unfinished_stop(view, record))
        .collect();
    for record in view
        .state
        .pods
        .values()
        .filter(|record| record.stop.is_none())
    {
        if let PodPlace::Unplaced(why) = &record.place {
            sentences.push(format!("{}: {why}", record.key));
            continue;
        }
        let Some(status) = view.pods.get(&record.uid) else {
            continue;
        };

        if let Some(reason) = status.reason.as_ref().or(status.message.as_ref()) {
            // Without a reason, the message stands in its place.
            let details = match &status.message {
                Some(message) if message != reason => format!(": {message}"),
                _ => String::new(),
            };
            sentences.push(format!("{}: {reason}{details}", record.key));
        }

        if let Some(failing) = failing_probe(view, record, status) {
            sentences.push(failing);
        }
        for container in status.init_containers.iter().chain(&status.containers) {
            if let ContainerPhase::Waiting { reason, message } = &container.state
                && reason != "ContainerCreating"
                && reason != "PodInitializing"
            {
                let message = if message.is_empty() {
                    String::new()
                } else {
                    format!(": {message}")
                };
                sentences.push(format!(
                    "{}, container {}: {reason}{message}",
                    record.key, container.name
                ));
            }
        }
    }

    let more = sentences.len().saturating_sub(NAMED);
    sentences.truncate(NAMED);
    if more > 0 {
        sentences.push(format!("and {more} more"));
    }
    sentences
}
