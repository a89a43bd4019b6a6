use std::sync::Arc;

use jiff::Timestamp;

use super::*;
use crate::{commit::Commit, ids::commit_id};

/// A commit with these manifests, which cause no problem.
pub(crate) fn commit(name: &str, manifests: &str) -> Arc<Commit> {
    let file = SourceFile {
        path: "all.yaml",
        content: manifests.as_bytes(),
    };
    let settings = CheckSettings::default();
    let (objects, problems) = read(&[file], &Limits::default(), &settings, ReadAs::NewHead);
    assert_eq!(problems, Vec::new());
    Arc::new(Commit {
        id: commit_id(name),
        subject: String::new(),
        signer: String::new(),
        time: Timestamp::UNIX_EPOCH,
        allow_deletions: false,
        objects,
        warnings: Vec::new(),
    })
}

fn problems_of(text: &str, settings: &CheckSettings) -> String {
    let file = SourceFile {
        path: "a.yaml",
        content: text.as_bytes(),
    };
    let (_, problems) = read(&[file], &Limits::default(), settings, ReadAs::NewHead);
    problems
        .iter()
        .map(|problem| format!("{problem}\n"))
        .collect()
}

#[test]
fn references_of_a_pod_must_be_in_the_commit() {
    let text = r"apiVersion: v1
kind: ConfigMap
metadata: {name: app}
data: {colour: red}
---
apiVersion: v1
kind: Secret
metadata: {name: keys, namespace: other}
stringData: {key: x}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      initContainers:
      - name: init
        image: a:1
        envFrom:
        - configMapRef: {name: ap}
        - secretRef: {name: gone, optional: true}
      containers:
      - name: web
        image: a:1
        env:
        - name: A
          valueFrom: {configMapKeyRef: {name: app, key: color}}
        - name: B
          valueFrom: {secretKeyRef: {name: keys, key: key}}
        - name: C
          valueFrom: {configMapKeyRef: {name: app, key: gone, optional: true}}
      volumes:
      - name: empty
        emptyDir: {}
      - name: app
        configMap: {name: app, items: [{key: colour, path: a}, {key: gone, path: b}]}
      - name: keys
        secret: {secretName: keys}
";
    let settings = CheckSettings::default();
    insta::assert_snapshot!(problems_of(text, &settings), @r#"
    a.yaml:23:26: spec.template.spec.initContainers[0].envFrom[0].configMapRef.name: there is no ConfigMap default/ap in this commit (did you mean "app"?): add it, or say optional: true
    a.yaml:30:52: spec.template.spec.containers[0].env[0].valueFrom.configMapKeyRef.key: the ConfigMap default/app has no key "color" (did you mean "colour"?): add it, or say optional: true
    a.yaml:32:38: spec.template.spec.containers[0].env[1].valueFrom.secretKeyRef.name: there is no Secret default/keys in this commit: add it, or say optional: true
    a.yaml:39:65: spec.template.spec.volumes[1].configMap.items[1].key: the ConfigMap default/app has no key "gone": add it, or say optional: true
    a.yaml:41:18: spec.template.spec.volumes[2].secret.secretName: there is no Secret default/keys in this commit: add it, or say optional: true
    "#);
}

#[test]
fn services_without_pods_or_ports_are_warned_of() {
    let text = r#"apiVersion: v1
kind: Pod
metadata: {name: a, labels: {app: a}}
spec:
  containers:
  - {name: a, image: "a:1", ports: [{name: http, containerPort: 80}]}
  - {name: b, image: "b:1", readinessProbe: {httpGet: {port: 9090}}}
---
apiVersion: v1
kind: Service
metadata: {name: numbers}
spec: {selector: {app: a}, ports: [{name: a, port: 80}, {name: b, port: 90, targetPort: 9090}, {name: c, port: 81}]}
---
apiVersion: v1
kind: Service
metadata: {name: good}
spec: {selector: {app: a}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: port}
spec: {selector: {app: a}, ports: [{port: 80, targetPort: htpp}]}
---
apiVersion: v1
kind: Service
metadata: {name: labels}
spec: {selector: {app: b}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere, namespace: other}
spec: {selector: {app: a}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: none}
spec: {ports: [{port: 80}]}
"#;
    let settings = CheckSettings::default();
    insta::assert_snapshot!(problems_of(text, &settings), @r#"
    a.yaml:12:97: warning: spec.ports[2].targetPort: no container of the pods it selects declares the TCP port 81, they declare 80: its calls are refused unless one listens there
    a.yaml:22:47: warning: spec.ports[0].targetPort: no pod it selects has a TCP port named "htpp" (did you mean "http"?): name one so, or write its number
    a.yaml:27:8: warning: spec.selector: no pod of the namespace default in this commit has these labels: correct them, or add the pods
    a.yaml:32:8: warning: spec.selector: no pod of the namespace other in this commit has these labels: correct them, or add the pods
    a.yaml:37:1: warning: spec.selector: required to lead anywhere: write labels of the pods it is for
    "#);
}

#[test]
fn a_port_of_the_host_can_be_used_once() {
    let text = r#"apiVersion: v1
kind: Pod
metadata: {name: a, labels: {app: a}}
spec:
  containers:
  - {name: a, image: "a:1", ports: [{containerPort: 80, hostPort: 8080}, {containerPort: 81, hostPort: 8080, protocol: UDP}]}
  - {name: b, image: "a:1", ports: [{containerPort: 80, hostPort: 8080, hostIP: 127.0.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: b}
spec:
  hostNetwork: true
  containers: [{name: a, image: "a:1", ports: [{containerPort: 8080}, {containerPort: 30081}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: elsewhere}
spec:
  nodeName: other
  containers: [{name: a, image: "a:1", ports: [{containerPort: 80, hostPort: 9090}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: here}
spec:
  nodeName: this
  containers: [{name: a, image: "a:1", ports: [{containerPort: 80, hostPort: 9090}]}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: many}
spec:
  replicas: 2
  selector: {matchLabels: {app: b}}
  template: {metadata: {labels: {app: b}}, spec: {containers: [{name: a, image: "a:1", ports: [{containerPort: 80, hostPort: 7070}]}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: stuck}
spec:
  selector: {matchLabels: {app: b}}
  template: {metadata: {labels: {app: b}}, spec: {containers: [{name: a, image: "a:1", ports: [{containerPort: 80, hostPort: 7071}]}]}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: stuck}
spec:
  updateStrategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  selector: {matchLabels: {app: b}}
  template: {metadata: {labels: {app: b}}, spec: {containers: [{name: a, image: "a:1", ports: [{containerPort: 80, hostPort: 7072}]}]}}
---
apiVersion: v1
kind: Service
metadata: {name: one}
spec: {type: NodePort, selector: {app: a}, ports: [{name: a, port: 80, nodePort: 30080}, {name: b, port: 81, nodePort: 30080, protocol: UDP}]}
---
apiVersion: v1
kind: Service
metadata: {name: two}
spec: {type: NodePort, selector: {app: a}, ports: [{name: a, port: 80, nodePort: 30080}, {name: b, port: 81, nodePort: 30081}, {name: c, port: 82, nodePort: 80}]}
"#;
    let settings = CheckSettings::default();
    insta::assert_snapshot!(problems_of(text, &settings), @r"
    a.yaml:7:57: spec.containers[1].ports[0].hostPort: 8080/TCP of the host is taken by Pod/default/a (a.yaml:1): choose another port
    a.yaml:14:49: spec.containers[0].ports[0].containerPort: 8080/TCP of the host is taken by Pod/default/a (a.yaml:1): choose another port
    a.yaml:36:116: warning: spec.template.spec.containers[0].ports[0].hostPort: the 2 replicas cannot run on one host with it: use a Service, or one replica
    a.yaml:43:116: warning: spec.template.spec.containers[0].ports[0].hostPort: a new pod cannot start beside the old one with it, so a rollout cannot go on: set spec.strategy.type to Recreate
    a.yaml:51:116: warning: spec.template.spec.containers[0].ports[0].hostPort: a new pod cannot start beside the old one with it, so a rollout cannot go on: set spec.updateStrategy.rollingUpdate.maxUnavailable to 1 and maxSurge to 0
    a.yaml:61:72: spec.ports[0].nodePort: 30080/TCP is taken by the Service default/one (a.yaml:53): choose another port
    a.yaml:61:91: warning: spec.ports[1].targetPort: no container of the pods it selects declares the TCP port 81, they declare 80: its calls are refused unless one listens there
    a.yaml:61:110: spec.ports[1].nodePort: 30081/TCP of the host is taken by Pod/default/b (a.yaml:9), spec.containers[0].ports[1].containerPort: choose another port
    a.yaml:61:129: warning: spec.ports[2].targetPort: no container of the pods it selects declares the TCP port 82, they declare 80: its calls are refused unless one listens there
    a.yaml:61:148: spec.ports[2].nodePort: 80 is out of range: choose one from 30000 to 32767
    ");
}

#[test]
fn a_cluster_address_must_be_in_range_and_can_be_used_once() {
    let text = r#"apiVersion: v1
kind: Pod
metadata: {name: a, labels: {app: a}}
spec: {containers: [{name: a, image: "a:1"}]}
---
{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIP: 10.96.0.5, selector: {app: a}, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: b}, spec: {clusterIP: 10.96.0.5, selector: {app: a}, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: c}, spec: {clusterIP: 192.0.2.1, selector: {app: a}, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: d}, spec: {clusterIP: 10.96.0.10, selector: {app: a}, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: e}, spec: {clusterIP: 10.96.0.0, selector: {app: a}, ports: [{port: 80}]}}
"#;
    let settings = CheckSettings {
        reserved_addresses: vec![Ipv4Addr::new(10, 96, 0, 10)],
        ..CheckSettings::default()
    };
    insta::assert_snapshot!(problems_of(text, &settings), @r"
    a.yaml:8:61: spec.clusterIP: 10.96.0.5 is taken by the Service default/a (a.yaml:6): choose another, or leave it out
    a.yaml:10:61: spec.clusterIP: 192.0.2.1 is outside the service range 10.96.0.0/12: choose one in it, or leave it out
    a.yaml:12:61: spec.clusterIP: 10.96.0.10 is the daemon's own: choose another, or leave it out
    a.yaml:14:61: spec.clusterIP: 10.96.0.0 is an end of the service range 10.96.0.0/12: choose another, or leave it out
    ");
}

#[test]
fn the_daemons_own_directories_are_never_mounted() {
    let text = r#"apiVersion: v1
kind: Pod
metadata: {name: a}
spec:
  containers: [{name: a, image: "a:1"}]
  volumes:
  - {name: is, hostPath: {path: /var/lib/windlass/}}
  - {name: contains, hostPath: {path: /var//lib}}
  - {name: root, hostPath: {path: /}}
  - {name: lies-in, hostPath: {path: /var/lib/windlass/secrets/a}}
  - {name: beside, hostPath: {path: /var/lib/windlass2}}
  - {name: docker, hostPath: {path: /var/run/docker.sock}}
"#;
    let settings = CheckSettings {
        forbidden_host_paths: vec!["/var/lib/windlass".to_owned()],
        ..CheckSettings::default()
    };
    insta::assert_snapshot!(problems_of(text, &settings), @r#"
    a.yaml:7:27: spec.volumes[0].hostPath.path: "/var/lib/windlass" would give the pod /var/lib/windlass, which is the daemon's own: choose another path
    a.yaml:8:33: spec.volumes[1].hostPath.path: "/var/lib" would give the pod /var/lib/windlass, which is the daemon's own: choose another path
    a.yaml:9:29: spec.volumes[2].hostPath.path: "/" would give the pod /var/lib/windlass, which is the daemon's own: choose another path
    a.yaml:10:32: spec.volumes[3].hostPath.path: "/var/lib/windlass/secrets/a" would give the pod /var/lib/windlass, which is the daemon's own: choose another path
    "#);
}

#[test]
fn links_of_processes_are_never_mounted() {
    let problems = |path: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec:\n  containers: [{{name: a, image: 'a:1'}}]\n  \
             volumes: [{{name: v, hostPath: {{path: '{path}'}}}}]\n"
        );
        problems_of(&text, &CheckSettings::default())
    };
    for path in [
        "/proc/1/root",
        "/proc/1/root/etc",
        "/proc/4711/cwd",
        "/proc//self/./fd/7",
        "/proc/self/root/",
        "/proc/thread-self/fd/3",
        "/proc/thread-self/cwd",
        "/proc/1/task/1/root/srv",
        "/proc/self/task/4711/fd",
    ] {
        let found = problems(path);
        assert!(
            found.contains("leads to the files of a process"),
            "{path}: {found}"
        );
    }
    for path in [
        "/proc",
        "/proc/1",
        "/proc/1/ns",
        "/proc/sys/fs",
        "/proc/self/task",
        "/proc/1/task/1/ns",
        "/proc/net/fd",
        "/srv/proc/1/root",
        "/procs/1/root",
    ] {
        assert_eq!(problems(path), "", "{path}");
    }
}

#[test]
fn the_hosts_configuration_limits_the_rights_of_pods() {
    let text = r"apiVersion: apps/v1
kind: DaemonSet
metadata: {name: a}
spec:
  selector: {matchLabels: {app: a}}
  template:
    metadata: {labels: {app: a}}
    spec:
      hostNetwork: true
      hostPID: true
      containers:
      - name: a
        image: a:1
        securityContext: {privileged: true, capabilities: {add: [CAP_NET_ADMIN, SYS_TIME]}}
      volumes:
      - {name: a, hostPath: {path: /srv/data}}
      - {name: b, hostPath: {path: /srvx}}
";
    let settings = CheckSettings {
        allowed_host_paths: Some(vec!["/srv".to_owned()]),
        allow_privileged: false,
        allow_host_namespaces: false,
        allowed_capabilities: Some(["NET_ADMIN".to_owned()].into()),
        ..CheckSettings::default()
    };
    insta::assert_snapshot!(problems_of(text, &settings), @r#"
    a.yaml:9:7: spec.template.spec.hostNetwork: the host does not allow its namespaces to pods: run the pod without, or set host-namespaces under [allow] on the hosts
    a.yaml:10:7: spec.template.spec.hostPID: the host does not allow its namespaces to pods: run the pod without, or set host-namespaces under [allow] on the hosts
    a.yaml:14:27: spec.template.spec.containers[0].securityContext.privileged: the host does not allow privileged containers: add the capabilities that it needs, or set privileged under [allow] on the hosts
    a.yaml:14:81: spec.template.spec.containers[0].securityContext.capabilities.add[1]: the host does not allow SYS_TIME: do without, or add it to capabilities under [allow] on the hosts; allowed are NET_ADMIN
    a.yaml:17:30: spec.template.spec.volumes[1].hostPath.path: the host does not allow "/srvx": choose a path in one of /srv
    "#);
}

#[test]
fn references_are_not_checked_if_a_document_could_not_be_read() {
    let text = r#"apiVersion: v1
kind: ConfigMap
metadata: {name: app
---
apiVersion: v1
kind: Pod
metadata: {name: a}
spec: {containers: [{name: a, image: "a:1", envFrom: [{configMapRef: {name: app}}]}]}
"#;
    let settings = CheckSettings::default();
    insta::assert_snapshot!(problems_of(text, &settings), @"a.yaml:4:1: not valid YAML: did not find expected ',' or '}', while parsing a flow mapping at line 3 column 11");
}

#[test]
fn a_reference_to_a_config_map_with_problems_is_valid() {
    let text = r#"apiVersion: v1
kind: ConfigMap
metadata: {name: app}
dat: {}
---
apiVersion: v1
kind: Pod
metadata: {name: a}
spec: {containers: [{name: a, image: "a:1", envFrom: [{configMapRef: {name: app}}]}]}
"#;
    let settings = CheckSettings::default();
    insta::assert_snapshot!(problems_of(text, &settings), @r#"a.yaml:4:1: dat: unknown field (did you mean "data"?): correct or remove it"#);
}

#[test]
fn problems_have_the_line_of_their_document_before_they_are_located() {
    let text = "\nkind: Service\napiVersion: v1\nmetadata: {name: a}\nspec: {clusterIP: 192.0.2.1, selector: {a: b}, ports: [{port: 80}]}\n";
    let file = SourceFile {
        path: "a.yaml",
        content: text.as_bytes(),
    };
    let (objects, problems) = manifest::parse(&[file], &Limits::default(), ReadAs::NewHead);
    assert_eq!(problems, Vec::new());
    let mut problems = check(&objects, &CheckSettings::default());
    problems.retain(|problem| problem.severity == Severity::Error);
    assert_eq!((problems[0].line, problems[0].column), (2, 0));
    manifest::locate(&mut problems, &[file]);
    assert_eq!((problems[0].line, problems[0].column), (5, 8));
}

#[test]
fn references_are_checked_while_other_fields_have_errors() {
    let text = r#"apiVersion: v1
kind: Pod
metadata: {name: a}
spec: {containers: [{name: a, image: "a:1", envFrom: [{configMapRef: {name: app}}]}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
dat: {}
"#;
    let settings = CheckSettings::default();
    insta::assert_snapshot!(problems_of(text, &settings), @r#"
    a.yaml:4:71: spec.containers[0].envFrom[0].configMapRef.name: there is no ConfigMap default/app in this commit: add it, or say optional: true
    a.yaml:9:1: dat: unknown field (did you mean "data"?): correct or remove it
    "#);
}

/// The problems of bare Pods, each with these fields of its spec and of the port 8080 of the host.
fn host_ports(pods: &[(&str, &str)]) -> usize {
    let document = |(index, (spec, port)): (usize, &(&str, &str))| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p{index}}}\nspec:\n  {spec}\n  \
             containers: [{{name: a, image: 'a:1', ports: [{{containerPort: 80, {port}}}]}}]\n"
        )
    };
    let text: String = pods.iter().enumerate().map(document).collect();
    let problems = problems_of(&text, &CheckSettings::default());
    assert_eq!(
        problems.lines().count(),
        problems
            .matches("8080/TCP of the host is taken by Pod/default/p0")
            .count(),
        "{problems}"
    );
    problems.lines().count()
}

#[test]
fn pods_contend_for_a_host_port_on_one_address_of_a_node_that_may_run_both() {
    let any = "hostPort: 8080";
    let local = "hostPort: 8080, hostIP: 127.0.0.1";
    let public = "hostPort: 8080, hostIP: 192.0.2.1";
    for (first, second, clashes) in [
        (("", any), ("", any), 1),
        (("", any), ("", local), 1),
        (("", local), ("", any), 1),
        (("", local), ("", local), 1),
        (("", local), ("", public), 0),
        (("nodeName: a", any), ("nodeName: b", any), 0),
        (("nodeName: a", any), ("nodeName: a", any), 1),
        (("nodeName: a", any), ("", any), 1),
        (("", any), ("nodeName: a", any), 1),
        (
            ("nodeSelector: {disk: ssd}", any),
            ("nodeSelector: {disk: hdd}", any),
            0,
        ),
        (
            ("nodeSelector: {disk: ssd}", any),
            ("nodeSelector: {disk: ssd}", any),
            1,
        ),
        (
            ("nodeSelector: {disk: ssd}", any),
            ("nodeSelector: {zone: a}", any),
            1,
        ),
        (("nodeName: a", any), ("nodeSelector: {disk: ssd}", any), 1),
        // A port of a container that is no port of its host.
        (("", any), ("", "protocol: TCP"), 0),
        (("", "protocol: TCP"), ("", "protocol: TCP"), 0),
    ] {
        assert_eq!(
            host_ports(&[first, second]),
            clashes,
            "{first:?} and {second:?}"
        );
    }
}

#[test]
fn a_host_port_needs_room_for_an_update_unless_a_pod_may_stop_first() {
    let problems = |kind: &str, fields: &str| {
        let text = format!(
            "apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: web}}\nspec:\n  {fields}\n  \
             selector: {{matchLabels: {{app: a}}}}\n  template: {{metadata: {{labels: {{app: a}}}}, \
             spec: {{containers: [{{name: a, image: 'a:1', ports: [{{containerPort: 80, hostPort: 8080}}]}}]}}}}\n"
        );
        problems_of(&text, &CheckSettings::default())
    };
    let rolling = |surge: &str, unavailable: &str| {
        format!("strategy: {{rollingUpdate: {{maxSurge: {surge}, maxUnavailable: {unavailable}}}}}")
    };
    for (kind, fields, expected) in [
        (
            "Deployment",
            rolling("1", "0"),
            "set spec.strategy.type to Recreate",
        ),
        (
            "Deployment",
            rolling("1", "25%"),
            "set spec.strategy.type to Recreate",
        ),
        ("Deployment", rolling("0", "1"), ""),
        // Both are rounded to zero: one pod may be unavailable.
        ("Deployment", rolling("0", "25%"), ""),
        ("Deployment", "strategy: {type: Recreate}".to_owned(), ""),
        ("Deployment", "replicas: 0".to_owned(), ""),
        (
            "Deployment",
            "replicas: 3".to_owned(),
            "the 3 replicas cannot run on one host",
        ),
        ("ReplicaSet", "replicas: 1".to_owned(), ""),
        (
            "DaemonSet",
            "updateStrategy: {type: OnDelete}".to_owned(),
            "",
        ),
        (
            "DaemonSet",
            "updateStrategy: {rollingUpdate: {maxUnavailable: 1}}".to_owned(),
            "",
        ),
        (
            "DaemonSet",
            "updateStrategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}".to_owned(),
            "maxUnavailable to 1 and maxSurge to 0",
        ),
    ] {
        let found = problems(kind, &fields);
        let is_expected = found.contains(expected) && found.is_empty() == expected.is_empty();
        assert!(is_expected, "{kind} with {fields}: {found}");
    }
}

#[test]
fn a_container_may_be_privileged_only_where_the_host_allows_it() {
    let problems = |privileged: bool, allow_privileged: bool| {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec:\n  \
             containers: [{{name: a, image: 'a:1', securityContext: {{privileged: {privileged}}}}}]\n"
        );
        let settings = CheckSettings {
            allow_privileged,
            ..CheckSettings::default()
        };
        problems_of(&text, &settings).lines().count()
    };
    assert_eq!(problems(true, false), 1);
    assert_eq!(problems(true, true), 0);
    assert_eq!(problems(false, false), 0);
    assert_eq!(problems(false, true), 0);
}
