//! Runs `nft` and `iptables`, with a time limit, and keeps their error output.

use std::{io, process::Stdio, time::Duration};

use reconciler::foreign::ForeignText;
use tokio::{io::AsyncWriteExt, process::Command, time};

use crate::error::{NetworkError, Refusal};

/// A load of 10,000 services takes a third of a second; a lock held by another program may take
/// longer.
const DEADLINE: Duration = Duration::from_secs(30);
/// The limit, in bytes, of the error output that is kept.
const MESSAGE_BYTES: usize = 600;

/// Runs a program with `input` on its standard input and returns its standard output.
pub(crate) async fn run(
    program: &'static str,
    arguments: &[&str],
    input: &str,
) -> Result<String, NetworkError> {
    let failed = |source| NetworkError::Program { program, source };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;

    // Input is written while output is read: with both pipes full, program and daemon would wait
    // for each other.
    let stdin = child.stdin.take();
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A program that stops reading reports the reason on its standard error.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let run = async { tokio::join!(feed, child.wait_with_output()).1 };
    let finished = match time::timeout(DEADLINE, run).await {
        Ok(finished) => finished.map_err(failed)?,
        Err(_) => {
            let seconds = DEADLINE.as_secs();
            return Err(NetworkError::Timeout { program, seconds });
        }
    };

    if finished.status.success() {
        return Ok(String::from_utf8_lossy(&finished.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&finished.stderr);
    let message = ForeignText::words(&stderr, MESSAGE_BYTES);
    Err(NetworkError::Refused {
        program,
        kind: Refusal::of(&stderr),
        message,
    })
}

/// Whether the error means that the program is not installed.
pub(crate) fn is_missing(error: &NetworkError) -> bool {
    matches!(error, NetworkError::Program { source, .. } if source.kind() == io::ErrorKind::NotFound)
}
