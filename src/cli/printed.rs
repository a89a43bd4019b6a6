//! What containers printed last before they failed, for people.

use std::io::{self, Write};

use jiff::Timestamp;
use reconciler::foreign;
use runtime::LastOutput;

use super::wrap;
use crate::http::api::age;

/// The most lines that are printed of one container; the JSON output has all that are kept.
const LINES: usize = 10;

/// Which container failed, how and when, as the title of what it printed.
pub(super) fn title(output: &LastOutput, now: Timestamp) -> String {
    let (pod, container) = (output.pod.to_string(), &output.container);
    let oom = if output.oom { ", out of memory" } else { "" };
    let ago = age::since(Some(output.finished), now);
    let lines = match output.lines.len() {
        0 => "; it printed nothing".to_owned(),
        all if all > LINES => format!("; the last {LINES} of {all} lines:"),
        _ => ":".to_owned(),
    };
    let title = format!(
        "{pod}, container {container}: exit code {}{oom}, {ago} ago{lines}",
        output.code
    );
    foreign::escape(&title).into_owned()
}

/// Prints the last lines of an output as they are, with a mark that no container can forge.
pub(super) fn lines(out: &mut dyn Write, indent: usize, output: &LastOutput) -> io::Result<()> {
    let skipped = output.lines.len().saturating_sub(LINES);
    for line in output.lines.iter().skip(skipped) {
        let text = format!("{:indent$}| {line}", "");
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}

/// Prints outputs with their titles.
pub(super) fn outputs<'a>(
    out: &mut dyn Write,
    indent: usize,
    outputs: impl IntoIterator<Item = &'a LastOutput>,
    now: Timestamp,
) -> io::Result<()> {
    for output in outputs {
        wrap::indented(out, indent, &title(output, now), wrap::plain)?;
        lines(out, indent, output)?;
    }
    Ok(())
}
