//! A host's own Docker engine.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::Host;
use crate::support::command::repository_root;
use crate::support::guard::bed_script;
use crate::support::{Outcome, eventually, run, socket};

/// How long an engine may take to answer, on a slow machine where other engines start too.
const ENGINE_START: Duration = Duration::from_secs(60);
const ENGINE_STOP: Duration = Duration::from_secs(60);

impl Host {
    /// The engine's socket, for a client outside the host.
    pub(crate) fn docker_socket(&self) -> PathBuf {
        self.path("/run/docker.sock")
    }

    /// Runs the docker client and returns its standard output; panics when the client fails.
    #[track_caller]
    pub(crate) fn docker(&self, args: &[&str]) -> String {
        self.try_docker(args).ok()
    }

    /// Runs the docker client, and returns the outcome whether it succeeded or not.
    pub(crate) fn try_docker(&self, args: &[&str]) -> Outcome {
        run(Command::new("docker")
            .env("DOCKER_HOST", self.docker_host())
            .args(args))
    }

    /// The engine's answer at a path of its API; `None` where the engine does not answer.
    pub(crate) fn ask_engine(&self, path: &str) -> Option<Value> {
        socket::get(&self.docker_socket(), path, ENGINE_START)
    }

    /// Loads one of the images that `scripts/images` makes into the engine.
    #[track_caller]
    pub(crate) fn load_image(&self, name: &str) {
        self.docker(&["load", "-q", "-i", &archive(name)]);
    }

    /// What `docker inspect` prints about one container or image.
    #[track_caller]
    pub(crate) fn inspect(&self, name: &str) -> Value {
        self.try_docker(&["inspect", name]).json()[0].take()
    }

    /// Starts the engine and waits until the engine answers.
    #[track_caller]
    pub(crate) fn start_docker(&self) {
        let mut engine = self.engine();
        assert!(engine.is_none(), "the engine runs already");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.guard.dir.join("dockerd.log"))
            .unwrap();
        let mut child = self
            .command(&bed_script().display().to_string())
            .arg("engine")
            .args([self.dir().as_os_str(), self.namespace().as_ref()])
            .arg(self.number.to_string())
            .args(&self.options.dockerd)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        eventually(ENGINE_START, "the engine answers", || {
            assert!(
                child.try_wait().unwrap().is_none(),
                "dockerd ended at once: {}",
                self.docker_log()
            );
            self.try_docker(&["version"]).success()
        });
        *engine = Some(child);
    }

    /// Stops the engine as a service manager does; every container stops with it, unless dockerd
    /// runs with `--live-restore`.
    #[track_caller]
    pub(crate) fn stop_docker(&self) {
        let mut child = self.engine().take().unwrap();
        run(Command::new("kill").args(["-TERM", &child.id().to_string()])).ok();
        eventually(ENGINE_STOP, "dockerd ends", || {
            child.try_wait().unwrap().is_some()
        });
    }

    /// Stops the engine and starts it again.
    #[track_caller]
    pub(crate) fn restart_docker(&self) {
        self.stop_docker();
        self.start_docker();
    }

    /// Kills the engine with signal 9. Its containers and their shims keep running.
    #[track_caller]
    pub(crate) fn kill_docker(&self) {
        let mut child = self.engine().take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        // The kernel kills containerd with its parent, dockerd. A dockerd that starts while
        // containerd's process still exists, also as a zombie, would wait for it without end.
        let file = self.path("/run/docker/containerd/containerd.pid");
        let pid = fs::read_to_string(&file).unwrap();
        eventually(ENGINE_STOP, "containerd ends with dockerd", || {
            fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
                .map_or(true, |stat| stat.contains(") Z "))
        });
        fs::remove_file(file).unwrap();
    }

    /// The engine's log so far.
    pub(crate) fn docker_log(&self) -> String {
        fs::read_to_string(self.guard.dir.join("dockerd.log")).unwrap_or_default()
    }

    /// The engine's process, also where a test panicked while it started or stopped the engine and
    /// so poisoned the lock.
    pub(super) fn engine(&self) -> MutexGuard<'_, Option<Child>> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn docker_host(&self) -> String {
        format!("unix://{}", self.docker_socket().display())
    }
}

/// The path of an image's archive, as `scripts/images` prints it. The script runs once per process
/// and image.
#[track_caller]
fn archive(name: &str) -> String {
    static ARCHIVES: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

    let mut archives = ARCHIVES.lock().unwrap_or_else(PoisonError::into_inner);
    let made = archives.entry(name.to_owned()).or_insert_with(|| {
        let images = repository_root().join("scripts/images");
        run(Command::new(images).args(["--archive", name])).ok()
    });
    made.clone()
}
