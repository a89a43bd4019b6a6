//! Requests to the engine: the list of containers, and the inspection of each container.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Weak,
    time::Duration,
};

use bollard::{
    models::ContainerSummary,
    query_parameters::{ListContainersOptionsBuilder, ListImagesOptionsBuilder},
};
use jiff::Timestamp;
use reconciler::{
    name::{ContainerId, ImageId},
    observed::{ContainerState, ObservedContainer},
};

use super::tail::{as_message, tail};
use super::{Observer, inspect};
use crate::{
    docker::CallError,
    labels::{Labels, LabelsError, installation_filter},
};

/// The deadline of one inspection. The engine may hang on one container, which must not delay the
/// inspection of the others for long.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The interval after which a hanging container is inspected again, apart from all others.
const INSPECT_RETRY: Duration = Duration::from_secs(5);

/// The result of the inspection of one container.
pub(super) enum RoundResult {
    Found(ObservedContainer),
    /// It does not exist, or is not this installation's.
    Gone,
    /// This version cannot read its labels; holds the error.
    LeftAlone(String),
    /// The engine did not respond in time; holds the observation from the list, if the container
    /// was listed.
    Hangs(Option<ObservedContainer>),
}

impl Observer {
    pub(super) async fn inspect_once(
        &self,
        id: &ContainerId,
        summary: Option<&ContainerSummary>,
    ) -> Result<RoundResult, CallError> {
        let listed = summary.map(|summary| inspect::from_summary(summary, &self.installation));
        match listed {
            // For a container that was never started, the list is complete.
            Some(Ok(observed)) if observed.state == ContainerState::Created => {
                return Ok(RoundResult::Found(observed));
            }
            Some(Err(LabelsError::Foreign)) => return Ok(RoundResult::Gone),
            Some(Err(error)) => return Ok(RoundResult::LeftAlone(error.to_string())),
            Some(Ok(_)) | None => {}
        }

        let limit = INSPECT_TIMEOUT.min(self.engine.call_timeout);
        let inspected = self
            .engine
            .call_within(limit, |docker| async move {
                docker.inspect_container(id.as_str(), None).await
            })
            .await;
        match inspected {
            Ok(found) => Ok(match inspect::from_inspect(found, &self.installation) {
                Ok((labels, observed)) => {
                    RoundResult::Found(self.with_message(id, &labels, observed).await)
                }
                Err(LabelsError::Foreign) => RoundResult::Gone,
                Err(error) => RoundResult::LeftAlone(error.to_string()),
            }),
            Err(error) if error.is_not_found() => Ok(RoundResult::Gone),
            Err(CallError::TimedOut(_)) => Ok(RoundResult::Hangs(listed.and_then(Result::ok))),
            // A container that the engine fails to inspect does not hide the others.
            Err(CallError::Refused { .. } | CallError::Garbled(_)) => {
                Ok(RoundResult::Hangs(listed.and_then(Result::ok)))
            }
            Err(error) => Err(error),
        }
    }

    /// Adds the termination message to the observation of a container that has ended.
    async fn with_message(
        &self,
        id: &ContainerId,
        labels: &Labels,
        mut observed: ObservedContainer,
    ) -> ObservedContainer {
        let ContainerState::Exited { code, message, .. } = &mut observed.state else {
            return observed;
        };
        let (pods, of) = (self.pods_dir.clone(), labels.clone());
        *message =
            tokio::task::spawn_blocking(move || crate::volume::termination_message(&pods, &of))
                .await
                .unwrap_or_default();
        // `FallbackToLogsOnError` of Kubernetes.
        if message.is_empty() && *code != 0 && labels.message_from_logs {
            let end = tail(&self.engine, id).await;
            *message = as_message(&end.unwrap_or_default());
        }
        observed
    }

    pub(super) async fn list(&self) -> Result<BTreeMap<ContainerId, ContainerSummary>, CallError> {
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&installation_filter(&self.installation))
            .build();
        let found = self
            .engine
            .call(|docker| async move { docker.list_containers(Some(options)).await })
            .await?;
        Ok(found
            .into_iter()
            .filter_map(|summary| Some((ContainerId::new(summary.id.clone()?), summary)))
            .collect())
    }

    pub(super) async fn images(&self) -> Result<BTreeSet<ImageId>, CallError> {
        // All images, because an image that lost its tag to another build can still be run by its
        // id.
        let options = ListImagesOptionsBuilder::new().all(true).build();
        let found = self
            .engine
            .call(|docker| async move { docker.list_images(Some(options)).await })
            .await?;
        Ok(found
            .into_iter()
            .map(|image| ImageId::new(image.id))
            .collect())
    }
}

/// Inspects a container on which the engine hangs, until the engine responds or the container is
/// not needed any more.
pub(super) async fn until_it_answers(observer: Weak<Observer>, id: ContainerId) {
    loop {
        tokio::time::sleep(INSPECT_RETRY).await;
        let Some(observer) = observer.upgrade() else {
            return;
        };
        let seen = Timestamp::now();
        let Ok(look) = observer.inspect_once(&id, None).await else {
            continue;
        };

        if !matches!(look, RoundResult::Hangs(_)) {
            observer.cache().hanging.remove(&id);
            observer.remember(id, seen, look);
            return observer.notify();
        }
    }
}
