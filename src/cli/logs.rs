//! `windlass logs`: a container's output, escaped on a terminal and unchanged otherwise.

mod subject;

use std::io::Write;

use reconciler::foreign;

use super::{
    args::LogsArgs,
    client::{Client, query, segment},
    exit::{CliError, Exit},
    output::Output,
};

/// Prints a log.
pub(super) async fn run(
    client: &Client,
    args: &LogsArgs,
    out: &mut Output<'_>,
) -> Result<Exit, CliError> {
    let pod = subject::pod(client, args).await?;
    let flag = |set: bool| set.then(|| "true".to_owned());
    let query = query(&[
        ("container", args.container.clone()),
        ("follow", flag(args.follow)),
        ("previous", flag(args.previous)),
        ("timestamps", flag(args.timestamps)),
        ("tailLines", args.tail.map(|lines| lines.to_string())),
        (
            "sinceSeconds",
            args.since_seconds.map(|seconds| seconds.to_string()),
        ),
    ]);

    let path = format!(
        "/api/v1/namespaces/{}/pods/{}/log{query}",
        segment(&args.namespace)?,
        segment(&pod)?
    );

    let mut log = client.stream(&path, "*/*").await?;
    if args.raw || !out.is_terminal() {
        while let Some(chunk) = log.chunk().await? {
            out.write_raw(&chunk)?;
        }
        return Ok(Exit::Done);
    }

    let mut text = Text::default();
    while let Some(chunk) = log.chunk().await? {
        write!(out, "{}", text.take(&chunk))?;
        out.flush()?;
    }
    write!(out, "{}", text.end())?;
    Ok(Exit::Done)
}

/// The end of the received text that may be an incomplete character.
#[derive(Default)]
struct Text(Vec<u8>);

impl Text {
    /// Adds bytes, and returns the complete text so far, escaped except line breaks and tabs.
    fn take(&mut self, bytes: &[u8]) -> String {
        self.0.extend_from_slice(bytes);
        let whole = self.0.len() - unfinished(&self.0);
        let rest = self.0.split_off(whole);
        shown(&std::mem::replace(&mut self.0, rest))
    }

    /// The rest of the text, once no more bytes follow.
    fn end(self) -> String {
        shown(&self.0)
    }
}

fn shown(bytes: &[u8]) -> String {
    // A container with a terminal ends its lines with `\r\n`. A carriage return within a line is
    // escaped, since on a terminal it would hide the beginning of the line.
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    foreign::escape_but(&text, &['\n', '\t']).into_owned()
}

/// The number of bytes at the end that may continue in the next piece: a part of a character, or of
/// a line's end.
fn unfinished(bytes: &[u8]) -> usize {
    for (before, byte) in bytes.iter().rev().take(3).enumerate() {
        let needs = match byte {
            b'\r' if before == 0 => return 1,
            0x80..=0xbf => continue,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf7 => 4,
            _ => return 0,
        };
        return if before + 1 < needs { before + 1 } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_text_wherever_it_is_cut() {
        let log = "größer 語🙂\tx\r\n\u{1b}[2J\rover\u{202e}\n".as_bytes();
        let bytes: Vec<u8> = [log, b"\xff\xf0\x9f"].concat();
        let expected = "größer 語🙂\tx\n\\u{1b}[2J\\rover\\u{202e}\n\u{fffd}\u{fffd}";
        for size in 1..=bytes.len() {
            let mut text = Text::default();
            let mut all: String = bytes.chunks(size).map(|chunk| text.take(chunk)).collect();
            all.push_str(&text.end());
            assert_eq!(all, expected, "pieces of {size} bytes");
        }
    }
}
