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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax;

    /// The severities and messages of problems that `say` reports at the root.
    fn said(read_as: ReadAs, say: impl Fn(&At<'_>)) -> Vec<(Severity, String)> {
        let report = Report::new("a.yaml", 1, read_as);
        say(&report.root());
        let problems = report.into_problems();
        problems
            .into_iter()
            .map(|problem| (problem.severity, problem.message))
            .collect()
    }

    #[test]
    fn errors_and_warnings_of_a_document_are_bounded_each() {
        let counts = |read_as, errors: usize, warnings: usize| {
            let said = said(read_as, |at| {
                (0..warnings).for_each(|index| at.index(index).warning("w"));
                (0..errors).for_each(|index| at.index(1_000 + index).error("e"));
            });
            let is_error = |(severity, _): &&(Severity, String)| *severity == Severity::Error;
            let errors = said.iter().filter(is_error).count();
            (errors, said.len() - errors)
        };
        assert_eq!(counts(ReadAs::NewHead, 199, 200), (199, 200));
        assert_eq!(counts(ReadAs::NewHead, 201, 201), (200, 200));
        assert_eq!(counts(ReadAs::Accepted, 5, 198), (2, 198));
    }

    #[test]
    fn a_field_has_one_error_and_what_precedes_it() {
        let said = said(ReadAs::NewHead, |at| {
            at.field("a").warning("1");
            at.field("a").error("2");
            at.field("a").error("3");
            at.field("a").warning("4");
            at.field("b").error("5");
        });
        let messages: String = said.into_iter().map(|(_, message)| message).collect();
        assert_eq!(messages, "125");
    }

    #[test]
    fn a_placeholder_is_named_in_errors_only() {
        let mut report = Report::new("a.yaml", 1, ReadAs::NewHead);
        report.find_placeholders(&serde_json::json!({"a": "${A}"}));
        report.root().field("a").warning("w");
        report.root().field("a").error("e");
        let problems = report.into_problems();
        let begins = |index: usize| problems[index].message.starts_with("`${A}` is not");
        assert_eq!((begins(0), begins(1)), (false, true), "{problems:?}");
    }

    #[test]
    fn an_empty_text_is_a_missing_one_where_a_field_is_optional() {
        let said = said(ReadAs::NewHead, |at| {
            assert_eq!(at.optional(Some(String::new()), syntax::label), None);
            assert_eq!(at.optional(None, syntax::label), None);
            let a = Some("a".to_owned());
            assert_eq!(at.optional(a.clone(), syntax::label), a);
            assert_eq!(at.word(Some(""), &[("b", 1)], 2), 2);
            assert_eq!(at.word(Some("b"), &[("a", 0), ("b", 1)], 2), 1);
        });
        assert_eq!(said, []);
    }

    #[test]
    fn a_number_out_of_range_is_reported_and_becomes_the_nearest_bound() {
        let (most, none) = (i64::from(i32::MAX), "");
        for (number, least, most, expected, message) in [
            (1, 1, 9, 1, none),
            (9, 1, 9, 9, none),
            (0, 1, 9, 1, "0 is out of range: it must be from 1 to 9"),
            (10, 1, 9, 9, "10 is out of range: it must be from 1 to 9"),
            (1, 1, most, 1, none),
            (most, 1, most, most, none),
            (-1, 1, most, 1, "-1 is out of range: it must be 1 or more"),
            (
                most + 1,
                1,
                most,
                most,
                "2147483648 is out of range: it must be from 1 to 2147483647",
            ),
            (
                0,
                1,
                most - 1,
                1,
                "0 is out of range: it must be from 1 to 2147483646",
            ),
        ] {
            let said = said(ReadAs::NewHead, |at| {
                assert_eq!(at.within(number, least, most), expected, "{number}");
            });
            let messages: String = said.into_iter().map(|(_, message)| message).collect();
            assert_eq!(messages, message, "{number} from {least} to {most}");
        }
        let said = said(ReadAs::NewHead, |at| {
            assert_eq!([1, 2, 65535].map(|port| at.port(port)), [1, 2, 65535]);
            assert_eq!(
                [0, 2, i32::MAX].map(|count| at.count(count)),
                [0, 2, 2_147_483_647]
            );
        });
        assert_eq!(said, []);
    }
}
