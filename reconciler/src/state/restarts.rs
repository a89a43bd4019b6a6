//! How requested restarts are stored: by the text of their owner, in the order of that text, as
//! versions wrote them that had no type for the key.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serializer};

use crate::name::WorkloadKey;

pub(super) fn serialize<S: Serializer>(
    restarts: &BTreeMap<WorkloadKey, u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let by_text: BTreeMap<String, u64> = restarts
        .iter()
        .map(|(owner, serial)| (owner.to_string(), *serial))
        .collect();
    serializer.collect_map(by_text)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<WorkloadKey, u64>, D::Error> {
    let by_text = BTreeMap::<String, u64>::deserialize(deserializer)?;
    let mut restarts = BTreeMap::new();
    for (owner, serial) in by_text {
        // An owner of a kind that this version does not know has no pods here: its restart is
        // passed over, and does not make the whole rollout unreadable.
        if let Ok(owner) = owner.parse() {
            restarts.insert(owner, serial);
        }
    }
    Ok(restarts)
}

#[cfg(test)]
mod tests {
    use crate::state::Rollout;

    #[test]
    fn restarts_keep_their_form_and_an_unknown_owner_does_no_harm() {
        let mut document = serde_json::to_value(Rollout::default()).unwrap_or_default();
        document["restarted_up_to"] = serde_json::json!({
            "DaemonSet/default/agent": 3,
            "NewKind/default/web": 4,
            "Pod/default/one": 5,
        });
        let rollout: Rollout = serde_json::from_value(document).unwrap_or_default();
        // A Pod is before a DaemonSet in the order of the key, and after it in that of its text.
        let written = serde_json::to_string(&rollout).unwrap_or_default();
        let end = r#""restarted_up_to":{"DaemonSet/default/agent":3,"Pod/default/one":5}}"#;
        assert!(written.ends_with(end), "{written}");
    }
}
