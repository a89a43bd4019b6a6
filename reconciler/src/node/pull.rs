//! The lanes that pin and pull images.

use super::NodeCycle;
use crate::{
    object::PullPolicy,
    observed::LaneFailure,
    plan::{Lane, LaneKey, Next, PullMode, Step, Why},
    pod::lifecycle::ImageNeed,
};

impl<'a> NodeCycle<'a> {
    /// The failure of an image's lane. For the target, only a failure since it became the target
    /// counts, so that a retry starts without old failures.
    pub(super) fn image_failure(&self, key: &LaneKey) -> Option<&'a LaneFailure> {
        let rollout = &self.input.state.rollout;
        let LaneKey::Image(commit, _) = key else {
            return None;
        };
        let failure = self.input.observed.failures.get(key)?;
        if let Some(began) = self.memory.began
            && rollout.target.as_ref() == Some(commit)
            && failure.at < began.at
        {
            return None;
        }
        Some(failure)
    }

    /// Adds a lane that pins or pulls an image, unless such a lane runs already or has to wait.
    pub(super) fn pull(&mut self, need: ImageNeed) {
        let key = LaneKey::Image(need.commit.clone(), need.image.clone());
        if self.input.observed.lanes.contains(&key) {
            return;
        }
        if let Some(retry) = self
            .image_failure(&key)
            .and_then(|failure| failure.retry_at(self.input.now))
        {
            self.next = self.next.sooner(Next::at(retry, self.input.now));
            return;
        }

        let mode = match (need.pull, &need.digest) {
            (PullPolicy::Never, _) => PullMode::Never,
            // A digest identifies the content: if the image is here, the registry need not be
            // asked.
            (_, Some(_)) | (PullPolicy::IfNotPresent, None) => PullMode::IfNotPresent,
            (PullPolicy::Always, None) => PullMode::Always,
        };
        let step = Step::PullImage {
            commit: need.commit.clone(),
            image: need.image.clone(),
            reference: need.digest.unwrap_or_else(|| need.image.to_string()),
            mode,
        };
        let lane = Lane {
            key: key.clone(),
            why: Why::Image { image: need.image },
            steps: vec![step],
        };

        // Two containers may need one image with different pull policies: the policy that asks the
        // registry takes precedence.
        if mode == PullMode::Always || !self.image_lanes.contains_key(&key) {
            self.image_lanes.insert(key, lane);
        }
    }
}
