//! The names of all things, as distinct types that cannot be confused.
//!
//! All of them are ordered and hashed by their text, so that every map in the core has the same
//! order on every host.

mod commit;
mod link;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::commit::{CommitId, CommitPrefix, NotACommitId};
pub use self::link::LinkName;

macro_rules! text_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Wraps a text that is already known to be a valid name of this sort.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

text_name! {
    /// The name of a host in the cluster (`metadata.name` of a Node).
    NodeName
}
text_name! {
    /// The id of an installation, which is one data directory: twelve random digits, made at the
    /// first start. Its containers carry the id as a label.
    Installation
}
text_name! {
    /// A pod's `metadata.uid`: a UUID that no other pod of this cluster has at any time.
    PodUid
}
text_name! {
    /// The hash of a pod template as it was written, after the version of its algorithm, such as
    /// `1-9f86d081884c7d65`.
    TemplateHash
}
text_name! {
    /// The engine's full id of a container.
    ContainerId
}
text_name! {
    /// An image as a manifest names it: `registry.example.com:5000/team/name:tag`, its parts not
    /// checked. Which image a tag stands for is recorded for each commit.
    #[derive(Default)]
    ImageReference
}
text_name! {
    /// The engine's id of an image, `sha256:` and 64 hexadecimal digits.
    ImageId
}

impl TemplateHash {
    /// The part used in pod names and in the `pod-template-hash` label: ten digits.
    pub fn short(&self) -> &str {
        let digits = self
            .0
            .split_once('-')
            .map_or(self.0.as_str(), |(_, digits)| digits);
        digits.get(..10).unwrap_or(digits)
    }
}

/// Namespace and name of a namespaced object; prints as `namespace/name`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// The namespace; `default` where the manifest has none.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl ObjectKey {
    /// The key with this namespace and name.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Serialized as `namespace/name`, since a key of a JSON map must be a text.
impl Serialize for ObjectKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ObjectKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (namespace, name) = text
            .split_once('/')
            .ok_or_else(|| serde::de::Error::custom("expected namespace/name"))?;
        Ok(Self::new(namespace, name))
    }
}

/// The kinds that own pods.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum WorkloadKind {
    /// A bare Pod: it owns the one pod of its own name.
    Pod,
    /// apps/v1 ReplicaSet.
    ReplicaSet,
    /// v1 ReplicationController.
    ReplicationController,
    /// apps/v1 Deployment.
    Deployment,
    /// apps/v1 DaemonSet.
    DaemonSet,
}

impl WorkloadKind {
    /// The kind as a manifest writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::ReplicaSet => "ReplicaSet",
            Self::ReplicationController => "ReplicationController",
            Self::Deployment => "Deployment",
            Self::DaemonSet => "DaemonSet",
        }
    }

    /// The kind with this name; `None` if no such kind owns pods.
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::Pod,
            Self::ReplicaSet,
            Self::ReplicationController,
            Self::Deployment,
            Self::DaemonSet,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == text)
    }
}

/// Kind, namespace and name of an owner of pods; prints and serializes as `Deployment/default/web`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadKey {
    /// The kind.
    pub kind: WorkloadKind,
    /// Namespace and name.
    pub object: ObjectKey,
}

impl fmt::Display for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), self.object)
    }
}

impl fmt::Debug for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for WorkloadKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl std::str::FromStr for WorkloadKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(3, '/');
        let kind = parts
            .next()
            .and_then(WorkloadKind::parse)
            .ok_or("unknown kind of workload")?;
        let (Some(namespace), Some(name)) = (parts.next(), parts.next()) else {
            return Err("expected kind/namespace/name");
        };
        Ok(Self {
            kind,
            object: ObjectKey::new(namespace, name),
        })
    }
}

impl<'de> Deserialize<'de> for WorkloadKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Maximum number of names that a message quotes from a long list.
const NAMED: usize = 5;

/// The first names of a list, for a message: `a, b, c, d, e, ...`.
pub fn first_few<T: fmt::Display>(names: impl IntoIterator<Item = T>) -> String {
    let mut names = names.into_iter();
    let mut named: Vec<String> = names
        .by_ref()
        .take(NAMED)
        .map(|name| name.to_string())
        .collect();
    if names.next().is_some() {
        named.push("...".to_owned());
    }
    named.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_as_one_text_and_read_again() {
        let object = ObjectKey::new("default", "web");
        let text = serde_json::to_string(&object).expect("a key");
        assert_eq!(text, r#""default/web""#);
        assert_eq!(
            serde_json::from_str::<ObjectKey>(&text).expect("a key"),
            object
        );

        let key = WorkloadKey {
            kind: WorkloadKind::DaemonSet,
            object,
        };
        let text = serde_json::to_string(&key).expect("a key");
        assert_eq!(text, r#""DaemonSet/default/web""#);
        assert_eq!(
            serde_json::from_str::<WorkloadKey>(&text).expect("a key"),
            key
        );

        let why = |text: &str| {
            serde_json::from_str::<WorkloadKey>(text)
                .expect_err(text)
                .to_string()
        };
        assert_eq!(why(r#""Thing/default/web""#), "unknown kind of workload");
        assert_eq!(why(r#""Pod/default""#), "expected kind/namespace/name");
        let why = serde_json::from_str::<ObjectKey>(r#""web""#).expect_err("no key");
        assert_eq!(why.to_string(), "expected namespace/name");
    }

    #[test]
    fn names_are_printed_as_they_are_written_also_for_developers() {
        let object = ObjectKey::new("default", "web");
        assert_eq!(format!("{object:?} {object}"), "default/web default/web");
        for kind in [
            "Pod",
            "ReplicaSet",
            "ReplicationController",
            "Deployment",
            "DaemonSet",
        ] {
            let text = format!("{kind}/default/web");
            let key: WorkloadKey = text.parse().expect(kind);
            assert_eq!(format!("{key:?} {key}"), format!("{text} {text}"));
        }
    }

    #[test]
    fn a_template_hash_is_shortened_to_ten_digits_without_its_version() {
        for (hash, short) in [
            ("1-0123456789abcdef", "0123456789"),
            ("0123456789abcdef", "0123456789"),
            ("1-0123", "0123"),
        ] {
            assert_eq!(TemplateHash::new(hash).short(), short);
        }
    }

    #[test]
    fn a_long_list_is_quoted_by_its_first_names() {
        assert_eq!(first_few(Vec::<&str>::new()), "");
        assert_eq!(first_few(1..=5), "1, 2, 3, 4, 5");
        assert_eq!(first_few(1..=6), "1, 2, 3, 4, 5, ...");
    }
}
