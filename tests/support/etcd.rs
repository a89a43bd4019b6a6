//! The store of a cluster: a real etcd with one or three members, each on a machine of its own.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::command::repository_root;
use super::relay::Relay;
use super::{Machine, Network, Outcome, WallClock, eventually, run};

/// The port that etcd's clients connect to.
const CLIENT_PORT: u16 = 2379;
/// How long members may take to elect a leader and answer, on a slow machine.
const ANSWER: Duration = Duration::from_secs(60);

/// `scripts/etcd` on machines at 192.168.77.5, .6 and .7. Members are numbered from 0.
///
/// The members end with their machines, also when the test is killed.
#[derive(Debug)]
pub(crate) struct Etcd {
    machines: Vec<Machine>,
    network: Arc<Network>,
    options: EtcdOptions,
    dir: PathBuf,
    /// For each member, whether it was neither stopped nor paused. etcdctl asks only these members.
    answering: Mutex<Vec<bool>>,
    relays: Vec<OnceLock<Relay>>,
}

/// What differs between stores.
#[derive(Debug, Clone)]
pub(crate) struct EtcdOptions {
    /// The prefix that the nodes have rights below.
    pub(crate) prefix: String,
    /// The nodes that have a user and a certificate.
    pub(crate) nodes: Vec<String>,
    /// The size in bytes at which the store refuses writes; etcd's default for 0.
    pub(crate) quota: u64,
    /// When history is compacted: a time such as `1h`, or a number of revisions; never for 0.
    pub(crate) compaction: String,
    /// How many seconds ago the certificates were made.
    pub(crate) age: i64,
}

impl Default for EtcdOptions {
    fn default() -> EtcdOptions {
        EtcdOptions {
            prefix: "/windlass/test".to_owned(),
            nodes: (1..=5).map(|number| format!("n{number}")).collect(),
            quota: 0,
            compaction: "1h".to_owned(),
            age: 0,
        }
    }
}

/// The certificate that a client presents to etcd, and the authority that the client trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientFiles {
    /// The authority that signed etcd's certificates.
    pub(crate) ca: PathBuf,
    /// The client's certificate, whose common name is the user.
    pub(crate) certificate: PathBuf,
    /// The key of the client's certificate.
    pub(crate) key: PathBuf,
}

impl Etcd {
    /// A store with one or three members, and users for the nodes n1 to n5.
    #[track_caller]
    pub(crate) fn start(network: &Arc<Network>, members: usize) -> Etcd {
        Etcd::start_with(network, members, EtcdOptions::default())
    }

    /// The same, with other options.
    #[track_caller]
    pub(crate) fn start_with(network: &Arc<Network>, members: usize, options: EtcdOptions) -> Etcd {
        assert!((1..=3).contains(&members), "{members} members");
        // A machine of the bed cannot reach a package mirror, so etcd is installed from outside.
        run(Command::new(script()).arg("install")).ok();
        let machines: Vec<Machine> = (0..members)
            .map(|i| Machine::start(network, address(i)))
            .collect();
        let dir = machines[0].dir().join("etcd");
        let etcd = Etcd {
            network: Arc::clone(network),
            options,
            dir,
            answering: Mutex::new(vec![false; members]),
            relays: machines.iter().map(|_| OnceLock::new()).collect(),
            machines,
        };
        etcd.init();
        etcd.start_all();
        etcd
    }

    /// `https://ADDRESS:2379` of every member.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.machines
            .iter()
            .map(|machine| endpoint(machine.address))
            .collect()
    }

    /// The prefix that the nodes have rights below, without a slash at its end.
    pub(crate) fn prefix(&self) -> &str {
        &self.options.prefix
    }

    /// The machine of a member, for instance to cut that machine off.
    pub(crate) fn machine(&self, member: usize) -> &Machine {
        &self.machines[member]
    }

    /// The files of a node's user.
    pub(crate) fn client(&self, node: &str) -> ClientFiles {
        self.files(&self.dir.join("nodes").join(node))
    }

    /// The files of the user root, who may do anything.
    pub(crate) fn root(&self) -> ClientFiles {
        self.files(&self.dir.join("root"))
    }

    /// Makes a certificate and a user for one more node.
    #[track_caller]
    pub(crate) fn add_node(&self, node: &str) {
        run(self.script_in(self.network.command(), "node").arg(node)).ok();
    }

    /// Ends a member as a service manager does; its data stays.
    #[track_caller]
    pub(crate) fn stop_member(&self, member: usize) {
        self.set_answering(member, false);
        run(self.script_on(member, "stop").arg(number(member))).ok();
    }

    /// Starts a stopped member and does not wait until the member answers: one running member of
    /// three has no quorum and does not answer.
    #[track_caller]
    pub(crate) fn start_member(&self, member: usize) {
        run(self.script_on(member, "start").arg(number(member))).ok();
        self.set_answering(member, true);
    }

    /// Kills a member with signal 9, as a crash would.
    #[track_caller]
    pub(crate) fn kill_member(&self, member: usize) {
        self.set_answering(member, false);
        self.signal(member, "KILL");
        let pid = self.pid(member);
        eventually(ANSWER, "the member is gone", || {
            !Path::new("/proc").join(&pid).exists()
        });
    }

    /// Freezes a member: its connections stay open, and no answer comes.
    #[track_caller]
    pub(crate) fn pause_member(&self, member: usize) {
        self.set_answering(member, false);
        self.signal(member, "STOP");
    }

    /// Resumes a frozen member.
    #[track_caller]
    pub(crate) fn resume_member(&self, member: usize) {
        self.signal(member, "CONT");
        self.set_answering(member, true);
    }

    /// Delays what clients send to a member, and what the member answers, by this many milliseconds
    /// each; 0 ends the delay.
    ///
    /// Traffic between members is not delayed. Clients' connections are reset when the delay
    /// begins.
    #[track_caller]
    pub(crate) fn slow(&self, member: usize, milliseconds: u64) {
        let machine = &self.machines[member];
        let relay = self.relays[member].get_or_init(|| Relay::start(machine, CLIENT_PORT));
        relay.set(machine, Duration::from_millis(milliseconds));
    }

    /// Deletes the data of all members, and starts the members empty, with the users and rights of
    /// a new store.
    #[track_caller]
    pub(crate) fn wipe(&self) {
        run(&mut self.script_in(self.network.command(), "wipe")).ok();
        self.start_all();
    }

    /// Saves all of the store's data, users and rights included.
    #[track_caller]
    pub(crate) fn snapshot(&self, file: &Path) {
        run(self
            .script_in(self.network.command(), "save")
            .env("ETCDCTL_ENDPOINTS", self.endpoints_to_ask())
            .arg(file))
        .ok();
    }

    /// Stops all members, restores a snapshot and starts the members again.
    #[track_caller]
    pub(crate) fn restore(&self, file: &Path) {
        run(self.script_in(self.network.command(), "restore").arg(file)).ok();
        self.start_all();
    }

    /// Runs etcdctl as root against the members that were not stopped or paused.
    pub(crate) fn etcdctl(&self, args: &[&str]) -> Outcome {
        self.etcdctl_with(&self.root(), args)
    }

    /// Runs etcdctl as a node.
    pub(crate) fn etcdctl_as(&self, node: &str, args: &[&str]) -> Outcome {
        self.etcdctl_with(&self.client(node), args)
    }

    /// Puts a value, as root.
    #[track_caller]
    pub(crate) fn put(&self, key: &str, value: &str) {
        self.etcdctl(&["put", "--", key, value]).ok();
    }

    /// The value of a key, without newlines at its end; `None` where the key does not exist.
    #[track_caller]
    pub(crate) fn get(&self, key: &str) -> Option<String> {
        let output = self.etcdctl(&["get", "--", key]).ok();
        let (printed_key, value) = output.split_once('\n').unwrap_or((&output, ""));
        (printed_key == key).then(|| value.to_owned())
    }

    /// Deletes a key, which must exist.
    #[track_caller]
    pub(crate) fn delete(&self, key: &str) {
        assert_eq!(
            self.etcdctl(&["del", "--", key]).ok(),
            "1",
            "there is no key {key}"
        );
    }

    /// The keys with this prefix, in order.
    #[track_caller]
    pub(crate) fn keys(&self, prefix: &str) -> Vec<String> {
        let output = self
            .etcdctl(&["get", "--prefix", "--keys-only", "--", prefix])
            .ok();
        output
            .lines()
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// The store's revision.
    #[track_caller]
    pub(crate) fn revision(&self) -> u64 {
        let answer = self
            .etcdctl(&["get", "-w", "json", "--", self.prefix()])
            .json();
        answer["header"]["revision"].as_u64().unwrap()
    }

    /// Compacts the store's whole history.
    #[track_caller]
    pub(crate) fn compact(&self) {
        self.etcdctl(&["compact", &self.revision().to_string()])
            .ok();
    }

    /// The log of a member, for messages.
    pub(crate) fn log(&self, member: usize) -> String {
        let log = std::fs::read(self.member_dir(member).join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    fn init(&self) {
        let mut init = Command::new(script());
        init.args(["init", "--dir"])
            .arg(&self.dir)
            .args(["--prefix", &self.options.prefix]);
        for machine in &self.machines {
            init.args(["--address", &machine.address.to_string()]);
        }
        for node in &self.options.nodes {
            init.args(["--node", node]);
        }
        init.args([
            "--quota",
            &self.options.quota.to_string(),
            "--compaction",
            &self.options.compaction,
        ]);
        if self.options.age != 0 {
            let dir = self.machines[0].dir();
            let clock = WallClock::new(dir);
            clock.set(-self.options.age);
            // Only openssl, which makes the certificates, has the other clock: with libfaketime in
            // the shell too, the shell's processes would conflict over its shared memory.
            let before = std::env::var("PATH").unwrap();
            clock.wrap("openssl", &dir.join("bin"));
            init.env("PATH", format!("{}:{before}", dir.join("bin").display()));
        }
        run(&mut init).ok();
    }

    /// Starts every member on its machine, then makes the users that are missing.
    #[track_caller]
    fn start_all(&self) {
        for member in 0..self.machines.len() {
            self.start_member(member);
        }
        eventually(ANSWER, "every member of etcd answers", || {
            self.etcdctl(&["endpoint", "health"]).success()
        });
        run(&mut self.script_in(self.network.command(), "users")).ok();
    }

    fn etcdctl_with(&self, files: &ClientFiles, args: &[&str]) -> Outcome {
        let mut command = self.script_in(self.network.command(), "ctl");
        command
            .env("ETCDCTL_ENDPOINTS", self.endpoints_to_ask())
            .env("ETCDCTL_CERT", &files.certificate)
            .env("ETCDCTL_KEY", &files.key)
            .args(args);
        run(&mut command)
    }

    fn files(&self, stem: &Path) -> ClientFiles {
        let named = |end: &str| PathBuf::from(format!("{}{end}", stem.display()));
        ClientFiles {
            ca: self.dir.join("ca.pem"),
            certificate: named(".pem"),
            key: named("-key.pem"),
        }
    }

    fn script_on(&self, member: usize, command: &str) -> Command {
        self.script_in(self.machines[member].command(), command)
    }

    fn script_in(&self, mut place: Command, command: &str) -> Command {
        place.arg(script()).args([command, "--dir"]).arg(&self.dir);
        place
    }

    fn member_dir(&self, member: usize) -> PathBuf {
        self.dir.join("members").join(number(member))
    }

    #[track_caller]
    fn pid(&self, member: usize) -> String {
        std::fs::read_to_string(self.member_dir(member).join("pid"))
            .unwrap()
            .trim()
            .to_owned()
    }

    #[track_caller]
    fn signal(&self, member: usize, name: &str) {
        run(Command::new("kill").args(["-s", name, &self.pid(member)])).ok();
    }

    fn set_answering(&self, member: usize, answers: bool) {
        self.answering
            .lock()
            .unwrap_or_else(PoisonError::into_inner)[member] = answers;
    }

    /// The endpoints of the members that answer, for etcdctl, which waits long for a member that
    /// does not answer.
    fn endpoints_to_ask(&self) -> String {
        let answering = self
            .answering
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let endpoints_to_ask = self
            .endpoints()
            .into_iter()
            .zip(answering)
            .filter(|(_, answers)| *answers);
        let endpoints_to_ask: Vec<String> =
            endpoints_to_ask.map(|(endpoint, _)| endpoint).collect();
        if endpoints_to_ask.is_empty() {
            self.endpoints().join(",")
        } else {
            endpoints_to_ask.join(",")
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for member in 0..self.machines.len() {
                let log = self.log(member);
                let lines: Vec<&str> = log.lines().collect();
                eprintln!(
                    "--- the end of the log of etcd's member {member}:\n{}",
                    lines[lines.len().saturating_sub(20)..].join("\n")
                );
            }
        }
    }
}

fn address(member: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 77, 5 + u8::try_from(member).unwrap())
}

fn endpoint(address: Ipv4Addr) -> String {
    format!("https://{address}:{CLIENT_PORT}")
}

/// The number of a member in `scripts/etcd`, which counts from 1.
fn number(member: usize) -> String {
    (member + 1).to_string()
}

fn script() -> PathBuf {
    repository_root().join("scripts/etcd")
}
