//! The containers of an engine, with the fields that tests read.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Host;

/// A container of a host's engine, in any state, made by the daemon or by another client.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Container {
    /// The pod's namespace; empty for a container that no daemon made.
    pub(crate) namespace: String,
    /// The pod's name.
    pub(crate) pod: String,
    /// The container's name in its pod; `sandbox` for the container that holds the pod's network.
    pub(crate) name: String,
    /// Docker's id.
    pub(crate) id: String,
    /// The container's state in Docker's words: `running`, `exited`, ...
    pub(crate) state: String,
    /// When the container was started last.
    pub(crate) started: String,
    /// How many containers of this name the pod had before.
    pub(crate) attempt: u32,
}

impl Container {
    pub(crate) fn is_running(&self) -> bool {
        self.state == "running"
    }

    /// Whether the container only holds its pod's network, and is not in the pod's manifest.
    pub(crate) fn is_sandbox(&self) -> bool {
        self.name == "sandbox"
    }

    fn of(inspected: &Value) -> Container {
        let label =
            |name: &str| text(&inspected["Config"]["Labels"][format!("io.windlass.{name}")]);
        let sandbox = label("role") == "sandbox";
        Container {
            namespace: label("pod.namespace"),
            pod: label("pod.name"),
            name: if sandbox {
                "sandbox".to_owned()
            } else {
                label("container")
            },
            id: text(&inspected["Id"]),
            state: text(&inspected["State"]["Status"]),
            started: text(&inspected["State"]["StartedAt"]),
            attempt: label("attempt").parse().unwrap_or_default(),
        }
    }
}

impl Host {
    /// All containers of the engine.
    #[track_caller]
    pub(crate) fn containers(&self) -> BTreeSet<Container> {
        let listed = self
            .ask_engine("/containers/json?all=true")
            .unwrap_or_else(|| panic!("the engine of {} lists no containers", self.name));
        let ids = listed.as_array().into_iter().flatten();
        // A container may be removed between the list and its inspection, and is left out then.
        ids.map(|container| text(&container["Id"]))
            .filter_map(|id| self.ask_engine(&format!("/containers/{id}/json")))
            .map(|inspected| Container::of(&inspected))
            .collect()
    }
}

/// The text of a JSON string; the empty text for any other value.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Whether a pod, as the API shows it, is ready.
pub(crate) fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|conditions| {
        conditions
            .iter()
            .any(|condition| is(&condition["type"], "Ready") && is(&condition["status"], "True"))
    })
}

/// Whether a JSON value is a string with this text.
pub(crate) fn is(value: &Value, wanted: &str) -> bool {
    value.as_str() == Some(wanted)
}
