//! What `windlass doctor` reports about the engine.

use std::{fs, path::PathBuf};

use reconciler::fault::Fault;

use crate::runtime::Runtime;

/// The engine and its host, as the engine reports them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineInfo {
    /// Version of the engine: `20.10.24`.
    pub version: String,
    /// The negotiated API version: `1.41`.
    pub api_version: String,
    /// Whether containers outlive a restart of the engine (`live-restore`).
    pub live_restore: bool,
    /// The storage driver: `overlay2`, `fuse-overlayfs`, ...
    pub storage_driver: String,
    /// The logging driver: `json-file`, `journald`, ...
    pub log_driver: String,
    /// The cgroup driver: `cgroupfs` or `systemd`.
    pub cgroup_driver: String,
    /// The cgroup version: `1` or `2`.
    pub cgroup_version: String,
    /// The directory of images and containers.
    pub root: PathBuf,
    /// How full the disk of that directory is, in per cent; `None` where it cannot be read.
    pub disk_used_percent: Option<u8>,
    /// The engine's own warnings.
    pub warnings: Vec<String>,
}

impl Runtime {
    /// Requests the engine's version and information.
    pub async fn engine_info(&self) -> Result<EngineInfo, Fault> {
        let what = "cannot ask the engine what it is";
        let info = self
            .engine()
            .call(|docker| async move { docker.info().await })
            .await
            .map_err(|error| error.into_fault(what))?;
        let client = self.engine().client().await;
        let api_version = client
            .map_err(|error| error.into_fault(what))?
            .client_version();

        let root = PathBuf::from(info.docker_root_dir.unwrap_or_default());
        Ok(EngineInfo {
            version: info.server_version.unwrap_or_default(),
            api_version: api_version.to_string(),
            live_restore: info.live_restore_enabled.unwrap_or(false),
            storage_driver: info.driver.unwrap_or_default(),
            log_driver: info.logging_driver.unwrap_or_default(),
            cgroup_driver: info
                .cgroup_driver
                .map(|driver| driver.to_string())
                .unwrap_or_default(),
            cgroup_version: info
                .cgroup_version
                .map(|version| version.to_string())
                .unwrap_or_default(),
            disk_used_percent: disk_used_percent(&root),
            root,
            warnings: info.warnings.unwrap_or_default(),
        })
    }
}

/// How full the disk of a path is, in per cent as `df` counts: what only root may use is neither
/// used nor free.
pub(crate) fn disk_used_percent(path: &std::path::Path) -> Option<u8> {
    fs::metadata(path).ok()?;
    let disk = rustix::fs::statvfs(path).ok()?;
    let used = disk.f_blocks.checked_sub(disk.f_bfree)?;
    let all = used + disk.f_bavail;
    u8::try_from((used * 100).checked_div(all)?).ok()
}
