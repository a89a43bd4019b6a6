//! The times of `valid-after` and `valid-before`: `YYYYMMDD[HHMM[SS]]`, with an optional `Z`.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use thiserror::Error;

/// The text of an option that is no time.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not a time of the form YYYYMMDD[HHMM[SS]][Z]")]
pub(crate) struct SignerTimeError(String);

/// Parses a time, always as UTC.
pub(super) fn parse(text: &str) -> Result<Timestamp, SignerTimeError> {
    let wrong = || SignerTimeError(text.to_owned());
    let digits = text.strip_suffix(['Z', 'z']).unwrap_or(text);
    if !matches!(digits.len(), 8 | 12 | 14) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }

    let number = |range: std::ops::Range<usize>| digits.get(range).map_or(Ok(0), str::parse::<i16>);
    let field = |range| {
        number(range)
            .ok()
            .and_then(|number| i8::try_from(number).ok())
            .ok_or_else(wrong)
    };
    let year = number(0..4).map_err(|_| wrong())?;
    DateTime::new(
        year,
        field(4..6)?,
        field(6..8)?,
        field(8..10)?,
        field(10..12)?,
        field(12..14)?,
        0,
    )
    .and_then(|time| time.to_zoned(TimeZone::UTC))
    .map(|time| time.timestamp())
    .map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_lengths_parse_and_everything_else_does_not() {
        for (text, expected) in [
            ("20240229", "2024-02-29T00:00:00Z"),
            ("20240229Z", "2024-02-29T00:00:00Z"),
            ("202402291530", "2024-02-29T15:30:00Z"),
            ("20240229153059Z", "2024-02-29T15:30:59Z"),
        ] {
            assert_eq!(
                parse(text).map(|time| time.to_string()),
                Ok(expected.to_owned())
            );
        }
        for text in [
            "",
            "2024",
            "20230229",
            "202402291",
            "20240229T0000",
            "2024022924000Z",
            "202402292460",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
