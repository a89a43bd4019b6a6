//! What a pod's manifest asks of the host, seen on the engine.

use jiff::Timestamp;

use crate::sample::{application, service};
use crate::support::{Container, SOON, Site, eventually, eventually_some, text};

/// A site on which one manifest runs and is healthy.
fn running(manifest: &str) -> Site {
    let mut site = Site::new("");
    let commit = site.push(&[("pod.yaml", manifest)], "a pod");
    site.launch(&[]);
    site.wait_settled(&commit);
    site
}

/// Runs a command in a container.
#[track_caller]
fn exec(site: &Site, container: &Container, command: &str) -> String {
    site.host
        .docker(&["exec", &container.id, "sh", "-c", command])
}

#[test]
fn secrets_and_memory_volumes_lie_on_a_tmpfs() {
    let site = running(
        "apiVersion: v1
kind: Secret
metadata: {name: token}
stringData: {token: not-for-the-disk}
---
apiVersion: v1
kind: Pod
metadata: {name: pod}
spec:
  containers:
  - name: app
    image: windlass-test/app:1
    volumeMounts:
    - {name: token, mountPath: /token, readOnly: true}
    - {name: memory, mountPath: /memory}
  volumes:
  - {name: token, secret: {secretName: token, defaultMode: 0400}}
  - {name: memory, emptyDir: {medium: Memory, sizeLimit: 4Mi}}
",
    );
    let app = site.one("app");
    assert_eq!(exec(&site, &app, "cat /token/token"), "not-for-the-disk");
    assert_eq!(exec(&site, &app, "stat -Lc %a /token/token"), "400");
    for path in ["/token", "/memory"] {
        let mount = exec(&site, &app, &format!("grep ' {path} ' /proc/mounts"));
        assert!(mount.starts_with("tmpfs "), "{mount}");
    }
    let size = exec(&site, &app, "df -k /memory | tail -1 | awk '{print $2}'");
    assert_eq!(size, "4096");
    let full = format!(
        "docker -H unix:///run/docker.sock exec {} dd if=/dev/zero of=/memory/x bs=1M count=5",
        app.id
    );
    assert!(
        !site.host.exec(&["sh", "-c", &full]).success(),
        "sizeLimit is none"
    );
    // Nowhere on the host's disk: neither in the data directory nor with the engine.
    let script = "grep -rl not-for-the-disk /var/lib/windlass --include='*' --exclude-dir=mirror.git 2>/dev/null";
    let found = site.host.exec(&["sh", "-c", script]).stdout;
    let on_disk: Vec<&str> = found
        .lines()
        .filter(|path| !path.contains("/volumes/token/"))
        .collect();
    assert_eq!(on_disk, Vec::<&str>::new());
}

#[test]
fn init_containers_run_one_after_another_before_the_others() {
    let site = running(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: pod, labels: {{tier: front}}}}
spec:
  initContainers:
  - name: one
    image: busybox
    imagePullPolicy: Never
    command: [sh, -c, 'sleep 0.5; echo one >> /shared/order']
    volumeMounts: [{{name: shared, mountPath: /shared}}]
  - name: two
    image: busybox
    imagePullPolicy: Never
    command: [sh, -c, 'echo two >> /shared/order']
    volumeMounts: [{{name: shared, mountPath: /shared}}]
  containers:
  - name: app
    image: windlass-test/app:1
    volumeMounts: [{{name: shared, mountPath: /www/shared}}]
  volumes: [{{name: shared, emptyDir: {{}}}}]
---
{}",
        service()
    ));
    site.wait_answer_inside("/shared/order", "one\ntwo");
    let all = site.containers();
    assert!(all.iter().all(|one| one.attempt == 0), "{all:#?}");
}

#[test]
fn a_container_that_is_not_alive_is_restarted() {
    let site = running(&application("web", "web", "one").replace(
        "        lifecycle:",
        "        livenessProbe: {httpGet: {path: /health, port: 8080}, periodSeconds: 1, failureThreshold: 1}
        lifecycle:",
    ));
    let old = site.one("app");
    exec(&site, &old, "rm /www/health");
    eventually(SOON, "it runs again", || {
        let all = site.containers();
        all.iter()
            .any(|one| one.name == "app" && one.id != old.id && one.state == "running")
    });
    site.wait_answer_inside("/health", "ok");
    site.wait_answer_inside("/hook", "hooked");
    let pod = site.pods().into_values().next().unwrap();
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(status["restartCount"], 1, "{status}");
    let events = site.host.windlass(&["get", "events", "-o", "json"]).json();
    assert!(events.to_string().contains("it is not alive"), "{events}");
}

#[test]
fn a_restarts_back_off_survives_a_daemon_that_does_not() {
    let mut site = Site::new("");
    let manifest = "apiVersion: v1
kind: Pod
metadata: {name: pod}
spec:
  containers:
  - {name: app, image: busybox, imagePullPolicy: Never, command: [sh, -c, exit 1]}
";
    site.push(&[("pod.yaml", manifest)], "it ends at once");
    site.launch(&[]);
    let finished = |site: &Site, attempt: u32| -> Option<Timestamp> {
        let one = site
            .containers()
            .into_iter()
            .find(|one| one.name == "app" && one.attempt == attempt)?;
        let inspected = site.host.inspect(&one.id);
        let time = text(&inspected["State"]["FinishedAt"]).parse().ok()?;
        (one.state == "exited").then_some(time)
    };
    let second = eventually_some(SOON, "the first restart has ended", || finished(&site, 1));
    // It has been seen: what is not remembered cannot survive.
    site.wait_status("the back-off is known", |status| {
        status["unwell"].to_string().contains("back-off")
    });
    site.take_daemon().kill9();
    site.launch(&[]);
    eventually_some(SOON, "the second restart", || finished(&site, 2));
    let third = site
        .containers()
        .into_iter()
        .find(|one| one.attempt == 2 && one.name == "app")
        .unwrap();
    let waited = third
        .started
        .parse::<Timestamp>()
        .unwrap()
        .duration_since(second);
    assert!(
        (10..20).contains(&waited.as_secs()),
        "it was held back for {waited:?}"
    );
}

#[test]
fn a_pod_of_the_hosts_network_answers_at_the_hosts_address() {
    let site = running(
        "apiVersion: v1
kind: Pod
metadata: {name: pod}
spec:
  hostNetwork: true
  containers:
  - {name: app, image: 'windlass-test/app:1', env: [{name: PORT, value: '8181'}, {name: APP, value: host}]}
",
    );
    let url = format!("http://{}:8181/", site.host.address);
    eventually(SOON, "it answers", || {
        site.host
            .http_get(&url)
            .is_some_and(|answer| answer.body.starts_with("host"))
    });
    assert!(site.links().is_empty(), "it has a link: {:?}", site.links());
    assert_eq!(
        site.addresses().into_values().collect::<Vec<_>>(),
        [site.host.address.to_string()]
    );
}

#[test]
fn resources_reach_the_engine() {
    let site = running(
        "apiVersion: v1
kind: Pod
metadata: {name: pod}
spec:
  containers:
  - name: app
    image: windlass-test/app:1
    resources:
      requests: {cpu: 250m, memory: 32Mi}
      limits: {cpu: 500m, memory: 64Mi}
",
    );
    let limits = site.host.inspect(&site.one("app").id)["HostConfig"].take();
    assert_eq!(limits["Memory"], 64 << 20);
    assert_eq!(
        limits["MemorySwap"],
        64 << 20,
        "swap would make the limit none"
    );
    assert_eq!(limits["CpuShares"], 256);
    let (quota, period) = (
        limits["CpuQuota"].as_f64().unwrap(),
        limits["CpuPeriod"].as_f64().unwrap(),
    );
    let nano = limits["NanoCpus"].as_f64().unwrap();
    assert!(
        nano == 5e8 || (period > 0.0 && quota / period == 0.5),
        "{limits}"
    );
}
