//! Times and durations in the text forms of the protocol.

use riverlog_engine::ids::TimestampNs;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What the protocol prints for "no time".
pub const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// The wall clock, in nanoseconds since the Unix epoch.
pub fn now() -> TimestampNs {
    let elapsed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    TimestampNs(i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX))
}

/// RFC 3339 in UTC with nanoseconds, trailing zeros of the fraction removed.
pub fn format_time(ts: TimestampNs) -> String {
    // Any i64 of nanoseconds is between the years 1677 and 2262, inside the range of the type.
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ts.0))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let mut text = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    );
    if at.nanosecond() != 0 {
        let fraction = format!("{:09}", at.nanosecond());
        text.push('.');
        text.push_str(fraction.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// As [`format_time`], with the protocol's zero time for "none".
pub fn format_time_or_zero(ts: Option<TimestampNs>) -> String {
    ts.map_or_else(|| ZERO_TIME.to_owned(), format_time)
}

/// Reads an RFC 3339 time. The zero time is `Some(None)`; times outside the years that fit
/// nanoseconds in an i64 are moved to the nearest one that fits. `None` = not a time.
pub fn parse_time(text: &str) -> Option<Option<TimestampNs>> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    if at.year() <= 1 {
        return Some(None);
    }
    let ns = at.unix_timestamp_nanos();
    let ns = ns.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
    Some(Some(TimestampNs(i64::try_from(ns).unwrap_or(i64::MAX))))
}

/// A duration in the text form of Go: `1s`, `1m0s`, `1h0m0s`, `1.5s`, `100ms`, `250µs`, `5ns`.
pub fn format_duration(ns: i64) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    let ns = ns.unsigned_abs();
    let body = if ns == 0 {
        "0s".to_owned()
    } else if ns < 1_000 {
        format!("{ns}ns")
    } else if ns < 1_000_000 {
        format!("{}µs", decimal(ns, 1_000))
    } else if ns < 1_000_000_000 {
        format!("{}ms", decimal(ns, 1_000_000))
    } else {
        let minutes = ns / 60_000_000_000;
        let seconds = decimal(ns % 60_000_000_000, 1_000_000_000);
        match (minutes / 60, minutes % 60) {
            (0, 0) => format!("{seconds}s"),
            (0, minutes) => format!("{minutes}m{seconds}s"),
            (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
        }
    };
    format!("{sign}{body}")
}

fn decimal(value: u64, unit: u64) -> String {
    let whole = value / unit;
    let rest = value % unit;
    if rest == 0 {
        return whole.to_string();
    }
    let digits = unit.ilog10() as usize;
    let fraction = format!("{rest:0digits$}");
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

/// Reads a duration in the text form of Go (`5s`, `1h30m`, `1.5s`, `-2ms`). `None` = not one, or
/// too long for nanoseconds in an i64.
pub fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number_len = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .filter(|len| *len > 0)?;
        let (number, after) = rest.split_at(number_len);
        let unit_len = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let unit_ns: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        total = total.checked_add(scaled(number, unit_ns)?)?;
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

fn scaled(number: &str, unit_ns: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: i128 = if whole.is_empty() {
        0
    } else {
        whole.parse::<u64>().ok()?.into()
    };
    let mut total = whole.checked_mul(unit_ns)?;
    let mut unit = unit_ns;
    for digit in fraction.bytes() {
        if !digit.is_ascii_digit() {
            return None;
        }
        unit /= 10;
        total += i128::from(digit - b'0') * unit;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_as_rfc3339_with_trimmed_fraction() {
        for (ns, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_767_323_045_000_000_006, "2026-01-02T03:04:05.000000006Z"),
            (1_767_323_045_120_000_000, "2026-01-02T03:04:05.12Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
        ] {
            assert_eq!(format_time(TimestampNs(ns)), text);
            assert_eq!(parse_time(text), Some(Some(TimestampNs(ns))));
        }
    }

    #[test]
    fn zero_time_and_far_times() {
        assert_eq!(parse_time(ZERO_TIME), Some(None));
        assert_eq!(
            parse_time("9999-01-01T00:00:00Z"),
            Some(Some(TimestampNs(i64::MAX)))
        );
        assert_eq!(
            parse_time("2026-01-02T05:04:05+02:00").unwrap(),
            parse_time("2026-01-02T03:04:05Z").unwrap()
        );
        assert_eq!(parse_time("bad"), None);
        assert_eq!(format_time_or_zero(None), ZERO_TIME);
    }

    #[test]
    fn durations_print_and_parse_as_go_does() {
        for (ns, text) in [
            (0, "0s"),
            (5, "5ns"),
            (250_000, "250µs"),
            (1_500, "1.5µs"),
            (100_000_000, "100ms"),
            (1_500_000_000, "1.5s"),
            (1_000_000_000, "1s"),
            (60_000_000_000, "1m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (3_661_500_000_000, "1h1m1.5s"),
            (-2_000_000, "-2ms"),
        ] {
            assert_eq!(format_duration(ns), text);
            assert_eq!(parse_duration(text), Some(ns), "{text}");
        }
        assert_eq!(parse_duration("1h30m"), Some(5_400_000_000_000));
        assert_eq!(parse_duration("0"), Some(0));
        assert_eq!(parse_duration(".5s"), Some(500_000_000));
        for bad in ["", "5", "s", "5x", "1.2.3s", "99999999999h", "-"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
