//! The sample application of the tests of crashes and of convergence.

use crate::support::NODE_PORT;

/// A Deployment of one pod with a file from a ConfigMap and a postStart hook, behind a node port.
/// The application answers `answer`, and its file contains `note`.
pub(crate) fn application(name: &str, answer: &str, note: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}, tier: front}}}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: app
        image: windlass-test/app:1
        env: [{{name: APP, value: \"{answer}\"}}]
        lifecycle: {{postStart: {{exec: {{command: [sh, -c, \"mkdir -p /www && echo hooked > /www/hook\"]}}}}}}
        volumeMounts: [{{name: notes, mountPath: /www/notes}}]
      volumes: [{{name: notes, configMap: {{name: {name}}}}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: {name}}}
data: {{note: \"{note}\"}}
---
{}",
        service()
    )
}

/// The Service of every pod with the label `tier: front`.
pub(crate) fn service() -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: front}}
spec:
  type: NodePort
  selector: {{tier: front}}
  ports: [{{port: 80, targetPort: 8080, nodePort: {NODE_PORT}}}]
"
    )
}
