//! One host with a repository and a daemon that follows it.

mod look;

use std::fs;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Daemon, GitRepo, Host, Outcome, Registry, is, pause_after};

/// The deadline for changes that normally take a few seconds.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// The trailer that lets a commit delete more workloads than the budget.
pub(crate) const MAY_DELETE: &str = "\n\nWindlass-Allow-Deletions: yes";
/// The node port of the tests' Services.
pub(crate) const NODE_PORT: u16 = 30080;

/// A repository, and a daemon on a host that follows it, with short times in its configuration.
///
/// When a site is dropped, its daemon ends and the host is cleared for the next site.
#[derive(Debug)]
pub(crate) struct Site {
    /// The host.
    pub(crate) host: &'static Host,
    /// The repository.
    pub(crate) repo: GitRepo,
    daemon: Option<Daemon>,
    config: PathBuf,
    _turn: Option<Turn>,
}

impl Site {
    /// A site whose daemon is not started yet, on the host that the tests of a binary use one after
    /// the other. `more` is added to the configuration: sections with their keys, in TOML.
    pub(crate) fn new(more: &str) -> Site {
        let turn = Turn::take();
        Site::make(Host::shared(), more, Some(turn))
    }

    /// Like [`Site::new`], with a daemon that answers.
    pub(crate) fn started(more: &str) -> Site {
        let mut site = Site::new(more);
        site.start();
        site
    }

    /// A site on a host of its own that stays until the test binary ends, for tests that only read
    /// what runs there.
    pub(crate) fn lasting(more: &str) -> Site {
        static HOST: OnceLock<Host> = OnceLock::new();
        Site::make(HOST.get_or_init(Host::with_images), more, None)
    }

    fn make(host: &'static Host, more: &str, turn: Option<Turn>) -> Site {
        let site = Site {
            host,
            repo: GitRepo::new(),
            daemon: None,
            config: host.dir().join("windlass.toml"),
            _turn: turn,
        };
        site.configure(more);
        site
    }

    /// Replaces the configuration file; the next daemon that starts reads it.
    #[track_caller]
    pub(crate) fn configure(&self, more: &str) {
        let base = format!(
            "[source]\nurl = '{}'\n[trust]\nallowed-signers = '{}'\n[rollout]\nsoak = '500ms'\n\
             [network]\ndrain-delay = '200ms'\n[node]\nname = 'node-1'\n",
            self.repo.url(),
            self.repo.allowed_signers().display(),
        );
        fs::write(&self.config, merged([base.as_str(), more])).unwrap();
    }

    /// Starts the daemon and waits until it answers.
    #[track_caller]
    pub(crate) fn start(&mut self) {
        self.launch(&[]);
        self.wait_answers();
    }

    /// Like [`Site::start`], with a limit of open files for the daemon.
    #[track_caller]
    pub(crate) fn start_with_files(&mut self, limit: u32) {
        let config = self.config.display().to_string();
        let arguments = ["run", "--config", &config];
        self.daemon = Some(Daemon::start_with_files(self.host, limit, &arguments));
        self.wait_answers();
    }

    /// Starts the daemon with more environment variables, and does not wait until the daemon
    /// answers: these may make it end before.
    #[track_caller]
    pub(crate) fn launch(&mut self, env: &[(&str, &str)]) {
        assert!(self.daemon.is_none(), "a daemon runs already");
        let config = self.config.display().to_string();
        self.daemon = Some(Daemon::start(self.host, &["run", "--config", &config], env));
    }

    #[track_caller]
    fn wait_answers(&mut self) {
        let host = self.host;
        self.daemon().wait_until(SOON, "the daemon answers", |_| {
            host.http_get("http://127.0.0.1:9464/healthz")
                .is_some_and(|answer| answer.status == 200)
        });
    }

    /// Ends the daemon with TERM, as a service manager does; its containers keep running.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        assert!(
            self.take_daemon().stop().success(),
            "the daemon did not end with status 0"
        );
    }

    /// The running daemon.
    #[track_caller]
    pub(crate) fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().unwrap()
    }

    /// Takes the daemon out of the site, for a test that ends the daemon in another way.
    #[track_caller]
    pub(crate) fn take_daemon(&mut self) -> Daemon {
        self.daemon.take().unwrap()
    }

    /// All that the running daemon has logged.
    #[track_caller]
    pub(crate) fn log(&self) -> String {
        self.daemon.as_ref().unwrap().log()
    }

    /// The registry on the network of the shared host.
    pub(crate) fn registry(&self) -> &'static Registry {
        static REGISTRY: OnceLock<Registry> = OnceLock::new();
        REGISTRY.get_or_init(|| Registry::start(&Host::shared().network))
    }

    /// Runs the command line.
    pub(crate) fn windlass(&self, args: &[&str]) -> Outcome {
        self.host.windlass(args)
    }

    /// Writes files, commits them signed and pushes; returns the commit's id.
    #[track_caller]
    pub(crate) fn push(&self, files: &[(&str, &str)], message: &str) -> String {
        self.repo.commit_signed(files, message)
    }

    /// Pushes files and waits until their commit is healthy; returns the commit's id.
    #[track_caller]
    pub(crate) fn deploy(&mut self, files: &[(&str, &str)]) -> String {
        let commit = self.push(files, "deploy");
        self.wait_healthy(&commit);
        commit
    }

    /// Replaces all files of the repository, and waits with `windlass sync --wait` until the commit
    /// is healthy; returns the commit's id.
    #[track_caller]
    pub(crate) fn deploy_only(&mut self, files: &[(&str, &str)], subject: &str) -> String {
        let commit = self.repo.replace_signed(files, subject);
        if self.daemon.is_none() {
            self.start();
        }
        let outcome = self.windlass(&["sync", "--wait", "--timeout", "90s"]);
        assert!(
            outcome.success(),
            "{subject}: {outcome:#?}\n{}",
            self.windlass(&["status"]).stdout
        );
        commit
    }

    /// What `windlass status` prints, as JSON.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.windlass(&["status", "-o", "json"]).json()
    }

    /// Waits until the status that the daemon publishes fulfils a condition, also where the daemon
    /// does not answer yet; returns that status.
    #[track_caller]
    pub(crate) fn wait_status(&mut self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let start = Instant::now();
        loop {
            let check = Instant::now();
            last = self.host.status().unwrap_or(last);
            if condition(&last) {
                return last;
            }
            let daemon = self.daemon();
            assert!(
                daemon.is_running(),
                "the daemon ended before this was observed: {what}; the log:\n{}",
                daemon.log()
            );
            assert!(
                start.elapsed() < SOON,
                "not within {SOON:?}: {what}; the last status: {last:#}"
            );
            pause_after(check);
        }
    }

    /// Waits until a commit is the target and healthy.
    #[track_caller]
    pub(crate) fn wait_healthy(&mut self, commit: &str) {
        self.wait_status(&format!("{commit} is healthy"), |status| {
            is(&status["target"]["id"], commit)
                && is(&status["healthy"]["id"], commit)
                && is(&status["phase"], "Healthy")
        });
    }

    /// Waits until a commit is the target and healthy, without troubles, and the plan is empty.
    #[track_caller]
    pub(crate) fn wait_settled(&mut self, commit: &str) {
        self.wait_status(
            &format!("{commit} is healthy, without troubles"),
            |status| {
                is(&status["target"]["id"], commit)
                    && is(&status["healthy"]["id"], commit)
                    && is(&status["phase"], "Healthy")
                    && status["troubles"] == Value::Array(Vec::new())
            },
        );
        self.wait_converged();
    }

    /// Waits until the daemon has converged, with an empty plan.
    #[track_caller]
    pub(crate) fn wait_converged(&mut self) {
        super::eventually(SOON, "the plan is empty", || {
            let plan = self.host.read("/windlass/v1/plan").unwrap_or_default();
            let status = self.host.status().unwrap_or_default();
            plan["lanes"] == Value::Array(Vec::new()) && status["converged"] == true
        });
    }

    /// Waits until the commit `from` has failed and the commit `to` is the target and healthy
    /// again; returns the reason of the rollback.
    #[track_caller]
    pub(crate) fn wait_rolled_back(&mut self, from: &str, to: &str) -> String {
        let status = self.wait_status(&format!("{from} is rolled back to {to}"), |status| {
            is(&status["target"]["id"], to)
                && is(&status["rollback"]["from"], from)
                && is(&status["phase"], "Healthy")
        });
        status["rollback"]["reason"].as_str().unwrap().to_owned()
    }
}

/// A configuration with the sections of all the given texts, in TOML. Where two texts have the same
/// key, the later value is used.
#[track_caller]
pub(crate) fn merged<'a>(all: impl IntoIterator<Item = &'a str>) -> String {
    let mut sections = toml::Table::new();
    for text in all {
        for (section, keys) in toml::from_str::<toml::Table>(text).unwrap() {
            let merged = sections
                .entry(section)
                .or_insert_with(|| toml::Table::new().into());
            let keys = keys.as_table().unwrap().clone();
            merged.as_table_mut().unwrap().extend(keys);
        }
    }
    toml::to_string(&sections).unwrap()
}

impl Drop for Site {
    fn drop(&mut self) {
        let Some(daemon) = self.daemon.take() else {
            self.host.clear();
            return;
        };
        if std::thread::panicking() {
            eprintln!("--- status:\n{}", self.windlass(&["status"]).stdout);
        }
        drop(daemon);
        self.host.clear();
    }
}

/// The exclusive use of the shared host, until this value is dropped.
#[derive(Debug)]
struct Turn;

static TAKEN: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

impl Turn {
    fn take() -> Turn {
        let taken = TAKEN.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = TAKEN.1.wait_while(taken, |taken| *taken);
        *waited.unwrap_or_else(PoisonError::into_inner) = true;
        Turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.0.lock().unwrap_or_else(PoisonError::into_inner) = false;
        TAKEN.1.notify_one();
    }
}
