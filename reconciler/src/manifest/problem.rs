//! What is wrong with a manifest, said so that its author can mend it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::foreign;

/// One thing wrong with a commit. Prints as `file:line:column: field: what, and what to do`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// Path in the repository; empty where the problem is of the whole commit.
    pub file: String,
    /// 1-based line; 0 where there is none.
    pub line: u32,
    /// 1-based column; 0 where there is none.
    pub column: u32,
    /// Whether the commit is refused for it.
    pub severity: Severity,
    /// The field, as `spec.containers[0].image`; empty where the problem is of the whole document.
    pub field: String,
    /// What is wrong, and what to do.
    pub message: String,
}

/// Whether a problem refuses the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// The commit is refused.
    Error,
    /// The commit is taken; somebody should know.
    Warning,
}

/// For what a commit is read, which decides about rules that are newer than the commit may be.
///
/// The objects are the same either way: all hosts of a cluster make the same of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadAs {
    /// It is judged for the first time: every rule holds.
    NewHead,
    /// It was accepted before, perhaps by a version that did not have all of the rules: what only a
    /// newer rule refuses is a warning.
    Accepted,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}", foreign::escape(&self.file))?;
            if self.line > 0 {
                write!(f, ":{}:{}", self.line, self.column)?;
            }
            f.write_str(": ")?;
        }
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", foreign::escape(&self.field))?;
        }
        f.write_str(&foreign::escape(&self.message))
    }
}
