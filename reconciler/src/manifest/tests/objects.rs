//! Rules of the kinds: selectors, strategies, Services, ConfigMaps, Secrets, Nodes.

use super::*;

#[test]
fn a_selector_is_required_and_must_match_the_template() {
    let text = r#"apiVersion: apps/v1
kind: Deployment
metadata: {name: a}
spec:
  selector: {matchLabels: {app: a}}
  template: {metadata: {labels: {app: b}}, spec: {containers: [{name: a, image: "a:1"}]}}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: a}
spec:
  template: {metadata: {labels: {app: b}}, spec: {containers: [{name: a, image: "a:1"}]}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: a}
spec:
  selector:
    matchExpressions:
    - {key: app, operator: In}
    - {key: app, operator: Like, values: [a]}
    - {key: app, operator: Exists, values: [a]}
  template: {metadata: {labels: {app: b}}, spec: {restartPolicy: Never, activeDeadlineSeconds: 5, containers: [{name: a, image: "a:1"}]}}
---
apiVersion: v1
kind: ReplicationController
metadata: {name: a}
"#;
    insta::assert_snapshot!(problems_of(text), @r#"
    a.yaml:5:3: spec.selector: does not match the labels of the template: make spec.template.metadata.labels and this selector agree
    a.yaml:11:1: spec.selector: required: write under matchLabels the labels that spec.template.metadata.labels has
    a.yaml:18:3: spec.selector: does not match the labels of the template: make spec.template.metadata.labels and this selector agree
    a.yaml:20:8: spec.selector.matchExpressions[0].values: required: In needs at least one value
    a.yaml:21:18: spec.selector.matchExpressions[1].operator: "Like" is not known here: write one of In, NotIn, Exists, DoesNotExist
    a.yaml:22:36: spec.selector.matchExpressions[2].values: Exists takes no values: remove them
    a.yaml:23:51: spec.template.spec.restartPolicy: must be Always: a controller's pods are meant to run; write a bare Pod for what ends
    a.yaml:23:73: spec.template.spec.activeDeadlineSeconds: only a bare Pod may have it: remove it
    a.yaml:25:1: spec.template.spec.containers: required: a pod needs at least one container
    a.yaml:25:1: spec.selector: required: write under matchLabels the labels that spec.template.metadata.labels has
    "#);
}

#[test]
fn strategies_that_can_never_replace_a_pod_are_refused() {
    let text = r#"apiVersion: apps/v1
kind: Deployment
metadata: {name: a}
spec:
  replicas: -1
  minReadySeconds: 700
  revisionHistoryLimit: 3
  strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: "0%"}}
  selector: {matchLabels: {app: a}}
  template: {metadata: {name: x, labels: {app: a}}, spec: {containers: [{name: a, image: "a:1"}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: b}
spec:
  strategy: {type: Recreate, rollingUpdate: {maxSurge: 1}}
  selector: {matchLabels: {app: a}}
  template: {metadata: {labels: {app: a}}, spec: {containers: [{name: a, image: "a:1"}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: c}
spec:
  strategy: {type: Rolling, rollingUpdate: {maxSurge: a quarter, maxUnavailable: "101%"}}
  selector: {matchLabels: {app: a}}
  template: {metadata: {labels: {app: a}}, spec: {containers: [{name: a, image: "a:1"}]}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: a}
spec:
  updateStrategy: {rollingUpdate: {maxSurge: 1}}
  selector: {matchLabels: {app: a}}
  template: {metadata: {labels: {app: a}}, spec: {containers: [{name: a, image: "a:1"}]}}
"#;
    insta::assert_snapshot!(problems_of(text), @r#"
    a.yaml:4:1: spec.progressDeadlineSeconds: must be more than minReadySeconds: raise it
    a.yaml:5:3: spec.replicas: -1 is out of range: it must be 0 or more
    a.yaml:7:3: warning: spec.revisionHistoryLimit: no effect: the history is Git's
    a.yaml:8:43: spec.strategy.rollingUpdate.maxUnavailable: must not be 0 when maxSurge is 0: no pod could ever be replaced; raise one
    a.yaml:10:25: warning: spec.template.metadata.name: no effect: pods are named after their owner
    a.yaml:16:30: spec.strategy.rollingUpdate: contradicts the type Recreate: remove one of them
    a.yaml:24:14: spec.strategy.type: "Rolling" is not known here: write one of RollingUpdate, Recreate (did you mean "RollingUpdate"?)
    a.yaml:24:45: spec.strategy.rollingUpdate.maxSurge: "a quarter" is not valid: write a number, or a percentage such as "25%"
    a.yaml:24:66: spec.strategy.rollingUpdate.maxUnavailable: "101%" is not valid: write a number, or a percentage such as "25%"
    a.yaml:32:36: spec.updateStrategy.rollingUpdate.maxSurge: must be 0 unless maxUnavailable is 0: set one of them to 0
    "#);
}

#[test]
fn errors_in_services_are_reported() {
    let text = r#"apiVersion: v1
kind: Service
metadata: {name: 1a}
spec:
  type: Nodeport
  externalIPs: [192.0.2.1]
  externalTrafficPolicy: Local
  loadBalancerSourceRanges: [192.0.2.0/24]
  ipFamilies: [IPv6]
  ipFamilyPolicy: PreferDualStack
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 0}}
  selector: {app: "a b"}
  ports:
  - {port: 80, nodePort: 30080, targetPort: Web}
  - {port: 80, name: b, targetPort: 70000}
  - {port: 81, name: b, protocol: ICMP, appProtocol: http}
---
apiVersion: v1
kind: Service
metadata: {name: b}
spec: {type: ExternalName}
---
apiVersion: v1
kind: Service
metadata: {name: c}
spec: {type: NodePort, clusterIP: None, externalName: example.com, ports: []}
---
apiVersion: v1
kind: Service
metadata: {name: d}
spec: {clusterIP: ten, ports: [{port: 1, name: a, targetPort: "80"}, {name: b}]}
"#;
    insta::assert_snapshot!(problems_of(text), @r#"
    a.yaml:3:12: metadata.name: "1a" is not valid: it must be at most 63 lower-case letters, digits and '-', beginning with a letter and ending with a letter or digit
    a.yaml:5:3: spec.type: "Nodeport" is not known here: write one of ClusterIP, NodePort, LoadBalancer, ExternalName (did you mean "NodePort"?)
    a.yaml:6:3: spec.externalIPs: not supported yet: ignoring it would leave the service unreachable at that address; make the type NodePort or LoadBalancer, and call the hosts' own addresses, in its place
    a.yaml:7:3: spec.externalTrafficPolicy: not supported yet: ignoring it would hide the callers' addresses; let pods with hostNetwork take the calls in its place: they see who calls
    a.yaml:8:3: spec.loadBalancerSourceRanges: not supported yet: ignoring it would let everyone in; let the firewall of the hosts choose who may call
    a.yaml:9:3: spec.ipFamilies: not supported yet: services have IPv4 addresses only; write IPv4
    a.yaml:10:3: warning: spec.ipFamilyPolicy: no effect: services have IPv4 addresses only
    a.yaml:11:3: spec.sessionAffinityConfig: only for sessionAffinity ClientIP: set it, or remove this
    a.yaml:11:38: spec.sessionAffinityConfig.clientIP.timeoutSeconds: 0 is out of range: it must be from 1 to 86400
    a.yaml:12:14: spec.selector.app: "a b" is not valid: it must be at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit
    a.yaml:14:6: spec.ports[0].name: required: each port of several needs a name
    a.yaml:14:16: spec.ports[0].nodePort: only for the types NodePort and LoadBalancer: set the type, or remove it
    a.yaml:14:33: spec.ports[0].targetPort: "Web" is not valid: it must be at most 15 lower-case letters, digits and single '-', at least one of them a letter
    a.yaml:15:6: spec.ports[1].port: 80/TCP is there twice: change one
    a.yaml:15:25: spec.ports[1].targetPort: 70000 is out of range: it must be from 1 to 65535
    a.yaml:16:16: spec.ports[2].name: the port name "b" is there twice: rename one
    a.yaml:16:25: spec.ports[2].protocol: "ICMP" is not known here: write one of TCP, UDP, SCTP
    a.yaml:16:41: warning: spec.ports[2].appProtocol: no effect: bytes are passed on as they are
    a.yaml:21:1: spec.externalName: required: give it a value
    a.yaml:26:24: spec.clusterIP: None is only for type ClusterIP: remove it, or change the type
    a.yaml:26:41: spec.externalName: only a Service of type ExternalName has it: set the type, or remove it
    a.yaml:26:68: spec.ports: required: a Service needs at least one port
    a.yaml:31:8: spec.clusterIP: "ten" is not an IPv4 address: write one, or None, or remove it
    a.yaml:31:51: spec.ports[0].targetPort: a number in quotes is the name of a port: remove the quotes
    a.yaml:31:71: spec.ports[1].port: required: write a port from 1 to 65535
    "#);
}

#[test]
fn errors_in_config_maps_and_secrets_are_reported_without_values() {
    let text = r#"apiVersion: v1
kind: ConfigMap
metadata: {name: a}
data: {"a/b": x, ..: x, n1: 5, both: x}
binaryData: {both: aGk=, bad: "hunter2!"}
---
apiVersion: v1
kind: Secret
metadata: {name: a}
data: {password: "hunter2!"}
---
apiVersion: v1
kind: Secret
metadata: {name: b}
type: kubernetes.io/tls
immutable: true
stringData: {tls.crt: a, pin: 1234, "a b": c}
"#;
    insta::assert_snapshot!(problems_of(text), @r#"
    a.yaml:4:8: data[a/b]: this key is not valid: it must be at most 253 letters, digits, '-', '_' and '.', and not begin with ".."
    a.yaml:4:18: data[..]: this key is not valid: it must be at most 253 letters, digits, '-', '_' and '.', and not begin with ".."
    a.yaml:4:25: data.n1: must be a text, not a number: write it in quotes
    a.yaml:5:14: binaryData.both: this key is in data too: keep one
    a.yaml:5:26: binaryData.bad: must be base64: encode it, or move it to data, which takes plain text
    a.yaml:10:8: data.password: must be base64: encode it, or move it to stringData, which takes plain text
    a.yaml:12:1: data: a Secret of type kubernetes.io/tls needs the key "tls.key": add it
    a.yaml:16:1: warning: immutable: no effect: what it holds changes only with a commit
    a.yaml:17:26: stringData.pin: must be a text, not a number: write it in quotes
    a.yaml:17:37: stringData[a b]: this key is not valid: it must be at most 253 letters, digits, '-', '_' and '.', and not begin with ".."
    "#);
}

#[test]
fn errors_in_nodes_and_namespaces_are_reported() {
    let text = r"apiVersion: v1
kind: Node
metadata: {name: host_1, namespace: x}
spec:
  podCIDR: 10.0.0.0/24
  taints:
  - {key: a, effect: NoSchedul}
  - {key: a, effect: NoSchedule}
  - {key: a, effect: NoSchedule, value: b}
---
apiVersion: v1
kind: Namespace
metadata: {name: a.b}
spec: {finalizers: [kubernetes]}
---
apiVersion: v1
kind: Namespace
metadata: {generateName: a-}
";
    insta::assert_snapshot!(problems_of(text), @r#"
    a.yaml:3:12: metadata.name: "host_1" is not valid: it must be at most 253 lower-case letters, digits, '-' and '.', each part beginning and ending with a letter or digit
    a.yaml:3:26: warning: metadata.namespace: no effect: this kind is in no namespace
    a.yaml:5:3: warning: spec.podCIDR: no effect: the host's own configuration says this
    a.yaml:7:14: spec.taints[0].effect: "NoSchedul" is not known here: write one of NoSchedule, PreferNoSchedule, NoExecute (did you mean "NoSchedule"?)
    a.yaml:9:6: spec.taints[2].key: "a" is there twice with this effect: keep one
    a.yaml:13:12: metadata.name: "a.b" is not valid: it must be at most 63 lower-case letters, digits and '-', beginning and ending with a letter or digit
    a.yaml:14:8: warning: spec.finalizers: no effect: what leaves the commit is removed at once
    a.yaml:18:1: metadata.name: required: give it a value
    a.yaml:18:12: metadata.generateName: an object in Git needs a name of its own: write metadata.name instead
    "#);
}

#[test]
fn a_drain_annotation_is_true_or_false() {
    let text = |value: &str| {
        format!(
            "apiVersion: v1\nkind: Node\nmetadata:\n  name: one\n  annotations:\n    windlass.dev/drain: \"{value}\"\n"
        )
    };
    insta::assert_snapshot!(problems_of(&text("yes")), @r#"a.yaml:6:5: metadata.annotations[windlass.dev/drain]: "yes" says neither to drain the node nor not to: write "true" or "false""#);
    assert_eq!(problems_of(&text("true")), "");
    assert_eq!(problems_of(&text("false")), "");
}
