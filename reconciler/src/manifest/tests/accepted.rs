//! Values at the limit of what is accepted, and what the objects keep of them.

use std::time::Duration;

use super::*;
use crate::object::*;

/// The problems of a document of a kind with this `spec`, without file and position.
fn problems_of_spec(kind: &str, spec: &str) -> String {
    let version = match kind {
        "Deployment" | "DaemonSet" => "apps/v1",
        _ => "v1",
    };
    let text =
        format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{{spec}}}\n");
    let (_, problems) = read(&[("a.yaml", &text)]);
    let line = |problem: &Problem| format!("{}: {}", problem.field, problem.message);
    problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The pod with this `spec`, which causes no problem.
fn pod(spec: &str) -> PodSpec {
    let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {{{spec}}}\n");
    let (objects, problems) = read(&[("a.yaml", &text)]);
    assert_eq!(problems, [], "{spec}");
    objects
        .workloads
        .into_values()
        .next()
        .unwrap()
        .template
        .spec
}

const CONTAINERS: &str = "containers: [{name: a, image: 'a:1'}]";

#[test]
fn who_a_container_runs_as_is_merged_from_the_pod_and_the_container() {
    let security = |of_pod: &str, of_container: &str| {
        let spec = pod(&format!(
            "securityContext: {{{of_pod}}}, containers: [{{name: a, image: 'a:1', securityContext: {{{of_container}}}}}]"
        ));
        (spec.fs_group, spec.containers[0].security.clone())
    };
    let (fs_group, found) = security("fsGroup: 7, supplementalGroups: [9, 7, 8]", "");
    assert_eq!((fs_group, found.groups), (Some(7), vec![7, 8, 9]));
    for (of_pod, of_container, asks_the_image) in [
        ("", "", false),
        ("runAsNonRoot: true", "", true),
        ("", "runAsNonRoot: true", true),
        ("runAsNonRoot: true", "runAsNonRoot: false", false),
        ("runAsNonRoot: true", "runAsUser: 1000", false),
        ("runAsUser: 1000", "runAsNonRoot: true", false),
    ] {
        let (_, found) = security(of_pod, of_container);
        assert_eq!(
            found.run_as_non_root, asks_the_image,
            "{of_pod}; {of_container}"
        );
    }
}

#[test]
fn fields_of_a_pod_are_accepted_up_to_their_limits() {
    for fields in [
        "securityContext: {sysctls: [{name: net/ipv4/tcp_syncookies, value: '0'}, {name: kernel.shm_rmid_forced, value: '1'}]}",
        "setHostnameAsFQDN: true, subdomain: a, hostNetwork: true",
        "securityContext: {supplementalGroupsPolicy: Merge, supplementalGroups: [0, 2147483647]}",
        "securityContext: {runAsNonRoot: true, runAsUser: 1, fsGroup: 0, fsGroupChangePolicy: OnRootMismatch}",
        "securityContext: {seccompProfile: {type: RuntimeDefault}, appArmorProfile: {type: RuntimeDefault}}",
        "tolerations: [{operator: Exists}, {key: a, operator: Equal, value: b, effect: NoSchedule}]",
        "dnsConfig: {searches: [., a., _tcp.a]}",
        "dnsPolicy: None, dnsConfig: {nameservers: [192.0.2.1]}",
        "volumes: [{name: a, emptyDir: {}}, {name: b, emptyDir: {medium: Memory, sizeLimit: 1}}]",
        "volumes: [{name: a, configMap: {name: a, defaultMode: 0777}}]",
        "setHostnameAsFQDN: false, shareProcessNamespace: false, hostUsers: true, overhead: {}, resources: {}",
        "schedulerName: '', schedulingGates: [], readinessGates: [], serviceAccountName: ''",
    ] {
        pod(&format!("{fields}, {CONTAINERS}"));
    }
    let volume = "volumes: [{name: v, hostPath: {path: /v}}]";
    for fields in [
        "securityContext: {privileged: true}, volumeMounts: [{name: v, mountPath: /v, mountPropagation: Bidirectional}]",
        "volumeMounts: [{name: v, mountPath: /v, mountPropagation: HostToContainer, recursiveReadOnly: Disabled}]",
        "securityContext: {allowPrivilegeEscalation: false}",
        "securityContext: {allowPrivilegeEscalation: true, privileged: true}",
        "resources: {requests: {cpu: 1, memory: 6Mi}, limits: {cpu: 1, memory: 6Mi}}",
        "readinessProbe: {tcpSocket: {port: 1}, successThreshold: 2}",
        "livenessProbe: {tcpSocket: {port: 65535}, terminationGracePeriodSeconds: 1}",
        "stdinOnce: false, volumeDevices: [], resizePolicy: [], env: [{name: A, value: ''}]",
    ] {
        pod(&format!(
            "{volume}, containers: [{{name: a, image: 'a:1', {fields}}}]"
        ));
    }
}

#[test]
fn fields_of_a_pod_beyond_their_limits_are_refused() {
    for (fields, expected) in [
        (
            "volumes: [{name: a, configMap: {name: a, defaultMode: 01000}}]",
            "volumes[0].configMap.defaultMode: 512 is not a file mode: write it in octal with a leading 0 (0644), or in decimal from 0 to 511",
        ),
        (
            "securityContext: {seccompProfile: {type: RuntimeDefault, localhostProfile: a}}",
            "securityContext.seccompProfile: not supported yet: ignoring it would run the container with Docker's default profile; make the profile Docker's default on the hosts (seccomp-profile in daemon.json), and write RuntimeDefault",
        ),
        (
            "affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: a, matchLabelKeys: [b], labelSelector: {matchExpressions: [{key: b, operator: Exists}]}}]}}",
            "affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].matchLabelKeys[0]: labelSelector selects by \"b\" too: keep one of them",
        ),
    ] {
        let spec = format!("{fields}, {CONTAINERS}");
        assert_eq!(problems_of_spec("Pod", &spec), format!("spec.{expected}"));
    }
}

#[test]
fn a_pod_keeps_the_names_and_servers_that_its_manifest_gives() {
    let spec = pod(&format!(
        "hostAliases: [{{ip: 192.0.2.1, hostnames: [a, b.c]}}, {{ip: '::1'}}], subdomain: s, hostname: h, nodeName: n.o, \
         dnsConfig: {{nameservers: [192.0.2.2], searches: [a.], options: [{{name: ndots, value: '5'}}, {{name: rotate}}]}}, \
         activeDeadlineSeconds: 7, terminationGracePeriodSeconds: 0, hostPID: true, hostIPC: true, {CONTAINERS}"
    ));
    assert_eq!(
        format!("{:?} {:?}", spec.host_aliases, spec.dns_config),
        "[(192.0.2.1, [\"a\", \"b.c\"]), (::1, [])] DnsConfig { nameservers: [192.0.2.2], searches: [\"a.\"], options: \
         [\"ndots:5\", \"rotate\"] }"
    );
    assert_eq!(
        [spec.hostname.as_deref(), spec.subdomain.as_deref()],
        [Some("h"), Some("s")]
    );
    assert_eq!(spec.node_name.unwrap().as_str(), "n.o");
    assert_eq!(spec.active_deadline, Some(Duration::from_secs(7)));
    assert_eq!(spec.termination_grace, Duration::ZERO);
    assert!(spec.host_pid && spec.host_ipc && !spec.host_network);
}

#[test]
fn a_memory_volume_of_size_zero_has_no_bound() {
    let size = |limit: &str| {
        let volume = format!("{{name: v, emptyDir: {{medium: Memory, sizeLimit: {limit}}}}}");
        let mut spec = pod(&format!("volumes: [{volume}], {CONTAINERS}"));
        spec.volumes.remove("v").unwrap()
    };
    let of_size = |size_limit| VolumeSource::EmptyDir {
        memory: true,
        size_limit,
    };
    assert_eq!(size("0"), of_size(None));
    assert_eq!(size("1"), of_size(Some(1)));
}

#[test]
fn probes_and_hooks_keep_the_numbers_and_addresses_that_are_written() {
    let spec = pod(
        "containers: [{name: a, image: 'a:1', ports: [{name: web, containerPort: 81}], \
         livenessProbe: {httpGet: {port: web, host: '', path: '', scheme: HTTPS}, initialDelaySeconds: 2, periodSeconds: 3, \
         timeoutSeconds: 4, failureThreshold: 5, terminationGracePeriodSeconds: 6}, \
         readinessProbe: {tcpSocket: {port: 82, host: 192.0.2.1}, successThreshold: 7}, \
         lifecycle: {postStart: {exec: {command: [b]}}, preStop: {sleep: {seconds: 8}}}}]",
    );
    let container = &spec.containers[0];
    let seconds = Duration::from_secs;
    let liveness = Probe {
        handler: Handler::HttpGet {
            host: None,
            port: 81,
            path: "/".to_owned(),
            https: true,
            headers: Vec::new(),
        },
        initial_delay: seconds(2),
        period: seconds(3),
        timeout: seconds(4),
        success_threshold: 1,
        failure_threshold: 5,
        termination_grace: Some(seconds(6)),
    };
    assert_eq!(container.liveness, Some(liveness));
    let readiness = container.readiness.as_ref().unwrap();
    assert_eq!(readiness.success_threshold, 7);
    let host = Some("192.0.2.1".to_owned());
    assert_eq!(readiness.handler, Handler::TcpSocket { host, port: 82 });
    let command = vec!["b".to_owned()];
    assert_eq!(container.post_start, Some(Handler::Exec { command }));
    let duration = seconds(8);
    assert_eq!(container.pre_stop, Some(Handler::Sleep { duration }));
}

#[test]
fn a_rollout_keeps_its_numbers_and_its_shares_are_bounded() {
    let problems = |kind: &str, fields: &str| {
        let template =
            format!("template: {{metadata: {{labels: {{a: b}}}}, spec: {{{CONTAINERS}}}}}");
        let spec = format!("selector: {{matchLabels: {{a: b}}}}, {template}, {fields}");
        problems_of_spec(kind, &spec)
    };
    for (kind, fields) in [
        (
            "Deployment",
            "strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 1}}",
        ),
        (
            "Deployment",
            "strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}",
        ),
        (
            "Deployment",
            "strategy: {rollingUpdate: {maxSurge: 300%, maxUnavailable: 100%}}",
        ),
        ("Deployment", "strategy: {type: Recreate}"),
        (
            "Deployment",
            "minReadySeconds: 5, progressDeadlineSeconds: 6",
        ),
        (
            "DaemonSet",
            "updateStrategy: {rollingUpdate: {maxSurge: 100%, maxUnavailable: 0}}",
        ),
        (
            "DaemonSet",
            "updateStrategy: {rollingUpdate: {maxSurge: 0%, maxUnavailable: 3}}",
        ),
    ] {
        assert_eq!(problems(kind, fields), "", "{kind} {fields}");
    }
    for share in ["101%", "+5%", "-5%", "5", "%", "5 %"] {
        let fields = format!("strategy: {{rollingUpdate: {{maxUnavailable: '{share}'}}}}");
        let expected = format!(
            "spec.strategy.rollingUpdate.maxUnavailable: {share:?} is not valid: write a number, or a percentage such as \"25%\""
        );
        assert_eq!(problems("Deployment", &fields), expected);
    }
    let same = problems(
        "Deployment",
        "minReadySeconds: 5, progressDeadlineSeconds: 5",
    );
    assert_eq!(
        same,
        "spec.progressDeadlineSeconds: must be more than minReadySeconds: raise it"
    );

    let text = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: a}}\nspec: {{replicas: 3, minReadySeconds: 5, \
         progressDeadlineSeconds: 6, paused: true, selector: {{matchLabels: {{a: b}}}}, template: {{metadata: {{labels: \
         {{a: b}}}}, spec: {{{CONTAINERS}}}}}}}\n"
    );
    let (objects, _) = read(&[("a.yaml", &text)]);
    let control = objects.workloads.into_values().next().unwrap().control;
    let Control::Deployment {
        replicas,
        min_ready,
        progress_deadline,
        paused,
        ..
    } = control
    else {
        panic!("{control:?}");
    };
    let seconds = Duration::from_secs;
    assert_eq!(
        (replicas, min_ready, progress_deadline, paused),
        (3, seconds(5), Some(seconds(6)), true)
    );
}

#[test]
fn fields_of_a_service_depend_on_its_type_and_on_each_other() {
    let refused = |field: &str, why: &str| format!("spec.{field}: {why}");
    let none = String::new;
    let policy = "not supported yet: ignoring it would hide the callers' addresses; let pods with hostNetwork take the calls in its place: they see who calls";
    for (fields, expected) in [
        (
            "ports: [{port: 80, name: a}, {port: 81, name: b}, {port: 81, name: c, protocol: UDP}]",
            none(),
        ),
        ("ports: [{port: 80, nodePort: 0, targetPort: 0}]", none()),
        (
            "type: NodePort, ports: [{port: 80, nodePort: 30080}]",
            none(),
        ),
        (
            "type: LoadBalancer, allocateLoadBalancerNodePorts: true, externalTrafficPolicy: Cluster, ports: [{port: 80}]",
            none(),
        ),
        ("clusterIPs: [10.96.0.7], ports: [{port: 80}]", none()),
        (
            "clusterIP: 10.96.0.7, clusterIPs: [10.96.0.7], ipFamilies: [IPv4], ports: [{port: 80}]",
            none(),
        ),
        ("clusterIP: None", none()),
        (
            "sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 86400}}, ports: [{port: 80}]",
            none(),
        ),
        (
            "externalIPs: [], loadBalancerSourceRanges: [], loadBalancerIP: '', healthCheckNodePort: 0, externalTrafficPolicy: '', externalName: '', ports: [{port: 80}]",
            none(),
        ),
        (
            "clusterIPs: [10.96.0.7, 10.96.0.7], ports: [{port: 80}]",
            refused(
                "clusterIPs",
                "must hold the one address that clusterIP has: correct or remove it",
            ),
        ),
        (
            "type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: 30100, ports: [{port: 80}]",
            refused("externalTrafficPolicy", policy)
                + "\n"
                + &refused(
                    "healthCheckNodePort",
                    "no effect: externalTrafficPolicy Local needs it only",
                ),
        ),
        (
            "type: LoadBalancer, healthCheckNodePort: 30100, ports: [{port: 80}]",
            refused(
                "healthCheckNodePort",
                "only for the type LoadBalancer with externalTrafficPolicy Local: remove it",
            ),
        ),
        (
            "ports: [{port: 80, targetPort: -1}]",
            refused(
                "ports[0].targetPort",
                "-1 is out of range: it must be from 1 to 65535",
            ),
        ),
        (
            "ports: [{port: 80, targetPort: 1.5}]",
            refused(
                "ports[0].targetPort",
                "must be a whole number or a text, not a number",
            ),
        ),
    ] {
        assert_eq!(problems_of_spec("Service", fields), expected, "{fields}");
    }
    let affinity = |fields: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{ports: [{{port: 80}}], {fields}}}\n"
        );
        let (objects, _) = read(&[("a.yaml", &text)]);
        let service = objects.services.into_values().next().unwrap();
        service.client_ip_affinity.map(|timeout| timeout.as_secs())
    };
    let timeout = "sessionAffinityConfig: {clientIP: {timeoutSeconds: 9}}";
    assert_eq!(affinity("sessionAffinity: None"), None);
    assert_eq!(affinity("sessionAffinity: ClientIP"), Some(10_800));
    assert_eq!(
        affinity(&format!("sessionAffinity: ClientIP, {timeout}")),
        Some(9)
    );
}

#[test]
fn a_node_is_cordoned_by_its_field_or_by_a_drain() {
    let node = |drain: bool, cordon: bool| {
        let text = format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: a, annotations: {{windlass.dev/drain: '{drain}'}}}}\n\
             spec: {{unschedulable: {cordon}, taints: [{{key: k, value: v, effect: NoExecute}}]}}\n"
        );
        let (objects, problems) = read(&[("a.yaml", &text)]);
        assert_eq!(problems, []);
        let node = objects.nodes.into_values().next().unwrap();
        let taint = Taint {
            key: "k".to_owned(),
            value: "v".to_owned(),
            effect: TaintEffect::NoExecute,
        };
        assert_eq!(node.taints, [taint]);
        (node.drain, node.unschedulable)
    };
    assert_eq!(node(false, false), (false, false));
    assert_eq!(node(false, true), (false, true));
    assert_eq!(node(true, false), (true, true));
}

#[test]
fn documents_are_accepted_up_to_their_number_and_size() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\n\
                apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n";
    let parsed = |documents: usize, file_bytes: usize| {
        let limits = Limits {
            documents,
            file_bytes,
            ..Limits::default()
        };
        let file = SourceFile {
            path: "a.yaml",
            content: text.as_bytes(),
        };
        let (objects, problems) = parse(&[file], &limits, ReadAs::NewHead);
        let positions: Vec<_> = problems
            .iter()
            .map(|problem| (problem.line, problem.column))
            .collect();
        (objects.config_maps.len(), positions)
    };
    assert_eq!(parsed(2, text.len()), (2, vec![]));
    assert_eq!(parsed(1, text.len()), (1, vec![(0, 0)]));
    assert_eq!(parsed(2, text.len() - 1), (0, vec![(0, 0)]));
}

#[test]
fn the_first_of_two_objects_is_kept_and_one_without_a_name_is_not() {
    let map = |name: &str, value: &str| {
        format!(
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{{name}}}\ndata: {{k: {value}}}\n"
        )
    };
    let text = map("name: a", "first") + &map("name: a", "second") + &map("labels: {}", "third");
    let (objects, problems) = read(&[("a.yaml", &text)]);
    assert_eq!(problems.len(), 2, "{problems:?}");
    let values: Vec<_> = objects
        .config_maps
        .values()
        .map(|map| &map.data["k"])
        .collect();
    assert_eq!(values, [b"first"]);

    let text = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n---\n\
                apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a, namespace: ''}\n---\n\
                apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a, namespace: b}\n---\n\
                apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: a}\n---\n\
                apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: a, namespace: b}\n";
    let problems = problems_of(text);
    let lines: Vec<_> = problems
        .lines()
        .filter(|line| line.contains("already"))
        .collect();
    assert_eq!(
        lines,
        [
            "a.yaml:7:12: metadata.name: ServiceAccount default/a is written at a.yaml:1 already: keep one of them",
            "a.yaml:19:12: metadata.name: ClusterRole a is written at a.yaml:13 already: keep one of them",
        ]
    );
}

#[test]
fn a_list_of_a_known_kind_is_a_list() {
    let list = |kind: &str| {
        problems_of(&format!(
            "apiVersion: v1\nkind: {kind}\nitems:\n- {{apiVersion: v1, kind: ConfigMap, metadata: {{name: a}}}}\n"
        ))
    };
    assert_eq!(list("ConfigMapList"), "");
    assert!(list("ConfgMapList").contains("is not known here"));
    assert_eq!(problems_of("apiVersion: v1\nkind: List\n"), "");

    let kind =
        |version: &str, kind: &str| problems_of(&format!("apiVersion: {version}\nkind: {kind}\n"));
    let required = "required: say what this document is; if it is no manifest, move this document out of the configured paths";
    assert_eq!(kind("v1", "''"), format!("a.yaml:2:1: kind: {required}\n"));
    assert_eq!(
        kind("apps/v2", "Deployment"),
        "a.yaml:1:1: apiVersion: there is no Deployment in \"apps/v2\": write apiVersion: apps/v1\n"
    );
}

#[test]
fn a_pod_without_a_service_account_has_the_one_named_default() {
    let env = "env: [{name: A, valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}}]";
    for (fields, expected) in [
        ("", "default"),
        ("serviceAccountName: '', ", "default"),
        ("serviceAccount: '', ", "default"),
        ("serviceAccountName: robot, ", "robot"),
        ("serviceAccount: robot, ", "robot"),
    ] {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {{{fields}containers: [{{name: a, image: 'a:1', {env}}}]}}\n"
        );
        let (objects, _) = read(&[("a.yaml", &text)]);
        let pod = objects.workloads.into_values().next().unwrap();
        let spec = pod.template.spec;
        let value = &spec.containers[0].env[0].value;
        assert_eq!(*value, EnvValue::Text(expected.to_owned()), "{fields}");
    }
}
