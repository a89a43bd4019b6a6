//! `names.json`: what the cluster's DNS was last told, so that it answers before the first look after a start.

use std::path::{Path, PathBuf};

use reconciler::network::DnsRecords;

use crate::state_file;

const SCHEMA: u32 = 1;

/// The file. What is in it can always be worked out again, so that no trouble with it stops anything.
#[derive(Clone, Debug)]
pub(crate) struct NamesFile(PathBuf);

impl NamesFile {
    /// The file in a data directory.
    pub(crate) fn in_dir(data: &Path) -> Self {
        Self(data.join("names.json"))
    }

    /// What was last told, if it is about this zone.
    pub(crate) fn read(&self, zone: &str) -> DnsRecords {
        let nothing = DnsRecords { zone: zone.to_owned(), ..DnsRecords::default() };
        match state_file::read::<DnsRecords>(&self.0, SCHEMA) {
            Ok(Some(records)) if records.zone == zone => records,
            Ok(_) => nothing,
            Err(error) => {
                tracing::warn!(
                    "names are not answered before the first look: {:#}",
                    anyhow::Error::from(error)
                );
                nothing
            }
        }
    }

    /// Writes it beside the loop, which does not wait for a disk to answer questions.
    pub(crate) fn write(&self, records: &DnsRecords) {
        let (path, records) = (self.0.clone(), records.clone());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = state_file::write(&path, SCHEMA, &records) {
                tracing::warn!("{:#}", anyhow::Error::from(error));
            }
        });
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
        let records = DnsRecords { zone: "cluster.local".to_owned(), names };
        state_file::write(&file.0, SCHEMA, &records).expect("written");
        assert_eq!(file.read("cluster.local"), records);
        assert!(file.read("other.local").names.is_empty());
        std::fs::write(&file.0, "{").expect("damaged");
        assert!(file.read("cluster.local").names.is_empty());
    }
}
