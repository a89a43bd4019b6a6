//! The target of a request, by its path.

use super::{
    resource::{ApiKind, GROUPS, Resource},
    status::ApiError,
};

/// The target of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// `/version`
    Version,
    /// `/api`
    Versions,
    /// `/apis`
    Groups,
    /// `/apis/{group}`
    Group(&'static str),
    /// `/api/v1`, `/apis/{group}/v1`
    Resources(&'static str),
    /// All objects of a kind, in all namespaces or in one.
    List {
        resource: &'static Resource,
        /// `None` for all namespaces.
        namespace: Option<&'a str>,
    },
    /// One object of a kind.
    Object {
        resource: &'static Resource,
        /// `None` for kinds without a namespace.
        namespace: Option<&'a str>,
        name: &'a str,
    },
    /// `/api/v1/namespaces/{namespace}/pods/{name}/log`
    Log { namespace: &'a str, name: &'a str },
}

impl<'a> Target<'a> {
    /// Parses a path; the error names a path that is not served.
    pub(super) fn parse(path: &'a str) -> Result<Self, ApiError> {
        let segments: Vec<&str> = path
            .split('/')
            .filter(|segment| !segment.is_empty())
            .collect();
        let unknown = || ApiError::unknown_path(path);
        match segments.as_slice() {
            ["version"] => Ok(Self::Version),
            ["api"] => Ok(Self::Versions),
            ["apis"] => Ok(Self::Groups),
            ["apis", group] => Ok(Self::Group(known_group(group).ok_or_else(unknown)?)),
            ["api", "v1"] => Ok(Self::Resources("")),
            ["apis", group, "v1"] => Ok(Self::Resources(known_group(group).ok_or_else(unknown)?)),
            ["api", "v1", rest @ ..] => Self::resource("", rest).ok_or_else(unknown),
            ["apis", group, "v1", rest @ ..] => Self::resource(group, rest).ok_or_else(unknown),
            _ => Err(unknown()),
        }
    }

    fn resource(group: &str, rest: &[&'a str]) -> Option<Self> {
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            _ => (None, rest),
        };
        let (plural, rest) = rest.split_first()?;
        let resource = Resource::of_path(group, plural)?;
        match rest {
            [] => Some(Self::List {
                resource,
                namespace,
            }),
            [name] if resource.namespaced == namespace.is_some() => Some(Self::Object {
                resource,
                namespace,
                name,
            }),
            [name, "log"] if resource.kind == ApiKind::Pod => Some(Self::Log {
                namespace: namespace?,
                name,
            }),
            _ => None,
        }
    }
}

fn known_group(group: &str) -> Option<&'static str> {
    GROUPS.into_iter().find(|known| *known == group)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> (ApiKind, Option<&str>) {
        match Target::parse(text) {
            Ok(Target::List {
                resource,
                namespace,
            }) => (resource.kind, namespace),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn lists_are_found_everywhere_and_by_namespace() {
        assert_eq!(list("/api/v1/pods"), (ApiKind::Pod, None));
        assert_eq!(
            list("/api/v1/namespaces/web/pods"),
            (ApiKind::Pod, Some("web"))
        );
        assert_eq!(list("/api/v1/namespaces"), (ApiKind::Namespace, None));
        assert_eq!(
            list("/apis/apps/v1/namespaces/web/deployments"),
            (ApiKind::Deployment, Some("web"))
        );
    }

    #[test]
    fn a_namespace_is_an_object_of_its_own() {
        let target = Target::parse("/api/v1/namespaces/web").ok();
        assert!(
            matches!(target, Some(Target::Object { resource, namespace: None, name: "web" }) if resource.kind == ApiKind::Namespace)
        );
    }

    #[test]
    fn what_is_not_served_is_not_found() {
        for path in [
            "/",
            "/apis/batch/v1/jobs",
            "/api/v1/pods/x",
            "/api/v1/namespaces/a/pods/b/exec",
            "/api/v2",
        ] {
            assert!(Target::parse(path).is_err(), "{path}");
        }
    }
}
