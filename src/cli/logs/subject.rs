//! The pod whose log is printed: the named one, or one of the pods of the named object.
//!
//! As kubectl does, the pods of an object are those that its selector selects, one of them is
//! chosen, and standard error names the choice.

use std::cmp::Reverse;

use reconciler::foreign;
use serde_json::{Map, Value};

use crate::{
    cli::{
        args::LogsArgs,
        client::{Client, query, segment},
        exit::CliError,
        output::complain,
    },
    http::api::{ApiKind, RESOURCES, Resource},
};

/// The name of the pod.
pub(super) async fn pod(client: &Client, args: &LogsArgs) -> Result<String, CliError> {
    let Some((word, name)) = args.subject.split_once('/') else {
        return Ok(args.subject.clone());
    };
    let resource = Resource::of_word(word).ok_or_else(|| unknown(word))?;
    if resource.kind == ApiKind::Pod {
        return Ok(name.to_owned());
    }

    let namespace = Some(args.namespace.as_str());
    segment(&args.namespace)?;
    let path = resource.path(namespace, Some(segment(name)?));
    let object = client.get_exact(&path).await?;
    let Some(selector) = selector(&object["spec"]["selector"]) else {
        return Err(CliError::Usage(format!(
            "{} selects no pods: name a pod, which `windlass get pods` lists",
            args.subject
        )));
    };

    let pods = Resource::of_word("pods").ok_or_else(|| unknown("pods"))?;
    let filter = query(&[("labelSelector", Some(selector))]);
    let path = format!("{}{filter}", pods.path(namespace, None));
    let list = client.get_exact(&path).await?;
    let found = list["items"].as_array().map_or(&[][..], Vec::as_slice);
    let name = choose(found).ok_or_else(|| {
        CliError::Answer(format!(
            "{} has no pods yet: see `windlass status`",
            args.subject
        ))
    })?;
    if found.len() > 1 {
        complain(&format!(
            "Found {} pods, using pod/{}",
            found.len(),
            foreign::escape(&name)
        ));
    }
    Ok(name)
}

fn unknown(word: &str) -> CliError {
    let kinds: Vec<&str> = RESOURCES.iter().map(|resource| resource.plural).collect();
    CliError::Usage(format!(
        "`{word}` is not a known kind: the kinds are {}",
        kinds.join(", ")
    ))
}

/// The label selector of an object, as a query has it; `None` if the object has none. Services and
/// ReplicationControllers have a map of labels, the other kinds requirements.
fn selector(selector: &Value) -> Option<String> {
    let selector = selector.as_object()?;
    let is_plain = selector.values().all(Value::is_string);
    let terms = if is_plain {
        equalities(selector)
    } else {
        let labels = selector.get("matchLabels").and_then(Value::as_object);
        let mut terms = labels.map(equalities).unwrap_or_default();
        let expressions = selector.get("matchExpressions").and_then(Value::as_array);
        terms.extend(expressions.into_iter().flatten().filter_map(requirement));
        terms
    };
    (!terms.is_empty()).then(|| terms.join(","))
}

fn equalities(labels: &Map<String, Value>) -> Vec<String> {
    labels
        .iter()
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)))
        .collect()
}

fn requirement(expression: &Value) -> Option<String> {
    let key = expression["key"].as_str()?;
    let values: Vec<&str> = expression["values"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let values = values.join(",");
    match expression["operator"].as_str()? {
        "In" => Some(format!("{key} in ({values})")),
        "NotIn" => Some(format!("{key} notin ({values})")),
        "Exists" => Some(key.to_owned()),
        "DoesNotExist" => Some(format!("!{key}")),
        _ => None,
    }
}

/// The pod whose log says most, by kubectl's order: one that stays, that runs, that is ready, that
/// was restarted most often, and that is oldest.
fn choose(pods: &[Value]) -> Option<String> {
    let restarts = |pod: &Value| {
        let containers = pod["status"]["containerStatuses"].as_array();
        let counts = containers
            .into_iter()
            .flatten()
            .filter_map(|container| container["restartCount"].as_u64());
        counts.max().unwrap_or_default()
    };
    let is_ready = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array();
        conditions
            .into_iter()
            .flatten()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let best = pods.iter().min_by_key(|pod| {
        (
            !pod["metadata"]["deletionTimestamp"].is_null(),
            pod["status"]["phase"] != "Running",
            !is_ready(pod),
            Reverse(restarts(pod)),
            text(&pod["metadata"]["creationTimestamp"]),
            text(&pod["metadata"]["name"]),
        )
    });
    best.map(|pod| text(&pod["metadata"]["name"]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_selectors_of_all_kinds_become_a_query() {
        let plain = json!({"app": "web", "tier": "front"});
        assert_eq!(selector(&plain).as_deref(), Some("app=web,tier=front"));
        let requirements = json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["a", "b"]},
                {"key": "zone", "operator": "NotIn", "values": ["c"]},
                {"key": "old", "operator": "DoesNotExist"},
                {"key": "new", "operator": "Exists"},
            ],
        });
        assert_eq!(
            selector(&requirements).as_deref(),
            Some("app=web,tier in (a,b),zone notin (c),!old,new")
        );
        for without in [json!(null), json!({})] {
            assert_eq!(selector(&without), None);
        }
    }

    #[test]
    fn a_running_ready_pod_that_stays_is_chosen_first() {
        let pod = |name: &str, phase: &str, ready: &str, restarts: u64, stops: bool| {
            let mut pod = json!({
                "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
                "status": {
                    "phase": phase,
                    "conditions": [{"type": "Ready", "status": ready}],
                    "containerStatuses": [{"restartCount": restarts}],
                },
            });
            if stops {
                pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            pod
        };
        let mut pods = vec![
            pod("stopping", "Running", "True", 0, true),
            pod("pending", "Pending", "False", 0, false),
            pod("unready", "Running", "False", 0, false),
            pod("crashing", "Running", "False", 4, false),
            pod("ready", "Running", "True", 0, false),
        ];
        for expected in ["ready", "crashing", "unready", "pending", "stopping"] {
            assert_eq!(choose(&pods).as_deref(), Some(expected));
            pods.retain(|pod| pod["metadata"]["name"] != expected);
        }
        assert_eq!(choose(&pods), None);
    }
}
