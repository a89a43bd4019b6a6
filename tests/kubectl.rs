//! An unmodified kubectl reads a running daemon over TLS, with a token, from another machine.

#![expect(clippy::unwrap_used, reason = "a test")]

mod support;
#[path = "kubectl/waits.rs"]
mod waits;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{OnceLock, PoisonError, RwLock, mpsc};
use std::time::Duration;

use support::{Outcome, SOON, Site, eventually, run};

/// The port of the API on the host.
const PORT: u16 = 6443;

/// The manifests that the daemon under test runs.
const SHOP: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: app
        image: windlass-test/app:1
        env: [{name: APP, value: shop}]
        ports: [{containerPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec:
  type: NodePort
  selector: {app: shop}
  ports: [{port: 80, targetPort: 8080, nodePort: 30085}]
---
apiVersion: v1
kind: Secret
metadata: {name: key}
stringData: {password: correct horse}
---
apiVersion: v1
kind: Pod
metadata: {name: unwell}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: windlass-test/app:1
    readinessProbe: {httpGet: {path: /well, port: 8080}, periodSeconds: 1}
    lifecycle: {postStart: {exec: {command: [sh, -c, "mkdir -p /www && touch /www/well"]}}}
"#;

/// A site whose daemon serves the API to kubectl, and the credentials of a client.
struct Served {
    site: Site,
    ca: PathBuf,
    token: String,
}

/// The site, with a healthy commit. The first call makes it.
fn served() -> &'static Served {
    static SERVED: OnceLock<Served> = OnceLock::new();
    SERVED.get_or_init(|| {
        let mut site = Site::lasting("");
        let dir = site.host.dir().join("api");
        fs::create_dir(&dir).unwrap();
        make_certificate(&dir, &site.host.address.to_string());
        let token = run(Command::new("openssl").args(["rand", "-hex", "32"])).ok();
        fs::write(dir.join("token"), format!("{token}\n")).unwrap();
        let file = |name: &str| dir.join(name).display().to_string();
        site.configure(&format!(
            "[listen]\napi = '0.0.0.0:{PORT}'\napi-token-file = '{}'\napi-certificate = '{}'\napi-key = '{}'\n",
            file("token"),
            file("server.pem"),
            file("server.key"),
        ));
        // The daemon opens no port in the firewall; the administrator does.
        let port = PORT.to_string();
        site.host.exec(&["iptables", "-A", "INPUT", "-p", "tcp", "--dport", &port, "-j", "ACCEPT"]).ok();
        site.deploy_only(&[("shop.yaml", SHOP)], "open the shop");
        Served { ca: dir.join("ca.pem"), token, site }
    })
}

/// Makes a certificate authority, and a certificate that it signs for an address.
fn make_certificate(dir: &Path, address: &str) {
    let script = format!(
        "set -e
        new='openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
        $new -x509 -days 2 -subj /CN=authority -keyout ca.key -out ca.pem
        $new -subj /CN=windlass -keyout server.key -out server.csr
        echo subjectAltName=IP:{address} >names
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem"
    );
    run(Command::new("sh").current_dir(dir).args(["-c", &script])).ok();
}

/// The kubectl that is on the PATH.
const ANY: &str = "kubectl";

/// kubectl on another machine, with a home of its own.
fn command(served: &Served, token: &str) -> Command {
    command_of(&[ANY], served, token)
}

/// A kubectl on another machine, given as the beginning of its command line, such as `timeout 90
/// kubectl`.
fn command_of(client: &[&str], served: &Served, token: &str) -> Command {
    let mut command = served.site.host.network.command();
    command
        .env("HOME", served.ca.parent().unwrap())
        .env_remove("KUBECONFIG")
        .args(client)
        .arg(format!(
            "--server=https://{}:{PORT}",
            served.site.host.address
        ))
        .arg(format!("--certificate-authority={}", served.ca.display()))
        .arg(format!("--token={token}"));
    command
}

/// Runs kubectl with the accepted token.
fn kubectl(arguments: &str) -> Outcome {
    let served = served();
    run(command(served, &served.token).args(arguments.split_whitespace()))
}

/// The text with one space between words, so that lines can be compared whatever the widths of
/// their columns are.
fn squeezed(text: &str) -> String {
    text.lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n")
        .collect()
}

/// Checks that every command succeeds and prints all of its texts.
#[track_caller]
fn assert_prints(cases: &[(&str, &[&str])]) {
    for (arguments, texts) in cases {
        let output = squeezed(&kubectl(arguments).ok());
        for text in *texts {
            assert!(
                output.contains(text),
                "kubectl {arguments} does not print {text:?}:\n{output}"
            );
        }
    }
}

/// Held by who replaces the pods of `shop`, and shared by who knows one of them by its name: the
/// tests run at the same time.
static PODS_OF_SHOP: RwLock<()> = RwLock::new(());

fn pod_of(owner: &str) -> String {
    kubectl(&format!(
        "get pods -l app={owner} -o jsonpath={{.items[0].metadata.name}}"
    ))
    .ok()
}

#[test]
fn get_lists_the_objects_that_the_daemon_runs() {
    let address = served().site.host.address.to_string();
    assert_prints(&[
        (
            "get pods",
            &[
                "NAME READY STATUS RESTARTS AGE",
                "shop-",
                "1/1 Running 0",
                "unwell 1/1 Running",
            ],
        ),
        (
            "get pods -o wide",
            &[
                "NOMINATED NODE READINESS GATES",
                " 10.244.0.",
                " node-1 <none> <none>",
            ],
        ),
        ("get pods -A", &["NAMESPACE NAME", "default unwell"]),
        (
            "get pods -l app=shop --show-labels",
            &["app=shop,pod-template-hash="],
        ),
        (
            "get deploy,svc",
            &[
                "deployment.apps/shop 2/2 2 2",
                "service/shop NodePort 10.96.",
                "80:30085/TCP",
            ],
        ),
        (
            "get all",
            &[
                "pod/shop-",
                "replicaset.apps/shop-",
                "deployment.apps/shop",
                "service/shop",
            ],
        ),
        ("get nodes -o wide", &["node-1 Ready", &address]),
        ("get secrets", &["key Opaque 1"]),
        ("get endpoints shop", &[":8080"]),
        ("get events", &["LAST SEEN TYPE REASON OBJECT MESSAGE"]),
        (
            "api-resources",
            &["deployments deploy apps/v1 true Deployment"],
        ),
        ("version", &["Server Version"]),
        (
            "wait --for=condition=Ready pod/unwell --timeout=10s",
            &["condition met"],
        ),
        ("rollout status deploy/shop", &["successfully rolled out"]),
    ]);
    assert!(
        kubectl("get pods -n nowhere")
            .stderr
            .contains("No resources found in nowhere namespace.")
    );
}

#[test]
fn objects_are_served_with_all_fields_and_secrets_without_values() {
    assert_prints(&[
        (
            "get pod unwell -o yaml",
            &[
                "nodeName: node-1",
                "image: windlass-test/app:1",
                "path: /well",
                "phase: Running",
            ],
        ),
        (
            "get deploy shop -o jsonpath={.status.readyReplicas}",
            &["2"],
        ),
        (
            "describe deploy shop",
            &[
                "2 desired | 2 updated | 2 total | 2 available",
                "NewReplicaSet: shop-",
            ],
        ),
        (
            "describe pod unwell",
            &[
                "Node: node-1/",
                "Readiness: http-get http://:8080/well delay=0s timeout=1s period=1s #success=1 #failure=3",
                "Ready True",
                "QoS Class: BestEffort",
            ],
        ),
        (
            "describe svc shop",
            &["NodePort: <unset> 30085/TCP", "Endpoints: 10.244.0."],
        ),
        (
            "describe node node-1",
            &["Non-terminated Pods: (3 in total)"],
        ),
        ("describe secret key", &["password: 0 bytes"]),
    ]);
    let all = kubectl("get all,secrets,configmaps -A -o yaml").ok()
        + &kubectl("get secret key -o json").ok();
    assert!(
        !all.contains("correct horse") && !all.contains("Y29ycmVjdCBob3JzZQ"),
        "the value of a Secret is served"
    );
}

#[test]
fn logs_are_printed_and_followed() {
    let _stays = PODS_OF_SHOP.read().unwrap_or_else(PoisonError::into_inner);
    let pod = pod_of("shop");
    assert_eq!(kubectl(&format!("logs {pod}")).ok(), "listening on 8080");
    assert_eq!(
        kubectl(&format!("logs {pod} -c app --tail=1")).ok(),
        "listening on 8080"
    );
    assert!(
        kubectl("logs deploy/shop")
            .ok()
            .ends_with("listening on 8080")
    );
    let mut follow = Follow::start(&["logs", "-f", &pod]);
    assert_eq!(follow.wait_for("listening"), "listening on 8080");
}

#[test]
fn events_and_conditions_explain_a_pod_that_is_not_ready() {
    let site = &served().site;
    site.exec("unwell", "app", &["rm", "/www/well"]).ok();
    eventually(SOON, "the pod is not ready", || {
        kubectl("get pod unwell").ok().contains("0/1")
    });
    eventually(SOON, "an event names the failed probe", || {
        let events = squeezed(&kubectl("get events").ok());
        events.contains("Warning Unhealthy pod/unwell Readiness probe failed")
    });
    assert!(squeezed(&kubectl("describe pod unwell").ok()).contains("Warning Unhealthy"));
    site.exec("unwell", "app", &["touch", "/www/well"]).ok();
    eventually(SOON, "the pod is ready", || {
        kubectl("get pod unwell").ok().contains("1/1")
    });
}

#[test]
fn a_watch_prints_changes_of_pods() {
    let _changes = PODS_OF_SHOP.write().unwrap_or_else(PoisonError::into_inner);
    let mut watch = Follow::start(&["get", "pods", "-l", "app=shop", "--watch"]);
    watch.wait_for("NAME READY STATUS RESTARTS AGE");
    watch.wait_for("1/1 Running");
    let outcome = served().site.host.windlass(&["restart", "deploy/shop"]);
    outcome.ok();
    watch.wait_for("ContainerCreating");
    watch.wait_for("1/1 Running");
    watch.wait_for("Terminating");
    drop(watch);
    eventually(SOON, "the pods are replaced", || {
        squeezed(&kubectl("get deploy shop").ok()).contains("shop 2/2 2 2")
            && kubectl("get pods -l app=shop -o name").ok().lines().count() == 2
    });
}

#[test]
fn windlass_prints_the_same_tables() {
    for arguments in [
        "get pods",
        "get pods -o wide",
        "get deploy,svc",
        "get all",
        "get pods -A",
        "get nodes",
        "get ep",
        "get secrets",
    ] {
        let words: Vec<&str> = arguments.split_whitespace().collect();
        // A column with an age may change between the two commands, so they are repeated.
        let mut both = (String::new(), String::new());
        eventually(
            SOON,
            &format!("`windlass {arguments}` prints the same"),
            || {
                both = (
                    kubectl(arguments).ok(),
                    served().site.host.windlass(&words).ok(),
                );
                let lines = |text: &str| {
                    text.lines()
                        .map(|line| line.trim_end().to_owned())
                        .collect::<Vec<_>>()
                };
                lines(&both.0) == lines(&both.1)
            },
        );
    }
}

#[test]
fn a_write_is_refused_with_a_message_that_names_the_repository() {
    let _stays = PODS_OF_SHOP.read().unwrap_or_else(PoisonError::into_inner);
    let pod = pod_of("shop");
    let place = format!(
        "Commit the change to {}, branch main, and push",
        served().site.repo.path().display()
    );
    for arguments in [
        format!("delete pod {pod}"),
        "delete deploy shop".to_owned(),
        "scale deploy shop --replicas=5".to_owned(),
        "create namespace more".to_owned(),
        "label pod unwell a=b".to_owned(),
        "rollout restart deploy shop".to_owned(),
        "cordon node-1".to_owned(),
    ] {
        let outcome = kubectl(&arguments);
        // Some versions of kubectl print the error and end with code 0, so the code is not checked.
        assert!(outcome.stderr.contains(&place), "{outcome:#?}");
    }
    let outcome = kubectl(&format!("exec {pod} -- ls"));
    assert!(
        !outcome.success() && outcome.stderr.contains("Windlass does not serve exec"),
        "{outcome:#?}"
    );
    assert_eq!(pod_of("shop"), pod);
}

#[test]
fn a_client_without_the_token_is_refused_and_the_certificate_is_needed_to_trust_the_server() {
    let served = served();
    let outcome = run(command(served, &"0".repeat(64)).args(["get", "pods"]));
    assert!(!outcome.success(), "{outcome:#?}");
    let error = outcome.stderr.to_lowercase();
    assert!(
        error.contains("unauthorized") || error.contains("must be logged in"),
        "{outcome:#?}"
    );

    let url = format!("https://{}:{PORT}/api/v1/pods", served.site.host.address);
    let outcome =
        run(served
            .site
            .host
            .network
            .command()
            .args(["curl", "-sS", "--max-time", "5", &url]));
    assert!(outcome.stderr.contains("certificate"), "{outcome:#?}");
    let ca = served.ca.to_str().unwrap();
    let code = [
        "curl",
        "-s",
        "--max-time",
        "5",
        "--cacert",
        ca,
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        &url,
    ];
    assert_eq!(
        run(served.site.host.network.command().args(code)).ok(),
        "401"
    );
}

/// A kubectl that runs until this value is dropped, such as one that watches.
struct Follow {
    process: std::process::Child,
    lines: mpsc::Receiver<String>,
    received: Vec<String>,
}

impl Follow {
    fn start(arguments: &[&str]) -> Follow {
        Follow::start_of(ANY, arguments)
    }

    fn start_of(client: &str, arguments: &[&str]) -> Follow {
        let served = served();
        let mut command = command_of(&[client], served, &served.token);
        let mut process = command
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(squeezed(&line).trim_end().to_owned()).is_err() {
                    return;
                }
            }
        });
        Follow {
            process,
            lines,
            received: Vec::new(),
        }
    }

    /// Waits for the next line that contains a text; returns that line.
    #[track_caller]
    fn wait_for(&mut self, text: &str) -> String {
        let deadline = std::time::Instant::now() + SOON;
        loop {
            let remaining = deadline.saturating_duration_since(std::time::Instant::now());
            match self
                .lines
                .recv_timeout(remaining.min(Duration::from_secs(60)))
            {
                Ok(line) => {
                    self.received.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => panic!(
                    "no line with {text:?}: {error}; the lines: {:#?}",
                    self.received
                ),
            }
        }
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        // The process may have ended already, and then both calls fail.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
