//! Whether a list was begun before this host's last write as a leader was there. Such a list would
//! take the write back, and look like a store that went back in time, whoever leads by then.

/// The last write of this host as a leader, until a list has it.
#[derive(Debug, Default)]
pub(super) enum LastWrite {
    /// Every list that comes has it.
    #[default]
    Listed,
    /// A list of an earlier revision was begun before the write was there.
    Unlisted { revision: i64 },
    /// Such a list came, and another was asked for: the answer to that counts, whatever it says.
    Rechecked { revision: i64, awaits: u64 },
}

impl LastWrite {
    /// This host has written.
    pub(super) fn wrote(&mut self, revision: i64) {
        *self = match *self {
            Self::Listed | Self::Unlisted { .. } => Self::Unlisted { revision },
            Self::Rechecked { awaits, .. } => Self::Rechecked { revision, awaits },
        };
    }

    /// Whether a list was begun before the last write was there.
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

    /// Asks for another list after one without the last write, unless that was done.
    pub(super) fn recheck(&mut self, relist: impl FnOnce() -> u64) {
        if let Self::Unlisted { revision } = *self {
            *self = Self::Rechecked {
                revision,
                awaits: relist(),
            };
        }
    }

    /// A list was taken in.
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
