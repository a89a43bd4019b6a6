//! Which images of the target this host pulls: its share while the commit is prepared, all images
//! that it may need once the commit is healthy.

use std::collections::{BTreeMap, BTreeSet};

use super::NodeCycle;
use crate::{
    commit::Commit,
    foreign::ForeignText,
    name::ImageReference,
    object::{PodSpec, PullPolicy, Workload},
    observed::LaneFailure,
    placement::{Candidate, eligible_for_daemon, unfit_by_itself},
    plan::{ImagePin, LaneKey},
    pod::lifecycle::ImageNeed,
    state::{KnownNode, NodeLife, Phase, Preparation, Share},
};

/// Images as written in the manifests, with their pull policy.
type Images<'c> = BTreeMap<&'c ImageReference, PullPolicy>;

impl<'a> NodeCycle<'a> {
    /// Reports the state of the target's images, and pulls those that are missing.
    pub(super) fn images(&mut self) {
        let rollout = &self.input.state.rollout;
        let Some(target) = rollout
            .target
            .as_ref()
            .and_then(|id| self.input.commits.get(id))
        else {
            return;
        };
        let follows = rollout.driving.as_ref() == Some(&target.id);
        let shares = rollout.shares_of_target();
        let prepares = !follows
            || matches!(rollout.phase, Phase::Preparing { .. })
            // The other nodes continued without this one.
            || rollout.faulty.contains_key(self.input.node);
        let healthy = follows && rollout.phase == Phase::Healthy;
        let alone = self.input.peers.keys().all(|node| node == self.input.node);
        if !prepares && shares.is_none() && (alone || !healthy) {
            return;
        }

        let also_changed = self.inherit(target);
        let (own, all) = self.wanted(target, prepares, &also_changed);
        let (here, own) = self.missing(target, own);
        let (all_here, all) = self.missing(target, all);

        let preparation = if all.is_empty() {
            Preparation::Ready
        } else if let Some(shares) = shares {
            self.report.share = Some(shares.number);
            self.preparation(target, here, &own)
        } else if prepares {
            self.preparation(target, here, &own)
        } else {
            Preparation::Pulling {
                done: all_here,
                of: all_here + all.len(),
            }
        };
        self.report.prepared.insert(target.id.clone(), preparation);

        for (image, pull) in own {
            self.pull(ImageNeed {
                commit: target.id.clone(),
                image: image.clone(),
                pull,
                digest: None,
            });
        }
        if healthy {
            self.pull_behind(target, all);
        }
    }

    /// The images that are pulled now, and those that this host may need later.
    fn wanted<'c>(
        &self,
        target: &'c Commit,
        prepares: bool,
        also_changed: &BTreeSet<&ImageReference>,
    ) -> (Images<'c>, Images<'c>) {
        let workloads = || target.objects.workloads.values();
        let shares = self.input.state.rollout.shares_of_target();
        if shares.is_none() && prepares {
            let all = images_of(workloads());
            return (all.clone(), all);
        }

        let share = shares.and_then(|shares| shares.nodes.get(self.input.node));
        let has =
            |workload: &&Workload| share.is_some_and(|share: &Share| share.has(&workload.key));
        let candidate = self.candidate(target);
        let may_run = |spec: &PodSpec| {
            eligible_for_daemon(spec, &candidate) || unfit_by_itself(spec, &candidate).is_none()
        };
        let all = images_of(workloads().filter(|one| has(one) || may_run(&one.template.spec)));
        let mut own = images_of(workloads().filter(has));
        // A pod of this host may need the image at any moment, and its old pin belongs to another
        // commit.
        own.extend(
            all.iter()
                .filter(|(image, _)| also_changed.contains(*image))
                .map(|(image, pull)| (*image, *pull)),
        );
        (own, all)
    }

    /// This host as labels, taints and `nodeName` describe it permanently: cordons are ignored,
    /// since they are temporary.
    fn candidate(&self, target: &Commit) -> Candidate {
        let known = KnownNode {
            facts: self.input.facts.clone(),
            life: NodeLife::Ready,
        };
        Candidate {
            cordoned: false,
            ..Candidate::new(&known, &target.objects.nodes)
        }
    }

    /// Copies the pins of workloads that did not change; returns the images that changed workloads
    /// use as well, so that their pin is not copied.
    fn inherit(&mut self, target: &'a Commit) -> BTreeSet<&'a ImageReference> {
        let mut fresh: BTreeSet<&ImageReference> = BTreeSet::new();
        let mut kept: BTreeMap<&ImageReference, &ImagePin> = BTreeMap::new();
        for workload in target.objects.workloads.values() {
            let before = self.unchanged_pins(target, workload);
            for image in images_of([workload]).into_keys() {
                match before.and_then(|pins| pins.get(image)) {
                    Some(pin) => drop(kept.insert(image, pin)),
                    None => drop(fresh.insert(image)),
                }
            }
        }

        let mut also_changed = BTreeSet::new();
        for (image, pin) in kept {
            if fresh.contains(image) {
                also_changed.insert(image);
            } else if !self.is_pinned(target, image) {
                let pin = ImagePin {
                    warning: None,
                    ..pin.clone()
                };
                self.inherited.push((target.id.clone(), image.clone(), pin));
            }
        }
        also_changed
    }

    /// The pins of the healthy commit, if the workload is the same there: a push that does not
    /// change a workload must not move the workload's tag to a newer image.
    fn unchanged_pins(
        &self,
        target: &Commit,
        workload: &Workload,
    ) -> Option<&'a BTreeMap<ImageReference, ImagePin>> {
        let rollout = &self.input.state.rollout;
        [&rollout.driving, &rollout.healthy]
            .into_iter()
            .flatten()
            .filter(|id| **id != target.id)
            .find_map(|id| {
                let commit = self.input.readable(id)?;
                commit.resolve(&workload.key, &workload.template.hash)?;
                self.input.pins.get(id)
            })
    }

    fn is_pinned(&self, target: &Commit, image: &ImageReference) -> bool {
        self.input
            .pins
            .get(&target.id)
            .is_some_and(|pins| pins.contains_key(image))
            || self
                .inherited
                .iter()
                .any(|(commit, inherited, _)| *commit == target.id && inherited == image)
    }

    /// Number of these images that are pinned, and the images that are not.
    fn missing<'c>(
        &self,
        target: &Commit,
        images: Images<'c>,
    ) -> (usize, Vec<(&'c ImageReference, PullPolicy)>) {
        let (here, missing): (Vec<_>, Vec<_>) = images
            .into_iter()
            .partition(|(image, _)| self.is_pinned(target, image));
        (here.len(), missing)
    }

    fn preparation(
        &self,
        target: &Commit,
        here: usize,
        missing: &[(&ImageReference, PullPolicy)],
    ) -> Preparation {
        let failure = |(image, _): &(&ImageReference, PullPolicy)| {
            self.image_failure(&LaneKey::Image(target.id.clone(), (*image).clone()))
        };
        let failures: Vec<&LaneFailure> = missing.iter().filter_map(failure).collect();
        if missing.is_empty() {
            Preparation::Ready
        } else if let Some(failure) = failures
            .iter()
            .find(|failure| failure.fault.kind.is_commits_fault())
        {
            Preparation::Failed(ForeignText::sentence(&failure.fault.message))
        } else if let Some(failure) = failures
            .iter()
            .find(|failure| !failure.fault.kind.is_outside())
        {
            Preparation::Failing(ForeignText::sentence(&failure.fault.message))
        } else if let Some(failure) = failures.first() {
            Preparation::Waiting(ForeignText::sentence(&failure.fault.message))
        } else {
            Preparation::Pulling {
                done: here,
                of: here + missing.len(),
            }
        }
    }

    /// Pulls images that no rollout waits for, one at a time.
    fn pull_behind(&mut self, target: &Commit, missing: Vec<(&ImageReference, PullPolicy)>) {
        let is_image = |key: &LaneKey| matches!(key, LaneKey::Image(..));
        if self.input.observed.lanes.iter().any(is_image) {
            return;
        }
        for (image, pull) in missing {
            if !self.image_lanes.is_empty() {
                return;
            }
            self.pull(ImageNeed {
                commit: target.id.clone(),
                image: image.clone(),
                pull,
                digest: None,
            });
        }
    }
}

fn images_of<'c>(workloads: impl IntoIterator<Item = &'c Workload>) -> Images<'c> {
    let mut images = Images::new();
    for workload in workloads {
        let spec = &workload.template.spec;
        for container in spec.init_containers.iter().chain(&spec.containers) {
            let strongest = images.entry(&container.image).or_insert(container.pull);
            *strongest = (*strongest).max(container.pull);
        }
    }
    images
}
