//! What Git may say about a node, and the taints and tolerations that keep pods off it.

use std::{collections::BTreeMap, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::syntax;

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
    /// The annotation [`DRAIN`]: what runs goes elsewhere. It implies the cordon.
    #[serde(default)]
    pub drain: bool,
}

/// `"true"` on a Node drains it.
pub const DRAIN: &str = "windlass.dev/drain";

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

/// As a configuration writes it: `key=value:NoSchedule` or `key:NoSchedule`.
impl FromStr for Taint {
    type Err = TaintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |what: String| TaintError {
            text: text.to_owned(),
            what,
        };
        let (name, effect) = text
            .rsplit_once(':')
            .ok_or_else(|| wrong("it has no effect".to_owned()))?;
        let effect = match effect {
            "NoSchedule" => TaintEffect::NoSchedule,
            "PreferNoSchedule" => TaintEffect::PreferNoSchedule,
            "NoExecute" => TaintEffect::NoExecute,
            other => {
                return Err(wrong(format!(
                    "the effect {other:?} is none of NoSchedule, PreferNoSchedule, NoExecute"
                )));
            }
        };
        let (key, value) = name.split_once('=').unwrap_or((name, ""));
        syntax::qualified_name(key).map_err(|rule| wrong(format!("the key must be {rule}")))?;
        syntax::label_value(value).map_err(|rule| wrong(format!("the value must be {rule}")))?;
        Ok(Self {
            key: key.to_owned(),
            value: value.to_owned(),
            effect,
        })
    }
}

/// Why a text is no taint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a taint such as \"key=value:NoSchedule\": {what}")]
pub struct TaintError {
    text: String,
    what: String,
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
            && self
                .equal
                .as_ref()
                .is_none_or(|value| *value == taint.value)
    }
}
