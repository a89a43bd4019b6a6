//! Problems of a manifest, written so that its author can correct it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::foreign;

/// One problem of a commit. Prints as `file:line:column: field: what is wrong, and what to do`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// Path in the repository; empty where the problem concerns the whole commit.
    pub file: String,
    /// Line, counted from 1; 0 if unknown.
    pub line: u32,
    /// Column, counted from 1; 0 if unknown.
    pub column: u32,
    /// Whether the commit is refused because of the problem.
    pub severity: Severity,
    /// The field, such as `spec.containers[0].image`; empty where the problem concerns the whole
    /// document.
    pub field: String,
    /// What is wrong, and what to do about it.
    pub message: String,
}

/// Whether a commit is refused because of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// The commit is refused.
    Error,
    /// The commit is accepted; a person should know of the problem.
    Warning,
}

/// Why a commit is read. This decides the severity of problems by rules that are newer than the
/// commit.
///
/// The objects are the same either way: all hosts of a cluster derive the same objects from a
/// commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadAs {
    /// The commit is a new head: every rule applies.
    NewHead,
    /// The commit was accepted before, perhaps by a version without some of the rules: an error by
    /// a newer rule is reported as a warning.
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
