//! Small inputs of kinds that are common in public repositories.

use reconciler::{
    desired::{self, CheckSettings},
    manifest::{Limits, ReadAs, Severity, SourceFile},
    object::Objects,
};

/// A file of the directory `practice`, with its name.
macro_rules! file {
    ($name:literal) => {
        ($name, include_str!(concat!("practice/", $name, ".yaml")))
    };
}

/// The objects of a manifest, its problems, one on each line, and whether it is refused.
pub(crate) fn read(text: &str, read_as: ReadAs) -> (Objects, String, bool) {
    let file = SourceFile {
        path: "a.yaml",
        content: text.as_bytes(),
    };
    let (objects, problems) = desired::read(
        &[file],
        &Limits::default(),
        &CheckSettings::default(),
        read_as,
    );
    let refused = problems
        .iter()
        .any(|problem| problem.severity == Severity::Error);
    (
        objects,
        problems
            .iter()
            .map(|problem| format!("{problem}\n"))
            .collect(),
        refused,
    )
}

fn problems_of(files: &[(&str, &str)]) -> String {
    let read_file =
        |(name, text): &(&str, &str)| format!("{name}\n{}", read(text, ReadAs::NewHead).1);
    files.iter().map(read_file).collect()
}

#[test]
fn manifests_that_kubernetes_accepts_are_accepted() {
    insta::assert_snapshot!(problems_of(&[
        file!("bug-w1-recreate-in-extensions-v1beta1"),
        file!("bug-w2-capability-lower-case"),
        file!("bug-w4-mountpath-relative"),
        file!("bug-w6-memory-in-milli"),
    ]), @"
    bug-w1-recreate-in-extensions-v1beta1
    bug-w2-capability-lower-case
    bug-w4-mountpath-relative
    bug-w6-memory-in-milli
    ");
}

#[test]
fn manifests_that_kubernetes_refuses_are_refused() {
    insta::assert_snapshot!(problems_of(&[
        file!("bug-a1-basic-auth-without-keys"),
        file!("bug-a2-dockerconfigjson-not-json"),
        file!("bug-a4-externalTrafficPolicy-on-ClusterIP"),
    ]), @r#"
    bug-a1-basic-auth-without-keys
    a.yaml:1:1: data: a Secret of type kubernetes.io/basic-auth needs the key "username" or "password": add one, or write type: Opaque
    bug-a2-dockerconfigjson-not-json
    a.yaml:5:14: stringData[.dockerconfigjson]: must be a mapping in JSON, as `docker login` writes it: put the content of that file there
    bug-a4-externalTrafficPolicy-on-ClusterIP
    a.yaml:4:1: warning: spec.selector: required to lead anywhere: write labels of the pods it is for
    a.yaml:5:3: spec.externalTrafficPolicy: only for the types NodePort and LoadBalancer: set the type, or remove it
    "#);
}

#[test]
fn manifests_for_other_tools_are_named() {
    insta::assert_snapshot!(problems_of(&[
        file!("msg-flux-variable"),
        file!("msg-httproute"),
        file!("msg-knative-service"),
        file!("msg-sops-data"),
        file!("msg-sops-stringData"),
        file!("msg-sops-after-following-the-advice"),
    ]), @r#"
    msg-flux-variable
    a.yaml:3:12: metadata.name: `${APP}` is not substituted here: commit the manifest with the value in its place, as `flux build` or envsubst print it; as it is written: "${APP}" is not valid: it must be at most 63 lower-case letters, digits and '-', beginning with a letter and ending with a letter or digit
    a.yaml:4:1: warning: spec.selector: required to lead anywhere: write labels of the pods it is for
    msg-httproute
    a.yaml:2:1: kind: HTTPRoute of gateway.networking.k8s.io is a custom resource, and nothing here acts on it: use what works without its controller; move this document out of the configured paths
    msg-knative-service
    a.yaml:2:1: kind: Service of serving.knative.dev deploys by itself elsewhere, and nothing here acts on it: write a Deployment and a Service of apiVersion v1; move this document out of the configured paths
    msg-sops-data
    a.yaml:1:1: this document is encrypted by SOPS, and decrypting on the host is not supported yet; commit it decrypted where only those who may know its values can read the repository, or keep this document out of the configured paths, and what uses it too
    msg-sops-stringData
    a.yaml:1:1: this document is encrypted by SOPS, and decrypting on the host is not supported yet; commit it decrypted where only those who may know its values can read the repository, or keep this document out of the configured paths, and what uses it too
    msg-sops-after-following-the-advice
    a.yaml:5:3: stringData.password: this value is encrypted by SOPS, and decrypting on the host is not supported yet; commit it decrypted where only those who may know its values can read the repository, or keep this document out of the configured paths, and what uses it too
    "#);
}

#[test]
fn unsupported_fields_name_an_alternative() {
    insta::assert_snapshot!(problems_of(&[
        file!("top-01-pvc"),
        file!("top-02-runAsNonRoot-with-runAsUser"),
        file!("top-03-fsGroup-without-persistent-volume"),
        file!("top-04-networkpolicy"),
        file!("top-05-ingress"),
        file!("top-06-cronjob"),
        file!("top-07-statefulset"),
        file!("top-08-secret-not-in-commit"),
        file!("top-09-loadBalancerIP"),
        file!("top-10-grpc-probe"),
        file!("top-11-hpa"),
        file!("top-12-pdb"),
        file!("top-13-imagePullSecrets"),
        file!("top-14-downward-api"),
        file!("top-15-kustomization"),
    ]), @"
    top-01-pvc
    a.yaml:2:1: kind: PersistentVolumeClaim is not supported yet: use a hostPath volume, and a nodeSelector that keeps the pod where its data is, in place of the claim; move this document out of the configured paths
    a.yaml:15:27: spec.template.spec.volumes[0].persistentVolumeClaim: not supported yet: use a hostPath, and a nodeSelector that keeps the pod where its data is; or an emptyDir for what may be lost with the pod
    top-02-runAsNonRoot-with-runAsUser
    top-03-fsGroup-without-persistent-volume
    top-04-networkpolicy
    a.yaml:2:1: kind: NetworkPolicy is not supported yet: nothing here keeps pods from each other, so run what it protects where others run no pods; move this document out of the configured paths
    top-05-ingress
    a.yaml:2:1: kind: Ingress is not supported yet: use a reverse proxy as a Deployment with a NodePort or hostPort, its rules in a ConfigMap; move this document out of the configured paths
    top-06-cronjob
    a.yaml:2:1: kind: CronJob is not supported yet: use a Deployment whose container runs a cron daemon, or a timer of the host; move this document out of the configured paths
    top-07-statefulset
    a.yaml:2:1: kind: StatefulSet is not supported yet: use a Deployment for each replica, with the strategy Recreate, a hostPath volume and a nodeSelector; move this document out of the configured paths
    top-08-secret-not-in-commit
    a.yaml:8:28: spec.containers[0].envFrom[0].secretRef.name: there is no Secret default/made-by-hand in this commit: add it, or say optional: true
    top-09-loadBalancerIP
    a.yaml:4:1: warning: spec.selector: required to lead anywhere: write labels of the pods it is for
    a.yaml:4:28: spec.loadBalancerIP: not supported yet: ignoring it would leave the service unreachable at that address; make the type NodePort or LoadBalancer, and call the hosts' own addresses, in its place
    a.yaml:4:56: spec.externalTrafficPolicy: not supported yet: ignoring it would hide the callers' addresses; let pods with hostNetwork take the calls in its place: they see who calls
    top-10-grpc-probe
    a.yaml:8:22: spec.containers[0].readinessProbe.grpc: not supported yet: ignoring it would never ask the container; ask the port with tcpSocket, or the program with exec, in its place
    top-11-hpa
    a.yaml:2:1: kind: HorizontalPodAutoscaler is not supported yet: use a fixed number of replicas in the workload; move this document out of the configured paths
    top-12-pdb
    a.yaml:2:1: kind: PodDisruptionBudget is not supported yet: use the maxUnavailable of the Deployment, which a drain keeps to; move this document out of the configured paths
    top-13-imagePullSecrets
    a.yaml:5:3: spec.imagePullSecrets: not supported yet: put the registry's credentials into the file that docker.config-file names on the hosts, and then leave this field out
    top-14-downward-api
    a.yaml:8:33: spec.containers[0].env[0].valueFrom.resourceFieldRef: not supported yet: ignoring it would leave the variable empty; write the number as value in its place
    a.yaml:9:23: spec.volumes[0].downwardAPI: not supported yet: give the values to the container as env with fieldRef
    top-15-kustomization
    a.yaml:2:1: kind: Kustomization is not supported yet: commit what `kubectl kustomize` prints of it; move this document out of the configured paths
    ");
}

/// A pod whose only container has these further lines.
fn pod(container: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  volumes: [{{name: v, emptyDir: {{}}}}]\n  \
         containers:\n  - name: c\n    {container}\n"
    )
}

fn with_image(container: &str) -> String {
    pod(&format!("image: nginx:1.25\n    {container}"))
}

#[test]
fn names_numbers_and_paths_are_read_as_in_kubernetes() {
    for (name, text) in [
        ("a capability in mixed case", with_image("securityContext: {capabilities: {add: [net_Admin]}}")),
        (
            "no escalation beside SYS_ADMIN",
            with_image(
                "securityContext: {allowPrivilegeEscalation: false, capabilities: {add: [SYS_ADMIN, sys_admin]}}",
            ),
        ),
        (
            "no escalation beside cap_sys_admin",
            with_image(
                "securityContext: {allowPrivilegeEscalation: false, capabilities: {add: [cap_sys_admin]}}",
            ),
        ),
        ("whole bytes in milli", with_image("resources: {limits: {memory: 134217728000m}}")),
        ("a relative terminationMessagePath", with_image("terminationMessagePath: dev/log")),
        (
            "a DaemonSet of OnDelete with numbers for RollingUpdate",
            "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: d}\nspec:\n  selector: {matchLabels: {a: b}}\n  \
             updateStrategy: {type: OnDelete, rollingUpdate: {maxUnavailable: 1}}\n  template:\n    metadata: \
             {labels: {a: b}}\n    spec: {containers: [{name: c, image: 'nginx:1.25'}]}\n"
                .to_owned(),
        ),
        (
            "secrets that hold what their types need",
            "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ntype: kubernetes.io/basic-auth\nstringData: {password: ''}\n---\n\
             apiVersion: v1\nkind: Secret\nmetadata: {name: b}\ntype: kubernetes.io/dockerconfigjson\ndata: \
             {.dockerconfigjson: e30=}\n---\n\
             apiVersion: v1\nkind: Secret\nmetadata: {name: c}\ntype: bootstrap.kubernetes.io/token\n---\n\
             apiVersion: v1\nkind: Secret\nmetadata: {name: d, annotations: {kubernetes.io/service-account.name: x}}\n\
             type: kubernetes.io/service-account-token\n"
                .to_owned(),
        ),
    ] {
        let (_, problems, refused) = read(&text, ReadAs::NewHead);
        assert!(!refused, "{name}: {problems}");
    }
    let (objects, ..) = read(
        &with_image("volumeMounts: [{name: v, mountPath: a/b}]\n    terminationMessagePath: log"),
        ReadAs::NewHead,
    );
    let container = &objects
        .workloads
        .values()
        .next()
        .expect("the pod")
        .template
        .spec
        .containers[0];
    assert_eq!(
        (
            container.mounts[0].path.as_str(),
            container.termination_message_path.as_str()
        ),
        ("/a/b", "/log")
    );
}

#[test]
fn contradictions_are_refused_as_in_kubernetes() {
    let texts = [
        with_image("securityContext: {allowPrivilegeEscalation: false, privileged: true}"),
        with_image(
            "securityContext: {allowPrivilegeEscalation: false, capabilities: {add: [CAP_SYS_ADMIN]}}",
        ),
        with_image("resources: {limits: {memory: 128m}}"),
        with_image("resources: {limits: {memory: 5Mi}}"),
        with_image("workingDir: app"),
        with_image("volumeMounts: [{name: v, mountPath: 'a:b'}]"),
        with_image("volumeMounts: [{name: v, mountPath: ./}]"),
    ];
    let all: String = texts
        .iter()
        .map(|text| read(text, ReadAs::NewHead).1)
        .collect();
    insta::assert_snapshot!(all, @r#"
    a.yaml:9:23: spec.containers[0].securityContext.allowPrivilegeEscalation: false contradicts privileged and CAP_SYS_ADMIN, which escalate by themselves: take these away, or write true
    a.yaml:9:23: spec.containers[0].securityContext.allowPrivilegeEscalation: false contradicts privileged and CAP_SYS_ADMIN, which escalate by themselves: take these away, or write true
    a.yaml:9:26: spec.containers[0].resources.limits.memory: "128m" is a fraction of a byte: write Mi for mebibytes
    a.yaml:9:26: spec.containers[0].resources.limits.memory: Docker takes no memory limit below 6Mi: raise it
    a.yaml:9:5: spec.containers[0].workingDir: "app" is not valid: it must be an absolute path, since no container runtime starts a program in a relative one
    a.yaml:9:30: spec.containers[0].volumeMounts[0].mountPath: must be a directory or file below /, without ".." and ':'
    a.yaml:9:30: spec.containers[0].volumeMounts[0].mountPath: must be a directory or file below /, without ".." and ':'
    "#);
}

/// A document for each rule that older versions did not have.
fn newly_refused() -> Vec<String> {
    let secret = |kind: &str, data: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\ntype: kubernetes.io/{kind}\n{data}\n"
        )
    };
    let service = |spec: &str| {
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{{spec}}}\n")
    };
    let external = |field: &str| {
        service(&format!(
            "type: ExternalName, externalName: a.example.com, {field}"
        ))
    };
    let ports = |field: &str| service(&format!("ports: [{{port: 80}}], {field}"));
    let mut texts = vec![
        secret("basic-auth", "stringData: {foo: x}"),
        secret("ssh-auth", "stringData: {ssh-privatekey: ''}"),
        secret("dockerconfigjson", "stringData: {.dockerconfigjson: not json}"),
        secret("dockerconfigjson", "stringData: {.dockerconfigjson: '[]'}"),
        secret("dockercfg", "data: {.dockercfg: bm90IGpzb24=}"),
        secret("service-account-token", "stringData: {token: x}"),
        ports("externalTrafficPolicy: Cluster"),
        ports("clusterIP: None, externalTrafficPolicy: Cluster"),
        ports("healthCheckNodePort: 30100"),
        ports("type: NodePort, healthCheckNodePort: 30100"),
        ports("allocateLoadBalancerNodePorts: true"),
        external("externalTrafficPolicy: Cluster"),
        external("clusterIP: None"),
        external("ipFamilies: [IPv4]"),
        external("ipFamilyPolicy: SingleStack"),
        with_image("env: [{name: A, value: 'ENC[AES256_GCM,data:AA,iv:AA,tag:AA,type:str]'}]"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: 'ENC[AES256_GCM,data:AA,type:str]'}\n".to_owned(),
        include_str!("practice/msg-sops-after-following-the-advice.yaml").to_owned(),
        // An encrypted value in base64.
        secret("x", "data: {a: RU5DW0FFUzI1Nl9HQ00sZGF0YTpBQSx0eXBlOnN0cl0=}"),
    ];
    for image in [
        "https://registry.example.com/a:1",
        "'nginx:'",
        "nginx:${TAG}",
        "nginx@sha256:00",
        "a//b",
        "a/-b:1",
    ] {
        texts.push(pod(&format!("image: {image}")));
    }
    texts
}

#[test]
fn a_new_rule_refuses_new_heads_and_only_warns_of_accepted_commits() {
    let mut all = String::new();
    for text in newly_refused() {
        let (as_new, problems, refused) = read(&text, ReadAs::NewHead);
        assert!(refused, "{text}");
        all.push_str(&problems);
        let (as_accepted, problems, refused) = read(&text, ReadAs::Accepted);
        assert!(!refused, "{text}{problems}");
        assert!(problems.contains("accepted before this rule"), "{problems}");
        assert_eq!(format!("{as_new:?}"), format!("{as_accepted:?}"), "{text}");
        // `Debug` does not print the values of Secrets: they are compared separately.
        let values = |objects: &Objects| -> Vec<Vec<u8>> {
            let data = objects
                .secrets
                .values()
                .flat_map(|secret| secret.data.values());
            data.map(|value| value.expose().clone()).collect()
        };
        assert_eq!(values(&as_new), values(&as_accepted), "{text}");
    }
    insta::assert_snapshot!(all, @r#"
    a.yaml:1:1: data: a Secret of type kubernetes.io/basic-auth needs the key "username" or "password": add one, or write type: Opaque
    a.yaml:5:14: stringData.ssh-privatekey: must not be empty: put the private key there
    a.yaml:5:14: stringData[.dockerconfigjson]: must be a mapping in JSON, as `docker login` writes it: put the content of that file there
    a.yaml:5:14: stringData[.dockerconfigjson]: must be a mapping in JSON, as `docker login` writes it: put the content of that file there
    a.yaml:5:8: data[.dockercfg]: must be a mapping in JSON, as `docker login` writes it: put the content of that file there
    a.yaml:3:1: metadata.annotations: a Secret of type kubernetes.io/service-account-token needs the annotation kubernetes.io/service-account.name: add it, or write type: Opaque
    a.yaml:4:1: warning: spec.selector: required to lead anywhere: write labels of the pods it is for
    a.yaml:4:29: spec.externalTrafficPolicy: only for the types NodePort and LoadBalancer: set the type, or remove it
    a.yaml:4:1: warning: spec.selector: required to lead anywhere: write labels of the pods it is for
    a.yaml:4:46: spec.externalTrafficPolicy: only for the types NodePort and LoadBalancer: set the type, or remove it
    a.yaml:4:1: warning: spec.selector: required to lead anywhere: write labels of the pods it is for
    a.yaml:4:29: spec.healthCheckNodePort: only for the type LoadBalancer with externalTrafficPolicy Local: remove it
    a.yaml:4:1: warning: spec.selector: required to lead anywhere: write labels of the pods it is for
    a.yaml:4:45: spec.healthCheckNodePort: only for the type LoadBalancer with externalTrafficPolicy Local: remove it
    a.yaml:4:1: warning: spec.selector: required to lead anywhere: write labels of the pods it is for
    a.yaml:4:29: spec.allocateLoadBalancerNodePorts: only for the type LoadBalancer: set the type, or remove it
    a.yaml:4:57: spec.externalTrafficPolicy: only for the types NodePort and LoadBalancer: set the type, or remove it
    a.yaml:4:57: spec.clusterIP: an ExternalName has no address, not even None: remove it
    a.yaml:4:57: spec.ipFamilies: an ExternalName has no address of a family: remove it
    a.yaml:4:57: spec.ipFamilyPolicy: an ExternalName has no address of a family: remove it
    a.yaml:9:21: spec.containers[0].env[0].value: this value is encrypted by SOPS, and decrypting on the host is not supported yet; commit it decrypted where only those who may know its values can read the repository, or keep this document out of the configured paths, and what uses it too
    a.yaml:4:8: data.a: this value is encrypted by SOPS, and decrypting on the host is not supported yet; commit it decrypted where only those who may know its values can read the repository, or keep this document out of the configured paths, and what uses it too
    a.yaml:5:3: stringData.password: this value is encrypted by SOPS, and decrypting on the host is not supported yet; commit it decrypted where only those who may know its values can read the repository, or keep this document out of the configured paths, and what uses it too
    a.yaml:5:8: data.a: this value is encrypted by SOPS, and decrypting on the host is not supported yet; commit it decrypted where only those who may know its values can read the repository, or keep this document out of the configured paths, and what uses it too
    a.yaml:8:5: spec.containers[0].image: "https://registry.example.com/a:1" is no image: a name has no scheme: write what follows the "://"
    a.yaml:8:5: spec.containers[0].image: "nginx:" is no image: nothing follows the colon: write the tag, or leave the colon out for "latest"
    a.yaml:8:5: spec.containers[0].image: `${TAG}` is not substituted here: commit the manifest with the value in its place, as `flux build` or envsubst print it; as it is written: "nginx:${TAG}" is no image: "${TAG}" is no tag: write at most 128 letters, digits, '_', '.' and '-', beginning with none of the last two
    a.yaml:8:5: spec.containers[0].image: "nginx@sha256:00" is no image: "sha256:00" is no digest: write "sha256:" and 64 lower-case hexadecimal digits
    a.yaml:8:5: spec.containers[0].image: "a//b" is no image: "" is no part of a name: write lower-case letters and digits, with '.', '_' or '-' between them
    a.yaml:8:5: spec.containers[0].image: "a/-b:1" is no image: "-b" is no part of a name: write lower-case letters and digits, with '.', '_' or '-' between them
    "#);
}

#[test]
fn older_rules_refuse_accepted_commits_too() {
    for text in [
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {conainers: []}\n",
        include_str!("practice/msg-sops-data.yaml"),
        include_str!("practice/top-06-cronjob.yaml"),
    ] {
        assert!(read(text, ReadAs::Accepted).2, "{text}");
    }
    // An error after more warnings than are kept is not lost.
    let variables: String = (0..300).map(|_| "{name: A, value: x}, ").collect();
    let text = with_image(&format!(
        "env: [{variables}]\n    resources: {{limits: {{memory: 5Mi}}}}"
    ));
    assert!(read(&text, ReadAs::NewHead).2);
    // Older versions lost that error and accepted such commits.
    assert!(!read(&text, ReadAs::Accepted).2);
}
