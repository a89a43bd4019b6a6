//! The control loop. It is level-triggered: an event only causes the next cycle, which observes
//! the whole state.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use reconciler::plan::Next;
use runtime::LastOutputs;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};
use tracing::Instrument;

use crate::{
    command::Request, cycle::Host, follow::SourceUpdate, lanes::LaneEvent, store::StoreEvent,
    view::View, watchdog::Watchdog,
};

/// Events that arrive within this time are handled by one cycle.
const BREATH: Duration = Duration::from_millis(3);
/// The longest time from one cycle to the next.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// How long a host of a cluster waits at its start for the first content of the store. If etcd
/// does not answer within this time, the first cycle runs on this host's copy.
const STORE_WAIT: Duration = Duration::from_secs(1);
/// How long the end of the daemon waits for steps that are under way.
const LAST_STEPS: Duration = Duration::from_secs(10);

/// What may cause the next cycle.
enum Event {
    /// The follower has read the repository and judged its head.
    Source(SourceUpdate),
    /// A lane has finished a step, or has ended.
    Lane(LaneEvent),
    /// The engine or a probe has reported a change, the output of a failed container was read, or
    /// the deadline of the next cycle has come.
    Cycle,
    /// A link or route of this host may have been removed.
    Network,
    /// The whole state is observed again, in case an event was lost.
    Resync,
    /// The store has reported a change of its content or of its connection.
    Store(StoreEvent),
    /// A person has sent a request, such as `retry` or `rollback`.
    Asked(Request),
    /// systemd's watchdog waits for a report. Causes no cycle.
    ReportDue,
    /// The daemon must end.
    End,
}

/// The channels that events arrive on.
pub(crate) struct Inputs {
    /// Heads of the repository that the follower has judged.
    pub(crate) source: mpsc::Receiver<SourceUpdate>,
    /// Steps that lanes have finished.
    pub(crate) lanes: mpsc::UnboundedReceiver<LaneEvent>,
    /// Changes of the store's content and connection.
    pub(crate) store: mpsc::UnboundedReceiver<StoreEvent>,
    /// Requests of people, each with a channel for its answer.
    pub(crate) asked: mpsc::Receiver<Request>,
    /// Changes when the engine has reported an event.
    pub(crate) engine: watch::Receiver<u64>,
    /// Changes when the output of a failed container was read.
    pub(crate) outputs: watch::Receiver<LastOutputs>,
    /// Changes when the kernel has reported a changed link or route.
    pub(crate) network: watch::Receiver<u64>,
    /// Changes when a probe has a new result.
    pub(crate) probes: watch::Receiver<u64>,
    /// Changes when another host has begun to answer, or has stopped answering.
    pub(crate) inquiry: watch::Receiver<u64>,
    /// Notified when the daemon must end.
    pub(crate) end: Arc<Notify>,
}

/// The loop, the host that it works on, and its inputs.
pub(crate) struct ControlLoop {
    host: Host,
    inputs: Inputs,
    view: watch::Sender<Arc<View>>,
    watchdog: Watchdog,
    resync: Duration,
    next_cycle: Option<Instant>,
    next_resync: Instant,
    /// The number of cycles since the start.
    cycles: u64,
}

impl ControlLoop {
    pub(crate) fn new(
        host: Host,
        inputs: Inputs,
        view: watch::Sender<Arc<View>>,
        watchdog: Watchdog,
        resync: Duration,
    ) -> Self {
        Self {
            host,
            inputs,
            view,
            watchdog,
            resync,
            next_cycle: None,
            next_resync: Instant::now() + resync,
            cycles: 0,
        }
    }

    /// Runs a cycle, publishes the view and waits for the next event, until the daemon must end.
    pub(crate) async fn run(mut self) -> Result<()> {
        self.await_store_content().await;
        loop {
            let span = tracing::info_span!("cycle", number = self.cycles);
            self.watchdog.cycle_begins();
            let now = self.host.now();
            let next = self.host.cycle(now).instrument(span).await;

            self.cycles += 1;
            self.next_cycle = match next {
                Next::AwaitChange => None,
                Next::After(wait) => Some(Instant::now() + wait.min(LONGEST_WAIT)),
            };
            self.view.send_replace(self.host.current_view());
            self.watchdog.waiting();

            let event = self.next_cause().await;
            if !self.handle(event).await {
                break;
            }
            tokio::time::sleep(BREATH).await;
            while let Some(event) = self.ready_event() {
                if !self.handle(event).await {
                    return self.finish().await;
                }
            }
        }
        self.finish().await
    }

    /// Waits for the store's content before the first cycle: this host may have been removed from
    /// the cluster while it was off, and its pods may run on other hosts by now.
    async fn await_store_content(&mut self) {
        let deadline = Instant::now() + STORE_WAIT;
        while !self.host.has_store_content() {
            let Ok(Some(event)) = tokio::time::timeout_at(deadline, self.inputs.store.recv()).await
            else {
                return;
            };
            self.host.store_event(event);
        }
    }

    /// The next event that causes a cycle; meanwhile the loop reports to systemd's watchdog.
    async fn next_cause(&mut self) -> Event {
        loop {
            match self.next_event().await {
                Event::ReportDue => self.watchdog.report(),
                event => return event,
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let far = Instant::now() + Duration::from_secs(3600);
        let report_due = self.watchdog.report_due().unwrap_or(far);
        let inputs = &mut self.inputs;
        tokio::select! {
            () = inputs.end.notified() => Event::End,
            Some(request) = inputs.asked.recv() => Event::Asked(request),
            Some(event) = inputs.store.recv() => Event::Store(event),
            Some(update) = inputs.source.recv() => Event::Source(update),
            Some(event) = inputs.lanes.recv() => Event::Lane(event),
            Ok(()) = inputs.engine.changed() => Event::Cycle,
            Ok(()) = inputs.outputs.changed() => Event::Cycle,
            Ok(()) = inputs.network.changed() => Event::Network,
            Ok(()) = inputs.probes.changed() => Event::Cycle,
            Ok(()) = inputs.inquiry.changed() => Event::Cycle,
            () = tokio::time::sleep_until(self.next_resync) => Event::Resync,
            () = tokio::time::sleep_until(self.next_cycle.unwrap_or(far)) => Event::Cycle,
            () = tokio::time::sleep_until(report_due) => Event::ReportDue,
        }
    }

    /// An event that has already arrived; `None` if there is none.
    fn ready_event(&mut self) -> Option<Event> {
        let inputs = &mut self.inputs;
        if let Ok(event) = inputs.lanes.try_recv() {
            return Some(Event::Lane(event));
        }
        if let Ok(event) = inputs.store.try_recv() {
            return Some(Event::Store(event));
        }
        if let Ok(update) = inputs.source.try_recv() {
            return Some(Event::Source(update));
        }
        inputs.asked.try_recv().ok().map(Event::Asked)
    }

    /// Handles an event; false if it ends the loop.
    async fn handle(&mut self, event: Event) -> bool {
        match event {
            Event::Source(update) => self.host.source_update(update),
            Event::Lane(event) => self.host.lane(event),
            Event::Cycle | Event::ReportDue => {}
            Event::Network => self.host.network_changed(),
            Event::Resync => {
                self.next_resync = Instant::now() + self.resync;
                self.host.resync().await;
            }
            Event::Store(event) => self.host.store_event(event),
            Event::Asked(request) => self.host.asked(request).await,
            Event::End => return false,
        }
        true
    }

    /// Waits for steps that are under way, for a bounded time. Containers go on running.
    async fn finish(mut self) -> Result<()> {
        let end = Instant::now() + LAST_STEPS;
        while !self.host.is_idle() {
            match tokio::time::timeout_at(end, self.inputs.lanes.recv()).await {
                Ok(Some(event)) => self.host.lane(event),
                Ok(None) | Err(_) => break,
            }
        }
        self.host.save().await;
        self.host.leave().await;
        tracing::info!("ended; containers, addresses and NAT stay as they are");
        Ok(())
    }
}

#[cfg(test)]
mod tests;
