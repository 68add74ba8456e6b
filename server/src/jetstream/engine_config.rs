//! Between the protocol's configurations and those of the storage engine. The complete JSON
//! travels in the engine's attachment; the engine gets the settings it acts on.

use riverlog_engine as engine;
use riverlog_engine::consumer::{AckPolicy as EngineAck, DeliverPolicy as EngineDeliver};
use riverlog_engine::ids::{Seq, TimestampNs};

use super::json::{JsonError, UnknownFields, parse_object};
use super::time::format_duration;
use super::types::consumer_config::ConsumerConfig;
use super::types::enums::{
    AckPolicy, Compression, DeliverPolicy, Discard, ReplayPolicy, Retention, Storage,
};
use super::types::stream_config::StreamConfig;

/// A limit that is set: -1 and 0 mean none.
fn limit(value: i64) -> Option<u64> {
    u64::try_from(value).ok().filter(|value| *value > 0)
}

/// What the engine is told about a stream.
pub fn stream_to_engine(config: &StreamConfig) -> engine::StreamConfig {
    engine::StreamConfig {
        name: config.name.clone(),
        storage: match config.storage {
            Storage::File => engine::Storage::File,
            Storage::Memory => engine::Storage::Memory,
        },
        msgs_max: limit(config.max_msgs),
        bytes_max: limit(config.max_bytes),
        age_max_ns: limit(config.max_age),
        delete_marker: delete_marker(config.subject_delete_marker_ttl),
        msgs_per_subject_max: limit(config.max_msgs_per_subject),
        discard: match config.discard {
            Discard::Old => engine::Discard::Old,
            Discard::New => engine::Discard::New,
        },
        discard_new_per_subject: config.discard_new_per_subject,
        retention: match config.retention {
            Retention::Limits => engine::Retention::Limits,
            Retention::Interest => engine::Retention::Interest,
            Retention::WorkQueue => engine::Retention::WorkQueue,
        },
        dedup_window_ns: limit(config.duplicate_window).unwrap_or(0),
        compression: match config.compression {
            Compression::None => engine::Compression::None,
            Compression::S2 => engine::Compression::S2,
        },
        first_seq: Seq(config.first_seq),
        attachment: attachment(config),
    }
}

/// What takes the place of the last message of a subject that expired (TTL-007).
fn delete_marker(ttl: i64) -> Option<engine::DeleteMarker> {
    // Life times are whole seconds, as those of messages.
    let ttl_secs = limit(ttl / 1_000_000_000)?;
    let ttl = format_duration(ttl);
    let headers = format!(
        "NATS/1.0\r\nNats-Marker-Reason: MaxAge\r\nNats-TTL: {ttl}\r\nNats-Rollup: sub\r\n\r\n"
    );
    Some(engine::DeleteMarker {
        headers: headers.into_bytes(),
        ttl_ns: ttl_secs * 1_000_000_000,
    })
}

/// What the engine is told about a consumer. Its name is apart: a name that the server chose is not
/// in the configuration.
pub fn consumer_to_engine(config: &ConsumerConfig, name: &str) -> engine::consumer::ConsumerConfig {
    engine::consumer::ConsumerConfig {
        name: name.to_owned(),
        durable: config.is_durable(),
        filters: config.filters(),
        deliver: match config.deliver_policy {
            DeliverPolicy::All => EngineDeliver::All,
            DeliverPolicy::Last => EngineDeliver::Last,
            DeliverPolicy::New => EngineDeliver::New,
            DeliverPolicy::ByStartSequence => EngineDeliver::BySeq(Seq(config.opt_start_seq)),
            DeliverPolicy::ByStartTime => {
                EngineDeliver::ByTime(config.opt_start_time.unwrap_or(TimestampNs(0)))
            }
            DeliverPolicy::LastPerSubject => EngineDeliver::LastPerSubject,
        },
        ack: match config.ack_policy {
            AckPolicy::None => EngineAck::None,
            AckPolicy::All => EngineAck::All,
            AckPolicy::Explicit | AckPolicy::FlowControl => EngineAck::Explicit,
        },
        ack_wait_ns: limit(config.ack_wait).unwrap_or(0),
        backoff_ns: config
            .backoff
            .iter()
            .map(|wait| limit(*wait).unwrap_or(0))
            .collect(),
        max_deliver: limit(config.max_deliver),
        max_ack_pending: limit(config.max_ack_pending),
        memory: config.mem_storage,
        pause_until: config.pause_until,
        replay_original: config.replay_policy == ReplayPolicy::Original,
        attachment: attachment(config),
    }
}

fn attachment(config: &impl serde::Serialize) -> Vec<u8> {
    // These types have string keys and no failing serialiser.
    serde_json::to_vec(config).unwrap_or_default()
}

/// Reads the attachment of a stored stream.
pub fn stream_from_engine(config: &engine::StreamConfig) -> Result<StreamConfig, JsonError> {
    parse_object(&config.attachment, "StreamConfig", UnknownFields::Refuse)
}

/// Reads the attachment of a stored consumer.
pub fn consumer_from_engine(
    config: &engine::consumer::ConsumerConfig,
) -> Result<ConsumerConfig, JsonError> {
    parse_object(&config.attachment, "ConsumerConfig", UnknownFields::Refuse)
}

#[cfg(test)]
mod tests {
    use super::super::validate::stream::{StreamRules, check_stream_config};
    use super::*;

    #[test]
    fn limits_are_mapped_and_the_json_survives() {
        let wanted = StreamConfig {
            name: "S".to_owned(),
            max_msgs: 5,
            max_age: 1_000_000_000,
            discard: Discard::New,
            storage: Storage::Memory,
            first_seq: 9,
            ..StreamConfig::default()
        };
        let rules = StreamRules {
            pedantic: false,
            duplicate_window_ns_max: None,
        };
        let config = check_stream_config(&wanted, rules).unwrap();
        let mapped = stream_to_engine(&config);
        assert_eq!(mapped.msgs_max, Some(5));
        assert_eq!(mapped.bytes_max, None);
        assert_eq!(mapped.age_max_ns, Some(1_000_000_000));
        assert_eq!(mapped.dedup_window_ns, 1_000_000_000);
        assert_eq!(mapped.first_seq, Seq(9));
        assert_eq!(mapped.storage, engine::Storage::Memory);
        assert_eq!(stream_from_engine(&mapped).unwrap(), config);
    }

    #[test]
    fn a_marker_says_why_it_is_there_and_for_how_long() {
        assert_eq!(delete_marker(0), None);
        let marker = delete_marker(61_500_000_000).unwrap();
        assert_eq!(
            String::from_utf8(marker.headers).unwrap(),
            "NATS/1.0\r\nNats-Marker-Reason: MaxAge\r\nNats-TTL: 1m1.5s\r\nNats-Rollup: sub\r\n\r\n"
        );
        assert_eq!(marker.ttl_ns, 61_000_000_000);
    }

    #[test]
    fn consumer_settings_are_mapped_and_the_json_survives() {
        let config = ConsumerConfig {
            durable: "d".to_owned(),
            name: "d".to_owned(),
            ack_policy: AckPolicy::Explicit,
            ack_wait: 7,
            backoff: vec![1, 2],
            max_deliver: -1,
            max_ack_pending: 10,
            filter_subjects: vec!["a".to_owned(), "b".to_owned()],
            deliver_policy: DeliverPolicy::ByStartSequence,
            opt_start_seq: 4,
            ..ConsumerConfig::default()
        };
        let mapped = consumer_to_engine(&config, "d");
        assert_eq!(mapped.deliver, EngineDeliver::BySeq(Seq(4)));
        assert_eq!(mapped.max_deliver, None);
        assert_eq!(mapped.max_ack_pending, Some(10));
        assert_eq!(mapped.backoff_ns, [1, 2]);
        assert_eq!(mapped.filters, ["a", "b"]);
        assert_eq!(consumer_from_engine(&mapped).unwrap(), config);
    }
}
