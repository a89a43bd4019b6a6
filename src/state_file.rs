//! State on the host's own disk: one JSON document in each file, with a schema number, replaced
//! atomically.
//!
//! A document is written to a neighbouring file, flushed to disk and renamed over the old one, so
//! that a crash or a full disk leaves either the old state or the new one and never half of it.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use parking_lot::{Condvar, Mutex};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a state file could not be read or written.
#[derive(Debug, Error)]
pub(crate) enum StateFileError {
    /// The file exists and cannot be read.
    #[error("read state file {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The file is not a valid JSON document.
    #[error(
        "state file {} is damaged; restore it from a backup, or move it away to start without what it remembers",
        path.display()
    )]
    Damaged {
        path: PathBuf,
        /// The error with the line and column where parsing stopped.
        source: serde_json::Error,
    },
    /// A newer version of Windlass wrote the file.
    #[error(
        "state file {} has schema {found}, and this version knows schemas up to {newest}; \
         run the version that wrote it, or a newer one", path.display()
    )]
    NewerSchema {
        path: PathBuf,
        /// The schema number it carries.
        found: u32,
        /// The newest schema number this version understands.
        newest: u32,
    },
    /// The new state could not be written; the old file is unchanged.
    #[error("write state file {} ({step}); the old one is untouched", path.display())]
    Write {
        path: PathBuf,
        /// The step that failed, such as `flush`.
        step: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The value cannot be written as a JSON object.
    #[error("encode state file {}", path.display())]
    Encode {
        path: PathBuf,
        /// The encoder's error.
        source: serde_json::Error,
    },
}

/// Reads a document whose schema is at most `newest`; `None` if there is no such file.
pub(crate) fn read<T: DeserializeOwned>(
    path: &Path,
    newest: u32,
) -> Result<Option<T>, StateFileError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(StateFileError::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    let damaged = |source| StateFileError::Damaged {
        path: path.to_owned(),
        source,
    };
    let SchemaStamp { schema: found } = serde_json::from_slice(&bytes).map_err(damaged)?;
    if found > newest {
        return Err(StateFileError::NewerSchema {
            path: path.to_owned(),
            found,
            newest,
        });
    }
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

/// Replaces the document at `path`; after `Ok` the new state survives a power failure.
pub(crate) fn write<T: Serialize>(
    path: &Path,
    schema: u32,
    state: &T,
) -> Result<(), StateFileError> {
    let mut text =
        serde_json::to_vec_pretty(&StampedDocument { schema, state }).map_err(|source| {
            StateFileError::Encode {
                path: path.to_owned(),
                source,
            }
        })?;
    text.push(b'\n');
    write_bytes(path, &text)
}

/// Replaces a file that is no state document, such as a key, in the same way; mode 0600.
pub(crate) fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), StateFileError> {
    let _turn = WriteTurn::of(path);
    let fresh = fresh_path(path);
    replace(path, &fresh, bytes).map_err(|(step, source)| {
        // The next write truncates the file, so it does no harm, but on a full disk its space is
        // needed.
        let _ = fs::remove_file(&fresh);
        StateFileError::Write {
            path: path.to_owned(),
            step,
            source,
        }
    })
}

/// Removes the document at `path`; succeeds if there is none.
pub(crate) fn remove(path: &Path) -> Result<(), StateFileError> {
    let _turn = WriteTurn::of(path);
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StateFileError::Write {
            path: path.to_owned(),
            step: "remove it",
            source,
        }),
        _ => Ok(()),
    }
}

/// The state files that this process is changing now.
static IN_CHANGE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
/// Notified whenever one of these changes is done.
static CHANGED: Condvar = Condvar::new();

/// The turn to change a file. Two writers of one file share the temporary file beside it, and
/// either could rename what the other has half written, so they take turns. Between processes the
/// lock of the directory ensures that.
struct WriteTurn(PathBuf);

impl WriteTurn {
    /// Waits until no other thread changes the file.
    fn of(path: &Path) -> Self {
        let mut busy = IN_CHANGE.lock();
        CHANGED.wait_while(&mut busy, |busy| busy.contains(path));
        busy.insert(path.to_owned());
        Self(path.to_owned())
    }
}

impl Drop for WriteTurn {
    fn drop(&mut self) {
        IN_CHANGE.lock().remove(&self.0);
        CHANGED.notify_all();
    }
}

/// Writes beside the file, then renames over it.
fn replace(path: &Path, fresh: &Path, text: &[u8]) -> Result<(), (&'static str, io::Error)> {
    #[cfg(test)]
    WRITES.set(WRITES.get() + 1);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(fresh)
        .map_err(|error| ("create", error))?;
    file.write_all(text).map_err(|error| ("write", error))?;
    // Before the rename: otherwise a power failure may leave an empty file under the name.
    file.sync_all().map_err(|error| ("flush", error))?;
    crate::crash::point("state-file");
    fs::rename(fresh, path).map_err(|error| ("rename", error))?;

    // Only the directory's own flush makes the rename durable (fsync(2)).
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| ("flush directory", error))
}

/// The temporary file of a file, always the same: the next write replaces what a crash leaves
/// there.
fn fresh_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

#[cfg(test)]
thread_local! {
    static WRITES: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How many state files this thread has written, so that a test can bound their number.
#[cfg(test)]
pub(crate) fn writes_of_this_thread() -> usize {
    WRITES.get()
}

#[derive(Deserialize)]
struct SchemaStamp {
    schema: u32,
}

#[derive(Serialize)]
struct StampedDocument<'a, T> {
    schema: u32,
    #[serde(flatten)]
    state: &'a T,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sample {
        numbers: BTreeMap<String, u64>,
    }

    fn sample(value: u64) -> Sample {
        Sample {
            numbers: BTreeMap::from([("one".to_owned(), value)]),
        }
    }

    #[test]
    fn a_written_document_is_read_back_and_carries_its_schema() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sample.json");
        assert_eq!(read::<Sample>(&path, 1).unwrap(), None);
        write(&path, 1, &sample(7)).unwrap();
        write(&path, 1, &sample(8)).unwrap();
        assert_eq!(read::<Sample>(&path, 1).unwrap(), Some(sample(8)));
        assert!(
            fs::read_to_string(&path)
                .unwrap()
                .starts_with("{\n  \"schema\": 1,")
        );
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn a_newer_schema_is_refused_by_number() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sample.json");
        write(&path, 3, &sample(7)).unwrap();
        let message = read::<Sample>(&path, 2).unwrap_err().to_string();
        assert!(
            message.contains("has schema 3, and this version knows schemas up to 2"),
            "{message}"
        );
    }

    #[test]
    fn a_truncated_document_is_named_as_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sample.json");
        fs::write(&path, "{\"schema\": 1, \"num").unwrap();
        assert!(matches!(
            read::<Sample>(&path, 1),
            Err(StateFileError::Damaged { .. })
        ));
    }

    #[test]
    fn a_failed_write_leaves_the_old_document() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sample.json");
        write(&path, 1, &sample(7)).unwrap();
        // A directory in the place of the temporary file makes the write fail before the rename, as
        // a full disk would.
        fs::create_dir(fresh_path(&path)).unwrap();
        assert!(matches!(
            write(&path, 1, &sample(8)),
            Err(StateFileError::Write { step: "create", .. })
        ));
        assert_eq!(read::<Sample>(&path, 1).unwrap(), Some(sample(7)));
    }

    #[test]
    fn writers_of_one_file_take_turns() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sample.json");
        write(&path, 1, &sample(0)).unwrap();
        // Of different lengths, so that a mixture of two is no document.
        let of_writer = |writer: u64| Sample {
            numbers: (0..=writer * 300)
                .map(|number| (format!("{writer}-{number}"), number))
                .collect(),
        };
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let (path, document) = (&path, of_writer(writer));
                scope.spawn(move || (0..25).for_each(|_| write(path, 1, &document).unwrap()));
            }
            scope.spawn(|| (0..200).for_each(|_| drop(read::<Sample>(&path, 1).unwrap().unwrap())));
        });
        let last = read::<Sample>(&path, 1).unwrap().unwrap();
        assert!((0..4).any(|writer| last == of_writer(writer)));
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn a_full_disk_leaves_the_old_document() {
        let full = Path::new("/dev/full");
        let (step, error) = replace(Path::new("/dev/never"), full, b"{}").unwrap_err();
        assert_eq!((step, error.kind()), ("write", io::ErrorKind::StorageFull));
    }
}
