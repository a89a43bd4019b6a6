//! The windlass daemon under test, running on a host.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::{GitRepo, Host, eventually, pause_after, run};

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_windlass");
/// The data directory of [`Daemon::follow`], as a path on the host.
pub(crate) const DATA_DIR: &str = "/var/lib/windlass";
/// The directory of the sockets of [`Daemon::follow`], as a path on the host.
pub(crate) const SOCKET_DIR: &str = "/run/windlass";

/// How long a daemon may take to end after TERM.
const STOP: Duration = Duration::from_secs(20);

/// A running or ended daemon. The process ends when this value is dropped, and with its host at the
/// latest.
#[derive(Debug)]
pub(crate) struct Daemon {
    process: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `windlass ARGS...` on a host, with more environment variables.
    pub(crate) fn start(host: &Host, args: &[&str], env: &[(&str, &str)]) -> Daemon {
        let mut command = host.command(BINARY);
        command.args(args).envs(env.iter().copied());
        Daemon::spawn(host, &mut command)
    }

    /// Starts `windlass ARGS...` with a hard limit of open files, which the daemon cannot raise.
    pub(crate) fn start_with_files(host: &Host, limit: u32, args: &[&str]) -> Daemon {
        let mut command = host.command("prlimit");
        command
            .args([&format!("--nofile={limit}:{limit}"), BINARY])
            .args(args);
        Daemon::spawn(host, &mut command)
    }

    fn spawn(host: &Host, command: &mut Command) -> Daemon {
        static COUNT: AtomicU32 = AtomicU32::new(0);

        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let log = host.dir().join(format!("windlass-{number}.log"));
        let file = File::create(&log).unwrap();
        let process = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Daemon { process, log }
    }

    /// Starts `windlass run` on a host with a repository to follow, with the host's own directories
    /// for state and sockets, and with more arguments.
    pub(crate) fn follow(host: &Host, repository: &GitRepo, args: &[&str]) -> Daemon {
        let url = repository.url();
        let signers = repository.allowed_signers();
        let mut all = vec![
            "run",
            "--repo",
            &url,
            "--allowed-signers",
            signers.to_str().unwrap(),
            "--data-dir",
            DATA_DIR,
            "--socket-dir",
            SOCKET_DIR,
        ];
        all.extend_from_slice(args);
        Daemon::start(host, &all, &[])
    }

    /// The process id, which is the same inside and outside of the host.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Whether the process has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// All that the daemon has logged, on standard output and standard error.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until the log contains a text; panics with the log when the deadline passes or the
    /// daemon ends before.
    #[track_caller]
    pub(crate) fn wait_for_log(&mut self, deadline: Duration, text: &str) {
        self.wait_until(deadline, &format!("the log contains {text:?}"), |daemon| {
            daemon.log().contains(text)
        });
    }

    /// Waits until a condition holds; panics with the log when the deadline passes or the daemon
    /// ends before.
    #[track_caller]
    pub(crate) fn wait_until(
        &mut self,
        deadline: Duration,
        what: &str,
        mut condition: impl FnMut(&Daemon) -> bool,
    ) {
        let start = Instant::now();
        loop {
            let check = Instant::now();
            if condition(self) {
                return;
            }
            assert!(
                self.is_running(),
                "the daemon ended before this was observed: {what}; the log:\n{}",
                self.log()
            );
            assert!(
                start.elapsed() < deadline,
                "not within {deadline:?}: {what}; the log:\n{}",
                self.log()
            );
            pause_after(check);
        }
    }

    /// Waits for the daemon to end by itself.
    #[track_caller]
    pub(crate) fn wait_for_end(&mut self, deadline: Duration) -> ExitStatus {
        super::eventually_some(deadline, "the daemon ends", || {
            self.process.try_wait().unwrap()
        })
    }

    /// Sends a signal by name, such as `TERM`, `STOP` or `CONT`.
    #[track_caller]
    pub(crate) fn signal(&self, name: &str) {
        run(Command::new("kill").args(["-s", name, &self.pid().to_string()])).ok();
    }

    /// Freezes the daemon: it neither runs nor reads nor answers until it is resumed.
    #[track_caller]
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    /// Resumes a frozen daemon.
    #[track_caller]
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    /// Kills the daemon with signal 9, as a crash would.
    pub(crate) fn kill9(mut self) {
        self.end();
    }

    /// Ends the daemon with TERM, as a service manager does; returns its exit status.
    #[track_caller]
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        let mut status = None;
        eventually(STOP, "the daemon ends after TERM", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    fn end(&mut self) {
        // The daemon may have ended already, and then both calls fail.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            eprintln!("--- the daemon's log:\n{}", self.log());
        }
    }
}
