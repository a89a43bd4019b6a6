//! Whatever is refused although Kubernetes takes it says what to write in its place, and never just to leave it out.

use reconciler::{
    desired::{self, CheckSettings},
    manifest::{Limits, Problem, ReadAs, Severity, SourceFile},
};

/// Fields of a pod's `spec`.
const OF_POD: &[&str] = &[
    "schedulerName: mine",
    "schedulingGates: [{name: a}]",
    "readinessGates: [{conditionType: a}]",
    "ephemeralContainers: [{name: e, image: 'a:1'}]",
    "resourceClaims: [{name: a}]",
    "resources: {limits: {cpu: 1}}",
    "runtimeClassName: kata",
    "overhead: {cpu: 1}",
    "hostUsers: false",
    "hostnameOverride: a",
    "setHostnameAsFQDN: true",
    "shareProcessNamespace: true",
    "imagePullSecrets: [{name: a}]",
    "os: {name: windows}",
    "securityContext: {fsGroup: 1}",
    "securityContext: {runAsNonRoot: true}",
    "securityContext: {seLinuxOptions: {level: a}}",
    "securityContext: {supplementalGroups: [1]}",
    "securityContext: {supplementalGroupsPolicy: Strict}",
    "securityContext: {sysctls: [{name: a, value: b}]}",
    "securityContext: {windowsOptions: {}}",
    "securityContext: {seccompProfile: {type: Unconfined}}",
    "securityContext: {appArmorProfile: {type: Unconfined}}",
    "volumes: [{name: v, awsElasticBlockStore: {volumeID: a}}]",
    "volumes: [{name: v, csi: {driver: a}}]",
    "volumes: [{name: v, downwardAPI: {}}]",
    "volumes: [{name: v, ephemeral: {}}]",
    "volumes: [{name: v, gitRepo: {repository: a}}]",
    "volumes: [{name: v, image: {reference: a}}]",
    "volumes: [{name: v, nfs: {path: /a, server: a}}]",
    "volumes: [{name: v, persistentVolumeClaim: {claimName: a}}]",
    "volumes: [{name: v, projected: {}}]",
    "volumes: [{name: v, emptyDir: {medium: HugePages}}]",
];

/// Fields of a container.
const OF_CONTAINER: &[&str] = &[
    "restartPolicy: OnFailure",
    "restartPolicyRules: [{action: Restart}]",
    "volumeDevices: [{name: a, devicePath: /dev/a}]",
    "resources: {claims: [{name: a}]}",
    "resources: {limits: {example.com/gpu: 1}}",
    "securityContext: {procMount: Unmasked}",
    "securityContext: {runAsNonRoot: true}",
    "securityContext: {seLinuxOptions: {level: a}}",
    "securityContext: {windowsOptions: {}}",
    "volumeMounts: [{name: e, mountPath: /a, subPathExpr: a}]",
    "volumeMounts: [{name: e, mountPath: /a, recursiveReadOnly: Enabled, readOnly: true}]",
    "env: [{name: A, valueFrom: {fileKeyRef: {key: a, path: a, volumeName: e}}}]",
    "env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}]",
    "livenessProbe: {grpc: {port: 1}}",
    "lifecycle: {stopSignal: SIGINT}",
];

/// Fields of a Service's `spec`.
const OF_SERVICE: &[&str] = &[
    "externalIPs: [192.0.2.1]",
    "type: LoadBalancer, loadBalancerIP: 192.0.2.1",
    "type: LoadBalancer, loadBalancerClass: a.example.com/b",
    "type: LoadBalancer, loadBalancerSourceRanges: [192.0.2.0/24]",
    "type: LoadBalancer, allocateLoadBalancerNodePorts: false",
    "type: NodePort, externalTrafficPolicy: Local",
    "internalTrafficPolicy: Local",
    "ipFamilies: [IPv6]",
    "ipFamilyPolicy: RequireDualStack",
];

/// Kinds of Kubernetes and of others, as `apiVersion kind`.
const KINDS: &[&str] = &[
    "v1 Endpoints",
    "discovery.k8s.io/v1 EndpointSlice",
    "apps/v1 StatefulSet",
    "batch/v1 Job",
    "batch/v1beta1 CronJob",
    "v1 PersistentVolumeClaim",
    "v1 PersistentVolume",
    "networking.k8s.io/v1 NetworkPolicy",
    "policy/v1 PodDisruptionBudget",
    "autoscaling/v2 HorizontalPodAutoscaler",
    "networking.k8s.io/v1 Ingress",
    "kustomize.config.k8s.io/v1beta1 Kustomization",
    "gateway.networking.k8s.io/v1 HTTPRoute",
    "serving.knative.dev/v1 Service",
    "helm.toolkit.fluxcd.io/v2 HelmRelease",
    "kustomize.toolkit.fluxcd.io/v1 Kustomization",
    "argoproj.io/v1alpha1 Application",
    "argoproj.io/v1alpha1 Rollout",
    "bitnami.com/v1alpha1 SealedSecret",
    "apps.k8s.io/v1 Deployment",
    "batch/v1 Jbo",
];

fn errors(text: &str) -> Vec<Problem> {
    let file = SourceFile { path: "a.yaml", content: text.as_bytes() };
    let settings = CheckSettings::default();
    let (_, mut problems) = desired::read(&[file], &Limits::default(), &settings, ReadAs::NewHead);
    problems.retain(|problem| problem.severity == Severity::Error);
    problems
}

fn pod(field: &str, container: &str) -> String {
    let volumes = if field.trim_start().starts_with("volumes") {
        String::new()
    } else {
        "  volumes: [{name: e}]\n".to_owned()
    };
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n{volumes}{field}  containers:\n  - name: c\n    \
         image: a:1\n{container}"
    )
}

#[test]
fn every_refusal_says_what_to_do_and_not_what_it_warns_of() {
    let of_pod = OF_POD.iter().map(|field| pod(&format!("  {field}\n"), ""));
    let of_container = OF_CONTAINER.iter().map(|field| pod("", &format!("    {field}\n")));
    let of_service = OF_SERVICE.iter().map(|field| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{ports: [{{port: 80}}], {field}}}\n"
        )
    });
    let of_kind = KINDS.iter().map(|kind| {
        let (version, kind) = kind.split_once(' ').unwrap_or_default();
        format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\n")
    });
    let mut all = String::new();
    for text in of_pod.chain(of_container).chain(of_service).chain(of_kind) {
        let errors = errors(&text);
        assert_eq!(errors.len(), 1, "{text}{errors:?}");
        let Problem { field, message, .. } = &errors[0];
        let (_, advice) = message.split_once(": ").unwrap_or_default();
        let advice = advice.split_once("; ").map_or(advice, |(_, advice)| advice);
        // Nothing on Linux reads it.
        let harmless = field.ends_with("windowsOptions");
        assert!(harmless || advice.split(' ').count() > 1, "no advice: {message}");
        assert!(
            harmless || !advice.contains("remove"),
            "leaving it out is what the message warns of: {message}"
        );
        all.push_str(&format!("{field}: {message}\n"));
    }
    insta::assert_snapshot!(all, @"");
}
