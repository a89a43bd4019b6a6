//! Colours of the output. [`super::output`] removes them if the output is not a terminal.

use owo_colors::OwoColorize;

/// A state that is as it should be: green.
pub(super) fn good(text: &str) -> String {
    text.green().to_string()
}

/// A state that may need attention, or that is not final: yellow.
pub(super) fn soso(text: &str) -> String {
    text.yellow().to_string()
}

/// A failure: red.
pub(super) fn bad(text: &str) -> String {
    text.red().to_string()
}

/// The subject of a line: bold.
pub(super) fn strong(text: &str) -> String {
    text.bold().to_string()
}

/// Details: dimmed.
pub(super) fn faint(text: &str) -> String {
    text.dimmed().to_string()
}
