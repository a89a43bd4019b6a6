//! A host: its own network, its own `/run` and `/var/lib`, and its own Docker engine.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::command::repository_root;
use super::guard::{Guard, in_netns};
use super::network::GATEWAY;
use super::{Network, Outcome, eventually, run};

/// How long an engine may take to answer, on a slow machine with others starting beside it.
const ENGINE_START: Duration = Duration::from_secs(60);
const ENGINE_STOP: Duration = Duration::from_secs(60);

/// What differs between hosts.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostOptions {
    /// More arguments for dockerd, such as `--live-restore`.
    pub(crate) dockerd: Vec<String>,
}

/// One host. Paths such as `/run/docker.sock`, `/var/lib/windlass` and `/run/windlass` are its own:
/// [`Host::path`] says where they are for the test. The rest of the file system is the machine's.
#[derive(Debug)]
pub(crate) struct Host {
    /// The host's address on its network.
    pub(crate) address: Ipv4Addr,
    /// The network it is plugged into.
    pub(crate) network: Arc<Network>,
    number: u8,
    options: HostOptions,
    engine: Mutex<Option<Child>>,
    /// A process that does nothing but hold the host's mount namespace.
    holder: Child,
    guard: Guard,
}

/// What an HTTP server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// The body, without the line ends at its end.
    pub(crate) body: String,
}

impl Host {
    /// A host alone on its network, with a running engine.
    pub(crate) fn start() -> Host {
        Host::start_on(&Network::start(), HostOptions::default())
    }

    /// A host plugged into a network, with a running engine.
    pub(crate) fn start_on(network: &Arc<Network>, options: HostOptions) -> Host {
        let guard = Guard::start();
        for part in ["run", "var-lib"] {
            fs::create_dir(guard.dir.join(part)).unwrap();
        }
        let number = network.plug(&guard.name);
        let holder = hold_mount_namespace(&guard);
        let host = Host {
            address: Ipv4Addr::new(192, 168, 77, 10 + number),
            network: Arc::clone(network),
            number,
            options,
            engine: Mutex::new(None),
            holder,
            guard,
        };
        host.connect();
        host.start_docker();
        host
    }

    /// The host that the tests of one binary share, started by the first who asks.
    pub(crate) fn shared() -> &'static Host {
        static HOST: OnceLock<Host> = OnceLock::new();
        HOST.get_or_init(Host::start)
    }

    /// Where a path of the host under `/run`, `/var/run` or `/var/lib` is for the test.
    ///
    /// What was mounted there by a program of the host is seen with [`Host::exec`] only.
    #[track_caller]
    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        for (prefix, part) in [("/var/run", "run"), ("/run", "run"), ("/var/lib", "var-lib")] {
            if let Ok(rest) = path.strip_prefix(prefix) {
                return self.guard.dir.join(part).join(rest);
            }
        }
        panic!("{} is the same for all hosts", path.display());
    }

    /// A directory that goes with the host, at the same path inside and outside.
    pub(crate) fn dir(&self) -> &Path {
        &self.guard.dir
    }

    /// The engine's socket, for a client outside the host.
    pub(crate) fn docker_socket(&self) -> PathBuf {
        self.path("/run/docker.sock")
    }

    /// Runs the docker client; panics when it fails; gives its standard output.
    #[track_caller]
    pub(crate) fn docker(&self, args: &[&str]) -> String {
        self.try_docker(args).ok()
    }

    /// Runs the docker client, whatever comes of it.
    pub(crate) fn try_docker(&self, args: &[&str]) -> Outcome {
        run(Command::new("docker").env("DOCKER_HOST", self.docker_host()).args(args))
    }

    /// A command that will run on the host: in its network and mount namespace.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &self.holder.id().to_string(), "--mount", "--net", "--", program])
            .env_remove("DOCKER_HOST");
        command
    }

    /// Runs a program on the host, whatever comes of it.
    #[track_caller]
    pub(crate) fn exec(&self, args: &[&str]) -> Outcome {
        let (program, rest) = args.split_first().unwrap();
        run(self.command(program).args(rest))
    }

    /// Runs the windlass command line on the host, against the daemon's default sockets there.
    pub(crate) fn windlass(&self, args: &[&str]) -> Outcome {
        run(self.command(super::daemon::BINARY).args(["--socket-dir", super::daemon::SOCKET_DIR]).args(args))
    }

    /// Fetches a URL from inside the host; nothing when no HTTP answer came within 5 seconds.
    pub(crate) fn http_get(&self, url: &str) -> Option<Answer> {
        let outcome = self.exec(&["curl", "-sS", "--max-time", "5", "-w", "\n%{http_code}", url]);
        if !outcome.success() {
            return None;
        }
        let (body, status) = outcome.stdout.rsplit_once('\n')?;
        Some(Answer { status: status.parse().ok()?, body: body.trim_end().to_owned() })
    }

    /// Loads one of the images that `scripts/images` makes into the engine.
    #[track_caller]
    pub(crate) fn load_image(&self, name: &str) {
        run(Command::new(repository_root().join("scripts/images"))
            .arg(name)
            .env("DOCKER_HOST", self.docker_host()))
        .ok();
    }

    /// The `docker inspect` of one container or image.
    #[track_caller]
    pub(crate) fn inspect(&self, name: &str) -> serde_json::Value {
        self.try_docker(&["inspect", name]).json()[0].take()
    }

    /// Starts the engine and waits until it answers.
    #[track_caller]
    pub(crate) fn start_docker(&self) {
        let mut engine = self.engine();
        assert!(engine.is_none(), "the engine runs already");
        let log = File::options().create(true).append(true).open(self.guard.dir.join("dockerd.log")).unwrap();
        let mut child = self
            .command("dockerd")
            .args(self.dockerd_arguments())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        eventually(ENGINE_START, "the engine answers", || {
            assert!(child.try_wait().unwrap().is_none(), "dockerd ended at once: {}", self.docker_log());
            self.try_docker(&["version"]).success()
        });
        *engine = Some(child);
    }

    /// Stops the engine as a service manager does, and with it every container.
    #[track_caller]
    pub(crate) fn stop_docker(&self) {
        let mut child = self.engine().take().unwrap();
        run(Command::new("kill").args(["-TERM", &child.id().to_string()])).ok();
        eventually(ENGINE_STOP, "dockerd ends", || child.try_wait().unwrap().is_some());
    }

    /// Stops the engine and starts it again.
    #[track_caller]
    pub(crate) fn restart_docker(&self) {
        self.stop_docker();
        self.start_docker();
    }

    /// Kills the engine with signal 9. Its containers and their shims live on.
    #[track_caller]
    pub(crate) fn kill_docker(&self) {
        let mut child = self.engine().take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        // The kernel kills dockerd's containerd with it. A next dockerd that still sees its process, or
        // the zombie of it, would wait for it in vain.
        let file = self.path("/run/docker/containerd/containerd.pid");
        let pid = fs::read_to_string(&file).unwrap();
        eventually(ENGINE_STOP, "containerd ends with dockerd", || {
            fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
                .map_or(true, |stat| stat.contains(") Z "))
        });
        fs::remove_file(file).unwrap();
    }

    /// Switches the host off and on: no process, link, route, rule or file in `/run` survives. The
    /// engine runs afterwards; a daemon has to be started again.
    #[track_caller]
    pub(crate) fn reboot(&self) {
        self.guard.halt(self.holder.id());
        if let Some(mut child) = self.engine().take() {
            child.wait().unwrap();
        }
        let script = "
            for mount in $(awk '$2 ~ \"^/run/|^/var/lib/\" { print $2 }' /proc/self/mounts | sort -r); do
                umount -l $mount
            done
            rm -rf /run/*
            for link in $(ls /proc/sys/net/ipv4/conf); do
                case $link in all | default | lo | eth0) ;; *) ip link del $link 2>/dev/null ;; esac
            done
            ip addr flush dev eth0
            ip route flush table all 2>/dev/null
            nft flush ruleset";
        self.exec(&["sh", "-c", script]).ok();
        self.connect();
        self.start_docker();
    }

    /// Takes the cable out, which also drops the default route.
    pub(crate) fn unplug(&self) {
        self.exec(&["ip", "link", "set", "eth0", "down"]).ok();
    }

    /// Puts the cable back.
    pub(crate) fn replug(&self) {
        self.exec(&["ip", "link", "set", "eth0", "up"]).ok();
        self.exec(&["ip", "route", "replace", "default", "via", &GATEWAY.to_string()]).ok();
    }

    /// What the engine logged so far.
    pub(crate) fn docker_log(&self) -> String {
        fs::read_to_string(self.guard.dir.join("dockerd.log")).unwrap_or_default()
    }

    /// The engine's process; also after a test panicked while it started or stopped the engine.
    fn engine(&self) -> MutexGuard<'_, Option<Child>> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn docker_host(&self) -> String {
        format!("unix://{}", self.docker_socket().display())
    }

    /// Gives the host its address and a firewall that lets through no more than a careful host's.
    fn connect(&self) {
        let script = format!(
            "set -e
            ip link set lo up
            ip addr add {address}/24 dev eth0
            ip link set eth0 up
            ip route add default via {GATEWAY}
            sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1
            iptables -w -P FORWARD DROP
            iptables -w -P INPUT DROP
            iptables -w -A INPUT -i lo -j ACCEPT
            iptables -w -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
            iptables -w -A INPUT -p icmp -j ACCEPT",
            address = self.address,
        );
        self.exec(&["sh", "-c", &script]).ok();
    }

    fn dockerd_arguments(&self) -> Vec<String> {
        let configuration = self.guard.dir.join("daemon.json");
        // An empty file of our own: the machine's would contradict the flags.
        fs::write(&configuration, "{}\n").unwrap();
        let registry = format!("{GATEWAY}:5000");
        let mut arguments: Vec<String> = [
            "--config-file".into(),
            configuration.display().to_string(),
            "--data-root=/var/lib/docker".into(),
            "--exec-root=/run/docker".into(),
            "--pidfile=/run/docker.pid".into(),
            "--host=unix:///run/docker.sock".into(),
            "--exec-opt=native.cgroupdriver=cgroupfs".into(),
            format!("--cgroup-parent=/{}", self.guard.name),
            format!("--bip=172.31.{}.1/24", self.number),
            format!("--registry-mirror=http://{registry}"),
            format!("--insecure-registry={registry}"),
        ]
        .into();
        arguments.extend(self.options.dockerd.iter().cloned());
        arguments
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.guard.halt(0);
        if let Some(mut child) = self.engine().take() {
            drop(child.wait());
        }
        drop(self.holder.wait());
    }
}

/// Starts a process in a mount namespace of its own, where `/run` and `/var/lib` are the host's. With
/// its last process the namespace goes, and with it every mount that engine or daemon left behind.
fn hold_mount_namespace(guard: &Guard) -> Child {
    let dir = guard.dir.display();
    for prefix in ["/run/", "/var/lib/"] {
        assert!(
            !super::daemon::BINARY.starts_with(prefix),
            "a host cannot see {}: build outside of {prefix}",
            super::daemon::BINARY
        );
    }
    let script = format!(
        "set -e
        mount --make-rshared /
        mount --bind {dir}/run /run
        mount --bind {dir}/var-lib /var/lib
        touch {dir}/held
        exec sleep infinity"
    );
    let child = in_netns(&guard.name)
        .args(["unshare", "--mount", "--propagation", "private", "sh", "-c", &script])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let held = guard.dir.join("held");
    eventually(Duration::from_secs(10), "the mount namespace is made", || held.exists());
    child
}
