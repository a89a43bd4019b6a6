//! Whether a list was begun before this host's last write as a leader. Such a list would undo the
//! write in this host's memory, and look like a store that went back in time, whichever host leads
//! by then.

/// The last write of this host as a leader, until a list contains it.
#[derive(Debug, Default)]
pub(super) enum LastWrite {
    /// Every later list contains the last write.
    #[default]
    Listed,
    /// A list of an earlier revision was begun before the write.
    Unlisted { revision: i64 },
    /// Such a list has come, and another one was requested: that one counts, whatever it contains.
    Rechecked { revision: i64, awaits: u64 },
}

impl LastWrite {
    /// Records a write of this host.
    pub(super) fn wrote(&mut self, revision: i64) {
        *self = match *self {
            Self::Listed | Self::Unlisted { .. } => Self::Unlisted { revision },
            Self::Rechecked { awaits, .. } => Self::Rechecked { revision, awaits },
        };
    }

    /// Whether a list was begun before the last write.
    pub(super) fn is_missing_in(&self, revision: i64, asked: u64) -> bool {
        match *self {
            Self::Listed => false,
            Self::Unlisted { revision: wrote } => revision < wrote,
            Self::Rechecked {
                revision: wrote,
                awaits,
            } => revision < wrote && asked < awaits,
        }
    }

    /// Requests another list after a list without the last write, unless one was requested already.
    pub(super) fn recheck(&mut self, relist: impl FnOnce() -> u64) {
        if let Self::Unlisted { revision } = *self {
            *self = Self::Rechecked {
                revision,
                awaits: relist(),
            };
        }
    }

    /// Records that a list was taken over.
    pub(super) fn listed(&mut self) {
        *self = Self::Listed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_before_the_last_write_is_asked_for_once_more_and_then_counts() {
        let mut last = LastWrite::default();
        assert!(!last.is_missing_in(1, 0), "nothing was written");
        last.recheck(|| unreachable!("nothing was written"));
        last.wrote(20);
        assert!(!last.is_missing_in(20, 0));
        assert!(last.is_missing_in(19, 4));
        last.recheck(|| 5);
        assert!(last.is_missing_in(19, 4), "also of before");
        last.recheck(|| unreachable!("it was asked for"));
        assert!(!last.is_missing_in(19, 5), "the store went back in time");
        assert!(!last.is_missing_in(20, 4));
        last.listed();
        assert!(!last.is_missing_in(1, 0));
    }
}
