//! A plan as people read it: in the log, and in the answer to `windlass plan`.

use reconciler::plan::{Drift, Lane, LaneKey, Step, Why};

use crate::view::LaneView;

/// The last plan that had something to do, kept until the next one.
#[derive(Debug, Default)]
pub(super) struct LastPlan {
    pub(super) lanes: Vec<LaneView>,
}

impl LastPlan {
    /// Takes the lanes of a cycle; an empty plan clears them once no step is under way.
    pub(super) fn take(&mut self, lanes: &[Lane], is_idle: bool) {
        if !lanes.is_empty() {
            self.lanes = lanes.iter().map(lane_view).collect();
        } else if is_idle {
            self.lanes.clear();
        }
    }
}

/// The log line of a lane; `None` for a lane that only continues with a pod.
pub(super) fn announce(lane: &Lane) -> Option<String> {
    match &lane.why {
        Why::Continue { .. } => None,
        why => Some(describe(why)),
    }
}

/// A reason as a sentence.
pub(super) fn describe(why: &Why) -> String {
    match why {
        Why::Start { pod, commit } => format!("starting pod {pod} of commit {}", commit.short()),
        Why::Continue { pod } => format!("going on with pod {pod}"),
        Why::Restart { pod, container } => format!("restarting container {container} of pod {pod}"),
        Why::Repair { pod, drift } => format!("repairing pod {pod}: {}", drift_text(*drift)),
        Why::Unhealthy {
            pod,
            container,
            message,
        } => {
            format!("restarting container {container} of pod {pod}: it is not alive: {message}")
        }
        Why::Refresh { pod } => format!("refreshing the files of pod {pod}"),
        Why::Stop { pod, reason } => format!("stopping pod {pod}: {reason}"),
        Why::Clean { pod } => format!("cleaning up after pod {pod}"),
        Why::Leftover => "removing what is left of a pod that is not here any more".to_owned(),
        Why::Image { image } => format!("getting image {image}"),
    }
}

fn drift_text(drift: Drift) -> &'static str {
    match drift {
        Drift::SandboxGone => "its sandbox is gone",
        Drift::ContainerRemoved => "a container was removed",
        Drift::ContainerPaused => "a container was paused",
        Drift::LinkGone => "its link or route is gone",
    }
}

/// A lane with its subject, its reason and its steps.
fn lane_view(lane: &Lane) -> LaneView {
    let subject = match &lane.key {
        LaneKey::Pod(uid) => format!("pod {uid}"),
        LaneKey::Image(_, image) => format!("image {image}"),
        LaneKey::Link(name) => format!("link {name}"),
    };
    LaneView {
        subject,
        why: describe(&lane.why),
        steps: lane.steps.iter().map(phrase).collect(),
    }
}

/// A step in a few words, without the values of variables or the contents of files.
fn phrase(step: &Step) -> String {
    match step {
        Step::PullImage { reference, .. } => format!("get image {reference}"),
        Step::PrepareFiles(files) => format!("write files and {} volumes", files.volumes.len()),
        Step::StartSandbox(spec) => format!("start sandbox {}", spec.attempt),
        Step::Connect { link, .. } => format!("connect {} as {}", link.name, link.address),
        Step::StartContainer(spec) => {
            format!("start container {} ({})", spec.name, spec.image_name)
        }
        Step::PostStart { .. } => "run the postStart hook".to_owned(),
        Step::Unpause(_) => "unpause".to_owned(),
        Step::Drain(time) => format!("drain for {} s", time.as_secs_f32()),
        Step::Stop(specs) => format!("stop {} containers", specs.len()),
        Step::Remove(ids) => format!("remove {} containers", ids.len()),
        Step::Disconnect(link) => format!("remove link {link}"),
        Step::RemoveFiles(_) => "remove files and volumes".to_owned(),
    }
}
