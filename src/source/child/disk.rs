//! The bound on what a child writes in all: its limits bound each file, and not their number.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{StatVfs, statvfs};

use super::FetchLimits;

/// How often the disk is looked at.
const INTERVAL: Duration = Duration::from_millis(200);
/// A child ends when less of its disk is free and it may have used the rest.
const LEAST_FREE_PERCENT: u64 = 10;
const MIB: u64 = 1 << 20;

/// The disk of a child's work directory. Other processes write to it too, so the child counts as
/// the cause only if more is gone than its work needs, and only matters if little is left.
#[derive(Debug)]
pub(super) struct DiskBound {
    directory: PathBuf,
    /// The free bytes at the start; `None` if they could not be read.
    free: Option<u64>,
    allowance: u64,
    least_free_percent: u64,
}

impl DiskBound {
    pub(super) fn new(directory: &Path, limits: &FetchLimits) -> Self {
        Self {
            directory: directory.to_owned(),
            free: statvfs(directory).ok().map(|disk| free(&disk)),
            // A pack and its index while both are written a second time.
            allowance: limits.received_bytes.saturating_mul(4),
            least_free_percent: LEAST_FREE_PERCENT,
        }
    }

    /// Ends when the child must end, with the reason.
    pub(super) async fn exceeded(&self) -> String {
        loop {
            tokio::time::sleep(INTERVAL).await;
            if let Some(why) = self.look() {
                return why;
            }
        }
    }

    fn look(&self) -> Option<String> {
        let disk = statvfs(&self.directory).ok()?;
        let (all, left) = (disk.f_blocks.saturating_mul(disk.f_frsize), free(&disk));
        let used = self.free?.saturating_sub(left);
        let least = all / 100 * self.least_free_percent;
        (used > self.allowance && left < least).then(|| {
            format!(
                "the disk is running full: {} MiB are gone since the fetch began, and {} MiB are left",
                used / MIB,
                left / MIB
            )
        })
    }
}

fn free(disk: &StatVfs) -> u64 {
    disk.f_bavail.saturating_mul(disk.f_frsize)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]

    use std::fs::{self, File};

    use super::*;

    #[test]
    fn what_a_child_writes_counts_once_little_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let limits = FetchLimits {
            received_bytes: MIB,
            ..FetchLimits::default()
        };
        let with_room = DiskBound {
            least_free_percent: 0,
            ..DiskBound::new(directory.path(), &limits)
        };
        let nearly_full = DiskBound {
            least_free_percent: 100,
            ..DiskBound::new(directory.path(), &limits)
        };
        assert_eq!(nearly_full.look(), None);
        // More than other tests give back meanwhile.
        for name in 0..16 {
            let path = directory.path().join(name.to_string());
            fs::write(&path, vec![1; 4 << 20]).unwrap();
            File::open(&path).unwrap().sync_all().unwrap();
        }
        let why = nearly_full.look().unwrap();
        assert!(why.starts_with("the disk is running full: "), "{why}");
        assert_eq!(with_room.look(), None);
    }
}
