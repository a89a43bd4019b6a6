//! Settings that are written as text in a form of their own.

use std::{fmt, time::Duration};

use jiff::SignedDuration;
use reconciler::object::Taint;
use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

/// The longest duration of a setting: it can be added to any time.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Parses a duration such as `10s`, `2m` or `1h 30m`.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_any(DurationText)
}

/// A duration as people write it. A number is refused with the text that is probably meant.
struct DurationText;

impl Visitor<'_> for DurationText {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration in quotes such as \"10s\" or \"2m\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
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

    fn visit_i64<E: Error>(self, number: i64) -> Result<Duration, E> {
        Err(Error::custom(format!(
            "{number} has no unit: write \"{number}s\" for seconds"
        )))
    }
}

/// Parses taints such as `gpu=yes:NoSchedule`.
pub(super) fn taints<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Taint>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts
        .iter()
        .map(|text| text.parse().map_err(Error::custom))
        .collect()
}
