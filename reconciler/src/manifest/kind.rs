//! The known kinds with their API groups, and how each is handled.

use serde_json::Value;

use super::{at::At, similar};

/// How documents of a kind are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The kind is supported: the document is converted to one of our objects.
    Works,
    /// The document is a list whose `items` are documents.
    List,
    /// The kind only has an effect on a cluster's API server.
    NoEffect,
    /// The kind is not supported yet; the text tells what to use meanwhile.
    Later(&'static str),
}

/// One row of the table of kinds.
#[derive(Debug)]
pub(super) struct ManifestKind {
    /// `kind`.
    pub(super) name: &'static str,
    /// API group of the kind; empty for the core group.
    group: &'static str,
    /// API version to which documents are upgraded.
    version: &'static str,
    /// Other `apiVersion`s that are accepted.
    older: &'static [&'static str],
    /// Whether objects of the kind are namespaced.
    pub(super) namespaced: bool,
    /// How documents of the kind are handled.
    pub(super) fate: Fate,
}

impl ManifestKind {
    /// The current `apiVersion` of the kind.
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Whether an `apiVersion` is one of this kind's. For kinds that are not converted only the
    /// group is compared.
    fn is_in(&self, api_version: &str) -> bool {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let version_fits =
            version == self.version || matches!(self.fate, Fate::NoEffect | Fate::Later(_));
        (group == self.group && version_fits) || self.older.contains(&api_version)
    }
}

/// The groups in which Kubernetes served the kinds of `apps/v1` before version 1.16.
const OLD_APPS: &[&str] = &["apps/v1beta2", "apps/v1beta1", "extensions/v1beta1"];

const fn works(
    name: &'static str,
    group: &'static str,
    older: &'static [&'static str],
    namespaced: bool,
) -> ManifestKind {
    ManifestKind {
        name,
        group,
        version: "v1",
        older,
        namespaced,
        fate: Fate::Works,
    }
}

const fn later(
    name: &'static str,
    group: &'static str,
    older: &'static [&'static str],
    instead: &'static str,
) -> ManifestKind {
    ManifestKind {
        name,
        group,
        version: "v1",
        older,
        namespaced: true,
        fate: Fate::Later(instead),
    }
}

/// What to write in place of Endpoints and EndpointSlices.
const ENDPOINTS: &str =
    "use a Service of type ExternalName for what runs elsewhere, and a selector for what runs here";
/// What to write in place of claims and persistent volumes.
const VOLUMES: &str = "use a hostPath volume, and a nodeSelector that keeps the pod where its data is, in place of the claim";

const fn no_effect(name: &'static str, group: &'static str, namespaced: bool) -> ManifestKind {
    ManifestKind {
        name,
        group,
        version: "v1",
        older: &[],
        namespaced,
        fate: Fate::NoEffect,
    }
}

/// All kinds that are known, supported or not.
static KINDS: &[ManifestKind] = &[
    works("Pod", "", &[], true),
    works("ReplicationController", "", &[], true),
    works("ReplicaSet", "apps", OLD_APPS, true),
    works("Deployment", "apps", OLD_APPS, true),
    works("DaemonSet", "apps", OLD_APPS, true),
    works("Service", "", &[], true),
    works("ConfigMap", "", &[], true),
    works("Secret", "", &[], true),
    works("Namespace", "", &[], false),
    works("Node", "", &[], false),
    ManifestKind {
        name: "List",
        group: "",
        version: "v1",
        older: &[],
        namespaced: false,
        fate: Fate::List,
    },
    later("Endpoints", "", &[], ENDPOINTS),
    later("EndpointSlice", "discovery.k8s.io", &[], ENDPOINTS),
    later(
        "StatefulSet",
        "apps",
        OLD_APPS,
        "use a Deployment for each replica, with the strategy Recreate, a hostPath volume and a nodeSelector",
    ),
    later(
        "Job",
        "batch",
        &[],
        "use a bare Pod with restartPolicy OnFailure, or an init container of what needs its result",
    ),
    later(
        "CronJob",
        "batch",
        &[],
        "use a Deployment whose container runs a cron daemon, or a timer of the host",
    ),
    later("PersistentVolumeClaim", "", &[], VOLUMES),
    ManifestKind {
        namespaced: false,
        ..later("PersistentVolume", "", &[], VOLUMES)
    },
    later(
        "NetworkPolicy",
        "networking.k8s.io",
        &["extensions/v1beta1"],
        "nothing here keeps pods from each other, so run what it protects where others run no pods",
    ),
    later(
        "PodDisruptionBudget",
        "policy",
        &[],
        "use the maxUnavailable of the Deployment, which a drain keeps to",
    ),
    later(
        "HorizontalPodAutoscaler",
        "autoscaling",
        &["extensions/v1beta1"],
        "use a fixed number of replicas in the workload",
    ),
    later(
        "Ingress",
        "networking.k8s.io",
        &["extensions/v1beta1"],
        "use a reverse proxy as a Deployment with a NodePort or hostPort, its rules in a ConfigMap",
    ),
    later(
        "Kustomization",
        "kustomize.config.k8s.io",
        &[],
        "commit what `kubectl kustomize` prints of it",
    ),
    no_effect("ServiceAccount", "", true),
    no_effect("LimitRange", "", true),
    no_effect("ResourceQuota", "", true),
    no_effect("PodTemplate", "", true),
    no_effect("Event", "", true),
    no_effect("ControllerRevision", "apps", true),
    no_effect("Role", "rbac.authorization.k8s.io", true),
    no_effect("RoleBinding", "rbac.authorization.k8s.io", true),
    no_effect("ClusterRole", "rbac.authorization.k8s.io", false),
    no_effect("ClusterRoleBinding", "rbac.authorization.k8s.io", false),
    no_effect("PriorityClass", "scheduling.k8s.io", false),
    no_effect("RuntimeClass", "node.k8s.io", false),
    no_effect("StorageClass", "storage.k8s.io", false),
    no_effect("CSIDriver", "storage.k8s.io", false),
    no_effect("IngressClass", "networking.k8s.io", false),
    no_effect("Lease", "coordination.k8s.io", true),
    no_effect("PodSecurityPolicy", "policy", false),
    no_effect("CustomResourceDefinition", "apiextensions.k8s.io", false),
    no_effect("APIService", "apiregistration.k8s.io", false),
    no_effect(
        "ValidatingWebhookConfiguration",
        "admissionregistration.k8s.io",
        false,
    ),
    no_effect(
        "MutatingWebhookConfiguration",
        "admissionregistration.k8s.io",
        false,
    ),
    no_effect(
        "ValidatingAdmissionPolicy",
        "admissionregistration.k8s.io",
        false,
    ),
    no_effect(
        "ValidatingAdmissionPolicyBinding",
        "admissionregistration.k8s.io",
        false,
    ),
];

/// The row for a document's `apiVersion` and `kind`, and the `apiVersion`; `None` after a problem.
pub(super) fn of<'v>(document: &'v Value, at: &At<'_>) -> Option<(&'static ManifestKind, &'v str)> {
    let api_version = text(document, "apiVersion", at);
    let name = text(document, "kind", at);
    let (api_version, name) = (api_version?, name?);

    let in_group = KINDS
        .iter()
        .find(|kind| kind.name == name && kind.is_in(api_version));
    if let Some(kind) = in_group.or_else(|| list_of(name)) {
        if let Fate::Later(instead) = kind.fate {
            at.field("kind").error(format_args!(
                "{name} is not supported yet: {instead}; {OUT_OF_PATHS}"
            ));
            return None;
        }
        return Some((kind, api_version));
    }

    // The kind is not known: say what the author probably meant.
    if let Some(group) = custom_group(api_version) {
        let acts = DEPLOYS
            .iter()
            .find(|(deployer, kind, _)| *deployer == group && *kind == name);
        match acts {
            Some((.., instead)) => at.field("kind").error(format_args!(
                "{name} of {group} deploys by itself elsewhere, and nothing here acts on it: {instead}; {OUT_OF_PATHS}"
            )),
            None => {
                let kubernetes_own = KINDS.iter().find(|kind| kind.name == name).map_or_else(String::new, |kind| {
                    format!(", or write apiVersion: {} if Kubernetes' own {name} is meant", kind.api_version())
                });
                at.field("kind").error(format_args!(
                    "{name} of {group} is a custom resource, and nothing here acts on it: use what works without \
                     its controller; {OUT_OF_PATHS}{kubernetes_own}"
                ));
            }
        }
    } else if let Some(kind) = KINDS.iter().find(|kind| kind.name == name) {
        at.field("apiVersion").error(format_args!(
            "there is no {name} in {api_version:?}: write apiVersion: {}",
            kind.api_version()
        ));
    } else {
        let known = KINDS
            .iter()
            .filter(|kind| kind.fate == Fate::Works)
            .map(|kind| kind.name);
        let hint = similar::did_you_mean(name, known);
        at.field("kind").error(format_args!(
            "the kind {name:?} of {api_version:?} is not known here{hint}: correct it, or move this document out of \
             the configured paths"
        ));
    }
    None
}

/// The advice for every document that cannot have an effect here.
const OUT_OF_PATHS: &str = "move this document out of the configured paths";

/// Custom resources from which a controller elsewhere makes workloads, by group and kind, with what
/// to commit instead.
const DEPLOYS: &[(&str, &str, &str)] = &[
    (
        "serving.knative.dev",
        "Service",
        "write a Deployment and a Service of apiVersion v1",
    ),
    (
        "helm.toolkit.fluxcd.io",
        "HelmRelease",
        "commit what `helm template` prints of its chart",
    ),
    (
        "helm.cattle.io",
        "HelmChart",
        "commit what `helm template` prints of its chart",
    ),
    (
        "kustomize.toolkit.fluxcd.io",
        "Kustomization",
        "configure its path, or commit what `flux build` prints of it",
    ),
    (
        "argoproj.io",
        "Application",
        "configure its path, or commit what `argocd app manifests` prints of it",
    ),
    (
        "argoproj.io",
        "ApplicationSet",
        "commit the manifests of its applications",
    ),
    ("argoproj.io", "Rollout", "write a Deployment"),
    (
        "argoproj.io",
        "Workflow",
        "write a bare Pod with restartPolicy OnFailure",
    ),
    (
        "argoproj.io",
        "CronWorkflow",
        "write a Deployment whose container runs a cron daemon",
    ),
    (
        "apps.openshift.io",
        "DeploymentConfig",
        "write a Deployment",
    ),
];

/// The group of an `apiVersion` that no API server serves by itself. Kubernetes' own groups contain
/// no dot or end in `.k8s.io`; some groups that end so belong to separate controllers.
fn custom_group(api_version: &str) -> Option<&str> {
    let (group, _) = api_version.split_once('/')?;
    if !group.contains('.') || BUILT_IN.contains(&group) {
        return None;
    }
    Some(group)
}

/// The groups with a dot that kube-apiserver 1.34 serves, and kustomize's group.
const BUILT_IN: &[&str] = &[
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "kustomize.config.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
    "storagemigration.k8s.io",
];

/// Whether a document is of a kind without effect, whatever its other content.
pub(super) fn has_no_effect(document: &Value) -> bool {
    let text = |key| document.get(key).and_then(Value::as_str);
    let (Some(api_version), Some(name)) = (text("apiVersion"), text("kind")) else {
        return false;
    };
    KINDS
        .iter()
        .any(|kind| kind.fate == Fate::NoEffect && kind.name == name && kind.is_in(api_version))
}

/// Lists of one kind, such as `PodList`, are lists too.
fn list_of(name: &str) -> Option<&'static ManifestKind> {
    let element = name.strip_suffix("List")?;
    if !KINDS.iter().any(|kind| kind.name == element) {
        return None;
    }
    KINDS.iter().find(|kind| kind.fate == Fate::List)
}

fn text<'v>(document: &'v Value, key: &str, at: &At<'_>) -> Option<&'v str> {
    match document.get(key) {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        None | Some(Value::Null | Value::String(_)) => {
            at.field(key).error(format_args!(
                "required: say what this document is; if it is no manifest, {OUT_OF_PATHS}"
            ));
            None
        }
        Some(_) => {
            at.field(key).error("must be a text");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_that_is_not_supported_yet_names_what_to_use_meanwhile() {
        for kind in KINDS {
            if let Fate::Later(instead) = kind.fate {
                assert!(
                    instead.split(' ').count() > 4 && !instead.contains("remove"),
                    "{kind:?}"
                );
            }
        }
        for (group, kind, instead) in DEPLOYS {
            assert!(
                custom_group(&format!("{group}/v1")).is_some() && !instead.is_empty(),
                "{kind}"
            );
        }
    }

    #[test]
    fn groups_of_kubernetes_are_distinguished_from_those_of_others() {
        for kind in KINDS {
            assert_eq!(custom_group(&kind.api_version()), None, "{kind:?}");
        }
        assert_eq!(
            custom_group("gateway.networking.k8s.io/v1"),
            Some("gateway.networking.k8s.io")
        );
    }
}
