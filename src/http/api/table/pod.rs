//! The columns of pods. STATUS follows kubectl's `printPod`, so that readers find the usual words.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Column, age, at, count, created, each, name, or_none, text, wide};

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

pub(super) fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = Summary::of(pod);
    vec![
        name(pod),
        json!(format!(
            "{}/{}",
            summary.ready,
            each(pod, "/spec/containers").len()
        )),
        json!(summary.status),
        json!(summary.restarts(now)),
        created(pod, now),
        json!(or_none(at(pod, "/status/podIP"))),
        json!(or_none(at(pod, "/spec/nodeName"))),
        json!("<none>"),
        json!("<none>"),
    ]
}

struct Summary {
    status: String,
    ready: usize,
    restarts: u64,
    last_restart: Option<Timestamp>,
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let phase = at(pod, "/status/phase");
        let reason = at(pod, "/status/reason");
        let first = if reason.is_empty() { phase } else { reason };
        let mut summary = Self {
            status: first.to_owned(),
            ready: 0,
            restarts: 0,
            last_restart: None,
        };
        if !summary.read_init(pod) {
            summary.read_main(pod);
        }
        let terminal = matches!(phase, "Succeeded" | "Failed");
        if !at(pod, "/metadata/deletionTimestamp").is_empty() && !terminal {
            summary.status = "Terminating".to_owned();
        }
        summary
    }

    /// Sets the status by the init containers; false once all have ended successfully.
    fn read_init(&mut self, pod: &Value) -> bool {
        let total = each(pod, "/spec/initContainers").len();
        for (index, container) in each(pod, "/status/initContainerStatuses").enumerate() {
            self.add_restarts(container);
            let waiting = at(container, "/state/waiting/reason");
            match container.pointer("/state/terminated") {
                Some(end) if exit_code(end) == 0 => continue,
                Some(end) => self.status = format!("Init:{}", ended(end)),
                None if !waiting.is_empty() && waiting != "PodInitializing" => {
                    self.status = format!("Init:{waiting}");
                }
                None => self.status = format!("Init:{index}/{total}"),
            }
            return true;
        }
        false
    }

    fn read_main(&mut self, pod: &Value) {
        self.restarts = 0;
        self.last_restart = None;
        let mut running = false;
        for container in each(pod, "/status/containerStatuses").rev() {
            self.add_restarts(container);
            let waiting = at(container, "/state/waiting/reason");
            if !waiting.is_empty() {
                self.status = waiting.to_owned();
            } else if let Some(end) = container.pointer("/state/terminated") {
                self.status = ended(end);
            } else if container["ready"] == true && container.pointer("/state/running").is_some() {
                running = true;
                self.ready += 1;
            }
        }
        // A pod is not completed while one of its containers still runs.
        if self.status == "Completed" && running {
            let is_ready =
                |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
            let ready = each(pod, "/status/conditions").any(is_ready);
            self.status = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }

    fn add_restarts(&mut self, container: &Value) {
        self.restarts += count(container, "/restartCount");
        let finished = age::parse(Some(at(container, "/lastState/terminated/finishedAt")));
        self.last_restart = self.last_restart.max(finished);
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

fn exit_code(end: &Value) -> i64 {
    end["exitCode"].as_i64().unwrap_or_default()
}

fn ended(end: &Value) -> String {
    match at(end, "/reason") {
        "" => format!("ExitCode:{}", exit_code(end)),
        reason => reason.to_owned(),
    }
}
