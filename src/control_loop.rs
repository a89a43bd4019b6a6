//! The one loop: level-triggered, each event only says "look again".

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use reconciler::plan::Next;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};
use tracing::Instrument;

use crate::{
    command::Request, cycle::Host, follow::SourceUpdate, lanes::LaneEvent, store::StoreEvent,
    view::View, watchdog::Watchdog,
};

/// Events that come in one breath are looked at together.
const BREATH: Duration = Duration::from_millis(3);
/// No look is further away than this.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// How long a host of a cluster waits at its start for the store's first word. Without etcd it
/// begins after this.
const FIRST_WORD: Duration = Duration::from_secs(1);
/// How long the end of the daemon waits for steps that are under way.
const LAST_STEPS: Duration = Duration::from_secs(10);

/// What may make it look again.
enum Event {
    /// The repository has been looked at.
    Source(SourceUpdate),
    /// A lane has done something, or ended.
    Lane(LaneEvent),
    /// The engine or a probe has changed, or a time has come.
    Cycle,
    /// A link or route of ours may have gone.
    Network,
    /// Everything is looked at afresh, in case an event was lost.
    Resync,
    /// The store tells something.
    Store(StoreEvent),
    /// A person asks for something.
    Asked(Request),
    /// The daemon must end.
    End,
}

/// Where events come from.
pub(crate) struct Inputs {
    /// What the follower finds.
    pub(crate) source: mpsc::Receiver<SourceUpdate>,
    /// What lanes say.
    pub(crate) lanes: mpsc::UnboundedReceiver<LaneEvent>,
    /// What the store tells.
    pub(crate) store: mpsc::UnboundedReceiver<StoreEvent>,
    /// What people ask for.
    pub(crate) asked: mpsc::Receiver<Request>,
    /// The engine has something new.
    pub(crate) engine: watch::Receiver<u64>,
    /// The network has something new.
    pub(crate) network: watch::Receiver<u64>,
    /// A probe has something new.
    pub(crate) probes: watch::Receiver<u64>,
    /// Another host has begun to answer, or has stopped.
    pub(crate) inquiry: watch::Receiver<u64>,
    /// Ends the daemon.
    pub(crate) end: Arc<Notify>,
}

/// The loop and what it works on.
pub(crate) struct ControlLoop {
    host: Host,
    inputs: Inputs,
    view: watch::Sender<Arc<View>>,
    watchdog: Watchdog,
    resync: Duration,
    next_cycle: Option<Instant>,
    next_resync: Instant,
    /// How many looks there were.
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

    /// Looks, acts, publishes and waits, until it is told to end.
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
            let event = self.next_event().await;
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

    /// Lets the store speak before anything is begun: this host may have been taken out of the
    /// cluster while it was off, and what it ran runs elsewhere by now.
    async fn await_store_content(&mut self) {
        let deadline = Instant::now() + FIRST_WORD;
        while !self.host.has_store_content() {
            let Ok(Some(event)) = tokio::time::timeout_at(deadline, self.inputs.store.recv()).await
            else {
                return;
            };
            self.host.store_event(event);
        }
    }

    async fn next_event(&mut self) -> Event {
        let far = Instant::now() + Duration::from_secs(3600);
        let inputs = &mut self.inputs;
        tokio::select! {
            () = inputs.end.notified() => Event::End,
            Some(request) = inputs.asked.recv() => Event::Asked(request),
            Some(event) = inputs.store.recv() => Event::Store(event),
            Some(found) = inputs.source.recv() => Event::Source(found),
            Some(event) = inputs.lanes.recv() => Event::Lane(event),
            Ok(()) = inputs.engine.changed() => Event::Cycle,
            Ok(()) = inputs.network.changed() => Event::Network,
            Ok(()) = inputs.probes.changed() => Event::Cycle,
            Ok(()) = inputs.inquiry.changed() => Event::Cycle,
            () = tokio::time::sleep_until(self.next_resync) => Event::Resync,
            () = tokio::time::sleep_until(self.next_cycle.unwrap_or(far)) => Event::Cycle,
        }
    }

    /// An event that is there already.
    fn ready_event(&mut self) -> Option<Event> {
        let inputs = &mut self.inputs;
        if let Ok(event) = inputs.lanes.try_recv() {
            return Some(Event::Lane(event));
        }
        if let Ok(event) = inputs.store.try_recv() {
            return Some(Event::Store(event));
        }
        if let Ok(found) = inputs.source.try_recv() {
            return Some(Event::Source(found));
        }
        inputs.asked.try_recv().ok().map(Event::Asked)
    }

    /// Takes an event in; false ends the loop.
    async fn handle(&mut self, event: Event) -> bool {
        match event {
            Event::Source(found) => self.host.source_update(found),
            Event::Lane(event) => self.host.lane(event),
            Event::Cycle => {}
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

    /// Lets steps under way come to their end, within bounds: containers go on running.
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
