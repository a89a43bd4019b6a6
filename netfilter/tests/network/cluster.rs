//! Three hosts and a client on one switch, each a network namespace. The policies of all hosts'
//! firewalls are DROP, and strict reverse path filtering (rp_filter=1) is on.

use std::{future::Future, net::Ipv4Addr, path::PathBuf};

use netfilter::{Exposure, HostNet, Network};
use reconciler::{
    name::NodeName,
    network::{HostNetwork, Peer, PeerPath, Peers, PodLink, ServiceTable},
};

use crate::world::{Namespace, Pod, host_network, link};

/// The address of the client, which is no host.
pub(crate) const OUTSIDE: &str = "192.0.2.2";

pub(crate) struct Cluster {
    pub(crate) hosts: Vec<Host>,
    pub(crate) client: Namespace,
    switch: Namespace,
}

/// One host, numbered from 1.
pub(crate) struct Host {
    pub(crate) namespace: Namespace,
    pub(crate) network: HostNetwork,
    /// What the client reaches beside NodePorts and hostPorts; nothing at first.
    pub(crate) exposure: Exposure,
    record: tempfile::TempDir,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let switch = Namespace::new("switch");
        switch.run("ip link add bridge type bridge");
        switch.run("ip link set bridge up");
        let client = Namespace::new("client");
        let cluster = Self {
            hosts: (1..=3).map(Host::new).collect(),
            client,
            switch,
        };
        cluster.plug(&cluster.client, "client", OUTSIDE);
        for (number, host) in (1..).zip(&cluster.hosts) {
            cluster.plug(
                &host.namespace,
                &format!("host{number}"),
                &host.address().to_string(),
            );
        }
        cluster
    }

    fn plug(&self, member: &Namespace, port: &str, address: &str) {
        member.run(&format!(
            "ip link add eth0 type veth peer name {port} netns {}",
            self.switch.name
        ));
        self.switch
            .run(&format!("ip link set {port} master bridge up"));
        member.run("ip link set lo up");
        member.run(&format!("ip address add {address}/24 dev eth0"));
        member.run("ip link set eth0 up");
    }

    /// The host with this number.
    pub(crate) fn host(&self, number: usize) -> &Host {
        &self.hosts[number - 1]
    }

    /// The peers of one host, with the path to each.
    pub(crate) fn peers(&self, of: usize, path: impl Fn(usize, usize) -> PeerPath) -> Peers {
        (1..=self.hosts.len())
            .filter(|other| *other != of)
            .map(|other| {
                (
                    name(other),
                    self.host(other).as_peer(path(of.min(other), of.max(other))),
                )
            })
            .collect()
    }

    /// Sets on every host all other hosts as peers, and the services of `table`.
    pub(crate) fn join(&self, path: impl Fn(usize, usize) -> PeerPath, table: &ServiceTable) {
        for number in 1..=self.hosts.len() {
            self.host(number).set(self.peers(number, &path), table);
        }
    }
}

/// The name of a host.
pub(crate) fn name(number: usize) -> NodeName {
    NodeName::new(format!("host{number}"))
}

impl Host {
    fn new(number: u8) -> Self {
        let namespace = Namespace::new("host");
        for rule in [
            "-P INPUT DROP",
            "-P FORWARD DROP",
            "-A INPUT -i lo -j ACCEPT",
            "-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
            "-A INPUT -p icmp -j ACCEPT",
        ] {
            namespace.run(&format!("iptables {rule}"));
        }
        namespace.run("sysctl -qw net.ipv4.conf.all.rp_filter=1");
        let network = HostNetwork {
            pod_subnet: format!("10.244.{number}.0/24").parse().unwrap(),
            node_address: Ipv4Addr::new(192, 0, 2, 10 + number),
            ..host_network()
        };
        Self {
            namespace,
            network,
            exposure: Exposure::Only([].into()),
            record: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn address(&self) -> Ipv4Addr {
        self.network.node_address
    }

    /// The address of the host's VXLAN device.
    pub(crate) fn overlay_address(&self) -> Ipv4Addr {
        self.network.pod_subnet.network()
    }

    pub(crate) fn as_peer(&self, path: PeerPath) -> Peer {
        Peer {
            address: self.address(),
            pod_subnet: self.network.pod_subnet,
            path,
        }
    }

    pub(crate) fn record_file(&self) -> PathBuf {
        self.record.path().join("network.json")
    }

    /// Calls a function in this host's namespace with a network that was opened and prepared, as in
    /// a daemon.
    pub(crate) fn with_network<T, F>(&self, work: impl FnOnce(Network) -> F + Send + 'static) -> T
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        let (record, network) = (self.record_file(), self.network.clone());
        let exposure = self.exposure.clone();
        self.namespace.inside(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let network = Network::open(network, exposure, &record).await.unwrap();
                network.prepare().await.unwrap();
                work(network).await
            })
        })
    }

    /// Sets peers and services.
    pub(crate) fn set(&self, peers: Peers, table: &ServiceTable) {
        let table = table.clone();
        self.with_network(move |network| async move {
            network.set_peers(&peers).await.unwrap();
            network.sync(&table).await.unwrap();
        });
    }

    /// Makes a pod whose address ends with `last`, and connects it. The pod answers with its own
    /// address at TCP port 8080 and UDP port 53, and with a megabyte at TCP port 8081.
    pub(crate) fn pod(&self, last: u8, mtu: u32) -> Pod {
        let mut octets = self.network.pod_subnet.network().octets();
        octets[3] = last;
        let link = PodLink {
            mtu,
            ..link(&Ipv4Addr::from(octets).to_string())
        };
        let pod = Pod {
            namespace: Namespace::new("pod"),
            link,
        };
        self.connect(&pod);
        let name = pod.link.address.to_string();
        pod.namespace.serve_tcp(8080, &name);
        pod.namespace.serve_tcp(8081, &"x".repeat(MEGABYTE));
        pod.namespace.serve_udp(53, &name);
        pod
    }

    /// Connects a pod; connecting it again changes nothing.
    pub(crate) fn connect(&self, pod: &Pod) {
        let (link, netns) = (pod.link.clone(), pod.namespace.fd());
        self.with_network(
            move |network| async move { network.connect(&link, netns).await.unwrap() },
        );
    }
}

pub(crate) const MEGABYTE: usize = 1 << 20;
