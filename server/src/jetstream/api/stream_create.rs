//! `STREAM.CREATE` and `STREAM.UPDATE` (SAPI-001..006).

use std::sync::Arc;

use riverlog_engine::ChangeError;
use serde::Serialize;

use super::super::advisories::{self, Action};
use super::super::engine_config::stream_to_engine;
use super::super::errors::{self, ApiError};
use super::super::json::parse_object;
use super::super::shared::Shared;
use super::super::stream_handle::StreamHandle;
use super::super::types::enums::Storage;
use super::super::types::stream_config::{StreamConfig, StreamConfigRequest};
use super::super::types::stream_info::StreamInfo;
use super::super::validate::stream::{StreamRules, check_create, check_stream_config};
use super::super::validate::{metadata, names, stream_update, subjects, unsupported};
use super::reply::{self, Answer};
use super::route::Route;
use super::stream_info::{find_stream, stream_info};

#[derive(Serialize)]
struct StreamReply {
    #[serde(flatten)]
    info: StreamInfo,
    #[serde(skip_serializing_if = "super::super::types::is_false")]
    did_create: bool,
}

fn read_request(
    shared: &Shared,
    route: &Route,
    body: &[u8],
) -> Result<StreamConfigRequest, ApiError> {
    let unknown = shared.options.unknown_fields();
    let request: StreamConfigRequest =
        parse_object(body, "StreamConfigRequest", unknown).map_err(errors::invalid_json)?;
    if request.config.name != route.stream {
        return Err(errors::STREAM_MISMATCH);
    }
    if names::has_path_separator(&route.stream) {
        return Err(errors::STREAM_NAME_CONTAINS_PATH_SEPARATORS);
    }
    Ok(request)
}

fn rules(shared: &Shared, request: &StreamConfigRequest) -> StreamRules {
    StreamRules {
        pedantic: request.pedantic,
        duplicate_window_ns_max: shared.options.limits.duplicate_window_ns,
    }
}

pub(super) fn create(shared: &Arc<Shared>, route: &Route, body: &[u8]) -> Result<Answer, ApiError> {
    let request = read_request(shared, route, body)?;
    let config = check_stream_config(&request.config, rules(shared, &request))?;
    check_create(&config)?;
    unsupported::check_stream(&config)?;
    let _changes = shared.changes.lock();
    if let Some(stream) = shared.stream(&config.name) {
        // SAPI-002
        if *stream.config() != config {
            return Err(errors::STREAM_NAME_EXIST);
        }
        return Ok(reply_with_info(
            shared,
            &stream,
            "stream_create_response",
            true,
        ));
    }
    check_overlap(shared, &config)?;
    if shared
        .options
        .limits
        .max_streams
        .is_some_and(|max| shared.stream_count() >= max)
    {
        return Err(errors::MAXIMUM_STREAMS_LIMIT);
    }
    check_reservation(shared, &config, None)?;
    let (engine, _ticket) = shared
        .store
        .create_stream(stream_to_engine(&config))
        .map_err(|e| refused(&e, errors::stream_create))?;
    let stream = StreamHandle::new(shared, engine, config);
    shared.add_stream(&stream);
    stream.sync_subscriptions(shared);
    advisories::stream_action(shared, &stream.name, Action::Create);
    Ok(reply_with_info(
        shared,
        &stream,
        "stream_create_response",
        true,
    ))
}

pub(super) fn update(shared: &Arc<Shared>, route: &Route, body: &[u8]) -> Result<Answer, ApiError> {
    let request = read_request(shared, route, body)?;
    let stream = find_stream(shared, &route.stream)?;
    let config = check_stream_config(&request.config, rules(shared, &request))?;
    let _changes = shared.changes.lock();
    let old = stream.config();
    let config = stream_update::check_update(&old, config)?;
    unsupported::check_stream(&config)?;
    check_overlap(shared, &config)?;
    check_reservation(shared, &config, Some(&old))?;
    check_consumers(&stream, &config)?;
    if *old != config {
        stream
            .engine
            .update_config(stream_to_engine(&config))
            .map_err(|e| refused(&e, errors::stream_update))?;
        stream.set_config(shared, config);
        stream.sync_subscriptions(shared);
        for consumer in stream.consumers() {
            consumer.schedule();
        }
        advisories::stream_action(shared, &stream.name, Action::Modify);
    }
    Ok(reply_with_info(
        shared,
        &stream,
        "stream_update_response",
        false,
    ))
}

/// The barrier covers the change itself and everything the info shows.
fn reply_with_info(shared: &Shared, stream: &StreamHandle, kind: &str, did_create: bool) -> Answer {
    let mut info = stream_info(shared, stream);
    metadata::add_dynamic(&mut info.config.metadata);
    reply::success(
        kind,
        StreamReply { info, did_create },
        Some(shared.store.barrier()),
    )
}

fn refused<D>(error: &ChangeError, or: impl FnOnce(String) -> D) -> ApiError
where
    D: Into<ApiError>,
{
    match error {
        ChangeError::NoSpace | ChangeError::Stopped(_) => errors::INSUFFICIENT_RESOURCES,
        ChangeError::Exists => errors::STREAM_NAME_EXIST,
        ChangeError::NotFound => errors::STREAM_NOT_FOUND,
        other => or(other.to_string()).into(),
    }
}

/// SCFG-004: a subject belongs to one stream.
fn check_overlap(shared: &Shared, config: &StreamConfig) -> Result<(), ApiError> {
    for other in shared.streams() {
        if *other.name == *config.name {
            continue;
        }
        let other = other.config();
        let overlaps = config
            .subjects
            .iter()
            .any(|subject| other.subjects.iter().any(|o| subjects::collide(subject, o)));
        if overlaps {
            return Err(errors::STREAM_SUBJECT_OVERLAP);
        }
    }
    Ok(())
}

/// SAPI-005: what a stream is promised has to be there.
fn check_reservation(
    shared: &Shared,
    config: &StreamConfig,
    old: Option<&StreamConfig>,
) -> Result<(), ApiError> {
    let (Some(max), Ok(wanted)) = (
        shared.bytes_max(config.storage),
        u64::try_from(config.max_bytes),
    ) else {
        return Ok(());
    };
    let before = old.map_or(0, |old| u64::try_from(old.max_bytes).unwrap_or(0));
    let others = shared.bytes_reserved(config.storage).saturating_sub(before);
    if wanted > before && others.saturating_add(wanted) > max {
        return Err(match config.storage {
            Storage::File => errors::STORAGE_RESOURCES_EXCEEDED,
            Storage::Memory => errors::MEMORY_RESOURCES_EXCEEDED,
        });
    }
    Ok(())
}

/// SCFG-033.
fn check_consumers(stream: &StreamHandle, config: &StreamConfig) -> Result<(), ApiError> {
    let limits = &config.consumer_limits;
    let violates = |consumer: &super::super::types::consumer_config::ConsumerConfig| {
        (limits.max_ack_pending > 0 && consumer.max_ack_pending > limits.max_ack_pending)
            || (limits.inactive_threshold > 0
                && consumer.inactive_threshold > limits.inactive_threshold)
    };
    let violating: Vec<String> = stream
        .consumers()
        .iter()
        .filter(|consumer| violates(&consumer.config()))
        .map(|consumer| consumer.name.to_string())
        .collect();
    if violating.is_empty() {
        return Ok(());
    }
    let names = violating.join(", ");
    Err(errors::stream_update(format_args!(
        "change to limits violates consumers: {names}"
    )))
}
