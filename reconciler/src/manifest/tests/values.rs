//! The objects that accepted manifests become: defaults, hashes, converted values.

use std::time::Duration;

use super::*;
use crate::{name::*, object::*};

/// The only workload of a manifest without errors.
fn workload(text: &str) -> Workload {
    let (objects, mut problems) = read(&[("a.yaml", text)]);
    problems.retain(|problem| problem.severity == Severity::Error);
    assert_eq!(problems, Vec::new());
    objects.workloads.into_values().next().unwrap()
}

fn controller(api_version: &str, kind: &str, spec: &str) -> Workload {
    workload(&format!(
        "apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: a}}\nspec:\n{spec}  template: {{metadata: {{labels: {{app: a}}}}, spec: {{containers: [{{name: a, image: a}}]}}}}\n"
    ))
}

const SELECTOR: &str = "  selector: {matchLabels: {app: a}}\n";

#[test]
fn a_pod_has_the_defaults_of_kubernetes() {
    let pod = workload(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: a, livenessProbe: {tcpSocket: {port: 80}}}]}\n",
    );
    assert_eq!(pod.key.to_string(), "Pod/default/a");
    let PodSpec {
        termination_grace,
        dns_policy,
        enable_service_links,
        restart_policy,
        containers,
        ..
    } = pod.template.spec;
    assert_eq!(termination_grace, Duration::from_secs(30));
    assert_eq!(
        (dns_policy, restart_policy),
        (DnsPolicy::ClusterFirst, RestartPolicy::Always)
    );
    assert!(enable_service_links);
    let expected = Container {
        name: "a".to_owned(),
        image: ImageReference::new("a"),
        pull: PullPolicy::Always,
        termination_message_path: "/dev/termination-log".to_owned(),
        liveness: Some(Probe {
            handler: Handler::TcpSocket {
                host: None,
                port: 80,
            },
            initial_delay: Duration::ZERO,
            period: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            success_threshold: 1,
            failure_threshold: 3,
            termination_grace: None,
        }),
        ..Container::default()
    };
    assert_eq!(containers, [expected]);
}

#[test]
fn controllers_have_the_defaults_of_their_group() {
    let quarter = IntOrPercent::Percent(25);
    let one = IntOrPercent::Int(1);
    for (api_version, selector, bound, deadline) in [
        ("apps/v1", SELECTOR, quarter, Some(600)),
        ("apps/v1beta2", SELECTOR, quarter, Some(600)),
        ("apps/v1beta1", "", quarter, Some(600)),
        ("extensions/v1beta1", "", one, None),
    ] {
        let deployment = controller(api_version, "Deployment", selector);
        let Control::Deployment {
            replicas,
            strategy,
            progress_deadline,
            selector,
            ..
        } = deployment.control
        else {
            panic!("a Deployment");
        };
        assert_eq!(replicas, 1);
        assert_eq!(
            strategy,
            DeploymentStrategy::RollingUpdate {
                max_surge: bound,
                max_unavailable: bound
            }
        );
        assert_eq!(
            progress_deadline,
            deadline.map(Duration::from_secs),
            "{api_version}"
        );
        assert_eq!(selector.labels, [("app".to_owned(), "a".to_owned())].into());
    }
    let rolling = DaemonSetUpdate::RollingUpdate {
        max_unavailable: one,
        max_surge: IntOrPercent::Int(0),
    };
    for (api_version, selector, expected) in [
        ("apps/v1", SELECTOR, rolling),
        ("apps/v1beta2", SELECTOR, rolling),
        ("extensions/v1beta1", "", DaemonSetUpdate::OnDelete),
    ] {
        let set = controller(api_version, "DaemonSet", selector);
        assert!(
            matches!(set.control, Control::DaemonSet { update, .. } if update == expected),
            "{api_version}"
        );
    }
}

#[test]
fn a_template_hash_is_the_same_in_all_api_groups_and_kinds() {
    let hash = |api_version, kind, spec: &str| controller(api_version, kind, spec).template.hash;
    let expected = hash("apps/v1", "Deployment", SELECTOR);
    assert_eq!(
        hash("extensions/v1beta1", "Deployment", "  replicas: 5\n"),
        expected
    );
    assert_eq!(hash("apps/v1", "DaemonSet", SELECTOR), expected);
}

#[test]
fn a_service_publishes_pods_that_are_not_ready_if_its_manifest_asks_for_that() {
    let publishes = |field: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{selector: {{app: a}}, ports: [{{port: 80}}]{field}}}\n"
        );
        let (objects, problems) = read(&[("a.yaml", &text)]);
        assert_eq!(problems, Vec::new());
        let service = objects.services.into_values().next().unwrap();
        service.publish_not_ready
    };
    assert!(!publishes(""));
    assert!(!publishes(", publishNotReadyAddresses: false"));
    assert!(publishes(", publishNotReadyAddresses: true"));
}

#[test]
fn fields_are_converted_to_the_units_and_forms_of_docker() {
    let pod = workload(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: a, labels: {app: a}}
spec:
  securityContext: {runAsUser: 1000, runAsGroup: 1000}
  serviceAccountName: default
  tolerations:
  - {key: a, effect: NoExecute, tolerationSeconds: -5}
  - {operator: Exists}
  volumes:
  - {name: h, hostPath: {path: /var//run/./docker.sock/, type: ""}}
  - {name: c, configMap: {name: c, defaultMode: 0600, items: [{key: k, path: a/b, mode: 0400}]}}
  - {name: m, emptyDir: {medium: Memory, sizeLimit: 1.5Mi}}
  - name: none
  containers:
  - name: a
    image: registry.example.com:5000/a/b:1.0
    workingDir: /srv
    securityContext: {runAsUser: 0, readOnlyRootFilesystem: true, capabilities: {add: [NET_ADMIN], drop: [ALL]}}
    env:
    - {name: A, value: "$(B)"}
    - {name: B, valueFrom: {fieldRef: {fieldPath: "metadata.labels['app']"}}}
    - {name: C, valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}}
    - {name: D, valueFrom: {secretKeyRef: {name: s, key: k, optional: true}}}
    resources: {limits: {cpu: 0.5, memory: 64Mi}, requests: {cpu: 100m}}
    ports: [{name: http, containerPort: 80, hostPort: 8080, hostIP: 0.0.0.0}]
    readinessProbe: {httpGet: {port: http, path: /ready, httpHeaders: [{name: Host, value: a}]}}
    volumeMounts:
    - {name: h, mountPath: /var/run/docker.sock/, readOnly: true}
"#,
    );
    let spec = pod.template.spec;
    let toleration = |key: Option<&str>, equal: Option<&str>, effect, for_at_most| Toleration {
        key: key.map(str::to_owned),
        equal: equal.map(str::to_owned),
        effect,
        for_at_most,
    };
    assert_eq!(
        spec.tolerations,
        [
            toleration(
                Some("a"),
                Some(""),
                Some(TaintEffect::NoExecute),
                Some(Duration::ZERO)
            ),
            toleration(None, None, None, None)
        ]
    );
    let path = "/var/run/docker.sock".to_owned();
    assert_eq!(
        spec.volumes["h"],
        VolumeSource::HostPath {
            path: path.clone(),
            kind: HostPathKind::Any
        }
    );
    let item = ConfigItem {
        key: "k".to_owned(),
        path: "a/b".to_owned(),
        mode: Some(0o400),
    };
    let source = ConfigSource::ConfigMap("c".to_owned());
    assert_eq!(
        spec.volumes["c"],
        VolumeSource::Config {
            source,
            items: vec![item],
            mode: 0o600,
            optional: false
        }
    );
    assert_eq!(
        spec.volumes["m"],
        VolumeSource::EmptyDir {
            memory: true,
            size_limit: Some(1_572_864)
        }
    );
    assert_eq!(
        spec.volumes["none"],
        VolumeSource::EmptyDir {
            memory: false,
            size_limit: None
        }
    );
    let container = &spec.containers[0];
    assert_eq!(container.pull, PullPolicy::IfNotPresent);
    assert_eq!(
        (
            container.security.run_as_user,
            container.security.run_as_group
        ),
        (Some(0), Some(1000))
    );
    assert!(container.security.read_only_root);
    assert_eq!(container.working_dir.as_deref(), Some("/srv"));
    let values: Vec<&EnvValue> = container
        .env
        .iter()
        .map(|variable| &variable.value)
        .collect();
    let key = EnvValue::Key {
        source: ConfigSource::Secret("s".to_owned()),
        key: "k".to_owned(),
        optional: true,
    };
    assert_eq!(
        values,
        [
            &EnvValue::Text("$(B)".to_owned()),
            &EnvValue::Field(FieldRef::Label("app".to_owned())),
            &EnvValue::Text("default".to_owned()),
            &key
        ]
    );
    let resources = Resources {
        cpu_request_milli: Some(100),
        cpu_limit_milli: Some(500),
        memory_request_bytes: Some(64 << 20),
        memory_limit_bytes: Some(64 << 20),
    };
    assert_eq!(container.resources, resources);
    assert_eq!(
        (container.ports[0].host_port, container.ports[0].host_ip),
        (Some(8080), None)
    );
    let handler = Handler::HttpGet {
        host: None,
        port: 80,
        path: "/ready".to_owned(),
        https: false,
        headers: vec![("Host".to_owned(), "a".to_owned())],
    };
    assert_eq!(
        container.readiness.as_ref().map(|probe| &probe.handler),
        Some(&handler)
    );
    assert_eq!(
        (
            container.mounts[0].path.as_str(),
            container.mounts[0].read_only
        ),
        (path.as_str(), true)
    );
}

#[test]
fn secrets_are_decoded_and_printed_without_their_values() {
    let text = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n  annotations: {kubectl.kubernetes.io/last-applied-configuration: hunter2}\ndata:\n  a: |\n    aHVu\n    dGVyMg==\n  b: aHVudGVyMg==\nstringData: {b: plain}\n";
    let (objects, problems) = read(&[("a.yaml", text)]);
    assert_eq!(problems.len(), 1, "{problems:?}");
    let secret = &objects.secrets[&ObjectKey::new("default", "s")];
    assert_eq!(secret.kind, "Opaque");
    assert_eq!(secret.data["a"].expose(), b"hunter2");
    assert_eq!(secret.data["b"].expose(), b"plain");
    let original = objects.originals.values().next();
    let Some(Original::Secret(original)) = original else {
        panic!("{original:?}");
    };
    let original = serde_json::to_value(original).unwrap();
    assert_eq!(original["data"], serde_json::json!({"a": "", "b": ""}));
    let printed = format!("{original}{objects:?}");
    for value in ["hunter2", "aHVu", "plain"] {
        assert!(!printed.contains(value), "{value} in {printed}");
    }
}

#[test]
fn originals_have_the_current_api_group_and_a_namespace() {
    let deployment = "apiVersion: extensions/v1beta1\nkind: Deployment\nmetadata: {name: a}\nspec: {template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: a}]}}}\nstatus: {replicas: 1}\n";
    let (objects, _) = read(&[("a.yaml", deployment)]);
    let (id, original) = objects.originals.first_key_value().unwrap();
    let Original::Deployment(original) = original else {
        panic!("{original:?}");
    };
    assert_eq!(id.api_version, "apps/v1");
    assert_eq!(original.metadata.namespace.as_deref(), Some("default"));
    let selector = &original.spec.as_ref().unwrap().selector;
    assert_eq!(selector.match_labels.as_ref().unwrap()["a"], "b");
    assert!(original.status.is_none());
    assert_eq!(
        objects.positions[id],
        ManifestPosition {
            file: "a.yaml".to_owned(),
            line: 1
        }
    );
}

#[test]
fn null_stands_for_the_empty_value_of_a_field() {
    let (objects, problems) = read(&[(
        "a.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, labels: {app: null}}\ndata: {key: null}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {name: b}\n\
         spec: {hostNetwork: null, containers: [{name: a, image: a, env: [{name: A, value: null}], \
         readinessProbe: {periodSeconds: null, exec: {command: [echo, null]}}}]}\n",
    )]);
    assert_eq!(problems, Vec::new());
    let map = objects.config_maps.values().next().unwrap();
    assert_eq!(map.data["key"], b"");
    let pod = &objects.workloads.values().next().unwrap().template.spec;
    assert!(!pod.host_network);
    let probe = pod.containers[0].readiness.as_ref().unwrap();
    assert_eq!(probe.period, Duration::from_secs(10));
    let command = vec!["echo".to_owned(), String::new()];
    assert_eq!(probe.handler, Handler::Exec { command });
}

#[test]
fn a_service_has_the_kind_and_the_address_that_are_written() {
    let kind = |spec: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{ports: [{{port: 80}}], {spec}}}\n"
        );
        let (objects, problems) = read(&[("a.yaml", &text)]);
        assert_eq!(problems, Vec::new(), "{spec}");
        objects.services.into_values().next().unwrap().kind
    };
    let address = Some(std::net::Ipv4Addr::new(10, 96, 0, 7));
    let none = None;
    let cases = [
        ("", ServiceKind::ClusterIp { address: none }),
        ("clusterIP: ''", ServiceKind::ClusterIp { address: none }),
        ("clusterIP: 10.96.0.7", ServiceKind::ClusterIp { address }),
        ("clusterIP: None", ServiceKind::Headless),
        ("type: NodePort", ServiceKind::NodePort { address: none }),
        (
            "type: NodePort, clusterIP: 10.96.0.7",
            ServiceKind::NodePort { address },
        ),
        (
            "type: LoadBalancer",
            ServiceKind::LoadBalancer { address: none },
        ),
    ];
    for (spec, expected) in cases {
        assert_eq!(kind(spec), expected, "{spec}");
    }
    let external = kind("type: ExternalName, externalName: example.com");
    assert!(
        matches!(external, ServiceKind::ExternalName { .. }),
        "{external:?}"
    );
}
