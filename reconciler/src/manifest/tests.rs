#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use super::*;
use crate::{name::*, object::*};

/// The problems of one file, one on each line.
fn said(text: &str) -> String {
    lines(&[("a.yaml", text)])
}

fn lines(files: &[(&str, &str)]) -> String {
    let (_, problems) = read(files);
    problems
        .iter()
        .map(|problem| format!("{problem}\n"))
        .collect()
}

fn read(files: &[(&str, &str)]) -> (Objects, Vec<Problem>) {
    let files: Vec<SourceFile<'_>> = files
        .iter()
        .map(|(path, text)| SourceFile {
            path,
            content: text.as_bytes(),
        })
        .collect();
    parse(&files, &Limits::default(), ReadAs::NewHead)
}

#[test]
fn an_unknown_field_is_refused_with_the_field_that_was_meant() {
    let text = r"apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  lables: {app: web}
spec:
  replicsa: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: web:1
        enviroment: []
        ports:
        - port: 80
";
    insta::assert_snapshot!(said(text), @r#"
    a.yaml:5:3: metadata.lables: unknown field (did you mean "labels"?): correct or remove it
    a.yaml:7:3: spec.replicsa: unknown field (did you mean "replicas"?): correct or remove it
    a.yaml:15:9: spec.template.spec.containers[0].enviroment: unknown field (did you mean "env"?): correct or remove it
    a.yaml:17:11: spec.template.spec.containers[0].ports[0].port: unknown field: remove it; known here are containerPort, hostIP, hostPort, name, protocol
    a.yaml:17:11: spec.template.spec.containers[0].ports[0].containerPort: required: write a port from 1 to 65535
    "#);
}

#[test]
fn an_unknown_kind_is_refused_with_the_kind_that_was_meant() {
    let text = r"apiVersion: apps/v1
kind: Deploymnet
metadata: {name: a}
---
apiVersion: example.com/v1
kind: Database
metadata: {name: a}
---
apiVersion: v1
kind: Deployment
metadata: {name: a}
---
kind: Pod
---
apiVersion: v1
---
- a
---
text
";
    insta::assert_snapshot!(said(text), @r#"
    a.yaml:2:1: kind: the kind "Deploymnet" of "apps/v1" is not known here (did you mean "Deployment"?): correct it, or move this document out of the configured paths
    a.yaml:6:1: kind: Database of example.com is a custom resource, and nothing here acts on it: use what works without its controller; move this document out of the configured paths
    a.yaml:9:1: apiVersion: there is no Deployment in "v1": write apiVersion: apps/v1
    a.yaml:13:1: apiVersion: required: say what this document is; if it is no manifest, move this document out of the configured paths
    a.yaml:15:1: kind: required: say what this document is; if it is no manifest, move this document out of the configured paths
    a.yaml:17:1: must be a mapping with apiVersion and kind: correct it, or move it out of the configured paths
    a.yaml:19:1: must be a mapping with apiVersion and kind: correct it, or move it out of the configured paths
    "#);
}

#[test]
fn kinds_of_later_are_refused_and_kinds_of_a_cluster_warned_of_once() {
    let text = r"apiVersion: batch/v1
kind: Job
metadata: {name: a}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: a}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: a}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: a}
";
    insta::assert_snapshot!(said(text), @"
    a.yaml:2:1: kind: Job is not supported yet: use a bare Pod with restartPolicy OnFailure, or an init container of what needs its result; move this document out of the configured paths
    a.yaml:5:1: warning: accepted without effect: Role, ServiceAccount mean something only to a Kubernetes API server
    a.yaml:14:1: kind: NetworkPolicy is not supported yet: nothing here keeps pods from each other, so run what it protects where others run no pods; move this document out of the configured paths
    ");
}

#[test]
fn wrong_types_are_all_reported_at_once() {
    let text = r#"apiVersion: v1
kind: Pod
metadata: {name: a, labels: {version: 1}}
spec:
  hostNetwork: "true"
  terminationGracePeriodSeconds: ten
  activeDeadlineSeconds: 99999999999999999
  containers:
  - name: a
    image: a:1
    command: sh
    env:
    - name: A
      value: yes
    - name: B
      value: 0644
    - name: C
      value: 1.5
    - name: D
      value:
    ports:
    - containerPort: "80"
    - containerPort: 8.5
    livenessProbe: /health
"#;
    insta::assert_snapshot!(said(text), @r"
    a.yaml:3:30: metadata.labels.version: must be a text, not a number: write it in quotes
    a.yaml:5:3: spec.hostNetwork: must be true or false, not a text: remove the quotes
    a.yaml:6:3: spec.terminationGracePeriodSeconds: must be a whole number, not a text
    a.yaml:7:3: spec.activeDeadlineSeconds: 99999999999999999 is out of range: it must be from 1 to 2147483647
    a.yaml:11:5: spec.containers[0].command: must be a list, not a text
    a.yaml:14:7: spec.containers[0].env[0].value: must be a text, not a boolean: write it in quotes
    a.yaml:16:7: spec.containers[0].env[1].value: must be a text, not a number: write it in quotes
    a.yaml:18:7: spec.containers[0].env[2].value: must be a text, not a number: write it in quotes
    a.yaml:22:7: spec.containers[0].ports[0].containerPort: must be a whole number, not a text: remove the quotes
    a.yaml:23:7: spec.containers[0].ports[1].containerPort: must be a whole number
    a.yaml:24:5: spec.containers[0].livenessProbe: must be a mapping, not a text
    ");
}

#[test]
fn all_problems_of_a_pod_are_reported_at_once() {
    let text = r#"apiVersion: v1
kind: Pod
metadata:
  name: Web_1
  namespace: a.b
  labels: {-a: b, c: "d e"}
  annotations: {"a b": c}
spec:
  restartPolicy: always
  hostname: a.b
  nodeSelector: {disk: "a b"}
  tolerations:
  - operator: Exist
  - key: a
    effect: NoSchedule
    tolerationSeconds: 5
  dnsPolicy: None
  hostAliases:
  - ip: localhost
    hostnames: [a]
  volumes:
  - name: a
    hostPath: {path: relative, type: Dir}
  - name: a
    emptyDir: {sizeLimit: 1Q}
    secret: {secretName: s, defaultMode: 644}
  initContainers:
  - name: a
    image: a:1
    readinessProbe: {exec: {command: [a]}}
  containers:
  - name: a
    image: HTTPD
    workingDir: tmp
    imagePullPolicy: Sometimes
    env:
    - name: A=B
    - value: x
    - name: C
      valueFrom: {fieldRef: {fieldPath: status.phase}}
    - name: D
      value: x
      valueFrom: {configMapKeyRef: {name: c}}
    - name: C
    ports:
    - {containerPort: 0}
    - {containerPort: 70000, name: HTTP, protocol: tcp}
    - {containerPort: 1, name: p, hostIP: "::1"}
    - {containerPort: 2, name: p, hostPort: -1}
    resources:
      limits: {cpu: x, memory: 128m, nvidia.com/gpu: 1}
      requests: {cpu: 1, memory: 1Gi}
    volumeMounts:
    - {name: b, mountPath: /a}
    - {name: a, mountPath: /a/, subPath: ../x}
    - {name: a, mountPath: a, mountPropagation: Bidirectional}
    - {name: a, mountPath: /}
    livenessProbe: {periodSeconds: -1, successThreshold: 2, httpGet: {port: web}}
    readinessProbe: {exec: {}, tcpSocket: {port: 80}}
    startupProbe: {}
    lifecycle: {preStop: {tcpSocket: {port: 1}}, postStart: {sleep: {seconds: -1}}}
    securityContext: {runAsUser: -1, allowPrivilegeEscalation: false, privileged: true, capabilities: {add: [net_admin]}}
"#;
    insta::assert_snapshot!(said(text), @r#"
    a.yaml:4:3: metadata.name: "Web_1" is not valid: it must be at most 253 lower-case letters, digits, '-' and '.', each part beginning and ending with a letter or digit
    a.yaml:5:3: metadata.namespace: "a.b" is not valid: it must be at most 63 lower-case letters, digits and '-', beginning and ending with a letter or digit
    a.yaml:6:12: metadata.labels.-a: this key is not valid: it must be at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit, after an optional domain and '/'
    a.yaml:6:19: metadata.labels.c: "d e" is not valid: it must be at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit
    a.yaml:7:17: metadata.annotations[a b]: this key is not valid: it must be at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit, after an optional domain and '/'
    a.yaml:8:1: spec.dnsConfig.nameservers: required: dnsPolicy None has no other name servers
    a.yaml:9:3: spec.restartPolicy: "always" is not known here: write one of Always, OnFailure, Never (did you mean "Always"?)
    a.yaml:10:3: spec.hostname: "a.b" is not valid: it must be at most 63 lower-case letters, digits and '-', beginning and ending with a letter or digit
    a.yaml:11:18: spec.nodeSelector.disk: "a b" is not valid: it must be at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit
    a.yaml:13:5: spec.tolerations[0].operator: "Exist" is not known here: write one of Equal, Exists (did you mean "Exists"?)
    a.yaml:13:5: spec.tolerations[0].key: required: only the operator Exists goes without a key
    a.yaml:16:5: spec.tolerations[1].tolerationSeconds: only for the effect NoExecute: set it, or remove this
    a.yaml:19:5: spec.hostAliases[0].ip: "localhost" is not an IP address: correct it
    a.yaml:23:16: spec.volumes[0].hostPath.path: "relative" is not valid: it must be an absolute path
    a.yaml:23:32: spec.volumes[0].hostPath.type: "Dir" is not known here: write one of DirectoryOrCreate, Directory, FileOrCreate, File, Socket, CharDevice, BlockDevice (did you mean "Directory"?)
    a.yaml:24:5: spec.volumes[1]: has more than one source: keep one
    a.yaml:24:5: spec.volumes[1].name: the volume "a" is there twice: rename one
    a.yaml:25:16: spec.volumes[1].emptyDir.sizeLimit: "1Q" is not valid: it must be a quantity such as 2, 0.5, 500m, 128Mi or 1G
    a.yaml:26:29: spec.volumes[1].secret.defaultMode: 644 is not a file mode: write it in octal with a leading 0 (0644), or in decimal from 0 to 511
    a.yaml:30:5: spec.initContainers[0].readinessProbe: an init container has none: it runs to its end; remove it
    a.yaml:32:5: spec.containers[0].name: the container "a" is there twice: rename one
    a.yaml:33:5: spec.containers[0].image: "HTTPD" is not valid: it must be an image reference such as registry.example.com/team/name:tag, the name in lower case
    a.yaml:34:5: spec.containers[0].workingDir: "tmp" is not valid: it must be an absolute path, since no container runtime starts a program in a relative one
    a.yaml:35:5: spec.containers[0].imagePullPolicy: "Sometimes" is not known here: write one of Always, IfNotPresent, Never
    a.yaml:37:7: spec.containers[0].env[0].name: "A=B" is not valid: it must be printable ASCII without '='
    a.yaml:38:7: spec.containers[0].env[1].name: required: give it a value
    a.yaml:40:30: spec.containers[0].env[2].valueFrom.fieldRef.fieldPath: "status.phase" is not a field a variable can take: write one of metadata.name, metadata.namespace, metadata.uid, metadata.labels['KEY'], metadata.annotations['KEY'], spec.nodeName, spec.serviceAccountName, status.podIP, status.hostIP
    a.yaml:41:7: spec.containers[0].env[3]: value and valueFrom exclude each other: keep one
    a.yaml:43:19: spec.containers[0].env[3].valueFrom.configMapKeyRef.key: required: give it a value
    a.yaml:44:7: warning: spec.containers[0].env[4].name: "C" is there twice: the last one counts
    a.yaml:46:8: spec.containers[0].ports[0].containerPort: required: write a port from 1 to 65535
    a.yaml:47:8: spec.containers[0].ports[1].containerPort: 70000 is out of range: it must be from 1 to 65535
    a.yaml:47:30: spec.containers[0].ports[1].name: "HTTP" is not valid: it must be at most 15 lower-case letters, digits and single '-', at least one of them a letter
    a.yaml:47:42: spec.containers[0].ports[1].protocol: "tcp" is not known here: write one of TCP, UDP, SCTP (did you mean "TCP"?)
    a.yaml:48:35: spec.containers[0].ports[2].hostIP: "::1" is not an IPv4 address: correct or remove it
    a.yaml:49:26: spec.containers[0].ports[3].name: the port name "p" is there twice: rename one
    a.yaml:49:35: spec.containers[0].ports[3].hostPort: -1 is out of range: it must be from 1 to 65535
    a.yaml:51:16: spec.containers[0].resources.limits.cpu: "x" is not valid: it must be a quantity such as 2, 0.5, 500m, 128Mi or 1G
    a.yaml:51:24: spec.containers[0].resources.limits.memory: "128m" is a fraction of a byte: write Mi for mebibytes
    a.yaml:51:38: spec.containers[0].resources.limits[nvidia.com/gpu]: not supported yet: ignoring it would place the pod where this resource may not be; label the nodes that have it, and choose them by nodeSelector in its place
    a.yaml:54:8: spec.containers[0].volumeMounts[0].name: the pod has no volume "b": add it under volumes, or correct the name
    a.yaml:55:17: spec.containers[0].volumeMounts[1].mountPath: "/a" is mounted twice: change one
    a.yaml:55:33: spec.containers[0].volumeMounts[1].subPath: "../x" is not valid: it must be a relative path without ".."
    a.yaml:56:17: spec.containers[0].volumeMounts[2].mountPath: "/a" is mounted twice: change one
    a.yaml:57:17: spec.containers[0].volumeMounts[3].mountPath: must be a directory or file below /, without ".." and ':'
    a.yaml:58:21: spec.containers[0].livenessProbe.periodSeconds: -1 is out of range: it must be 0 or more
    a.yaml:58:40: spec.containers[0].livenessProbe.successThreshold: must be 1 for a liveness or startup probe
    a.yaml:58:71: spec.containers[0].livenessProbe.httpGet.port: no port of this container is named "web": name one so under ports, or write its number
    a.yaml:59:5: spec.containers[0].readinessProbe: has more than one handler: keep one
    a.yaml:59:22: spec.containers[0].readinessProbe.exec.command: required: write the program and its arguments
    a.yaml:60:5: spec.containers[0].startupProbe: does nothing: write exec, httpGet or another handler
    a.yaml:61:27: spec.containers[0].lifecycle.preStop.tcpSocket: a hook cannot be a tcpSocket: write exec, httpGet or sleep
    a.yaml:61:70: spec.containers[0].lifecycle.postStart.sleep.seconds: -1 is out of range: it must be 0 or more
    a.yaml:62:23: spec.containers[0].securityContext.runAsUser: -1 is out of range: it must be 0 or more
    a.yaml:62:38: spec.containers[0].securityContext.allowPrivilegeEscalation: false contradicts privileged and CAP_SYS_ADMIN, which escalate by themselves: take these away, or write true
    "#);
}

#[test]
fn fields_that_are_not_honoured_yet_are_refused_and_harmless_ones_warned_of() {
    let text = r#"apiVersion: v1
kind: Pod
metadata:
  name: a
  uid: "1"
  ownerReferences: []
spec:
  schedulingGates: [{name: a}]
  overhead: {cpu: 1}
  schedulerName: mine
  runtimeClassName: kata
  imagePullSecrets: [{name: a}]
  shareProcessNamespace: true
  hostUsers: false
  priorityClassName: high
  serviceAccountName: robot
  automountServiceAccountToken: true
  securityContext: {fsGroup: 1, runAsNonRoot: true, supplementalGroups: [1], sysctls: [{name: a, value: b}], seccompProfile: {type: Unconfined}}
  initContainers:
  - name: side
    image: a:1
    restartPolicy: Always
  containers:
  - name: a
    image: a:1
    stdinOnce: true
    envFrom: [{prefix: A_}]
    env:
    - {name: A, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}
    livenessProbe: {grpc: {port: 1}}
    volumeDevices: [{name: a, devicePath: /dev/a}]
    volumeMounts: [{name: a, mountPath: /a, subPathExpr: $(A)}]
    lifecycle: {stopSignal: SIGUSR1}
    securityContext: {seLinuxOptions: {level: a}, procMount: Unmasked, seccompProfile: {type: RuntimeDefault}}
  volumes:
  - name: a
    persistentVolumeClaim: {claimName: a}
  - name: b
    projected: {sources: []}
status: {phase: Running}
"#;
    insta::assert_snapshot!(said(text), @"
    a.yaml:5:3: warning: metadata.uid: no effect: only an API server writes this
    a.yaml:6:3: warning: metadata.ownerReferences: no effect: what leaves the commit is removed by itself
    a.yaml:8:3: spec.schedulingGates: not supported yet: ignoring it would start the pod before its gates open; keep the pod out of the configured paths until it may start
    a.yaml:9:3: spec.overhead: not supported yet: ignoring it would place the pod where you did not ask for it; add the amounts to the requests of a container in its place
    a.yaml:10:3: spec.schedulerName: not supported yet: ignoring it would place the pod where you did not ask for it; say where the pod belongs with nodeSelector or affinity in its place
    a.yaml:11:3: spec.runtimeClassName: not supported yet: ignoring it would run the pod by another runtime; make that runtime the default of Docker on the hosts, and then leave this field out
    a.yaml:12:3: spec.imagePullSecrets: not supported yet: put the registry's credentials into the file that docker.config-file names on the hosts, and then leave this field out
    a.yaml:13:3: spec.shareProcessNamespace: not supported yet: ignoring it would hide the containers' processes from each other; put programs that must see each other into one container
    a.yaml:14:3: spec.hostUsers: not supported yet: ignoring it would run the pod as users of the host; give the pod a user of its own with securityContext.runAsUser in its place
    a.yaml:15:3: warning: spec.priorityClassName: no effect: pods are not preempted here
    a.yaml:16:3: warning: spec.serviceAccountName: no effect: there is no API server to speak to
    a.yaml:17:3: warning: spec.automountServiceAccountToken: no effect: there is no API server to speak to
    a.yaml:18:21: spec.securityContext.fsGroup: not supported yet: ignoring it would leave volumes that the pod cannot write to; let an init container that runs as user 0 give the volume's files to the pod's user (chown) in its place
    a.yaml:18:33: spec.securityContext.runAsNonRoot: not supported yet: ignoring it would leave the pod with more rights than you asked for; write the number of a user other than 0 as runAsUser in its place
    a.yaml:18:53: spec.securityContext.supplementalGroups: not supported yet: ignoring it would change what the pod may read; write the one group that it needs as runAsGroup in its place
    a.yaml:18:78: spec.securityContext.sysctls: not supported yet: ignoring it would run the pod with other kernel settings; set them on the hosts (sysctl.d), and give the pod hostNetwork where they are settings of the network
    a.yaml:18:110: spec.securityContext.seccompProfile: not supported yet: ignoring it would run the container with Docker's default profile; make the profile Docker's default on the hosts (seccomp-profile in daemon.json), and write RuntimeDefault
    a.yaml:22:5: spec.initContainers[0].restartPolicy: not supported yet: a sidecar would hold up the others; make it one of containers
    a.yaml:26:5: warning: spec.containers[0].stdinOnce: no effect: nothing attaches to a container
    a.yaml:27:16: spec.containers[0].envFrom[0]: must name exactly one source: configMapRef or secretRef
    a.yaml:29:29: spec.containers[0].env[0].valueFrom.resourceFieldRef: not supported yet: ignoring it would leave the variable empty; write the number as value in its place
    a.yaml:30:21: spec.containers[0].livenessProbe.grpc: not supported yet: ignoring it would never ask the container; ask the port with tcpSocket, or the program with exec, in its place
    a.yaml:31:5: spec.containers[0].volumeDevices: not supported yet: ignoring it would start the container without its device; mount the device with a hostPath volume of type BlockDevice in its place
    a.yaml:32:45: spec.containers[0].volumeMounts[0].subPathExpr: not supported yet: ignoring it would mount the whole volume; write the path with its values as subPath in its place
    a.yaml:33:17: spec.containers[0].lifecycle.stopSignal: not supported yet: ignoring it would stop the container by another signal; set STOPSIGNAL in the image, or send the signal with an exec as preStop, in its place
    a.yaml:34:23: spec.containers[0].securityContext.seLinuxOptions: not supported yet: ignoring it would leave the pod with more rights than you asked for; keep the pod out of the configured paths where the labels that Docker gives by itself (selinux-enabled) are not enough
    a.yaml:34:51: spec.containers[0].securityContext.procMount: not supported yet: ignoring it would mask parts of /proc; run the container privileged in its place if it may have all rights of the host
    a.yaml:37:5: spec.volumes[0].persistentVolumeClaim: not supported yet: use a hostPath, and a nodeSelector that keeps the pod where its data is; or an emptyDir for what may be lost with the pod
    a.yaml:39:5: spec.volumes[1].projected: not supported yet: mount each of its sources as a configMap or secret volume of its own
    a.yaml:40:1: warning: status: no effect: Git says what is wanted, not what is
    ");
}

/// The manifests on Kubernetes' own documentation pages about placement.
const PLACEMENT: &str = r"apiVersion: v1
kind: Pod
metadata: {name: a, labels: {app: store}}
spec:
  affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms:
        - matchExpressions:
          - {key: topology.kubernetes.io/zone, operator: In, values: [antarctica-east1, antarctica-west1]}
          - {key: cores, operator: Gt, values: ['8']}
        - matchFields:
          - {key: metadata.name, operator: NotIn, values: [worker-1]}
      preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 1
        preference:
          matchExpressions:
          - {key: another-node-label-key, operator: Exists}
    podAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
      - labelSelector:
          matchExpressions:
          - {key: security, operator: In, values: [S1]}
        topologyKey: topology.kubernetes.io/zone
        matchLabelKeys: [pod-template-hash]
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          labelSelector: {matchLabels: {app: store}}
          topologyKey: kubernetes.io/hostname
          namespaces: [default]
          namespaceSelector: {}
          mismatchLabelKeys: [tenant]
  topologySpreadConstraints:
  - {maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: store}}, minDomains: 2}
  - {maxSkew: 2, topologyKey: node, whenUnsatisfiable: ScheduleAnyway, nodeAffinityPolicy: Ignore, nodeTaintsPolicy: Honor, labelSelector: {}, matchLabelKeys: [app]}
  containers: [{name: a, image: 'a:1'}]
";

#[test]
fn affinity_and_spread_are_read() {
    let file = SourceFile {
        path: "a.yaml",
        content: PLACEMENT.as_bytes(),
    };
    let (objects, problems) = parse(&[file], &Limits::default(), ReadAs::NewHead);
    assert_eq!(problems, []);
    let spec = &objects
        .workloads
        .first_key_value()
        .expect("the pod")
        .1
        .template
        .spec;
    let Affinity { node, pods, anti } = &spec.affinity;
    let spread: String = spec.spread.iter().map(|one| format!("{one:?}\n")).collect();
    insta::assert_snapshot!(format!("{node:?}\n{pods:?}\n{anti:?}\n{spread}"), @r#"
    NodeAffinity { required: Some([NodeTerm { labels: [NodeRequirement { key: "topology.kubernetes.io/zone", operator: In(["antarctica-east1", "antarctica-west1"]) }, NodeRequirement { key: "cores", operator: Gt(8) }], names: [] }, NodeTerm { labels: [], names: [IsNot(NodeName(worker-1))] }]), preferred: [(1, NodeTerm { labels: [NodeRequirement { key: "another-node-label-key", operator: Exists }], names: [] })] }
    PodAffinity { required: [PodTerm { pods: PodSelector { labels: Some(Selector { labels: {}, expressions: [Requirement { key: "security", operator: In(["S1"]) }] }), same: ["pod-template-hash"], other: [] }, namespaces: {}, namespace_selector: None, topology_key: "topology.kubernetes.io/zone" }], preferred: [] }
    PodAffinity { required: [], preferred: [(100, PodTerm { pods: PodSelector { labels: Some(Selector { labels: {"app": "store"}, expressions: [] }), same: [], other: ["tenant"] }, namespaces: {"default"}, namespace_selector: Some(Selector { labels: {}, expressions: [] }), topology_key: "kubernetes.io/hostname" })] }
    SpreadConstraint { max_skew: 1, topology_key: "zone", required: true, pods: PodSelector { labels: Some(Selector { labels: {"app": "store"}, expressions: [] }), same: [], other: [] }, min_domains: 2, honor_affinity: true, honor_taints: false }
    SpreadConstraint { max_skew: 2, topology_key: "node", required: false, pods: PodSelector { labels: Some(Selector { labels: {}, expressions: [] }), same: ["app"], other: [] }, min_domains: 1, honor_affinity: false, honor_taints: true }
    "#);
}

#[test]
fn problems_of_affinity_and_spread_are_reported_with_their_field() {
    let text = r"apiVersion: v1
kind: Pod
metadata: {name: a}
spec:
  affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms:
        - matchExpressions:
          - {key: a b, operator: in, values: [x]}
          - {key: a, operator: In}
          - {key: a, operator: Exists, values: [x]}
          - {key: a, operator: Gt, values: [many]}
          - {key: a, operator: Lt, values: ['1', '2']}
          - {key: a}
          matchFields:
          - {key: metadata.uid, operator: In, values: [x]}
          - {key: metadata.name, operator: Exists}
          - {key: metadata.name, operator: In, values: [x, z]}
      preferredDuringSchedulingIgnoredDuringExecution:
      - {weight: 101, preference: {}}
    podAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
      - labelSelector: {matchExpressions: [{key: a, operator: Gt, values: ['1']}]}
      - {topologyKey: a, matchLabelKeys: [b], namespaces: [A]}
      - {topologyKey: a, labelSelector: {matchLabels: {b: c}}, matchLabelKeys: [b], mismatchLabelKeys: [d, d]}
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
      - {weight: 0, podAffinityTerm: {topologyKey: a, labelSelecter: {}}}
  topologySpreadConstraints:
  - {maxSkew: 0, topologyKey: a, whenUnsatisfiable: Never}
  - {maxSkew: 1, topologyKey: a, whenUnsatisfiable: ScheduleAnyway, minDomains: 2}
  - {maxSkew: 1, topologyKey: a, whenUnsatisfiable: ScheduleAnyway, nodeTaintsPolicy: honor}
  - {maxSkew: 1, topologyKey: b}
  containers: [{name: a, image: 'a:1'}]
";
    insta::assert_snapshot!(said(text), @r#"
    a.yaml:10:14: spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].key: "a b" is not valid: it must be at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit, after an optional domain and '/'
    a.yaml:10:24: spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].operator: "in" is not known here: write one of In, NotIn, Exists, DoesNotExist, Gt, Lt (did you mean "In"?)
    a.yaml:11:14: spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[1].values: required: this operator needs at least one value
    a.yaml:12:40: spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[2].values: this operator takes no values: remove them
    a.yaml:13:36: spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[3].values: must be one whole number, in quotes: correct it
    a.yaml:14:36: spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[4].values: must be one whole number, in quotes: correct it
    a.yaml:15:14: spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[5].operator: required: write one of In, NotIn, Exists, DoesNotExist, Gt, Lt
    a.yaml:17:14: spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].key: the only field to select nodes by is metadata.name: write that
    a.yaml:18:34: spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[1].operator: "Exists" is not known here: write one of In, NotIn
    a.yaml:19:48: spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[2].values: must be the name of one node: write a term for each
    a.yaml:21:10: spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: 101 is out of range: it must be from 1 to 100
    a.yaml:24:9: spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: required: give it a value
    a.yaml:24:53: spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector.matchExpressions[0].operator: "Gt" is not known here: write one of In, NotIn, Exists, DoesNotExist
    a.yaml:25:26: spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[1].matchLabelKeys: only beside a labelSelector: add one, or remove this
    a.yaml:25:60: spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[1].namespaces[0]: "A" is not valid: it must be at most 63 lower-case letters, digits and '-', beginning and ending with a letter or digit
    a.yaml:26:81: spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[2].matchLabelKeys[0]: labelSelector speaks of "b" too: keep one of them
    a.yaml:26:108: spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[2].mismatchLabelKeys[1]: "d" is there twice: keep one
    a.yaml:29:10: spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: 0 is out of range: it must be from 1 to 100
    a.yaml:29:55: spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelecter: unknown field (did you mean "labelSelector"?): correct or remove it
    a.yaml:31:6: spec.topologySpreadConstraints[0].maxSkew: 0 is out of range: it must be 1 or more
    a.yaml:31:34: spec.topologySpreadConstraints[0].whenUnsatisfiable: "Never" is not known here: write one of DoNotSchedule, ScheduleAnyway
    a.yaml:32:69: spec.topologySpreadConstraints[1].minDomains: only with whenUnsatisfiable DoNotSchedule: remove one of them
    a.yaml:33:18: spec.topologySpreadConstraints[2].topologyKey: "a" is there twice with this whenUnsatisfiable: keep one
    a.yaml:33:69: spec.topologySpreadConstraints[2].nodeTaintsPolicy: "honor" is not known here: write one of Honor, Ignore (did you mean "Honor"?)
    a.yaml:34:6: spec.topologySpreadConstraints[3].whenUnsatisfiable: required: write DoNotSchedule or ScheduleAnyway
    "#);
}

#[test]
fn what_a_cluster_would_have_done_anyway_is_not_mentioned() {
    let text = r"apiVersion: v1
kind: Pod
metadata: {name: a, creationTimestamp: null}
spec:
  affinity: {}
  schedulerName: default-scheduler
  serviceAccountName: default
  automountServiceAccountToken: false
  priority: 0
  os: {name: linux}
  imagePullSecrets: []
  securityContext: {}
  containers:
  - name: a
    image: a:1
    resources: {}
    securityContext: {procMount: Default, runAsNonRoot: false}
status: {}
";
    insta::assert_snapshot!(said(text), @"");
}

#[test]
fn a_selector_must_be_there_and_match_the_template() {
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
    insta::assert_snapshot!(said(text), @r#"
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
fn strategies_must_be_able_to_move() {
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
    insta::assert_snapshot!(said(text), @r#"
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
fn problems_of_services_are_reported() {
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
    insta::assert_snapshot!(said(text), @r#"
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
fn problems_of_config_maps_and_secrets_are_reported_without_their_values() {
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
    insta::assert_snapshot!(said(text), @r#"
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
fn problems_of_nodes_and_namespaces_are_reported() {
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
    insta::assert_snapshot!(said(text), @r#"
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
fn old_groups_lose_what_only_they_knew() {
    let text = r#"apiVersion: extensions/v1beta1
kind: Deployment
metadata: {name: a}
spec:
  rollbackTo: {revision: 1}
  template: {metadata: {labels: {app: a}}, spec: {containers: [{name: a, image: "a:1"}]}}
---
apiVersion: apps/v1beta2
kind: Deployment
metadata: {name: b}
spec:
  template: {metadata: {labels: {app: a}}, spec: {containers: [{name: a, image: "a:1"}]}}
"#;
    insta::assert_snapshot!(said(text), @r"
    a.yaml:5:3: warning: spec.rollbackTo: no effect: Git is what rolls back; revert the commit
    a.yaml:11:1: spec.selector: required: write under matchLabels the labels that spec.template.metadata.labels has
    ");
}

#[test]
fn problems_of_list_items_have_their_own_lines() {
    let text = r"apiVersion: v1
kind: List
wrong: 1
items:
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: a}
- apiVersion: v1
  kind: ConfigMap
  metadata:
    name: b
  dat: {}
-
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: a}
- {apiVersion: v1, kind: List}
- 5
";
    insta::assert_snapshot!(said(text), @r#"
    a.yaml:3:1: wrong: unknown field: a list has only items; remove it
    a.yaml:12:3: dat: unknown field (did you mean "data"?): correct or remove it
    a.yaml:16:14: metadata.name: ConfigMap default/a is written at a.yaml:5 already: keep one of them
    a.yaml:17:4: a list within a list: write its items one level up
    a.yaml:18:3: must be a mapping with apiVersion and kind: correct it, or move it out of the configured paths
    "#);
}

#[test]
fn texts_of_a_manifest_cannot_forge_a_line_of_the_log() {
    let text = r#"apiVersion: v1
kind: "Pod\nok.yaml: fine"
---
apiVersion: v1
kind: ConfigMap
metadata: {name: "a\e[2J"}
"dat\na": {}
"#;
    insta::assert_snapshot!(said(text), @r#"
    a.yaml:2:1: kind: the kind "Pod\nok.yaml: fine" of "v1" is not known here (did you mean "Pod"?): correct it, or move this document out of the configured paths
    a.yaml:4:1: [dat\na]: unknown field (did you mean "data"?): correct or remove it
    a.yaml:6:12: metadata.name: "a\u{1b}[2J" is not valid: it must be at most 253 lower-case letters, digits, '-' and '.', each part beginning and ending with a letter or digit
    "#);
}

#[test]
fn a_document_that_cannot_be_read_does_not_hide_the_others() {
    let text = r"apiVersion: v1
kind: ConfigMap
metadata: {name: a}
dat: {}
---
kind: Pod
kind: Pod
---
apiVersion: v1
kind: ConfigMap
metadata: {name: b}
dta: {}
";
    insta::assert_snapshot!(said(text), @r#"
    a.yaml:4:1: dat: unknown field (did you mean "data"?): correct or remove it
    a.yaml:7:1: the key "kind" is there twice: keep one
    a.yaml:12:1: dta: unknown field (did you mean "data"?): correct or remove it
    "#);
}

#[test]
fn one_object_in_two_files_is_refused_with_both_places() {
    let one = "apiVersion: extensions/v1beta1\nkind: DaemonSet\nmetadata: {name: a}\nspec: {template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: a}]}}}\n";
    let two = "\n\napiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: a, namespace: default}\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: a}]}}}\n";
    insta::assert_snapshot!(lines(&[("b/two.yaml", two), ("a/one.yaml", one)]), @"b/two.yaml:5:12: metadata.name: DaemonSet default/a is written at a/one.yaml:1 already: keep one of them");
    let other_namespace = two.replace("namespace: default", "namespace: other");
    assert_eq!(
        lines(&[("b/two.yaml", &other_namespace), ("a/one.yaml", one)]),
        ""
    );
}

#[test]
fn files_that_are_too_large_or_no_text_are_refused() {
    let large = vec![b'#'; 100 << 20];
    let files = [
        SourceFile {
            path: "large.yaml",
            content: &large,
        },
        SourceFile {
            path: "latin.yaml",
            content: b"a: \xe4",
        },
        SourceFile {
            path: "empty.yaml",
            content: b"",
        },
    ];
    let (_, problems) = parse(&files, &Limits::default(), ReadAs::NewHead);
    let text: String = problems
        .iter()
        .map(|problem| format!("{problem}\n"))
        .collect();
    insta::assert_snapshot!(text, @"
    large.yaml: the file has 104857600 bytes and may have 4194304: split it, or move what is no manifest elsewhere
    latin.yaml: not UTF-8 at byte 3: save the file as UTF-8
    ");
}

#[test]
fn documents_and_problems_beyond_the_limits_are_not_read_or_reported() {
    let documents = "---\napiVersion: v1\nkind: Pd\n".repeat(12);
    let limits = Limits {
        documents: 10,
        problems: 3,
        ..Limits::default()
    };
    let file = SourceFile {
        path: "a.yaml",
        content: documents.as_bytes(),
    };
    let (_, problems) = parse(
        &[
            file,
            SourceFile {
                path: "b.yaml",
                content: b"kind: Pod",
            },
        ],
        &limits,
        ReadAs::NewHead,
    );
    let text: String = problems
        .iter()
        .map(|problem| format!("{problem}\n"))
        .collect();
    insta::assert_snapshot!(text, @r#"
    a.yaml:3:1: kind: the kind "Pd" of "v1" is not known here (did you mean "Pod"?): correct it, or move this document out of the configured paths
    a.yaml:6:1: kind: the kind "Pd" of "v1" is not known here (did you mean "Pod"?): correct it, or move this document out of the configured paths
    a.yaml:9:1: kind: the kind "Pd" of "v1" is not known here (did you mean "Pod"?): correct it, or move this document out of the configured paths
    a.yaml: and 7 more problems: correct these first
    a.yaml: the commit has more than 10 documents: split it over several paths
    "#);
}

/// The only workload of a text without errors.
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
fn a_template_has_one_hash_in_all_groups_and_for_all_fields_of_its_owner() {
    let hash = |api_version, kind, spec: &str| controller(api_version, kind, spec).template.hash;
    let expected = hash("apps/v1", "Deployment", SELECTOR);
    assert_eq!(
        hash("extensions/v1beta1", "Deployment", "  replicas: 5\n"),
        expected
    );
    assert_eq!(hash("apps/v1", "DaemonSet", SELECTOR), expected);
}

#[test]
fn texts_become_what_docker_takes() {
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
    securityContext: {runAsUser: 0, capabilities: {add: [NET_ADMIN], drop: [ALL]}}
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
fn secrets_are_decoded_and_shown_without_their_values() {
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
    let shown = format!("{original}{objects:?}");
    for value in ["hunter2", "aHVu", "plain"] {
        assert!(!shown.contains(value), "{value} in {shown}");
    }
}

#[test]
fn originals_are_of_the_current_group_and_in_their_namespace() {
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
        objects.places[id],
        Place {
            file: "a.yaml".to_owned(),
            line: 1
        }
    );
}

#[test]
fn a_drain_is_true_or_false_and_implies_the_cordon() {
    let text = |value: &str| {
        format!(
            "apiVersion: v1\nkind: Node\nmetadata:\n  name: one\n  annotations:\n    windlass.dev/drain: \"{value}\"\n"
        )
    };
    insta::assert_snapshot!(said(&text("yes")), @r#"a.yaml:6:5: metadata.annotations[windlass.dev/drain]: "yes" says neither to drain the node nor not to: write "true" or "false""#);
    assert_eq!(said(&text("true")), "");
    assert_eq!(said(&text("false")), "");
}
