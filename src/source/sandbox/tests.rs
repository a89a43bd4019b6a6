//! A child under a stranger's control, which tries what it must not be able to do.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, Uid, geteuid, kill_process};
use tempfile::TempDir;

use super::super::child::{ChildRequest, ChildTask};
use super::super::fetch::{FetchLimits, RemoteTask};
use super::super::mirror::Mirror;
use super::super::quarantine::Quarantine;
use super::*;

/// The environment variable that makes this test binary the misbehaving child.
const MISBEHAVES: &str = "WINDLASS_TEST_MISBEHAVES";
/// Ports and paths that the child tries, as JSON.
const TARGETS: &str = "WINDLASS_TEST_TARGETS";
/// A user without an entry in the host's list of users.
const STRANGER: UserIds = UserIds {
    uid: 12345,
    gid: 12346,
};

/// The child of the tests below; without the environment variable it does nothing.
#[test]
fn misbehaving_child() {
    if std::env::var_os(MISBEHAVES).is_none() {
        return;
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).unwrap();
    let request: ChildRequest = serde_json::from_str(&text).unwrap();
    super::super::child::enter(&request).unwrap();

    let targets: BTreeMap<String, String> =
        serde_json::from_str(&std::env::var(TARGETS).unwrap()).unwrap();
    let mut output = std::io::stdout().lock();
    for (name, attempt) in ATTEMPTS {
        let result = match attempt(&targets) {
            Ok(()) => "done".to_owned(),
            Err(error) => error.to_string(),
        };
        writeln!(output, "\nattempt {name}: {result}").unwrap();
    }
    output.flush().unwrap();
    std::process::exit(0);
}

type Attempt = fn(&BTreeMap<String, String>) -> io::Result<()>;

const ATTEMPTS: &[(&str, Attempt)] = &[
    ("write to its directory", |at| fs::write(&at["own"], "x")),
    ("read objects", |at| File::open(&at["object"]).map(drop)),
    ("read shadow", |_| fs::read("/etc/shadow").map(drop)),
    ("read the mirror's refs", |at| {
        fs::read(&at["head"]).map(drop)
    }),
    ("read another file", |at| fs::read(&at["secret"]).map(drop)),
    ("list a directory", |_| fs::read_dir("/root").map(drop)),
    ("read its parent's environment", |_| {
        fs::read(format!("/proc/{}/environ", parent())).map(drop)
    }),
    ("write an object", |at| {
        fs::write(format!("{}.new", at["object"]), "x")
    }),
    ("write elsewhere", |at| {
        fs::write(format!("{}.new", at["secret"]), "x")
    }),
    ("remove elsewhere", |at| fs::remove_file(&at["secret"])),
    ("make a FIFO", |at| {
        let path = format!("{}.fifo", at["own"]);
        let kind = rustix::fs::FileType::Fifo;
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        Ok(rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0)?)
    }),
    ("link to a file", |at| {
        fs::hard_link(&at["secret"], format!("{}.hard", at["own"]))
    }),
    ("execute", |_| Command::new("/bin/true").status().map(drop)),
    ("start a thread", |_| {
        let thread = std::thread::Builder::new().spawn(|| ())?;
        thread.join().map_err(|_| io::Error::other("it panicked"))
    }),
    ("change a mode", |at| {
        fs::set_permissions(&at["secret"], Permissions::from_mode(0o4755))
    }),
    ("change its own mode", |at| {
        fs::set_permissions(&at["own"], Permissions::from_mode(0o4755))
    }),
    ("change an owner", |at| {
        std::os::unix::fs::chown(&at["own"], None, Some(0))
    }),
    ("set a time", |at| {
        File::open(&at["own"])?.set_modified(std::time::SystemTime::now())
    }),
    ("mount", |_| {
        let flags = rustix::mount::MountFlags::empty();
        Ok(rustix::mount::mount("none", "/mnt", "tmpfs", flags, None)?)
    }),
    ("end its parent", |_| {
        let parent = Pid::from_raw(parent()).unwrap();
        Ok(kill_process(parent, Signal::TERM)?)
    }),
    ("become root", |_| {
        let root = Uid::ROOT;
        Ok(rustix::thread::set_thread_res_uid(root, root, root)?)
    }),
    ("keep a capability", |_| {
        let sets = rustix::thread::capabilities(None)?;
        match sets.permitted.is_empty() && sets.inheritable.is_empty() {
            true => Err(io::Error::other("none")),
            false => Ok(()),
        }
    }),
    ("connect to its port", |at| connect(&at["port"])),
    ("connect to another port", |at| connect(&at["other port"])),
    ("connect by the first data", |at| {
        use rustix::net::{AddressFamily, SendFlags, SocketType, sendto, socket};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        let flags = SendFlags::from_bits_retain(0x2000_0000);
        Ok(sendto(&socket, b"x", flags, &address(&at["other port"])).map(drop)?)
    }),
    ("connect by MPTCP", |at| {
        use rustix::net::{AddressFamily, Protocol, RawProtocol, SocketType, connect, socket};
        let protocol = RawProtocol::new(262).map(Protocol::from_raw);
        let socket = socket(AddressFamily::INET, SocketType::STREAM, protocol)?;
        Ok(connect(&socket, &address(&at["other port"]))?)
    }),
    ("connect to a socket of everybody", |at| {
        UnixStream::connect(&at["open socket"]).map(drop)
    }),
    ("connect to a socket of root", |at| {
        UnixStream::connect(&at["socket"]).map(drop)
    }),
    ("open a netlink socket", |_| {
        use rustix::net::{AddressFamily, SocketType, socket};
        Ok(socket(AddressFamily::NETLINK, SocketType::RAW, None).map(drop)?)
    }),
    ("serve UDP", |_| UdpSocket::bind("127.0.0.1:0").map(drop)),
    ("serve", |_| TcpListener::bind("127.0.0.1:0").map(drop)),
    ("resolve a name", |_| {
        ("localhost", 1).to_socket_addrs().map(drop)
    }),
];

fn parent() -> i32 {
    rustix::process::getppid().unwrap().as_raw_pid()
}

fn connect(port: &str) -> io::Result<()> {
    TcpStream::connect(address(port)).map(drop)
}

fn address(port: &str) -> SocketAddr {
    ([127, 0, 0, 1], port.parse::<u16>().unwrap()).into()
}

/// A mirror with one object, servers, and files that a child may not touch.
struct SandboxHost {
    directory: TempDir,
    servers: [TcpListener; 2],
    _sockets: [UnixListener; 2],
}

impl SandboxHost {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let passable = Permissions::from_mode(0o711);
        fs::set_permissions(directory.path(), passable).unwrap();
        let server = || TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = |name: &str, mode| {
            let path = directory.path().join(name);
            let socket = UnixListener::bind(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            socket
        };
        let sockets = [socket("socket", 0o600), socket("open socket", 0o666)];
        let host = Self {
            directory,
            servers: [server(), server()],
            _sockets: sockets,
        };
        // Other users may read this by its mode: only landlock is in the way.
        fs::write(host.path("secret"), "secret").unwrap();
        fs::set_permissions(host.path("secret"), Permissions::from_mode(0o666)).unwrap();
        host
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn mirror(&self) -> Mirror {
        Mirror::new(self.path("mirror.git"))
    }

    fn port(&self, number: usize) -> u16 {
        self.servers[number].local_addr().unwrap().port()
    }

    /// What a child could do, by the names of its attempts.
    fn misbehave(&self, task: ChildTask, user: Option<UserIds>) -> Vec<String> {
        let quarantine = Quarantine::begin(&self.mirror()).unwrap();
        let object = self.mirror().objects().join("pack/x");
        fs::write(&object, "an object").unwrap();
        if let Some(user) = user {
            quarantine.share_objects(user.gid).unwrap();
        }
        quarantine.prepare(user).unwrap();
        let request = ChildRequest {
            task,
            mirror: self.path("mirror.git"),
            limits: FetchLimits::default(),
            user,
        };
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let targets = BTreeMap::from([
            ("own", path(&self.mirror().quarantine().join("own"))),
            ("object", path(&object)),
            ("head", path(&self.path("mirror.git/HEAD"))),
            ("secret", path(&self.path("secret"))),
            ("socket", path(&self.path("socket"))),
            ("open socket", path(&self.path("open socket"))),
            ("port", self.port(0).to_string()),
            ("other port", self.port(1).to_string()),
        ]);

        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--nocapture",
                "source::sandbox::tests::misbehaving_child",
            ])
            .env(MISBEHAVES, "1")
            .env("RUST_TEST_THREADS", "1")
            .env(TARGETS, serde_json::to_string(&targets).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = serde_json::to_vec(&request).unwrap();
        child.stdin.take().unwrap().write_all(&input).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}");
        let attempts: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("attempt "))
            .collect();
        assert_eq!(attempts.len(), ATTEMPTS.len(), "{text}");
        attempts
            .iter()
            .filter_map(|line| line.strip_suffix(": done"))
            .map(str::to_owned)
            .collect()
    }

    fn remote(&self) -> ChildTask {
        ChildTask::Fetch(Box::new(RemoteTask {
            url: format!("https://127.0.0.1:{}/x.git", self.port(0)),
            ..task()
        }))
    }
}

fn task() -> RemoteTask {
    RemoteTask {
        url: String::new(),
        branch: "main".to_owned(),
        download: true,
        credentials: None,
        authorities: None,
        known_hosts: None,
        refused: Default::default(),
        known: Default::default(),
        whole: false,
    }
}

#[test]
fn a_child_that_a_stranger_controls_reaches_its_work_and_its_server_and_nothing_else() {
    assert!(geteuid().is_root(), "run this test as root");
    assert!(landlock_version() >= Some(4), "the kernel lacks landlock");
    let host = SandboxHost::new();
    let work = ["write to its directory", "read objects"];
    let remote = ["connect to its port", "resolve a name"];

    let with_user = host.misbehave(host.remote(), Some(STRANGER));
    // Name services have sockets that every user may connect to.
    let names = ["connect to a socket of everybody"];
    let expected = [&work[..], &remote[..1], &names[..], &remote[1..]].concat();
    assert_eq!(with_user, expected);
    let without_user = host.misbehave(host.remote(), None);
    // To become root changes nothing for a process that is root without capabilities.
    let root = ["become root"];
    assert_eq!(
        without_user,
        [&work[..], &root[..], &remote[..]].concat(),
        "root without capabilities"
    );

    let compact = ChildTask::Compact {
        tips: Default::default(),
    };
    assert_eq!(host.misbehave(compact, Some(STRANGER)), work);
    assert!(host.path("secret").exists());
}

#[test]
fn the_child_of_a_repository_on_this_host_reads_that_repository_and_not_the_mirror() {
    assert!(geteuid().is_root(), "run this test as root");
    let host = SandboxHost::new();
    fs::create_dir_all(host.path("repository")).unwrap();
    let local = ChildTask::Fetch(Box::new(RemoteTask {
        url: host.path("repository").to_str().unwrap().to_owned(),
        ..task()
    }));
    let done = host.misbehave(local.clone(), None);
    assert_eq!(done, ["write to its directory", "become root"]);
    let done = host.misbehave(local, Some(STRANGER));
    assert_eq!(done, ["write to its directory"]);
}

#[test]
fn no_other_user_chooses_whom_the_child_becomes() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let owned = |name: &str, uid| {
        fs::create_dir_all(path(name)).unwrap();
        std::os::unix::fs::lchown(path(name), Some(uid), Some(uid)).unwrap();
    };
    let link = |name: &str, to: &str, uid| {
        std::os::unix::fs::symlink(path(to), path(name)).unwrap();
        std::os::unix::fs::lchown(path(name), Some(uid), Some(uid)).unwrap();
    };
    owned("root", 0);
    owned("alice", 1001);
    owned("alice/own.git", 1001);
    owned("alice/of-bob", 1002);
    owned("root/of-alice", 1001);
    owned("root/tree", 0);
    owned("root/tree/.git", 1001);
    owned("open", 0);
    owned("open/root.git", 0);
    fs::set_permissions(path("open"), Permissions::from_mode(0o777)).unwrap();
    link("alice/to-root", "root", 1001);
    link("alice/to-bob", "alice/of-bob", 1001);
    link("root/to-alice", "alice/own.git", 0);

    let user = |name: &str| UserIds::owner_of_repository(&path(name));
    for (name, uid) in [
        ("root", 0),
        ("alice/own.git", 1001),
        ("root/of-alice", 1001),
        ("root/to-alice", 1001),
    ] {
        assert_eq!(user(name).unwrap().uid, uid, "{name}");
    }
    for name in [
        "alice/of-bob",
        "alice/to-root",
        "alice/to-bob",
        "root/tree",
        "open/root.git",
    ] {
        let error = user(name).unwrap_err().to_string();
        assert!(error.contains("other users can replace"), "{name}: {error}");
    }
}
