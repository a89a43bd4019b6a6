//! Runs a program to its end, and shows all of the program's output when it fails.

use std::path::Path;
use std::process::{Command, Stdio};

/// How a program ended, and its output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The command line, for messages.
    pub(crate) command: String,
    /// The exit code; 128 and more stands for a signal, as in a shell.
    pub(crate) code: i32,
    /// Standard output, without the newlines at its end.
    pub(crate) stdout: String,
    /// Standard error, without the newlines at its end.
    pub(crate) stderr: String,
}

impl Outcome {
    /// Whether the exit code is 0.
    pub(crate) fn success(&self) -> bool {
        self.code == 0
    }

    /// Panics with the whole outcome unless the program succeeded; returns its standard output.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert!(
            self.success(),
            "`{}` ended with {}\nstdout: {}\nstderr: {}",
            self.command,
            self.code,
            self.stdout,
            self.stderr
        );
        self.stdout
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(self) -> serde_json::Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("not JSON: {error}: {text}"))
    }
}

/// Runs a program to its end, without input.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Outcome {
    use std::os::unix::process::ExitStatusExt;

    let line = format!("{command:?}");
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot start {line}: {error}"));
    let signal = output.status.signal().map_or(0, |signal| 128 + signal);
    Outcome {
        command: line,
        code: output.status.code().unwrap_or(signal),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}

/// The directory of the workspace.
pub(crate) fn repository_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

/// A text without its line breaks and indentation: what people read is continued on the next line
/// after 80 columns.
pub(crate) fn unwrapped(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
