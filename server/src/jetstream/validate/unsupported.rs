//! Features of the protocol that this version does not have. A configuration that asks for one is
//! refused by name, never accepted and ignored.

use super::super::errors::{ApiError, not_supported_by_consumer, not_supported_by_stream};
use super::super::types::consumer_config::ConsumerConfig;
use super::super::types::enums::{AckPolicy, PersistMode, PriorityPolicy};
use super::super::types::stream_config::StreamConfig;

/// Refuses what a stream cannot do yet.
pub fn check_stream(config: &StreamConfig) -> Result<(), ApiError> {
    let asked = [
        (config.mirror.is_some(), "a mirror"),
        (!config.sources.is_empty(), "sourcing from other streams"),
        (config.subject_transform.is_some(), "subject_transform"),
        (config.republish.is_some(), "republish"),
        (config.allow_msg_counter, "allow_msg_counter"),
        (config.allow_atomic, "allow_atomic"),
        (config.allow_batched, "allow_batched"),
        (config.allow_msg_schedules, "allow_msg_schedules"),
        (
            config.persist_mode == PersistMode::Async,
            "persist_mode async",
        ),
    ];
    match asked.iter().find(|(wanted, _)| *wanted) {
        Some((_, what)) => Err(not_supported_by_stream(what)),
        None => Ok(()),
    }
}

/// Refuses what a consumer cannot do yet.
pub fn check_consumer(config: &ConsumerConfig) -> Result<(), ApiError> {
    let asked = [
        (config.rate_limit_bps > 0, "rate_limit_bps"),
        (
            config.ack_policy == AckPolicy::FlowControl,
            "ack policy flow_control",
        ),
        (config.direct, "direct"),
        (config.sourcing, "sourcing"),
        (
            config.priority_policy != PriorityPolicy::None,
            "a priority policy",
        ),
        (samples(&config.sample_freq), "sample_freq"),
    ];
    match asked.iter().find(|(wanted, _)| *wanted) {
        Some((_, what)) => Err(not_supported_by_consumer(what)),
        None => Ok(()),
    }
}

/// Sampling of no acknowledgement at all is what happens anyway.
fn samples(percent: &str) -> bool {
    !matches!(percent, "" | "0" | "0%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsupported_settings_are_refused_by_name() {
        let config = StreamConfig {
            allow_atomic: true,
            ..StreamConfig::default()
        };
        let error = check_stream(&config).unwrap_err();
        assert_eq!(error.err_code, 10052);
        assert_eq!(
            error.description,
            "allow_atomic is not supported by this version of Riverlog"
        );
        let config = ConsumerConfig {
            rate_limit_bps: 1,
            ..ConsumerConfig::default()
        };
        let error = check_consumer(&config).unwrap_err();
        assert_eq!(error.err_code, 10012);
        assert!(error.description.contains("rate_limit_bps"));
        assert_eq!(check_stream(&StreamConfig::default()), Ok(()));
        assert_eq!(check_consumer(&ConsumerConfig::default()), Ok(()));
    }
}
