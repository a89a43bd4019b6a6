//! Converts YAML to typed objects, and reports every problem of a commit at once.
//!
//! ```text
//! file ──yaml──► values ──kind, upgrade──► values of current groups ──strict──► Kubernetes' structs ──convert──► objects
//!                                                      problems, without columns ──position──► problems
//! ```

mod at;
mod convert;
mod document;
mod encrypted;
mod hash;
mod kind;
mod placeholder;
mod position;
mod problem;
pub(crate) mod similar;
mod strict;
mod upgrade;
mod yaml;

use std::collections::BTreeSet;

use document::{Holds, Outcome, Reading};
use position::Marks;
pub use problem::{Problem, ReadAs, Severity};
use serde_json::Value;
use thiserror::Error;

use crate::{foreign::ForeignText, object::Objects};

/// Maximum length in bytes of text that a message quotes from a manifest.
const MESSAGE_BYTES: usize = 600;

/// A manifest file of a commit.
#[derive(Clone, Copy, Debug)]
pub struct SourceFile<'a> {
    /// Path in the repository. Files that end in `.json` are read as JSON, all others as YAML.
    pub path: &'a str,
    /// Content of the file.
    pub content: &'a [u8],
}

/// Limits on the size of a commit, so that reading one is cheap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum size of one file in bytes; 4 MiB by default.
    pub file_bytes: usize,
    /// Maximum number of documents in a commit, items of lists included; 10,000 by default.
    pub documents: usize,
    /// Maximum number of values in one file after aliases are expanded; 100,000 by default. A file
    /// with more than ten times as many bytes may have one value for every ten bytes: the limit
    /// concerns small files that expand to many values.
    pub nodes: usize,
    /// Maximum nesting of values; 64 by default.
    pub depth: usize,
    /// Maximum number of problems that are reported for one file; 200 by default.
    pub problems: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: 4 << 20,
            documents: 10_000,
            nodes: 100_000,
            depth: 64,
            problems: 200,
        }
    }
}

/// Reads all files of a commit: returns the objects, and all problems sorted by file and line.
///
/// The commit must be refused if one of the problems is an error; the objects are incomplete in
/// that case.
pub fn parse(
    files: &[SourceFile<'_>],
    limits: &Limits,
    read_as: ReadAs,
) -> (Objects, Vec<Problem>) {
    let mut files: Vec<SourceFile<'_>> = files.to_vec();
    files.sort_by_key(|file| file.path);
    let mut commit = CommitReader {
        limits,
        documents: 0,
        reading: Reading::new(read_as),
    };

    let mut problems = Vec::new();
    for file in &files {
        commit.file(file);
        let mut of_file = std::mem::take(&mut commit.reading.problems);
        locate(&mut of_file, std::slice::from_ref(file));
        of_file.sort_by_key(|problem| (problem.line, problem.column));
        bound(&mut of_file, file.path, limits.problems);
        problems.append(&mut of_file);

        if commit.documents > limits.documents {
            let message = format!(
                "the commit has more than {} documents: split it over several paths",
                limits.documents
            );
            problems.push(whole_file(file.path, message));
            break;
        }
    }
    (commit.reading.objects, problems)
}

/// Adds the line and column of the field to problems that only have the line of their document.
pub fn locate(problems: &mut [Problem], files: &[SourceFile<'_>]) {
    let unlocated = |problem: &&mut Problem| problem.column == 0 && problem.line > 0;
    let paths: BTreeSet<String> = problems
        .iter_mut()
        .filter(unlocated)
        .map(|problem| problem.file.clone())
        .collect();
    for file in files.iter().filter(|file| paths.contains(file.path)) {
        let text = yaml::without_boms(
            file.path,
            std::str::from_utf8(file.content).unwrap_or_default(),
        );
        let marks = Marks::read(&text);
        for problem in problems
            .iter_mut()
            .filter(unlocated)
            .filter(|problem| problem.file == file.path)
        {
            match marks.locate(problem.line, &problem.field) {
                Some(position) => (problem.line, problem.column) = (position.line, position.column),
                None => problem.column = 1,
            }
        }
    }
}

/// The position of a document, and what its file contains.
#[derive(Clone, Copy)]
struct DocumentPlace<'a> {
    path: &'a str,
    line: u32,
    holds: Holds,
}

/// Why no document of a file is read.
#[derive(Debug, Error)]
enum FileError {
    #[error(
        "the file has {bytes} bytes and may have {limit}: split it, or move what is no manifest elsewhere"
    )]
    TooLarge { bytes: usize, limit: usize },
    #[error("not UTF-8 at byte {valid_bytes}: save the file as UTF-8")]
    NotUtf8 { valid_bytes: usize },
}

/// The state of reading a commit.
struct CommitReader<'a> {
    limits: &'a Limits,
    documents: usize,
    reading: Reading,
}

impl CommitReader<'_> {
    fn file(&mut self, file: &SourceFile<'_>) {
        let SourceFile { path, content } = *file;
        let text = match self.text(content) {
            Ok(text) => yaml::without_boms(path, text),
            Err(error) => {
                let problem = whole_file(path, error.to_string());
                self.reading.problems.push(problem);
                return;
            }
        };
        let text: &str = &text;
        let (documents, unreadable) = yaml::read(path, text, self.limits);
        for part in unreadable {
            self.report_unreadable(path, text, part);
        }

        let holds = Holds::of(text);
        // Computed for few files: most documents have the line of their first key.
        let mut marks = None;
        let mut without_effect = Vec::new();
        for yaml::Document { value, index, line } in documents {
            if value.is_null() {
                continue;
            }
            let line = line.unwrap_or_else(|| {
                marks
                    .get_or_insert_with(|| Marks::read(text))
                    .document_line(index)
                    .unwrap_or(1)
            });
            let place = DocumentPlace { path, line, holds };
            let Some(items) = self.document(value, place, &mut without_effect) else {
                continue;
            };
            let marks = marks.get_or_insert_with(|| Marks::read(text));
            self.items(items, &marks.item_lines(index), place, &mut without_effect);
        }
        self.warn_of_kinds_without_effect(path, &without_effect);
    }

    /// The text of a file.
    fn text<'f>(&self, content: &'f [u8]) -> Result<&'f str, FileError> {
        if content.len() > self.limits.file_bytes {
            return Err(FileError::TooLarge {
                bytes: content.len(),
                limit: self.limits.file_bytes,
            });
        }
        std::str::from_utf8(content).map_err(|error| FileError::NotUtf8 {
            valid_bytes: error.valid_up_to(),
        })
    }

    /// Reports a part of a file that is no YAML. Often the cause is a placeholder that no program
    /// has replaced.
    fn report_unreadable(&mut self, path: &str, text: &str, part: yaml::Unreadable) {
        let yaml::Unreadable {
            line,
            column,
            message,
        } = part;
        let index = usize::try_from(line)
            .unwrap_or(usize::MAX)
            .saturating_sub(1);
        let placeholder = text.lines().nth(index).and_then(placeholder::in_line);
        let message = match placeholder {
            Some(placeholder) => format!("{message}; {placeholder}"),
            None => message,
        };
        self.reading.problems.push(Problem {
            line,
            column,
            ..whole_file(path, message)
        });
    }

    /// Reads the items of a list; `lines` are those of their first keys.
    fn items(
        &mut self,
        items: Vec<Value>,
        lines: &[u32],
        list: DocumentPlace<'_>,
        without_effect: &mut Vec<(&'static str, u32)>,
    ) {
        for (index, value) in items.into_iter().enumerate() {
            if value.is_null() {
                continue;
            }
            let place = DocumentPlace {
                line: lines.get(index).copied().unwrap_or(list.line),
                ..list
            };
            if self.document(value, place, without_effect).is_some() {
                let message = "a list within a list: write its items one level up".to_owned();
                self.reading.problems.push(Problem {
                    line: place.line,
                    ..whole_file(place.path, message)
                });
            }
        }
    }

    /// Reads a document; if it is a list, reads the items.
    fn document(
        &mut self,
        value: Value,
        DocumentPlace { path, line, holds }: DocumentPlace<'_>,
        without_effect: &mut Vec<(&'static str, u32)>,
    ) -> Option<Vec<Value>> {
        self.documents += 1;
        if self.documents > self.limits.documents {
            return None;
        }
        match self.reading.document(value, path, line, holds) {
            Outcome::Done => None,
            Outcome::NoEffect(kind) => {
                without_effect.push((kind, line));
                None
            }
            Outcome::List(items) => Some(items),
        }
    }

    fn warn_of_kinds_without_effect(&mut self, path: &str, kinds: &[(&'static str, u32)]) {
        let Some((_, line)) = kinds.first() else {
            return;
        };
        let names: BTreeSet<&str> = kinds.iter().map(|(kind, _)| *kind).collect();
        let names: Vec<&str> = names.into_iter().collect();
        let message = format!(
            "accepted without effect: {} mean something only to a Kubernetes API server",
            names.join(", ")
        );
        self.reading.problems.push(Problem {
            line: *line,
            severity: Severity::Warning,
            ..whole_file(path, message)
        });
    }
}

/// Prepares a text from a manifest for a message: escaped and shortened, since messages also go to
/// the daemon's log.
pub(crate) fn one_line(text: &str) -> String {
    ForeignText::bounded(text, MESSAGE_BYTES).into()
}

/// An error that concerns a whole file.
fn whole_file(path: &str, message: String) -> Problem {
    Problem {
        file: path.to_owned(),
        line: 0,
        column: 0,
        severity: Severity::Error,
        field: String::new(),
        message: one_line(&message),
    }
}

/// Keeps the first problems of a file, errors before warnings, and adds a problem with the number
/// of the others.
fn bound(problems: &mut Vec<Problem>, path: &str, most: usize) {
    let more = problems.len().saturating_sub(most);
    if more == 0 {
        return;
    }

    let mut errors = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .count()
        .min(most);
    let mut warnings = most - errors;
    problems.retain(|problem| {
        let left = match problem.severity {
            Severity::Error => &mut errors,
            Severity::Warning => &mut warnings,
        };
        let is_listed = *left > 0;
        *left = left.saturating_sub(1);
        is_listed
    });
    problems.push(whole_file(
        path,
        format!("and {more} more problems: correct these first"),
    ));
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
