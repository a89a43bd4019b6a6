//! Builders of the manifests of the tests.

#![allow(
    dead_code,
    reason = "two test binaries include this and each uses a part of it"
)]

use crate::support::NODE_PORT;

/// The test application as a container `app`, which is ready when it serves.
pub(crate) const APP: &str = "{name: app, image: 'windlass-test/app:1', \
    readinessProbe: {httpGet: {path: /health, port: 8080}, periodSeconds: 1}}";
/// Like [`APP`], with the next version of the image.
pub(crate) const APP_2: &str = "{name: app, image: 'windlass-test/app:2', \
    readinessProbe: {httpGet: {path: /health, port: 8080}, periodSeconds: 1}}";

/// A Pod of one container, with the label `app: NAME`.
pub(crate) fn pod(name: &str, container: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  terminationGracePeriodSeconds: 2
  containers:
  - {container}
"
    )
}

/// A Deployment of one container, which is updated with one more pod and without a missing one.
pub(crate) fn deployment(name: &str, replicas: u32, container: &str) -> String {
    deployment_with(
        name,
        replicas,
        container,
        "strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}",
    )
}

/// A Deployment of one container with another line in its spec.
pub(crate) fn deployment_with(name: &str, replicas: u32, container: &str, line: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  {line}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - {container}
"
    )
}

/// A Service of the pods with the label `app: NAME` at the node port.
pub(crate) fn service(name: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  type: NodePort
  selector: {{app: {name}}}
  ports: [{{port: 80, targetPort: 8080, nodePort: {NODE_PORT}}}]
"
    )
}

/// A container `app` of busybox that runs a line of shell.
pub(crate) fn shell(line: &str) -> String {
    shell_with(line, "")
}

/// Like [`shell`], with another field, such as `readinessProbe: {...}`.
pub(crate) fn shell_with(line: &str, field: &str) -> String {
    format!(
        "{{name: app, image: busybox, imagePullPolicy: IfNotPresent, command: [sh, -c, '{line}'], {field}}}"
    )
}

/// A container that does nothing and ends on TERM.
pub(crate) fn idle() -> String {
    shell("trap \"exit 0\" TERM; while :; do sleep 1000 & wait; done")
}
