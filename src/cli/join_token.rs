//! Reads the token of `windlass cluster join`. The token is a secret, and every user of a host can
//! read the arguments of all its processes in `/proc`: so the token is asked for on the terminal, or
//! read from a file or from standard input.

use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::output;
use crate::peer::JoinToken;

/// The name of standard input among files.
const STANDARD_INPUT: &str = "-";
/// The most that is read of a file, in bytes: a token is shorter.
const LONGEST: u64 = 8 * 1024;

/// The place that holds the token.
#[derive(Clone, Debug, PartialEq, Eq)]
enum TokenPlace {
    /// The command line, by the argument's value.
    Argument(String),
    File(PathBuf),
    StandardInput,
    Terminal,
}

impl TokenPlace {
    /// The place by the arguments; `terminal` is whether standard input is a terminal.
    fn new(argument: Option<&str>, file: Option<&Path>, terminal: bool) -> Result<Self> {
        let file = file.or_else(|| argument.filter(|it| *it == STANDARD_INPUT).map(Path::new));
        match (argument, file) {
            (_, Some(file)) if file == Path::new(STANDARD_INPUT) => Ok(if terminal {
                Self::Terminal
            } else {
                Self::StandardInput
            }),
            (_, Some(file)) => Ok(Self::File(file.to_owned())),
            (Some(token), None) => Ok(Self::Argument(token.to_owned())),
            (None, None) if terminal => Ok(Self::Terminal),
            (None, None) => bail!(
                "there is no terminal to ask for the join token: name its file with --token-file, or \
                 write `-` to read standard input"
            ),
        }
    }
}

/// Reads the token from the place that the arguments name.
pub(super) async fn read(argument: Option<&str>, file: Option<&Path>) -> Result<JoinToken> {
    let text = match TokenPlace::new(argument, file, io::stdin().is_terminal())? {
        TokenPlace::Argument(token) => {
            output::complain(
                "warning: every user of this host can read the join token on the command line: run \
                 `windlass cluster join` without it, and enter the token at the prompt",
            );
            token
        }
        TokenPlace::File(path) => {
            let read = File::open(&path).and_then(bounded);
            read.with_context(|| format!("read the join token in {}", path.display()))?
        }
        TokenPlace::StandardInput => {
            bounded(io::stdin()).context("read the join token from standard input")?
        }
        TokenPlace::Terminal => ask().await?,
    };
    Ok(text.parse()?)
}

fn bounded(source: impl Read) -> io::Result<String> {
    let mut text = String::new();
    source.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

/// Asks for the token on the terminal, which does not show it.
async fn ask() -> Result<String> {
    let silence = Silence::begin().context("switch off the echo of the terminal")?;
    output::prompt("Join token: ").context("ask for the join token")?;
    // Interrupted by the terminal, the command must still switch the echo on again.
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    });
    let line = tokio::select! {
        line = line => line.context("read the join token")?.context("read the join token"),
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted: this host has not joined")),
    };
    drop(silence);
    // The end of the person's line was not shown either.
    output::complain("");
    line
}

/// A terminal that shows no input; dropping this shows it again.
struct Silence(Termios);

impl Silence {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // A terminal that is gone needs no echo.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(argument: Option<&str>, file: Option<&str>, terminal: bool) -> TokenPlace {
        TokenPlace::new(argument, file.map(Path::new), terminal).expect("a place")
    }

    #[test]
    fn the_token_is_asked_for_unless_the_arguments_name_a_place() {
        assert_eq!(place(None, None, true), TokenPlace::Terminal);
        assert_eq!(place(Some("-"), None, true), TokenPlace::Terminal);
        assert_eq!(place(Some("-"), None, false), TokenPlace::StandardInput);
        assert_eq!(place(None, Some("-"), false), TokenPlace::StandardInput);
        let file = TokenPlace::File("/root/token".into());
        assert_eq!(place(None, Some("/root/token"), true), file);
        let argument = TokenPlace::Argument("wlj1.x".to_owned());
        assert_eq!(place(Some("wlj1.x"), None, true), argument);
        let error = TokenPlace::new(None, None, false).expect_err("no place");
        assert!(error.to_string().contains("--token-file"), "{error}");
    }

    #[tokio::test]
    async fn a_file_is_read_up_to_a_bound() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        std::fs::write(&path, "x".repeat(100_000)).expect("written");
        assert_eq!(
            bounded(File::open(&path).expect("opened"))
                .expect("read")
                .len(),
            8192
        );
        let error = read(None, Some(&path)).await.expect_err("no token");
        assert!(error.to_string().contains("no join token"), "{error:#}");
        let missing = directory.path().join("missing");
        let error = read(None, Some(&missing)).await.expect_err("no file");
        assert!(
            error.to_string().contains("read the join token in"),
            "{error:#}"
        );
    }
}
