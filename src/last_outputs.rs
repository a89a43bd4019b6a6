//! What containers printed last before they failed: kept on the host that ran them, in
//! `outputs.json`, and never published.
//!
//! The outputs are for people: a file that is lost or damaged prevents nothing.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use reconciler::name::{CommitId, NotACommitId, PodUid};
use runtime::{LastOutput, LastOutputs};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::state_file;

const SCHEMA: u32 = 1;
/// The most outputs that one query selects. All of them together fit into one answer of another
/// host.
const SELECTED: usize = 6;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct OutputsDocument {
    outputs: Vec<LastOutput>,
}

/// `outputs.json` in the data directory; written when an output is new.
pub(crate) struct OutputsFile {
    path: PathBuf,
}

impl OutputsFile {
    pub(crate) fn in_dir(data: &Path) -> Self {
        let path = data.join("outputs.json");
        Self { path }
    }

    /// The outputs that were kept before this start.
    pub(crate) fn read(&self) -> Vec<LastOutput> {
        match state_file::read::<OutputsDocument>(&self.path, SCHEMA) {
            Ok(document) => document.unwrap_or_default().outputs,
            Err(error) => {
                let error = anyhow::Error::from(error);
                tracing::warn!("what containers printed before they failed is lost: {error:#}");
                Vec::new()
            }
        }
    }

    /// Writes the file at each change, until the sender of the outputs is dropped.
    pub(crate) async fn follow(self, mut outputs: watch::Receiver<LastOutputs>) {
        while outputs.changed().await.is_ok() {
            let document = OutputsDocument {
                outputs: outputs.borrow_and_update().to_vec(),
            };
            let path = self.path.clone();
            let written = tokio::task::spawn_blocking(move || {
                state_file::write(&path, SCHEMA, &document).map_err(anyhow::Error::from)
            });
            if let Err(error) = written.await.unwrap_or_else(|error| Err(error.into())) {
                tracing::warn!("what containers printed is lost at the next start: {error:#}");
            }
        }
    }
}

/// The outputs that somebody looks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OutputQuery {
    /// The outputs of pods that were made from these commits.
    pub(crate) commits: BTreeSet<CommitId>,
    /// The outputs of these pods.
    pub(crate) pods: BTreeSet<PodUid>,
}

/// The same as parameters of a URL, separated by commas.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OutputParameters {
    #[serde(default)]
    commits: String,
    #[serde(default)]
    pods: String,
}

impl OutputQuery {
    pub(crate) fn is_empty(&self) -> bool {
        self.commits.is_empty() && self.pods.is_empty()
    }

    /// The query as [`OutputParameters`].
    pub(crate) fn parameters(&self) -> [(&'static str, String); 2] {
        let commits: Vec<String> = self.commits.iter().map(ToString::to_string).collect();
        let pods: Vec<&str> = self.pods.iter().map(PodUid::as_str).collect();
        [("commits", commits.join(",")), ("pods", pods.join(","))]
    }

    /// The newest of these outputs that the query looks for. Of the containers of one workload in
    /// one commit, one is enough.
    pub(crate) fn select(&self, outputs: impl IntoIterator<Item = LastOutput>) -> Vec<LastOutput> {
        let wanted =
            |one: &LastOutput| self.commits.contains(&one.commit) || self.pods.contains(&one.uid);
        let mut selected: Vec<LastOutput> = outputs.into_iter().filter(wanted).collect();
        selected.sort_by(|one, other| {
            let newest_first = other.finished.cmp(&one.finished);
            newest_first.then_with(|| one.pod.cmp(&other.pod))
        });

        let mut seen = BTreeSet::new();
        selected.retain(|one| {
            seen.insert((one.commit.clone(), one.owner.clone(), one.container.clone()))
        });
        selected.truncate(SELECTED);
        selected
    }
}

impl TryFrom<OutputParameters> for OutputQuery {
    type Error = NotACommitId;

    fn try_from(parameters: OutputParameters) -> Result<Self, NotACommitId> {
        let parts = |text: &str| -> Vec<String> {
            let parts = text.split(',').filter(|part| !part.is_empty());
            parts.map(str::to_owned).collect()
        };
        let commits = parts(&parameters.commits);
        let commits = commits.iter().map(|commit| CommitId::parse(commit));
        Ok(Self {
            commits: commits.collect::<Result<_, _>>()?,
            pods: parts(&parameters.pods)
                .into_iter()
                .map(PodUid::new)
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]

    use std::{sync::Arc, time::Duration};

    use jiff::Timestamp;
    use reconciler::{
        foreign::ForeignText,
        name::{ObjectKey, WorkloadKey, WorkloadKind},
    };

    use super::*;
    use crate::ids::commit_id;

    fn output(commit: &str, owner: &str, pod: &str, second: i64) -> LastOutput {
        LastOutput {
            pod: ObjectKey::new("default", pod),
            uid: PodUid::new(pod),
            owner: WorkloadKey {
                kind: WorkloadKind::Deployment,
                object: ObjectKey::new("default", owner),
            },
            commit: commit_id(commit),
            container: "app".into(),
            attempt: 0,
            finished: Timestamp::from_second(second).unwrap(),
            code: 1,
            oom: false,
            lines: vec![ForeignText::new("fatal: no key")],
        }
    }

    #[test]
    fn a_query_selects_the_newest_output_of_each_workload() {
        let outputs = [
            output("c1", "web", "web-1", 10),
            output("c1", "web", "web-2", 20),
            output("c1", "db", "db-1", 15),
            output("c2", "web", "web-3", 30),
            output("c3", "web", "web-4", 40),
        ];
        let query = OutputQuery {
            commits: [commit_id("c1")].into(),
            pods: [PodUid::new("web-3")].into(),
        };
        let selected = query.select(outputs);
        let names: Vec<&str> = selected.iter().map(|one| one.pod.name.as_str()).collect();
        assert_eq!(names, ["web-3", "web-2", "db-1"]);

        let many = (0..20).map(|number| output("c1", &format!("w{number}"), "w", number));
        assert_eq!(query.select(many).len(), SELECTED);
    }

    #[test]
    fn a_query_is_read_back_from_its_parameters() {
        for query in [
            OutputQuery::default(),
            OutputQuery {
                commits: [commit_id("c1"), commit_id("c2")].into(),
                pods: [PodUid::new("a"), PodUid::new("b")].into(),
            },
        ] {
            let [(_, commits), (_, pods)] = query.parameters();
            let read = OutputQuery::try_from(OutputParameters { commits, pods });
            assert_eq!(read.unwrap(), query);
        }
        let wrong = OutputParameters {
            commits: "HEAD".into(),
            pods: String::new(),
        };
        assert!(OutputQuery::try_from(wrong).is_err());
    }

    #[tokio::test]
    async fn outputs_are_kept_over_a_restart_and_a_damaged_file_counts_as_empty() {
        let data = tempfile::tempdir().unwrap();
        let (sender, receiver) = watch::channel(LastOutputs::default());
        let following = tokio::spawn(OutputsFile::in_dir(data.path()).follow(receiver));
        let outputs = vec![output("c1", "web", "web-1", 10)];
        sender.send_replace(Arc::new(outputs.clone()));
        let read = || OutputsFile::in_dir(data.path()).read();
        let is_written = async {
            while read() != outputs {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), is_written)
            .await
            .unwrap();
        drop(sender);
        following.await.unwrap();

        std::fs::write(data.path().join("outputs.json"), "{").unwrap();
        assert!(read().is_empty());
    }
}
