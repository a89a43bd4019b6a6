//! Deliveries that take time, or are lost or repeated: changes of the store to watches, commits to
//! hosts, and reports to the store.

use std::sync::Arc;

use reconciler::{
    commit::Commit,
    name::{CommitId, NodeName},
    rollout::Head,
    state::NodeReport,
};

use crate::{
    clock::Time,
    view::ReadResult,
    world::{Event, World},
};

impl World {
    pub(crate) fn watch_delay(&mut self) -> Time {
        match self.random.within(0, 100) {
            0..3 if !self.faults_over => self.random.within(300, 2_000),
            3..20 => self.random.within(20, 200),
            _ => self.random.within(1, 20),
        }
    }

    /// At most one delivery is in the queue for each daemon: it brings all changes up to the time
    /// when it arrives.
    pub(crate) fn watch_after(&mut self, index: usize, wait: Time) {
        if !self.is_connected(index) {
            return;
        }
        let at = self.now + wait;
        let host = &mut self.hosts[index];
        let generation = host.generation;
        if let Some(daemon) = &mut host.daemon
            && daemon.watch_at.is_none()
        {
            daemon.watch_at = Some(at);
            self.at(at, Event::Watch(index, generation));
        }
    }

    pub(crate) fn watch(&mut self, index: usize) {
        let again = !self.faults_over && self.random.percent(2);
        let partly = !self.faults_over && self.random.percent(10);
        let connected = self.is_connected(index);
        let up_to = if partly && self.store.revision > self.hosts[index].view.revision {
            self.random
                .within(self.hosts[index].view.revision, self.store.revision)
                + 1
        } else {
            self.store.revision
        };
        let host = &mut self.hosts[index];
        let Some(daemon) = &mut host.daemon else {
            return;
        };
        daemon.watch_at = None;
        if !connected {
            return;
        }
        let mut result = host.view.follow(&self.store, up_to);
        if again {
            let listed = host.view.relist(&self.store);
            result = ReadResult {
                distrusts: result.distrusts || listed.distrusts,
                ..listed
            };
        }
        let behind = host.view.revision < self.store.revision;
        if behind {
            let wait = self.watch_delay();
            self.watch_after(index, wait);
        }
        self.handle_read(index, result);
        if result.decided {
            self.cycle_after(index, 1);
        }
        if result.reported || result.decided {
            self.lead_after(index, 5);
        }
    }

    pub(crate) fn fetch(&mut self, index: usize, id: &CommitId) {
        let Some(position) = self.pushed.iter().position(|commit| commit.id == *id) else {
            return;
        };
        let host = &mut self.hosts[index];
        if !host.powered || host.removed || !host.reaches_forge {
            return;
        }
        // A fetch brings all commits up to this one.
        for commit in &self.pushed[..=position] {
            host.verified
                .entry(commit.id.clone())
                .or_insert_with(|| Arc::clone(commit));
        }
        let newer = match &host.head {
            Head::Accepted(head) => {
                self.pushed.iter().position(|commit| commit.id == *head) < Some(position)
            }
            _ => true,
        };
        if newer {
            host.head = Head::Accepted(id.clone());
        }
        let name = host.name.clone();
        self.note(|| format!("{name} has fetched {id}"));
        if self.hosts[index].is_awake() {
            self.cycle_after(index, 1);
            self.lead_after(index, 5);
        }
    }

    pub(crate) fn send(&mut self, index: usize) {
        let connected = self.is_connected(index);
        let (lost, twice) = if self.faults_over {
            (false, false)
        } else {
            (self.random.percent(5), self.random.percent(5))
        };
        let wait = self.random.within(1, 15);
        let late = self.random.within(100, 3_000);
        let host = &mut self.hosts[index];
        let generation = host.generation;
        let Some(daemon) = &mut host.daemon else {
            return;
        };
        let Some(report) = daemon
            .report
            .clone()
            .filter(|report| daemon.sent_report.as_ref() != Some(report))
        else {
            return;
        };
        let belongs = host.view.may_publish();
        if !connected || lost || !belongs {
            // The report was not sent: the daemon tries again until it is.
            let wait = if connected { 300 } else { 1_000 };
            self.after(wait, Event::Send(index, generation));
            return;
        }
        daemon.sent_report = Some(Arc::clone(&report));
        if self.crashes_here(index, || "is about to send its report".to_owned()) {
            return;
        }
        let host = &mut self.hosts[index];
        host.reports += 1;
        let (name, number) = (host.name.clone(), host.reports);
        if twice {
            self.after(
                late,
                Event::Arrive(name.clone(), number, Arc::clone(&report)),
            );
        }
        self.after(wait, Event::Arrive(name, number, report));
        self.crashes_here(index, || "has sent its report".to_owned());
    }

    pub(crate) fn arrive(&mut self, node: &NodeName, number: u64, report: &Arc<NodeReport>) {
        let Some(index) = self.hosts.iter().position(|host| host.name == *node) else {
            return;
        };
        if !self.is_connected(index) {
            // The report was lost on its way. The daemon does not know that; its next session with
            // the store sends everything again.
            if let Some(daemon) = &mut self.hosts[index].daemon {
                daemon.sent_report = None;
                let generation = self.hosts[index].generation;
                self.after(1_000, Event::Send(index, generation));
            }
            return;
        }
        if self.store.report(node, number, report) {
            self.referee.report(self.now, node, &self.store.contents);
            self.after_write();
        }
    }

    /// Adds a commit to the repository; each host fetches it after a delay of its own.
    pub(crate) fn push(&mut self, commit: Arc<Commit>) {
        let id = commit.id.clone();
        self.note(|| format!("push {id}: {}", commit.subject));
        self.pushed.push(commit);
        for index in 0..self.hosts.len() {
            let wait = match self.random.within(0, 10) {
                0 if !self.faults_over => self.random.within(5_000, 90_000),
                1..4 => self.random.within(500, 5_000),
                _ => self.random.within(50, 500),
            };
            self.after(wait, Event::Fetch(index, id.clone()));
        }
    }
}
