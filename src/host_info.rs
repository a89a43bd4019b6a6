//! The facts about this host that `status.nodeInfo` of its Node shows.

use std::fs;

use reconciler::{foreign::ForeignText, state::NodeSystem};

/// Reads the facts from the host's files; facts that cannot be read stay empty. The other fields
/// (the time of installation, the number of pods) are filled in by the caller.
pub(crate) fn read(engine_version: Option<&str>) -> NodeSystem {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")
        .unwrap_or_default()
        .trim()
        .to_owned();
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    NodeSystem {
        kernel,
        os: ForeignText::new(&pretty_name(&release)).into(),
        engine: engine_version
            .map(|version| format!("docker://{}", ForeignText::new(version)))
            .unwrap_or_default(),
        architecture: architecture().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cpus: std::thread::available_parallelism().map_or(0, usize::from),
        installed: None,
        max_pods: 0,
        memory_kib: total_memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
    }
}

/// `PRETTY_NAME` of os-release(5).
fn pretty_name(release: &str) -> String {
    let value = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    value.unwrap_or_default().trim_matches('"').to_owned()
}

/// `MemTotal` of proc_meminfo(5) in bytes; 0 if it is missing.
fn total_memory(meminfo: &str) -> u64 {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}

/// Kubernetes' name for this machine's architecture.
pub(crate) fn architecture() -> &'static str {
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
        assert_eq!(
            pretty_name("NAME=x\nPRETTY_NAME=\"Debian 12\"\n"),
            "Debian 12"
        );
        assert_eq!(pretty_name(""), "");
    }

    #[test]
    fn memory_is_read_in_kibibytes() {
        assert_eq!(
            total_memory("MemTotal:       24576000 kB\nMemFree: 1 kB\n"),
            24_576_000
        );
    }
}
