//! Parses bytes to values: YAML as kubectl reads it, within a budget.
//!
//! serde_yaml alone expands aliases without bound, accepts duplicate keys and unknown tags, does
//! not apply merge keys, and reads YAML 1.2 where kubectl reads 1.1 (`0644`, `yes`). The seed here
//! bounds aliases, refuses duplicate keys and unknown tags, applies merge keys and reads YAML 1.1.

mod node;

use std::{borrow::Cow, cell::OnceCell};

use node::{OURS, Source};
use saphyr_parser::{Event, Parser};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use super::Limits;

/// One document of a file.
pub(super) struct Document {
    /// The value of the document.
    pub(super) value: Value,
    /// Index of the document in its file.
    pub(super) index: usize,
    /// Line of the document's first key; `None` where it has none.
    pub(super) line: Option<u32>,
}

/// Why a document, and the rest of its file, cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) message: String,
}

/// Maximum number of brackets that may be open at once. With more, serde_yaml is not called: its
/// scanner checks all open brackets at each token.
const OPEN_BRACKETS: usize = 1_000;

const BOM: char = '\u{feff}';

/// Removes the byte order marks before documents: editors on Windows write them, and tools that
/// concatenate files leave them in the middle. YAML 1.2 (section 5.2) allows a byte order mark
/// before every document.
pub(super) fn without_boms<'a>(path: &str, text: &'a str) -> Cow<'a, str> {
    let text = text.strip_prefix(BOM).unwrap_or(text);
    if !text.contains(BOM) {
        return Cow::Borrowed(text);
    }
    let json = path.ends_with(".json");
    let mut mended = String::with_capacity(text.len());
    let mut document_begins = true;
    for line in text.split_inclusive('\n') {
        let bare = line.strip_prefix(BOM);
        let content = bare.unwrap_or(line);
        let separates = content.starts_with("---") || content.starts_with("...");
        // A JSON string contains no literal line break, so no line begins inside a string.
        let taken = if json || separates || document_begins {
            content
        } else {
            line
        };
        mended.push_str(taken);
        let is_filler = content.trim().is_empty() || content.starts_with('#');
        document_begins = separates || (document_begins && is_filler);
    }
    Cow::Owned(mended)
}

/// Reads all documents of a file [without byte order marks](without_boms); documents after one that
/// cannot be read may be missing.
pub(super) fn read(path: &str, text: &str, limits: &Limits) -> (Vec<Document>, Vec<Unreadable>) {
    if let Some(unreadable) = too_many_open_brackets(text) {
        return (Vec::new(), vec![unreadable]);
    }
    let source = Source::new(text, limits);
    if path.ends_with(".json") {
        read_json(&source)
    } else {
        read_yaml(&source)
    }
}

fn read_yaml(source: &Source<'_>) -> (Vec<Document>, Vec<Unreadable>) {
    let mut documents = Vec::new();
    let mut unreadable: Vec<Unreadable> = unknown_core_tag(source.text).into_iter().collect();
    let mut lines = Lines::default();
    let sound = OnceCell::new();
    for (index, document) in serde_yaml::Deserializer::from_str(source.text).enumerate() {
        match source.document(document) {
            Ok((value, first_key)) => {
                let line = first_key.map(|offset| lines.line_of(source.text, offset));
                documents.push(Document { value, index, line });
            }
            Err(error) => {
                let (ours, problem) = yaml_error(&error);
                unreadable.push(problem);
                // After an error of its own, serde_yaml's parser is somewhere inside a document,
                // and panics at the end of one that it has not begun. An error of ours may come
                // before one of its own.
                let is_sound = || index < *sound.get_or_init(|| sound_documents(source.text));
                if !ours || source.is_spent() || !is_sound() {
                    break;
                }
            }
        }
    }
    (documents, unreadable)
}

/// How many documents serde_yaml reads before it meets an error of its own.
fn sound_documents(text: &str) -> usize {
    let documents = serde_yaml::Deserializer::from_str(text);
    documents
        .map(IgnoredAny::deserialize)
        .take_while(Result::is_ok)
        .count()
}

fn read_json(source: &Source<'_>) -> (Vec<Document>, Vec<Unreadable>) {
    let mut documents = Vec::new();
    let mut lines = Lines::default();
    let mut json = serde_json::Deserializer::from_str(source.text);
    for index in 0.. {
        if json.end().is_ok() {
            break;
        }
        match source.document(&mut json) {
            Ok((value, first_key)) => {
                let line = first_key.map(|offset| lines.line_of(source.text, offset));
                documents.push(Document { value, index, line });
            }
            Err(error) => {
                let (line, column) = (number(error.line()), number(error.column()).max(1));
                let message = without_position(&error.to_string(), error.line(), error.column());
                let message = match message.split_once(OURS) {
                    Some((_, message)) => message.to_owned(),
                    None => format!("not valid JSON: {message}"),
                };
                return (
                    documents,
                    vec![Unreadable {
                        line,
                        column,
                        message,
                    }],
                );
            }
        }
    }
    (documents, Vec::new())
}

/// The problem, and whether this module reported it rather than the parser.
fn yaml_error(error: &serde_yaml::Error) -> (bool, Unreadable) {
    let (line, column) = error
        .location()
        .map_or((1, 1), |place| (place.line(), place.column()));
    let message = without_position(&error.to_string(), line, column);
    let (ours, message) = match message.split_once(OURS) {
        Some((_, message)) => (true, message.to_owned()),
        None => (false, format!("not valid YAML: {message}")),
    };
    let hint = if message.contains("cannot start any token") || message.contains("tab character") {
        " (indent with spaces, not tabs, and quote texts that begin with @, ` or %)"
    } else {
        ""
    };
    let message = format!("{message}{hint}");
    (
        ours,
        Unreadable {
            line: number(line),
            column: number(column),
            message,
        },
    )
}

fn without_position(message: &str, line: usize, column: usize) -> String {
    message.replacen(&format!(" at line {line} column {column}"), "", 1)
}

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Counts brackets everywhere, in texts too. The count is only wrong where a text opens a thousand
/// brackets and closes none.
fn too_many_open_brackets(text: &str) -> Option<Unreadable> {
    let (mut open, mut line) = (0_usize, 1);
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            b'\n' => line += 1,
            _ => {}
        }
        if open > OPEN_BRACKETS {
            let message = format!("more than {OPEN_BRACKETS} brackets are open here: close them");
            return Some(Unreadable {
                line,
                column: 1,
                message,
            });
        }
    }
    None
}

/// The first of YAML's own tags (`!!binary`) that serde_yaml would silently ignore.
fn unknown_core_tag(text: &str) -> Option<Unreadable> {
    if !text.contains("!!") {
        return None;
    }
    for event in Parser::new_from_str(text) {
        let (event, span) = event.ok()?;
        let (Event::Scalar(.., Some(tag))
        | Event::SequenceStart(_, Some(tag))
        | Event::MappingStart(_, Some(tag))) = event
        else {
            continue;
        };
        let known = matches!(
            tag.suffix.as_str(),
            "str" | "int" | "bool" | "float" | "null" | "seq" | "map"
        );
        if tag.is_yaml_core_schema() && !known {
            let message = format!(
                "the tag !!{} is not known: write the value as a text, a list or a mapping; base64 belongs under \
                 binaryData of a ConfigMap or data of a Secret",
                tag.suffix
            );
            return Some(Unreadable {
                line: number(span.start.line()),
                column: number(span.start.col() + 1),
                message,
            });
        }
    }
    None
}

/// Converts offsets to lines. Each search continues from the last one, so offsets must not decrease.
#[derive(Default)]
struct Lines {
    offset: usize,
    newlines: u32,
}

impl Lines {
    fn line_of(&mut self, text: &str, offset: usize) -> u32 {
        let passed = text.as_bytes().get(self.offset..offset).unwrap_or_default();
        self.newlines += number(passed.iter().filter(|byte| **byte == b'\n').count());
        self.offset = offset;
        self.newlines + 1
    }
}

#[cfg(test)]
mod tests;
