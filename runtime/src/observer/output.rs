//! The last lines that a container printed before it failed: read once, when its end is observed.
//!
//! They are no part of an observation: what is observed is published to other hosts.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use parking_lot::Mutex;
use reconciler::{
    foreign::{self, ForeignText},
    name::{CommitId, ContainerId, ObjectKey, PodUid, WorkloadKey},
    observed::{ContainerState, ObservedContainer},
    plan::Role,
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::tail::{as_lines, tail};
use crate::docker::Engine;

/// The most containers whose output is kept.
const KEPT: usize = 256;
/// How many logs are read concurrently.
const READ_CONCURRENCY: usize = 4;
/// How long the removal of a container, or a reader of the outputs, waits for a log.
const READ_WAIT: Duration = Duration::from_secs(1);
/// How often a reader of the outputs looks whether the logs are read.
const READ_POLL: Duration = Duration::from_millis(10);
/// 128 + SIGTERM: the exit code of a program that ends because it is stopped.
const STOPPED: i64 = 143;

/// The last lines that a container printed before it failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastOutput {
    /// The namespace and the name of the pod.
    pub pod: ObjectKey,
    /// The uid of the pod.
    pub uid: PodUid,
    /// The workload that owns the pod.
    pub owner: WorkloadKey,
    /// The commit in which the pod was first resolved.
    pub commit: CommitId,
    /// The name of the container in the pod.
    pub container: String,
    /// The number of the attempt, which is the number of restarts before it.
    pub attempt: u32,
    /// When the container exited.
    pub finished: Timestamp,
    /// The exit code.
    pub code: i64,
    /// Whether the kernel killed the container because it was out of memory.
    pub oom: bool,
    /// The lines, oldest first: at most 2 KiB before they were escaped.
    #[serde(deserialize_with = "foreign::reports")]
    pub lines: Vec<ForeignText>,
}

impl LastOutput {
    /// The lines as one line, with line breaks as a termination message has them.
    pub fn one_line(&self) -> String {
        let lines: Vec<&str> = self.lines.iter().map(ForeignText::as_str).collect();
        lines.join("\\n")
    }
}

/// The last outputs of this host's containers, newest first: one for each container of a pod.
pub type LastOutputs = Arc<Vec<LastOutput>>;

/// Adds an output in the place of an earlier one of the same container; false if nothing changes.
fn add(outputs: &mut Vec<LastOutput>, output: LastOutput) -> bool {
    let is_same = |one: &LastOutput| one.uid == output.uid && one.container == output.container;
    if let Some(known) = outputs.iter().position(is_same) {
        let end = |one: &LastOutput| (one.finished, one.attempt);
        if end(&outputs[known]) >= end(&output) {
            return false;
        }
        outputs.remove(known);
    }
    let place = outputs.partition_point(|one| one.finished > output.finished);
    outputs.insert(place, output);
    outputs.truncate(KEPT);
    true
}

/// Reads the logs of containers that have failed, and keeps their last lines.
pub(crate) struct OutputReader {
    engine: Arc<Engine>,
    outputs: watch::Sender<LastOutputs>,
    slots: Semaphore,
    under_way: Mutex<BTreeMap<ContainerId, JoinHandle<()>>>,
}

impl OutputReader {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Self {
            engine,
            outputs: watch::Sender::default(),
            slots: Semaphore::new(READ_CONCURRENCY),
            under_way: Mutex::default(),
        }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<LastOutputs> {
        self.outputs.subscribe()
    }

    /// Adds outputs that were kept before.
    pub(crate) fn add(&self, outputs: impl IntoIterator<Item = LastOutput>) {
        self.outputs.send_if_modified(|list| {
            let list = Arc::make_mut(list);
            let added = outputs.into_iter().map(|output| add(list, output));
            added.fold(false, |any, one| any | one)
        });
    }

    /// Begins to read the log of a container that has ended, if it has failed. The cycle that
    /// observed the end does not wait for that.
    pub(super) fn begin(self: &Arc<Self>, id: &ContainerId, ended: &ObservedContainer) {
        let Some(output) = failed(ended) else { return };
        // Without a subscriber nobody needs the output.
        if self.outputs.receiver_count() == 0 {
            return;
        }

        // The task removes itself, so it must not end before it is in the map.
        let mut under_way = self.under_way.lock();
        let (reader, of) = (Arc::clone(self), id.clone());
        let task = tokio::spawn(async move {
            reader.read(&of, output).await;
            reader.under_way.lock().remove(&of);
        });
        under_way.insert(id.clone(), task);
    }

    async fn read(&self, id: &ContainerId, output: LastOutput) {
        let Ok(_slot) = self.slots.acquire().await else {
            return;
        };
        if let Some(end) = tail(&self.engine, id).await {
            let lines = as_lines(&end);
            self.add([LastOutput { lines, ..output }]);
        }
    }

    /// Waits, for a bounded time, until the log of this container is read: its removal removes the
    /// log.
    pub(crate) async fn is_read(&self, id: &ContainerId) {
        let task = self.under_way.lock().remove(id);
        if let Some(task) = task {
            // A log that is not read in time is lost, and the container is removed nevertheless.
            let _ = timeout(READ_WAIT, task).await;
        }
    }

    /// Waits, for a bounded time, until the logs are read of all containers that have failed so
    /// far.
    pub(crate) async fn all_are_read(&self) {
        let deadline = Instant::now() + READ_WAIT;
        while !self.under_way.lock().is_empty() && Instant::now() < deadline {
            tokio::time::sleep(READ_POLL).await;
        }
    }
}

/// The output of a container that has failed, without its lines. A program that ends with 0, or
/// because it was stopped, has not failed.
fn failed(ended: &ObservedContainer) -> Option<LastOutput> {
    let ContainerState::Exited {
        started: _,
        finished,
        code,
        oom,
        message: _,
    } = ended.state
    else {
        return None;
    };
    if ended.role == Role::Sandbox || code == 0 || code == STOPPED {
        return None;
    }
    let identity = &ended.identity;
    Some(LastOutput {
        pod: identity.pod.clone(),
        uid: identity.uid.clone(),
        owner: identity.owner.clone(),
        commit: identity.commit.clone(),
        container: ended.name.clone(),
        attempt: ended.attempt,
        finished,
        code,
        oom,
        lines: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use reconciler::name::WorkloadKind;

    use super::*;
    use crate::ids::commit_id;

    fn output(pod: &str, second: i64) -> LastOutput {
        LastOutput {
            pod: ObjectKey::new("default", pod),
            uid: PodUid::new(pod),
            owner: WorkloadKey {
                kind: WorkloadKind::Pod,
                object: ObjectKey::new("default", pod),
            },
            commit: commit_id("0123"),
            container: "app".to_owned(),
            attempt: 0,
            finished: Timestamp::from_second(second).unwrap_or_default(),
            code: 1,
            oom: false,
            lines: vec![ForeignText::new(&"x".repeat(900)); 3],
        }
    }

    #[test]
    fn the_newest_output_of_each_container_is_kept_up_to_a_limit() {
        let mut outputs = Vec::new();
        assert!(add(&mut outputs, output("a", 10)));
        assert!(add(&mut outputs, output("b", 5)));
        assert!(!add(&mut outputs, output("a", 10)), "it is known");
        assert!(!add(&mut outputs, output("a", 9)), "a newer one is known");
        assert!(add(&mut outputs, output("b", 20)));
        let names = |outputs: &[LastOutput]| -> Vec<String> {
            let names = outputs.iter().map(|one| one.pod.name.clone());
            names.collect()
        };
        assert_eq!(names(&outputs), ["b", "a"]);

        for number in 0..i64::try_from(KEPT).unwrap_or_default() {
            add(&mut outputs, output(&format!("c{number}"), 100 + number));
        }
        assert_eq!(outputs.len(), KEPT);
        assert!(!names(&outputs).contains(&"b".to_owned()));
    }

    #[test]
    fn an_output_is_read_back_as_it_was_written() {
        let mut written = output("a", 10);
        written.lines = vec![ForeignText::sentence(&"\u{1b}".repeat(600))];
        let text = serde_json::to_string(&written).unwrap_or_default();
        let read = serde_json::from_str::<LastOutput>(&text);
        assert_eq!(read.ok(), Some(written));
    }
}
