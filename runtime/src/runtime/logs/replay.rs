//! What an engine sends twice: where the file of a followed log is full, Docker 20.10 reads a part of
//! it again, and sends up to some hundred lines once more.

use std::collections::BTreeMap;

use bollard::container::LogOutput;
use bytes::Bytes;
use jiff::Timestamp;

/// How many times of lines are remembered, of each output. What is sent again from before that is
/// passed on: a line that comes twice is better than one that is lost.
const REMEMBERED: usize = 8192;

/// Passes on each line of a followed log once. Each piece of the log begins with its time and a
/// space, as the engine writes it on request.
#[derive(Debug, Default)]
pub(super) struct ReplayFilter {
    output: SentTimes,
    errors: SentTimes,
}

/// The times of the lines that one output has sent. The times of two lines are hardly ever equal;
/// the pieces of a line of more than 16 KiB have the same time. A clock that is set back gives times
/// that were never sent, so that nothing is lost.
#[derive(Debug, Default)]
struct SentTimes {
    /// How many pieces with this time were passed on.
    pieces: BTreeMap<Timestamp, usize>,
    last: Option<LastPiece>,
}

/// The last piece that an output has sent, with its time.
#[derive(Debug)]
struct LastPiece {
    time: Timestamp,
    /// Its number among those with that time.
    number: usize,
    bytes: Bytes,
}

impl LastPiece {
    /// Whether this is the same line once more, and not the next piece of a long one.
    fn is_repeated_by(&self, bytes: &Bytes) -> bool {
        self.bytes.ends_with(b"\n") && self.bytes == *bytes
    }
}

impl ReplayFilter {
    /// The piece, with or without its time; `None` if it was passed on before.
    pub(super) fn pass(&mut self, piece: LogOutput, with_time: bool) -> Option<Bytes> {
        let sent = match &piece {
            LogOutput::StdErr { .. } => &mut self.errors,
            _ => &mut self.output,
        };
        let mut bytes = piece.into_bytes();
        let Some((time, length)) = time_of(&bytes) else {
            return Some(bytes);
        };
        if !sent.is_new(time, &bytes) {
            return None;
        }
        if !with_time {
            drop(bytes.split_to(length));
        }
        Some(bytes)
    }
}

impl SentTimes {
    fn is_new(&mut self, time: Timestamp, bytes: &Bytes) -> bool {
        let number = match &self.last {
            Some(last) if last.time == time && last.is_repeated_by(bytes) => last.number,
            Some(last) if last.time == time => last.number + 1,
            _ => 1,
        };
        self.last = Some(LastPiece {
            time,
            number,
            bytes: bytes.clone(),
        });
        let passed = self.pieces.entry(time).or_default();
        if number <= *passed {
            return false;
        }
        *passed = number;
        if self.pieces.len() > REMEMBERED {
            self.pieces.pop_first();
        }
        true
    }
}

/// The time at the beginning of a piece, and its length with the space.
fn time_of(bytes: &[u8]) -> Option<(Timestamp, usize)> {
    // `2026-11-30T10:07:40.123456789Z` has 30 characters; a zone is not written, as it is UTC.
    let end = bytes.iter().take(40).position(|byte| *byte == b' ')?;
    let text = std::str::from_utf8(bytes.get(..end)?).ok()?;
    Some((text.parse().ok()?, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(second: u32, text: &str) -> LogOutput {
        let message = format!("2026-11-30T10:07:{second:02}.000000001Z {text}").into();
        LogOutput::StdOut { message }
    }

    fn errors(second: u32, text: &str) -> LogOutput {
        let message = output(second, text).into_bytes();
        LogOutput::StdErr { message }
    }

    fn passed(pieces: Vec<LogOutput>) -> String {
        let mut filter = ReplayFilter::default();
        let passed = pieces
            .into_iter()
            .filter_map(|piece| filter.pass(piece, false));
        String::from_utf8_lossy(&passed.collect::<Vec<_>>().concat()).into_owned()
    }

    #[test]
    fn lines_that_are_sent_again_are_passed_on_once() {
        let again = vec![
            output(1, "a\n"),
            output(2, "b\n"),
            errors(2, "B\n"),
            output(3, "c\n"),
            output(2, "b\n"),
            errors(2, "B\n"),
            output(3, "c\n"),
            output(4, "d\n"),
        ];
        assert_eq!(passed(again), "a\nb\nB\nc\nd\n");
    }

    #[test]
    fn the_pieces_of_a_long_line_are_passed_on_once() {
        let long = |second| {
            [
                output(second, "x"),
                output(second, "y"),
                output(second, "z\n"),
            ]
        };
        let first = [output(1, "a\n")].into_iter().chain(long(2));
        let pieces = first
            .chain([output(3, "b\n")])
            .chain(long(2))
            .chain([output(4, "c\n")]);
        assert_eq!(passed(pieces.collect()), "a\nxyz\nb\nc\n");
    }

    #[test]
    fn a_clock_that_is_set_back_loses_no_line() {
        let pieces = vec![output(30, "a\n"), output(10, "b\n"), output(11, "c\n")];
        assert_eq!(passed(pieces), "a\nb\nc\n");
    }

    #[test]
    fn the_time_stays_where_it_is_wanted_and_other_text_is_unchanged() {
        let mut filter = ReplayFilter::default();
        let with_time = filter.pass(output(1, "a\n"), true).expect("new");
        assert_eq!(with_time, "2026-11-30T10:07:01.000000001Z a\n");
        for _ in 0..2 {
            let message = Bytes::from("no time here\n");
            let passed = filter.pass(LogOutput::StdOut { message }, false);
            assert_eq!(passed.expect("passed on"), "no time here\n");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut sent = SentTimes::default();
        for nanos in 0..3 * REMEMBERED {
            let nanos = i128::try_from(nanos).expect("a small number");
            let time = Timestamp::from_nanosecond(nanos).expect("a time");
            assert!(sent.is_new(time, &Bytes::from("a\n")));
        }
        assert_eq!(sent.pieces.len(), REMEMBERED);
    }
}
