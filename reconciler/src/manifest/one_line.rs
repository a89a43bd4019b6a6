//! Texts of a manifest in messages: whoever writes a manifest writes to the log of the daemon too.

use std::fmt::Write;

/// Where a text is too long to be read.
const MOST: usize = 600;

/// The text on one line, control characters escaped, and cut if it is too long.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(MOST));
    for c in text.chars() {
        if line.len() >= MOST {
            line.push_str("...");
            break;
        }
        if c.is_control() {
            // Writing to a text cannot fail.
            let _ = write!(line, "{}", c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_breaks_and_escapes_are_shown_and_long_texts_cut() {
        assert_eq!(one_line("a\nb\u{1b}[2J"), "a\\nb\\u{1b}[2J");
        assert_eq!(one_line(&"ä".repeat(MOST)), format!("{}...", "ä".repeat(MOST / 2)));
    }
}
