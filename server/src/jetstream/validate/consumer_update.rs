//! Which changes of a consumer configuration are possible (CCFG-045..047).

use super::super::errors::{ApiError, consumer_create};
use super::super::types::consumer_config::ConsumerConfig;

/// Checks the step from `old` to `new`, both already defaulted.
pub fn check_update(old: &ConsumerConfig, new: &ConsumerConfig) -> Result<(), ApiError> {
    let fixed = [
        (
            old.durable != new.durable,
            "durable name can not be updated",
        ),
        (
            old.deliver_policy != new.deliver_policy,
            "deliver policy can not be updated",
        ),
        (
            old.opt_start_seq != new.opt_start_seq,
            "start sequence can not be updated",
        ),
        (
            old.opt_start_time != new.opt_start_time,
            "start time can not be updated",
        ),
        (
            old.ack_policy != new.ack_policy,
            "ack policy can not be updated",
        ),
        (
            old.replay_policy != new.replay_policy,
            "replay policy can not be updated",
        ),
        (
            old.idle_heartbeat != new.idle_heartbeat,
            "heart beats can not be updated",
        ),
        (
            old.flow_control != new.flow_control,
            "flow control can not be updated",
        ),
        (
            old.mem_storage != new.mem_storage,
            "storage type can not be updated",
        ),
        (old.direct != new.direct, "direct can not be updated"),
        (old.sourcing != new.sourcing, "sourcing can not be updated"),
        (
            !old.is_push() && new.is_push(),
            "can not update pull consumer to push based",
        ),
        (
            old.is_push() && !new.is_push(),
            "can not update push consumer to pull based",
        ),
        (
            old.max_waiting != new.max_waiting,
            "max waiting can not be updated",
        ),
    ];
    match fixed.iter().find(|(changed, _)| *changed) {
        Some((_, text)) => Err(consumer_create(text)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::json::{UnknownFields, parse_object};
    use super::super::super::types::stream_config::StreamConfig;
    use super::super::consumer::{ConsumerRules, check_consumer_config};
    use super::*;

    fn config(extra: &str) -> ConsumerConfig {
        let ack = if extra.contains("ack_policy") {
            ""
        } else {
            r#","ack_policy":"explicit""#
        };
        let comma = if extra.is_empty() { "" } else { "," };
        let body = format!(r#"{{"durable_name":"d"{ack}{comma}{extra}}}"#);
        let config: ConsumerConfig =
            parse_object(body.as_bytes(), "ConsumerConfig", UnknownFields::Refuse).unwrap();
        let stream = StreamConfig {
            num_replicas: 1,
            ..StreamConfig::default()
        };
        check_consumer_config(&config, &stream, ConsumerRules::default()).unwrap()
    }

    #[test]
    fn fixed_settings() {
        for (extra, text) in [
            (
                r#""deliver_policy":"new""#,
                "deliver policy can not be updated",
            ),
            (r#""ack_policy":"none""#, "ack policy can not be updated"),
            (
                r#""replay_policy":"original""#,
                "replay policy can not be updated",
            ),
            (r#""max_waiting":5"#, "max waiting can not be updated"),
            (r#""mem_storage":true"#, "storage type can not be updated"),
            (
                r#""deliver_subject":"z""#,
                "can not update pull consumer to push based",
            ),
        ] {
            let error = check_update(&config(""), &config(extra)).unwrap_err();
            assert_eq!(
                (error.err_code, error.description.as_ref()),
                (10012, text),
                "{extra}"
            );
        }
    }

    #[test]
    fn changeable_settings() {
        for extra in [
            r#""ack_wait":5000000"#,
            r#""max_deliver":4"#,
            r#""backoff":[1,2]"#,
            r#""filter_subject":"s.a""#,
            r#""filter_subjects":["s.a"]"#,
            r#""max_ack_pending":3"#,
            r#""inactive_threshold":5000000000"#,
            r#""max_batch":3,"max_expires":1000000,"max_bytes":7"#,
            r#""description":"z","headers_only":true,"metadata":{"q":"r"}"#,
        ] {
            assert_eq!(check_update(&config(""), &config(extra)), Ok(()), "{extra}");
        }
    }
}
