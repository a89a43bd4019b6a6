//! Which kinds there are, in which API groups, and what becomes of each.

use serde_json::Value;

use super::{at::At, similar};

/// What becomes of a document of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It becomes one of our objects.
    Works,
    /// It is a list whose `items` are documents.
    List,
    /// It means something only to a cluster's API server.
    NoEffect,
    /// It will work one day.
    Later,
}

/// One row of the table.
#[derive(Debug)]
pub(super) struct Kind {
    /// `kind`.
    pub(super) name: &'static str,
    /// Its API group; empty for the core group.
    group: &'static str,
    /// The version it is upgraded to.
    version: &'static str,
    /// Other `apiVersion`s that are taken.
    older: &'static [&'static str],
    /// Whether its objects live in a namespace.
    pub(super) namespaced: bool,
    /// What becomes of it.
    pub(super) fate: Fate,
}

impl Kind {
    /// The current `apiVersion`.
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Whether an `apiVersion` is one of this kind's. Versions of kinds that are not read do not matter, only groups.
    fn is_in(&self, api_version: &str) -> bool {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let version_fits = version == self.version || matches!(self.fate, Fate::NoEffect | Fate::Later);
        (group == self.group && version_fits) || self.older.contains(&api_version)
    }
}

const OLD_APPS: &[&str] = &["apps/v1beta2", "apps/v1beta1", "extensions/v1beta1"];

const fn works(
    name: &'static str,
    group: &'static str,
    older: &'static [&'static str],
    namespaced: bool,
) -> Kind {
    Kind { name, group, version: "v1", older, namespaced, fate: Fate::Works }
}

const fn later(name: &'static str, group: &'static str, older: &'static [&'static str]) -> Kind {
    Kind { name, group, version: "v1", older, namespaced: true, fate: Fate::Later }
}

const fn no_effect(name: &'static str, group: &'static str, namespaced: bool) -> Kind {
    Kind { name, group, version: "v1", older: &[], namespaced, fate: Fate::NoEffect }
}

static KINDS: &[Kind] = &[
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
    Kind { name: "List", group: "", version: "v1", older: &[], namespaced: false, fate: Fate::List },
    later("Endpoints", "", &[]),
    later("EndpointSlice", "discovery.k8s.io", &[]),
    later("StatefulSet", "apps", OLD_APPS),
    later("Job", "batch", &[]),
    later("CronJob", "batch", &[]),
    later("PersistentVolumeClaim", "", &[]),
    Kind { namespaced: false, ..later("PersistentVolume", "", &[]) },
    later("NetworkPolicy", "networking.k8s.io", &["extensions/v1beta1"]),
    later("PodDisruptionBudget", "policy", &[]),
    later("HorizontalPodAutoscaler", "autoscaling", &["extensions/v1beta1"]),
    later("Ingress", "networking.k8s.io", &["extensions/v1beta1"]),
    later("Kustomization", "kustomize.config.k8s.io", &[]),
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
    no_effect("ValidatingWebhookConfiguration", "admissionregistration.k8s.io", false),
    no_effect("MutatingWebhookConfiguration", "admissionregistration.k8s.io", false),
    no_effect("ValidatingAdmissionPolicy", "admissionregistration.k8s.io", false),
    no_effect("ValidatingAdmissionPolicyBinding", "admissionregistration.k8s.io", false),
];

/// The row of a document's `apiVersion` and `kind`, and its `apiVersion`; `None` after a problem.
pub(super) fn of<'v>(document: &'v Value, at: &At<'_>) -> Option<(&'static Kind, &'v str)> {
    let api_version = text(document, "apiVersion", at);
    let name = text(document, "kind", at);
    let (api_version, name) = (api_version?, name?);
    let in_group = KINDS.iter().find(|kind| kind.name == name && kind.is_in(api_version));
    if let Some(kind) = in_group.or_else(|| list_of(name)) {
        if kind.fate == Fate::Later {
            at.field("kind").error(format_args!("{name} is not supported yet: remove this document"));
            return None;
        }
        return Some((kind, api_version));
    }
    if let Some(kind) = KINDS.iter().find(|kind| kind.name == name) {
        at.field("apiVersion").error(format_args!(
            "there is no {name} in {api_version:?}: write apiVersion: {}",
            kind.api_version()
        ));
    } else {
        let known = KINDS.iter().filter(|kind| kind.fate == Fate::Works).map(|kind| kind.name);
        let hint = similar::did_you_mean(name, known);
        at.field("kind").error(format_args!(
            "the kind {name:?} of {api_version:?} is not known here{hint}: correct or remove it"
        ));
    }
    None
}

/// `PodList` and its like are lists too.
fn list_of(name: &str) -> Option<&'static Kind> {
    let element = name.strip_suffix("List")?;
    KINDS
        .iter()
        .any(|kind| kind.name == element)
        .then(|| KINDS.iter().find(|kind| kind.fate == Fate::List))
        .flatten()
}

fn text<'v>(document: &'v Value, key: &str, at: &At<'_>) -> Option<&'v str> {
    match document.get(key) {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        None | Some(Value::Null | Value::String(_)) => {
            at.field(key).error("required: say what this document is");
            None
        }
        Some(_) => {
            at.field(key).error("must be a text");
            None
        }
    }
}
