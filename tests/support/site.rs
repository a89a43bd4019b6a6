//! One host with a repository and a daemon that follows it.

use std::fs;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::{Answer, Daemon, GitRepo, Host, Outcome, eventually_some, run};

/// Ample for what takes a moment; where it does not come, the test fails.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// The trailer that lets a commit delete whatever it deletes.
pub(crate) const MAY_DELETE: &str = "\n\nWindlass-Allow-Deletions: yes";

/// A repository, and a daemon on a host that follows it, with short times in its configuration.
///
/// When it is dropped the daemon is stopped and `windlass uninstall` empties the host for the next
/// one.
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
    /// A site on the host that the tests of a binary share, one after the other. `more` goes into
    /// the configuration: sections with their keys, in TOML.
    pub(crate) fn new(more: &str) -> Site {
        let turn = Turn::take();
        Site::make(Host::shared(), more, Some(turn))
    }

    /// A site on a host of its own that stays until the tests end, for those who only look at what
    /// runs there.
    pub(crate) fn lasting(more: &str) -> Site {
        static HOST: OnceLock<Host> = OnceLock::new();
        Site::make(HOST.get_or_init(Host::start), more, None)
    }

    fn make(host: &'static Host, more: &str, turn: Option<Turn>) -> Site {
        let config = host.dir().join("windlass.toml");
        let site = Site {
            host,
            repo: GitRepo::new(),
            daemon: None,
            config,
            _turn: turn,
        };
        site.configure(more);
        site
    }

    /// Writes the configuration anew; the next daemon reads it.
    pub(crate) fn configure(&self, more: &str) {
        let mut sections: toml::Table = toml::from_str(&format!(
            "[source]\nurl = '{}'\npoll = '1s'\n[trust]\nallowed-signers = '{}'\n[rollout]\nsoak = '1s'\n\
             [network]\ndrain-delay = '200ms'\n[node]\nname = 'node-1'\n",
            self.repo.path().display(),
            self.repo.allowed_signers().display(),
        ))
        .unwrap();
        for (section, lines) in toml::from_str::<toml::Table>(more).unwrap() {
            let known = sections
                .entry(section)
                .or_insert_with(|| toml::Table::new().into());
            known
                .as_table_mut()
                .unwrap()
                .extend(lines.as_table().unwrap().clone());
        }
        fs::write(&self.config, toml::to_string(&sections).unwrap()).unwrap();
    }

    /// Starts the daemon and waits until it answers.
    #[track_caller]
    pub(crate) fn start(&mut self) {
        assert!(self.daemon.is_none(), "a daemon runs already");
        let config = self.config.display().to_string();
        let mut daemon = Daemon::start(self.host, &["run", "--config", &config], &[]);
        let host = self.host;
        daemon.wait_until(SOON, "it answers", |_| host.windlass(&["status"]).success());
        self.daemon = Some(daemon);
    }

    /// All the running daemon has logged.
    #[track_caller]
    pub(crate) fn log(&self) -> String {
        self.daemon.as_ref().unwrap().log()
    }

    /// Stops the daemon; what it made runs on.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        assert!(
            self.daemon.take().unwrap().stop().success(),
            "the daemon did not end well"
        );
    }

    /// Replaces all that is in the repository by these files, in a signed commit that may delete,
    /// and gives its id.
    #[track_caller]
    pub(crate) fn push(&self, files: &[(&str, &str)], subject: &str) -> String {
        self.repo.git(&["rm", "-rq", "--ignore-unmatch", "."]).ok();
        self.repo
            .commit_signed(files, &format!("{subject}{MAY_DELETE}"))
    }

    /// Replaces all that is in the repository, and waits until the commit is healthy, as a person
    /// would.
    #[track_caller]
    pub(crate) fn deploy(&mut self, files: &[(&str, &str)], subject: &str) -> String {
        let commit = self.push(files, subject);
        if self.daemon.is_none() {
            self.start();
        }
        let outcome = self.host.windlass(&["sync", "--wait", "--timeout", "90s"]);
        assert!(
            outcome.success(),
            "{subject}: {outcome:#?}\n{}",
            self.host.windlass(&["status"]).stdout
        );
        commit
    }

    /// What `windlass status` says.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.host.windlass(&["status", "-o", "json"]).json()
    }

    /// Waits until `windlass status` says something; gives what it says then.
    #[track_caller]
    pub(crate) fn wait_status(&mut self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let host = self.host;
        let daemon = self.daemon.as_mut().unwrap();
        daemon.wait_until(SOON, what, |_| {
            last = serde_json::from_str(&host.windlass(&["status", "-o", "json"]).stdout)
                .unwrap_or_default();
            condition(&last)
        });
        last
    }

    /// Objects as the API lists them: `pods`, `services`.
    #[track_caller]
    pub(crate) fn list(&self, kind: &str) -> Vec<Value> {
        let list = self
            .host
            .windlass(&["get", kind, "-A", "-o", "json"])
            .json();
        list["items"].as_array().unwrap().clone()
    }

    /// One object of the namespace `default`.
    #[track_caller]
    pub(crate) fn get(&self, kind: &str, name: &str) -> Value {
        self.host
            .windlass(&["get", kind, name, "-o", "json"])
            .json()
    }

    /// Runs a program in a container of a pod of the namespace `default`.
    #[track_caller]
    pub(crate) fn exec(&self, pod: &str, container: &str, args: &[&str]) -> Outcome {
        let filters = [
            "label=io.windlass.pod.namespace=default".to_owned(),
            format!("label=io.windlass.pod.name={pod}"),
            format!("label=io.windlass.container={container}"),
        ];
        let mut ps = vec!["ps", "-q"];
        filters
            .iter()
            .for_each(|filter| ps.extend(["--filter", filter.as_str()]));
        let id = self.host.docker(&ps);
        assert!(
            !id.is_empty() && !id.contains('\n'),
            "not one container {container} of {pod}: {id:?}"
        );
        self.host
            .try_docker(&[&["exec", id.as_str()], args].concat())
    }

    /// Fetches a URL from another machine on the host's network; nothing where no HTTP answer
    /// comes.
    pub(crate) fn get_from_outside(&self, url: &str) -> Option<Answer> {
        let mut curl = self.host.network.command();
        curl.args([
            "curl",
            "-sS",
            "--max-time",
            "10",
            "-w",
            "\n%{http_code}",
            url,
        ]);
        let outcome = run(&mut curl);
        let (body, status) = outcome.stdout.rsplit_once('\n')?;
        let answer = Answer {
            status: status.parse().ok()?,
            body: body.trim_end().to_owned(),
        };
        outcome.success().then_some(answer)
    }

    /// Waits until a URL, called from another machine, answers with 200 and a text.
    #[track_caller]
    pub(crate) fn wait_answer(&self, url: &str, text: &str) -> Answer {
        let mut last = None;
        eventually_some(SOON, &format!("{url} answers {text:?}"), || {
            last = self.get_from_outside(url);
            last.clone()
                .filter(|answer| answer.status == 200 && answer.body.contains(text))
        })
    }

    /// The URL of a port of the host, as other machines call it.
    pub(crate) fn url(&self, port: u16, path: &str) -> String {
        format!("http://{}:{port}{path}", self.host.address)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let Some(daemon) = self.daemon.take() else {
            return;
        };
        if std::thread::panicking() {
            eprintln!("--- status:\n{}", self.host.windlass(&["status"]).stdout);
        }
        drop(daemon);
        let outcome = self.host.windlass(&["uninstall", "--yes"]);
        if !std::thread::panicking() {
            assert!(
                outcome.success(),
                "the host could not be emptied: {outcome:#?}"
            );
        }
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
