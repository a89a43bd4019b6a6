//! Quantities: `500m`, `1.5Gi`, `2e3`.

/// Maximum number of digits that are accepted: more than any quantity of a host needs, and few
/// enough for exact arithmetic in 128 bits.
const DIGITS: usize = 18;

/// Parses a quantity to thousandths, rounded up: `0.5` is 500.
pub(super) fn milli(text: &str) -> Result<u64, &'static str> {
    scaled(text, 1000)
}

/// Parses a quantity to whole units, rounded up: `1Ki` is 1024.
pub(super) fn whole(text: &str) -> Result<u64, &'static str> {
    scaled(text, 1)
}

/// Whether a text is a quantity that is not a whole number: `1500m` is, `2000m` is not.
pub(super) fn is_fraction(text: &str) -> bool {
    scaled(text, 1000).is_ok_and(|milli| milli % 1000 != 0)
}

const SYNTAX: &str = "a quantity such as 2, 0.5, 500m, 128Mi or 1G";

fn scaled(text: &str, unit: u128) -> Result<u64, &'static str> {
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if unsigned.starts_with('-') {
        return Err("a quantity that is not negative");
    }

    let end = unsigned
        .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (integer, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{integer}{fraction}");
    if digits.len() > DIGITS {
        return Err(SYNTAX);
    }

    // A number without digits and one with two points are not parsed.
    let value: u128 = digits.parse().map_err(|_| SYNTAX)?;
    let (times, by) = factor(suffix).ok_or(SYNTAX)?;
    let by = by * 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| SYNTAX)?);
    let value = value
        .checked_mul(times)
        .and_then(|value| value.checked_mul(unit))
        .ok_or("a smaller quantity")?;
    // Kubernetes stores quantities in 63 bits.
    u64::try_from(value.div_ceil(by))
        .ok()
        .filter(|value| i64::try_from(*value).is_ok())
        .ok_or("a smaller quantity")
}

/// The numbers by which a suffix multiplies and divides.
fn factor(suffix: &str) -> Option<(u128, u128)> {
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1_000),
        "k" => (1_000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_u128.pow(exponent.unsigned_abs().min(18));
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, expected) in [
            ("2", 2000),
            ("0.5", 500),
            ("500m", 500),
            (".1", 100),
            ("1.", 1000),
            ("100u", 1),
            ("1e-1", 100),
            ("1k", 1_000_000),
        ] {
            assert_eq!(milli(text), Ok(expected), "{text}");
        }
        for (text, expected) in [
            ("128Mi", 134_217_728),
            ("1.5Gi", 1_610_612_736),
            ("1G", 1_000_000_000),
            ("2e3", 2000),
            ("1000000000.0", 1_000_000_000),
            ("128m", 1),
            ("+1", 1),
            ("1000000000n", 1),
            ("1000000001n", 2),
            ("1000000u", 1),
            ("1000m", 1),
            ("1k", 1_000),
            ("1M", 1_000_000),
            ("1T", 1_000_000_000_000),
            ("1P", 1_000_000_000_000_000),
            ("1E", 1_000_000_000_000_000_000),
            ("1Ki", 1 << 10),
            ("1Gi", 1 << 30),
            ("1Ti", 1 << 40),
            ("1Pi", 1 << 50),
            ("7Ei", 7 << 60),
            ("3E2", 300),
            ("3e0", 3),
            ("25e-1", 3),
            ("999999999999999999", 999_999_999_999_999_999),
        ] {
            assert_eq!(whole(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_whole_number_in_thousandths_is_no_fraction() {
        for (text, expected) in [
            ("134217728000m", false),
            ("2000m", false),
            ("1500m", true),
            ("128m", true),
            ("xm", false),
        ] {
            assert_eq!(is_fraction(text), expected, "{text}");
        }
        assert_eq!(whole("134217728000m"), Ok(134_217_728));
    }

    #[test]
    fn an_invalid_quantity_is_refused() {
        for text in [
            "",
            ".",
            "1.2.3",
            "Mi",
            "1 Mi",
            "1MiB",
            "-1",
            "1e",
            "ten",
            "8Ei",
            "9Ei",
            "1000000000000000000",
            "0.000000000000000001",
            "99999999999999999999",
        ] {
            assert!(whole(text).is_err(), "{text}");
        }
    }
}
