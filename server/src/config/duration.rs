//! Durations as users write them: `90s`, `1h30m`, `1.5s`, `250ms`.

use std::time::Duration;

/// Reads a sequence of decimal numbers, each with a unit: `ns`, `us`, `µs`, `ms`, `s`, `m`, `h`.
/// `None` for anything else, a negative value, or one beyond 292 years.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total_ns: u128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| c != '.' && !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(number_len);
        let unit_len = after
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_len);
        let unit_ns: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        total_ns = total_ns.checked_add(scaled_ns(number, unit_ns)?)?;
        rest = next;
    }
    let total_ns = u64::try_from(total_ns)
        .ok()
        .filter(|ns| *ns <= i64::MAX as u64)?;
    Some(Duration::from_nanos(total_ns))
}

/// `number` (with an optional fraction) times `unit_ns`, without floating point.
fn scaled_ns(number: &str, unit_ns: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || number.len() > 30 {
        return None;
    }
    let parse = |digits: &str| {
        if digits.is_empty() {
            Some(0)
        } else {
            digits.parse::<u64>().ok()
        }
    };
    let whole_ns = u128::from(parse(whole)?).checked_mul(unit_ns)?;
    // Finer than a nanosecond of an hour is noise.
    let fraction = fraction.get(..fraction.len().min(13))?;
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let fraction_ns = u128::from(parse(fraction)?) * unit_ns / scale;
    whole_ns.checked_add(fraction_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expected_ns) in [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("1ns", Some(1)),
            ("1us", Some(1_000)),
            ("1µs", Some(1_000)),
            ("250ms", Some(250_000_000)),
            ("2m", Some(120_000_000_000)),
            ("1h30m", Some(5_400_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            (".5s", Some(500_000_000)),
            ("1h2m3s4ms", Some(3_723_004_000_000)),
            ("+1s", Some(1_000_000_000)),
            ("", None),
            ("1", None),
            ("s", None),
            ("1x", None),
            ("-1s", None),
            ("1s2", None),
            ("1..5s", None),
            (".s", None),
            ("1 s", None),
            ("1d", None),
            ("99999999999999999999s", None),
            ("300000000h", None),
            ("ß", None),
        ] {
            let expected = expected_ns.map(Duration::from_nanos);
            assert_eq!(parse_duration(text), expected, "{text}");
        }
    }
}
