//! The checks of the container engine, over its socket.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use runtime::LogBounds;
use serde_json::Value;
use thiserror::Error;

use super::Finding;

/// The engine did not answer a request at its socket.
#[derive(Debug, Error)]
#[error("{} does not answer ({})", socket.display(), innermost(error))]
struct EngineSilent {
    socket: PathBuf,
    error: reqwest::Error,
}

/// The oldest supported version of the API, that of Docker 20.10.
const OLDEST: (u32, u32) = (1, 41);

/// Checks that the engine answers, its version, whether containers keep running while it is
/// restarted (`live-restore`), and what bounds the logs of containers.
pub(super) async fn examine(socket: &Path, logs: LogBounds) -> Vec<Finding> {
    let advice = format!(
        "start Docker, or configure its socket with --docker (tried {})",
        socket.display()
    );
    let version = match ask(socket, "/version").await {
        Ok(version) => version,
        Err(error) => return vec![Finding::fail("engine", error.to_string(), advice)],
    };

    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or("unknown").to_owned();
    let api = text(&version, "ApiVersion");
    let found = format!("Docker {}, API {api}", text(&version, "Version"));
    let engine = match parse(&api) {
        Some(api) if api >= OLDEST => Finding::ok("engine", found),
        _ => Finding::fail(
            "engine",
            found,
            "Docker 20.10 (API 1.41) or newer is needed",
        ),
    };

    let info = match ask(socket, "/info").await {
        Ok(info) => info,
        Err(error) => {
            return vec![
                engine,
                Finding::warn("live-restore", error.to_string(), "read the engine's log"),
            ];
        }
    };
    let live = match info["LiveRestoreEnabled"].as_bool() {
        Some(true) => Finding::ok(
            "live-restore",
            "on: pods keep running while the engine restarts",
        ),
        _ => Finding::warn(
            "live-restore",
            "off: a restart of the engine stops all pods",
            "set \"live-restore\": true in /etc/docker/daemon.json and reload the engine",
        ),
    };
    vec![engine, live, log_driver(&info, logs)]
}

/// The engine's default logging driver: Windlass bounds the files of Docker's own drivers, and keeps
/// any other driver.
fn log_driver(info: &Value, bounds: LogBounds) -> Finding {
    let LogBounds {
        max_bytes,
        max_files,
    } = bounds;
    match info["LoggingDriver"].as_str() {
        Some("json-file" | "local") => Finding::ok(
            "container logs",
            format!(
                "json-file, {max_files} files of {max_bytes} bytes for each container made from now on"
            ),
        ),
        Some("none") => Finding::warn(
            "container logs",
            "none: the engine's default driver keeps no log of any container",
            "set \"log-driver\": \"json-file\" in /etc/docker/daemon.json and restart the engine",
        ),
        Some(other) => Finding::ok(
            "container logs",
            format!("{other}, the engine's default, is kept: only its own settings bound the logs"),
        ),
        None => Finding::warn(
            "container logs",
            "the engine names no default logging driver",
            "read the engine's log",
        ),
    }
}

async fn ask(socket: &Path, path: &str) -> Result<Value, EngineSilent> {
    let silent = |error: reqwest::Error| EngineSilent {
        socket: socket.to_owned(),
        error,
    };
    let builder = reqwest::Client::builder()
        .unix_socket(socket)
        .no_proxy()
        .timeout(Duration::from_secs(10));
    let client = builder.build().map_err(silent)?;
    let response = client
        .get(format!("http://engine{path}"))
        .send()
        .await
        .map_err(silent)?;
    response.json().await.map_err(silent)
}

/// The innermost cause, which is more specific than the library's own message.
fn innermost(error: &reqwest::Error) -> &dyn std::error::Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause
}

fn parse(api: &str) -> Option<(u32, u32)> {
    let (major, minor) = api.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{super::DoctorVerdict, *};

    #[test]
    fn the_default_logging_driver_is_named() {
        let finding = |driver: &str| {
            let info = serde_json::json!({ "LoggingDriver": driver });
            let Finding { verdict, found, .. } = log_driver(&info, LogBounds::default());
            (verdict, found)
        };
        let bounded = "json-file, 3 files of 10485760 bytes for each container made from now on";
        for driver in ["json-file", "local"] {
            assert_eq!(finding(driver), (DoctorVerdict::Ok, bounded.to_owned()));
        }
        let (verdict, found) = finding("journald");
        assert_eq!(verdict, DoctorVerdict::Ok);
        assert!(
            found.starts_with("journald, the engine's default, is kept"),
            "{found}"
        );
        assert_eq!(finding("none").0, DoctorVerdict::Warn);
    }

    #[test]
    fn api_versions_are_compared_as_numbers() {
        assert!(parse("1.51") >= Some(OLDEST));
        assert!(parse("1.9") < Some(OLDEST));
        assert_eq!(parse("new"), None);
    }
}
