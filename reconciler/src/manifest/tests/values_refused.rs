//! Values of the wrong type or size, and values that contradict each other.

use super::*;

/// The problems of a Pod with this `spec`, without file and position.
fn problems_of_spec(spec: &str) -> String {
    let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {{{spec}}}\n");
    let (_, problems) = read(&[("a.yaml", &text)]);
    let line = |problem: &Problem| format!("{}: {}", problem.field, problem.message);
    problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn who_a_pod_runs_as_and_what_it_sets_is_checked() {
    let container = |of_pod: &str, fields: &str| {
        format!("{of_pod}containers: [{{name: a, image: a, {fields}}}]")
    };
    for (spec, problem) in [
        (
            container(
                "securityContext: {runAsNonRoot: true}, ",
                "securityContext: {runAsUser: 0}",
            ),
            "spec.containers[0].securityContext.runAsNonRoot: true contradicts runAsUser 0, which is root: write the number of another user",
        ),
        (
            container("securityContext: {fsGroup: -1}, ", ""),
            "spec.securityContext.fsGroup: -1 is out of range: it must be 0 or more",
        ),
        (
            container(
                "securityContext: {fsGroup: 1, fsGroupChangePolicy: Never}, ",
                "",
            ),
            "spec.securityContext.fsGroupChangePolicy: ",
        ),
        (
            container(
                "securityContext: {fsGroup: 1}, volumes: [{name: v, hostPath: {path: /v}}], ",
                "",
            ),
            "spec.securityContext.fsGroup: has no effect on hostPath volumes, as in Kubernetes",
        ),
        (
            container(
                "hostNetwork: true, securityContext: {sysctls: [{name: net.ipv4.tcp_rmem, value: '1 2 3'}]}, ",
                "",
            ),
            "spec.hostNetwork: sets net.* of the whole host by securityContext.sysctls: take one of the two away",
        ),
        (
            container(
                "securityContext: {sysctls: [{name: net.ipv4.tcp_rmem, value: a}, {name: net/ipv4/tcp_rmem, value: b}]}, ",
                "",
            ),
            "spec.securityContext.sysctls[1]: net.ipv4.tcp_rmem is there twice: remove one",
        ),
        (
            container(
                "os: {name: linux}, ",
                "lifecycle: {stopSignal: SIGRTMIN+16}",
            ),
            "spec.containers[0].lifecycle.stopSignal: \"SIGRTMIN+16\" is not a signal: write one such as SIGINT, SIGUSR1 or SIGRTMIN+3",
        ),
    ] {
        let found = problems_of_spec(&spec);
        assert!(found.contains(problem), "{spec}: {found}");
    }
    for signal in ["SIGUSR1", "SIGRTMIN", "SIGRTMIN+15", "SIGRTMAX-14"] {
        let spec = container(
            "os: {name: linux}, ",
            &format!("lifecycle: {{stopSignal: {signal}}}"),
        );
        assert_eq!(problems_of_spec(&spec), "");
    }
}

#[test]
fn values_that_contradict_each_other_or_their_rule_are_refused() {
    let container = |fields: &str| format!("containers: [{{name: a, image: a, {fields}}}]");
    let pod = |fields: &str| format!("{fields}, containers: [{{name: a, image: a}}]");
    let cases = [
        container("ports: [{containerPort: 80, hostPort: 81}]")
            .replace("containers", "hostNetwork: true, containers"),
        container("resources: {requests: {cpu: 2}, limits: {cpu: 1}}"),
        container("env: [{name: A, valueFrom: {}}]"),
        container(
            "env: [{name: A, valueFrom: {fieldRef: {apiVersion: v2, fieldPath: metadata.name}}}]",
        ),
        container("readinessProbe: {exec: {command: [a]}, terminationGracePeriodSeconds: 3}"),
        container("livenessProbe: {tcpSocket: {port: '80'}}"),
        container("securityContext: {capabilities: {add: [net-admin]}}"),
        container("livenessProbe: {exec: {command: {a: 1}}, periodSeconds: 99999999999}"),
        container("stdin: 3, args: x"),
        pod("tolerations: [{key: a, operator: Exists, value: b}]"),
        pod(
            "dnsPolicy: None, dnsConfig: {nameservers: [192.0.2.1, 192.0.2.2, 192.0.2.3, 192.0.2.4], searches: [a b], options: [{name: 'a b'}]}",
        ),
        pod(
            "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: []}}}",
        ),
        pod(
            "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: NotIn}, {key: b, operator: DoesNotExist, values: [x]}, {key: c, operator: In, values: ['-']}]}]}}}",
        ),
        pod("volumes: [{name: a, hostPath: {path: /a/../b}}]"),
        pod("volumes: [{name: a, emptyDir: {sizeLimit: 1Mi}}]"),
        pod(
            "volumes: [{name: a, configMap: {name: b, items: [{key: a, path: x}, {key: b, path: x}]}}]",
        ),
        container("volumeMounts: [{name: v, mountPath: /v, mountPropagation: Bidirectional}]")
            .replace(
                "containers",
                "volumes: [{name: v, hostPath: {path: /v}}], containers",
            ),
    ];
    let all: Vec<String> = cases.iter().map(|spec| problems_of_spec(spec)).collect();
    insta::assert_snapshot!(all.join("\n--\n"), @r#"
    spec.containers[0].ports[0].hostPort: must equal containerPort with hostNetwork: correct or remove it
    --
    spec.containers[0].resources.requests.cpu: more than the limit: lower it, or raise the limit
    --
    spec.containers[0].env[0].valueFrom: must name exactly one source: configMapKeyRef, secretKeyRef or fieldRef
    --
    spec.containers[0].env[0].valueFrom.fieldRef.apiVersion: must be v1: correct or remove it
    --
    spec.containers[0].readinessProbe.terminationGracePeriodSeconds: a readiness probe stops nothing: remove it
    --
    spec.containers[0].livenessProbe.tcpSocket.port: a number in quotes is the name of a port: remove the quotes
    --
    spec.containers[0].securityContext.capabilities.add[0]: "NET-ADMIN" is not a capability: write it like NET_ADMIN, or ALL
    --
    spec.containers[0].livenessProbe.exec.command: must be a list, not a mapping
    spec.containers[0].livenessProbe.periodSeconds: this number is out of range
    --
    spec.containers[0].stdin: must be true or false, not a number
    spec.containers[0].args: must be a list, not a text
    --
    spec.tolerations[0].value: the operator Exists takes no value: remove one of them
    --
    spec.dnsConfig.nameservers: resolvers ask at most 3 name servers: remove some
    spec.dnsConfig.searches[0]: "a b" is not valid: it must be a domain of lower-case letters, digits, '-', '_' and '.'
    spec.dnsConfig.options[0].name: "a b" is not valid: it must be one word of printable ASCII
    --
    spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: required: without a term no node would take the pod; add one
    --
    spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values: required: this operator needs at least one value
    spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[1].values: this operator takes no values: remove them
    spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[2].values[0]: "-" is not valid: it must be at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit
    --
    spec.volumes[0].hostPath.path: must not hold "..": write where it leads
    --
    spec.volumes[0].emptyDir.sizeLimit: no effect: only an emptyDir with medium Memory is bounded
    --
    spec.volumes[0].configMap.items[1].path: the path "x" is there twice: change one
    --
    spec.containers[0].volumeMounts[0].mountPropagation: Bidirectional needs a privileged container
    "#);
}

#[test]
fn values_of_other_kinds_that_contradict_each_other_are_refused() {
    let document = |kind: &str, version: &str, rest: &str| {
        format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\n{rest}\n")
    };
    let service = |spec: &str| document("Service", "v1", &format!("spec: {{{spec}}}"));
    let large = "x".repeat(1 << 20);
    let texts = [
        service("ports: [{port: 80}], externalTrafficPolicy: Local"),
        service("ports: [{port: 80}], type: NodePort, externalTrafficPolicy: Local"),
        service("ports: [{port: 80}], ipFamilyPolicy: Many"),
        service("ports: [{port: 80}], clusterIP: 10.96.0.7, clusterIPs: [10.96.0.8]"),
        service("type: ExternalName, externalName: example.com, clusterIP: 10.96.0.7"),
        document("ConfigMap", "v1", "data: {'': x}"),
        document("ConfigMap", "v1", &format!("data: {{a: {large}b}}")),
        document("ConfigMap", "v1", "data: {true: a, 1: b, 18446744073709551615: c}"),
        document("ConfigMap", "v1", "data: {~: a}"),
        document("ConfigMap", "v1", "data: {a: 340282366920938463463374607431768211455}"),
        document("Node", "v1", "spec: {taints: [{key: a}]}"),
        document(
            "DaemonSet",
            "apps/v1",
            "spec: {selector: {matchLabels: {a: b}}, updateStrategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0}},
  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: a}]}}}",
        ),
        "apiVersion: v1\nkind: List\nitems: 3\n".to_owned(),
        "apiVersion: v1\nkind: [a]\n".to_owned(),
    ];
    let all: Vec<String> = texts.iter().map(|text| problems_of(text)).collect();
    insta::assert_snapshot!(all.join("--\n"), @r#"
    a.yaml:4:29: spec.externalTrafficPolicy: only for the types NodePort and LoadBalancer: remove it
    --
    a.yaml:4:45: spec.externalTrafficPolicy: not supported yet: ignoring it would hide the callers' addresses; let pods with hostNetwork take the calls in its place: they see who calls
    --
    a.yaml:4:29: spec.ipFamilyPolicy: "Many" is not known here: write one of SingleStack, PreferDualStack, RequireDualStack
    --
    a.yaml:4:51: spec.clusterIPs: must hold the one address that clusterIP has: correct or remove it
    --
    a.yaml:4:55: spec.clusterIP: an ExternalName has no address: remove it
    --
    a.yaml:4:8: data[]: a key must not be empty
    --
    a.yaml:4:1: data: holds more than 1 MiB: split it
    --
    --
    a.yaml:4:8: a key must not be empty: give it a name, or quotes if it is one
    --
    a.yaml:4:11: this number is too large: write it in quotes if it is a text
    --
    a.yaml:4:18: spec.taints[0].effect: required: write one of NoSchedule, PreferNoSchedule, NoExecute
    --
    a.yaml:4:87: spec.updateStrategy.rollingUpdate.maxUnavailable: must not be 0 when maxSurge is 0: no pod could ever be replaced; raise one
    --
    a.yaml:3:1: items: must be a list of documents
    --
    a.yaml:2:1: kind: must be a text
    "#);
}

#[test]
fn a_value_of_another_type_is_refused_with_what_it_is_and_a_hint() {
    let spec = |fields: &str| format!("{fields}, containers: [{{name: a, image: a}}]");
    let cases = [
        (
            spec("hostNetwork: 'true'"),
            "hostNetwork: must be true or false, not a text: remove the quotes",
        ),
        (
            spec("hostNetwork: 'false'"),
            "hostNetwork: must be true or false, not a text: remove the quotes",
        ),
        (
            spec("hostNetwork: 'x'"),
            "hostNetwork: must be true or false, not a text",
        ),
        (
            spec("hostNetwork: []"),
            "hostNetwork: must be true or false, not a list",
        ),
        (
            spec("terminationGracePeriodSeconds: '3'"),
            "terminationGracePeriodSeconds: must be a whole number, not a text: remove the quotes",
        ),
        (
            spec("terminationGracePeriodSeconds: x"),
            "terminationGracePeriodSeconds: must be a whole number, not a text",
        ),
        (
            spec("terminationGracePeriodSeconds: true"),
            "terminationGracePeriodSeconds: must be a whole number, not a boolean",
        ),
        (
            spec("terminationGracePeriodSeconds: 1.5"),
            "terminationGracePeriodSeconds: must be a whole number",
        ),
        (
            spec("nodeName: 3"),
            "nodeName: must be a text, not a number: write it in quotes",
        ),
        (
            spec("nodeName: true"),
            "nodeName: must be a text, not a boolean: write it in quotes",
        ),
        (
            spec("nodeName: {a: b}"),
            "nodeName: must be a text, not a mapping",
        ),
    ];
    for (spec, expected) in cases {
        assert_eq!(
            problems_of_spec(&spec),
            format!("spec.{expected}"),
            "{spec}"
        );
    }
}

#[test]
fn sizes_and_numbers_are_bounded_at_what_kubernetes_takes() {
    // The keys of annotations count, and those of `data` do not.
    let of_size = |field: &str, bytes: usize| {
        let text = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a, annotations: {{a: {}}}}}\ndata: {{a: {}}}\n",
            if field == "annotations" {
                "x".repeat(bytes - 1)
            } else {
                "x".to_owned()
            },
            if field == "data" {
                "x".repeat(bytes)
            } else {
                "x".to_owned()
            },
        );
        problems_of(&text).lines().count()
    };
    let items = |field: &str, item: fn(usize) -> String, count: usize| {
        let items = (1..=count).map(item).collect::<Vec<_>>().join(", ");
        let spec =
            format!("dnsConfig: {{{field}: [{items}]}}, containers: [{{name: a, image: a}}]");
        problems_of_spec(&spec).lines().count()
    };
    for (field, most) in [("annotations", 256 << 10), ("data", 1 << 20)] {
        assert_eq!(
            [of_size(field, most), of_size(field, most + 1)],
            [0, 1],
            "{field}"
        );
    }
    let server = |number| format!("192.0.2.{number}");
    let domain = |number| format!("d{number}.example.com");
    assert_eq!(
        [3, 4].map(|count| items("nameservers", server, count)),
        [0, 1]
    );
    assert_eq!(
        [32, 33].map(|count| items("searches", domain, count)),
        [0, 1]
    );
}
