//! Whether the nodes have the images of the target, and whose fault it is where one has not.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::{Failure, FailureClass, Rollout, StepInput};
use crate::{
    name::{CommitId, NodeName},
    state::Preparation,
    time::later,
};

/// So long a node may wait for something outside of the commit before the others go on without it.
const PREPARE_GRACE: Duration = Duration::from_secs(30);

/// How the nodes stand with the images of the target.
#[derive(Default)]
pub(super) struct Prepared<'a> {
    ready: usize,
    failed: BTreeMap<&'a NodeName, &'a str>,
    waiting: BTreeMap<&'a NodeName, &'a str>,
    /// Those of them where nobody can say whose fault it is.
    failing: BTreeMap<&'a NodeName, &'a str>,
    pulling: Option<String>,
}

pub(super) enum Verdict {
    /// All that count have the images; these do not count.
    Ready(BTreeMap<NodeName, String>),
    Waiting {
        message: String,
        until: Option<Timestamp>,
    },
    Failed(Failure),
    /// There is no node.
    Nobody,
}

impl<'a> Prepared<'a> {
    pub(super) fn look(input: &StepInput<'a>, target: &CommitId) -> Self {
        let mut prepared = Self::default();
        for (node, report) in &input.nodes {
            match report.and_then(|report| report.prepared.get(target)) {
                Some(Preparation::Ready) => prepared.ready += 1,
                Some(Preparation::Failed(reason)) => {
                    prepared.failed.insert(*node, reason);
                }
                Some(Preparation::Waiting(reason)) => {
                    prepared.waiting.insert(*node, reason);
                }
                Some(Preparation::Failing(reason)) => {
                    prepared.waiting.insert(*node, reason);
                    prepared.failing.insert(*node, reason);
                }
                Some(Preparation::Pulling { done, of }) => {
                    prepared.pulling.get_or_insert_with(|| format!("{done} of {of} images are here"));
                }
                None => {
                    prepared.pulling.get_or_insert_with(|| "looking at its images".to_owned());
                }
            }
        }
        prepared
    }

    /// Since when images cannot be had for reasons that nobody knows.
    pub(super) fn failing_since(&self, before: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
        (!self.failing.is_empty()).then(|| before.unwrap_or(now))
    }

    /// A node that cannot get what others have got is at fault itself, up to a number of nodes.
    pub(super) fn verdict(self, input: &StepInput<'_>, rollout: &Rollout) -> Verdict {
        if input.nodes.is_empty() {
            return Verdict::Nobody;
        }
        let nobody_else = self.ready == 0 && self.pulling.is_none() && self.waiting.is_empty();
        if let Some(reason) = self.failed.values().next()
            && (self.failed.len() > input.max_faulty || nobody_else)
        {
            return Verdict::Failed(Failure { class: FailureClass::Image, reason: (*reason).to_owned() });
        }
        let deadline = rollout.failing.map(|since| later(since, input.settings.deadline));
        if let Some(reason) = self.failing.values().next()
            && deadline.is_some_and(|deadline| deadline <= input.now)
        {
            let seconds = input.settings.deadline.as_secs();
            let reason = format!("its images cannot be had within {seconds} s: {reason}");
            return Verdict::Failed(Failure { class: FailureClass::Deadline, reason });
        }
        let grace = later(rollout.since.unwrap_or(input.now), PREPARE_GRACE);
        let few = self.failed.len() + self.waiting.len() <= input.max_faulty && self.ready > 0;
        let message = match (self.waiting.values().next(), self.pulling) {
            (Some(_), None) if few && grace <= input.now => None,
            (Some(reason), _) => Some((*reason).to_owned()),
            (None, Some(pulling)) => Some(pulling),
            (None, None) => None,
        };
        match message {
            Some(message) => {
                let grace = (few && grace > input.now).then_some(grace);
                let until = [grace, deadline].into_iter().flatten().min();
                Verdict::Waiting { message, until }
            }
            None => {
                let faulty = self.failed.into_iter().chain(self.waiting);
                Verdict::Ready(faulty.map(|(node, reason)| (node.clone(), reason.to_owned())).collect())
            }
        }
    }
}
