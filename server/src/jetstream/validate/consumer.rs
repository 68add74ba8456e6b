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
mod tests {
    use super::super::super::json::{UnknownFields, parse_object};
    use super::*;

    fn stream(body: &str) -> StreamConfig {
        let mut stream: StreamConfig =
            parse_object(body.as_bytes(), "StreamConfig", UnknownFields::Refuse).unwrap();
        stream.num_replicas = 1;
        stream.subjects = vec!["s.>".to_owned()];
        stream
    }

    fn check_on(
        stream_body: &str,
        body: &str,
        pedantic: bool,
    ) -> Result<ConsumerConfig, (u16, String)> {
        let wanted: ConsumerConfig =
            parse_object(body.as_bytes(), "ConsumerConfig", UnknownFields::Refuse).unwrap();
        let rules = ConsumerRules {
            pedantic,
            ..ConsumerRules::default()
        };
        check_consumer_config(&wanted, &stream(stream_body), rules)
            .map_err(|e| (e.err_code, e.description.into_owned()))
    }

    /// A durable consumer with explicit acknowledgement plus `extra`.
    fn durable(extra: &str) -> String {
        let ack = if extra.contains("ack_policy") {
            ""
        } else {
            r#","ack_policy":"explicit""#
        };
        let comma = if extra.is_empty() { "" } else { "," };
        format!(r#"{{"durable_name":"d"{ack}{comma}{extra}}}"#)
    }

    #[test]
    fn refused_configurations() {
        let long = format!(r#""description":"{}""#, "x".repeat(4097));
        let large = format!(r#""metadata":{{"a":"{}"}}"#, "x".repeat(131_072));
        let groups = "Valid priority group name must match A-Z, a-z, 0-9, -_/=)+ and may not exceed 16 characters";
        for (extra, err_code, text) in [
            (
                r#""name":"e""#,
                10132,
                "Consumer Durable and Name have to be equal if both are provided",
            ),
            (
                &long,
                10107,
                "consumer description is too long, maximum allowed is 4096",
            ),
            (
                &large,
                10135,
                "consumer metadata exceeds maximum size of 128KB",
            ),
            (
                r#""ack_policy":"flow_control""#,
                10218,
                "flow control ack policy requires a push based consumer",
            ),
            (
                r#""opt_start_seq":5"#,
                10094,
                "consumer delivery policy is deliver all, but optional start sequence is also set",
            ),
            (
                r#""opt_start_time":"2020-01-01T00:00:00Z""#,
                10094,
                "consumer delivery policy is deliver all, but optional start time is also set",
            ),
            (
                r#""deliver_policy":"by_start_sequence""#,
                10094,
                "consumer delivery policy is deliver by start sequence, but optional start sequence is not set",
            ),
            (
                r#""deliver_policy":"by_start_sequence","opt_start_seq":5,"opt_start_time":"2020-01-01T00:00:00Z""#,
                10094,
                "consumer delivery policy is deliver by start sequence, but optional start time is also set",
            ),
            (
                r#""deliver_policy":"by_start_time""#,
                10094,
                "consumer delivery policy is deliver by start time, but optional start time is not set",
            ),
            (
                r#""deliver_policy":"by_start_time","opt_start_time":"2020-01-01T00:00:00Z","opt_start_seq":1"#,
                10094,
                "consumer delivery policy is deliver by start time, but optional start start sequence is also set",
            ),
            (
                r#""deliver_policy":"last","opt_start_seq":1"#,
                10094,
                "consumer delivery policy is deliver last, but optional start sequence is also set",
            ),
            (
                r#""deliver_policy":"new","opt_start_time":"2020-01-01T00:00:00Z""#,
                10094,
                "consumer delivery policy is deliver new, but optional start time is also set",
            ),
            (
                r#""deliver_policy":"last_per_subject""#,
                10094,
                "consumer delivery policy is deliver last per subject, but optional filter subject is not set",
            ),
            (
                r#""deliver_policy":"last_per_subject","filter_subject":"s.a","opt_start_seq":4"#,
                10094,
                "consumer delivery policy is deliver last per subject, but optional start sequence is also set",
            ),
            (
                r#""ack_wait":-1"#,
                10183,
                "consumer ack wait needs to be positive",
            ),
            (
                r#""backoff":[1,2],"max_deliver":1"#,
                10116,
                "max deliver is required to be > length of backoff values",
            ),
            (
                r#""backoff":[-1]"#,
                10184,
                "consumer backoff needs to be positive",
            ),
            (r#""filter_subject":"s..a""#, 10052, "invalid subject"),
            (r#""filter_subjects":["s..a"]"#, 10052, "invalid subject"),
            (
                r#""filter_subjects":["s.a","s.a"]"#,
                10138,
                "consumer subject filters cannot overlap",
            ),
            (
                r#""filter_subjects":["s.*","s.a"]"#,
                10138,
                "consumer subject filters cannot overlap",
            ),
            (
                r#""filter_subjects":["s.a",""]"#,
                10139,
                "consumer filter in FilterSubjects cannot be empty",
            ),
            (
                r#""filter_subjects":["s.a"],"filter_subject":"s.b""#,
                10136,
                "consumer cannot have both FilterSubject and FilterSubjects specified",
            ),
            (
                r#""rate_limit_bps":5"#,
                10086,
                "consumer in pull mode can not have rate limit set",
            ),
            (
                r#""sample_freq":"x""#,
                10095,
                r#"failed to parse consumer sampling configuration: strconv.Atoi: parsing "x": invalid syntax"#,
            ),
            (
                r#""sample_freq":"-1""#,
                10095,
                "failed to parse consumer sampling configuration: <nil>",
            ),
            (
                r#""flow_control":true"#,
                10089,
                "consumer flow control requires a push based consumer",
            ),
            (
                r#""idle_heartbeat":100000000"#,
                10088,
                "consumer idle heartbeat requires a push based consumer",
            ),
            (
                r#""max_expires":5"#,
                10115,
                "consumer max request expires needs to be >= 1ms",
            ),
            (
                r#""num_replicas":3"#,
                10074,
                "replicas > 1 not supported in non-clustered mode",
            ),
            (
                r#""num_replicas":-1"#,
                10133,
                "replicas count cannot be negative",
            ),
            (
                r#""direct":true"#,
                10090,
                "consumer direct requires a push based consumer",
            ),
            (
                r#""priority_groups":["a"]"#,
                10196,
                "consumer can not have priority groups when policy is none",
            ),
            (
                r#""priority_policy":"overflow""#,
                10159,
                "Setting PriorityPolicy requires at least one PriorityGroup to be set",
            ),
            (
                r#""priority_timeout":5"#,
                10197,
                "PinnedTTL cannot be set when PriorityPolicy is none",
            ),
            (
                r#""priority_groups":["a b"],"priority_policy":"overflow""#,
                10162,
                groups,
            ),
            (
                r#""priority_groups":[""],"priority_policy":"overflow""#,
                10161,
                "Group name cannot be an empty string",
            ),
            (
                r#""deliver_subject":"a.*""#,
                10079,
                "consumer deliver subject has wildcards",
            ),
            (
                r#""deliver_subject":"a..b""#,
                10112,
                "invalid push consumer deliver subject",
            ),
            (
                r#""deliver_subject":"s.a""#,
                10081,
                "consumer deliver subject forms a cycle",
            ),
            (
                r#""deliver_subject":"x","max_waiting":5"#,
                10080,
                "consumer in push mode can not set max waiting",
            ),
            (
                r#""deliver_subject":"x","idle_heartbeat":5"#,
                10083,
                "consumer idle heartbeat needs to be >= 100ms",
            ),
            (
                r#""deliver_subject":"x","flow_control":true"#,
                10108,
                "consumer with flow control also needs heartbeats",
            ),
            (
                r#""deliver_subject":"x","priority_policy":"overflow","priority_groups":["a"]"#,
                10178,
                "priority groups can not be used with push consumers",
            ),
        ] {
            let got = check_on("{}", &durable(extra), false);
            assert_eq!(got.unwrap_err(), (err_code, text.to_owned()), "{extra}");
        }
        let got = check_on("{}", r#"{"name":"a.b"}"#, false).unwrap_err();
        assert_eq!(
            got,
            (
                10052,
                r"consumer name can not contain '.', '*', '>', '\', '/'".to_owned()
            )
        );
    }

    #[test]
    fn defaults_are_filled_in() {
        let json = |body: &str| {
            let mut config = check_on("{}", body, false).unwrap();
            config.metadata.clear();
            serde_json::to_string(&config).unwrap()
        };
        assert_eq!(
            json(r#"{"name":"c1","ack_policy":"explicit"}"#),
            r#"{"name":"c1","deliver_policy":"all","ack_policy":"explicit","ack_wait":30000000000,"max_deliver":-1,"replay_policy":"instant","max_waiting":512,"max_ack_pending":1000,"inactive_threshold":5000000000,"num_replicas":0}"#
        );
        assert_eq!(
            json("{}"),
            r#"{"deliver_policy":"all","ack_policy":"none","max_deliver":-1,"replay_policy":"instant","max_waiting":512,"inactive_threshold":5000000000,"num_replicas":0}"#
        );
        assert_eq!(
            json(&durable(
                r#""backoff":[5,10],"ack_wait":50,"max_ack_pending":-9,"max_deliver":-4,"max_batch":-5,"max_waiting":-1"#
            )),
            r#"{"durable_name":"d","name":"d","deliver_policy":"all","ack_policy":"explicit","ack_wait":5,"max_deliver":-1,"backoff":[5,10],"replay_policy":"instant","max_waiting":512,"max_ack_pending":-1,"num_replicas":0}"#
        );
    }

    #[test]
    fn stream_limits_are_defaults_and_ceilings() {
        let limits =
            r#"{"consumer_limits":{"max_ack_pending":10,"inactive_threshold":60000000000}}"#;
        let got = check_on(limits, &durable(""), false).unwrap();
        assert_eq!(
            (got.max_ack_pending, got.inactive_threshold),
            (10, 60_000_000_000)
        );
        let got = check_on(limits, &durable(r#""max_ack_pending":-1"#), false).unwrap();
        assert_eq!(got.max_ack_pending, -1);
        for (extra, pedantic, err_code, text) in [
            (
                r#""max_ack_pending":11"#,
                false,
                10121,
                "consumer max ack pending exceeds system limit of 10",
            ),
            (
                r#""inactive_threshold":61000000000"#,
                false,
                10153,
                "consumer inactive threshold exceeds system limit of 1m0s",
            ),
            (
                r#""inactive_threshold":1"#,
                true,
                10157,
                "pedantic mode: max_ack_pending must be set if it's configured in stream limits",
            ),
        ] {
            let got = check_on(limits, &durable(extra), pedantic).unwrap_err();
            assert_eq!(got, (err_code, text.to_owned()), "{extra}");
        }
    }

    #[test]
    fn pedantic_requests_refuse_silent_changes() {
        for (extra, text) in [
            (
                r#""max_deliver":-5"#,
                "pedantic mode: max_deliver must be set to -1",
            ),
            (
                r#""ack_wait":5,"backoff":[1,2]"#,
                "pedantic mode: first backoff value has to equal batch AckWait",
            ),
            (
                r#""max_ack_pending":-5"#,
                "pedantic mode: max_ack_pending must be set to -1",
            ),
            (
                r#""max_waiting":-1"#,
                "pedantic mode: max_waiting must not be negative",
            ),
            (
                r#""max_batch":-1"#,
                "pedantic mode: max_batch must not be negative",
            ),
        ] {
            let got = check_on("{}", &durable(extra), true).unwrap_err();
            assert_eq!(got, (10157, text.to_owned()), "{extra}");
        }
        assert!(check_on("{}", &durable(r#""max_deliver":0"#), true).is_ok());
    }

    #[test]
    fn work_queue_rules() {
        let queue = r#"{"retention":"workqueue"}"#;
        for (extra, err_code) in [
            (r#""ack_policy":"none""#, 10084),
            (r#""ack_policy":"all""#, 10098),
            (r#""deliver_policy":"new""#, 10101),
            (r#""deliver_policy":"last""#, 10101),
        ] {
            assert_eq!(
                check_on(queue, &durable(extra), false).unwrap_err().0,
                err_code,
                "{extra}"
            );
        }
        let list = |items: &[&str]| items.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let overlap = |filters: &[&str], others: &[&[&str]]| {
            let others: Vec<_> = others.iter().map(|o| list(o)).collect();
            check_work_queue_overlap(&list(filters), &others).map_err(|e| e.err_code)
        };
        assert_eq!(overlap(&[], &[]), Ok(()));
        assert_eq!(overlap(&[], &[&["w.a"]]), Err(10099));
        assert_eq!(overlap(&["w.*"], &[&["w.a"]]), Err(10100));
        assert_eq!(overlap(&["w.b", "w.a"], &[&["w.a"]]), Err(10100));
        assert_eq!(overlap(&["w.b"], &[&[]]), Err(10100));
        assert_eq!(overlap(&["w.b"], &[&["w.a"], &["w.c"]]), Ok(()));
    }
}
