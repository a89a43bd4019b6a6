//! Paths and values of manifests as text of bounded length.

use serde_json::Value;

use crate::foreign::ForeignText;

/// Maximum size in bytes of one value, or of one line of a value.
const VALUE_BYTES: usize = 200;
/// Maximum number of lines of a value that are shown.
const LINES: usize = 20;

/// One part of a path: `.replicas`, or `[example.com/team]` for a key with other characters.
pub(super) fn part(key: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.chars().all(is_plain) {
        format!(".{key}")
    } else {
        element(key)
    }
}

/// An element of a list: `[web]`, `[80]`.
pub(super) fn element(name: &str) -> String {
    format!("[{}]", ForeignText::bounded(name, VALUE_BYTES))
}

/// A value in one line: as YAML writes it where that is unambiguous, and as JSON otherwise.
pub(super) fn value(value: &Value) -> String {
    let text = match value {
        Value::String(text) if is_plain(text) => text.clone(),
        other => other.to_string(),
    };
    ForeignText::bounded(&text, VALUE_BYTES).into()
}

/// Whether YAML reads a text without quotes as this text, in every version.
fn is_plain(text: &str) -> bool {
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(is_safe)
        && !text.ends_with(':')
        && !words.contains(&text.to_ascii_lowercase().as_str())
}

/// The lines that differ between two texts, with the number of the first one, counted from 1.
pub(super) fn lines(old: &str, new: &str) -> (u32, Vec<String>, Vec<String>) {
    let (mut old, mut new): (Vec<&str>, Vec<&str>) =
        (old.split('\n').collect(), new.split('\n').collect());
    let same = |(a, b): &(&&str, &&str)| a == b;
    let ahead = old.iter().zip(&new).take_while(same).count();
    old.drain(..ahead);
    new.drain(..ahead);
    let behind = old.iter().rev().zip(new.iter().rev());
    let behind = behind.take_while(same).count();
    old.truncate(old.len() - behind);
    new.truncate(new.len() - behind);
    let first = u32::try_from(ahead + 1).unwrap_or(u32::MAX);
    (first, shown(&old), shown(&new))
}

/// The first lines of a text.
pub(super) fn shown(lines: &[&str]) -> Vec<String> {
    let bounded = |line: &&str| ForeignText::bounded(line, VALUE_BYTES).into();
    let mut shown: Vec<String> = lines.iter().take(LINES).map(bounded).collect();
    if lines.len() > LINES {
        shown.push(format!("... and {} more lines", lines.len() - LINES));
    }
    shown
}
