//! The logging driver that the engine gives to containers which request none.

use bollard::{Docker, errors::Error};

/// The kind of the engine's default driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogDriver {
    /// `json-file` or `local`: files on the engine's disk. Those of json-file, the default of
    /// Docker, have no bound.
    Files,
    /// Another driver, such as `journald`: somebody has chosen it for all containers of the host.
    Chosen,
}

impl LogDriver {
    /// Asks the engine.
    pub(super) async fn of(docker: &Docker) -> Result<Self, Error> {
        let name = docker.info().await?.logging_driver;
        Ok(match name.as_deref() {
            Some("json-file" | "local") => Self::Files,
            _ => Self::Chosen,
        })
    }
}
