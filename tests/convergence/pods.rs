//! Fields of a pod's manifest, and their effect in the engine and on the host.

use jiff::Timestamp;

use crate::sample::{application, service};
use crate::support::{Container, SOON, Site, eventually, eventually_some, text};

/// A site with one manifest, whose commit is healthy.
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
    let app = site.only_container("app");
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
        "the volume holds more than its sizeLimit"
    );
    // The content is in no file of the data directory but those of the volume's tmpfs.
    let script = "grep -rl not-for-the-disk /var/lib/windlass --include='*' --exclude-dir=mirror.git 2>/dev/null";
    let matches = site.host.exec(&["sh", "-c", script]).stdout;
    let on_disk: Vec<&str> = matches
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
    let containers = site.containers();
    assert!(
        containers.iter().all(|container| container.attempt == 0),
        "a container was restarted: {containers:#?}"
    );
}

#[test]
fn a_container_whose_liveness_probe_fails_is_restarted() {
    let site = running(&application("web", "web", "one").replace(
        "        lifecycle:",
        "        livenessProbe: {httpGet: {path: /health, port: 8080}, periodSeconds: 1, failureThreshold: 1}
        lifecycle:",
    ));
    let old = site.only_container("app");
    exec(&site, &old, "rm /www/health");
    eventually(SOON, "another container of app runs", || {
        let containers = site.containers();
        containers.iter().any(|container| {
            container.name == "app" && container.id != old.id && container.is_running()
        })
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
fn the_back_off_of_a_restart_survives_a_crash_of_the_daemon() {
    let mut site = Site::new("");
    let manifest = "apiVersion: v1
kind: Pod
metadata: {name: pod}
spec:
  containers:
  - {name: app, image: busybox, imagePullPolicy: Never, command: [sh, -c, exit 1]}
";
    site.push(&[("pod.yaml", manifest)], "exits at once");
    site.launch(&[]);
    let finished = |site: &Site, attempt: u32| -> Option<Timestamp> {
        let container = site
            .containers()
            .into_iter()
            .find(|container| container.name == "app" && container.attempt == attempt)?;
        let inspected = site.host.inspect(&container.id);
        let time = text(&inspected["State"]["FinishedAt"]).parse().ok()?;
        (container.state == "exited").then_some(time)
    };
    let second = eventually_some(SOON, "the restarted container has ended", || {
        finished(&site, 1)
    });
    // Only a back-off that the daemon has recorded can survive its crash.
    site.wait_status("the back-off is published", |status| {
        status["unwell"].to_string().contains("back-off")
    });
    site.take_daemon().kill9();
    site.launch(&[]);
    eventually_some(
        SOON,
        "the container has ended after its second restart",
        || finished(&site, 2),
    );
    let third = site
        .containers()
        .into_iter()
        .find(|container| container.attempt == 2 && container.name == "app")
        .unwrap();
    let waited = third
        .started
        .parse::<Timestamp>()
        .unwrap()
        .duration_since(second);
    assert!(
        (10..20).contains(&waited.as_secs()),
        "the second restart came {waited:?} after the end, not 10 s to 20 s"
    );
}

#[test]
fn a_pod_with_host_network_answers_at_the_hosts_address() {
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
    eventually(SOON, "the pod answers at the host's address", || {
        site.host
            .http_get(&url)
            .is_some_and(|answer| answer.body.starts_with("host"))
    });
    assert!(
        site.links().is_empty(),
        "the pod has a link: {:?}",
        site.links()
    );
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
    let limits = site.host.inspect(&site.only_container("app").id)["HostConfig"].take();
    assert_eq!(limits["Memory"], 64 << 20);
    assert_eq!(
        limits["MemorySwap"],
        64 << 20,
        "with swap the pod could use more memory than its limit"
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
