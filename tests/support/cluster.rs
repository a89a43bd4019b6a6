//! Hosts whose daemons share one store: a cluster.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::host::TEST_IMAGES;
use super::site::merged;
use super::{
    Container, Daemon, Etcd, EtcdOptions, GitRepo, GitServer, Host, HostOptions, Network, Outcome,
    Poller, Registry, SOON, WallClock, is_ready, pause_after, run,
};

/// The options of a [`Cluster`].
#[derive(Debug, Clone)]
pub(crate) struct ClusterBuilder {
    hosts: u8,
    members: usize,
    images: Vec<String>,
    pulled: Vec<String>,
    https: bool,
    daemons: bool,
    own_clocks: bool,
    config: Vec<String>,
    config_of: Vec<(String, String)>,
    dockerd: Vec<String>,
    etcd: EtcdOptions,
}

impl ClusterBuilder {
    /// How many members etcd has; one where this is not called.
    pub(crate) fn members(mut self, members: usize) -> Self {
        self.members = members;
        self
    }

    /// The images that are loaded into every engine instead of the test application and busybox.
    pub(crate) fn images(mut self, images: &[&str]) -> Self {
        self.images = images.iter().map(|&image| image.to_owned()).collect();
        self
    }

    /// Images that the registry has under their plain names, and that no engine has.
    pub(crate) fn pulled(mut self, images: &[&str]) -> Self {
        self.pulled = images.iter().map(|&image| image.to_owned()).collect();
        self
    }

    /// The hosts fetch over https from a server at the gateway. The server can be silent or refuse,
    /// and [`Network::cut_from`] makes it unreachable for one host.
    pub(crate) fn over_https(mut self) -> Self {
        self.https = true;
        self
    }

    /// No daemon is started with the cluster: the test starts the daemons host by host.
    pub(crate) fn without_daemons(mut self) -> Self {
        self.daemons = false;
        self
    }

    /// Every host's daemon and command line have a wall clock of their own, which
    /// [`ClusterHost::set_clock`] sets. The store's certificates are a day old, so that they are
    /// valid for a clock that is behind.
    pub(crate) fn own_clocks(mut self) -> Self {
        self.own_clocks = true;
        self.etcd.age = 24 * 3600;
        self
    }

    /// Adds to the configuration of every daemon: sections with their keys, in TOML.
    pub(crate) fn config(mut self, more: &str) -> Self {
        self.config.push(more.to_owned());
        self
    }

    /// Adds to the configuration of one daemon.
    pub(crate) fn config_of(mut self, name: &str, more: &str) -> Self {
        self.config_of.push((name.to_owned(), more.to_owned()));
        self
    }

    /// More arguments for every dockerd, such as `--live-restore`.
    pub(crate) fn dockerd(mut self, arguments: &[&str]) -> Self {
        self.dockerd = arguments
            .iter()
            .map(|&argument| argument.to_owned())
            .collect();
        self
    }

    /// The options of the store.
    pub(crate) fn etcd(mut self, options: EtcdOptions) -> Self {
        self.etcd = options;
        self
    }

    /// Makes the cluster. The store and all engines start at the same time, because each takes
    /// seconds.
    #[track_caller]
    pub(crate) fn start(self) -> Cluster {
        let network = Network::start();
        let repo = GitRepo::new();
        let (etcd, hosts) = thread::scope(|scope| {
            let etcd = scope.spawn(|| Etcd::start_with(&network, self.members, self.etcd.clone()));
            let hosts: Vec<_> = (1..=self.hosts)
                .map(|number| {
                    let (network, builder) = (&network, &self);
                    scope.spawn(move || builder.start_host(network, number))
                })
                .collect();
            let hosts: Vec<ClusterHost> =
                hosts.into_iter().map(|host| host.join().unwrap()).collect();
            (etcd.join().unwrap(), hosts)
        });
        let registry = Registry::start(&network);
        for image in &self.pulled {
            let host = &hosts[0].host;
            host.load_image(image);
            let name = if image.contains('/') {
                image.clone()
            } else {
                format!("library/{image}")
            };
            registry.push(host, image, &name);
            host.docker(&["rmi", image]);
        }
        let server = self
            .https
            .then(|| GitServer::start(repo.path().parent().unwrap(), &network, None));
        let daemons = self.daemons;
        let cluster = Cluster {
            hosts,
            etcd,
            registry,
            server,
            repo,
            network,
            builder: self,
        };
        for host in &cluster.hosts {
            cluster.configure(host, "");
        }
        if daemons {
            cluster.start_daemons();
        }
        cluster
    }

    fn start_host(&self, network: &Arc<Network>, number: u8) -> ClusterHost {
        let options = HostOptions {
            dockerd: self.dockerd.clone(),
            name: Some(format!("n{number}")),
            number: Some(number),
        };
        let host = Host::start_on(network, options);
        for image in &self.images {
            host.load_image(image);
        }
        ClusterHost {
            name: host.name.clone(),
            config: host.dir().join("windlass.toml"),
            daemon: Mutex::new(None),
            clock: self.own_clocks.then(|| WallClock::new(host.dir())),
            host,
        }
    }
}

/// Hosts n1, n2, ... at 192.168.77.11, .12, ..., a store, a registry and a repository that all of
/// them follow.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// The hosts, in the order of their names. The hosts are dropped before the store, the registry
    /// and the network that they use.
    pub(crate) hosts: Vec<ClusterHost>,
    /// The store.
    pub(crate) etcd: Etcd,
    /// The registry, which is the engines' mirror for plain names.
    pub(crate) registry: Registry,
    /// The https server of the repository; `None` where the hosts fetch by a `file://` URL.
    pub(crate) server: Option<GitServer>,
    /// The repository.
    pub(crate) repo: GitRepo,
    /// The network that connects hosts, store, registry and server.
    pub(crate) network: Arc<Network>,
    builder: ClusterBuilder,
}

/// A host of a cluster.
#[derive(Debug)]
pub(crate) struct ClusterHost {
    /// The name of its node.
    pub(crate) name: String,
    /// The machine with its engine.
    pub(crate) host: Host,
    config: PathBuf,
    daemon: Mutex<Option<Daemon>>,
    clock: Option<WallClock>,
}

impl Cluster {
    /// `hosts` hosts, each with a running daemon, and one member of etcd.
    #[track_caller]
    pub(crate) fn start(hosts: u8) -> Cluster {
        Cluster::builder(hosts).start()
    }

    /// The options of [`Cluster::start`], to be changed before the cluster is started.
    pub(crate) fn builder(hosts: u8) -> ClusterBuilder {
        ClusterBuilder {
            hosts,
            members: 1,
            images: TEST_IMAGES.map(str::to_owned).to_vec(),
            pulled: Vec::new(),
            https: false,
            daemons: true,
            own_clocks: false,
            config: Vec::new(),
            config_of: Vec::new(),
            dockerd: Vec::new(),
            etcd: EtcdOptions::default(),
        }
    }

    /// The host of this name.
    #[track_caller]
    pub(crate) fn host(&self, name: &str) -> &ClusterHost {
        self.hosts
            .iter()
            .find(|host| host.name == name)
            .unwrap_or_else(|| panic!("there is no host {name}"))
    }

    /// Replaces a host's configuration file, with `more` added; the next daemon that starts there
    /// reads the new file.
    #[track_caller]
    pub(crate) fn configure(&self, host: &ClusterHost, more: &str) {
        let files = self.etcd.client(&host.name);
        let (url, ca) = match &self.server {
            Some(server) => (
                server.url("repo.git"),
                format!("ca-file = '{}'\n", server.ca_file().display()),
            ),
            None => (self.repo.url(), String::new()),
        };
        let base = format!(
            "[source]\nurl = '{url}'\n{ca}poll = '1s'\n[trust]\nallowed-signers = '{signers}'\n\
             [rollout]\nsoak = '500ms'\n[network]\ndrain-delay = '1s'\n[node]\nname = '{name}'\n\
             [store]\nendpoints = {endpoints:?}\nprefix = '{prefix}'\nca-file = '{store_ca}'\n\
             certificate-file = '{certificate}'\nkey-file = '{key}'\n",
            signers = self.repo.allowed_signers().display(),
            name = host.name,
            endpoints = self.etcd.endpoints(),
            prefix = self.etcd.prefix(),
            store_ca = files.ca.display(),
            certificate = files.certificate.display(),
            key = files.key.display(),
        );
        let own = self
            .builder
            .config_of
            .iter()
            .filter(|(name, _)| *name == host.name);
        let all = self
            .builder
            .config
            .iter()
            .chain(own.map(|(_, more)| more))
            .map(String::as_str);
        let sections = merged([base.as_str()].into_iter().chain(all).chain([more]));
        fs::write(&host.config, sections).unwrap();
    }

    /// Starts the daemon of every host that has none, and waits until all answer.
    #[track_caller]
    pub(crate) fn start_daemons(&self) {
        for host in &self.hosts {
            if host.daemon().is_none() {
                host.launch();
            }
        }
        self.hosts.iter().for_each(ClusterHost::wait_answers);
    }

    /// Replaces all files of the repository by these, in a signed commit that may delete workloads;
    /// returns the commit's id.
    #[track_caller]
    pub(crate) fn push(&self, files: &[(&str, &str)]) -> String {
        self.repo.replace_signed(files, "deploy")
    }

    /// Pushes, and waits until every host publishes that the commit is healthy; returns the
    /// commit's id.
    #[track_caller]
    pub(crate) fn deploy(&self, files: &[(&str, &str)]) -> String {
        let commit = self.push(files);
        for host in &self.hosts {
            host.wait_status(&format!("{commit} is healthy"), |status| {
                status["healthy"]["id"] == commit.as_str() && status["phase"] == "Healthy"
            });
        }
        commit
    }

    /// Pods of all namespaces as the API of the first host whose daemon answers lists them.
    #[track_caller]
    pub(crate) fn pods(&self) -> Vec<Value> {
        let mut answers = self.hosts.iter().filter_map(|host| host.host.pods());
        answers
            .next()
            .unwrap_or_else(|| panic!("no daemon answers:\n{}", self.describe()))
    }

    /// Pods of an owner in the namespace `default` that are ready and not stopping: those named
    /// NAME or NAME-...
    #[track_caller]
    pub(crate) fn ready(&self, name: &str) -> Vec<Value> {
        let mut pods = self.pods();
        pods.retain(|pod| {
            let own = pod["metadata"]["name"].as_str().unwrap_or_default();
            let metadata = &pod["metadata"];
            own.strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
                && metadata["namespace"] == "default"
                && metadata["deletionTimestamp"].is_null()
                && is_ready(pod)
        });
        pods
    }

    /// Waits until exactly `count` pods of an owner are ready; returns these pods.
    #[track_caller]
    pub(crate) fn eventually_running(&self, name: &str, count: usize) -> Vec<Value> {
        self.wait_for(SOON, &format!("{count} ready pods of {name}"), || {
            let pods = self.ready(name);
            (pods.len() == count).then_some(pods)
        })
    }

    /// Waits until `observe` returns a value; panics with the cluster's pods and every host's
    /// status when the deadline passes before.
    #[track_caller]
    pub(crate) fn wait_for<T>(
        &self,
        deadline: Duration,
        what: &str,
        mut observe: impl FnMut() -> Option<T>,
    ) -> T {
        let start = Instant::now();
        loop {
            let check = Instant::now();
            if let Some(observed) = observe() {
                return observed;
            }
            assert!(
                start.elapsed() < deadline,
                "not within {deadline:?}: {what}\n{}",
                self.describe()
            );
            pause_after(check);
        }
    }

    /// The names of the nodes that these pods are assigned to.
    pub(crate) fn nodes_of(pods: &[Value]) -> BTreeSet<String> {
        pods.iter()
            .filter_map(|pod| pod["spec"]["nodeName"].as_str())
            .map(str::to_owned)
            .collect()
    }

    fn describe(&self) -> String {
        let mut text = String::new();
        for host in &self.hosts {
            let status = host.windlass(&["status"]);
            let pods = host.windlass(&["get", "pods", "-A", "-o", "wide"]);
            text += &format!("--- {}:\n{}{}\n", host.name, status.stdout, status.stderr);
            text += &format!("{}{}\n", pods.stdout, pods.stderr);
        }
        text
    }
}

impl ClusterHost {
    /// Starts the daemon and waits until it answers.
    #[track_caller]
    pub(crate) fn start(&self) {
        self.launch();
        self.wait_answers();
    }

    /// Starts the daemon, with its configuration as it is now.
    #[track_caller]
    pub(crate) fn launch(&self) {
        let mut daemon = self.daemon();
        assert!(daemon.is_none(), "a daemon runs already on {}", self.name);
        let config = self.config.display().to_string();
        let clock = self.clock.as_ref().map(WallClock::environment);
        let clock: Vec<_> = clock
            .iter()
            .flatten()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        *daemon = Some(Daemon::start(
            &self.host,
            &["run", "--config", &config],
            &clock,
        ));
    }

    /// Sets the host's own wall clock `seconds` ahead of the other hosts' clocks, or behind them
    /// where `seconds` is negative.
    #[track_caller]
    pub(crate) fn set_clock(&self, seconds: i64) {
        let clock = self.clock.as_ref();
        clock
            .unwrap_or_else(|| panic!("{} has the machine's clock", self.name))
            .set(seconds);
    }

    /// Waits until the daemon answers; panics with the daemon's log when the daemon ends before.
    #[track_caller]
    pub(crate) fn wait_answers(&self) {
        self.with_daemon(|daemon| {
            daemon.wait_until(SOON, "the daemon answers", |_| self.host.status().is_some());
        });
    }

    /// Ends the daemon with TERM, as a service manager does; its containers keep running.
    #[track_caller]
    pub(crate) fn terminate(&self) {
        let daemon = self.take_daemon();
        assert!(
            daemon.stop().success(),
            "the daemon of {} did not end with status 0",
            self.name
        );
    }

    /// Kills the daemon with signal 9, as a crash would; its containers keep running.
    #[track_caller]
    pub(crate) fn kill(&self) {
        self.take_daemon().kill9();
    }

    /// Freezes the daemon.
    #[track_caller]
    pub(crate) fn pause(&self) {
        self.with_daemon(|daemon| daemon.pause());
    }

    /// Resumes a frozen daemon.
    #[track_caller]
    pub(crate) fn resume(&self) {
        self.with_daemon(|daemon| daemon.resume());
    }

    /// Switches the host off and on; the daemon does not run afterwards.
    #[track_caller]
    pub(crate) fn reboot(&self) {
        drop(self.daemon().take());
        self.host.reboot();
    }

    /// The daemon's process id.
    #[track_caller]
    pub(crate) fn pid(&self) -> u32 {
        self.with_daemon(|daemon| daemon.pid())
    }

    /// All that the running daemon has logged.
    #[track_caller]
    pub(crate) fn log(&self) -> String {
        self.with_daemon(|daemon| daemon.log())
    }

    /// Runs the windlass command line on the host.
    pub(crate) fn windlass(&self, args: &[&str]) -> Outcome {
        let clock = self.clock.as_ref().map(WallClock::environment);
        run(self
            .host
            .windlass_command(args)
            .envs(clock.into_iter().flatten()))
    }

    /// What `windlass status` prints on this host, as JSON.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.windlass(&["status", "-o", "json"]).json()
    }

    /// Waits until the status that this host's daemon publishes fulfils a condition; returns that
    /// status.
    #[track_caller]
    pub(crate) fn wait_status(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let start = Instant::now();
        loop {
            let check = Instant::now();
            last = self.host.status().unwrap_or(last);
            if condition(&last) {
                return last;
            }
            let running = self.daemon().as_mut().is_some_and(Daemon::is_running);
            assert!(
                running,
                "{}: no daemon runs while the test waits for: {what}",
                self.name
            );
            let late = start.elapsed() > SOON;
            assert!(
                !late,
                "{}: not within {SOON:?}: {what}; the last status: {last:#}",
                self.name
            );
            pause_after(check);
        }
    }

    /// The containers of pods on this host, in any state, with the sandboxes.
    #[track_caller]
    pub(crate) fn containers(&self) -> BTreeSet<Container> {
        let mut containers = self.host.containers();
        containers.retain(|container| !container.pod.is_empty());
        containers
    }

    /// The running containers of the pods named NAME or NAME-..., without the sandboxes.
    #[track_caller]
    pub(crate) fn running(&self, name: &str) -> BTreeSet<Container> {
        let mut containers = self.containers();
        containers.retain(|container| {
            let rest = container.pod.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
                && container.is_running()
                && !container.is_sandbox()
        });
        containers
    }

    /// Fetches a URL from inside the host; returns the body where the answer's status is 200.
    pub(crate) fn curl(&self, url: &str) -> Option<String> {
        let answer = self.host.http_get(url)?;
        (answer.status == 200).then_some(answer.body)
    }

    /// Requests a URL from inside the host repeatedly.
    #[track_caller]
    pub(crate) fn poll(&self, url: &str) -> Poller {
        Poller::start(self.host.namespace(), url)
    }

    /// The URL of a path at a port of the host's address.
    pub(crate) fn url(&self, port: u16, path: &str) -> String {
        format!("http://{}:{port}{path}", self.host.address)
    }

    fn daemon(&self) -> MutexGuard<'_, Option<Daemon>> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[track_caller]
    fn take_daemon(&self) -> Daemon {
        self.daemon()
            .take()
            .unwrap_or_else(|| panic!("no daemon runs on {}", self.name))
    }

    #[track_caller]
    fn with_daemon<T>(&self, act: impl FnOnce(&mut Daemon) -> T) -> T {
        let mut daemon = self.daemon();
        act(daemon
            .as_mut()
            .unwrap_or_else(|| panic!("no daemon runs on {}", self.name)))
    }
}

impl AsRef<super::Port> for ClusterHost {
    fn as_ref(&self) -> &super::Port {
        self.host.as_ref()
    }
}

impl Drop for ClusterHost {
    fn drop(&mut self) {
        // The daemon is dropped before its host, so that the daemon's log is printed first.
        drop(self.daemon().take());
        if self.clock.is_some() {
            WallClock::sweep();
        }
    }
}
