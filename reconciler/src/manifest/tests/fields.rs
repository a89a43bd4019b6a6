//! Unknown, wrong and unsupported fields and kinds.

use super::*;

#[test]
fn an_unknown_field_is_refused_with_a_suggestion() {
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
    insta::assert_snapshot!(problems_of(text), @r#"
    a.yaml:5:3: metadata.lables: unknown field (did you mean "labels"?): correct or remove it
    a.yaml:7:3: spec.replicsa: unknown field (did you mean "replicas"?): correct or remove it
    a.yaml:15:9: spec.template.spec.containers[0].enviroment: unknown field (did you mean "env"?): correct or remove it
    a.yaml:17:11: spec.template.spec.containers[0].ports[0].port: unknown field: remove it; known here are containerPort, hostIP, hostPort, name, protocol
    a.yaml:17:11: spec.template.spec.containers[0].ports[0].containerPort: required: write a port from 1 to 65535
    "#);
}

#[test]
fn an_unknown_kind_is_refused_with_a_suggestion() {
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
    insta::assert_snapshot!(problems_of(text), @r#"
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
fn unsupported_kinds_are_refused_and_kinds_without_effect_are_warned_of_once() {
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
    insta::assert_snapshot!(problems_of(text), @"
    a.yaml:2:1: kind: Job is not supported yet: use a bare Pod with restartPolicy OnFailure, or an init container of what needs its result; move this document out of the configured paths
    a.yaml:5:1: warning: accepted without effect: Role, ServiceAccount mean something only to a Kubernetes API server
    a.yaml:14:1: kind: NetworkPolicy is not supported yet: nothing here keeps pods from each other, so run what it protects where others run no pods; move this document out of the configured paths
    ");
}

#[test]
fn all_wrong_types_are_reported_at_once() {
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
    insta::assert_snapshot!(problems_of(text), @r"
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
fn all_errors_of_a_pod_are_reported_at_once() {
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
    insta::assert_snapshot!(problems_of(text), @r#"
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
fn unsupported_fields_are_refused_and_harmless_ones_are_warned_of() {
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
  securityContext: {sysctls: [{name: a, value: b}], seccompProfile: {type: Unconfined}}
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
    insta::assert_snapshot!(problems_of(text), @"
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
    a.yaml:18:32: spec.securityContext.sysctls[0]: a may change the whole host: set it on the hosts (sysctl.d), and give the pod hostNetwork where it is a setting of the network
    a.yaml:18:53: spec.securityContext.seccompProfile: not supported yet: ignoring it would run the container with Docker's default profile; make the profile Docker's default on the hosts (seccomp-profile in daemon.json), and write RuntimeDefault
    a.yaml:22:5: spec.initContainers[0].restartPolicy: not supported yet: a sidecar would hold up the others; make it one of containers
    a.yaml:26:5: warning: spec.containers[0].stdinOnce: no effect: nothing attaches to a container
    a.yaml:27:16: spec.containers[0].envFrom[0]: must name exactly one source: configMapRef or secretRef
    a.yaml:29:29: spec.containers[0].env[0].valueFrom.resourceFieldRef: not supported yet: ignoring it would leave the variable empty; write the number as value in its place
    a.yaml:30:21: spec.containers[0].livenessProbe.grpc: not supported yet: ignoring it would never ask the container; ask the port with tcpSocket, or the program with exec, in its place
    a.yaml:31:5: spec.containers[0].volumeDevices: not supported yet: ignoring it would start the container without its device; mount the device with a hostPath volume of type BlockDevice in its place
    a.yaml:32:45: spec.containers[0].volumeMounts[0].subPathExpr: not supported yet: ignoring it would mount the whole volume; write the path with its values as subPath in its place
    a.yaml:33:17: spec.containers[0].lifecycle.stopSignal: needs spec.os.name: write os: {name: linux} in the pod, as Kubernetes wants it
    a.yaml:34:23: spec.containers[0].securityContext.seLinuxOptions: not supported yet: ignoring it would leave the pod with more rights than you asked for; keep the pod out of the configured paths where the labels that Docker gives by itself (selinux-enabled) are not enough
    a.yaml:34:51: spec.containers[0].securityContext.procMount: not supported yet: ignoring it would mask parts of /proc; run the container privileged in its place if it may have all rights of the host
    a.yaml:37:5: spec.volumes[0].persistentVolumeClaim: not supported yet: use a hostPath, and a nodeSelector that keeps the pod where its data is; or an emptyDir for what may be lost with the pod
    a.yaml:39:5: spec.volumes[1].projected: not supported yet: mount each of its sources as a configMap or secret volume of its own
    a.yaml:40:1: warning: status: no effect: Git says what is wanted, not what is
    ");
}

#[test]
fn values_that_equal_the_default_cause_no_problem() {
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
    insta::assert_snapshot!(problems_of(text), @"");
}

#[test]
fn old_api_groups_have_their_defaults_and_lose_their_own_fields() {
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
    insta::assert_snapshot!(problems_of(text), @r"
    a.yaml:5:3: warning: spec.rollbackTo: no effect: Git is what rolls back; revert the commit
    a.yaml:11:1: spec.selector: required: write under matchLabels the labels that spec.template.metadata.labels has
    ");
}
