//! Objects that leave the commit leave the host, and `uninstall` removes everything of Windlass.

use std::fs;

use crate::sample::{application, service};
use crate::support::{
    DATA_DIR, MAY_DELETE, Poller, SOON, Site, assert_all_answered, eventually, text,
};

#[test]
fn pods_volumes_and_rules_of_removed_objects_are_removed() {
    let mut site = Site::new("");
    let extra = "apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: agent
        image: windlass-test/app:1
        volumeMounts: [{name: scratch, mountPath: /scratch}, {name: memory, mountPath: /memory}]
      volumes: [{name: scratch, emptyDir: {}}, {name: memory, emptyDir: {medium: Memory}}]
---
apiVersion: v1
kind: Service
metadata: {name: agent}
spec:
  type: NodePort
  selector: {app: agent}
  ports: [{port: 80, targetPort: 8080, nodePort: 30081}]
";
    let web = application("web", "web", "one");
    let first = site.push(&[("web.yaml", &web), ("agent.yaml", extra)], "both");
    site.launch(&[]);
    site.wait_settled(&first);
    site.assert_exactly(2, 4);
    let url = format!("http://{}:30081/", site.host.address);
    eventually(SOON, "the agent answers", || {
        site.host.http_get(&url).is_some()
    });
    let kept: Vec<_> = site
        .containers()
        .into_iter()
        .filter(|container| container.pod.starts_with("web"))
        .collect();
    let scratch =
        format!("for pod in {DATA_DIR}/pods/*/volumes/scratch; do echo kept > $pod/file; done");
    site.host.exec(&["sh", "-c", &scratch]).ok();

    site.repo.git(&["rm", "-q", "agent.yaml"]).ok();
    let second = site.push(&[], &format!("without the agent{MAY_DELETE}"));
    site.wait_settled(&second);
    site.assert_exactly(1, 2);
    assert_eq!(site.containers().into_iter().collect::<Vec<_>>(), kept);
    assert_eq!(
        site.host.http_get(&url),
        None,
        "the node port of the removed Service answers"
    );
    let mounts = site
        .host
        .exec(&[
            "sh",
            "-c",
            &format!("grep -c {DATA_DIR} /proc/self/mounts || true"),
        ])
        .ok();
    assert_eq!(mounts, "0", "mounts of the removed pods remain");
    site.wait_answer_inside("/", "web");
}

#[test]
fn a_changed_configmap_is_updated_in_the_running_pod() {
    let mut site = Site::new("");
    let first = site.push(&[("web.yaml", &application("web", "web", "one"))], "one");
    site.launch(&[]);
    site.wait_settled(&first);
    site.wait_answer_inside("/notes/note", "one");
    let before = site.containers();
    let poller = Poller::start(site.host.namespace(), &site.node_url("/notes/note"));
    for note in ["two", "three"] {
        let commit = site.push(&[("web.yaml", &application("web", "web", note))], note);
        site.wait_settled(&commit);
        site.wait_answer_inside("/notes/note", note);
        assert_eq!(site.containers(), before, "the pod was restarted");
    }
    assert_all_answered(&poller.finish());
    // As in Kubernetes, the symbolic link ..data points to one directory of content; directories of
    // earlier content are removed.
    let app = site.only_container("app");
    let listed = site
        .host
        .docker(&["exec", &app.id, "ls", "-A", "/www/notes"]);
    let mut names: Vec<&str> = listed.lines().collect();
    names.retain(|name| *name != "..data" && *name != "note");
    assert_eq!(names.len(), 1, "{listed}");
    assert!(names[0].starts_with(".."), "{listed}");
}

#[test]
fn uninstall_removes_everything_of_windlass_and_nothing_else() {
    let mut site = Site::new("");
    let forwarding = ["sysctl", "-n", "net.ipv4.ip_forward"];
    site.host
        .exec(&["iptables", "-w", "-F", "DOCKER-USER"])
        .ok();
    site.host
        .exec(&["sysctl", "-qw", "net.ipv4.ip_forward=0"])
        .ok();
    let rules = site.host.exec(&["iptables", "-S"]).ok();
    let links = site.host.exec(&["ip", "-br", "link"]).ok();
    let secret = "apiVersion: v1
kind: Secret
metadata: {name: token}
stringData: {token: abc}
---
apiVersion: v1
kind: Pod
metadata: {name: holder, labels: {tier: front}}
spec:
  containers:
  - name: holder
    image: windlass-test/app:1
    volumeMounts: [{name: token, mountPath: /token}, {name: sub, mountPath: /sub, subPath: below}]
  volumes: [{name: token, secret: {secretName: token}}, {name: sub, emptyDir: {}}]
";
    let web = application("web", "web", "one");
    let commit = site.push(
        &[("web.yaml", &web), ("holder.yaml", secret)],
        "pods and volumes",
    );
    site.launch(&[]);
    site.wait_settled(&commit);
    site.assert_exactly(2, 4);
    let foreign = site
        .host
        .docker(&["run", "-d", "--name", "foreign", "windlass-test/app:1"]);

    let refused = site.host.windlass(&["uninstall", "--yes"]);
    assert!(
        !refused.success() && refused.stderr.contains("stop it first"),
        "{refused:?}"
    );
    site.assert_exactly_with_foreign(2, 4, &foreign);
    site.take_daemon().kill9();
    let printed = site.host.windlass(&["uninstall"]).ok();
    assert!(printed.contains("nothing was removed"), "{printed}");
    site.assert_exactly_with_foreign(2, 4, &foreign);
    site.host.windlass(&["uninstall", "--yes"]).ok();

    assert_eq!(
        site.host.docker(&["ps", "-aq", "--no-trunc"]),
        foreign,
        "containers"
    );
    assert_eq!(site.host.docker(&["volume", "ls", "-q"]), "");
    let images = site
        .host
        .docker(&["images", "-a", "--format", "{{.Repository}}"]);
    assert!(
        !images.contains("windlass/pause"),
        "the image of sandboxes remains: {images}"
    );
    assert_eq!(site.host.exec(&forwarding).ok(), "0", "ip_forward");
    assert_eq!(site.host.exec(&["iptables", "-S"]).ok(), rules);
    assert_eq!(site.routes(), Vec::<String>::new());
    let tables = site.host.exec(&["nft", "list", "tables"]).ok();
    assert!(!tables.contains("windlass"), "{tables}");
    site.host.docker(&["rm", "-f", "foreign"]);
    assert_eq!(
        names(&site.host.exec(&["ip", "-br", "link"]).ok()),
        names(&links)
    );
    for path in [DATA_DIR, "/run/windlass"] {
        let path = site.host.path(path);
        let remaining = fs::read_dir(&path).map(Iterator::count).unwrap_or_default();
        assert_eq!(remaining, 0, "{}", path.display());
    }
    assert!(!site.host.path(DATA_DIR).exists());
    site.host
        .exec(&["sysctl", "-qw", "net.ipv4.ip_forward=1"])
        .ok();
}

/// The names of a host's links, without their state, which changes.
fn names(links: &str) -> Vec<String> {
    links
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_service_whose_pods_are_gone_refuses_at_once() {
    let mut site = Site::new("");
    let first = site.push(&[("web.yaml", &application("web", "web", "one"))], "one");
    site.launch(&[]);
    site.wait_settled(&first);
    site.wait_answer_inside("/", "web");
    let second = site.push(
        &[("web.yaml", &service())],
        &format!("only the service{MAY_DELETE}"),
    );
    site.wait_settled(&second);
    site.assert_exactly(0, 0);
    let start = std::time::Instant::now();
    assert_eq!(site.ask_inside("/"), None);
    assert!(
        start.elapsed() < std::time::Duration::from_secs(4),
        "the request was not refused but timed out, which takes 5 s"
    );
    let ip = site
        .host
        .windlass(&["get", "svc", "front", "-o", "json"])
        .json();
    assert!(text(&ip["spec"]["clusterIP"]).starts_with("10.96."), "{ip}");
}
