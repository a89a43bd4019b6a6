//! Troubles: what prevents parts of the daemon from working, until they work again. Their texts are
//! in `view/trouble.rs`.

use std::collections::BTreeMap;

use crate::view::{HostTrouble, Part};

/// The trouble of each part that has failed.
#[derive(Debug, Default)]
pub(super) struct Troubles(BTreeMap<Part, HostTrouble>);

impl Troubles {
    /// Notes the result of a part. A trouble is logged when it begins and when it changes, not at
    /// every attempt.
    pub(super) fn note(&mut self, part: Part, result: Result<(), HostTrouble>) {
        match result {
            Ok(()) => self.clear(part),
            Err(trouble) => {
                if self.0.get(&part) != Some(&trouble) {
                    tracing::error!("{trouble}");
                }
                self.set(part, trouble);
            }
        }
    }

    /// Notes a trouble without a line in the log.
    pub(super) fn set(&mut self, part: Part, trouble: HostTrouble) {
        self.0.insert(part, trouble);
    }

    /// Removes a part's trouble: the part works again, or another host is responsible for it.
    pub(super) fn clear(&mut self, part: Part) {
        self.0.remove(&part);
    }

    /// Whether a part has failed.
    pub(super) fn has(&self, part: Part) -> bool {
        self.0.contains_key(&part)
    }

    /// Whether all parts work.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The troubles, in the order of their parts.
    pub(super) fn list(&self) -> impl Iterator<Item = &HostTrouble> {
        self.0.values()
    }
}
