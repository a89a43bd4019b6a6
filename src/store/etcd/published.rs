//! Where a watch is resumed: after the last published change, if the history that etcd answers with
//! contains this change at its place.

use super::KeyChange;

/// The most changes that are kept to recognize a history by.
const KEPT: usize = 256;

/// The changes published last. They begin with a revision that holds more than changes of leases:
/// those look the same in any history.
#[derive(Debug)]
pub(super) struct PublishedKeys {
    /// Etcd's own id of its cluster.
    etcd_cluster: u64,
    /// The number of requests for a list when these changes were published.
    asked: u64,
    /// In the order of revisions.
    changes: Vec<KeyChange>,
}

impl PublishedKeys {
    /// No changes yet, of this cluster of etcd and after this number of requests for a list.
    pub(super) fn new(etcd_cluster: u64, asked: u64) -> Self {
        Self {
            etcd_cluster,
            asked,
            changes: Vec::new(),
        }
    }

    /// Etcd's own id of its cluster.
    pub(super) fn etcd_cluster(&self) -> u64 {
        self.etcd_cluster
    }

    /// Whether no list was requested since.
    pub(super) fn is_of(&self, asked: u64) -> bool {
        self.asked == asked
    }

    /// The revision from which a watch must begin, and the revision that it must reach; `None` if
    /// there is no change to recognize the history by.
    pub(super) fn span(&self) -> Option<(i64, i64)> {
        Some((
            self.changes.first()?.revision(),
            self.changes.last()?.revision(),
        ))
    }

    /// Records changes that were published.
    pub(super) fn publish(&mut self, changes: &[KeyChange]) {
        for change in changes {
            let new_revision = self
                .changes
                .last()
                .is_none_or(|last| last.revision() != change.revision());
            let begins = new_revision
                && changes
                    .iter()
                    .any(|one| one.revision() == change.revision() && !is_of_a_lease(one));
            if begins {
                self.changes.clear();
            }
            // Changes of leases are kept only after a change that identifies the history.
            if begins || !self.changes.is_empty() {
                self.changes.push(change.clone());
            }
        }
        if self.changes.len() > KEPT {
            self.changes.clear();
        }
    }

    /// The new changes among the first changes of a watch; `None` if the watch shows another
    /// history, one that came to the same revision by other changes.
    pub(super) fn go_on(&self, changes: Vec<KeyChange>) -> Option<Vec<KeyChange>> {
        let (_, last) = self.span()?;
        let (again, new): (Vec<_>, Vec<_>) = changes
            .into_iter()
            .partition(|change| change.revision() <= last);
        (again == self.changes).then_some(new)
    }
}

fn is_of_a_lease(change: &KeyChange) -> bool {
    let key = change.key();
    key.starts_with("election/") || key.starts_with("nodes/") && key.ends_with("/alive")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::etcd::StoredValue;

    fn put(key: &str, value: &str, revision: i64) -> KeyChange {
        KeyChange::Put(StoredValue {
            key: key.to_owned(),
            value: value.as_bytes().to_vec(),
            revision,
        })
    }

    fn delete(key: &str, revision: i64) -> KeyChange {
        KeyChange::Delete {
            key: key.to_owned(),
            revision,
        }
    }

    fn published(parts: &[&[KeyChange]]) -> PublishedKeys {
        let mut published = PublishedKeys::new(1, 0);
        parts.iter().for_each(|changes| published.publish(changes));
        published
    }

    #[test]
    fn only_what_came_after_the_last_revision_is_new_and_only_in_the_same_history() {
        let published = published(&[&[put("a", "1", 7)], &[put("b", "1", 8), delete("a", 8)]]);
        assert_eq!(published.span(), Some((8, 8)));
        let again = [put("b", "1", 8), delete("a", 8)];
        let news = [put("c", "1", 9), put("c", "2", 11)];
        let all = |parts: &[&[KeyChange]]| parts.concat();
        assert_eq!(published.go_on(again.to_vec()), Some(Vec::new()));
        assert_eq!(published.go_on(all(&[&again, &news])), Some(news.to_vec()));
        // Other values, fewer changes, more changes, or no change at that revision.
        for other in [
            all(&[&[put("b", "2", 8), delete("a", 8)], &news]),
            all(&[&again[..1], &news]),
            all(&[&again, &[put("d", "1", 8)], &news]),
            news.to_vec(),
            Vec::new(),
        ] {
            assert_eq!(published.go_on(other.clone()), None, "{other:?}");
        }
    }

    #[test]
    fn a_history_is_not_known_by_leases_alone() {
        let lease = |revision| put("nodes/n1/alive", "i1", revision);
        assert_eq!(
            published(&[&[lease(5)], &[delete("election/7", 6)]]).span(),
            None
        );
        let published = published(&[
            &[lease(5)],
            &[put("a", "1", 6), lease(6)],
            &[lease(7)],
            &[delete("election/7", 9)],
        ]);
        assert_eq!(published.span(), Some((6, 9)));
        let again = vec![
            put("a", "1", 6),
            lease(6),
            lease(7),
            delete("election/7", 9),
        ];
        assert_eq!(
            published.go_on([again.clone(), vec![lease(10)]].concat()),
            Some(vec![lease(10)])
        );
        assert_eq!(published.go_on(again[2..].to_vec()), None);
    }

    #[test]
    fn what_is_kept_to_know_a_history_by_is_bounded() {
        let mut published = published(&[&[put("a", "1", 1)]]);
        (2..)
            .take(KEPT)
            .for_each(|revision| published.publish(&[put("nodes/n1/alive", "i1", revision)]));
        assert_eq!(published.span(), None);
        published.publish(&[put("a", "2", 1000)]);
        assert_eq!(published.span(), Some((1000, 1000)));
    }
}
