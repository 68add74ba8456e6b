//! `CONSUMER.CREATE` and `CONSUMER.DURABLE.CREATE` (CAPI-001..009).

use std::sync::Arc;

use riverlog_engine::ChangeError;

use super::super::advisories::{self, Action};
use super::super::consumer_handle::ConsumerHandle;
use super::super::engine_config::consumer_to_engine;
use super::super::errors::{self, ApiError};
use super::super::json::parse_object;
use super::super::limits::CONSUMERS_PER_STREAM_DEFAULT;
use super::super::removal;
use super::super::shared::Shared;
use super::super::stream_handle::StreamHandle;
use super::super::types::consumer_config::{ConsumerConfig, CreateConsumerRequest};
use super::super::types::enums::{CreateAction, Retention};
use super::super::validate::consumer::{
    ConsumerRules, check_consumer_config, check_work_queue_overlap,
};
use super::super::validate::{consumer_update, names, unsupported};
use super::consumer_manage::info_answer;
use super::reply::Answer;
use super::route::{Operation, Route};
use super::stream_info::find_stream;

/// Length of generated names.
const NAME_LENGTH: usize = 8;

pub(super) fn create(shared: &Arc<Shared>, route: &Route, body: &[u8]) -> Result<Answer, ApiError> {
    let unknown = shared.options.unknown_fields();
    let mut request: CreateConsumerRequest =
        parse_object(body, "CreateConsumerRequest", unknown).map_err(errors::invalid_json)?;
    if request.stream_name != route.stream {
        return Err(errors::STREAM_MISMATCH);
    }
    check_subject(route, &mut request.config)?;
    let stream = find_stream(shared, &route.stream)?;
    let limits = &shared.options.limits;
    let rules = ConsumerRules {
        pedantic: request.pedantic,
        ack_pending_max: limits.max_ack_pending,
        batch_max: limits.max_request_batch,
    };
    let config = check_consumer_config(&request.config, &stream.config(), rules)?;

    let _changes = shared.changes.lock();
    if shared.stream(&route.stream).is_none() {
        return Err(errors::STREAM_NOT_FOUND);
    }
    let existing = stream
        .consumer(&config.name)
        .filter(|_| !config.name.is_empty());
    let consumer = match existing {
        Some(consumer) => {
            update_existing(shared, &stream, &consumer, config, request.action)?;
            consumer
        }
        None if request.action == CreateAction::Update => {
            return Err(errors::CONSUMER_DOES_NOT_EXIST);
        }
        None => create_new(shared, &stream, config)?,
    };
    let mut answer = info_answer(shared, &stream, &consumer, "consumer_create_response")?;
    answer.start = Some(consumer);
    Ok(answer)
}

/// What subject and body say has to agree (CAPI-002..004).
fn check_subject(route: &Route, config: &mut ConsumerConfig) -> Result<(), ApiError> {
    if names::has_path_separator(&route.stream) {
        return Err(errors::STREAM_NAME_CONTAINS_PATH_SEPARATORS);
    }
    if names::has_path_separator(&route.consumer) {
        return Err(errors::CONSUMER_NAME_CONTAINS_PATH_SEPARATORS);
    }
    if route.operation == Operation::ConsumerCreateDurable {
        if config.durable.is_empty() {
            return Err(errors::CONSUMER_DURABLE_NAME_NOT_SET);
        }
        if config.durable != route.consumer {
            return Err(errors::CONSUMER_DURABLE_NAME_NOT_MATCH_SUBJECT);
        }
        return Ok(());
    }
    if route.consumer.is_empty() {
        if config.is_durable() {
            return Err(errors::CONSUMER_EPHEMERAL_WITH_DURABLE_NAME);
        }
        return Ok(());
    }
    if config.is_durable() && config.durable != route.consumer {
        return Err(errors::CONSUMER_DURABLE_NAME_NOT_MATCH_SUBJECT);
    }
    config.name.clone_from(&route.consumer);
    if let Some(filter) = &route.filter {
        if !config.filter_subjects.is_empty() {
            return Err(errors::CONSUMER_MULTIPLE_FILTERS_NOT_ALLOWED);
        }
        if config.filter_subject != *filter {
            return Err(errors::CONSUMER_CREATE_FILTER_SUBJECT_MISMATCH);
        }
    }
    Ok(())
}

fn create_new(
    shared: &Arc<Shared>,
    stream: &Arc<StreamHandle>,
    config: ConsumerConfig,
) -> Result<Arc<ConsumerHandle>, ApiError> {
    unsupported::check_consumer(&config)?;
    let stream_config = stream.config();
    let default = shared
        .options
        .limits
        .default_max_consumers
        .unwrap_or(CONSUMERS_PER_STREAM_DEFAULT);
    let max = usize::try_from(stream_config.max_consumers).unwrap_or(default);
    if stream.consumer_count() >= max {
        return Err(errors::MAXIMUM_CONSUMERS_LIMIT);
    }
    if stream_config.retention == Retention::WorkQueue {
        check_work_queue_overlap(&config.filters(), &filters_of_others(stream, &config.name))?;
    }
    let name = if config.name.is_empty() {
        free_name(stream)
    } else {
        config.name.clone()
    };
    let engine = consumer_to_engine(&config, &name);
    let (engine, _ticket) = stream
        .engine
        .create_consumer(engine)
        .map_err(|e| refused(&e))?;
    let consumer = ConsumerHandle::new(shared, stream, engine, config);
    stream.add_consumer(&consumer);
    consumer.watch_deliver_subject(shared);
    removal::check_inactivity(shared, &consumer);
    advisories::consumer_action(shared, &stream.name, &consumer.name, Action::Create);
    Ok(consumer)
}

/// CAPI-006, CAPI-007, T-80, T-89.
fn update_existing(
    shared: &Arc<Shared>,
    stream: &StreamHandle,
    consumer: &Arc<ConsumerHandle>,
    mut config: ConsumerConfig,
    action: CreateAction,
) -> Result<(), ApiError> {
    let old = consumer.config();
    config.pause_until = old.pause_until;
    config.metadata.clone_from(&keep_level(&old, &config));
    if config == *old {
        return Ok(());
    }
    if action == CreateAction::Create {
        return Err(errors::CONSUMER_ALREADY_EXISTS);
    }
    consumer_update::check_update(&old, &config)?;
    unsupported::check_consumer(&config)?;
    if old.deliver_subject != config.deliver_subject && consumer.is_bound(shared) {
        // CCFG-048
        return Err(errors::CONSUMER_NAME_EXIST);
    }
    if stream.config().retention == Retention::WorkQueue {
        check_work_queue_overlap(
            &config.filters(),
            &filters_of_others(stream, &consumer.name),
        )?;
    }
    let engine = consumer_to_engine(&config, &consumer.name);
    consumer
        .engine
        .update_config(engine)
        .map_err(|e| refused(&e))?;
    consumer.set_config(config);
    consumer.watch_deliver_subject(shared);
    consumer.schedule();
    Ok(())
}

/// The level stays that of the asset: a pause raises it, and an update does not know of the pause.
fn keep_level(old: &ConsumerConfig, new: &ConsumerConfig) -> super::super::types::Metadata {
    let mut metadata = new.metadata.clone();
    let level = super::super::validate::metadata::consumer_level(new);
    super::super::validate::metadata::set_stored(&mut metadata, level);
    if metadata == old.metadata {
        old.metadata.clone()
    } else {
        metadata
    }
}

fn filters_of_others(stream: &StreamHandle, name: &str) -> Vec<Vec<String>> {
    let others = stream.consumers();
    others
        .iter()
        .filter(|c| *c.name != *name)
        .map(|c| c.config().filters())
        .collect()
}

pub(super) fn refused(error: &ChangeError) -> ApiError {
    match error {
        ChangeError::NoSpace | ChangeError::Stopped(_) => errors::INSUFFICIENT_RESOURCES,
        ChangeError::Exists => errors::CONSUMER_NAME_EXIST,
        ChangeError::NotFound => errors::STREAM_NOT_FOUND,
        other => errors::consumer_create(other),
    }
}

fn free_name(stream: &StreamHandle) -> String {
    const DIGITS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    loop {
        let name: String = (0..NAME_LENGTH)
            .map(|_| char::from(DIGITS[rand::random_range(0..DIGITS.len())]))
            .collect();
        if stream.consumer(&name).is_none() {
            return name;
        }
    }
}
