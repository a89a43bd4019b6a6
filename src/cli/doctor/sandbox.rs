//! The checks of the sandbox in which a remote's data is read.

use super::Finding;
use crate::source::sandbox::{UserIds, landlock_version};

/// The first version that restricts TCP ports (Linux 6.7).
const PORTS: u32 = 4;

/// Checks that the host has a user for fetches.
pub(super) fn user(user: &anyhow::Result<Option<UserIds>>) -> Finding {
    match user {
        Err(error) => Finding::fail(
            "fetch user",
            format!("{error:#}"),
            "correct [source] fetch-user",
        ),
        Ok(Some(user)) => Finding::ok("fetch user", format!("user {}", user.uid)),
        Ok(None) => Finding::warn(
            "fetch user",
            "none: what a remote sends is read by root without capabilities",
            "useradd --system --user-group --no-create-home --shell /usr/sbin/nologin windlass-fetch",
        ),
    }
}

/// Checks that the kernel restricts the files and ports of a process.
pub(super) fn landlock() -> Finding {
    match landlock_version() {
        Some(version) if version >= PORTS => Finding::ok("landlock", format!("version {version}")),
        Some(version) => Finding::warn(
            "landlock",
            format!("version {version}: a fetch can connect to any port"),
            "Linux 6.7 or newer restricts ports",
        ),
        None => Finding::warn(
            "landlock",
            "not in this kernel: the files of a fetch are restricted by its user alone",
            "use Linux 5.13 or newer, with landlock in the kernel's parameter lsm=",
        ),
    }
}
