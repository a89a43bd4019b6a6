//! Refused heads, kept in `trust/refused.json` so that none is downloaded again to be refused
//! again.
//!
//! Each head is stored with a digest of what judged it: keys, mode, anchor, the commit that history
//! has to go forward from, and the limits. With another digest the head is downloaded and judged
//! again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use reconciler::name::CommitId;
use serde::{Deserialize, Serialize};

use crate::state_file::{self, StateFileError};
use crate::view::RefusedCommit;

const SCHEMA: u32 = 1;
/// The most heads that are stored: if a branch alternates between more heads, they are downloaded
/// again.
const MAX_HEADS: usize = 16;
/// The class of refusals for a key that must not sign, for example because of its times of
/// validity.
const DEPENDS_ON_TIME: &str = "key-not-allowed";
/// The length limit of each stored text.
const MAX_CHARS: usize = 1000;

/// A refused head, with the facts for `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RefusedHead {
    /// The commit, and why it was refused.
    pub(crate) refusal: RefusedCommit,
    /// The first line of the commit's message.
    pub(crate) subject: String,
    /// Why the head is not trusted, as a word for metrics.
    pub(crate) class: String,
    /// The digest of what judged the head.
    pub(crate) judged_by: String,
}

impl RefusedHead {
    /// The refusal with texts of limited length.
    pub(crate) fn bounded(mut self) -> Self {
        let refusal = &mut self.refusal;
        let texts = [&mut refusal.summary, &mut refusal.signer, &mut self.subject].into_iter();
        for text in texts.chain(&mut refusal.problems) {
            shorten(text);
        }
        self
    }
}

/// The heads that were refused recently.
#[derive(Debug)]
pub(crate) struct RefusedHeads {
    path: PathBuf,
    kept: StoredHeads,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct StoredHeads {
    heads: Vec<RefusedHead>,
}

impl RefusedHeads {
    /// Reads the refusals. Without them heads are only downloaded once more, so a file that cannot
    /// be read is ignored.
    pub(crate) fn open(trust_directory: &Path) -> Self {
        let path = trust_directory.join("refused.json");
        let kept = state_file::read(&path, SCHEMA).unwrap_or_else(|error| {
            tracing::warn!(
                "refused heads are fetched and judged again: {:#}",
                anyhow::Error::from(error)
            );
            None
        });
        let mut kept: StoredHeads = kept.unwrap_or_default();

        // The validity of a key changes with time, so a restart judges such heads again.
        kept.heads.retain(|head| head.class != DEPENDS_ON_TIME);
        for head in &mut kept.heads {
            // An earlier version did not store the class in the refusal.
            head.refusal.class.clone_from(&head.class);
        }
        Self { path, kept }
    }

    /// The heads that the same keys, mode and limits refused.
    pub(crate) fn by(&self, judged_by: &str) -> BTreeSet<CommitId> {
        let same = self
            .kept
            .heads
            .iter()
            .filter(|head| head.judged_by == judged_by);
        same.map(|head| head.refusal.commit.clone()).collect()
    }

    /// The refusal of a head by the same keys, mode and limits.
    pub(crate) fn find(&self, commit: &CommitId, judged_by: &str) -> Option<&RefusedHead> {
        self.kept
            .heads
            .iter()
            .find(|head| head.refusal.commit == *commit && head.judged_by == judged_by)
    }

    /// Stores a refusal, in place of an older one of the same head.
    pub(crate) fn add(&mut self, head: RefusedHead) -> Result<(), StateFileError> {
        let head = head.bounded();
        let heads = &mut self.kept.heads;
        heads.retain(|known| known.refusal.commit != head.refusal.commit);
        heads.push(head);
        let surplus = heads.len().saturating_sub(MAX_HEADS);
        heads.drain(..surplus);
        state_file::write(&self.path, SCHEMA, &self.kept)
    }
}

fn shorten(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(MAX_CHARS) {
        text.truncate(end);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;
    use crate::ids::commit_id;

    fn head(number: usize, judged_by: &str) -> RefusedHead {
        let refusal = RefusedCommit {
            commit: commit_id(&format!("{number:040}")),
            summary: "it is not signed".repeat(200),
            problems: vec!["ä".repeat(2000)],
            class: "unsigned".to_owned(),
            signer: String::new(),
        };
        let (class, judged_by) = ("unsigned".to_owned(), judged_by.to_owned());
        RefusedHead {
            refusal,
            subject: "a push".to_owned(),
            class,
            judged_by,
        }
    }

    #[test]
    fn the_last_refusals_survive_a_restart_within_bounds() {
        let directory = tempfile::tempdir().unwrap();
        let mut refused = RefusedHeads::open(directory.path());
        for number in 0..MAX_HEADS + 3 {
            refused.add(head(number, "one")).unwrap();
        }
        refused.add(head(MAX_HEADS, "two")).unwrap();
        refused
            .add(RefusedHead {
                class: DEPENDS_ON_TIME.to_owned(),
                ..head(99, "two")
            })
            .unwrap();
        assert_eq!(refused.by("two").len(), 2);
        let refused = RefusedHeads::open(directory.path());
        assert_eq!(refused.kept.heads.len(), MAX_HEADS - 1);
        assert_eq!(
            refused.by("two"),
            BTreeSet::from([head(MAX_HEADS, "").refusal.commit])
        );
        assert!(
            refused
                .find(&head(MAX_HEADS, "").refusal.commit, "one")
                .is_none()
        );
        let last = refused
            .find(&head(MAX_HEADS + 2, "").refusal.commit, "one")
            .unwrap();
        assert_eq!(
            (
                last.refusal.problems[0].chars().count(),
                last.subject.as_str()
            ),
            (MAX_CHARS, "a push")
        );
    }

    #[test]
    fn a_damaged_file_counts_as_empty() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("refused.json"), "{").unwrap();
        assert!(RefusedHeads::open(directory.path()).by("one").is_empty());
    }
}
