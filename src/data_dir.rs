//! The data directory belongs to one process at a time, whatever sockets it listens on.

use std::{
    fs::{DirBuilder, File, Permissions},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
};

use anyhow::{Context, Result, bail};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

const LOCK_FILE: &str = "lock";

/// The data directory, held against others; let go when dropped, and by the kernel when the process is killed.
#[derive(Debug)]
pub(crate) struct DataDir {
    _lock: File,
}

impl DataDir {
    /// Makes the directory where it is missing, and takes it; fails if another process has it.
    pub(crate) fn take(path: &Path) -> Result<Self> {
        // What others could see of the world through our files is theirs by the manifests, not by this directory.
        let mode = 0o711;
        DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(path)
            .with_context(|| format!("make the data directory {}", path.display()))?;
        std::fs::set_permissions(path, Permissions::from_mode(mode))
            .with_context(|| format!("set the mode of {}", path.display()))?;
        let file = path.join(LOCK_FILE);
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&file)
            .with_context(|| format!("open {}", file.display()))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _lock: lock }),
            Err(Errno::WOULDBLOCK) => bail!(
                "another windlass uses the data directory {}: stop it first, or give this one another --data-dir",
                path.display()
            ),
            Err(error) => Err(error).with_context(|| format!("lock {}", file.display())),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_is_one_processs() {
        let parent = tempfile::tempdir().unwrap();
        let data = parent.path().join("data");
        let first = DataDir::take(&data).unwrap();
        let message = DataDir::take(&data).unwrap_err().to_string();
        assert!(message.starts_with("another windlass uses the data directory"), "{message}");
        drop(first);
        drop(DataDir::take(&data).unwrap());
    }
}
