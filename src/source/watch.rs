//! Nudges the follower when a repository on this host changes, so that a push is fetched at once.
//!
//! A ref changes by a rename into its directory, so directories are watched, never files. A nudge
//! only causes the next fetch; a lost nudge delays it until the next poll.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

use notify::{Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use thiserror::Error;
use tokio::sync::Notify;

use super::fetch::LocalRepository;

/// How often the watched directories are compared with those at their paths, in case no event
/// reported a replacement.
const RECHECK: Duration = Duration::from_secs(15);
/// A repository that is replaced more often at once is watched again at the next fetch.
const MAX_REWATCHES: usize = 10;
/// A repository with more loose refs is polled only, until its refs are packed.
const MAX_ENTRIES: usize = 10_000;

/// Why changes are not reported at once. The poll still fetches them.
#[derive(Debug, Error)]
pub(crate) enum WatchError {
    /// The kernel grants no watch, mostly because its limit of instances or watches is reached.
    #[error("watch {}; raise fs.inotify.max_user_instances or max_user_watches, or rely on polling", path.display())]
    Watch {
        path: PathBuf,
        source: notify::Error,
    },
    /// The thread for the watch could not be started.
    #[error("start the thread that watches {}", path.display())]
    Thread {
        path: PathBuf,
        source: std::io::Error,
    },
}

/// Watches one repository until the value is dropped.
#[derive(Debug)]
pub(crate) struct RefWatch {
    stop: Arc<AtomicBool>,
    wake: SyncSender<()>,
}

impl RefWatch {
    /// Starts to nudge whenever the refs of `repository` may have changed, also if the repository
    /// does not exist yet.
    pub(crate) fn start(
        repository: LocalRepository,
        nudge: Arc<Notify>,
    ) -> Result<Self, WatchError> {
        // A channel for one message: a change that finds the channel full is handled by the nudge that is about to
        // come.
        let (wake, changes) = mpsc::sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let watched = WatchedDirectories::new(&repository, &wake)?;
        let path = repository.path().to_owned();
        let follower = WatchThread {
            repository,
            watched,
            wake: wake.clone(),
            changes,
            stop: Arc::clone(&stop),
            nudge,
        };
        thread::Builder::new()
            .name("ref-watch".to_owned())
            .spawn(move || follower.run())
            .map_err(|source| WatchError::Thread { path, source })?;
        Ok(Self { stop, wake })
    }
}

impl Drop for RefWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.wake.try_send(());
    }
}

/// The thread that turns changes into nudges and keeps the watches on the right directories.
struct WatchThread {
    repository: LocalRepository,
    watched: WatchedDirectories,
    wake: SyncSender<()>,
    changes: Receiver<()>,
    stop: Arc<AtomicBool>,
    nudge: Arc<Notify>,
}

impl WatchThread {
    fn run(mut self) {
        loop {
            self.update_watches();
            let changed = self.changes.recv_timeout(RECHECK).is_ok();
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            if changed {
                self.nudge.notify_one();
            }
        }
    }

    /// Sets new watches if directories were created, removed or replaced, since the old watches
    /// report nothing of those. Nudges again afterwards, because neither watch reported the changes
    /// in between.
    fn update_watches(&mut self) {
        for _ in 0..MAX_REWATCHES {
            if self.watched.directories == directories(&self.repository) {
                return;
            }
            // If new watches fail, the next round tries again, and the poll continues.
            let Ok(fresh) = WatchedDirectories::new(&self.repository, &self.wake) else {
                return;
            };
            self.watched = fresh;
            self.nudge.notify_one();
        }
    }
}

/// A directory, its entries to watch, and its identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Directory {
    path: PathBuf,
    names: Names,
    device_and_inode: (u64, u64),
}

/// The entries of a watched directory that matter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Names {
    /// All entries below it.
    All,
    /// These entries of the directory itself.
    Only(Vec<OsString>),
}

#[derive(Debug)]
struct WatchedDirectories {
    directories: Vec<Directory>,
    // Dropping the watcher ends the watches.
    _watcher: RecommendedWatcher,
}

impl WatchedDirectories {
    fn new(repository: &LocalRepository, wake: &SyncSender<()>) -> Result<Self, WatchError> {
        let directories = directories(repository);
        let relevant = directories.clone();
        let wake = wake.clone();
        let error = |path: &Path| {
            let path = path.to_owned();
            move |source| WatchError::Watch { path, source }
        };
        let changed = move |event: notify::Result<Event>| {
            // An error means that events were lost, which is itself a reason to nudge.
            if event.map_or(true, |event| matters(&event, &relevant)) {
                let _ = wake.try_send(());
            }
        };
        // The owner of the repository chooses where its links lead.
        let settings = Config::default().with_follow_symlinks(false);
        let mut watcher =
            RecommendedWatcher::new(changed, settings).map_err(error(repository.path()))?;

        for directory in &directories {
            let mode = match directory.names {
                Names::All => RecursiveMode::Recursive,
                Names::Only(_) => RecursiveMode::NonRecursive,
            };
            watcher
                .watch(&directory.path, mode)
                .map_err(error(&directory.path))?;
        }
        Ok(Self {
            directories,
            _watcher: watcher,
        })
    }
}

/// The directories to watch at present: those of the refs, and those above them in which a
/// replacement shows.
fn directories(repository: &LocalRepository) -> Vec<Directory> {
    let mut watched = BTreeMap::<PathBuf, Names>::new();
    let mut watch = |path: &Path, names: Names| {
        let known = watched
            .entry(path.to_owned())
            .or_insert_with(|| Names::Only(Vec::new()));
        match (known, names) {
            (Names::Only(known), Names::Only(more)) => known.extend(more),
            (known, Names::All) => *known = Names::All,
            (Names::All, Names::Only(_)) => {}
        }
    };
    let only = |names: &[&str]| Names::Only(names.iter().map(OsString::from).collect());

    if let Some(git) = repository.git_directory() {
        watch(&git, only(&["HEAD", "packed-refs", "refs", "reftable"]));
        for refs in ["refs", "reftable"].map(|name| git.join(name)) {
            if is_small_tree(&refs) {
                watch(&refs, Names::All);
            }
        }
    }

    // The nearest existing directory reports when the next directory below it is created, removed
    // or replaced.
    let path = repository.path();
    if path.is_dir() {
        watch(path, only(&[".git", "refs", "HEAD"]));
    }
    let mut below = path;
    while let Some(above) = below.parent() {
        if above.is_dir() {
            watch(
                above,
                Names::Only(below.file_name().map(OsString::from).into_iter().collect()),
            );
            break;
        }
        below = above;
    }

    watched
        .into_iter()
        .filter_map(|(path, names)| {
            let metadata = fs::metadata(&path).ok()?;
            Some(Directory {
                path,
                names,
                device_and_inode: (metadata.dev(), metadata.ino()),
            })
        })
        .collect()
}

/// Whether the path is a directory, and no link, with few directories below. Each of them takes one
/// of the watches that root has in all.
fn is_small_tree(path: &Path) -> bool {
    let is_directory = |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    if !is_directory(path) {
        return false;
    }
    let (mut pending, mut seen) = (vec![path.to_owned()], 0);
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
            seen += 1;
            if seen > MAX_ENTRIES {
                return false;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                pending.push(entry.path());
            }
        }
    }
    true
}

/// Whether an event may have changed a ref. Reading is an event, too, and the daemon reads: such
/// events must not count.
fn matters(event: &Event, directories: &[Directory]) -> bool {
    if matches!(event.kind, EventKind::Access(_)) {
        return false;
    }
    event.need_rescan()
        || event.paths.iter().any(|path| {
            let is_lock = path.extension() == Some(OsStr::new("lock"));
            directories.iter().any(|directory| match &directory.names {
                // A ref is written by renaming a lock file to it; the new name is an event of its
                // own.
                Names::All => path.starts_with(&directory.path) && !is_lock,
                Names::Only(names) => {
                    *path == directory.path
                        || (path.parent() == Some(&directory.path)
                            && path
                                .file_name()
                                .is_some_and(|name| names.iter().any(|known| known == name)))
                }
            })
        })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;
    use crate::source::testing::Work;

    async fn nudged(nudge: &Notify) -> bool {
        tokio::time::timeout(Duration::from_secs(5), nudge.notified())
            .await
            .is_ok()
    }

    /// Waits until the events of earlier changes have been reported.
    async fn quiet(nudge: &Notify) {
        while tokio::time::timeout(Duration::from_millis(300), nudge.notified())
            .await
            .is_ok()
        {}
    }

    #[tokio::test]
    async fn a_push_nudges_and_reading_does_not() {
        let work = Work::new();
        work.commit("one", None);
        let nudge = Arc::new(Notify::new());
        let _watch = RefWatch::start(
            LocalRepository {
                path: work.path().to_owned(),
            },
            Arc::clone(&nudge),
        )
        .unwrap();
        work.commit("two", None);
        assert!(nudged(&nudge).await);
        quiet(&nudge).await;
        work.git(&["log", "-1"]);
        work.repo().find_reference("refs/heads/main").unwrap();
        work.write("manifest.yaml", "not committed");
        assert!(
            tokio::time::timeout(Duration::from_millis(300), nudge.notified())
                .await
                .is_err()
        );
        work.git(&["pack-refs", "--all"]);
        assert!(nudged(&nudge).await);
        quiet(&nudge).await;
        work.git(&["branch", "deep/er/branch"]);
        assert!(nudged(&nudge).await);
    }

    #[tokio::test]
    async fn a_repository_that_comes_later_or_is_replaced_is_watched() {
        let work = Work::new();
        work.commit("one", None);
        let parent = tempfile::tempdir().unwrap();
        let bare = parent.path().join("later/deploy.git");
        let nudge = Arc::new(Notify::new());
        let _watch =
            RefWatch::start(LocalRepository { path: bare.clone() }, Arc::clone(&nudge)).unwrap();
        let bare_text = bare.to_str().unwrap();
        for round in ["two", "three"] {
            work.git(&["clone", "-q", "--bare", ".", bare_text]);
            assert!(nudged(&nudge).await);
            quiet(&nudge).await;
            work.commit(round, None);
            work.git(&["push", "-q", bare_text, "main"]);
            assert!(nudged(&nudge).await, "a push after {round}");
            quiet(&nudge).await;
            fs::remove_dir_all(&bare).unwrap();
            assert!(nudged(&nudge).await);
            quiet(&nudge).await;
        }
    }
}
