//! Values of the configuration language as the types that options have.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::super::Port;
use super::super::duration::parse_duration;
use super::super::grammar::{Map, Value, ValueKind};
use super::super::problems::{Problem, Problems};

/// Reads the value of one key; a value of the wrong kind becomes a problem and reads as `None`.
pub(super) struct Reader<'a> {
    pub(super) key: &'a str,
    pub(super) problems: &'a mut Problems,
}

impl Reader<'_> {
    /// Notes that `value` cannot be used.
    pub(super) fn refuse<T>(&mut self, value: &Value, reason: impl Into<String>) -> Option<T> {
        self.problems.0.push(Problem::BadValue {
            key: self.key.to_owned(),
            reason: reason.into(),
            position: value.position.clone(),
        });
        None
    }

    fn refuse_kind<T>(&mut self, value: &Value, expected: &str) -> Option<T> {
        self.refuse(
            value,
            format!("expected {expected}, found {}", value.kind.name()),
        )
    }

    pub(super) fn bool(&mut self, value: &Value) -> Option<bool> {
        match value.kind {
            ValueKind::Bool(value) => Some(value),
            _ => self.refuse_kind(value, "true or false"),
        }
    }

    pub(super) fn string(&mut self, value: &Value) -> Option<String> {
        match &value.kind {
            ValueKind::String(text) => Some(text.clone()),
            _ => self.refuse_kind(value, "a string"),
        }
    }

    /// A string that is not empty.
    pub(super) fn text(&mut self, value: &Value) -> Option<String> {
        let text = self.string(value)?;
        if text.is_empty() {
            self.refuse(value, "must not be empty")
        } else {
            Some(text)
        }
    }

    pub(super) fn path(&mut self, value: &Value) -> Option<PathBuf> {
        self.text(value).map(PathBuf::from)
    }

    fn int(&mut self, value: &Value) -> Option<i64> {
        match value.kind {
            ValueKind::Int(value) => Some(value),
            _ => self.refuse_kind(value, "a whole number"),
        }
    }

    /// A whole number from `min` to `max`.
    pub(super) fn int_in(&mut self, value: &Value, min: i64, max: i64) -> Option<i64> {
        let int = self.int(value)?;
        if (min..=max).contains(&int) {
            Some(int)
        } else {
            self.refuse(value, format!("must be {min} to {max}"))
        }
    }

    /// A count of bytes that fits the protocol's 32-bit limits and is not 0.
    pub(super) fn bytes(&mut self, value: &Value) -> Option<usize> {
        let int = self.int_in(value, 1, i64::from(i32::MAX))?;
        usize::try_from(int).ok()
    }

    /// Whether the value is 0, which leaves some defaults in place.
    pub(super) fn is_zero(&self, value: &Value) -> bool {
        value.kind == ValueKind::Int(0)
    }

    /// A limit for which 0 and -1 mean that there is none.
    pub(super) fn limit(&mut self, value: &Value) -> Option<Option<usize>> {
        let int = self.int_in(value, -1, i64::from(i32::MAX))?;
        Some(usize::try_from(int).ok().filter(|limit| *limit > 0))
    }

    /// As [`Reader::limit`], of bytes or messages on disk.
    pub(super) fn limit_u64(&mut self, value: &Value) -> Option<Option<u64>> {
        let int = self.int_in(value, -1, i64::MAX)?;
        Some(u64::try_from(int).ok().filter(|limit| *limit > 0))
    }

    /// A port: -1 asks for a free one, which is 0 inside; 0 stands for "not set".
    pub(super) fn port(&mut self, value: &Value) -> Option<Port> {
        let int = self.int_in(value, -1, i64::from(u16::MAX))?;
        Some(Port::of(int))
    }

    /// `"1m30s"`, or a number of seconds.
    pub(super) fn duration(&mut self, value: &Value) -> Option<Duration> {
        let duration = match &value.kind {
            ValueKind::String(text) => parse_duration(text),
            ValueKind::Int(seconds) => u64::try_from(*seconds).ok().map(Duration::from_secs),
            ValueKind::Float(seconds) => Duration::try_from_secs_f64(*seconds).ok(),
            _ => return self.refuse_kind(value, "a duration such as \"2m\""),
        };
        match duration {
            Some(duration) => Some(duration),
            None => self.refuse(value, "not a duration such as \"2m\" or \"1h30m\""),
        }
    }

    /// A duration of at least `min`.
    pub(super) fn duration_min(&mut self, value: &Value, min: Duration) -> Option<Duration> {
        let duration = self.duration(value)?;
        if duration >= min {
            Some(duration)
        } else {
            self.refuse(value, format!("must be at least {}s", min.as_secs()))
        }
    }

    pub(super) fn map<'v>(&mut self, value: &'v Value) -> Option<&'v Map> {
        match &value.kind {
            ValueKind::Map(map) => Some(map),
            _ => self.refuse_kind(value, "a block"),
        }
    }

    pub(super) fn array<'v>(&mut self, value: &'v Value) -> Option<&'v [Value]> {
        match &value.kind {
            ValueKind::Array(values) => Some(values),
            _ => self.refuse_kind(value, "an array"),
        }
    }

    /// An array of strings, or one string with commas or blanks between the words.
    pub(super) fn words(&mut self, value: &Value) -> Option<Vec<String>> {
        match &value.kind {
            ValueKind::String(text) => Some(
                text.split([',', ' '])
                    .filter(|word| !word.is_empty())
                    .map(str::to_owned)
                    .collect(),
            ),
            ValueKind::Array(values) => values.iter().map(|value| self.string(value)).collect(),
            _ => self.refuse_kind(value, "an array of strings"),
        }
    }

    pub(super) fn string_map(&mut self, value: &Value) -> Option<BTreeMap<String, String>> {
        let map = self.map(value)?;
        map.iter()
            .map(|entry| Some((entry.key.clone(), self.string(&entry.value)?)))
            .collect()
    }

    /// `port`, `":port"` or `"host:port"`.
    pub(super) fn address(&mut self, value: &Value) -> Option<(Option<String>, Port)> {
        if matches!(value.kind, ValueKind::Int(_)) {
            return self.port(value).map(|port| (None, port));
        }
        let text = self.string(value)?;
        let parsed = text.rsplit_once(':').and_then(|(host, port)| {
            let port = port
                .parse()
                .ok()
                .filter(|port| (-1..=i64::from(u16::MAX)).contains(port))?;
            let host = host
                .strip_prefix('[')
                .and_then(|h| h.strip_suffix(']'))
                .unwrap_or(host);
            Some(((!host.is_empty()).then(|| host.to_owned()), Port::of(port)))
        });
        match parsed {
            Some(address) => Some(address),
            None => self.refuse(value, format!("could not parse address string {text:?}")),
        }
    }
}
