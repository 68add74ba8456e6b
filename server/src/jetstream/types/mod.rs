//! The JSON objects of the API: configurations, states and infos, with the exact field sets and
//! omission rules of the protocol (SCFG-042, CCFG-049).

pub mod consumer_config;
pub mod consumer_info;
pub mod enums;
pub mod stream_config;
pub mod stream_info;

use std::collections::BTreeMap;

/// User metadata of a stream or consumer plus the `_nats.*` keys.
pub type Metadata = BTreeMap<String, String>;

pub(crate) fn is_zero_i64(n: &i64) -> bool {
    *n == 0
}

pub(crate) fn is_zero_i32(n: &i32) -> bool {
    *n == 0
}

pub(crate) fn is_zero_u64(n: &u64) -> bool {
    *n == 0
}

pub(crate) fn is_false(b: &bool) -> bool {
    !*b
}

/// Serialises times as RFC 3339 text.
pub(crate) mod as_time {
    use riverlog_engine::ids::TimestampNs;
    use serde::Serializer;

    pub fn serialize<S: Serializer>(ts: &TimestampNs, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::super::time::format_time(*ts))
    }
}

/// Serialises an optional time; `None` is the zero time.
pub(crate) mod as_time_or_zero {
    use riverlog_engine::ids::TimestampNs;
    use serde::Serializer;

    pub fn serialize<S: Serializer>(
        ts: &Option<TimestampNs>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::super::time::format_time_or_zero(*ts))
    }
}
