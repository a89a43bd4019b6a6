//! Lines of at most 80 columns, for text that people read: a longer line is continued below the
//! beginning of its text. A longer word, such as an image with its digest, stays whole, so that it can
//! be copied.

use std::io::{self, Write};

use super::paint;

/// The width of a terminal that is as wide as it was made.
pub(super) const COLUMNS: usize = 80;
/// The indentation of the lines of a section.
const INDENT: usize = 2;
/// The width of the title of a line.
const TITLE: usize = 9;

/// The column of the text of a line with a title.
pub(super) const TEXT_COLUMN: usize = INDENT + TITLE + 1;

/// A colour of [`paint`]; it is put on each line of a text by itself.
pub(super) type Colour = fn(&str) -> String;

/// Text without a colour.
pub(super) fn plain(text: &str) -> String {
    text.to_owned()
}

/// Splits a text between its words into lines that fit to the right of `indent` columns.
pub(super) fn split(text: &str, indent: usize) -> Vec<String> {
    let room = COLUMNS.saturating_sub(indent).max(1);
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut width = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if width > 0 && width + 1 + length > room {
            lines.push(std::mem::take(&mut line));
            width = 0;
        }
        if width > 0 {
            line.push(' ');
            width += 1;
        }
        line.push_str(word);
        width += length;
    }
    lines.push(line);
    lines
}

/// Prints a text, each line of it indented.
pub(super) fn indented(
    out: &mut dyn Write,
    indent: usize,
    text: &str,
    colour: Colour,
) -> io::Result<()> {
    split(text, indent)
        .iter()
        .try_for_each(|line| writeln!(out, "{:indent$}{}", "", colour(line)))
}

/// Prints a text whose further lines are indented by two columns more than its first.
pub(super) fn hanging(out: &mut dyn Write, text: &str) -> io::Result<()> {
    let begin = text.len() - text.trim_start().len();
    let mut indent = begin;
    for line in split(&text[begin..], begin + INDENT) {
        writeln!(out, "{:indent$}{line}", "")?;
        indent = begin + INDENT;
    }
    Ok(())
}

/// Prints a text with its title at the left of the first line.
pub(super) fn titled(
    out: &mut dyn Write,
    title: &str,
    text: &str,
    colour: Colour,
) -> io::Result<()> {
    let mut title = title;
    for line in split(text, TEXT_COLUMN) {
        let text = format!("{:INDENT$}{title:<TITLE$} {}", "", colour(&line));
        writeln!(out, "{}", text.trim_end())?;
        title = "";
    }
    Ok(())
}

/// Prints a line that begins a section: `head` is bold, and the first word after it has a colour.
pub(super) fn headed(
    out: &mut dyn Write,
    head: &str,
    text: &str,
    colour: Colour,
) -> io::Result<()> {
    let room = INDENT.max(head.chars().count() + 1);
    let mut lines = split(text, room).into_iter();
    let first = lines.next().unwrap_or_default();
    let (word, rest) = first.split_at(first.find([' ', ':']).unwrap_or(first.len()));
    writeln!(out, "{} {}{rest}", paint::strong(head), colour(word))?;
    lines.try_for_each(|line| writeln!(out, "{:room$}{line}", ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_split_between_words_only() {
        let long = "a".repeat(100);
        assert_eq!(split("", 12), [""]);
        assert_eq!(
            split(&format!("see {long} there"), 20),
            ["see", long.as_str(), "there"]
        );
        let words = vec!["word"; 40].join(" ");
        let lines = split(&words, 12);
        assert!(lines.iter().all(|line| line.chars().count() <= 68));
        assert_eq!(lines.join(" "), words);
    }

    #[test]
    fn a_title_stands_on_the_first_line_only() {
        let mut printed = Vec::new();
        let text = vec!["word"; 16].join(" ");
        titled(&mut printed, "why", &text, plain).expect("written to memory");
        assert_eq!(
            String::from_utf8(printed).expect("text"),
            "  why       word word word word word word word word word word word word word\n            \
             word word word\n"
        );
    }
}
