//! Standard output. All output goes through [`Output`], so that no foreign text acts on the
//! terminal.

use std::io::{self, IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};
use reconciler::foreign;

/// The output of a command. Whole lines are passed on; unprintable characters except line breaks,
/// tabs and the colours of [`super::paint`] are escaped. Colours are removed if the output is not a
/// terminal.
///
/// This is a second protection: each foreign text is escaped where it is read, so that a colour in
/// such a text is already visible text here.
pub(crate) struct Output<'o> {
    raw: &'o mut dyn Write,
    colours: bool,
    terminal: bool,
    line: Vec<u8>,
}

impl<'o> Output<'o> {
    /// Standard output, with colours if it is a terminal that supports them.
    pub(crate) fn stdout(raw: &'o mut io::StdoutLock<'_>) -> Self {
        let stdout = io::stdout();
        let colours = AutoStream::choice(&stdout) != ColorChoice::Never;
        Self {
            raw,
            colours,
            terminal: stdout.is_terminal(),
            line: Vec::new(),
        }
    }

    /// Another writer, treated as a terminal if `terminal` is set.
    #[cfg(test)]
    pub(crate) fn to(raw: &'o mut dyn Write, terminal: bool) -> Self {
        Self {
            raw,
            colours: terminal,
            terminal,
            line: Vec::new(),
        }
    }

    /// Whether the output is a terminal.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes bytes unchanged: a container's output for a program, or for a person who requested
    /// it raw.
    pub(super) fn write_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pass_on()?;
        self.raw.write_all(bytes)?;
        self.raw.flush()
    }

    fn pass_on(&mut self) -> io::Result<()> {
        let text = printable(&String::from_utf8_lossy(&self.line), self.colours);
        self.line.clear();
        self.raw.write_all(text.as_bytes())
    }
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        // Only whole lines are passed on, since a character or a colour may be written in pieces.
        if bytes.contains(&b'\n') {
            let end = self
                .line
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |end| end + 1);
            let rest = self.line.split_off(end);
            self.pass_on()?;
            self.line = rest;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pass_on()?;
        self.raw.flush()
    }
}

/// Prints a line to standard error.
pub(super) fn complain(line: &str) {
    let stderr = io::stderr();
    let colours = AutoStream::choice(&stderr) != ColorChoice::Never;
    // If standard error is closed, there is no place to report that.
    writeln!(stderr.lock(), "{}", printable(line, colours)).unwrap_or_default();
}

/// Prints the beginning of a line that a person completes to standard error.
pub(super) fn prompt(text: &str) -> io::Result<()> {
    let mut stderr = io::stderr().lock();
    write!(stderr, "{text}")?;
    stderr.flush()
}

/// The text with unprintable characters escaped, except line breaks, tabs and, if `colours` is set,
/// colours.
fn printable(text: &str, colours: bool) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('\u{1b}') {
        let (before, escape) = rest.split_at(start);
        shown.push_str(&foreign::escape_but(before, &['\n', '\t']));
        let length = colour_length(escape);
        let (escape, after) = escape.split_at(length.unwrap_or(1));
        match length {
            Some(_) if colours => shown.push_str(escape),
            Some(_) => {}
            None => shown.push_str(&foreign::escape(escape)),
        }
        rest = after;
    }
    shown.push_str(&foreign::escape_but(rest, &['\n', '\t']));
    shown
}

/// The length of the colour at the beginning of a text: ESC, `[`, digits and semicolons, `m` (ECMA-48,
/// SGR).
fn colour_length(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    parameters[end..]
        .starts_with('m')
        .then_some("\u{1b}[".len() + end + 1)
}

#[cfg(test)]
mod tests {
    use super::{super::paint, *};

    fn printed(text: &str, terminal: bool) -> String {
        let mut raw = Vec::new();
        let mut out = Output::to(&mut raw, terminal);
        write!(out, "{text}")
            .and_then(|()| out.flush())
            .expect("written to memory");
        String::from_utf8(raw).expect("text")
    }

    #[test]
    fn colours_are_for_terminals_and_nothing_else_passes() {
        let text = format!(
            "{}\t\u{1b}]0;title\u{7}\u{202e}\u{1b}[2J\r\u{9b}1m\nnext\u{1b}[",
            paint::bad("bad")
        );
        let rest = "\t\\u{1b}]0;title\\u{7}\\u{202e}\\u{1b}[2J\\r\\u{9b}1m\nnext\\u{1b}[";
        assert_eq!(printed(&text, true), format!("{}{rest}", paint::bad("bad")));
        assert_eq!(printed(&text, false), format!("bad{rest}"));
    }

    #[test]
    fn pieces_of_a_character_or_a_colour_are_put_together() {
        let mut raw = Vec::new();
        let mut out = Output::to(&mut raw, true);
        for byte in "\u{1b}[31mä\u{1b}[0m\nlast".bytes() {
            out.write_all(&[byte]).expect("written to memory");
        }
        out.write_raw(b"\x1b[2J").expect("written to memory");
        assert_eq!(raw, "\u{1b}[31mä\u{1b}[0m\nlast\u{1b}[2J".as_bytes());
    }
}
