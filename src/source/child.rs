//! Fetching in a child process of our own binary.
//!
//! libgit2 parses what a stranger sends and has calls that nothing interrupts. In a child it can be
//! killed at the deadline, and a crash or a flood of memory ends the child and not the daemon.
//! Request and answer are one JSON document each, on standard input and as the last line of
//! standard output; secrets never stand in arguments or environment.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use reconciler::foreign::ForeignText;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fetch::{
    FetchError, FetchRequest, Fetched, RemoteUrl, Task, compact, fetch, out_of_memory,
};

/// A request holds a few paths, ids and one secret.
const MAX_REQUEST_BYTES: u64 = 1024 * 1024;
/// An answer holds a few ids or one message.
const MAX_ANSWER_BYTES: u64 = 1024 * 1024;
/// Of each text in an answer.
const TEXT_BYTES: usize = 1024;
/// Of each list in an answer.
const ITEMS: usize = 20;
/// The fetch stops by itself at its deadline; the kill is for the calls that do not.
const GRACE: Duration = Duration::from_secs(2);

/// The directory of trusted certificates where only a file counts. It must exist: git2 replaces
/// what does not by the system's.
const NO_CERTIFICATES: &str = "no-certificates";

/// How to start the child: our own binary and its hidden subcommand.
#[derive(Clone, Debug)]
pub(crate) struct ChildProgram {
    /// The binary.
    pub(crate) program: PathBuf,
    /// What makes it call [`child_main`].
    pub(crate) arguments: Vec<OsString>,
}

/// Runs one fetch in a child, into the quarantine that the caller has begun. When this future is
/// dropped, the child is killed.
///
/// To be awaited on a worker thread of the runtime: the child dies with the thread that started it.
pub(crate) async fn fetch_in_child(
    child: &ChildProgram,
    request: &FetchRequest,
) -> Result<Fetched, FetchError> {
    match run_in_child(child, request).await? {
        ChildAnswer::Fetched(fetched) => Ok(fetched),
        ChildAnswer::Compacted => Err(FetchError::Child {
            detail: "it did something else than asked".to_owned(),
        }),
    }
}

/// Compacts the mirror in a child, into the quarantine that the caller has begun.
pub(crate) async fn compact_in_child(
    child: &ChildProgram,
    request: &FetchRequest,
) -> Result<(), FetchError> {
    let request = FetchRequest {
        task: Task::Compact,
        credentials: None,
        ..request.clone()
    };
    run_in_child(child, &request).await.map(drop)
}

/// What the child did.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ChildAnswer {
    Fetched(Fetched),
    Compacted,
}

async fn run_in_child(
    child: &ChildProgram,
    request: &FetchRequest,
) -> Result<ChildAnswer, FetchError> {
    let url: RemoteUrl = request.url.parse()?;
    let failed = |detail: String| FetchError::Child { detail };
    let document = serde_json::to_vec(request)
        .map_err(|error| failed(format!("encode the request: {error}")))?;
    let mut process = command(child, request, &url)
        .spawn()
        .map_err(|error| failed(format!("start {}: {error}", child.program.display())))?;
    let (Some(mut input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
        return Err(failed("it has no pipes".to_owned()));
    };

    let exchange = async {
        // A child that dies early closes its end; how it died says more than the broken pipe.
        let _ = input.write_all(&document).await;
        drop(input);
        let mut answer = Vec::new();
        output
            .take(MAX_ANSWER_BYTES)
            .read_to_end(&mut answer)
            .await?;
        Ok::<_, io::Error>((answer, process.wait().await?))
    };
    let limit = request.limits.deadline + GRACE;
    match tokio::time::timeout(limit, exchange).await {
        Ok(Ok((answer, status))) => read_answer(&answer, status, &url, request),
        Ok(Err(error)) => Err(failed(format!("talk to it: {error}"))),
        // The process is dropped here, and with that killed.
        Err(_) => Err(FetchError::Timeout {
            url: url.to_string(),
            seconds: request.limits.deadline.as_secs(),
        }),
    }
}

/// The child's whole life: reads a request, fetches, writes the answer.
pub(crate) fn child_main() -> ExitCode {
    // A repository holds Secrets: what is fetched is for root alone.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let answer = match read_request() {
        Ok(request) => {
            let prepared = limit_self(&request).and_then(|()| prepare_home(&request));
            match prepared {
                Ok(()) => check_ca_file(&request).and_then(|()| act(&request)),
                Err(error) => Err(FetchError::Child {
                    detail: format!("prepare: {error}"),
                }),
            }
        }
        Err(error) => Err(FetchError::Child {
            detail: format!("read the request: {error}"),
        }),
    };
    let written = serde_json::to_vec(&answer)
        .map_err(io::Error::from)
        .and_then(|text| {
            let mut output = io::stdout().lock();
            output.write_all(b"\n")?;
            output.write_all(&text)?;
            output.write_all(b"\n")?;
            output.flush()
        });
    if written.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn act(request: &FetchRequest) -> Result<ChildAnswer, FetchError> {
    match request.task {
        Task::Fetch | Task::AskHead => fetch(request).map(ChildAnswer::Fetched),
        Task::Compact => compact(request).map(|()| ChildAnswer::Compacted),
    }
}

fn command(child: &ChildProgram, request: &FetchRequest, url: &RemoteUrl) -> Command {
    let mut command = Command::new(&child.program);
    let home = home(&request.mirror);
    command
        .args(&child.arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // libgit2 takes its configuration and known_hosts from the home directory: not from that of
        // whoever runs us.
        .env("HOME", &home)
        .env("XDG_CONFIG_HOME", &home)
        .env_remove("SSH_AUTH_SOCK")
        .kill_on_drop(true);
    // These two are how OpenSSL is told its authorities; the directory is empty. It reads them all
    // at its start, which takes longer than a local fetch and is for nothing where there is no
    // https.
    match &request.ca_file {
        Some(file) => command
            .env("SSL_CERT_FILE", file)
            .env("SSL_CERT_DIR", home.join(NO_CERTIFICATES)),
        None if url.is_https() => command
            .env_remove("SSL_CERT_FILE")
            .env_remove("SSL_CERT_DIR"),
        None => command
            .env("SSL_CERT_FILE", "/dev/null")
            .env("SSL_CERT_DIR", home.join(NO_CERTIFICATES)),
    };
    command
}

fn read_answer(
    output: &[u8],
    status: ExitStatus,
    url: &RemoteUrl,
    request: &FetchRequest,
) -> Result<ChildAnswer, FetchError> {
    let last_line = output
        .split(|byte| *byte == b'\n')
        .rfind(|line| !line.is_empty())
        .unwrap_or_default();
    if let Ok(mut document) = serde_json::from_slice(last_line) {
        bound(&mut document);
        if let Ok(answer) = serde_json::from_value(document) {
            return answer;
        }
    }
    let url = url.to_string();
    match status.signal().and_then(Signal::from_named_raw) {
        Some(Signal::XFSZ) => Err(FetchError::Limit {
            url,
            what: "bytes".to_owned(),
            limit: request.limits.received_bytes,
        }),
        Some(Signal::XCPU) => Err(FetchError::Timeout {
            url,
            seconds: request.limits.deadline.as_secs(),
        }),
        // What is not libgit2's ends so when memory runs out.
        Some(Signal::ABORT) => Err(FetchError::PackRefused {
            url,
            head: None,
            what: out_of_memory(&request.limits),
        }),
        _ => Err(FetchError::Child {
            detail: format!("it ended without an answer ({status})"),
        }),
    }
}

/// Cuts what is too long. A pack that has taken the child over says what it likes, and messages are
/// kept, printed and sent to other hosts.
fn bound(value: &mut Value) {
    match value {
        Value::String(text) => *text = ForeignText::bounded(text, TEXT_BYTES).into(),
        Value::Array(items) => {
            items.truncate(ITEMS);
            items.iter_mut().for_each(bound);
        }
        Value::Object(fields) => fields.values_mut().for_each(bound),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn read_request() -> io::Result<FetchRequest> {
    let mut document = Vec::new();
    io::stdin()
        .lock()
        .take(MAX_REQUEST_BYTES)
        .read_to_end(&mut document)?;
    serde_json::from_slice(&document).map_err(io::Error::from)
}

/// Bounds what a hostile pack can make this process use, and ends it with the daemon.
fn limit_self(request: &FetchRequest) -> io::Result<()> {
    // The kernel means the thread that started us, so that must be one that stays: a worker of the
    // runtime, no blocking thread.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let limits = &request.limits;
    let pack_and_index = limits.received_bytes.saturating_mul(2);
    for (resource, value) in [
        (Resource::Core, 0),
        (Resource::Cpu, limits.deadline.as_secs().saturating_add(1)),
        (Resource::Fsize, pack_and_index),
        (Resource::As, limits.address_space_bytes),
        (Resource::Data, limits.memory_bytes()),
    ] {
        setrlimit(
            resource,
            Rlimit {
                current: Some(value),
                maximum: Some(value),
            },
        )?;
    }
    Ok(())
}

fn home(mirror: &Path) -> PathBuf {
    let mut home = mirror.as_os_str().to_owned();
    home.push(".home");
    home.into()
}

/// A home directory with exactly the configuration a fetch needs.
fn prepare_home(request: &FetchRequest) -> io::Result<()> {
    let home = home(&request.mirror);
    std::fs::create_dir_all(home.join(".ssh"))?;
    std::fs::create_dir_all(home.join(NO_CERTIFICATES))?;
    // A repository on this host often belongs to a user of its own. libgit2 runs no hooks and no
    // filters here, which is what the ownership check protects from.
    //
    // Packs of a local repository are made here, by windows of ten objects that need not be small.
    let configuration = "[safe]\n\tdirectory = *\n[pack]\n\twindowMemory = 64m\n";
    std::fs::write(home.join(".gitconfig"), configuration)?;
    let known_hosts = match &request.known_hosts {
        Some(file) => std::fs::read(file).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", file.display()))
        })?,
        None => Vec::new(),
    };
    std::fs::write(home.join(".ssh/known_hosts"), known_hosts)
}

/// git2 would take the system's authorities in place of a file that is not there.
fn check_ca_file(request: &FetchRequest) -> Result<(), FetchError> {
    let Some(file) = &request.ca_file else {
        return Ok(());
    };
    let wrong = |detail: String| FetchError::Certificate {
        url: request
            .url
            .parse::<RemoteUrl>()
            .map_or_else(|_| String::new(), |url| url.to_string()),
        detail: format!("CA file {}: {detail}", file.display()),
    };
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    if text.contains("-----BEGIN CERTIFICATE-----") {
        Ok(())
    } else {
        Err(wrong("it holds no PEM certificate".to_owned()))
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
