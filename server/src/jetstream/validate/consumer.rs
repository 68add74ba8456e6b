//! Defaulting and checks of a consumer configuration (CCFG rows).

use super::super::errors::{self, ApiError, consumer_invalid_policy, stream_invalid_config};
use super::super::limits::{
    ACK_PENDING_DEFAULT, ACK_WAIT_NS_DEFAULT, ASSET_NAME_BYTES_MAX, DESCRIPTION_BYTES_MAX,
    HEARTBEAT_NS_MIN, INACTIVE_NS_DEFAULT, MAX_EXPIRES_NS_MIN, WAITING_DEFAULT,
};
use super::super::time::format_duration;
use super::super::types::consumer_config::ConsumerConfig;
use super::super::types::enums::{AckPolicy, DeliverPolicy, PriorityPolicy, Retention};
use super::super::types::stream_config::StreamConfig;
use super::{metadata, names, subjects};

/// What the server adds to the rules.
#[derive(Clone, Copy, Default, Debug)]
pub struct ConsumerRules {
    /// Refuse values that would be changed silently (CCFG-044).
    pub pedantic: bool,
    /// Server limit of `max_ack_pending`.
    pub ack_pending_max: Option<i64>,
    /// Server limit of `max_batch`, also its default.
    pub batch_max: Option<i64>,
}

/// Fills in defaults and checks everything that needs no knowledge of other consumers.
pub fn check_consumer_config(
    wanted: &ConsumerConfig,
    stream: &StreamConfig,
    rules: ConsumerRules,
) -> Result<ConsumerConfig, ApiError> {
    let mut config = wanted.clone();
    check_names(&mut config)?;
    check_replicas(&config, stream)?;
    refuse_negative_times(&config)?;
    set_defaults(&mut config, stream, rules)?;
    if config.is_push() {
        check_push(&config, stream)?;
    } else {
        check_pull(&config, stream)?;
    }
    check_start(&config)?;
    check_filters(&config)?;
    check_ack_rules(&config, stream, rules)?;
    check_priority(&config)?;
    check_sampling(&config.sample_freq)?;
    let level = metadata::consumer_level(&config);
    metadata::set_stored(&mut config.metadata, level);
    Ok(config)
}

fn check_names(config: &mut ConsumerConfig) -> Result<(), ApiError> {
    if config.is_durable() {
        if !config.name.is_empty() && config.name != config.durable {
            return Err(errors::CONSUMER_CREATE_DURABLE_AND_NAME_MISMATCH);
        }
        config.name.clone_from(&config.durable);
    }
    if !config.name.is_empty() {
        if !names::is_valid_asset_name(&config.name) {
            return Err(stream_invalid_config(
                "consumer name can not contain '.', '*', '>', '\\', '/'",
            ));
        }
        if config.name.len() > ASSET_NAME_BYTES_MAX {
            return Err(errors::consumer_name_too_long(ASSET_NAME_BYTES_MAX));
        }
    }
    if config.description.len() > DESCRIPTION_BYTES_MAX {
        return Err(errors::consumer_description_too_long(DESCRIPTION_BYTES_MAX));
    }
    if !metadata::is_within_limit(&config.metadata) {
        return Err(errors::consumer_metadata_length("128KB"));
    }
    Ok(())
}

fn check_replicas(config: &ConsumerConfig, stream: &StreamConfig) -> Result<(), ApiError> {
    if config.num_replicas < 0 {
        return Err(errors::REPLICAS_COUNT_CANNOT_BE_NEGATIVE);
    }
    if config.num_replicas > 1 {
        return Err(errors::STREAM_REPLICAS_NOT_SUPPORTED);
    }
    if config.num_replicas > stream.num_replicas {
        return Err(errors::CONSUMER_REPLICAS_EXCEEDS_STREAM);
    }
    Ok(())
}

fn refuse_negative_times(config: &ConsumerConfig) -> Result<(), ApiError> {
    if config.ack_wait < 0 {
        return Err(errors::CONSUMER_ACK_WAIT_NEGATIVE);
    }
    if config.backoff.iter().any(|wait| *wait < 0) {
        return Err(errors::CONSUMER_BACK_OFF_NEGATIVE);
    }
    Ok(())
}

fn set_defaults(
    config: &mut ConsumerConfig,
    stream: &StreamConfig,
    rules: ConsumerRules,
) -> Result<(), ApiError> {
    clear_negatives(config, rules.pedantic)?;
    if config.max_deliver < -1 && rules.pedantic {
        return Err(errors::pedantic("max_deliver must be set to -1"));
    }
    if config.max_deliver <= 0 {
        config.max_deliver = -1;
    }
    if let Some(first) = config.backoff.first().copied() {
        if rules.pedantic && config.ack_wait != 0 && config.ack_wait != first {
            return Err(errors::pedantic(
                "first backoff value has to equal batch AckWait",
            ));
        }
        config.ack_wait = first;
    }
    let acks = config.ack_policy != AckPolicy::None;
    if config.ack_wait == 0 && matches!(config.ack_policy, AckPolicy::All | AckPolicy::Explicit) {
        config.ack_wait = ACK_WAIT_NS_DEFAULT;
    }
    default_ack_pending(config, stream, rules, acks)?;
    default_inactivity(config, stream, rules.pedantic)?;
    if !config.is_push() && config.max_waiting == 0 {
        config.max_waiting = WAITING_DEFAULT;
    }
    if config.max_batch == 0 {
        config.max_batch = rules.batch_max.unwrap_or(0);
    }
    Ok(())
}

fn clear_negatives(config: &mut ConsumerConfig, pedantic: bool) -> Result<(), ApiError> {
    let settings = [
        ("max_waiting", &mut config.max_waiting),
        ("max_batch", &mut config.max_batch),
        ("max_expires", &mut config.max_expires),
        ("max_bytes", &mut config.max_bytes),
        ("idle_heartbeat", &mut config.idle_heartbeat),
        ("inactive_threshold", &mut config.inactive_threshold),
        ("priority_timeout", &mut config.priority_timeout),
    ];
    for (name, value) in settings {
        if *value < 0 {
            if pedantic {
                return Err(errors::pedantic(format_args!(
                    "{name} must not be negative"
                )));
            }
            *value = 0;
        }
    }
    Ok(())
}

fn default_inactivity(
    config: &mut ConsumerConfig,
    stream: &StreamConfig,
    pedantic: bool,
) -> Result<(), ApiError> {
    let limit = stream.consumer_limits.inactive_threshold;
    if config.inactive_threshold == 0 && limit > 0 {
        if pedantic {
            return Err(errors::pedantic(
                "inactive_threshold must be set if it's configured in stream limits",
            ));
        }
        config.inactive_threshold = limit;
    }
    if config.inactive_threshold == 0 && !config.is_durable() {
        config.inactive_threshold = INACTIVE_NS_DEFAULT;
    }
    if limit > 0 && config.inactive_threshold > limit {
        return Err(errors::consumer_inactive_threshold_excess(format_duration(
            limit,
        )));
    }
    Ok(())
}

fn default_ack_pending(
    config: &mut ConsumerConfig,
    stream: &StreamConfig,
    rules: ConsumerRules,
    acks: bool,
) -> Result<(), ApiError> {
    if config.max_ack_pending < -1 {
        if rules.pedantic {
            return Err(errors::pedantic("max_ack_pending must be set to -1"));
        }
        config.max_ack_pending = -1;
    }
    let stream_limit = stream.consumer_limits.max_ack_pending;
    if config.max_ack_pending == 0 && stream_limit > 0 {
        if rules.pedantic {
            return Err(errors::pedantic(
                "max_ack_pending must be set if it's configured in stream limits",
            ));
        }
        config.max_ack_pending = stream_limit;
    }
    if config.max_ack_pending == 0 && acks {
        config.max_ack_pending = match rules.ack_pending_max {
            Some(max) => ACK_PENDING_DEFAULT.min(max),
            None => ACK_PENDING_DEFAULT,
        };
    }
    let limits = [
        Some(stream_limit).filter(|limit| *limit > 0),
        rules.ack_pending_max,
    ];
    for limit in limits.into_iter().flatten() {
        if config.max_ack_pending > limit {
            return Err(errors::consumer_max_pending_ack_excess(limit));
        }
    }
    Ok(())
}

fn check_push(config: &ConsumerConfig, stream: &StreamConfig) -> Result<(), ApiError> {
    if !subjects::is_valid(&config.deliver_subject) {
        return Err(errors::CONSUMER_INVALID_DELIVER_SUBJECT);
    }
    if !subjects::is_literal(&config.deliver_subject) {
        return Err(errors::CONSUMER_DELIVER_TO_WILDCARDS);
    }
    if stream
        .subjects
        .iter()
        .any(|s| subjects::collide(s, &config.deliver_subject))
    {
        return Err(errors::CONSUMER_DELIVER_CYCLE);
    }
    if config.max_waiting != 0 {
        return Err(errors::CONSUMER_PUSH_MAX_WAITING);
    }
    if config.max_ack_pending > 0 && config.ack_policy == AckPolicy::None {
        return Err(errors::CONSUMER_MAX_PENDING_ACK_POLICY_REQUIRED);
    }
    if config.idle_heartbeat > 0 && config.idle_heartbeat < HEARTBEAT_NS_MIN {
        return Err(errors::CONSUMER_SMALL_HEARTBEAT);
    }
    if config.flow_control && config.idle_heartbeat == 0 {
        return Err(errors::CONSUMER_WITH_FLOW_CONTROL_NEEDS_HEARTBEATS);
    }
    if config.direct && config.is_durable() {
        return Err(errors::CONSUMER_DIRECT_REQUIRES_EPHEMERAL);
    }
    check_flow_control_acks(config)
}

/// CCFG-042.
fn check_flow_control_acks(config: &ConsumerConfig) -> Result<(), ApiError> {
    if config.ack_policy != AckPolicy::FlowControl {
        return Ok(());
    }
    if !config.flow_control {
        return Err(errors::CONSUMER_ACK_FC_REQUIRES_FC);
    }
    if config.max_ack_pending <= 0 {
        return Err(errors::CONSUMER_ACK_FC_REQUIRES_MAX_ACK_PENDING);
    }
    if config.ack_wait != 0 || !config.backoff.is_empty() {
        return Err(errors::CONSUMER_ACK_FC_REQUIRES_NO_ACK_WAIT);
    }
    if config.max_deliver > 0 {
        return Err(errors::CONSUMER_ACK_FC_REQUIRES_NO_MAX_DELIVER);
    }
    Ok(())
}

fn check_pull(config: &ConsumerConfig, stream: &StreamConfig) -> Result<(), ApiError> {
    if config.ack_policy == AckPolicy::FlowControl {
        return Err(errors::CONSUMER_ACK_FC_REQUIRES_PUSH);
    }
    if config.ack_policy == AckPolicy::None && stream.retention == Retention::WorkQueue {
        return Err(errors::CONSUMER_PULL_REQUIRES_ACK);
    }
    if config.rate_limit_bps > 0 {
        return Err(errors::CONSUMER_PULL_WITH_RATE_LIMIT);
    }
    if config.idle_heartbeat > 0 {
        return Err(errors::CONSUMER_HB_REQUIRES_PUSH);
    }
    if config.flow_control {
        return Err(errors::CONSUMER_FC_REQUIRES_PUSH);
    }
    if config.max_expires > 0 && config.max_expires < MAX_EXPIRES_NS_MIN {
        return Err(errors::CONSUMER_MAX_REQUEST_EXPIRES_TOO_SMALL);
    }
    if config.direct {
        return Err(errors::CONSUMER_DIRECT_REQUIRES_PUSH);
    }
    Ok(())
}

/// CCFG-006..008. The texts include a doubled word that clients may have come to match.
fn check_start(config: &ConsumerConfig) -> Result<(), ApiError> {
    let seq = config.opt_start_seq > 0;
    let time = config.opt_start_time.is_some();
    let (policy, refuse_seq, refuse_time) = match config.deliver_policy {
        DeliverPolicy::All => ("deliver all", seq, time),
        DeliverPolicy::Last => ("deliver last", seq, time),
        DeliverPolicy::New => ("deliver new", seq, time),
        DeliverPolicy::LastPerSubject => ("deliver last per subject", seq, time),
        DeliverPolicy::ByStartSequence => ("deliver by start sequence", false, time),
        DeliverPolicy::ByStartTime => ("deliver by start time", seq, false),
    };
    let problem = match config.deliver_policy {
        DeliverPolicy::ByStartSequence if !seq => Some("but optional start sequence is not set"),
        DeliverPolicy::ByStartTime if !time => Some("but optional start time is not set"),
        DeliverPolicy::LastPerSubject
            if config.filter_subject.is_empty() && config.filter_subjects.is_empty() =>
        {
            Some("but optional filter subject is not set")
        }
        DeliverPolicy::ByStartTime if refuse_seq => {
            Some("but optional start start sequence is also set")
        }
        _ if refuse_seq => Some("but optional start sequence is also set"),
        _ if refuse_time => Some("but optional start time is also set"),
        _ => None,
    };
    match problem {
        Some(problem) => Err(consumer_invalid_policy(format_args!(
            "consumer delivery policy is {policy}, {problem}"
        ))),
        None => Ok(()),
    }
}

fn check_filters(config: &ConsumerConfig) -> Result<(), ApiError> {
    if !config.filter_subject.is_empty() && !config.filter_subjects.is_empty() {
        return Err(errors::CONSUMER_DUPLICATE_FILTER_SUBJECTS);
    }
    if config.filter_subjects.iter().any(String::is_empty) {
        return Err(errors::CONSUMER_EMPTY_FILTER);
    }
    let filters = config.filters();
    if filters.iter().any(|filter| !subjects::is_valid(filter)) {
        return Err(stream_invalid_config("invalid subject"));
    }
    for (i, filter) in filters.iter().enumerate() {
        let nested = filters[..i]
            .iter()
            .any(|other| subjects::is_subset(filter, other) || subjects::is_subset(other, filter));
        if nested {
            return Err(errors::CONSUMER_OVERLAPPING_SUBJECT_FILTERS);
        }
    }
    Ok(())
}

fn check_ack_rules(
    config: &ConsumerConfig,
    stream: &StreamConfig,
    rules: ConsumerRules,
) -> Result<(), ApiError> {
    let deliveries = usize::try_from(config.max_deliver).unwrap_or(usize::MAX);
    if deliveries < config.backoff.len() {
        return Err(errors::CONSUMER_MAX_DELIVER_BACKOFF);
    }
    if let Some(max) = rules.batch_max.filter(|max| config.max_batch > *max) {
        return Err(errors::consumer_max_request_batch_exceeded(max));
    }
    if stream.retention == Retention::WorkQueue {
        if !matches!(
            config.ack_policy,
            AckPolicy::Explicit | AckPolicy::FlowControl
        ) {
            return Err(errors::CONSUMER_WQ_REQUIRES_EXPLICIT_ACK);
        }
        if config.deliver_policy != DeliverPolicy::All {
            return Err(errors::CONSUMER_WQ_CONSUMER_NOT_DELIVER_ALL);
        }
    }
    Ok(())
}

fn check_priority(config: &ConsumerConfig) -> Result<(), ApiError> {
    if config.priority_policy == PriorityPolicy::None {
        if !config.priority_groups.is_empty() {
            return Err(errors::CONSUMER_PRIORITY_GROUP_WITH_POLICY_NONE);
        }
        if config.priority_timeout > 0 {
            return Err(errors::CONSUMER_PINNED_TTL_WITHOUT_PRIORITY_POLICY_NONE);
        }
        return Ok(());
    }
    if config.is_push() {
        return Err(errors::CONSUMER_PUSH_WITH_PRIORITY_GROUP);
    }
    if config.priority_groups.is_empty() {
        return Err(errors::CONSUMER_PRIORITY_POLICY_WITHOUT_GROUP);
    }
    for group in &config.priority_groups {
        if group.is_empty() {
            return Err(errors::CONSUMER_EMPTY_GROUP_NAME);
        }
        let valid = group.len() <= 16
            && group
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_/=".contains(&b));
        if !valid {
            return Err(errors::CONSUMER_INVALID_GROUP_NAME);
        }
    }
    Ok(())
}

fn check_sampling(text: &str) -> Result<(), ApiError> {
    if text.is_empty() {
        return Ok(());
    }
    let number = text.strip_suffix('%').unwrap_or(text);
    match number.parse::<i64>() {
        Ok(percent) if percent >= 0 => Ok(()),
        Ok(_) => Err(errors::consumer_invalid_sampling("<nil>")),
        Err(_) => Err(errors::consumer_invalid_sampling(format_args!(
            "strconv.Atoi: parsing {number:?}: invalid syntax"
        ))),
    }
}

/// T-84: on a work queue no message may belong to two consumers. `others` are the filters of each
/// other consumer.
pub fn check_work_queue_overlap(
    filters: &[String],
    others: &[Vec<String>],
) -> Result<(), ApiError> {
    if others.is_empty() {
        return Ok(());
    }
    if filters.is_empty() {
        return Err(errors::CONSUMER_WQ_MULTIPLE_UNFILTERED);
    }
    for other in others {
        let overlap = other.is_empty()
            || filters
                .iter()
                .any(|f| other.iter().any(|o| subjects::collide(f, o)));
        if overlap {
            return Err(errors::CONSUMER_WQ_CONSUMER_NOT_UNIQUE);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
