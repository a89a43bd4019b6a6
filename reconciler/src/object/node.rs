//! What Git may say about a node, and the taints and tolerations that keep pods off it.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

/// `kind: Node`: labels, taints and the cordon of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeObject {
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// `spec.taints`.
    pub taints: Vec<Taint>,
    /// `spec.unschedulable`: no new pods, what runs stays.
    pub unschedulable: bool,
}

/// A taint of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Taint {
    /// The key.
    pub key: String,
    /// The value, often empty.
    pub value: String,
    /// What it does to pods that do not tolerate it.
    pub effect: TaintEffect,
}

/// What a taint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TaintEffect {
    /// No new pod is placed.
    NoSchedule,
    /// New pods are placed elsewhere if they can.
    PreferNoSchedule,
    /// No new pod is placed and those that run are stopped.
    NoExecute,
}

/// One of a pod's `tolerations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toleration {
    /// The key; `None` with `exists` tolerates every taint.
    pub key: Option<String>,
    /// `None` is the operator Exists; otherwise the value must be equal.
    pub equal: Option<String>,
    /// The effect; `None` is all of them.
    pub effect: Option<TaintEffect>,
    /// How long a NoExecute taint is tolerated; `None` is for ever.
    pub for_at_most: Option<Duration>,
}

impl Toleration {
    /// Whether this toleration covers the taint.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.effect.is_none_or(|effect| effect == taint.effect)
            && self.key.as_ref().is_none_or(|key| *key == taint.key)
            && self.equal.as_ref().is_none_or(|value| *value == taint.value)
    }
}
