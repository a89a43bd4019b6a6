//! `names.json`: the records that the cluster's DNS received last, so that it answers before the
//! first cycle after a start.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use reconciler::network::DnsRecords;

use crate::state_file;

const SCHEMA: u32 = 1;

/// `names.json`. Its content can always be computed again, so an error with the file stops nothing.
#[derive(Clone, Debug)]
pub(crate) struct NamesFile {
    path: PathBuf,
    writing: Arc<Mutex<Writing>>,
}

/// The state of the file's one writer.
#[derive(Debug, Default)]
enum Writing {
    /// There is nothing to write.
    #[default]
    Idle,
    /// The writer is writing; after that it writes `next`, if there is one.
    Busy {
        /// The newest records since the write began; older ones are not written any more.
        next: Option<DnsRecords>,
    },
}

impl NamesFile {
    /// The file in a data directory.
    pub(crate) fn in_dir(data: &Path) -> Self {
        Self {
            path: data.join("names.json"),
            writing: Arc::default(),
        }
    }

    /// The records in the file, if they are of this zone.
    pub(crate) fn read(&self, zone: &str) -> DnsRecords {
        let nothing = DnsRecords {
            zone: zone.to_owned(),
            ..DnsRecords::default()
        };
        match state_file::read::<DnsRecords>(&self.path, SCHEMA) {
            Ok(Some(records)) if records.zone == zone => records,
            Ok(_) => nothing,
            Err(error) => {
                tracing::warn!(
                    "names are not answered before the first cycle: {:#}",
                    anyhow::Error::from(error)
                );
                nothing
            }
        }
    }

    /// Writes the file beside the loop, which does not wait for a disk. The file holds the last
    /// records in the end, however slow the disk is.
    pub(crate) fn write(&self, records: &DnsRecords) {
        let mut writing = self.writing.lock();
        match &mut *writing {
            Writing::Busy { next } => *next = Some(records.clone()),
            Writing::Idle => {
                *writing = Writing::Busy { next: None };
                let (file, records) = (self.clone(), records.clone());
                tokio::task::spawn_blocking(move || file.write_until_newest(records));
            }
        }
    }

    fn write_until_newest(&self, mut records: DnsRecords) {
        loop {
            if let Err(error) = state_file::write(&self.path, SCHEMA, &records) {
                tracing::warn!("{:#}", anyhow::Error::from(error));
            }
            let mut writing = self.writing.lock();
            let newer = match &mut *writing {
                Writing::Busy { next } => next.take(),
                Writing::Idle => None,
            };
            match newer {
                Some(newer) => records = newer,
                None => {
                    *writing = Writing::Idle;
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_are_known_again_after_a_restart_and_only_in_their_zone() {
        let data = tempfile::tempdir().expect("a directory");
        let file = NamesFile::in_dir(data.path());
        let answer = reconciler::network::DnsAnswer::Alias("example.com".to_owned());
        let names = [("web.default.svc.cluster.local".to_owned(), answer)].into();
        let records = DnsRecords {
            zone: "cluster.local".to_owned(),
            names,
        };
        state_file::write(&file.path, SCHEMA, &records).expect("written");
        assert_eq!(file.read("cluster.local"), records);
        assert!(file.read("other.local").names.is_empty());
        std::fs::write(&file.path, "{").expect("damaged");
        assert!(file.read("cluster.local").names.is_empty());
    }

    #[tokio::test]
    async fn the_file_holds_the_records_that_were_written_last() {
        let data = tempfile::tempdir().expect("a directory");
        let file = NamesFile::in_dir(data.path());
        let records = |count: usize| {
            let answer =
                |n: usize| reconciler::network::DnsAnswer::Alias(format!("{n}.example.com"));
            let names =
                (0..count).map(|n| (format!("web-{n}.default.svc.cluster.local"), answer(n)));
            DnsRecords {
                zone: "cluster.local".to_owned(),
                names: names.collect(),
            }
        };
        // Each document is shorter than the one before: the rest of a longer one behind it would
        // make the file invalid.
        for count in (1..=100).rev() {
            file.write(&records(count));
        }
        while matches!(*file.writing.lock(), Writing::Busy { .. }) {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        assert_eq!(file.read("cluster.local"), records(1));
        let left = std::fs::read_dir(data.path())
            .expect("the directory")
            .count();
        assert_eq!(left, 1, "nothing is left beside it");
    }
}
