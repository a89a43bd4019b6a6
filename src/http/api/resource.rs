//! The kinds that the API serves, with the names by which kubectl knows them.

/// One kind of the API.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The name in paths, such as `deployments`.
    pub plural: &'static str,
    /// The singular, such as `deployment`.
    pub singular: &'static str,
    /// The kind, such as `Deployment`.
    pub kind: &'static str,
    /// Whether objects of the kind belong to a namespace.
    pub namespaced: bool,
    /// Short names, such as `deploy`.
    pub short: &'static [&'static str],
    /// Whether `kubectl get all` shows the kind.
    pub all: bool,
}

/// All kinds, in the order in which `get all` shows them.
pub(crate) static RESOURCES: &[Resource] = &[
    core("pods", "pod", "Pod", &["po"], true),
    core(
        "replicationcontrollers",
        "replicationcontroller",
        "ReplicationController",
        &["rc"],
        true,
    ),
    core("services", "service", "Service", &["svc"], true),
    apps("daemonsets", "daemonset", "DaemonSet", &["ds"]),
    apps("deployments", "deployment", "Deployment", &["deploy"]),
    apps("replicasets", "replicaset", "ReplicaSet", &["rs"]),
    core("configmaps", "configmap", "ConfigMap", &["cm"], false),
    core("secrets", "secret", "Secret", &[], false),
    core("endpoints", "endpoints", "Endpoints", &["ep"], false),
    core("events", "event", "Event", &["ev"], false),
    cluster("namespaces", "namespace", "Namespace", &["ns"]),
    cluster("nodes", "node", "Node", &["no"]),
    Resource {
        group: "discovery.k8s.io",
        plural: "endpointslices",
        singular: "endpointslice",
        kind: "EndpointSlice",
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
    kind: &'static str,
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
    kind: &'static str,
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
    kind: &'static str,
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
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            "v1".to_owned()
        } else {
            format!("{}/v1", self.group)
        }
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
