//! The end of a container's log.

use std::time::Duration;

use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::StreamExt;
use reconciler::{foreign::ForeignText, name::ContainerId};

use crate::docker::{CallError, Engine};

/// The limits of Kubernetes for `FallbackToLogsOnError`.
const TAIL_LINES: &str = "80";
const TAIL_BYTES: usize = 2048;
const TAIL_TIMEOUT: Duration = Duration::from_secs(2);
/// Escaping makes the text longer, and its end is the important part.
const ESCAPED_BYTES: usize = 2 * TAIL_BYTES;

/// The end of a container's log; `None` when it cannot be read.
pub(super) async fn tail(engine: &Engine, container: &ContainerId) -> Option<Vec<u8>> {
    let options = LogsOptionsBuilder::new()
        .stdout(true)
        .stderr(true)
        .tail(TAIL_LINES)
        .build();
    let read = async {
        let docker = engine.client().await?;
        let mut end = Vec::new();
        let mut lines = docker.logs(container.as_str(), Some(options)).boxed();
        while let Some(line) = lines.next().await {
            end.extend_from_slice(line?.as_ref());
            let excess = end.len().saturating_sub(TAIL_BYTES);
            end.drain(..excess);
        }
        Ok::<_, CallError>(end)
    };
    let read = tokio::time::timeout(TAIL_TIMEOUT, read).await;
    read.ok()?.ok()
}

/// The end of a log as one line, for a termination message.
pub(super) fn as_message(end: &[u8]) -> String {
    ForeignText::from_bytes(end.trim_ascii_end(), ESCAPED_BYTES).into()
}

/// The end of a log as lines, the oldest first. The first line may lack its beginning.
pub(super) fn as_lines(end: &[u8]) -> Vec<ForeignText> {
    let end = end.trim_ascii_end();
    if end.is_empty() {
        return Vec::new();
    }

    let mut room = ESCAPED_BYTES;
    let mut lines = Vec::new();
    for line in end.rsplit(|byte| *byte == b'\n') {
        if room == 0 {
            break;
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = ForeignText::from_bytes(from_whole_character(line), room);
        // An empty line counts too, so that lines cannot be more than bytes.
        room = room.saturating_sub(line.as_str().len() + 1);
        lines.push(line);
    }
    lines.reverse();
    lines
}

/// Skips the rest of a UTF-8 character whose beginning was cut off.
fn from_whole_character(line: &[u8]) -> &[u8] {
    let is_continuation = |byte: &u8| byte & 0b1100_0000 == 0b1000_0000;
    let rest = line.iter().take(3).take_while(|byte| is_continuation(byte));
    line.get(rest.count()..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(end: &[u8]) -> Vec<String> {
        as_lines(end).into_iter().map(String::from).collect()
    }

    #[test]
    fn the_end_of_a_log_is_escaped_lines_without_a_half_character() {
        assert!(lines(b"\n \n").is_empty());
        let cut = &"\u{20ac}5\r\n\n  b\u{1b}[2J\n".as_bytes()[1..];
        assert_eq!(lines(cut), ["5", "", "  b\\u{1b}[2J"]);
    }

    #[test]
    fn what_does_not_fit_when_escaped_is_cut_at_the_beginning() {
        let mut end = vec![0x1b; TAIL_BYTES - 5];
        end.extend_from_slice(b"\nlast");
        let lines = lines(&end);
        assert_eq!(lines.last().map(String::as_str), Some("last"));
        let length: usize = lines.iter().map(String::len).sum();
        assert!(length <= ESCAPED_BYTES && lines.len() == 2, "{length}");
    }
}
