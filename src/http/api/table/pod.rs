//! The columns of pods. STATUS follows kube-apiserver's `printPod`, so that readers find the usual
//! words.

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;

use super::{Cell, Column, age, created, name, or_none, text, wide};

pub(super) const COLUMNS: &[Column] = &[
    text("Name"),
    text("Ready"),
    text("Status"),
    text("Restarts"),
    text("Age"),
    wide("IP"),
    wide("Node"),
    wide("Nominated Node"),
    wide("Readiness Gates"),
];

pub(super) fn cells(pod: &core::Pod, now: Timestamp) -> Vec<Cell> {
    let summary = PodSummary::of(pod);
    let (spec, status) = (pod.spec.as_ref(), pod.status.as_ref());
    let containers = spec.map_or(0, |spec| spec.containers.len());
    vec![
        name(&pod.metadata),
        format!("{}/{containers}", summary.ready).into(),
        summary.status.as_str().into(),
        summary.restarts(now).into(),
        created(&pod.metadata, now),
        or_none(status.and_then(|status| status.pod_ip.as_deref())).into(),
        or_none(spec.and_then(|spec| spec.node_name.as_deref())).into(),
        "<none>".into(),
        "<none>".into(),
    ]
}

/// The STATUS of a pod.
pub(super) fn status(pod: &core::Pod) -> String {
    PodSummary::of(pod).status
}

/// What a pod's row shows of its containers.
struct PodSummary {
    status: String,
    ready: usize,
    restarts: i32,
    last_restart: Option<Timestamp>,
}

impl PodSummary {
    fn of(pod: &core::Pod) -> Self {
        let absent = core::PodStatus::default();
        let status = pod.status.as_ref().unwrap_or(&absent);
        let phase = status.phase.as_deref().unwrap_or_default();
        let mut summary = Self {
            status: match status.reason.as_deref() {
                None | Some("") => phase.to_owned(),
                Some(reason) => reason.to_owned(),
            },
            ready: 0,
            restarts: 0,
            last_restart: None,
        };
        let spec = pod.spec.as_ref();
        let init_containers = spec.and_then(|spec| spec.init_containers.as_ref());
        let init_containers = init_containers.map_or(0, Vec::len);
        if !summary.read_init(status, init_containers) {
            summary.read_main(status);
        }
        // A pod that has ended is shown as ended while it is deleted.
        let is_terminal = matches!(phase, "Succeeded" | "Failed");
        if pod.metadata.deletion_timestamp.is_some() && !is_terminal {
            summary.status = "Terminating".to_owned();
        }
        summary
    }

    /// Sets the status by the init containers; false once all have ended successfully.
    fn read_init(&mut self, pod: &core::PodStatus, total: usize) -> bool {
        let containers = pod.init_container_statuses.iter().flatten();
        for (index, container) in containers.enumerate() {
            self.add_restarts(container);
            let state = container.state.as_ref();
            let ended = state.and_then(|state| state.terminated.as_ref());
            self.status = match (ended, waiting_reason(container)) {
                (Some(end), _) if end.exit_code == 0 => continue,
                (Some(end), _) => format!("Init:{}", exit_reason(end)),
                (None, Some(reason)) if reason != "PodInitializing" => format!("Init:{reason}"),
                (None, _) => format!("Init:{index}/{total}"),
            };
            return true;
        }
        false
    }

    fn read_main(&mut self, pod: &core::PodStatus) {
        // As in `printPod`, restarts of init containers do not count once all have ended.
        self.restarts = 0;
        self.last_restart = None;
        let mut is_running = false;
        // The first container has the last word on the status.
        for container in pod.container_statuses.iter().flatten().rev() {
            self.add_restarts(container);
            let state = container.state.as_ref();
            let ended = state.and_then(|state| state.terminated.as_ref());
            if let Some(reason) = waiting_reason(container) {
                self.status = reason.to_owned();
            } else if let Some(end) = ended {
                self.status = exit_reason(end);
            } else if container.ready && state.is_some_and(|state| state.running.is_some()) {
                is_running = true;
                self.ready += 1;
            }
        }
        // A pod is not completed while one of its containers still runs.
        if self.status == "Completed" && is_running {
            let mut conditions = pod.conditions.iter().flatten();
            let is_ready = conditions
                .any(|condition| condition.type_ == "Ready" && condition.status == "True");
            self.status = if is_ready { "Running" } else { "NotReady" }.to_owned();
        }
    }

    fn add_restarts(&mut self, container: &core::ContainerStatus) {
        self.restarts = self.restarts.saturating_add(container.restart_count);
        let last = container.last_state.as_ref();
        let end = last.and_then(|state| state.terminated.as_ref());
        let finished = end.and_then(|end| end.finished_at.as_ref());
        self.last_restart = self.last_restart.max(finished.map(|time| time.0));
    }

    fn restarts(&self, now: Timestamp) -> String {
        match self.last_restart {
            Some(last) if self.restarts > 0 => {
                format!("{} ({} ago)", self.restarts, age::since(Some(last), now))
            }
            _ => self.restarts.to_string(),
        }
    }
}

/// Why a container waits; `None` if it does not, and if there is no reason.
fn waiting_reason(container: &core::ContainerStatus) -> Option<&str> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    match waiting.reason.as_deref() {
        None | Some("") => None,
        reason => reason,
    }
}

fn exit_reason(end: &core::ContainerStateTerminated) -> String {
    match end.reason.as_deref() {
        None | Some("") => format!("ExitCode:{}", end.exit_code),
        Some(reason) => reason.to_owned(),
    }
}
