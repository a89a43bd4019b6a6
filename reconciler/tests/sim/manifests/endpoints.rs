//! What NAT and DNS get from the Services and the pods of manifests.

use std::{collections::BTreeMap, net::Ipv4Addr};

use reconciler::{
    endpoints::{Endpoint, ServiceSelection, Serving, publish},
    name::ObjectKey,
    network::{DnsAnswer, ServiceTable},
    object::PortKey,
    state::ServiceAllocation,
};

use super::objects;

const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - name: main
    image: web:1
    ports:
    - {name: http, containerPort: 8080}
    - {name: dns, containerPort: 5353, protocol: UDP}
    - {containerPort: 9000, hostPort: 90}
    - {containerPort: 9001, hostPort: 91, hostIP: 192.0.2.9}
---
apiVersion: v1
kind: Pod
metadata: {name: host, labels: {app: host}}
spec:
  hostNetwork: true
  containers: [{name: main, image: 'web:1', ports: [{containerPort: 7000, hostPort: 7000}]}]
---
";

fn service(name: &str, spec: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n")
}

/// The names that DNS answers, and the ports of NAT, for these Services. The pods `web` and `host`
/// have the addresses 10.42.1.7 and 192.0.2.1; every Service gets 10.96.0.7 and the node port 30080
/// for TCP/80.
fn published(
    services: &str,
    serving: Serving,
    local: bool,
) -> (BTreeMap<String, DnsAnswer>, ServiceTable) {
    let objects = objects(&format!("{PODS}{services}"));
    let workloads = objects.workloads.values();
    let pods: Vec<Endpoint<'_>> = workloads
        .map(|workload| Endpoint {
            key: &workload.key.object,
            template: &workload.template,
            address: match workload.template.spec.host_network {
                true => Ipv4Addr::new(192, 0, 2, 1),
                false => Ipv4Addr::new(10, 42, 1, 7),
            },
            serving,
            proven: true,
            local,
        })
        .collect();
    let allocation = ServiceAllocation {
        cluster_ip: Some(Ipv4Addr::new(10, 96, 0, 7)),
        node_ports: serde_json::from_str::<BTreeMap<PortKey, u16>>(r#"{"TCP/80":30080}"#).unwrap(),
    };
    let given: BTreeMap<ObjectKey, ServiceAllocation> = objects
        .services
        .keys()
        .map(|key| (key.clone(), allocation.clone()))
        .collect();
    let selection = ServiceSelection::new(&objects.services, Vec::new(), &pods);
    let dns = Ipv4Addr::new(10, 96, 0, 10);
    let (table, records) = publish(&selection, &given, &pods, "cluster.local", dns);
    (records.names, table)
}

fn answer(services: &str, serving: Serving) -> Option<DnsAnswer> {
    let (mut names, _) = published(services, serving, true);
    names.remove("a.default.svc.cluster.local")
}

fn addresses(text: &str) -> Option<DnsAnswer> {
    Some(DnsAnswer::Addresses([text.parse().unwrap()].into()))
}

#[test]
fn a_name_has_the_answer_of_its_type_of_service() {
    let web = "selector: {app: web}, ports: [{port: 80}]";
    let headless = service("a", &format!("clusterIP: None, {web}"));
    assert_eq!(answer(&headless, Serving::Ready), addresses("10.42.1.7"));
    assert_eq!(answer(&headless, Serving::No), None, "no pod is ready");

    for kind in ["ClusterIP", "NodePort", "LoadBalancer"] {
        let with_address = service("a", &format!("type: {kind}, {web}"));
        assert_eq!(
            answer(&with_address, Serving::No),
            addresses("10.96.0.7"),
            "{kind}"
        );
    }

    let external = |name: &str| service("a", &format!("type: ExternalName, externalName: {name}"));
    assert_eq!(
        answer(&external("db.example.com."), Serving::No),
        Some(DnsAnswer::Alias("db.example.com".to_owned()))
    );
    assert_eq!(
        answer(&external("192.0.2.8"), Serving::No),
        addresses("192.0.2.8")
    );

    let (names, _) = published("", Serving::Ready, true);
    let resolver = names.into_iter().collect::<Vec<_>>();
    let (name, server) = (
        "kube-dns.kube-system.svc.cluster.local",
        addresses("10.96.0.10"),
    );
    assert_eq!(resolver, [(name.to_owned(), server.unwrap())]);
}

#[test]
fn a_port_leads_to_the_number_or_the_name_that_the_pod_gives_it() {
    let ports = "selector: {app: web}, ports: [{name: a, port: 80, targetPort: http},
        {name: b, port: 53, protocol: UDP, targetPort: dns}, {name: c, port: 81, targetPort: 9000},
        {name: d, port: 82, targetPort: dns}, {name: e, port: 83}]";
    let (_, table) = published(
        &service("a", &format!("type: NodePort, {ports}")),
        Serving::Ready,
        true,
    );
    let lead = |(at, to): (String, Vec<String>)| format!("{at} -> {}", to.join(" "));
    let texts = |endpoints: &std::collections::BTreeSet<std::net::SocketAddrV4>| {
        endpoints
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let cluster = table.cluster_ips.iter().map(|(at, backends)| {
        let at = format!("{} {}:{}", at.protocol.as_str(), at.address, at.port);
        lead((at, texts(&backends.endpoints)))
    });
    assert_eq!(
        cluster.collect::<Vec<_>>(),
        [
            "TCP 10.96.0.7:80 -> 10.42.1.7:8080",
            "TCP 10.96.0.7:81 -> 10.42.1.7:9000",
            "TCP 10.96.0.7:82 -> ",
            "TCP 10.96.0.7:83 -> 10.42.1.7:83",
            "UDP 10.96.0.7:53 -> 10.42.1.7:5353",
        ]
    );
    let nodes = table.node_ports.iter().map(|(at, backends)| {
        lead((
            format!("{} {}", at.protocol.as_str(), at.port),
            texts(&backends.endpoints),
        ))
    });
    assert_eq!(nodes.collect::<Vec<_>>(), ["TCP 30080 -> 10.42.1.7:8080"]);
}

#[test]
fn host_ports_are_those_of_pods_of_this_host_with_a_network_of_their_own() {
    let lines = |local: bool| -> Vec<String> {
        let (_, table) = published("", Serving::No, local);
        let line = |(address, at): &(Option<Ipv4Addr>, _), to: &_| {
            let at: &reconciler::network::HostPort = at;
            format!("{address:?} {} -> {to}", at.port)
        };
        table
            .host_ports
            .iter()
            .map(|(at, to)| line(at, to))
            .collect()
    };
    assert_eq!(
        lines(true),
        [
            "None 90 -> 10.42.1.7:9000",
            "Some(192.0.2.9) 91 -> 10.42.1.7:9001"
        ]
    );
    assert_eq!(lines(false), Vec::<String>::new());
}
