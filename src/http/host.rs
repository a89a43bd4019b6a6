//! What is shown of this host as `status.nodeInfo` of its Node.

use std::fs;

/// Read once at start.
#[derive(Clone, Debug, Default)]
pub struct HostFacts {
    /// `kernelVersion`.
    pub kernel: String,
    /// `osImage`.
    pub os: String,
    /// `containerRuntimeVersion`, like `docker://20.10.24`; empty until the engine has said it.
    pub engine: String,
}

impl HostFacts {
    /// Reads what the host's files say; what cannot be read stays empty.
    pub fn read(engine_version: Option<&str>) -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let engine = engine_version.map(|version| format!("docker://{version}")).unwrap_or_default();
        Self { kernel, os: pretty_name(&release), engine }
    }
}

/// `PRETTY_NAME` of os-release(5).
fn pretty_name(release: &str) -> String {
    let value = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    value.unwrap_or_default().trim_matches('"').to_owned()
}

/// Kubernetes' word for this machine's architecture.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pretty_name_is_unquoted() {
        assert_eq!(pretty_name("NAME=x\nPRETTY_NAME=\"Debian 12\"\n"), "Debian 12");
        assert_eq!(pretty_name(""), "");
    }
}
