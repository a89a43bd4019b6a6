//! What an engine has, as far as tests look at it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Host;

/// A container of a host's engine, whatever its state and whoever made it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Container {
    /// The pod's namespace; empty for a container that no daemon made.
    pub(crate) namespace: String,
    /// The pod's name.
    pub(crate) pod: String,
    /// The container's name in its pod; `sandbox` for what holds the pod's network.
    pub(crate) name: String,
    /// Docker's id.
    pub(crate) id: String,
    /// Docker's word for its state: `running`, `exited`, ...
    pub(crate) state: String,
    /// When it was started last.
    pub(crate) started: String,
    /// How many containers of this name its pod had before.
    pub(crate) attempt: u32,
}

impl Container {
    /// Whether it runs.
    pub(crate) fn is_running(&self) -> bool {
        self.state == "running"
    }

    /// Whether it holds its pod's network, and is none of the pod's own containers.
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
        let ids = self.docker(&["ps", "-aq", "--no-trunc"]);
        if ids.is_empty() {
            return BTreeSet::new();
        }
        let mut arguments = vec!["inspect", "--type", "container"];
        arguments.extend(ids.lines());
        // A container may go between the two calls: the others are printed all the same.
        let inspected: Value =
            serde_json::from_str(&self.try_docker(&arguments).stdout).unwrap_or_default();
        let containers = inspected.as_array().into_iter().flatten();
        containers.map(Container::of).collect()
    }
}

/// A JSON text, or nothing.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Whether a JSON value is this text.
pub(crate) fn is(value: &Value, wanted: &str) -> bool {
    value.as_str() == Some(wanted)
}
