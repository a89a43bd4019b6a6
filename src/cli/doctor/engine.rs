//! The container engine, asked over its socket.

use std::{path::Path, time::Duration};

use serde_json::Value;

use super::Finding;

/// The oldest API that has everything: Docker 20.10.
const OLDEST: (u32, u32) = (1, 41);

/// Whether it answers, which one it is, and whether it keeps containers running while it is
/// restarted itself.
pub(super) async fn examine(socket: &Path) -> Vec<Finding> {
    let advice = format!(
        "start Docker, or name its socket with --docker (tried {})",
        socket.display()
    );
    let version = match ask(socket, "/version").await {
        Ok(version) => version,
        Err(why) => return vec![Finding::fail("engine", why, advice)],
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
        Err(why) => {
            return vec![
                engine,
                Finding::warn("live-restore", why, "look at the engine's log"),
            ];
        }
    };
    let live = match info["LiveRestoreEnabled"].as_bool() {
        Some(true) => Finding::ok("live-restore", "pods outlive a restart of the engine"),
        _ => Finding::warn(
            "live-restore",
            "off: a restart of the engine stops every pod",
            "set \"live-restore\": true in /etc/docker/daemon.json and reload the engine",
        ),
    };
    vec![engine, live]
}

async fn ask(socket: &Path, path: &str) -> Result<Value, String> {
    let wrong =
        |error: reqwest::Error| format!("{} does not answer ({})", socket.display(), cause(&error));
    let builder = reqwest::Client::builder()
        .unix_socket(socket)
        .no_proxy()
        .timeout(Duration::from_secs(10));
    let client = builder.build().map_err(wrong)?;
    let response = client
        .get(format!("http://engine{path}"))
        .send()
        .await
        .map_err(wrong)?;
    response.json().await.map_err(wrong)
}

/// The innermost error, which is the one that says something.
fn cause(error: &reqwest::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}

fn parse(api: &str) -> Option<(u32, u32)> {
    let (major, minor) = api.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_versions_are_compared_as_numbers() {
        assert!(parse("1.51") >= Some(OLDEST));
        assert!(parse("1.9") < Some(OLDEST));
        assert_eq!(parse("new"), None);
    }
}
