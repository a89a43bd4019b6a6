//! The record, on disk, of the images that Windlass pulled to this host: only those are ever
//! collected.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use reconciler::name::ImageId;
use serde::{Deserialize, Serialize};

/// The schema version of the file.
const SCHEMA_VERSION: u32 = 1;

/// The record, in memory and on disk.
#[derive(Debug)]
pub(crate) struct Record {
    path: PathBuf,
    content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    schema: u32,
    /// The names under which each image was pulled, by image id.
    images: BTreeMap<ImageId, BTreeSet<String>>,
}

/// Why the record of pulled images cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file of the record is there and cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The path of the record.
        path: PathBuf,
        /// The error of the system call.
        source: io::Error,
    },
    /// The content of the file is not a record.
    #[error("{} is not a record of images", path.display())]
    Parse {
        /// The path of the record.
        path: PathBuf,
        /// The error of the JSON decoder.
        source: serde_json::Error,
    },
    /// A later version of Windlass wrote the file.
    #[error("{} has schema {schema}, which is newer than this program's {SCHEMA_VERSION}", path.display())]
    Newer {
        /// The path of the record.
        path: PathBuf,
        /// The schema version of the file.
        schema: u32,
    },
}

impl Record {
    pub(crate) fn open(path: &Path) -> Result<Self, RecordError> {
        let content = match fs::read(path) {
            Ok(bytes) => parse(path, &bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Content {
                schema: SCHEMA_VERSION,
                images: BTreeMap::new(),
            },
            Err(source) => {
                return Err(RecordError::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        Ok(Self {
            path: path.to_owned(),
            content,
        })
    }

    /// Records that an image was pulled under this name.
    pub(crate) fn add(&mut self, image: &ImageId, name: &str) -> io::Result<()> {
        let mut content = self.content.clone();
        content
            .images
            .entry(image.clone())
            .or_default()
            .insert(name.to_owned());
        self.write(content)
    }

    /// Removes an image from the record.
    pub(crate) fn forget(&mut self, image: &ImageId) -> io::Result<()> {
        let mut content = self.content.clone();
        content.images.remove(image);
        self.write(content)
    }

    /// The pulled images, with the names under which each was pulled.
    pub(crate) fn images(&self) -> &BTreeMap<ImageId, BTreeSet<String>> {
        &self.content.images
    }

    /// Writes a new file, which then replaces the old one: a full disk leaves the old one complete.
    fn write(&mut self, content: Content) -> io::Result<()> {
        if content == self.content {
            return Ok(());
        }

        let directory = self.path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(&serde_json::to_vec(&content)?)?;
        // The content is on the disk before the name leads to it.
        file.as_file().sync_all()?;
        file.persist(&self.path).map_err(|error| error.error)?;
        fs::File::open(directory)?.sync_all()?;
        self.content = content;
        Ok(())
    }
}

/// The version is checked first: a newer file may have any content.
fn parse(path: &Path, bytes: &[u8]) -> Result<Content, RecordError> {
    #[derive(Deserialize)]
    struct Stamp {
        schema: u32,
    }
    let wrong = |source| RecordError::Parse {
        path: path.to_owned(),
        source,
    };
    let Stamp { schema } = serde_json::from_slice(bytes).map_err(wrong)?;
    if schema > SCHEMA_VERSION {
        return Err(RecordError::Newer {
            path: path.to_owned(),
            schema,
        });
    }
    serde_json::from_slice(bytes).map_err(wrong)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]

    use super::*;

    #[test]
    fn what_was_pulled_is_known_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("images.json");
        let (one, two) = (ImageId::new("sha256:1"), ImageId::new("sha256:2"));
        let mut record = Record::open(&path).unwrap();
        record.add(&one, "httpd:2").unwrap();
        record.add(&one, "httpd:latest").unwrap();
        record.add(&two, "mysql:8").unwrap();
        record.forget(&two).unwrap();
        let names = BTreeSet::from(["httpd:2".to_owned(), "httpd:latest".to_owned()]);
        assert_eq!(
            Record::open(&path).unwrap().images(),
            &BTreeMap::from([(one, names)])
        );
    }

    #[test]
    fn a_newer_record_is_not_touched() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("images.json");
        fs::write(&path, r#"{"schema": 2, "pictures": {}}"#).unwrap();
        assert!(matches!(
            Record::open(&path),
            Err(RecordError::Newer { schema: 2, .. })
        ));
    }
}
