//! Standard output: what is printed goes through one place, and nothing foreign acts on the
//! terminal behind it.

use std::io::{self, IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};
use reconciler::foreign;

/// What commands print to. Whole lines are passed on, with everything unprintable escaped but line
/// breaks, tabs and the colours of [`super::paint`]; colours are left out where nobody would see
/// them.
///
/// It is the net below the escaping of each foreign text where it is read: a colour in such a text
/// has become words before it comes here.
pub(crate) struct Output<'o> {
    raw: &'o mut dyn Write,
    colours: bool,
    terminal: bool,
    line: Vec<u8>,
}

impl<'o> Output<'o> {
    /// To standard output, as it is connected.
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

    /// To something that is no terminal, or is taken for one.
    #[cfg(test)]
    pub(crate) fn to(raw: &'o mut dyn Write, terminal: bool) -> Self {
        Self {
            raw,
            colours: terminal,
            terminal,
            line: Vec::new(),
        }
    }

    /// Whether a person looks at it.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes bytes as they are: a container's output that a program reads, or that a person wants
    /// so.
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
        // Whole lines only: a character or a colour may come in two pieces.
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

/// A line on standard error.
pub(super) fn complain(line: &str) {
    let stderr = io::stderr();
    let colours = AutoStream::choice(&stderr) != ColorChoice::Never;
    // There is nowhere left to say that standard error is closed.
    writeln!(stderr.lock(), "{}", printable(line, colours)).unwrap_or_default();
}

/// Text with everything unprintable escaped, but line breaks, tabs and, where they are wanted,
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

/// The length of the colour that a text begins with: ESC, `[`, digits and semicolons, `m` (ECMA-48,
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
