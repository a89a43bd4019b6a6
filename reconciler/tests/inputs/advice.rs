//! Each refusal of a manifest that Kubernetes accepts says what to write in its place, and never
//! only to remove it.

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
    "shareProcessNamespace: true",
    "imagePullSecrets: [{name: a}]",
    "os: {name: windows}",
    "securityContext: {seLinuxOptions: {level: a}}",
    "securityContext: {supplementalGroupsPolicy: Strict}",
    "securityContext: {sysctls: [{name: kernel.msgmax, value: '1'}]}",
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

/// Kinds of Kubernetes and of other projects, as `apiVersion kind`.
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
    let file = SourceFile {
        path: "a.yaml",
        content: text.as_bytes(),
    };
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
fn every_refusal_advises_an_alternative_and_not_what_it_warns_of() {
    let of_pod = OF_POD.iter().map(|field| pod(&format!("  {field}\n"), ""));
    let of_container = OF_CONTAINER
        .iter()
        .map(|field| pod("", &format!("    {field}\n")));
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
        // Linux ignores windowsOptions: removing it is harmless.
        let harmless = field.ends_with("windowsOptions");
        assert!(
            harmless || advice.split(' ').count() > 1,
            "no advice: {message}"
        );
        assert!(
            harmless || !advice.contains("remove"),
            "the message warns of ignoring the field, and advises to remove it: {message}"
        );
        all.push_str(&format!("{field}: {message}\n"));
    }
    insta::assert_snapshot!(all, @r#"
    spec.schedulerName: not supported yet: ignoring it would place the pod where you did not ask for it; say where the pod belongs with nodeSelector or affinity in its place
    spec.schedulingGates: not supported yet: ignoring it would start the pod before its gates open; keep the pod out of the configured paths until it may start
    spec.readinessGates: not supported yet: ignoring it would call the pod ready too early; let the readinessProbe of a container ask for the condition in its place
    spec.ephemeralContainers: not supported yet: ignoring it would leave containers out; make them containers of the pod
    spec.resourceClaims: not supported yet: ignoring it would start the pod without its devices; mount each device with a hostPath volume in its place
    spec.resources: not supported yet: ignoring it would leave the pod without bounds; give the bounds to its containers in its place
    spec.runtimeClassName: not supported yet: ignoring it would run the pod by another runtime; make that runtime the default of Docker on the hosts, and then leave this field out
    spec.overhead: not supported yet: ignoring it would place the pod where you did not ask for it; add the amounts to the requests of a container in its place
    spec.hostUsers: not supported yet: ignoring it would run the pod as users of the host; give the pod a user of its own with securityContext.runAsUser in its place
    spec.hostnameOverride: not supported yet: ignoring it would give the pod another name; write the first part of the name as hostname in its place
    spec.shareProcessNamespace: not supported yet: ignoring it would hide the containers' processes from each other; put programs that must see each other into one container
    spec.imagePullSecrets: not supported yet: put the registry's credentials into the file that docker.config-file names on the hosts, and then leave this field out
    spec.os: only linux runs here: keep this pod out of the configured paths
    spec.securityContext.seLinuxOptions: not supported yet: ignoring it would leave the pod with more rights than you asked for; keep the pod out of the configured paths where the labels that Docker gives by itself (selinux-enabled) are not enough
    spec.securityContext.supplementalGroupsPolicy: not supported yet: ignoring it would leave the pod with more rights than you asked for; use an image whose user is in no further groups in its place
    spec.securityContext.sysctls[0]: kernel.msgmax may change the whole host: set it on the hosts (sysctl.d), and give the pod hostNetwork where it is a setting of the network
    spec.securityContext.windowsOptions: only Windows reads this, and all nodes are Linux: remove it
    spec.securityContext.seccompProfile: not supported yet: ignoring it would run the container with Docker's default profile; make the profile Docker's default on the hosts (seccomp-profile in daemon.json), and write RuntimeDefault
    spec.securityContext.appArmorProfile: not supported yet: ignoring it would run the container with Docker's default profile; write RuntimeDefault where that profile will do, and else keep the pod out of the configured paths
    spec.volumes[0].awsElasticBlockStore: not supported yet: use a hostPath on a disk that the hosts mount, or an emptyDir for what may be lost with the pod
    spec.volumes[0].csi: not supported yet: use a hostPath on a disk that the hosts mount, or an emptyDir for what may be lost with the pod
    spec.volumes[0].downwardAPI: not supported yet: give the values to the container as env with fieldRef
    spec.volumes[0].ephemeral: not supported yet: use a hostPath, and a nodeSelector that keeps the pod where its data is; or an emptyDir for what may be lost with the pod
    spec.volumes[0].gitRepo: not supported yet: let an init container clone into an emptyDir
    spec.volumes[0].image: not supported yet: let an init container of that image copy its files into an emptyDir
    spec.volumes[0].nfs: not supported yet: mount it on the hosts, and use a hostPath below its mount point with type Directory
    spec.volumes[0].persistentVolumeClaim: not supported yet: use a hostPath, and a nodeSelector that keeps the pod where its data is; or an emptyDir for what may be lost with the pod
    spec.volumes[0].projected: not supported yet: mount each of its sources as a configMap or secret volume of its own
    spec.volumes[0].emptyDir.medium: "HugePages" is not supported yet: write Memory, or leave medium out to have it on disk
    spec.containers[0].restartPolicy: not supported yet: ignoring it would restart the container as its pod says; set the restartPolicy of the pod, or make the container a pod of its own, in its place
    spec.containers[0].restartPolicyRules: not supported yet: ignoring it would restart the container as its pod says; set the restartPolicy of the pod, or make the container a pod of its own, in its place
    spec.containers[0].volumeDevices: not supported yet: ignoring it would start the container without its device; mount the device with a hostPath volume of type BlockDevice in its place
    spec.containers[0].resources.claims: not supported yet: ignoring it would start the container without its device; mount the device with a hostPath volume in its place
    spec.containers[0].resources.limits[example.com/gpu]: not supported yet: ignoring it would place the pod where this resource may not be; label the nodes that have it, and choose them by nodeSelector in its place
    spec.containers[0].securityContext.procMount: not supported yet: ignoring it would mask parts of /proc; run the container privileged in its place if it may have all rights of the host
    spec.containers[0].securityContext.seLinuxOptions: not supported yet: ignoring it would leave the pod with more rights than you asked for; keep the pod out of the configured paths where the labels that Docker gives by itself (selinux-enabled) are not enough
    spec.containers[0].securityContext.windowsOptions: only Windows reads this, and all nodes are Linux: remove it
    spec.containers[0].volumeMounts[0].subPathExpr: not supported yet: ignoring it would mount the whole volume; write the path with its values as subPath in its place
    spec.containers[0].volumeMounts[0].recursiveReadOnly: not supported yet: ignoring it would leave mounts below it writable; mount what lies below as readOnly volumes of their own in its place
    spec.containers[0].env[0].valueFrom.fileKeyRef: not supported yet: ignoring it would leave the variable empty; use configMapKeyRef or secretKeyRef, or let the program read the file, in its place
    spec.containers[0].env[0].valueFrom.resourceFieldRef: not supported yet: ignoring it would leave the variable empty; write the number as value in its place
    spec.containers[0].livenessProbe.grpc: not supported yet: ignoring it would never ask the container; ask the port with tcpSocket, or the program with exec, in its place
    spec.containers[0].lifecycle.stopSignal: needs spec.os.name: write os: {name: linux} in the pod, as Kubernetes wants it
    spec.externalIPs: not supported yet: ignoring it would leave the service unreachable at that address; make the type NodePort or LoadBalancer, and call the hosts' own addresses, in its place
    spec.loadBalancerIP: not supported yet: ignoring it would leave the service unreachable at that address; make the type NodePort or LoadBalancer, and call the hosts' own addresses, in its place
    spec.loadBalancerClass: not supported yet: ignoring it would leave the service unreachable at that address; make the type NodePort or LoadBalancer, and call the hosts' own addresses, in its place
    spec.loadBalancerSourceRanges: not supported yet: ignoring it would let everyone in; let the firewall of the hosts choose who may call
    spec.allocateLoadBalancerNodePorts: not supported yet: ignoring it would open ports you did not want; make the type ClusterIP in its place
    spec.externalTrafficPolicy: not supported yet: ignoring it would hide the callers' addresses; let pods with hostNetwork take the calls in its place: they see who calls
    spec.internalTrafficPolicy: not supported yet: ignoring it would send calls to pods of other nodes; give the pods a hostPort, and call it at status.hostIP, in its place
    spec.ipFamilies: not supported yet: services have IPv4 addresses only; write IPv4
    spec.ipFamilyPolicy: not supported yet: services have IPv4 addresses only; write PreferDualStack, which does without IPv6
    kind: Endpoints is not supported yet: use a Service of type ExternalName for what runs elsewhere, and a selector for what runs here; move this document out of the configured paths
    kind: EndpointSlice is not supported yet: use a Service of type ExternalName for what runs elsewhere, and a selector for what runs here; move this document out of the configured paths
    kind: StatefulSet is not supported yet: use a Deployment for each replica, with the strategy Recreate, a hostPath volume and a nodeSelector; move this document out of the configured paths
    kind: Job is not supported yet: use a bare Pod with restartPolicy OnFailure, or an init container of what needs its result; move this document out of the configured paths
    kind: CronJob is not supported yet: use a Deployment whose container runs a cron daemon, or a timer of the host; move this document out of the configured paths
    kind: PersistentVolumeClaim is not supported yet: use a hostPath volume, and a nodeSelector that keeps the pod where its data is, in place of the claim; move this document out of the configured paths
    kind: PersistentVolume is not supported yet: use a hostPath volume, and a nodeSelector that keeps the pod where its data is, in place of the claim; move this document out of the configured paths
    kind: NetworkPolicy is not supported yet: nothing here keeps pods from each other, so run what it protects where others run no pods; move this document out of the configured paths
    kind: PodDisruptionBudget is not supported yet: use the maxUnavailable of the Deployment, which a drain keeps to; move this document out of the configured paths
    kind: HorizontalPodAutoscaler is not supported yet: use a fixed number of replicas in the workload; move this document out of the configured paths
    kind: Ingress is not supported yet: use a reverse proxy as a Deployment with a NodePort or hostPort, its rules in a ConfigMap; move this document out of the configured paths
    kind: Kustomization is not supported yet: commit what `kubectl kustomize` prints of it; move this document out of the configured paths
    kind: HTTPRoute of gateway.networking.k8s.io is a custom resource, and nothing here acts on it: use what works without its controller; move this document out of the configured paths
    kind: Service of serving.knative.dev deploys by itself elsewhere, and nothing here acts on it: write a Deployment and a Service of apiVersion v1; move this document out of the configured paths
    kind: HelmRelease of helm.toolkit.fluxcd.io deploys by itself elsewhere, and nothing here acts on it: commit what `helm template` prints of its chart; move this document out of the configured paths
    kind: Kustomization of kustomize.toolkit.fluxcd.io deploys by itself elsewhere, and nothing here acts on it: configure its path, or commit what `flux build` prints of it; move this document out of the configured paths
    kind: Application of argoproj.io deploys by itself elsewhere, and nothing here acts on it: configure its path, or commit what `argocd app manifests` prints of it; move this document out of the configured paths
    kind: Rollout of argoproj.io deploys by itself elsewhere, and nothing here acts on it: write a Deployment; move this document out of the configured paths
    kind: SealedSecret of bitnami.com is a custom resource, and nothing here acts on it: use what works without its controller; move this document out of the configured paths
    kind: Deployment of apps.k8s.io is a custom resource, and nothing here acts on it: use what works without its controller; move this document out of the configured paths, or write apiVersion: apps/v1 if Kubernetes' own Deployment is meant
    kind: the kind "Jbo" of "batch/v1" is not known here: correct it, or move this document out of the configured paths
    "#);
}
