//! One host with a repository and a daemon that follows it.

mod look;

use std::fs;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Daemon, GitRepo, Host, Outcome, Registry, is, pause_after};

/// Ample for what takes a moment; where it does not come, the test fails.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// The trailer that lets a commit delete whatever it deletes.
pub(crate) const MAY_DELETE: &str = "\n\nWindlass-Allow-Deletions: yes";
/// The port of every host at which tests publish.
pub(crate) const NODE_PORT: u16 = 30080;

/// A repository, and a daemon on a host that follows it, with short times in its configuration.
///
/// When it is dropped the daemon ends and the host is emptied for the next one.
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
    /// A site without a daemon yet, on the host that the tests of a binary share, one after the
    /// other. `more` goes into the configuration: sections with their keys, in TOML.
    pub(crate) fn new(more: &str) -> Site {
        let turn = Turn::take();
        Site::make(Host::shared(), more, Some(turn))
    }

    /// The same, with a daemon that answers.
    pub(crate) fn started(more: &str) -> Site {
        let mut site = Site::new(more);
        site.start();
        site
    }

    /// A site on a host of its own that stays until the tests end, for those who only look at what
    /// runs there.
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

    /// Writes the configuration anew; the next daemon reads it.
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

    /// The same, of a daemon that may have no more open files than this.
    #[track_caller]
    pub(crate) fn start_with_files(&mut self, most: u32) {
        let config = self.config.display().to_string();
        let arguments = ["run", "--config", &config];
        self.daemon = Some(Daemon::start_with_files(self.host, most, &arguments));
        self.wait_answers();
    }

    /// Starts the daemon with more environment variables, and returns at once: it may be one that
    /// ends before it answers.
    #[track_caller]
    pub(crate) fn launch(&mut self, env: &[(&str, &str)]) {
        assert!(self.daemon.is_none(), "a daemon runs already");
        let config = self.config.display().to_string();
        self.daemon = Some(Daemon::start(self.host, &["run", "--config", &config], env));
    }

    #[track_caller]
    fn wait_answers(&mut self) {
        let host = self.host;
        self.daemon().wait_until(SOON, "it answers", |_| {
            host.http_get("http://127.0.0.1:9464/healthz")
                .is_some_and(|answer| answer.status == 200)
        });
    }

    /// Ends the daemon as a service manager does; what it made runs on.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        assert!(
            self.take_daemon().stop().success(),
            "the daemon did not end well"
        );
    }

    /// The running daemon.
    #[track_caller]
    pub(crate) fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().unwrap()
    }

    /// Takes the daemon out, to be ended in a way of one's own.
    #[track_caller]
    pub(crate) fn take_daemon(&mut self) -> Daemon {
        self.daemon.take().unwrap()
    }

    /// All the running daemon has logged.
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

    /// Writes files, commits them signed and pushes; gives the commit's id.
    #[track_caller]
    pub(crate) fn push(&self, files: &[(&str, &str)], message: &str) -> String {
        self.repo.commit_signed(files, message)
    }

    /// Pushes files and waits until they run; gives the commit's id.
    #[track_caller]
    pub(crate) fn deploy(&mut self, files: &[(&str, &str)]) -> String {
        let commit = self.push(files, "deploy");
        self.wait_healthy(&commit);
        commit
    }

    /// Replaces all that is in the repository, and waits until the commit is healthy, as a person
    /// would; gives the commit's id.
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

    /// What `windlass status` says.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.windlass(&["status", "-o", "json"]).json()
    }

    /// Waits for something that `windlass status` says, also from a daemon that does not answer
    /// yet; gives what it says then.
    #[track_caller]
    pub(crate) fn wait_status(&mut self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let start = Instant::now();
        loop {
            let look = Instant::now();
            last = self.host.status().unwrap_or(last);
            if condition(&last) {
                return last;
            }
            let daemon = self.daemon();
            assert!(
                daemon.is_running(),
                "the daemon ended before {what}:\n{}",
                daemon.log()
            );
            assert!(
                start.elapsed() < SOON,
                "not within {SOON:?}: {what}; the last status: {last:#}"
            );
            pause_after(look);
        }
    }

    /// Waits until a commit runs and is healthy.
    #[track_caller]
    pub(crate) fn wait_healthy(&mut self, commit: &str) {
        self.wait_status(&format!("{commit} is healthy"), |status| {
            is(&status["target"]["id"], commit)
                && is(&status["healthy"]["id"], commit)
                && is(&status["phase"], "Healthy")
        });
    }

    /// Waits until a commit runs and is healthy, and nothing is left to do.
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

    /// Waits until the daemon has nothing under way.
    #[track_caller]
    pub(crate) fn wait_converged(&mut self) {
        super::eventually(SOON, "the plan is empty", || {
            let plan = self.host.read("/windlass/v1/plan").unwrap_or_default();
            let status = self.host.status().unwrap_or_default();
            plan["lanes"] == Value::Array(Vec::new()) && status["converged"] == true
        });
    }

    /// Waits until a commit has failed and another one is the target and healthy again; gives the
    /// reason.
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

/// A configuration with the sections of all these, in TOML; of a key that is there twice the later
/// value.
#[track_caller]
pub(crate) fn merged<'a>(all: impl IntoIterator<Item = &'a str>) -> String {
    let mut sections = toml::Table::new();
    for one in all {
        for (section, keys) in toml::from_str::<toml::Table>(one).unwrap() {
            let known = sections
                .entry(section)
                .or_insert_with(|| toml::Table::new().into());
            let keys = keys.as_table().unwrap().clone();
            known.as_table_mut().unwrap().extend(keys);
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

/// Whose turn it is with the shared host.
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
