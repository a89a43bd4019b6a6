//! The data directory belongs to one process at a time, whatever sockets the process listens on,
//! and to no other user.

use std::{
    fmt,
    fs::{self, DirBuilder, File, Permissions},
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::Path,
};

use anyhow::{Context, Result, bail};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

const LOCK_FILE: &str = "lock";
/// The directory of the pods' files. An engine with user namespaces mounts files here as another
/// user, who must pass. No other user may list it, and each pod's directory is closed.
const PODS: &str = "pods";
/// Other users may pass through and read nothing.
const PASSAGE: u32 = 0o711;

/// The data directory with its locks; they are released when the value is dropped, and by the
/// kernel when the process is killed.
#[derive(Debug)]
pub(crate) struct DataDir {
    /// `None` if another user's process has locked the directory itself.
    _directory: Option<File>,
    _lock: File,
}

impl DataDir {
    /// Makes the directory if it is missing, closes it to other users, and locks it; fails if
    /// another process has locked it.
    pub(crate) fn take(path: &Path) -> Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(PASSAGE)
            .create(path)
            .with_context(|| format!("make the data directory {}", path.display()))?;
        set_mode(path, PASSAGE)?;

        // Older versions lock only the file, and left it readable for all users: a user who can
        // read a file can lock it. No other user can open the directory, so this lock decides among
        // processes of this version.
        let directory = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let directory = match try_lock(&directory, path)? {
            Lock::Taken => Some(directory),
            Lock::Strangers(strangers) => {
                tracing::warn!(%strangers, "{} is locked by another user, who opened it when that was allowed", path.display());
                None
            }
        };

        close_to_others(path)?;
        let file = path.join(LOCK_FILE);
        let lock = open_lock(&file)?;
        if let Lock::Strangers(strangers) = try_lock(&lock, path)? {
            tracing::warn!(%strangers, "{} was locked by another user: it is replaced", file.display());
            fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
            let lock = open_lock(&file)?;
            return match try_lock(&lock, path)? {
                Lock::Taken => Ok(Self {
                    _directory: directory,
                    _lock: lock,
                }),
                Lock::Strangers(strangers) => {
                    bail!("{} is locked by {strangers}: end it", file.display())
                }
            };
        }
        Ok(Self {
            _directory: directory,
            _lock: lock,
        })
    }
}

/// Opens a file that is only used as a lock; mode 0600, also if it exists: a user who can open a
/// file can lock it.
pub(crate) fn open_lock(path: &Path) -> Result<File> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    file.set_permissions(Permissions::from_mode(0o600))
        .with_context(|| format!("set the mode of {}", path.display()))?;
    Ok(file)
}

/// The result of locking a file.
enum Lock {
    Taken,
    /// Only processes of other users have the file open: none of them can be a daemon.
    Strangers(Holders),
}

/// Locks a file of the data directory `data`; an error if a process of this user has locked it.
fn try_lock(file: &File, data: &Path) -> Result<Lock> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => return Ok(Lock::Taken),
        Err(Errno::WOULDBLOCK) => {}
        Err(error) => return Err(error).with_context(|| format!("lock {}", data.display())),
    }

    let holders = holders(file);
    let own = rustix::process::geteuid().as_raw();
    // If no process is listed, the holder of the lock may be in another PID namespace.
    if !holders.0.is_empty() && holders.0.iter().all(|holder| holder.uid != own) {
        return Ok(Lock::Strangers(holders));
    }
    bail!(
        "another windlass uses the data directory {}: {holders} has it open; stop it first, or give this one \
         another --data-dir",
        data.display()
    )
}

/// A process that has a file open.
#[derive(Debug)]
struct Holder {
    pid: String,
    uid: u32,
    name: String,
}

/// The processes that have a file open, as far as `/proc` shows them.
#[derive(Debug)]
struct Holders(Vec<Holder>);

impl fmt::Display for Holders {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self
            .0
            .iter()
            .map(|Holder { pid, uid, name }| {
                format!("process {pid} ({} of user {uid})", name.escape_debug())
            })
            .collect();
        if words.is_empty() {
            return formatter.write_str("a process that cannot be found");
        }
        formatter.write_str(&words.join(", "))
    }
}

/// Searches `/proc`. `/proc/locks` names the process that took a lock, which may have ended while
/// its child process holds the lock.
fn holders(file: &File) -> Holders {
    let Ok(wanted) = file.metadata() else {
        return Holders(Vec::new());
    };
    let ours = (std::process::id().to_string(), file.as_raw_fd().to_string());
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let holders = processes.filter_map(|process| {
        // proc(5): beside the directories of processes there are `self` and files.
        let pid = process.file_name().into_string().ok()?;
        pid.parse::<u32>().ok()?;

        let descriptors = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        let has_it = descriptors
            .filter(|descriptor| {
                (pid.as_str(), descriptor.file_name().as_os_str()) != (&ours.0, ours.1.as_ref())
            })
            .filter_map(|descriptor| fs::metadata(descriptor.path()).ok())
            .any(|open| (open.dev(), open.ino()) == (wanted.dev(), wanted.ino()));
        if !has_it {
            return None;
        }

        let uid = process.metadata().ok()?.uid();
        let name = fs::read_to_string(process.path().join("comm"))
            .unwrap_or_default()
            .trim()
            .to_owned();
        Some(Holder { pid, uid, name })
    });
    Holders(holders.collect())
}

/// Removes the permissions that earlier versions, or a umask, gave other users on these files.
fn close_to_others(data: &Path) -> Result<()> {
    let entries = fs::read_dir(data).with_context(|| format!("list {}", data.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("list {}", data.display()))?;
        let metadata = entry
            .metadata()
            .with_context(|| format!("read the mode of {}", entry.path().display()))?;
        // The mode of a symbolic link has no effect, and its target is not in this directory.
        if metadata.is_symlink() {
            continue;
        }

        let mode = metadata.permissions().mode() & 0o7777;
        let allowed = if entry.file_name() == PODS {
            PASSAGE
        } else {
            0o700
        };
        if mode & 0o077 & !allowed != 0 {
            set_mode(&entry.path(), mode & allowed)?;
        }
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .with_context(|| format!("set the mode of {}", path.display()))
}

/// What another user may list, read or write of a data directory.
#[cfg(test)]
fn open_to_others(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut open = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(path) = pending.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        let mode = metadata.permissions().mode();
        if !metadata.is_symlink() && mode & 0o006 != 0 {
            open.push(path.clone());
        }
        // A user who cannot pass a directory reaches nothing below it.
        if metadata.is_dir() && mode & 0o001 != 0 {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            pending.extend(entries.map(|entry| entry.path()));
        }
    }
    open
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::{
        os::unix::process::CommandExt,
        process::{Child, Command},
        time::{Duration, Instant},
    };

    use super::*;

    /// The uid of the user `nobody`.
    const STRANGER: u32 = 65534;

    /// A directory that every user may pass.
    fn passable() -> tempfile::TempDir {
        let parent = tempfile::tempdir().unwrap();
        set_mode(parent.path(), 0o755).unwrap();
        parent
    }

    /// A program of another user that holds a lock until it is killed.
    struct Stranger(Child);

    impl Stranger {
        fn locks(path: &Path) -> Self {
            let mut command = Command::new("flock");
            command
                .arg("--exclusive")
                .arg(path)
                .args(["sleep", "300"])
                .uid(STRANGER)
                .process_group(0);
            Self(command.spawn().expect("flock is in Debian's util-linux"))
        }
    }

    impl Drop for Stranger {
        fn drop(&mut self) {
            // `flock` runs `sleep` in its own group: both end.
            let group = i32::try_from(self.0.id())
                .ok()
                .and_then(rustix::process::Pid::from_raw);
            if let Some(group) = group {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_data_directory_belongs_to_one_process() {
        let parent = tempfile::tempdir().unwrap();
        let data = parent.path().join("data");
        let first = DataDir::take(&data).unwrap();
        let message = DataDir::take(&data).unwrap_err().to_string();
        assert!(
            message.starts_with("another windlass uses the data directory"),
            "{message}"
        );
        assert!(
            message.contains(&format!("process {}", std::process::id())),
            "{message}"
        );
        drop(first);
        drop(DataDir::take(&data).unwrap());
    }

    #[test]
    fn a_daemon_of_an_older_version_is_detected_by_its_lock_on_the_file() {
        let parent = tempfile::tempdir().unwrap();
        let older = File::create(parent.path().join(LOCK_FILE)).unwrap();
        flock(&older, FlockOperation::NonBlockingLockExclusive).unwrap();
        let message = DataDir::take(parent.path()).unwrap_err().to_string();
        assert!(
            message.starts_with("another windlass uses the data directory"),
            "{message}"
        );
    }

    #[test]
    fn another_user_cannot_keep_the_daemon_from_starting() {
        let parent = passable();
        let data = parent.path().join("data");
        drop(DataDir::take(&data).unwrap());
        // The state that an older version left.
        let lock = data.join(LOCK_FILE);
        set_mode(&lock, 0o644).unwrap();
        let stranger = Stranger::locks(&lock);
        let probe = File::open(&lock).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while flock(&probe, FlockOperation::NonBlockingLockExclusive).is_ok() {
            flock(&probe, FlockOperation::Unlock).unwrap();
            assert!(Instant::now() < deadline, "the other user takes the lock");
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(probe);

        let ours = DataDir::take(&data).expect("the other user's lock is passed over");
        assert!(
            DataDir::take(&data).is_err(),
            "it is held against our own processes"
        );
        let mut late = Command::new("flock");
        late.arg("--nonblock").arg(&lock).arg("true").uid(STRANGER);
        assert!(
            !late.status().unwrap().success(),
            "another user cannot open the new file"
        );
        drop(stranger);
        drop(ours);
    }

    #[test]
    fn nothing_in_the_data_directory_is_open_to_others() {
        let parent = tempfile::tempdir().unwrap();
        let data = parent.path().join("data");
        for directory in ["mirror.git/objects", "trust", "pods/uid", "peer"] {
            fs::create_dir_all(data.join(directory)).unwrap();
        }
        for file in [
            "lock",
            "mirror.git.lock",
            "network.json",
            "mirror.git/config",
            "peer/lock",
        ] {
            fs::write(data.join(file), "").unwrap();
            set_mode(&data.join(file), 0o644).unwrap();
        }
        set_mode(&data.join("pods/uid"), 0o750).unwrap();
        assert!(
            open_to_others(&data).len() > 5,
            "as an older version left it"
        );
        let _ours = DataDir::take(&data).unwrap();
        assert_eq!(open_to_others(&data), Vec::<std::path::PathBuf>::new());
    }
}
