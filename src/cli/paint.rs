//! Colours. The stream that they are written to takes them out where it is no terminal.

use owo_colors::OwoColorize;

/// Good.
pub(super) fn good(text: &str) -> String {
    text.green().to_string()
}

/// Not good yet.
pub(super) fn soso(text: &str) -> String {
    text.yellow().to_string()
}

/// Bad.
pub(super) fn bad(text: &str) -> String {
    text.red().to_string()
}

/// A heading.
pub(super) fn strong(text: &str) -> String {
    text.bold().to_string()
}

/// Not important.
pub(super) fn faint(text: &str) -> String {
    text.dimmed().to_string()
}

/// A word of the life of a commit, in its colour.
pub(super) fn state(word: &str) -> String {
    match word {
        "Healthy" => good(word),
        "Degraded" | "Refused" | "RolledBack" => bad(word),
        "Empty" | "Superseded" => faint(word),
        _ => soso(word),
    }
}
