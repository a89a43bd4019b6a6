//! `trust/accepted.json`: the heads whose manifests this host has accepted, so that a rule of a
//! newer version does not refuse them afterwards.

use std::path::{Path, PathBuf};

use reconciler::name::CommitId;
use serde::{Deserialize, Serialize};

use crate::state_file::{self, StateFileError};

const SCHEMA: u32 = 1;
/// A head that more heads than this came after is in use, or it is of no interest.
const MOST: usize = 100;

/// The accepted heads, read once and written through.
#[derive(Debug)]
pub(super) struct AcceptedHeads {
    path: PathBuf,
    record: Record,
    /// Whether the record is on disk: a start on a full disk must not fail for it.
    is_kept: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    /// Oldest first.
    heads: Vec<CommitId>,
}

impl AcceptedHeads {
    /// Opens the record. Versions before it kept none: what their pointers name is taken for
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

    /// Puts the record on disk if it is not there yet. Must be done before the pointers move:
    /// `verified` moves to a head before its manifests are read, and without a record that head
    /// would be taken for accepted.
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

    /// Puts a head on disk.
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
