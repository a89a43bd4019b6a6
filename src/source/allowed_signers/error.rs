//! Why an `allowed_signers` file is not read.

use std::fmt;

use reconciler::foreign::ForeignText;
use thiserror::Error;

use super::{MAX_BYTES, time::SignerTimeError};

/// The size limit of a message about one line: a line may be a megabyte of any text.
const PROBLEM_BYTES: usize = 400;
/// The most bad lines that a message lists.
const LISTED: usize = 10;

/// Why an `allowed_signers` file is not read.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum AllowedSignersError {
    #[error("allowed signers: the file has {bytes} bytes; at most {MAX_BYTES} are read")]
    TooLarge { bytes: usize },
    /// One entry for each bad line, in order.
    #[error("allowed signers: {}", join(.0))]
    BadLines(Vec<LineProblem>),
}

/// The problem of one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LineProblem {
    /// The number of the line, counted from 1.
    pub(crate) line: usize,
    pub(crate) error: SignerLineError,
}

impl fmt::Display for LineProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = ForeignText::bounded(&self.error.to_string(), PROBLEM_BYTES);
        write!(f, "line {}: {message}", self.line)
    }
}

/// What is wrong with a line, and what to write instead. Words of the line are as they were read:
/// [`LineProblem`] bounds and escapes them.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum SignerLineError {
    #[error(
        "U+{:04X} is a control character: separate words by spaces or tabs, and remove all others",
        u32::from(*.0)
    )]
    ControlCharacter(char),
    #[error("the quoted principals do not end")]
    OpenPrincipals,
    #[error("expected: principals [options] key-type key")]
    Incomplete,
    #[error("no principal before the key")]
    EmptyPrincipals,
    #[error(
        "no principal before the key; begin the line with who it belongs to, as in dev@example.com"
    )]
    KeyFirst,
    #[error("expected a key type and a key, as in an .pub file")]
    NoKey,
    #[error("{0} is a certificate; list its authority's key with the option cert-authority")]
    Certificate(String),
    #[error("{0:?} is no option and no key type known here")]
    UnknownKeyType(String),
    #[error("the {kind} key does not parse ({error}); copy it whole from the .pub file")]
    Key { kind: String, error: ssh_key::Error },
    #[error("the key does not encode again ({0})")]
    Encode(ssh_key::Error),
    #[error("the options end in a comma")]
    TrailingComma,
    #[error("expected a comma after the option {0}")]
    NoComma(String),
    #[error("valid-before is not later than valid-after, so the key is never valid")]
    NeverValid,
    #[error("the value of {0} must be in double quotes")]
    Unquoted(String),
    #[error("the quotes of {0} do not end")]
    OpenValue(String),
    #[error("the option {0} comes twice")]
    Repeated(String),
    #[error("cert-authority takes no value")]
    ValueOfCertAuthority,
    #[error("the option {0} needs a value in double quotes")]
    NoValue(String),
    #[error(
        "{0:?} is no option and no key type; options are cert-authority, namespaces, valid-after, valid-before"
    )]
    UnknownOption(String),
    #[error(transparent)]
    Time(#[from] SignerTimeError),
}

fn join(problems: &[LineProblem]) -> String {
    let listed = problems.iter().take(LISTED).map(LineProblem::to_string);
    let listed = listed.collect::<Vec<_>>().join("; ");
    match problems.len().saturating_sub(LISTED) {
        0 => listed,
        more => format!("{listed}; and {more} more lines"),
    }
}
