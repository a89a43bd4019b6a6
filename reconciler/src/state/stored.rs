//! A reason in a record: data while this process decides it, and a sentence on the disk, in etcd and
//! in answers over HTTP.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::foreign::{self, ForeignText};

/// A reason that is stored as the sentence that people read. Daemons of earlier versions read and
/// write the sentence, so its text is the stored form, and a reason that was read is only a text.
///
/// Two reasons are equal if their sentences are equal: a leader that reads its own decision back
/// from the store must not store the decision again. No decision depends on a stored reason.
#[derive(Clone, Debug)]
pub enum Stored<R> {
    /// A reason that this process has decided.
    Decided(R),
    /// The sentence of a reason that was read.
    Read(ForeignText),
}

impl<R: fmt::Display> Stored<R> {
    /// The sentence as it is read back: a sentence that quotes a long text of a node is cut, and the
    /// cut one is what the store has.
    fn sentence(&self) -> ForeignText {
        match self {
            Self::Decided(reason) => ForeignText::sentence(&reason.to_string()),
            Self::Read(sentence) => sentence.clone(),
        }
    }
}

impl<R> From<R> for Stored<R> {
    fn from(reason: R) -> Self {
        Self::Decided(reason)
    }
}

impl<R: fmt::Display> fmt::Display for Stored<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sentence().fmt(f)
    }
}

impl<R: PartialEq + fmt::Display> PartialEq for Stored<R> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Decided(reason), Self::Decided(other)) if reason == other => true,
            _ => self.sentence() == other.sentence(),
        }
    }
}

impl<R: PartialEq + fmt::Display> Eq for Stored<R> {}

impl<R: fmt::Display> Serialize for Stored<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, R> Deserialize<'de> for Stored<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        foreign::report(deserializer).map(Self::Read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::NodeName;
    use crate::state::{ImageObstacle, NodeFault, NotReady};

    fn fault() -> Stored<NodeFault> {
        Stored::Decided(NodeFault::NotReady {
            node: NodeName::new("n1"),
            why: NotReady::DaemonHangs,
        })
    }

    #[test]
    fn a_reason_is_stored_as_its_sentence_and_equals_it_when_read_back() {
        let stored = serde_json::to_string(&fault()).expect("a text");
        assert_eq!(
            stored,
            r#""node n1 is not ready: its daemon hangs: is its disk well?""#
        );
        let read: Stored<NodeFault> = serde_json::from_str(&stored).expect("a text");
        assert!(matches!(read, Stored::Read(_)));
        assert_eq!(read, fault());
        assert_eq!(serde_json::to_string(&read).expect("a text"), stored);
    }

    #[test]
    fn a_reason_that_quotes_a_long_text_equals_what_the_store_has_of_it() {
        let long = "x".repeat(foreign::SENTENCE_BYTES);
        let reason: Stored<String> = Stored::Decided(format!("node n1: {long}"));
        let stored = serde_json::to_string(&reason).expect("a text");
        let read: Stored<String> = serde_json::from_str(&stored).expect("a text");
        assert_eq!(read, reason);
        assert_eq!(serde_json::to_string(&read).expect("a text"), stored);
    }

    #[test]
    fn a_sentence_of_another_version_survives_a_round_trip() {
        for sentence in ["what a later version says", "", &"long ".repeat(2000)] {
            let stored = serde_json::to_string(sentence).expect("a text");
            let read: Stored<ImageObstacle> = serde_json::from_str(&stored).expect("a text");
            assert_eq!(read.to_string(), sentence);
            assert_eq!(serde_json::to_string(&read).expect("a text"), stored);
        }
    }

    #[test]
    fn a_sentence_that_is_read_is_escaped() {
        let read: Stored<NodeFault> = serde_json::from_str(r#""a\nb""#).expect("a text");
        assert_eq!(read.to_string(), r"a\nb");
    }
}
