//! Consumer info (CAPI-011).

use riverlog_engine::ids::TimestampNs;
use serde::Serialize;

use super::consumer_config::ConsumerConfig;
use super::stream_config::some_time;
use super::{as_time, is_false, is_zero_i64};

/// A pair of positions.
#[derive(Clone, Copy, Default, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "field names are those of the protocol")]
pub struct SequenceInfo {
    pub consumer_seq: u64,
    pub stream_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_time")]
    pub last_active: Option<TimestampNs>,
}

/// The info part of consumer replies.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "field names are those of the protocol")]
pub struct ConsumerInfo {
    pub stream_name: String,
    pub name: String,
    #[serde(with = "as_time")]
    pub created: TimestampNs,
    pub config: ConsumerConfig,
    pub delivered: SequenceInfo,
    pub ack_floor: SequenceInfo,
    pub num_ack_pending: u64,
    pub num_redelivered: u64,
    pub num_waiting: u64,
    pub num_pending: u64,
    #[serde(skip_serializing_if = "is_false")]
    pub push_bound: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub paused: bool,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "is_zero_i64")]
    pub pause_remaining: i64,
    #[serde(with = "as_time")]
    pub ts: TimestampNs,
}
