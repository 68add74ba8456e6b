//! Values in the text forms that dashboards know.

use std::time::Duration;

/// A time span as `1y2d3h4m5s`, without leading zero parts (MON-002 `uptime`).
pub(super) fn uptime(span: Duration) -> String {
    let seconds = span.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let (years, days_left) = (days / 365, days % 365);
    let parts = [
        (years, 'y'),
        (days_left, 'd'),
        (hours % 24, 'h'),
        (minutes % 60, 'm'),
        (seconds % 60, 's'),
    ];
    let first = parts
        .iter()
        .position(|(count, _)| *count > 0)
        .unwrap_or(parts.len() - 1);
    parts[first..]
        .iter()
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect()
}

/// A duration as `509µs`, `1.5ms`, `2m3s` (MON-003 `rtt`).
pub(super) fn duration(span: Duration) -> String {
    let ns = span.as_nanos();
    let in_unit = |unit_ns: u128, unit: &str| {
        let mut text = format!("{}", ns / unit_ns);
        let fraction = ns % unit_ns;
        if fraction > 0 {
            let width = unit_ns.ilog10() as usize;
            let digits = format!("{fraction:0width$}");
            text.push('.');
            text.push_str(digits.trim_end_matches('0'));
        }
        text + unit
    };
    match ns {
        0 => "0s".to_owned(),
        1..1_000 => in_unit(1, "ns"),
        1_000..1_000_000 => in_unit(1_000, "µs"),
        1_000_000..1_000_000_000 => in_unit(1_000_000, "ms"),
        1_000_000_000..60_000_000_000 => in_unit(1_000_000_000, "s"),
        _ => {
            let minutes = span.as_secs() / 60;
            let rest = Duration::new(span.as_secs() % 60, span.subsec_nanos());
            let rest = if rest.as_secs() == 0 && rest.subsec_nanos() > 0 {
                format!(
                    "0.{}s",
                    format!("{:09}", rest.subsec_nanos()).trim_end_matches('0')
                )
            } else {
                duration(rest)
            };
            match minutes / 60 {
                0 => format!("{minutes}m{rest}"),
                hours => format!("{hours}h{}m{rest}", minutes % 60),
            }
        }
    }
}

/// A number that may have a fraction, written without one when it is whole.
pub(super) fn float<S: serde::Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if number.fract() == 0.0 && number.abs() < 1e15 {
        serializer.serialize_i64(*number as i64)
    } else {
        serializer.serialize_f64(*number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptimes() {
        for (seconds, expected) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m0s"),
            (3725, "1h2m5s"),
            (90_061, "1d1h1m1s"),
            (86_400 * 366, "1y1d0h0m0s"),
        ] {
            assert_eq!(uptime(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn durations() {
        for (ns, expected) in [
            (0, "0s"),
            (7, "7ns"),
            (509_000, "509µs"),
            (1_500, "1.5µs"),
            (1_234_500, "1.2345ms"),
            (2_000_000_000, "2s"),
            (61_500_000_000, "1m1.5s"),
            (60_000_000_000, "1m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (60_500_000_000, "1m0.5s"),
        ] {
            assert_eq!(duration(Duration::from_nanos(ns)), expected);
        }
    }
}
