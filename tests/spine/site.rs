//! One host with a repository and a daemon that follows it, and what can be asked about all three.
//!
//! The tests of a binary share one host, one after the other: each leaves it empty.

#![allow(
    dead_code,
    reason = "two test binaries include this and each uses a part of it"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Answer, Daemon, GitRepo, Host, Outcome, Registry, eventually, run};

/// Ample for everything that is waited for; where it does not come, the test fails.
pub(crate) const SOON: Duration = Duration::from_secs(40);
/// The port of every host that tests publish at.
pub(crate) const NODE_PORT: u16 = 30080;
/// The trailer that allows a commit to delete whatever it deletes.
pub(crate) const MAY_DELETE: &str = "\n\nWindlass-Allow-Deletions: yes";

/// A host of our own for as long as this lives.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) host: &'static Host,
    pub(crate) repo: GitRepo,
    daemon: Option<Daemon>,
    config: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

/// What must not change of a container that is left alone: its id, and when it was started.
pub(crate) type Containers = BTreeMap<String, (String, String)>;

impl Site {
    /// A host with nothing on it, a repository with nothing in it, and a daemon with short times.
    pub(crate) fn start() -> Site {
        Site::start_with("")
    }

    /// The same, with more in the daemon's configuration, section by section.
    pub(crate) fn start_with(more: &str) -> Site {
        let mut site = Site::without_daemon();
        site.configure(more);
        site.start_daemon();
        site
    }

    /// The same, before there is a configuration.
    pub(crate) fn without_daemon() -> Site {
        static ALONE: Mutex<()> = Mutex::new(());
        static IMAGES: OnceLock<()> = OnceLock::new();

        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let host = Host::shared();
        IMAGES.get_or_init(|| {
            for image in ["busybox", "windlass-test/app:1", "windlass-test/app:2"] {
                host.load_image(image);
            }
        });
        let config = host.dir().join("windlass.toml");
        Site {
            host,
            repo: GitRepo::new(),
            daemon: None,
            config,
            _alone: alone,
        }
    }

    /// Writes the configuration; the next daemon reads it.
    #[track_caller]
    pub(crate) fn configure(&self, more: &str) {
        let mut sections: toml::Table = toml::from_str(&format!(
            "[source]\nurl = '{}'\n[trust]\nallowed-signers = '{}'\n[rollout]\nsoak = '500ms'\n\
             [network]\ndrain-delay = '300ms'\n[node]\nname = 'node-1'\n",
            self.repo.url(),
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
    pub(crate) fn start_daemon(&mut self) {
        let config = self.config.display().to_string();
        self.daemon = Some(Daemon::start(self.host, &["run", "--config", &config], &[]));
        self.wait_for_daemon();
    }

    /// The same, of a daemon that may have no more open files than this.
    #[track_caller]
    pub(crate) fn start_daemon_with_files(&mut self, most: u32) {
        let config = self.config.display().to_string();
        self.daemon = Some(Daemon::start_with_files(
            self.host,
            most,
            &["run", "--config", &config],
        ));
        self.wait_for_daemon();
    }

    #[track_caller]
    fn wait_for_daemon(&mut self) {
        self.daemon().wait_until(SOON, "it answers", |_| {
            run(Host::shared().command("curl").args([
                "-sf",
                "-o",
                "/dev/null",
                "http://127.0.0.1:9464/healthz",
            ]))
            .success()
        });
    }

    /// Ends the daemon as a service manager does.
    #[track_caller]
    pub(crate) fn stop_daemon(&mut self) {
        assert!(self.daemon.take().unwrap().stop().success());
    }

    /// The running daemon.
    #[track_caller]
    pub(crate) fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().unwrap()
    }

    /// The registry on the host's network.
    pub(crate) fn registry(&self) -> &'static Registry {
        static REGISTRY: OnceLock<Registry> = OnceLock::new();
        REGISTRY.get_or_init(|| Registry::start(&Host::shared().network))
    }

    /// Runs the command line.
    pub(crate) fn windlass(&self, args: &[&str]) -> Outcome {
        self.host.windlass(args)
    }

    /// Writes files, commits them signed and pushes; gives the commit id.
    #[track_caller]
    pub(crate) fn push(&self, files: &[(&str, &str)], message: &str) -> String {
        self.repo.commit_signed(files, message)
    }

    /// Pushes files and waits until they run; gives the commit id.
    #[track_caller]
    pub(crate) fn deploy(&mut self, files: &[(&str, &str)]) -> String {
        let commit = self.push(files, "deploy");
        self.wait_healthy(&commit);
        commit
    }

    /// What `windlass status` says.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.windlass(&["status", "-o", "json"]).json()
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

    /// Waits for something that `windlass status` says.
    #[track_caller]
    pub(crate) fn wait_status(&mut self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let status = self.status();
            if condition(&status) {
                return status;
            }
            assert!(self.daemon().is_running(), "the daemon ended before {what}");
            assert!(
                start.elapsed() < SOON,
                "not within {SOON:?}: {what}; the last status: {status:#}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// All running containers of the engine by name, with what must not change of them.
    #[track_caller]
    pub(crate) fn containers(&self) -> Containers {
        let ids = self.host.docker(&["ps", "-q", "--no-trunc"]);
        if ids.is_empty() {
            return Containers::new();
        }
        let format = "{{.Name}} {{.Id}} {{.State.StartedAt}}";
        let mut arguments = vec!["inspect", "-f", format];
        arguments.extend(ids.lines());
        // A container may go between the two calls; what is left is still told.
        let told = self.host.try_docker(&arguments).stdout;
        told.lines()
            .map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                (
                    words[0].trim_start_matches('/').to_owned(),
                    (words[1].to_owned(), words[2].to_owned()),
                )
            })
            .collect()
    }

    /// The running containers whose pod has a name that begins with this.
    #[track_caller]
    pub(crate) fn containers_of(&self, pod: &str) -> Containers {
        let mut all = self.containers();
        all.retain(|name, _| {
            name.split('_')
                .nth(2)
                .is_some_and(|name| name.starts_with(pod))
        });
        all
    }

    /// The name of the one container `app` of the pod whose name begins with this.
    #[track_caller]
    pub(crate) fn container(&self, pod: &str) -> String {
        let all = self.containers_of(pod);
        let name = all
            .into_keys()
            .find(|name| !name.starts_with("windlass_POD_"));
        name.unwrap_or_else(|| panic!("no container of {pod} runs"))
    }

    /// Runs a program in the one container of a pod.
    #[track_caller]
    pub(crate) fn exec(&self, pod: &str, args: &[&str]) -> Outcome {
        let container = self.container(pod);
        self.host
            .try_docker(&[&["exec", &container], args].concat())
    }

    /// Fetches a URL from the network of a pod, with the pod's own resolv.conf and hosts.
    #[track_caller]
    pub(crate) fn fetch_from(&self, pod: &str, url: &str) -> Outcome {
        let container = self.container(pod);
        let process = self
            .host
            .docker(&["inspect", "-f", "{{.State.Pid}}", &container]);
        // A file of another mount namespace cannot be bound: a copy can.
        let script = "for file in resolv.conf hosts; do
                cat /proc/$1/root/etc/$file >/run/pod-$file
                mount --bind /run/pod-$file /etc/$file || exit
            done
            exec curl -sS --max-time 5 $2";
        self.host.exec(&[
            "nsenter", "-t", &process, "--net", "unshare", "--mount", "sh", "-c", script, "sh",
            &process, url,
        ])
    }

    /// An object as the API shows it.
    #[track_caller]
    pub(crate) fn object(&self, kind: &str, name: &str) -> Value {
        self.windlass(&["get", kind, name, "-o", "json"]).json()
    }

    /// Pods as the API lists them.
    #[track_caller]
    pub(crate) fn pods(&self) -> Vec<Value> {
        self.windlass(&["get", "pods", "-o", "json"]).json()["items"]
            .as_array()
            .unwrap()
            .clone()
    }

    /// The URL of the node port.
    pub(crate) fn url(&self) -> String {
        format!("http://{}:{NODE_PORT}/", self.host.address)
    }

    /// What another host gets from the node port.
    pub(crate) fn ask(&self) -> Option<Answer> {
        let outcome = self.host.network.exec(&[
            "curl",
            "-s",
            "--max-time",
            "2",
            "-w",
            "\n%{http_code}",
            &self.url(),
        ]);
        let (body, status) = outcome.stdout.rsplit_once('\n')?;
        let status = status.parse().ok().filter(|_| outcome.success())?;
        Some(Answer {
            status,
            body: body.trim_end().to_owned(),
        })
    }

    /// Waits until the node port answers with a text that begins so.
    #[track_caller]
    pub(crate) fn wait_answer(&self, begin: &str) {
        eventually(SOON, &format!("the node port answers {begin:?}"), || {
            self.ask()
                .is_some_and(|answer| answer.status == 200 && answer.body.starts_with(begin))
        });
    }

    /// The metrics as text.
    #[track_caller]
    pub(crate) fn metrics(&self) -> String {
        self.host
            .http_get("http://127.0.0.1:9464/metrics")
            .unwrap()
            .body
    }

    /// The value of a metric, by its name with labels as it is exposed.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.metrics();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("no metric {name} in\n{text}"))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        drop(self.daemon.take());
        let script = "
            for shim in $(pgrep -f 'containerd-shim.*/run/docker/'); do kill -CONT $shim 2>/dev/null; done
            docker -H unix:///run/docker.sock ps -aq | xargs -r docker -H unix:///run/docker.sock rm -fv >/dev/null
            for mount in $(awk '$2 ~ \"^/var/lib/windlass\" { print $2 }' /proc/self/mounts | sort -r); do
                umount -l $mount
            done
            rm -rf /var/lib/windlass /run/windlass
            nft delete table ip windlass 2>/dev/null
            for link in $(ls /proc/sys/net/ipv4/conf); do
                case $link in wdl* | windlass0) ip link del $link 2>/dev/null ;; esac
            done
            true";
        let outcome = self.host.exec(&["sh", "-c", script]);
        if !outcome.success() && !std::thread::panicking() {
            panic!("the host could not be emptied: {outcome:?}");
        }
    }
}

/// Whether a JSON value is this text.
pub(crate) fn is(value: &Value, wanted: &str) -> bool {
    value.as_str() == Some(wanted)
}
