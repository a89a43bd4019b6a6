//! One host with a repository and a daemon that follows it, and what can be asked about all three.
//!
//! The tests of a binary share one host, one after the other: each leaves it empty.

#![allow(
    dead_code,
    reason = "two test binaries include this and each uses a part of it"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Answer, Daemon, GitRepo, Host, Outcome, eventually};

/// Where the daemon keeps its state, as the host sees it.
pub(crate) const DATA_DIR: &str = "/var/lib/windlass";
/// The node port of the sample application.
pub(crate) const NODE_PORT: u16 = 30080;
/// Ample for everything that is waited for; where it does not come, the test fails.
pub(crate) const SOON: Duration = Duration::from_secs(30);
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

/// A container of the host's engine, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Container {
    /// `sandbox` first, so that it sorts first; otherwise the container's name in its pod.
    pub(crate) name: String,
    pub(crate) pod: String,
    pub(crate) id: String,
    pub(crate) state: String,
    pub(crate) started: String,
    pub(crate) attempt: u32,
}

impl Site {
    /// An empty host and an empty repository, with short times in the daemon's configuration.
    pub(crate) fn new() -> Site {
        Site::with_config("")
    }

    /// The same, with more lines for the sections `rollout`, `docker` and so on: `key = value` by
    /// section.
    pub(crate) fn with_config(more: &str) -> Site {
        static ALONE: Mutex<()> = Mutex::new(());
        static IMAGES: OnceLock<()> = OnceLock::new();

        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let host = Host::shared();
        IMAGES.get_or_init(|| {
            for image in ["windlass-test/app:1", "busybox"] {
                host.load_image(image);
            }
        });
        let repo = GitRepo::new();
        let config = host.dir().join("windlass.toml");
        let site = Site {
            host,
            repo,
            daemon: None,
            config,
            _alone: alone,
        };
        site.configure(more);
        site
    }

    /// Writes the configuration anew; the next daemon reads it.
    pub(crate) fn configure(&self, more: &str) {
        let mut sections: toml::Table = toml::from_str(&format!(
            "[source]\nurl = '{}'\n[trust]\nallowed-signers = '{}'\n\
             [rollout]\nsoak = '200ms'\n[network]\ndrain-delay = '100ms'\n[node]\nname = 'node-1'\n",
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

    /// Starts the daemon.
    pub(crate) fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Starts the daemon with more environment variables.
    pub(crate) fn start_with(&mut self, env: &[(&str, &str)]) {
        assert!(self.daemon.is_none(), "a daemon runs already");
        let config = self.config.display().to_string();
        self.daemon = Some(Daemon::start(self.host, &["run", "--config", &config], env));
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

    /// Writes files, commits them signed and pushes; gives the commit id.
    #[track_caller]
    pub(crate) fn push(&self, files: &[(&str, &str)], message: &str) -> String {
        self.repo.commit_signed(files, message)
    }

    /// What `windlass status` says; nothing where no daemon answers.
    pub(crate) fn status(&self) -> Option<Value> {
        let outcome = self.host.windlass(&["status", "-o", "json"]);
        if outcome.success() {
            serde_json::from_str(&outcome.stdout).ok()
        } else {
            None
        }
    }

    /// Waits until a commit runs and is healthy, and nothing is left to do.
    #[track_caller]
    pub(crate) fn wait_healthy(&mut self, commit: &str) {
        self.wait_status(&format!("{commit} is healthy"), |status| {
            is(&status["target"]["id"], commit)
                && is(&status["healthy"]["id"], commit)
                && is(&status["phase"], "Healthy")
                && status["troubles"] == Value::Array(Vec::new())
        });
        self.wait_for_rest();
    }

    /// Waits for something that `windlass status` says.
    #[track_caller]
    pub(crate) fn wait_status(&mut self, what: &str, condition: impl Fn(&Value) -> bool) {
        let mut last = None;
        let start = std::time::Instant::now();
        loop {
            assert!(
                self.daemon().is_running(),
                "the daemon ended before {what}:\n{}",
                self.daemon().log()
            );
            last = self.status().or(last);
            if last.as_ref().is_some_and(&condition) {
                return;
            }
            assert!(
                start.elapsed() < SOON,
                "not within {SOON:?}: {what}; the last status: {last:#?}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the daemon has nothing under way.
    #[track_caller]
    pub(crate) fn wait_for_rest(&mut self) {
        let mut last = Value::Null;
        eventually(SOON, "the plan is empty", || {
            let (plan, status) = (self.host.windlass(&["plan", "-o", "json"]), self.status());
            last = serde_json::from_str(&plan.stdout).unwrap_or_default();
            last["lanes"] == Value::Array(Vec::new())
                && status.is_some_and(|status| status["converged"] == true)
        });
    }

    /// All containers of the engine, whoever made them and whatever their state.
    pub(crate) fn containers(&self) -> BTreeSet<Container> {
        let ids = self.host.docker(&["ps", "-aq", "--no-trunc"]);
        ids.lines().filter_map(|id| self.container(id)).collect()
    }

    /// One container; nothing when it has gone since it was listed.
    fn container(&self, id: &str) -> Option<Container> {
        let outcome = self.host.try_docker(&["inspect", id]);
        let inspected: Value = serde_json::from_str(&outcome.stdout).ok()?;
        let one = inspected.get(0)?;
        let label = |name: &str| text(&one["Config"]["Labels"][format!("io.windlass.{name}")]);
        let name = if label("role") == "sandbox" {
            "sandbox".to_owned()
        } else {
            label("container")
        };
        Some(Container {
            name,
            pod: label("pod.name"),
            id: text(&one["Id"]),
            state: text(&one["State"]["Status"]),
            started: text(&one["State"]["StartedAt"]),
            attempt: label("attempt").parse().unwrap_or_default(),
        })
    }

    /// The one container of this name; panics with all of them when there is not just one.
    #[track_caller]
    pub(crate) fn one(&self, name: &str) -> Container {
        let all = self.containers();
        let mut named = all.iter().filter(|one| one.name == name);
        match (named.next(), named.next()) {
            (Some(one), None) => one.clone(),
            _ => panic!("not just one container named {name}: {all:#?}"),
        }
    }

    /// Pods as the API lists them, by name.
    #[track_caller]
    pub(crate) fn pods(&self) -> BTreeMap<String, Value> {
        let list = self
            .host
            .windlass(&["get", "pods", "-A", "-o", "json"])
            .json();
        let items = list["items"].as_array().unwrap();
        items
            .iter()
            .map(|pod| (text(&pod["metadata"]["name"]), pod.clone()))
            .collect()
    }

    /// The addresses of the pods, by name.
    #[track_caller]
    pub(crate) fn addresses(&self) -> BTreeMap<String, String> {
        self.pods()
            .into_iter()
            .map(|(name, pod)| (name, text(&pod["status"]["podIP"])))
            .collect()
    }

    /// The URL of a path behind the sample's node port.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}:{NODE_PORT}/{path}", self.host.address)
    }

    /// What the sample answers at its node port.
    pub(crate) fn ask(&self, path: &str) -> Option<Answer> {
        self.host.http_get(&self.url(path))
    }

    /// Waits until the sample's answer at its node port begins with a text.
    #[track_caller]
    pub(crate) fn wait_answer(&self, path: &str, begin: &str) {
        let mut last = None;
        let start = std::time::Instant::now();
        loop {
            last = self.ask(path).or(last);
            if last
                .as_ref()
                .is_some_and(|answer| answer.status == 200 && answer.body.starts_with(begin))
            {
                return;
            }
            assert!(
                start.elapsed() < SOON,
                "{path} does not answer {begin:?} but {last:?}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The value of a metric, by its name with labels as it is exposed; 0 where it is not.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self
            .host
            .http_get("http://127.0.0.1:9464/metrics")
            .map_or(String::new(), |answer| answer.body);
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or(0.0)
    }

    /// A file of the daemon's data directory, read on the host, which may have a mount there.
    pub(crate) fn state_file(&self, name: &str) -> Outcome {
        self.host.exec(&["cat", &format!("{DATA_DIR}/{name}")])
    }

    /// Names of the host's pod links.
    pub(crate) fn links(&self) -> BTreeSet<String> {
        let links = self.host.exec(&["ip", "-o", "link"]).ok();
        let names = links
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1));
        names
            .filter(|name| name.starts_with("wdl"))
            .filter_map(|name| name.split('@').next())
            .map(str::to_owned)
            .collect()
    }

    /// The host's routes that carry our protocol number.
    pub(crate) fn routes(&self) -> Vec<String> {
        self.host
            .exec(&["ip", "route", "show", "proto", "87"])
            .ok()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// Pods that have a directory on the host.
    pub(crate) fn pod_dirs(&self) -> Vec<String> {
        let outcome = self.host.exec(&["ls", "-A", &format!("{DATA_DIR}/pods")]);
        outcome.stdout.lines().map(str::to_owned).collect()
    }

    /// Checks that the host holds so many pods with so many containers in all, sandboxes counted,
    /// all running, and nothing else of anybody.
    #[track_caller]
    pub(crate) fn assert_exactly(&self, pods: usize, containers: usize) {
        self.assert_exactly_with_foreign(pods, containers, "");
    }

    /// The same, with one more container by id that is not the daemon's.
    #[track_caller]
    pub(crate) fn assert_exactly_with_foreign(
        &self,
        pods: usize,
        containers: usize,
        foreign: &str,
    ) {
        let mut all = self.containers();
        all.retain(|one| one.id != foreign);
        assert_eq!(all.len(), containers, "containers: {all:#?}");
        assert!(
            all.iter().all(|one| one.state == "running"),
            "not all run: {all:#?}"
        );
        let sandboxes = all.iter().filter(|one| one.name == "sandbox").count();
        assert_eq!(sandboxes, pods, "sandboxes: {all:#?}");
        assert_eq!(self.links().len(), pods, "links: {:?}", self.links());
        // One a pod, and that of the service range.
        assert_eq!(self.routes().len(), pods + 1, "routes: {:?}", self.routes());
        assert_eq!(
            self.pod_dirs().len(),
            pods,
            "directories: {:?}",
            self.pod_dirs()
        );
        assert_eq!(
            self.host.docker(&["volume", "ls", "-q"]),
            "",
            "the engine has volumes"
        );
    }

    /// Checks that every state file is a whole document, and that no half-written one lies beside
    /// it.
    #[track_caller]
    pub(crate) fn assert_state_files(&self) {
        for name in [
            "cluster.json",
            "instance.json",
            "node.json",
            "trust/pointers.json",
            "trust/images.json",
            "trust/accepted.json",
        ] {
            let document = self.state_file(name).json();
            assert!(
                document["schema"].is_u64(),
                "{name} has no schema: {document}"
            );
        }
        let left = self
            .host
            .exec(&["find", DATA_DIR, "-maxdepth", "2", "-name", "*.new*"])
            .ok();
        assert_eq!(left, "", "left by an unfinished write");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        drop(self.daemon.take());
        let script = format!(
            "docker -H unix:///run/docker.sock ps -aq | xargs -r docker -H unix:///run/docker.sock rm -fv >/dev/null
            for mount in $(awk '$2 ~ \"^{DATA_DIR}\" {{ print $2 }}' /proc/self/mounts | sort -r); do umount -l $mount; done
            rm -rf {DATA_DIR} /run/windlass
            nft delete table ip windlass 2>/dev/null
            iptables-save -t filter | grep 'comment windlass' | sed 's/^-A/-D/' | while read -r rule; do
                iptables -w $rule
            done
            for link in $(ls /proc/sys/net/ipv4/conf); do
                case $link in wdl* | windlass0) ip link del $link 2>/dev/null ;; esac
            done
            true"
        );
        let outcome = self.host.exec(&["sh", "-c", &script]);
        if !outcome.success() && !std::thread::panicking() {
            panic!("the host could not be emptied: {outcome:?}");
        }
    }
}

/// A Deployment of one pod with a file from a ConfigMap and a postStart hook, behind a node port.
/// `said` is what the application answers, `noted` what its file says.
pub(crate) fn application(name: &str, said: &str, noted: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}, tier: front}}}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: app
        image: windlass-test/app:1
        env: [{{name: APP, value: \"{said}\"}}]
        lifecycle: {{postStart: {{exec: {{command: [sh, -c, \"mkdir -p /www && echo hooked > /www/hook\"]}}}}}}
        volumeMounts: [{{name: notes, mountPath: /www/notes}}]
      volumes: [{{name: notes, configMap: {{name: {name}}}}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: {name}}}
data: {{note: \"{noted}\"}}
---
{}",
        service()
    )
}

/// The Service of every pod with the label `tier: front`.
pub(crate) fn service() -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: front}}
spec:
  type: NodePort
  selector: {{tier: front}}
  ports: [{{port: 80, targetPort: 8080, nodePort: {NODE_PORT}}}]
"
    )
}

/// A JSON text, or nothing.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Whether a JSON value is this text.
pub(crate) fn is(value: &Value, wanted: &str) -> bool {
    value.as_str() == Some(wanted)
}
