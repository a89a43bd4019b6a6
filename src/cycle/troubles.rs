//! What stands in the way of the daemon itself, each under a fixed word, until it is put right.

use std::collections::BTreeMap;

/// Troubles by the part that is in trouble.
#[derive(Debug, Default)]
pub(super) struct Troubles(BTreeMap<&'static str, String>);

impl Troubles {
    /// Notes how a part fares. A trouble is logged when it begins and when its message changes, and
    /// not again for every try.
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

    /// The part is well again, or another host's to look after.
    pub(super) fn clear(&mut self, part: &'static str) {
        self.0.remove(part);
    }

    pub(super) fn has(&self, part: &str) -> bool {
        self.0.contains_key(part)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sentences, in the order of their parts' names.
    pub(super) fn sentences(&self) -> impl Iterator<Item = &String> {
        self.0.values()
    }
}
