//! Fetches in a child process of the daemon's own binary.
//!
//! libgit2 parses data of an untrusted remote and has calls that cannot be interrupted. A child
//! process can be killed at the deadline, and a crash or excessive memory ends the child and not
//! the daemon. Request and answer are one JSON document each, on standard input and as the last
//! line of standard output; secrets never appear in arguments or in the environment.

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
/// The size limit of each text in an answer.
const TEXT_BYTES: usize = 1024;
/// The length limit of each list in an answer.
const ITEMS: usize = 20;
/// The fetch ends by itself at its deadline; the child is killed after this additional time for
/// calls that do not.
const GRACE: Duration = Duration::from_secs(2);

/// The directory of trusted certificates if only `ca_file` counts. It must exist: git2 replaces a
/// missing directory by the system's.
const NO_CERTIFICATES: &str = "no-certificates";

/// How to start the child: the daemon's own binary and its hidden subcommand.
#[derive(Clone, Debug)]
pub(crate) struct ChildProgram {
    pub(crate) program: PathBuf,
    /// The arguments that make the binary call [`child_main`].
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
            detail: "it has answered another request".to_owned(),
        }),
    }
}

/// Compacts the mirror in a child process, into the quarantine that the caller has begun.
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

/// The answer of the child.
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
        // A child that dies early closes its end of the pipe; its exit status explains more than
        // the broken pipe.
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
        Ok(Err(error)) => Err(failed(format!("exchange with it: {error}"))),
        // The process is dropped here, which kills it.
        Err(_) => Err(FetchError::Timeout {
            url: url.to_string(),
            seconds: request.limits.deadline.as_secs(),
        }),
    }
}

/// The main function of the child: reads a request, fetches, writes the answer.
pub(crate) fn child_main() -> ExitCode {
    // A repository may hold Secrets: only root may read what is fetched.
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

    // A library may have written to standard output before; the answer is the last line.
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
        // libgit2 reads its configuration and known_hosts from the home directory, which must not
        // be that of the user who started the daemon.
        .env("HOME", &home)
        .env("XDG_CONFIG_HOME", &home)
        .env_remove("SSH_AUTH_SOCK")
        .kill_on_drop(true);

    // OpenSSL reads its certificate authorities from these two variables; the directory is empty.
    // Reading the system's authorities at the start takes longer than a local fetch, and is useless
    // without https.
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

    // Without an answer the signal tells which limit of `limit_self` ended the child: the kernel
    // sends SIGXFSZ for RLIMIT_FSIZE and SIGXCPU for RLIMIT_CPU (setrlimit(2)).
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
        // Code outside of libgit2 aborts when memory runs out.
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

/// Truncates long texts and lists. A child that a malicious pack controls can answer anything, and
/// messages are stored, printed and sent to other hosts.
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

/// Limits the resources that a malicious pack can make this process use, and ends the process with
/// the daemon.
fn limit_self(request: &FetchRequest) -> io::Result<()> {
    // The kernel sends this signal when the thread that started the process ends, so that thread
    // must stay: a worker of the runtime, and no blocking thread (prctl(2), PR_SET_PDEATHSIG).
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

/// Makes a home directory with exactly the configuration that a fetch needs.
fn prepare_home(request: &FetchRequest) -> io::Result<()> {
    let home = home(&request.mirror);
    std::fs::create_dir_all(home.join(".ssh"))?;
    std::fs::create_dir_all(home.join(NO_CERTIFICATES))?;

    // A repository on this host often belongs to another user. libgit2 runs no hooks and no filters
    // here, against which the ownership check protects.
    //
    // Packs of a local repository are made on this host, with windows of ten objects that may be
    // large.
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

/// git2 would use the system's certificate authorities in place of a missing file.
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
