//! A host with pods and Services of every kind, which the tests of names and of Services share.

use std::sync::OnceLock;

use crate::support::Site;

/// Three applications behind Services of several kinds, two pods as clients, and one of each
/// special case.
const WORLD: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: app, image: "windlass-test/app:1", ports: [{name: http, containerPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: http, nodePort: 30081}]
---
apiVersion: v1
kind: Service
metadata: {name: sticky}
spec:
  type: NodePort
  sessionAffinity: ClientIP
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 30082}]
---
apiVersion: v1
kind: Service
metadata: {name: each}
spec:
  clusterIP: None
  selector: {app: web}
  ports: [{port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: each-of-none}
spec:
  clusterIP: None
  selector: {app: absent}
  ports: [{port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: without-pods}
spec:
  type: NodePort
  selector: {app: absent}
  ports: [{port: 80, nodePort: 30083}]
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere}
spec: {type: ExternalName, externalName: 192.0.2.9}
---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: web.other.svc.cluster.local}
---
apiVersion: v1
kind: Namespace
metadata: {name: other}
---
apiVersion: v1
kind: Pod
metadata: {name: alone, namespace: other, labels: {app: alone}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: windlass-test/app:1
    ports: [{containerPort: 8080, hostPort: 8088}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: other}
spec:
  selector: {app: alone}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: echo, labels: {app: echo}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: echo
    image: httpd
    command:
    - perl
    - -e
    - |
      use IO::Socket::INET;
      $SIG{TERM} = sub { exit 0 };
      my $socket = IO::Socket::INET->new(LocalPort => 7, Proto => "udp") or die "no socket: $!";
      while (defined $socket->recv(my $message, 1024)) { $socket->send("echo $message"); }
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  type: NodePort
  selector: {app: echo}
  ports: [{port: 7, protocol: UDP, nodePort: 30084}]
---
apiVersion: v1
kind: Pod
metadata: {name: small}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: busybox, image: busybox, command: [sleep, infinity]}
---
apiVersion: v1
kind: Pod
metadata: {name: large}
spec:
  terminationGracePeriodSeconds: 1
  hostname: big
  subdomain: each
  hostAliases: [{ip: 192.0.2.7, hostnames: [seven, sept]}]
  dnsConfig: {searches: [example.com], options: [{name: timeout, value: "3"}]}
  containers:
  - {name: debian, image: httpd, command: [sleep, infinity]}
"#;

/// The site with these manifests and a healthy commit. The first call makes it.
pub(crate) fn world() -> &'static Site {
    static WORLD_SITE: OnceLock<Site> = OnceLock::new();
    WORLD_SITE.get_or_init(|| {
        let mut site = Site::lasting("");
        site.host.load_image("httpd");
        site.deploy_only(&[("world.yaml", WORLD)], "a world");
        site
    })
}

/// What a command prints in the pod with busybox, on standard output and standard error, whether it
/// succeeds or not.
pub(crate) fn in_small(args: &[&str]) -> String {
    let outcome = world().exec("small", "busybox", args);
    outcome.stdout + &outcome.stderr
}

/// What a command prints in the pod with the resolver of the GNU C library; the empty text where it
/// fails.
pub(crate) fn in_large(args: &[&str]) -> String {
    let outcome = world().exec("large", "debian", args);
    if outcome.success() {
        outcome.stdout
    } else {
        String::new()
    }
}

/// The ClusterIP of a Service in the namespace `default`.
pub(crate) fn cluster_ip(service: &str) -> String {
    world().get("service", service)["spec"]["clusterIP"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// The addresses of the pods of the namespace `default` whose names begin with `start`.
pub(crate) fn pod_addresses(start: &str) -> std::collections::BTreeSet<String> {
    let of_default = |pod: &serde_json::Value| pod["metadata"]["namespace"] == "default";
    let matches =
        |pod: &serde_json::Value| pod["metadata"]["name"].as_str().unwrap().starts_with(start);
    let pods = world()
        .list("pods")
        .into_iter()
        .filter(|pod| of_default(pod) && matches(pod));
    pods.map(|pod| pod["status"]["podIP"].as_str().unwrap().to_owned())
        .collect()
}
