//! What is on this host without a record for this host: pods, links and files.

use std::collections::BTreeSet;

use super::NodeCycle;
use crate::{
    name::{LinkName, NodeName},
    plan::{Lane, LaneKey, Step, Why},
    pod::link::link_name,
    status::PodStatus,
};

impl NodeCycle<'_> {
    /// Handles pods that run here without a record, or with a record for another host, and removes
    /// what is left of pods that are not remembered.
    pub(super) fn orphans(&mut self) {
        for (uid, containers) in &self.containers {
            let Some((_, container)) = containers.first() else {
                continue;
            };
            match self.input.state.pods.get(*uid) {
                None => self.report.orphans.push(container.identity.clone()),
                Some(record) if record.place.node() != Some(self.input.node) => {
                    let place = record.place.node().map_or("no node", NodeName::as_str);
                    let mut status = PodStatus::pending();
                    status.message = Some(format!("it runs here, and its record names {place}"));
                    self.report.pods.insert((*uid).clone(), status);
                }
                Some(_) => continue,
            }
            // The pod keeps its address and back-off until its record is right.
            if let Some(memory) = self.input.memory.pods.get(*uid) {
                self.memory.pods.insert((*uid).clone(), memory.clone());
            }
        }

        // A pod whose lane runs may have no container for a moment, and keeps its address.
        for key in &self.input.observed.lanes {
            if let LaneKey::Pod(uid) = key
                && !self.input.state.pods.contains_key(uid)
                && let Some(memory) = self.input.memory.pods.get(uid)
            {
                self.memory.pods.insert(uid.clone(), memory.clone());
            }
        }
        self.remove_links();
        self.remove_files();
    }

    /// Removes the links of pods that are not here: neither by a record nor by a container.
    fn remove_links(&mut self) {
        let pods = &self.input.state.pods;
        let orphaned = self
            .containers
            .keys()
            .copied()
            .filter(|uid| !pods.contains_key(uid));
        let here = self.mine.iter().map(|record| &record.uid).chain(orphaned);
        let known: BTreeSet<LinkName> = here.map(link_name).collect();
        let strange: Vec<&LinkName> = self.input.observed.links.difference(&known).collect();

        // Usually no container is unaccounted for; then the uids of the whole cluster need not be
        // hashed.
        if strange.is_empty() {
            return;
        }
        let elsewhere: BTreeSet<LinkName> = pods.keys().map(link_name).collect();
        for link in strange
            .into_iter()
            .filter(|link| !elsewhere.contains(*link))
        {
            self.clean(LaneKey::Link(link.clone()), Step::Disconnect(link.clone()));
        }
    }

    /// Removes the files of pods that have neither a record nor a container.
    fn remove_files(&mut self) {
        for uid in self.input.observed.files.keys() {
            if !self.input.state.pods.contains_key(uid) && !self.containers.contains_key(uid) {
                self.clean(LaneKey::Pod(uid.clone()), Step::RemoveFiles(uid.clone()));
            }
        }
    }

    /// Adds a lane that removes what is left of a pod without a record, unless such a lane runs
    /// already or has to wait.
    fn clean(&mut self, key: LaneKey, step: Step) {
        let waiting = self
            .input
            .observed
            .failures
            .get(&key)
            .is_some_and(|one| one.retry_at(self.input.now).is_some());
        if !self.input.observed.lanes.contains(&key) && !waiting {
            self.lanes.push(Lane {
                key,
                why: Why::Leftover,
                steps: vec![step],
            });
        }
    }
}
