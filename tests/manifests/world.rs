//! A host with pods and Services of every sort, which the tests of names and of services look at
//! together.

use std::sync::OnceLock;

use crate::support::Site;

/// Three applications behind Services of several kinds, two pods to look from, and one of each
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
  selector: {app: nobody}
  ports: [{port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec:
  type: NodePort
  selector: {app: nobody}
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
      while (defined $socket->recv(my $said, 1024)) { $socket->send("echo $said"); }
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

/// The world, made by the first who asks, with a healthy commit.
pub(crate) fn world() -> &'static Site {
    static WORLD_SITE: OnceLock<Site> = OnceLock::new();
    WORLD_SITE.get_or_init(|| {
        let mut site = Site::lasting("");
        site.host.load_image("httpd");
        site.deploy_only(&[("world.yaml", WORLD)], "a world");
        site
    })
}

/// What a command prints in the pod with little more than busybox, whatever comes of it.
pub(crate) fn in_small(args: &[&str]) -> String {
    let outcome = world().exec("small", "busybox", args);
    outcome.stdout + &outcome.stderr
}

/// What a command prints in the pod with a C library's own resolver; nothing if it fails.
pub(crate) fn in_large(args: &[&str]) -> String {
    let outcome = world().exec("large", "debian", args);
    if outcome.success() {
        outcome.stdout
    } else {
        String::new()
    }
}

/// The cluster address of a Service in the namespace `default`.
pub(crate) fn cluster_ip(service: &str) -> String {
    world().get("service", service)["spec"]["clusterIP"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Addresses of the pods of the namespace `default` whose names begin like this.
pub(crate) fn pod_addresses(begin: &str) -> std::collections::BTreeSet<String> {
    let of_default = |pod: &serde_json::Value| pod["metadata"]["namespace"] == "default";
    let begins =
        |pod: &serde_json::Value| pod["metadata"]["name"].as_str().unwrap().starts_with(begin);
    let pods = world()
        .list("pods")
        .into_iter()
        .filter(|pod| of_default(pod) && begins(pod));
    pods.map(|pod| pod["status"]["podIP"].as_str().unwrap().to_owned())
        .collect()
}
