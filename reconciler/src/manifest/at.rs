//! The position of a field in a document: a path that is only formatted when a problem is reported.

use std::{
    cell::RefCell,
    fmt::{self, Display},
};

use super::{Problem, ReadAs, Severity, one_line, placeholder::Placeholders, similar};

/// Maximum number of errors, and of warnings, that are reported for one document at once.
const PROBLEMS_PER_DOCUMENT: usize = 200;

/// The problems of one document, as they are collected.
pub(super) struct Report<'a> {
    /// Path in the repository.
    pub(super) file: &'a str,
    /// Line of the document's first key; problems carry it until `locate` adds the line of their
    /// field.
    pub(super) line: u32,
    read_as: ReadAs,
    placeholders: Placeholders,
    problems: RefCell<Vec<Problem>>,
}

impl<'a> Report<'a> {
    pub(super) fn new(file: &'a str, line: u32, read_as: ReadAs) -> Self {
        Self {
            file,
            line,
            read_as,
            placeholders: Placeholders::default(),
            problems: RefCell::default(),
        }
    }

    /// Records the fields with `${...}`, so that a message about an invalid value can name the
    /// placeholder.
    pub(super) fn find_placeholders(&mut self, document: &serde_json::Value) {
        self.placeholders = Placeholders::of(document, &self.root());
    }

    /// The position of the document itself.
    pub(super) fn root(&self) -> At<'_> {
        At {
            report: self,
            parent: None,
            step: PathStep::Root,
        }
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }
}

/// The position of a field in the document that is read.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    report: &'a Report<'a>,
    parent: Option<&'a At<'a>>,
    step: PathStep<'a>,
}

#[derive(Clone, Copy)]
enum PathStep<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

impl At<'_> {
    /// The position of a field of this mapping.
    pub(super) fn field<'b>(&'b self, name: &'b str) -> At<'b> {
        At {
            report: self.report,
            parent: Some(self),
            step: PathStep::Key(name),
        }
    }

    /// The position of an element of this list.
    pub(super) fn index(&self, index: usize) -> At<'_> {
        At {
            report: self.report,
            parent: Some(self),
            step: PathStep::Index(index),
        }
    }

    /// Reports an error: the commit is refused.
    pub(super) fn error(&self, message: impl Display) {
        self.push(Severity::Error, &message);
    }

    /// Reports a warning: the commit is accepted.
    pub(super) fn warning(&self, message: impl Display) {
        self.push(Severity::Warning, &message);
    }

    /// Reports an error by a rule that earlier versions did not have; for a commit that was
    /// accepted before, the error is a warning.
    pub(super) fn error_in_new_heads(&self, message: impl Display) {
        match self.report.read_as {
            ReadAs::NewHead => self.error(message),
            ReadAs::Accepted => self.warning(format_args!(
                "{message} (this commit was accepted before this rule; a new one is refused for it)"
            )),
        }
    }

    /// Refuses a field that Windlass does not support yet and whose absence would change how the
    /// pod works. `instead` tells what to write in its place: removing the field would have the
    /// same effect as ignoring it.
    pub(super) fn refuse(&self, given: bool, ignoring_would: &str, instead: &str) {
        if given {
            self.error(format_args!(
                "not supported yet: ignoring it would {ignoring_would}; {instead}"
            ));
        }
    }

    /// Warns of a field that has no meaning here, and whose absence changes nothing.
    pub(super) fn ignore(&self, given: bool, why: &str) {
        if given {
            self.warning(format_args!("no effect: {why}"));
        }
    }

    /// Checks a text by its syntax and reports an error with the reason; returns the text in either
    /// case.
    pub(super) fn checked(
        &self,
        text: String,
        syntax: fn(&str) -> Result<(), &'static str>,
    ) -> String {
        if text.is_empty() {
            self.error("required: give it a value");
        } else if let Err(rule) = syntax(&text) {
            self.error(format_args!("{text:?} is not valid: it must be {rule}"));
        }
        text
    }

    /// As [`At::checked`], for an optional field.
    pub(super) fn optional(
        &self,
        text: Option<String>,
        syntax: fn(&str) -> Result<(), &'static str>,
    ) -> Option<String> {
        match text {
            Some(text) if !text.is_empty() => Some(self.checked(text, syntax)),
            _ => None,
        }
    }

    /// Reads one of a closed set of words; a missing or empty text is the default.
    pub(super) fn word<T: Copy>(&self, text: Option<&str>, words: &[(&str, T)], default: T) -> T {
        let text = text.unwrap_or_default();
        if text.is_empty() {
            return default;
        }
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return *value;
        }

        let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let hint = similar::did_you_mean(text, all.iter().copied());
        self.error(format_args!(
            "{text:?} is not known here: write one of {}{hint}",
            all.join(", ")
        ));
        default
    }

    /// Checks that a whole number is within bounds; reports an error and returns the nearest bound
    /// otherwise.
    pub(super) fn within(&self, number: i64, least: i64, most: i64) -> i64 {
        if number < least && most >= i64::from(i32::MAX) {
            self.error(format_args!(
                "{number} is out of range: it must be {least} or more"
            ));
        } else if number < least || number > most {
            self.error(format_args!(
                "{number} is out of range: it must be from {least} to {most}"
            ));
        }
        number.clamp(least, most)
    }

    /// Reads a port number; zero means that the field is missing.
    pub(super) fn port(&self, number: i32) -> u16 {
        if number == 0 {
            self.error("required: write a port from 1 to 65535");
            return 1;
        }
        u16::try_from(self.within(number.into(), 1, 65535)).unwrap_or(1)
    }

    /// Reads a number of seconds or of pods, which must not be negative.
    pub(super) fn count(&self, number: i32) -> u32 {
        u32::try_from(self.within(number.into(), 0, i32::MAX.into())).unwrap_or(0)
    }

    fn push(&self, severity: Severity, message: &dyn Display) {
        let mut problems = self.report.problems.borrow_mut();
        let field = one_line(&self.to_string());
        let message = match self.report.placeholders.at(&field) {
            Some(names) if severity == Severity::Error => {
                format!("{names}; as it is written: {message}")
            }
            _ => message.to_string(),
        };

        // Further problems of the same field usually follow from the first one.
        let follows = problems
            .iter()
            .any(|before| before.field == field && before.severity == Severity::Error);
        // Errors and warnings are counted separately: an error after many warnings must not be
        // lost. Earlier versions lost such an error, and so accepted the commit.
        let before = match self.report.read_as {
            ReadAs::NewHead => problems
                .iter()
                .filter(|before| before.severity == severity)
                .count(),
            ReadAs::Accepted => problems.len(),
        };

        if before < PROBLEMS_PER_DOCUMENT && !follows {
            problems.push(Problem {
                file: self.report.file.to_owned(),
                line: self.report.line,
                column: 0,
                severity,
                field,
                message: one_line(&message),
            });
        }
    }
}

/// Formats a position as `spec.containers[0].image`; keys that are not plain words are in brackets:
/// `metadata.labels[app.example.com/name]`.
impl Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            PathStep::Root => Ok(()),
            PathStep::Index(index) => write!(f, "[{index}]"),
            PathStep::Key(key) => {
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
                let is_word = !key.is_empty() && key.bytes().all(plain);
                let is_below_root = self
                    .parent
                    .is_some_and(|parent| !matches!(parent.step, PathStep::Root));
                match (is_word, is_below_root) {
                    (true, true) => write!(f, ".{key}"),
                    (true, false) => f.write_str(key),
                    (false, _) => write!(f, "[{key}]"),
                }
            }
        }
    }
}
