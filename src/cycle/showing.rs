//! What a look shows: the log, the metrics and the view.

use std::sync::Arc;

use jiff::Timestamp;
use reconciler::{
    plan::{Drift, Lane, LaneKey, Step, Why},
    rollout::{CommitState, Phase, Rollout},
};

use super::Host;
use crate::{
    metrics::Metrics,
    view::{LaneView, View},
};

/// The last plan that had something to do, kept until the next one.
#[derive(Debug, Default)]
pub(super) struct Shown {
    lanes: Vec<LaneView>,
}

impl Shown {
    /// Takes the lanes of a look; an empty plan clears them once nothing is under way.
    pub(super) fn lanes(&mut self, lanes: &[Lane], idle: bool) {
        if !lanes.is_empty() {
            self.lanes = lanes.iter().map(lane_view).collect();
        } else if idle {
            self.lanes.clear();
        }
    }
}

impl Host {
    /// The picture after a look.
    pub(crate) fn view(&self) -> View {
        let state = self.store.snapshot();
        View {
            at: Timestamp::now(),
            node: self.name().clone(),
            nodes: [(self.name().clone(), self.fixed.facts.clone())].into(),
            state: Arc::new(state.clone()),
            pods: Arc::new(self.report.pods.clone()),
            commits: self.library.commits().clone(),
            source: self.source.clone(),
            plan: self.shown.lanes.clone(),
            converged: self.converged,
            troubles: self.troubles.values().cloned().chain(self.library.troubles()).collect(),
        }
    }
}

/// A line for the log about a lane; pulls of unchanged state and clean-ups are not worth one at this level.
pub(super) fn announce(lane: &Lane) -> Option<String> {
    match &lane.why {
        Why::Continue { .. } => None,
        why => Some(describe(why)),
    }
}

/// A reason as a sentence.
pub(crate) fn describe(why: &Why) -> String {
    match why {
        Why::Start { pod, commit } => format!("starting pod {pod} of commit {}", commit.short()),
        Why::Continue { pod } => format!("going on with pod {pod}"),
        Why::Restart { pod, container } => format!("restarting container {container} of pod {pod}"),
        Why::Repair { pod, drift } => format!("repairing pod {pod}: {}", drift_words(*drift)),
        Why::Unhealthy { pod, container, message } => {
            format!("restarting container {container} of pod {pod}: it is not alive: {message}")
        }
        Why::Refresh { pod } => format!("refreshing the files of pod {pod}"),
        Why::Stop { pod, reason } => format!("stopping pod {pod}: {reason}"),
        Why::Clean { pod } => format!("cleaning up after pod {pod}"),
        Why::Image { image } => format!("getting image {image}"),
    }
}

fn drift_words(drift: Drift) -> &'static str {
    match drift {
        Drift::SandboxGone => "its sandbox is gone",
        Drift::ContainerRemoved => "a container was removed",
        Drift::ContainerPaused => "a container was paused",
        Drift::LinkGone => "its link or route is gone",
    }
}

/// A cause as a label.
pub(super) fn drift_label(drift: Drift) -> &'static str {
    match drift {
        Drift::SandboxGone => "sandbox_gone",
        Drift::ContainerRemoved => "container_removed",
        Drift::ContainerPaused => "container_paused",
        Drift::LinkGone => "link_gone",
    }
}

pub(crate) fn lane_view(lane: &Lane) -> LaneView {
    let subject = match &lane.key {
        LaneKey::Pod(uid) => format!("pod {uid}"),
        LaneKey::Image(_, image) => format!("image {image}"),
    };
    LaneView { subject, why: describe(&lane.why), steps: lane.steps.iter().map(phrase).collect() }
}

/// A step in a few words; no values of variables or files.
fn phrase(step: &Step) -> String {
    match step {
        Step::PullImage { reference, .. } => format!("get image {reference}"),
        Step::PrepareFiles(files) => format!("write files and {} volumes", files.volumes.len()),
        Step::StartSandbox(spec) => format!("start sandbox {}", spec.attempt),
        Step::Connect { link, .. } => format!("connect {} as {}", link.name, link.address),
        Step::StartContainer(spec) => format!("start container {} ({})", spec.name, spec.image_name),
        Step::PostStart { .. } => "run the postStart hook".to_owned(),
        Step::Unpause(_) => "unpause".to_owned(),
        Step::Drain(time) => format!("drain for {} s", time.as_secs_f32()),
        Step::Stop(specs) => format!("stop {} containers", specs.len()),
        Step::Remove(ids) => format!("remove {} containers", ids.len()),
        Step::Disconnect(link) => format!("remove link {link}"),
        Step::RemoveFiles(_) => "remove files and volumes".to_owned(),
    }
}

/// Says in the log and the metrics what a new state of the roll-out means.
pub(super) fn tell(before: &Rollout, after: &Rollout, metrics: &Metrics) {
    let short = |commit: &Option<reconciler::name::CommitId>| {
        commit.as_ref().map_or_else(|| "none".to_owned(), |id| id.short().to_owned())
    };
    let entered = before.phase.as_str() != after.phase.as_str() || before.target != after.target;
    if entered {
        let target = short(&after.target);
        if let (Some(since), Some(now)) = (after.began, after.since) {
            let elapsed = std::time::Duration::try_from(now.duration_since(since)).unwrap_or_default();
            metrics.push_to_healthy(after.phase.as_str(), elapsed);
        }
        match &after.phase {
            Phase::Empty => {}
            Phase::Preparing { .. } => tracing::info!(commit = %target, "preparing"),
            Phase::Progressing { .. } => tracing::info!(commit = %target, "progressing"),
            Phase::Soaking => tracing::info!(commit = %target, "settled; soaking"),
            Phase::Healthy => tracing::info!(commit = %target, "healthy"),
            Phase::Degraded { message } => tracing::error!(commit = %target, "degraded: {message}"),
        }
    }
    if let (None, Some(rollback)) = (&before.rollback, &after.rollback) {
        let (from, to) = (rollback.from.short(), short(&after.target));
        tracing::error!(from, to = %to, "rolling back: {}", rollback.reason);
        metrics.rollback(&rollback.reason);
    }
    for entry in &after.history {
        let known = before.history.iter().any(|old| old == entry);
        if known {
            continue;
        }
        match entry.state {
            CommitState::Held => tracing::warn!(commit = entry.commit.short(), "held: {}", entry.reason),
            CommitState::Healthy => metrics.rollout("healthy"),
            CommitState::RolledBack => metrics.rollout("rolled_back"),
            CommitState::Degraded => metrics.rollout("degraded"),
            CommitState::Superseded => metrics.rollout("superseded"),
            CommitState::Refused => metrics.rollout("refused"),
            CommitState::Progressing => {}
        }
    }
}
