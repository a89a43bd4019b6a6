//! Pure: converts the engine's data about a container into an observation.

use bollard::models::{
    ContainerInspectResponse, ContainerState as EngineState, ContainerStateStatusEnum as Status,
    ContainerSummary, ContainerSummaryStateEnum as Listed,
};
use jiff::Timestamp;
use reconciler::{
    name::{ImageId, Installation},
    observed::{ContainerState, ObservedContainer},
};

use super::from_labels;
use crate::{
    labels::{Labels, LabelsError},
    translate::labels_or_none,
};

/// The observation from a full inspection, without the termination message.
pub(crate) fn from_inspect(
    found: ContainerInspectResponse,
    installation: &Installation,
) -> Result<(Labels, ObservedContainer), LabelsError> {
    let labels = Labels::read(
        &labels_or_none(found.config.and_then(|config| config.labels)),
        installation,
    )?;
    let image = ImageId::new(found.image.unwrap_or_default());
    let observed = from_labels(
        labels.clone(),
        image,
        state(&found.state.unwrap_or_default()),
    );
    Ok((labels, observed))
}

/// The observation from an entry of the list, which has no times and no exit code: it is enough for
/// a container whose inspection gets no response.
pub(super) fn from_summary(
    found: &ContainerSummary,
    installation: &Installation,
) -> Result<ObservedContainer, LabelsError> {
    let labels = Labels::read(&labels_or_none(found.labels.clone()), installation)?;
    let image = ImageId::new(found.image_id.clone().unwrap_or_default());
    let created = found
        .created
        .and_then(|seconds| Timestamp::from_second(seconds).ok());
    let started = created.unwrap_or(Timestamp::UNIX_EPOCH);
    let state = match found.state {
        Some(Listed::CREATED) => ContainerState::Created,
        Some(Listed::RUNNING | Listed::RESTARTING | Listed::STOPPING) => {
            ContainerState::Running { started }
        }
        Some(Listed::PAUSED) => ContainerState::Paused { started },
        // The list has no exit code, so what has exited cannot be told from what is dead.
        Some(Listed::EXITED | Listed::REMOVING | Listed::DEAD | Listed::EMPTY) | None => {
            ContainerState::Dead
        }
    };
    Ok(from_labels(labels, image, state))
}

fn state(state: &EngineState) -> ContainerState {
    let started = time(state.started_at.as_deref());
    match state.status {
        Some(Status::CREATED) => ContainerState::Created,
        Some(Status::PAUSED) => ContainerState::Paused { started },
        Some(Status::RUNNING | Status::RESTARTING | Status::STOPPING) => {
            ContainerState::Running { started }
        }
        Some(Status::EXITED) => ContainerState::Exited {
            started,
            finished: time(state.finished_at.as_deref()),
            code: state.exit_code.unwrap_or(-1),
            oom: state.oom_killed.unwrap_or(false),
            message: String::new(),
        },
        Some(Status::REMOVING | Status::DEAD | Status::EMPTY) | None => ContainerState::Dead,
    }
}

/// A time of the engine (RFC 3339); the epoch where it is missing or wrong.
fn time(text: Option<&str>) -> Timestamp {
    text.and_then(|text| text.parse().ok())
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_container_keeps_its_times_code_and_oom_mark() {
        let found = EngineState {
            status: Some(Status::EXITED),
            exit_code: Some(137),
            oom_killed: Some(true),
            started_at: Some("2026-01-02T03:04:05.123456789Z".to_owned()),
            finished_at: Some("2026-01-02T03:04:06Z".to_owned()),
            ..EngineState::default()
        };
        assert_eq!(
            state(&found),
            ContainerState::Exited {
                started: time(Some("2026-01-02T03:04:05.123456789Z")),
                finished: time(Some("2026-01-02T03:04:06Z")),
                code: 137,
                oom: true,
                message: String::new(),
            }
        );
    }

    #[test]
    fn a_container_that_never_started_is_created_whatever_its_exit_code() {
        let found = EngineState {
            status: Some(Status::CREATED),
            exit_code: Some(127),
            ..EngineState::default()
        };
        assert_eq!(state(&found), ContainerState::Created);
    }
}
