//! The record of the host's settings before Windlass, in a file: `uninstall` restores them, maybe
//! years later.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::error::NetworkError;

const SCHEMA: u32 = 1;

/// The content of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    schema: u32,
    /// The value of `net.ipv4.ip_forward` before Windlass changed it.
    pub(crate) ip_forward: String,
}

/// The fields that every version of the file has.
#[derive(Deserialize)]
struct Stamp {
    schema: u32,
}

/// The path of the record.
#[derive(Clone, Debug)]
pub(crate) struct RecordFile(PathBuf);

impl RecordFile {
    pub(crate) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Reads the record; `None` if it was never written.
    pub(crate) fn read(&self) -> Result<Option<Record>, NetworkError> {
        match fs::read(&self.0) {
            Ok(bytes) => self.parse(&bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn parse(&self, bytes: &[u8]) -> Result<Record, NetworkError> {
        let Stamp { schema } =
            serde_json::from_slice(bytes).map_err(|error| self.failed(io::Error::from(error)))?;
        if schema > SCHEMA {
            let newer =
                format!("it has schema {schema}, which is newer than this program's {SCHEMA}");
            return Err(self.failed(io::Error::other(newer)));
        }
        serde_json::from_slice(bytes).map_err(|error| self.failed(io::Error::from(error)))
    }

    /// Writes the record atomically: after a crash the file is complete or absent.
    pub(crate) fn write(&self, ip_forward: &str) -> Result<(), NetworkError> {
        let record = Record {
            schema: SCHEMA,
            ip_forward: ip_forward.to_owned(),
        };
        let write = || -> io::Result<()> {
            let directory = self.0.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(directory)?;

            let temporary = self.0.with_extension("new");
            let mut options = File::options();
            let mut file = options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(&serde_json::to_vec(&record)?)?;
            // The content is on the disk before the name leads to it, and the name before the
            // setting is changed.
            file.sync_all()?;
            fs::rename(&temporary, &self.0)?;
            File::open(directory)?.sync_all()
        };
        write().map_err(|error| self.failed(error))
    }

    pub(crate) fn remove(&self) -> Result<(), NetworkError> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed(error)),
            _ => Ok(()),
        }
    }

    fn failed(&self, source: io::Error) -> NetworkError {
        NetworkError::Record {
            path: self.0.clone(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]
    use super::*;

    #[test]
    fn a_newer_record_is_refused_with_its_schema_number() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("network.json");
        let file = RecordFile::at(&path);
        assert!(file.read().unwrap().is_none());
        file.write("0").unwrap();
        assert_eq!(file.read().unwrap().unwrap().ip_forward, "0");
        fs::write(&path, r#"{"schema": 2, "another": true}"#).unwrap();
        let NetworkError::Record { source, .. } = file.read().unwrap_err() else {
            panic!("another error")
        };
        assert!(source.to_string().contains("schema 2"), "{source}");
    }
}
