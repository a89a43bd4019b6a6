//! Carries out a stop record: drain, stop, remove, until nothing is left of the pod.

use std::{net::Ipv4Addr, time::Duration};

use super::{PodInput, PodOutput};
use crate::{
    name::LinkName,
    plan::{Lane, LaneKey, Next, Step, Why},
    pod::{
        link::link_name,
        observation::{ObservedPod, stop_specs},
        phase,
    },
};

/// The next step of a pod with a stop record, until nothing is left of the pod.
pub(super) fn stop(input: &PodInput<'_>, found: &ObservedPod<'_>) -> PodOutput {
    let uid = &input.record.uid;
    let key = LaneKey::Pod(uid.clone());
    let link = link_name(uid);
    let left = !found.all.is_empty()
        || input.observed.links.contains(&link)
        || input.observed.files.contains_key(uid);
    let mut next = Next::AwaitChange;
    let mut status = phase::terminating(input, found);

    // A failure from before the stop concerns a start: it is no evidence about the stop, and must
    // not delay it.
    let failure = input
        .observed
        .failures
        .get(&key)
        .filter(|failure| failure.removes);
    if failure.is_none() {
        (status.fault, status.message) = (None, None);
    }

    if !left && !input.observed.lanes.contains(&key) {
        status.terminating = true;
        return PodOutput {
            lane: None,
            images: Vec::new(),
            status,
            probes: Vec::new(),
            memory: None,
            next,
        };
    }

    let mut lane = None;
    let mut memory = input.memory.clone();
    if let Some(failure) = failure
        && memory.stopping
        && let Some(retry) = failure.retry_at(input.now)
    {
        next = Next::at(retry, input.now);
    } else if !input.observed.lanes.contains(&key) {
        let reason = input
            .record
            .stop
            .as_ref()
            .map_or("", |stop| stop.reason.as_str())
            .to_owned();
        let why = Why::Stop {
            pod: input.record.key.clone(),
            reason,
        };
        memory.stopping = true;
        lane = Some(Lane {
            key,
            why,
            steps: stop_steps(input, found, link),
        });
    }
    PodOutput {
        lane,
        images: Vec::new(),
        status,
        probes: Vec::new(),
        memory: Some(memory),
        next,
    }
}

fn stop_steps(input: &PodInput<'_>, found: &ObservedPod<'_>, link: LinkName) -> Vec<Step> {
    let spec = input.workload.map(|workload| &workload.template.spec);
    let host_network = spec.is_some_and(|spec| spec.host_network);
    let address = if host_network {
        input.host.address
    } else {
        input.memory.address.unwrap_or(Ipv4Addr::UNSPECIFIED)
    };
    // Kubernetes' default of `terminationGracePeriodSeconds`, where the pod's template is unknown.
    let grace = spec.map_or(Duration::from_secs(30), |spec| spec.termination_grace);

    let mut steps = Vec::new();
    if found.alive().next().is_some() {
        // The preStop hook and the stop signal need part of the grace period too.
        let drain = input.host.drain.min(grace / 2);
        let drained = input.in_service && input.memory.ready.is_some() && !drain.is_zero();
        if drained {
            steps.push(Step::Drain(drain));
        }
        let rest = if drained { grace - drain } else { grace };
        steps.push(Step::Stop(stop_specs(found, spec, address, rest, |_| true)));
    }
    if !found.all.is_empty() {
        steps.push(Step::Remove(found.ids()));
    }
    if input.observed.links.contains(&link) {
        steps.push(Step::Disconnect(link));
    }
    steps.push(Step::RemoveFiles(input.record.uid.clone()));
    steps
}
