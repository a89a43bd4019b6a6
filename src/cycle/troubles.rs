//! Troubles: what prevents a part of the daemon from working, under a fixed word for each part,
//! until that part works again.

use std::collections::BTreeMap;

/// Troubles by the word of the part that has failed.
#[derive(Debug, Default)]
pub(super) struct Troubles(BTreeMap<&'static str, String>);

impl Troubles {
    /// Notes the result of a part. A trouble is logged when it begins and when its message changes,
    /// not at every attempt.
    pub(super) fn note(&mut self, part: &'static str, result: Result<(), String>) {
        match result {
            Ok(()) => self.clear(part),
            Err(error) => {
                if self.0.get(part) != Some(&error) {
                    tracing::error!("{error}");
                }
                self.0.insert(part, error);
            }
        }
    }

    /// Notes a trouble without a line in the log.
    pub(super) fn set(&mut self, part: &'static str, error: String) {
        self.0.insert(part, error);
    }

    /// Removes a part's trouble: the part works again, or another host is responsible for it.
    pub(super) fn clear(&mut self, part: &'static str) {
        self.0.remove(part);
    }

    pub(super) fn has(&self, part: &str) -> bool {
        self.0.contains_key(part)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The messages, in the order of their parts' words.
    pub(super) fn sentences(&self) -> impl Iterator<Item = &String> {
        self.0.values()
    }
}
