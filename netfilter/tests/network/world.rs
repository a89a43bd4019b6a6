//! A host whose firewall has the policy DROP for INPUT and FORWARD, a client on the host's network,
//! and pods of the host, each a network namespace.

use std::{
    fs::File,
    future::Future,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use netfilter::{Exposed, Exposure, HostNet, Network};
use reconciler::{
    name::LinkName,
    network::{HostNetwork, PodLink, VxlanSettings},
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub(crate) const NODE: &str = "192.0.2.1";
pub(crate) const SECOND_NODE_ADDRESS: &str = "198.51.100.1";
pub(crate) const CLIENT: &str = "192.0.2.2";

/// The time-out of a request. An answer takes milliseconds here, and the kernel sends a lost SYN
/// again after 1 s.
const TIMEOUT: Duration = Duration::from_secs(3);
static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// A network namespace, which is deleted when this value is dropped.
pub(crate) struct Namespace {
    pub(crate) name: String,
}

impl Namespace {
    pub(crate) fn new(what: &str) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("wlnf-{}-{number}-{what}", std::process::id());
        run(&["ip", "netns", "add", &name]);
        Self { name }
    }

    pub(crate) fn fd(&self) -> OwnedFd {
        File::open(PathBuf::from("/run/netns").join(&self.name))
            .unwrap()
            .into()
    }

    /// Calls a function on a thread inside the namespace.
    pub(crate) fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.spawn(work).join().unwrap()
    }

    fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let fd = self.fd();
        thread::spawn(move || {
            move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        })
    }

    /// Runs a command inside the namespace, which must succeed; returns its output.
    pub(crate) fn run(&self, command: &str) -> String {
        let mut words = vec!["ip", "netns", "exec", &self.name];
        words.extend(command.split(' '));
        run(&words)
    }

    /// Starts a TCP server that answers each connection with `name` and the client's address.
    pub(crate) fn serve_tcp(&self, port: u16, name: &str) {
        let name = name.to_owned();
        let listener =
            self.inside(move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let mut connection: TcpStream = connection;
                let peer = connection.peer_addr().unwrap();
                let _ = connection.write_all(format!("{name} {}", peer.ip()).as_bytes());
            }
        });
    }

    /// Starts a UDP server that answers each packet with `name` and the client's address.
    pub(crate) fn serve_udp(&self, port: u16, name: &str) {
        self.serve_udp_at(&format!("0.0.0.0:{port}"), name);
    }

    /// Like [`Namespace::serve_udp`], on one address, from which the server also answers.
    pub(crate) fn serve_udp_at(&self, at: &str, name: &str) {
        let (at, name): (SocketAddr, String) = (at.parse().unwrap(), name.to_owned());
        let socket = self.inside(move || UdpSocket::bind(at).unwrap());
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(format!("{name} {}", peer.ip()).as_bytes(), peer);
            }
        });
    }

    /// The answer of the server at a TCP address.
    pub(crate) fn ask(&self, to: &str) -> io::Result<String> {
        let to: SocketAddr = to.parse().unwrap();
        self.inside(move || {
            let mut connection = TcpStream::connect_timeout(&to, TIMEOUT)?;
            connection.set_read_timeout(Some(TIMEOUT))?;
            let mut answer = String::new();
            connection.read_to_string(&mut answer)?;
            Ok(answer)
        })
    }

    /// A UDP socket that is connected to an address.
    pub(crate) fn udp(&self, to: &str) -> UdpSocket {
        let to: SocketAddr = to.parse().unwrap();
        self.inside(move || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            socket.connect(to).unwrap();
            socket.set_read_timeout(Some(TIMEOUT)).unwrap();
            socket
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .output();
    }
}

/// Sends a request on a UDP socket; returns the answer.
pub(crate) fn ask_udp(socket: &UdpSocket) -> io::Result<String> {
    socket.send(b"who is there")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// Runs a command, which must succeed; returns its output.
pub(crate) fn run(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(
        output.status.success(),
        "{words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A host and a client, connected by a veth pair.
pub(crate) struct World {
    pub(crate) host: Namespace,
    pub(crate) client: Namespace,
    pub(crate) record: tempfile::TempDir,
    /// What the client reaches beside NodePorts and hostPorts.
    pub(crate) exposure: Exposure,
}

impl World {
    /// A world in which everything is closed to the client.
    pub(crate) fn new() -> Self {
        Self::exposing([])
    }

    /// A world in which these parts are open to the client.
    pub(crate) fn exposing<const N: usize>(parts: [Exposed; N]) -> Self {
        let (host, client) = (Namespace::new("host"), Namespace::new("client"));
        let peer = &client.name;
        host.run("ip link set lo up");
        host.run(&format!(
            "ip link add eth0 type veth peer name eth0 netns {peer}"
        ));
        host.run(&format!("ip address add {NODE}/24 dev eth0"));
        host.run(&format!("ip address add {SECOND_NODE_ADDRESS}/32 dev eth0"));
        host.run("ip link set eth0 up");
        client.run("ip link set lo up");
        client.run(&format!("ip address add {CLIENT}/24 dev eth0"));
        client.run("ip link set eth0 up");
        client.run(&format!("ip route add default via {NODE}"));
        for rule in [
            "-P INPUT DROP",
            "-P FORWARD DROP",
            "-A INPUT -i lo -j ACCEPT",
            "-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
        ] {
            host.run(&format!("iptables {rule}"));
        }
        Self {
            host,
            client,
            record: tempfile::tempdir().unwrap(),
            exposure: Exposure::Only(parts.into()),
        }
    }

    pub(crate) fn record_file(&self) -> PathBuf {
        self.record.path().join("network.json")
    }

    /// Calls a function in the host's namespace with a network that was opened and prepared, as in
    /// a daemon.
    pub(crate) fn with_network<T, F>(&self, work: impl FnOnce(Network) -> F + Send + 'static) -> T
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        let (record, exposure) = (self.record_file(), self.exposure.clone());
        self.host.inside(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let network = Network::open(host_network(), exposure, &record)
                    .await
                    .unwrap();
                network.prepare().await.unwrap();
                work(network).await
            })
        })
    }

    /// Makes a pod with this address and connects it.
    pub(crate) fn pod(&self, address: &str) -> Pod {
        let pod = Pod {
            namespace: Namespace::new("pod"),
            link: link(address),
        };
        let (link, netns) = (pod.link.clone(), pod.namespace.fd());
        self.with_network(
            move |network| async move { network.connect(&link, netns).await.unwrap() },
        );
        pod
    }
}

/// A pod's namespace and its link.
pub(crate) struct Pod {
    pub(crate) namespace: Namespace,
    pub(crate) link: PodLink,
}

pub(crate) fn link(address: &str) -> PodLink {
    let address: Ipv4Addr = address.parse().unwrap();
    let [_, _, c, d] = address.octets();
    PodLink {
        name: LinkName::parse(&format!("wdl{c:04x}{d:04x}abc")).unwrap(),
        address,
        host_mac: [0x02, 0x57, 0x4c, 0, c, d],
        mtu: 1400,
    }
}

pub(crate) fn host_network() -> HostNetwork {
    HostNetwork {
        pod_range: "10.244.0.0/16".parse().unwrap(),
        pod_subnet: "10.244.1.0/24".parse().unwrap(),
        service_range: "10.96.0.0/16".parse().unwrap(),
        dns: "10.96.0.10".parse().unwrap(),
        node_address: NODE.parse().unwrap(),
        mtu: 1400,
        vxlan: VxlanSettings::default(),
    }
}

pub(crate) fn endpoint(text: &str) -> SocketAddrV4 {
    text.parse().unwrap()
}
