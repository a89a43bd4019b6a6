//! Whether the nodes have the images of the target, and whose fault it is where one has not.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use super::{Failure, FailureClass, Rollout, StepInput};
use crate::{
    name::{CommitId, NodeName},
    state::Preparation,
    time::later,
};

/// So long a node may wait for something outside of the commit, or for the commit, before the others go on without it.
const PREPARE_GRACE: Duration = Duration::from_secs(30);

/// How the nodes stand with the images of the target.
#[derive(Default)]
pub(super) struct Prepared<'a> {
    ready: usize,
    failed: BTreeMap<&'a NodeName, &'a str>,
    waiting: BTreeMap<&'a NodeName, String>,
    /// They say nothing of it: they have not got the commit, or not looked at it yet.
    unread: BTreeSet<&'a NodeName>,
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
                    prepared.waiting.insert(*node, reason.clone());
                }
                Some(Preparation::Failing(reason)) => {
                    prepared.waiting.insert(*node, reason.clone());
                    prepared.failing.insert(*node, reason);
                }
                Some(Preparation::Pulling { done, of }) => {
                    prepared.pulling.get_or_insert_with(|| format!("{done} of {of} images are here"));
                }
                None => {
                    prepared.unread.insert(*node);
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
    pub(super) fn verdict(mut self, input: &StepInput<'_>, rollout: &Rollout) -> Verdict {
        if input.nodes.is_empty() {
            return Verdict::Nobody;
        }
        let nobody_else =
            self.ready == 0 && self.pulling.is_none() && self.waiting.is_empty() && self.unread.is_empty();
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
        let without = self.failed.len() + self.waiting.len() + self.unread.len();
        let few = without <= input.max_faulty && self.ready > 0;
        if grace <= input.now {
            let why = |node| format!("node {node} has not got the commit: see `windlass status` there");
            self.waiting.extend(self.unread.iter().map(|node| (*node, why(*node))));
        } else if !self.unread.is_empty() {
            self.pulling.get_or_insert_with(|| "looking at its images".to_owned());
        }
        let message = match (self.waiting.values().next(), self.pulling) {
            (Some(_), None) if few && grace <= input.now => None,
            (Some(reason), _) => Some(reason.clone()),
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
                let failed = self.failed.into_iter().map(|(node, reason)| (node, reason.to_owned()));
                let faulty = failed.chain(self.waiting);
                Verdict::Ready(faulty.map(|(node, reason)| (node.clone(), reason)).collect())
            }
        }
    }
}
