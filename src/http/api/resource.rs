//! The kinds that the API serves, with the names by which kubectl knows them.

use std::fmt;

use reconciler::name::WorkloadKind;

/// The kinds of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ApiKind {
    Pod,
    ReplicationController,
    Service,
    DaemonSet,
    Deployment,
    ReplicaSet,
    ConfigMap,
    Secret,
    Endpoints,
    Event,
    Namespace,
    Node,
    EndpointSlice,
}

impl ApiKind {
    /// The name in manifests, such as `Deployment`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::ReplicationController => "ReplicationController",
            Self::Service => "Service",
            Self::DaemonSet => "DaemonSet",
            Self::Deployment => "Deployment",
            Self::ReplicaSet => "ReplicaSet",
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
            Self::Endpoints => "Endpoints",
            Self::Event => "Event",
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::EndpointSlice => "EndpointSlice",
        }
    }

    /// The group and version, such as `apps/v1`.
    pub(crate) fn api_version(self) -> &'static str {
        match self {
            Self::Pod
            | Self::ReplicationController
            | Self::Service
            | Self::ConfigMap
            | Self::Secret
            | Self::Endpoints
            | Self::Event
            | Self::Namespace
            | Self::Node => "v1",
            Self::DaemonSet | Self::Deployment | Self::ReplicaSet => "apps/v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
        }
    }

    /// The kind as an owner of pods; `None` if no object of the kind owns pods.
    pub(crate) fn workload(self) -> Option<WorkloadKind> {
        match self {
            Self::Pod => Some(WorkloadKind::Pod),
            Self::ReplicationController => Some(WorkloadKind::ReplicationController),
            Self::DaemonSet => Some(WorkloadKind::DaemonSet),
            Self::Deployment => Some(WorkloadKind::Deployment),
            Self::ReplicaSet => Some(WorkloadKind::ReplicaSet),
            Self::Service
            | Self::ConfigMap
            | Self::Secret
            | Self::Endpoints
            | Self::Event
            | Self::Namespace
            | Self::Node
            | Self::EndpointSlice => None,
        }
    }
}

impl From<WorkloadKind> for ApiKind {
    fn from(kind: WorkloadKind) -> Self {
        match kind {
            WorkloadKind::Pod => Self::Pod,
            WorkloadKind::ReplicaSet => Self::ReplicaSet,
            WorkloadKind::ReplicationController => Self::ReplicationController,
            WorkloadKind::Deployment => Self::Deployment,
            WorkloadKind::DaemonSet => Self::DaemonSet,
        }
    }
}

impl fmt::Display for ApiKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One kind of the API, with its names in paths and on the command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The name in paths, such as `deployments`.
    pub plural: &'static str,
    /// The singular, such as `deployment`.
    pub singular: &'static str,
    /// The kind, such as `Deployment`.
    pub kind: ApiKind,
    /// Whether objects of the kind belong to a namespace.
    pub namespaced: bool,
    /// Short names, such as `deploy`.
    pub short: &'static [&'static str],
    /// Whether `kubectl get all` shows the kind.
    pub all: bool,
}

/// The kind that errors about logs name.
pub(super) const PODS: Resource = core("pods", "pod", ApiKind::Pod, &["po"], true);

/// All kinds, in the order in which `kubectl get all` shows them.
pub(crate) static RESOURCES: &[Resource] = &[
    PODS,
    core(
        "replicationcontrollers",
        "replicationcontroller",
        ApiKind::ReplicationController,
        &["rc"],
        true,
    ),
    core("services", "service", ApiKind::Service, &["svc"], true),
    apps("daemonsets", "daemonset", ApiKind::DaemonSet, &["ds"]),
    apps(
        "deployments",
        "deployment",
        ApiKind::Deployment,
        &["deploy"],
    ),
    apps("replicasets", "replicaset", ApiKind::ReplicaSet, &["rs"]),
    core(
        "configmaps",
        "configmap",
        ApiKind::ConfigMap,
        &["cm"],
        false,
    ),
    core("secrets", "secret", ApiKind::Secret, &[], false),
    core("endpoints", "endpoints", ApiKind::Endpoints, &["ep"], false),
    core("events", "event", ApiKind::Event, &["ev"], false),
    cluster("namespaces", "namespace", ApiKind::Namespace, &["ns"]),
    cluster("nodes", "node", ApiKind::Node, &["no"]),
    Resource {
        group: "discovery.k8s.io",
        plural: "endpointslices",
        singular: "endpointslice",
        kind: ApiKind::EndpointSlice,
        namespaced: true,
        short: &[],
        all: false,
    },
];

/// The groups besides the core group, each at v1.
pub(super) const GROUPS: [&str; 2] = ["apps", "discovery.k8s.io"];

const fn core(
    plural: &'static str,
    singular: &'static str,
    kind: ApiKind,
    short: &'static [&'static str],
    all: bool,
) -> Resource {
    Resource {
        group: "",
        plural,
        singular,
        kind,
        namespaced: true,
        short,
        all,
    }
}

const fn apps(
    plural: &'static str,
    singular: &'static str,
    kind: ApiKind,
    short: &'static [&'static str],
) -> Resource {
    Resource {
        group: "apps",
        plural,
        singular,
        kind,
        namespaced: true,
        short,
        all: true,
    }
}

const fn cluster(
    plural: &'static str,
    singular: &'static str,
    kind: ApiKind,
    short: &'static [&'static str],
) -> Resource {
    Resource {
        group: "",
        plural,
        singular,
        kind,
        namespaced: false,
        short,
        all: false,
    }
}

impl Resource {
    /// The kind of a path.
    pub(crate) fn of_path(group: &str, plural: &str) -> Option<&'static Self> {
        RESOURCES
            .iter()
            .find(|resource| resource.group == group && resource.plural == plural)
    }

    /// The kind that a person names: plural, singular, short name or kind, in any case.
    pub(crate) fn of_word(word: &str) -> Option<&'static Self> {
        let word = word.to_lowercase();
        RESOURCES.iter().find(|resource| {
            resource.plural == word
                || resource.singular == word
                || resource.short.contains(&word.as_str())
        })
    }

    /// The group and version, such as `apps/v1`.
    pub(crate) fn api_version(&self) -> &'static str {
        self.kind.api_version()
    }

    /// The path of the kind's list, or of one object.
    pub(crate) fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let mut path = if self.group.is_empty() {
            "/api/v1".to_owned()
        } else {
            format!("/apis/{}/v1", self.group)
        };
        if self.namespaced
            && let Some(namespace) = namespace
        {
            path = format!("{path}/namespaces/{namespace}");
        }
        path = format!("{path}/{}", self.plural);
        match name {
            Some(name) => format!("{path}/{name}"),
            None => path,
        }
    }

    /// The name in error messages, such as `deployments.apps`.
    pub(crate) fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        Resource as KubernetesKind,
        api::{apps::v1 as apps, core::v1 as core, discovery::v1 as discovery},
    };

    use super::*;

    fn names<K: KubernetesKind>() -> [&'static str; 4] {
        [K::KIND, K::API_VERSION, K::GROUP, K::URL_PATH_SEGMENT]
    }

    #[test]
    fn kinds_have_the_names_and_groups_that_kubernetes_gives_them() {
        for resource in RESOURCES {
            let expected = match resource.kind {
                ApiKind::Pod => names::<core::Pod>(),
                ApiKind::ReplicationController => names::<core::ReplicationController>(),
                ApiKind::Service => names::<core::Service>(),
                ApiKind::DaemonSet => names::<apps::DaemonSet>(),
                ApiKind::Deployment => names::<apps::Deployment>(),
                ApiKind::ReplicaSet => names::<apps::ReplicaSet>(),
                ApiKind::ConfigMap => names::<core::ConfigMap>(),
                ApiKind::Secret => names::<core::Secret>(),
                ApiKind::Endpoints => names::<core::Endpoints>(),
                ApiKind::Event => names::<core::Event>(),
                ApiKind::Namespace => names::<core::Namespace>(),
                ApiKind::Node => names::<core::Node>(),
                ApiKind::EndpointSlice => names::<discovery::EndpointSlice>(),
            };
            let version = resource.api_version();
            let own = [
                resource.kind.as_str(),
                version,
                resource.group,
                resource.plural,
            ];
            assert_eq!(own, expected);
        }
    }
}
