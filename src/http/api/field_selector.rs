//! The `fieldSelector` of a query, and the fields by which objects of each kind are selected.

use std::borrow::Cow;

use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use super::{object::ApiObject, resource::Resource, selector::SelectorError};

/// A field selector such as `metadata.name=web,status.phase!=Running`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSelector(Vec<FieldRequirement>);

#[derive(Debug, PartialEq, Eq)]
struct FieldRequirement {
    field: String,
    equal: bool,
    value: String,
}

impl FieldSelector {
    /// Parses the text. A field by which objects of the kind are not selected is refused, because a
    /// selector without the field would select too much.
    pub(super) fn parse(text: &str, resource: &Resource) -> Result<Self, SelectorError> {
        let example = ApiObject::empty(resource.kind, ObjectMeta::default());
        let terms = text.split(',').map(str::trim);

        let mut requirements = Vec::new();
        for term in terms.filter(|term| !term.is_empty()) {
            let requirement =
                requirement(term).ok_or_else(|| SelectorError::FieldTerm(term.to_owned()))?;
            if selected_by(&example, &requirement.field).is_none() {
                return Err(SelectorError::UnsupportedField(requirement.field));
            }
            requirements.push(requirement);
        }
        Ok(Self(requirements))
    }

    /// Whether the object's fields match the selector; an absent field is empty.
    pub(super) fn matches(&self, object: &ApiObject) -> bool {
        self.0.iter().all(|requirement| {
            let present = selected_by(object, &requirement.field).unwrap_or_default();
            (present == requirement.value) == requirement.equal
        })
    }

    /// The value of `metadata.name=`, if the selector contains it.
    pub(super) fn name(&self) -> Option<&str> {
        let by_name =
            |requirement: &&FieldRequirement| requirement.equal && requirement.field == NAME;
        let requirement = self.0.iter().find(by_name)?;
        Some(&requirement.value)
    }
}

/// Parses `field=value`, `field==value` or `field!=value`.
fn requirement(term: &str) -> Option<FieldRequirement> {
    let (field, equal, value) = if let Some((field, value)) = term.split_once("!=") {
        (field, false, value)
    } else {
        let (field, value) = term.split_once("==").or_else(|| term.split_once('='))?;
        (field, true, value)
    };
    Some(FieldRequirement {
        field: field.to_owned(),
        equal,
        value: value.to_owned(),
    })
}

const NAME: &str = "metadata.name";

/// The value of a field by which kube-apiserver selects objects of this kind, empty if the object
/// does not have it; `None` if there is no such field. The fields are those of `GetAttrs` in
/// kube-apiserver's `pkg/registry/*/*/strategy.go` that Windlass fills.
fn selected_by<'o>(object: &'o ApiObject, field: &str) -> Option<Cow<'o, str>> {
    let metadata = object.metadata();
    if field == NAME {
        return Some(text(metadata.name.as_ref()));
    }
    let is_namespace = field == "metadata.namespace";
    match object {
        ApiObject::Namespace(_) | ApiObject::Node(_) if is_namespace => None,
        _ if is_namespace => Some(text(metadata.namespace.as_ref())),
        ApiObject::Pod(pod) => of_pod(pod, field),
        ApiObject::Namespace(namespace) => {
            let phase = namespace
                .status
                .as_ref()
                .and_then(|status| status.phase.as_ref());
            (field == "status.phase").then(|| text(phase))
        }
        ApiObject::Node(node) => {
            let spec = node.spec.as_ref();
            let unschedulable = spec.and_then(|spec| spec.unschedulable).unwrap_or_default();
            (field == "spec.unschedulable").then(|| Cow::Owned(unschedulable.to_string()))
        }
        ApiObject::Secret(secret) => (field == "type").then(|| text(secret.type_.as_ref())),
        ApiObject::Event(event) => of_event(event, field),
        ApiObject::ReplicationController(_)
        | ApiObject::Service(_)
        | ApiObject::DaemonSet(_)
        | ApiObject::Deployment(_)
        | ApiObject::ReplicaSet(_)
        | ApiObject::ConfigMap(_)
        | ApiObject::Endpoints(_)
        | ApiObject::EndpointSlice(_) => None,
    }
}

fn of_pod<'o>(pod: &'o core::Pod, field: &str) -> Option<Cow<'o, str>> {
    let (spec, status) = (pod.spec.as_ref(), pod.status.as_ref());
    Some(text(match field {
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.as_ref()),
        "spec.restartPolicy" => spec.and_then(|spec| spec.restart_policy.as_ref()),
        "status.phase" => status.and_then(|status| status.phase.as_ref()),
        "status.podIP" => status.and_then(|status| status.pod_ip.as_ref()),
        _ => return None,
    }))
}

fn of_event<'o>(event: &'o core::Event, field: &str) -> Option<Cow<'o, str>> {
    let about = &event.involved_object;
    Some(text(match field {
        "type" => event.type_.as_ref(),
        "reason" => event.reason.as_ref(),
        "involvedObject.kind" => about.kind.as_ref(),
        "involvedObject.namespace" => about.namespace.as_ref(),
        "involvedObject.name" => about.name.as_ref(),
        "involvedObject.uid" => about.uid.as_ref(),
        "involvedObject.apiVersion" => about.api_version.as_ref(),
        "involvedObject.resourceVersion" => about.resource_version.as_ref(),
        "involvedObject.fieldPath" => about.field_path.as_ref(),
        _ => return None,
    }))
}

fn text(field: Option<&String>) -> Cow<'_, str> {
    Cow::Borrowed(field.map_or("", String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str, kind: &str, object: &ApiObject) -> Result<bool, SelectorError> {
        let resource = Resource::of_word(kind).expect("a kind of the API");
        FieldSelector::parse(selector, resource).map(|selector| selector.matches(object))
    }

    fn named(name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn field_selectors_select_or_are_refused() {
        let pod = ApiObject::Pod(Box::new(core::Pod {
            metadata: named("a"),
            spec: Some(core::PodSpec {
                node_name: Some("n1".to_owned()),
                ..core::PodSpec::default()
            }),
            status: Some(core::PodStatus {
                phase: Some("Running".to_owned()),
                ..core::PodStatus::default()
            }),
        }));
        let matches = |selector: &str| matches(selector, "po", &pod);
        assert_eq!(
            matches("metadata.name=a,status.phase!=Pending,spec.nodeName==n1"),
            Ok(true)
        );
        assert_eq!(matches("status.phase=Pending"), Ok(false));
        assert_eq!(
            matches("spec.replicas=1"),
            Err(SelectorError::UnsupportedField("spec.replicas".to_owned()))
        );
        assert!(matches("status.phase").is_err());
    }

    #[test]
    fn a_node_is_selected_by_its_cordon() {
        let cordoned = ApiObject::Node(Box::new(core::Node {
            metadata: named("n1"),
            spec: Some(core::NodeSpec {
                unschedulable: Some(true),
                ..core::NodeSpec::default()
            }),
            ..core::Node::default()
        }));
        let matches = |selector: &str| matches(selector, "no", &cordoned);
        assert_eq!(matches("spec.unschedulable=true"), Ok(true));
        assert_eq!(matches("spec.unschedulable!=true"), Ok(false));
        assert!(matches("metadata.namespace=default").is_err());
    }
}
