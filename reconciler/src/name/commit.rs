//! The ids of Git commits: a full one, and the beginning of one as a person types it.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Digits of a full id: Git's objects are named by SHA-1, two hexadecimal digits for each byte.
const DIGITS: usize = 40;

/// A Git commit, as its full object id: 40 hexadecimal digits in lower case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommitId(String);

/// The text is not the full id of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a full commit id, which has {DIGITS} hexadecimal digits in lower case")]
pub struct NotACommitId;

impl CommitId {
    /// The id with these digits. Git also accepts an abbreviated id and capitals; neither is an
    /// id here, since ids are compared as texts.
    pub fn parse(text: &str) -> Result<Self, NotACommitId> {
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == DIGITS && text.as_bytes().iter().all(is_digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotACommitId)
        }
    }

    /// An id that is read back from a record, such as the label of a container. It is taken as it
    /// is, like an id in a serialized document: a damaged id is the id of no commit, and must not
    /// make the rest of its record unreadable.
    pub fn recorded(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first ten digits, for people.
    pub fn short(&self) -> &str {
        self.0.get(..10).unwrap_or(&self.0)
    }
}

/// The id whose bytes are these.
impl From<[u8; DIGITS / 2]> for CommitId {
    fn from(bytes: [u8; DIGITS / 2]) -> Self {
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommitId({})", self.0)
    }
}

/// The first digits of a commit's id, or all of them, as a person types them. The digits are not
/// checked: what is no digit is the beginning of no id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommitPrefix(String);

impl CommitPrefix {
    /// The prefix that a person typed.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The one commit of these whose id begins with the prefix; `None` if there is none, and also
    /// if there are several, since the prefix does not say which of them is meant.
    pub fn resolve<'a>(
        &self,
        known: impl IntoIterator<Item = &'a CommitId>,
    ) -> Option<&'a CommitId> {
        let mut matching = known.into_iter().filter(|id| id.0.starts_with(&self.0));
        match (matching.next(), matching.next()) {
            (Some(id), None) => Some(id),
            _ => None,
        }
    }
}

impl fmt::Display for CommitPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::commit_id;

    #[test]
    fn only_a_full_id_in_lower_case_is_an_id() {
        let full = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(
            CommitId::parse(full).map(|id| id.to_string()),
            Ok(full.to_owned())
        );

        let id = CommitId::recorded(full);
        assert_eq!((id.as_str(), id.short()), (full, "0123456789"));
        assert_eq!(CommitId::recorded("0123").short(), "0123");
        assert_eq!(format!("{id:?}"), format!("CommitId({full})"));
        assert_eq!(CommitPrefix::new("01").to_string(), "01");

        let too_long = format!("{full}0");
        let capitals = full.to_uppercase();
        // 40 bytes, and fewer characters.
        let not_ascii = "é".repeat(20);
        for text in ["", "HEAD", &full[..39], &too_long, &capitals, &not_ascii] {
            assert_eq!(CommitId::parse(text), Err(NotACommitId), "{text}");
        }
    }

    #[test]
    fn the_bytes_of_an_id_are_its_digits_two_by_two() {
        let mut bytes = [0; 20];
        (bytes[0], bytes[19]) = (0x0f, 0xa0);
        let id = CommitId::from(bytes);
        assert_eq!(id.as_str(), "0f000000000000000000000000000000000000a0");
        assert_eq!(CommitId::parse(id.as_str()), Ok(id));
    }

    #[test]
    fn a_prefix_names_the_one_commit_whose_id_begins_with_it() {
        let known = ["ab", "abc", "b"].map(commit_id);
        let resolve = |prefix: &str| CommitPrefix::new(prefix).resolve(&known).cloned();
        assert_eq!(resolve("b"), Some(commit_id("b")));
        assert_eq!(resolve("abc"), Some(commit_id("abc")));
        assert_eq!(resolve(commit_id("ab").as_str()), Some(commit_id("ab")));
        for prefix in ["ab", "", "c", "B"] {
            assert_eq!(resolve(prefix), None, "{prefix}");
        }
    }

    #[test]
    fn a_document_with_a_damaged_id_stays_readable() {
        let read: Vec<CommitId> = serde_json::from_str(r#"["0123", ""]"#).unwrap_or_default();
        assert_eq!(read, [CommitId::recorded("0123"), CommitId::recorded("")]);
    }
}
