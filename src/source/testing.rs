//! Real repositories and real keys for the tests of this module, made by the `git` and `ssh-keygen`
//! commands.

#![expect(clippy::unwrap_used, reason = "a test")]

mod bomb;
mod https;
mod ssh;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use git2::Repository;
use reconciler::name::CommitId;
use tempfile::TempDir;

pub(crate) use self::bomb::Bomb;
pub(crate) use self::https::HttpsServer;
pub(crate) use self::ssh::SshServer;
use super::allowed_signers::AllowedSigners;
use super::child::ChildProgram;
use super::commit::id_of;
use super::download::{Download, HeadIs};
use super::fetch::{FetchError, FetchLimits, FetchRequest, Fetched};
use super::mirror::{self, Check, Mirror};

/// Runs a command that must succeed, and returns its standard output.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    output(Command::new(program).args(arguments))
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout)
        .unwrap()
        .trim_end()
        .to_owned()
}

/// A directory of key pairs.
pub(crate) struct KeyPairs(TempDir);

impl KeyPairs {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Makes a key pair and returns the private key's path.
    pub(crate) fn generate(&self, name: &str, kind: &str, bits: &str) -> PathBuf {
        let path = self.path(name);
        run(
            "ssh-keygen",
            &[
                "-q",
                "-t",
                kind,
                "-b",
                bits,
                "-N",
                "",
                "-C",
                name,
                "-f",
                path.to_str().unwrap(),
            ],
        );
        path
    }

    /// A line of `allowed_signers` for a generated key.
    pub(crate) fn line(&self, name: &str, options: &str) -> String {
        let public = std::fs::read_to_string(self.path(name).with_extension("pub")).unwrap();
        format!("{name}@example.com {options} {public}")
    }

    /// Signers whose keys are trusted without further options.
    pub(crate) fn signers(&self, names: &[&str]) -> AllowedSigners {
        let lines: String = names.iter().map(|name| self.line(name, "")).collect();
        AllowedSigners::parse(&lines).unwrap()
    }
}

/// A work tree with a repository in it.
pub(crate) struct Work(TempDir);

impl Work {
    pub(crate) fn new() -> Self {
        let work = Self(tempfile::tempdir().unwrap());
        work.git(&["init", "-q", "-b", "main"]);
        work
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn repo(&self) -> Repository {
        Repository::open(self.path()).unwrap()
    }

    /// Runs git in the work tree, without the machine's own configuration.
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        self.git_at("2026-06-01T12:00:00Z", arguments)
    }

    /// As [`Work::git`], with this time as the commit's time.
    pub(crate) fn git_at(&self, time: &str, arguments: &[&str]) -> String {
        output(
            Command::new("git")
                .current_dir(self.path())
                .args([
                    "-c",
                    "user.name=Dev",
                    "-c",
                    "user.email=dev@example.com",
                    "-c",
                    "gpg.format=ssh",
                ])
                .args(arguments)
                .env("GIT_CONFIG_NOSYSTEM", "1")
                .env("GIT_CONFIG_GLOBAL", "/dev/null")
                .env("GIT_AUTHOR_DATE", time)
                .env("GIT_COMMITTER_DATE", time)
                .env("TZ", "UTC"),
        )
    }

    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(crate) fn head(&self) -> CommitId {
        CommitId::parse(&self.git(&["rev-parse", "HEAD"])).unwrap()
    }

    /// Commits everything, signed if a key is given, and returns the commit.
    pub(crate) fn commit(&self, message: &str, key: Option<&Path>) -> CommitId {
        self.commit_at("2026-06-01T12:00:00Z", message, key)
    }

    pub(crate) fn commit_at(&self, time: &str, message: &str, key: Option<&Path>) -> CommitId {
        self.git(&["add", "-A"]);
        let mut arguments = vec!["commit", "-q", "--allow-empty", "-m", message];
        let sign = key.map(|key| format!("-S{}", key.display()));
        arguments.extend(sign.as_deref());
        self.git_at(time, &arguments);
        self.head()
    }

    /// Merges a branch with a merge commit.
    pub(crate) fn merge(&self, branch: &str, key: Option<&Path>) -> CommitId {
        let mut arguments = vec!["merge", "-q", "--no-ff", "-m", "merge", branch];
        let sign = key.map(|key| format!("-S{}", key.display()));
        arguments.extend(sign.as_deref());
        self.git(&arguments);
        self.head()
    }
}

/// A request for `main` with default limits.
pub(crate) fn request(url: impl Into<String>, mirror: &Path) -> FetchRequest {
    FetchRequest {
        url: url.into(),
        branch: "main".to_owned(),
        download: true,
        mirror: mirror.to_owned(),
        credentials: None,
        ca_file: None,
        known_hosts: None,
        limits: FetchLimits::default(),
        keep: BTreeSet::new(),
        refused: BTreeSet::new(),
        check: Check::Quick,
        check_after_error: true,
    }
}

/// Fetches in a child process, and moves the download into the mirror as if its head were trusted.
pub(crate) async fn bring_in(
    child: &ChildProgram,
    request: &FetchRequest,
) -> Result<Fetched, FetchError> {
    // The follower keeps every head that it has accepted.
    let mut request = request.clone();
    if let Ok(mirror) = Mirror::new(&request.mirror).open() {
        let accepted = mirror::refs(&mirror).unwrap().into_iter();
        request
            .keep
            .extend(accepted.map(|(_, target)| id_of(target)));
    }
    let download = Download::fetch(child, request, u64::MAX).await?;
    drop(download.repository().unwrap());
    download.accept().unwrap();
    if download.is_scattered() {
        download.compact(child, HeadIs::Accepted).await.unwrap();
    }
    Ok(download.fetched().clone())
}

/// As [`bring_in`], for tests without a runtime or with a paused clock.
pub(crate) fn bring(request: &FetchRequest) -> Result<Fetched, FetchError> {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let fetch = || runtime().block_on(bring_in(&this_binary(), request));
    std::thread::scope(|scope| scope.spawn(fetch).join().unwrap())
}

/// The environment variable that makes a test binary run as the fetch process.
pub(crate) const AS_CHILD: &str = "WINDLASS_TEST_FETCH_CHILD";

/// This test binary, with the arguments that make it the fetch process.
pub(crate) fn this_binary() -> ChildProgram {
    let program = std::env::current_exe().unwrap();
    let arguments = [
        &format!("{AS_CHILD}=1"),
        // The sandbox restricts one thread: the main one, which then runs the test.
        "RUST_TEST_THREADS=1",
        program.to_str().unwrap(),
        "--exact",
        "--nocapture",
    ];
    let mut arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    arguments.push("source::child::tests::child_entry".into());
    ChildProgram {
        program: "/usr/bin/env".into(),
        arguments,
        fetch_user: None,
    }
}
