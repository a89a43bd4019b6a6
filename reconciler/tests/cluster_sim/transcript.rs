//! What happened, for people, and a digest of it, for the test that nothing depends on chance.

use std::collections::VecDeque;

use crate::clock::Time;

/// So many lines are kept for people.
const KEPT: usize = 400;

/// The end of the story, and a hash of all of it.
#[derive(Clone, Debug)]
pub(crate) struct Transcript {
    lines: VecDeque<String>,
    hash: u64,
    /// Whether every line is printed as it comes.
    pub(crate) aloud: bool,
}

impl Default for Transcript {
    fn default() -> Self {
        Self {
            lines: VecDeque::new(),
            hash: 0xcbf2_9ce4_8422_2325,
            aloud: false,
        }
    }
}

impl Transcript {
    pub(crate) fn note(&mut self, now: Time, line: String) {
        let line = format!("{:9.3} {line}", now as f64 / 1000.0);
        // FNV-1a.
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        if self.aloud {
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
