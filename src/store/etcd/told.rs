//! Where a watch is resumed: behind what was told last, if the history that answers shows just that once more.

use super::KeyChange;

/// All changes of the last revision that was told.
#[derive(Debug)]
pub(super) struct Told {
    /// Etcd's own id of its cluster.
    pub(super) etcd_cluster: u64,
    /// How often it had been asked to list again.
    pub(super) asked: u64,
    /// Of the changes.
    pub(super) revision: i64,
    changes: Vec<KeyChange>,
}

impl Told {
    /// What `changes` end with; `None` if there are none.
    pub(super) fn last(etcd_cluster: u64, asked: u64, changes: &[KeyChange]) -> Option<Self> {
        let revision = changes.last()?.revision();
        let changes = changes.iter().filter(|change| change.revision() == revision).cloned().collect();
        Some(Self { etcd_cluster, asked, revision, changes })
    }

    /// What is new in the first changes of a watch from this revision on; `None` where it is another history: one that came
    /// to the same revision by another way.
    pub(super) fn go_on(&self, changes: Vec<KeyChange>) -> Option<Vec<KeyChange>> {
        let (again, new): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|change| change.revision() <= self.revision);
        (again == self.changes).then_some(new)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;
    use crate::store::etcd::Pair;

    fn put(key: &str, value: &str, revision: i64) -> KeyChange {
        KeyChange::Put(Pair { key: key.to_owned(), value: value.as_bytes().to_vec(), revision })
    }

    fn delete(key: &str, revision: i64) -> KeyChange {
        KeyChange::Delete { key: key.to_owned(), revision }
    }

    #[test]
    fn only_what_came_after_the_last_revision_is_new_and_only_in_the_same_history() {
        let told = Told::last(1, 0, &[put("a", "1", 7), put("b", "1", 8), delete("a", 8)]).unwrap();
        let again = [put("b", "1", 8), delete("a", 8)];
        let news = [put("c", "1", 9), put("c", "2", 11)];
        let all = |parts: &[&[KeyChange]]| parts.concat();
        assert_eq!(told.go_on(again.to_vec()), Some(Vec::new()));
        assert_eq!(told.go_on(all(&[&again, &news])), Some(news.to_vec()));
        // Other values, fewer changes, more of them, or none at that revision.
        for other in [
            all(&[&[put("b", "2", 8), delete("a", 8)], &news]),
            all(&[&again[..1], &news]),
            all(&[&again, &[put("d", "1", 8)], &news]),
            news.to_vec(),
            Vec::new(),
        ] {
            assert_eq!(told.go_on(other.clone()), None, "{other:?}");
        }
        assert!(Told::last(1, 0, &[]).is_none());
    }
}
