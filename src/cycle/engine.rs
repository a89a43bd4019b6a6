//! What the container engine lists: observed again in each cycle, and remembered for the time in
//! which the engine does not answer.

use std::time::Duration;

use jiff::Timestamp;
use netfilter::NetworkError;
use reconciler::{
    fault::Fault, foreign::ForeignText, observed::Observed, plan::Next, state::Preparation,
};
use thiserror::Error;

use super::{Host, leader::Led};
use crate::view::Part;

/// Why this host could not be observed.
#[derive(Debug, Error)]
pub(super) enum ObservationError {
    /// The container engine did not list its containers and images.
    #[error("{}", .0.message)]
    Engine(Fault),
    /// The kernel did not list the links of pods.
    #[error(transparent)]
    Links(NetworkError),
}

/// What this host knows of the engine.
#[derive(Debug, Default)]
pub(super) struct EngineMemory {
    /// The last complete observation.
    pub(super) last: Option<Observed>,
    /// Why this host takes no pods: the engine does not answer.
    pub(super) unready: Option<ForeignText>,
}

impl Host {
    /// Observes the containers, images and links, with the results of lanes and probes.
    pub(super) async fn observe(&mut self) -> Result<Observed, ObservationError> {
        let observation = self.parts.runtime.observe().await;
        let observation = observation.map_err(ObservationError::Engine)?;
        self.troubles.clear(Part::Engine);

        let links = self.parts.network.links().await;
        let links = links.map_err(ObservationError::Links)?;

        Ok(Observed {
            containers: observation.containers,
            images: observation.images,
            links,
            files: self.memory.files.clone(),
            hooked: self.memory.hooked().clone(),
            probes: self.parts.prober.facts(),
            lanes: self.parts.lanes.running(),
            stopping: self.parts.lanes.stopping(),
            failures: self.parts.lanes.failures().clone(),
        })
    }

    /// A cycle without the engine. No container is started or stopped; the pods of this host and of
    /// other hosts receive traffic as before, since the engines of other hosts may work.
    pub(super) async fn reconcile_without_engine(
        &mut self,
        now: Timestamp,
        why: &ForeignText,
    ) -> Next {
        // Before the first plan this host does not know its pods, so the last report about them
        // still holds.
        let Some(last) = self.engine.last.take() else {
            return match self.lead(now).await {
                Led::Rest(next) | Led::Failed(next) => next,
                Led::Decided => Next::After(Duration::ZERO),
            };
        };
        let observed = Observed {
            probes: self.parts.prober.facts(),
            lanes: self.parts.lanes.running(),
            stopping: self.parts.lanes.stopping(),
            failures: self.parts.lanes.failures().clone(),
            ..last
        };

        let (mut plan, next) = self.decide(now, &observed).await;
        self.engine.last = Some(observed);
        plan.lanes.clear();
        plan.cancel.clear();
        for preparation in self.reporter.report.prepared.values_mut() {
            if matches!(preparation, Preparation::Pulling { .. }) {
                *preparation = Preparation::Waiting(why.clone());
            }
        }
        self.publish_report();
        self.memory.save_if_changed(&mut self.troubles).await;

        // This plan has no lanes although there may be work, so it must not count as converged.
        let converged = self.reporter.converged;
        let acted = self.act(plan).await;
        self.reporter.converged = converged;
        next.sooner(acted)
    }
}
