//! Settings that are written as text in a form of their own.

use std::time::Duration;

use jiff::SignedDuration;
use reconciler::object::Taint;
use serde::{Deserialize, Deserializer, de::Error};

/// The longest duration of a setting: it can be added to any time.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Parses a duration such as `10s`, `2m` or `1h 30m`.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let span: SignedDuration = text.parse().map_err(|error| {
        Error::custom(format!(
            "{text:?} is not a duration such as 10s or 2m: {error}"
        ))
    })?;
    let duration =
        Duration::try_from(span).map_err(|_| Error::custom(format!("{text:?} is negative")))?;
    if duration > LONGEST {
        return Err(Error::custom(format!(
            "{text:?} is too long: 8760h, a year, is the longest"
        )));
    }
    Ok(duration)
}

/// Parses taints such as `gpu=yes:NoSchedule`.
pub(super) fn taints<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Taint>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts
        .iter()
        .map(|text| text.parse().map_err(Error::custom))
        .collect()
}
