//! `CONSUMER.INFO`, `CONSUMER.DELETE` and `CONSUMER.PAUSE` (CAPI-010..015).

use std::sync::Arc;

use riverlog_engine::ids::TimestampNs;
use riverlog_engine::{ReadError, consumer::ConsumerPosition};
use serde::Serialize;

use super::super::advisories;
use super::super::consumer_handle::ConsumerHandle;
use super::super::engine_config::consumer_to_engine;
use super::super::errors::{self, ApiError};
use super::super::json::{Fields, JsonError, ObjectFromJson, is_empty_body};
use super::super::removal;
use super::super::shared::Shared;
use super::super::stream_handle::StreamHandle;
use super::super::time::now;
use super::super::types::consumer_info::{ConsumerInfo, SequenceInfo};
use super::super::types::{as_time_or_zero, is_zero_i64};
use super::super::validate::metadata;
use super::consumer_create::refused;
use super::reply::{self, Answer};
use super::route::Route;
use super::stream_info::{find_stream, optional_body};

fn find_consumer(stream: &StreamHandle, route: &Route) -> Result<Arc<ConsumerHandle>, ApiError> {
    stream
        .consumer(&route.consumer)
        .ok_or(errors::CONSUMER_NOT_FOUND)
}

pub(super) fn info(shared: &Arc<Shared>, route: &Route, body: &[u8]) -> Result<Answer, ApiError> {
    if !is_empty_body(body) {
        return Err(errors::NOT_EMPTY_REQUEST);
    }
    let stream = find_stream(shared, &route.stream)?;
    let consumer = find_consumer(&stream, route)?;
    info_answer(shared, &stream, &consumer, "consumer_info_response")
}

/// An info reply. The barrier covers what the info shows, and the change before it.
pub(super) fn info_answer(
    shared: &Shared,
    stream: &StreamHandle,
    consumer: &ConsumerHandle,
    kind: &str,
) -> Result<Answer, ApiError> {
    let mut info = consumer_info(shared, stream, consumer).map_err(errors::stream_general)?;
    metadata::add_dynamic(&mut info.config.metadata);
    Ok(reply::success(kind, info, Some(shared.store.barrier())))
}

/// The info part of replies about a consumer.
pub(crate) fn consumer_info(
    shared: &Shared,
    stream: &StreamHandle,
    consumer: &ConsumerHandle,
) -> Result<ConsumerInfo, ReadError> {
    let now = now();
    let state = consumer.engine.info();
    let config = (*consumer.config()).clone();
    let is_push = config.is_push();
    let pause_remaining = config
        .pause_until
        .map_or(0, |until| until.0.saturating_sub(now.0))
        .max(0);
    Ok(ConsumerInfo {
        stream_name: stream.name.to_string(),
        name: consumer.name.to_string(),
        created: consumer.engine.created(),
        config,
        delivered: sequence_info(&state.delivered),
        ack_floor: sequence_info(&state.ack_floor),
        num_ack_pending: state.num_ack_pending,
        num_redelivered: state.num_redelivered,
        num_waiting: consumer.waiting.lock().len() as u64,
        num_pending: consumer.engine.num_pending()?,
        push_bound: is_push && consumer.is_bound(shared),
        paused: pause_remaining > 0,
        pause_remaining,
        ts: now,
    })
}

fn sequence_info(position: &ConsumerPosition) -> SequenceInfo {
    SequenceInfo {
        consumer_seq: position.consumer_seq,
        stream_seq: position.stream_seq.0,
        last_active: position.last_active,
    }
}

pub(super) fn delete(shared: &Arc<Shared>, route: &Route, body: &[u8]) -> Result<Answer, ApiError> {
    if !is_empty_body(body) {
        return Err(errors::NOT_EMPTY_REQUEST);
    }
    let _changes = shared.changes.lock();
    let stream = find_stream(shared, &route.stream)?;
    let consumer = find_consumer(&stream, route)?;
    let ticket = removal::delete_consumer(shared, &stream, &consumer).map_err(|e| refused(&e))?;
    Ok(reply::done("consumer_delete_response", ticket))
}

#[derive(Default)]
struct PauseRequest {
    pause_until: Option<TimestampNs>,
}

impl ObjectFromJson for PauseRequest {
    fn read_fields(f: &mut Fields) -> Result<PauseRequest, JsonError> {
        let mut r = PauseRequest::default();
        f.read("pause_until", &mut r.pause_until)?;
        Ok(r)
    }
}

#[derive(Serialize)]
struct PauseReply {
    paused: bool,
    #[serde(serialize_with = "as_time_or_zero::serialize")]
    pause_until: Option<TimestampNs>,
    #[serde(skip_serializing_if = "is_zero_i64")]
    pause_remaining: i64,
}

pub(super) fn pause(shared: &Arc<Shared>, route: &Route, body: &[u8]) -> Result<Answer, ApiError> {
    let request: PauseRequest = optional_body(shared, body, "JSApiConsumerPauseRequest")?;
    let _changes = shared.changes.lock();
    let stream = find_stream(shared, &route.stream)?;
    let consumer = find_consumer(&stream, route)?;
    let mut config = (*consumer.config()).clone();
    config.pause_until = request.pause_until;
    let level = metadata::consumer_level(&config);
    metadata::set_stored(&mut config.metadata, level);
    let engine = consumer_to_engine(&config, &consumer.name);
    let ticket = consumer
        .engine
        .update_config(engine)
        .map_err(|e| refused(&e))?;
    consumer.set_config(config);
    consumer.schedule();
    let (stream, name) = (&stream.name, &consumer.name);
    advisories::consumer_paused(shared, stream, name, request.pause_until);
    let remaining = request
        .pause_until
        .map_or(0, |until| until.0.saturating_sub(now().0))
        .max(0);
    let reply = PauseReply {
        paused: remaining > 0,
        pause_until: request.pause_until,
        pause_remaining: remaining,
    };
    Ok(reply::success(
        "consumer_pause_response",
        reply,
        Some(ticket),
    ))
}
