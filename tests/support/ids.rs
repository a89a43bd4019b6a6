//! Commit ids for tests, which name their commits by short words such as `c1`.
//!
//! The unit tests of every package that has commits, and the simulations, include this file.

use reconciler::name::CommitId;

/// The full id that repeats a word of hexadecimal digits: `c1c1c1c1...`.
#[track_caller]
pub(crate) fn commit_id(word: &str) -> CommitId {
    let digits: String = word.chars().cycle().take(40).collect();
    CommitId::parse(&digits).expect("a word of hexadecimal digits in lower case")
}
