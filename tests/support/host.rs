//! A host: its own network, its own `/run` and `/var/lib`, and its own Docker engine.

mod engine;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde_json::Value;

use super::daemon::DATA_DIR;
use super::guard::{Guard, bed, bed_script, enter_netns};
use super::network::{GATEWAY, Port};
use super::{Network, Outcome, eventually, run, socket};

/// The images that the engines of most tests have: all images that the tests' manifests name.
pub(crate) const TEST_IMAGES: [&str; 3] = ["busybox", "windlass-test/app:1", "windlass-test/app:2"];

/// How long a daemon may take to answer; a frozen daemon never answers.
const DAEMON_ANSWER: Duration = Duration::from_secs(5);

/// What differs between hosts.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostOptions {
    /// More arguments for dockerd, such as `--live-restore`.
    pub(crate) dockerd: Vec<String>,
    /// The host's name; `host-` and the host's number where this is `None`.
    pub(crate) name: Option<String>,
    /// The host's number on its network, from 1; the next free number where this is `None`.
    pub(crate) number: Option<u8>,
}

/// One host. Paths such as `/run/docker.sock`, `/var/lib/windlass` and `/run/windlass` are the
/// host's own: [`Host::path`] returns the test's path of the same file. Changes that the host makes
/// in `/etc` are visible on the host only. The rest of the file system is the machine's.
#[derive(Debug)]
pub(crate) struct Host {
    /// The host's address on its network.
    pub(crate) address: Ipv4Addr,
    /// The host name.
    pub(crate) name: String,
    /// The network that the host is plugged into.
    pub(crate) network: Arc<Network>,
    number: u8,
    port: Port,
    options: HostOptions,
    engine: Mutex<Option<Child>>,
    /// A process that does nothing but hold the host's mount and UTS namespaces.
    holder: Child,
    guard: Guard,
}

/// The answer of an HTTP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// The body, without newlines at its end.
    pub(crate) body: String,
}

impl Answer {
    /// The answer in the output of a curl that wrote the body, a newline and the status code.
    pub(crate) fn of(curl: &Outcome) -> Option<Answer> {
        let (body, status) = curl.stdout.rsplit_once('\n')?;
        let status = status.parse().ok().filter(|_| curl.success())?;
        Some(Answer {
            status,
            body: body.trim_end().to_owned(),
        })
    }
}

impl Host {
    /// A host alone on its network, with a running engine.
    pub(crate) fn start() -> Host {
        Host::start_on(&Network::start(), HostOptions::default())
    }

    /// A host plugged into a network, with a running engine.
    pub(crate) fn start_on(network: &Arc<Network>, options: HostOptions) -> Host {
        let guard = Guard::start();
        let number = options.number.unwrap_or_else(|| network.next_number());
        let port = network.plug(&format!("port{number}"), &guard.name);
        let name = options
            .name
            .clone()
            .unwrap_or_else(|| format!("host-{number}"));
        let holder = hold_namespaces(&guard, &name);
        let host = Host {
            address: Ipv4Addr::new(192, 168, 77, 10 + number),
            name,
            network: Arc::clone(network),
            number,
            port,
            options,
            engine: Mutex::new(None),
            holder,
            guard,
        };
        host.connect();
        host.start_docker();
        host
    }

    /// A host alone on its network, whose engine has the images that most tests run.
    pub(crate) fn with_images() -> Host {
        let host = Host::start();
        for image in TEST_IMAGES {
            host.load_image(image);
        }
        host
    }

    /// The host that the tests of one binary share; the first call starts it.
    pub(crate) fn shared() -> &'static Host {
        static HOST: OnceLock<Host> = OnceLock::new();
        HOST.get_or_init(Host::with_images)
    }

    /// Removes every container of the engine, and everything else that a daemon made on the host.
    #[track_caller]
    pub(crate) fn clear(&self) {
        // Only shims of this host are resumed: another test may have frozen a shim of its own host.
        let script = format!(
            "for shim in $(pgrep --ns $$ --nslist net -f containerd-shim); do kill -CONT $shim 2>/dev/null; done
            docker -H unix:///run/docker.sock ps -aq | xargs -r docker -H unix:///run/docker.sock rm -fv >/dev/null
            for mount in $(awk '$2 ~ \"^{DATA_DIR}\" {{ print $2 }}' /proc/self/mounts | sort -r); do
                umount -l $mount
            done
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
        let outcome = self.exec(&["sh", "-c", &script]);
        if !outcome.success() && !std::thread::panicking() {
            panic!("cannot clear the host: {outcome:?}");
        }
    }

    /// The test's path of a file that the host has under `/run`, `/var/run` or `/var/lib`.
    ///
    /// Mounts that a program of the host made there are visible with [`Host::exec`] only.
    #[track_caller]
    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        for (prefix, part) in [
            ("/var/run", "run"),
            ("/run", "run"),
            ("/var/lib", "var-lib"),
        ] {
            if let Ok(rest) = path.strip_prefix(prefix) {
                return self.guard.dir.join(part).join(rest);
            }
        }
        panic!("{} is the same for all hosts", path.display());
    }

    /// A directory that is removed with the host, at the same path inside and outside of the host.
    pub(crate) fn dir(&self) -> &Path {
        &self.guard.dir
    }

    /// The name of the network namespace.
    pub(crate) fn namespace(&self) -> &str {
        &self.guard.name
    }

    /// A command that will run on the host: in its network and mount namespace, under its name.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args([
                "-t",
                &self.holder.id().to_string(),
                "--mount",
                "--uts",
                "--net",
                "--",
                program,
            ])
            .env_remove("DOCKER_HOST");
        command
    }

    /// Calls a function in a thread of the host's network namespace, so that the sockets that it
    /// opens are the host's.
    pub(crate) fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let done = std::thread::scope(|scope| {
            let inside = || {
                enter_netns(self.namespace());
                act()
            };
            scope.spawn(inside).join()
        });
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs a program on the host, and returns the outcome whether it succeeded or not.
    #[track_caller]
    pub(crate) fn exec(&self, args: &[&str]) -> Outcome {
        let (program, rest) = args.split_first().unwrap();
        run(self.command(program).args(rest))
    }

    /// The daemon's answer at its socket for reading, windlass.sock; `None` where the daemon does
    /// not answer.
    pub(crate) fn read(&self, path: &str) -> Option<Value> {
        let socket = format!("{}/windlass.sock", super::daemon::SOCKET_DIR);
        socket::get(&self.path(socket), path, DAEMON_ANSWER)
    }

    /// What `windlass status -o json` would print, read without starting the program.
    pub(crate) fn status(&self) -> Option<Value> {
        self.read("/windlass/v1/status")
    }

    /// Pods of all namespaces as the API lists them.
    pub(crate) fn pods(&self) -> Option<Vec<Value>> {
        let listed = self.read("/api/v1/pods")?;
        listed["items"].as_array().cloned()
    }

    /// Runs the windlass command line on the host, against the daemon's default sockets there.
    pub(crate) fn windlass(&self, args: &[&str]) -> Outcome {
        run(&mut self.windlass_command(args))
    }

    /// The windlass command line on the host as a command that has not started.
    pub(crate) fn windlass_command(&self, args: &[&str]) -> Command {
        let mut command = self.command(super::daemon::BINARY);
        command
            .args(["--socket-dir", super::daemon::SOCKET_DIR])
            .args(args);
        command
    }

    /// Fetches a URL from inside the host; `None` where no HTTP answer came within 5 seconds.
    pub(crate) fn http_get(&self, url: &str) -> Option<Answer> {
        let outcome = self.exec(&[
            "curl",
            "-sS",
            "--max-time",
            "5",
            "-w",
            "\n%{http_code}",
            url,
        ]);
        Answer::of(&outcome)
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
            # The kernel makes the routes of the loopback only when it comes up, so it goes down first.
            ip link set lo down
            ip route flush table all 2>/dev/null
            nft flush ruleset";
        self.exec(&["sh", "-c", script]).ok();
        self.connect();
        self.start_docker();
    }

    /// Sets the host's link down, as an unplugged cable would; the kernel also drops the default
    /// route.
    pub(crate) fn unplug(&self) {
        self.exec(&["ip", "link", "set", "eth0", "down"]).ok();
    }

    /// Sets the host's link up again, with the default route.
    pub(crate) fn replug(&self) {
        self.exec(&["ip", "link", "set", "eth0", "up"]).ok();
        self.exec(&[
            "ip",
            "route",
            "replace",
            "default",
            "via",
            &GATEWAY.to_string(),
        ])
        .ok();
    }

    /// Replaces the host's address by another, as another network or a new DHCP lease would.
    pub(crate) fn readdress(&self, address: Ipv4Addr) {
        let script = format!(
            "set -e
            ip addr flush dev eth0
            ip addr add {address}/24 dev eth0
            ip route replace default via {GATEWAY}"
        );
        self.exec(&["sh", "-c", &script]).ok();
    }

    /// Gives the host its address and a strict firewall: FORWARD and INPUT have the policy DROP.
    fn connect(&self) {
        let script = "set -e
            \"$0\" address \"$1\"
            sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1
            iptables -w -P FORWARD DROP
            iptables -w -P INPUT DROP
            iptables -w -A INPUT -i lo -j ACCEPT
            iptables -w -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
            iptables -w -A INPUT -p icmp -j ACCEPT";
        let bed = bed_script().display().to_string();
        self.exec(&["sh", "-c", script, &bed, &self.address.to_string()])
            .ok();
    }
}

impl AsRef<Port> for Host {
    fn as_ref(&self) -> &Port {
        &self.port
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

/// Starts a process in a mount namespace and a UTS namespace of its own, where `/etc`, `/run` and
/// `/var/lib` are the host's and the host name is set. The mount namespace ends with its last
/// process, and with the namespace every mount that engine or daemon did not remove.
fn hold_namespaces(guard: &Guard, name: &str) -> Child {
    for prefix in ["/etc/", "/run/", "/var/lib/"] {
        assert!(
            !super::daemon::BINARY.starts_with(prefix),
            "a host cannot see {}: set CARGO_TARGET_DIR to a directory outside of {prefix}",
            super::daemon::BINARY
        );
    }
    let child = bed("hold")
        .args([guard.dir.as_os_str(), guard.name.as_ref(), name.as_ref()])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let held = guard.dir.join("held");
    eventually(
        Duration::from_secs(10),
        "the mount namespace is made",
        || held.exists(),
    );
    child
}
