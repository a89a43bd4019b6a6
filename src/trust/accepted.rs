//! `trust/accepted.json`: the heads whose manifests this host has accepted, so that a rule of a
//! newer version does not refuse them afterwards.

use std::path::{Path, PathBuf};

use reconciler::name::CommitId;
use serde::{Deserialize, Serialize};

use crate::state_file::{self, StateFileError};

const SCHEMA: u32 = 1;
/// A head that is older than this number of heads is in use, or is not needed any more.
const MOST: usize = 100;

/// The accepted heads: the file is read once, and written at every change.
#[derive(Debug)]
pub(super) struct AcceptedHeads {
    path: PathBuf,
    record: Record,
    /// Whether the record is on the disk: a start on a full disk must not fail because of it.
    is_kept: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    /// The accepted heads, the oldest first.
    heads: Vec<CommitId>,
}

impl AcceptedHeads {
    /// Opens the record. Older versions kept none: the commits that their pointers name count as
    /// accepted.
    pub(super) fn open(
        directory: &Path,
        named_by_pointers: impl Iterator<Item = CommitId>,
    ) -> Result<Self, StateFileError> {
        let path = directory.join("accepted.json");
        let kept: Option<Record> = state_file::read(&path, SCHEMA)?;
        let is_kept = kept.is_some();
        let record = kept.unwrap_or_else(|| Record {
            heads: named_by_pointers.collect(),
        });
        Ok(Self {
            path,
            record,
            is_kept,
        })
    }

    /// Writes the record to the disk if it is not there yet. Must be done before the pointers move:
    /// `verified` moves to a head before its manifests are read, and without a record that head
    /// would count as accepted.
    pub(super) fn keep(&mut self) -> Result<(), StateFileError> {
        if !self.is_kept {
            state_file::write(&self.path, SCHEMA, &self.record)?;
            self.is_kept = true;
        }
        Ok(())
    }

    /// Whether a head is in the record.
    pub(super) fn contains(&self, head: &CommitId) -> bool {
        self.record.heads.contains(head)
    }

    /// Adds a head and writes the record to the disk.
    pub(super) fn add(&mut self, head: &CommitId) -> Result<(), StateFileError> {
        if self.contains(head) {
            return Ok(());
        }

        let mut heads = self.record.heads.clone();
        heads.push(head.clone());
        let record = Record {
            heads: heads.split_off(heads.len().saturating_sub(MOST)),
        };
        state_file::write(&self.path, SCHEMA, &record)?;
        (self.record, self.is_kept) = (record, true);
        Ok(())
    }
}
