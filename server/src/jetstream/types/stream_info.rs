//! Stream state and info (SAPI-007, SAPI-010).

use std::collections::BTreeMap;

use riverlog_engine::ids::TimestampNs;
use serde::Serialize;

use super::stream_config::StreamConfig;
use super::{as_time, as_time_or_zero, is_zero_u64};

/// The `state` object.
#[derive(Clone, Default, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "field names are those of the protocol")]
pub struct StreamState {
    pub messages: u64,
    pub bytes: u64,
    pub first_seq: u64,
    #[serde(with = "as_time_or_zero")]
    pub first_ts: Option<TimestampNs>,
    pub last_seq: u64,
    #[serde(with = "as_time_or_zero")]
    pub last_ts: Option<TimestampNs>,
    #[serde(skip_serializing_if = "is_zero_u64")]
    pub num_subjects: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subjects: Option<BTreeMap<String, u64>>,
    #[serde(skip_serializing_if = "is_zero_u64")]
    pub num_deleted: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deleted: Vec<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<LostData>,
    pub consumer_count: u64,
}

/// Messages that damage on disk took.
#[derive(Clone, Default, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "field names are those of the protocol")]
pub struct LostData {
    pub msgs: Vec<u64>,
    pub bytes: u64,
}

/// The info part of create, update, info and list replies.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "field names are those of the protocol")]
pub struct StreamInfo {
    pub config: StreamConfig,
    #[serde(with = "as_time")]
    pub created: TimestampNs,
    pub state: StreamState,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterInfo>,
    #[serde(with = "as_time")]
    pub ts: TimestampNs,
}

/// Who answers for a stream.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "field names are those of the protocol")]
pub struct ClusterInfo {
    pub leader: String,
}
