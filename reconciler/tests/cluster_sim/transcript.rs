//! The events of a history as text, and a hash over the text: equal hashes show that a history
//! depends only on its seed.

use std::collections::VecDeque;

use crate::clock::Time;

/// How many lines are kept, to be printed with a violation.
const KEPT_LINES: usize = 400;

/// The last lines of a history, and a hash over all of its lines.
#[derive(Clone, Debug)]
pub(crate) struct Transcript {
    lines: VecDeque<String>,
    hash: u64,
    /// Whether each line is printed at once.
    pub(crate) verbose: bool,
}

impl Default for Transcript {
    fn default() -> Self {
        Self {
            lines: VecDeque::new(),
            hash: 0xcbf2_9ce4_8422_2325,
            verbose: false,
        }
    }
}

impl Transcript {
    pub(crate) fn note(&mut self, now: Time, line: String) {
        let line = format!("{:9.3} {line}", now as f64 / 1000.0);
        // The hash is FNV-1a.
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.lines.len() == KEPT_LINES {
            self.lines.pop_front();
        }
        if self.verbose {
            eprintln!("{line}");
        }
        self.lines.push_back(line);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn tail(&self, count: usize) -> String {
        let skip = self.lines.len().saturating_sub(count);
        self.lines
            .iter()
            .skip(skip)
            .cloned()
            .collect::<Vec<_>>()
            .join("\n")
    }
}
