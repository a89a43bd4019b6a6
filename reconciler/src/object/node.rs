//! Node objects from Git, and the taints and tolerations that keep pods off a node.

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
    /// `spec.unschedulable`: the node accepts no new pods; running pods stay.
    pub unschedulable: bool,
    /// Whether the annotation [`DRAIN`] is set: running pods are replaced elsewhere. It implies the
    /// cordon.
    #[serde(default)]
    pub drain: bool,
}

/// The annotation that drains a node, with the value `"true"`.
pub const DRAIN: &str = "windlass.dev/drain";

/// A taint of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Taint {
    /// Key of the taint.
    pub key: String,
    /// Value of the taint, often empty.
    pub value: String,
    /// Effect on pods that do not tolerate the taint.
    pub effect: TaintEffect,
}

/// Parses the form in the configuration: `key=value:NoSchedule` or `key:NoSchedule`.
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

/// Why a text is not a taint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a taint such as \"key=value:NoSchedule\": {what}")]
pub struct TaintError {
    text: String,
    what: String,
}

/// The effect of a taint on pods that do not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TaintEffect {
    /// No new pod is placed on the node.
    NoSchedule,
    /// New pods are placed elsewhere if another node accepts them.
    PreferNoSchedule,
    /// No new pod is placed on the node, and running pods are stopped.
    NoExecute,
}

/// One of a pod's `tolerations`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Toleration {
    /// Key of the taint; `None` with the operator Exists tolerates every taint.
    pub key: Option<String>,
    /// The value that must be equal; `None` is the operator Exists.
    pub equal: Option<String>,
    /// The effect; `None` matches all effects.
    pub effect: Option<TaintEffect>,
    /// How long a NoExecute taint is tolerated; `None` is without limit.
    pub for_at_most: Option<Duration>,
}

impl Toleration {
    /// Whether this toleration matches the taint.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.effect.is_none_or(|effect| effect == taint.effect)
            && self.key.as_ref().is_none_or(|key| *key == taint.key)
            && self
                .equal
                .as_ref()
                .is_none_or(|value| *value == taint.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toleration_matches_by_effect_key_and_value_where_it_has_them() {
        let taint: Taint = "gpu=a:NoSchedule".parse().expect("a taint");
        let text = |part: &str| (!part.is_empty()).then(|| part.to_owned());
        let (here, other) = (Some(TaintEffect::NoSchedule), Some(TaintEffect::NoExecute));
        for (key, equal, effect, expected) in [
            ("", "", None, true),
            ("gpu", "", None, true),
            ("gpu", "a", None, true),
            ("gpu", "a", here, true),
            ("", "", here, true),
            ("gpu", "a", other, false),
            ("", "", other, false),
            ("gpu", "b", here, false),
            ("cpu", "a", here, false),
            ("cpu", "", None, false),
        ] {
            let toleration = Toleration {
                key: text(key),
                equal: text(equal),
                effect,
                for_at_most: None,
            };
            assert_eq!(toleration.tolerates(&taint), expected, "{toleration:?}");
        }
    }

    #[test]
    fn a_taint_of_the_configuration_is_read_or_refused_with_the_reason() {
        let taint = |text: &str| text.parse::<Taint>().map_err(|error| error.to_string());
        let parts = |text: &str| {
            let Taint { key, value, effect } = taint(text).expect(text);
            (key, value, effect)
        };
        let (key, gpu, none) = ("a/b".to_owned(), "gpu".to_owned(), String::new());
        assert_eq!(
            parts("a/b=gpu:NoExecute"),
            (key.clone(), gpu, TaintEffect::NoExecute)
        );
        assert_eq!(
            parts("a/b:NoSchedule"),
            (key.clone(), none.clone(), TaintEffect::NoSchedule)
        );
        assert_eq!(
            parts("a/b=:PreferNoSchedule"),
            (key, none, TaintEffect::PreferNoSchedule)
        );

        for (text, why) in [
            ("gpu", "it has no effect"),
            (
                "gpu:Never",
                "the effect \"Never\" is none of NoSchedule, PreferNoSchedule, NoExecute",
            ),
            ("-x:NoSchedule", "the key must be "),
            ("x=-:NoSchedule", "the value must be "),
        ] {
            let error = taint(text).expect_err(text);
            assert!(error.contains(why), "{error}");
        }
    }
}
