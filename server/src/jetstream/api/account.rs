//! `$JS.API.INFO` (JSAPI-013).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Serialize;

use super::super::errors::ApiError;
use super::super::limits::API_LEVEL;
use super::super::shared::Shared;
use super::super::types::enums::Storage;
use super::reply::{self, Answer};

#[derive(Serialize)]
struct AccountInfo {
    memory: u64,
    storage: u64,
    reserved_memory: u64,
    reserved_storage: u64,
    streams: usize,
    consumers: usize,
    limits: Limits,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
    api: Api,
}

#[derive(Serialize)]
struct Limits {
    max_memory: i64,
    max_storage: i64,
    max_streams: i64,
    max_consumers: i64,
    max_ack_pending: i64,
    memory_max_stream_bytes: i64,
    storage_max_stream_bytes: i64,
    max_bytes_required: bool,
}

#[derive(Serialize)]
struct Api {
    level: u32,
    total: u64,
    errors: u64,
    #[serde(skip_serializing_if = "super::super::types::is_zero_u64")]
    inflight: u64,
}

pub(super) fn info(shared: &Arc<Shared>) -> Result<Answer, ApiError> {
    let streams = shared.streams();
    let stats = &shared.stats;
    let info = AccountInfo {
        memory: shared.bytes_used(Storage::Memory),
        storage: shared.bytes_used(Storage::File),
        reserved_memory: shared.bytes_reserved(Storage::Memory),
        reserved_storage: shared.bytes_reserved(Storage::File),
        streams: streams.len(),
        consumers: streams.iter().map(|stream| stream.consumer_count()).sum(),
        limits: Limits {
            max_memory: -1,
            max_storage: -1,
            max_streams: -1,
            max_consumers: -1,
            max_ack_pending: -1,
            memory_max_stream_bytes: -1,
            storage_max_stream_bytes: -1,
            max_bytes_required: false,
        },
        domain: shared.options.domain.clone(),
        api: Api {
            level: API_LEVEL,
            total: stats.total.load(Ordering::Relaxed).saturating_sub(1),
            errors: stats.errors.load(Ordering::Relaxed),
            // This request does not count itself.
            inflight: stats.inflight.load(Ordering::Relaxed).saturating_sub(1),
        },
    };
    Ok(reply::success(
        "account_info_response",
        info,
        Some(shared.store.barrier()),
    ))
}
