//! The `_nats.*` metadata keys (LVL-004, LVL-005): the level an asset needs is stored, the
//! server's own level and version are added to replies and taken out of requests.

use super::super::limits::{API_LEVEL, COMPATIBLE_VERSION, METADATA_BYTES_MAX};
use super::super::types::Metadata;
use super::super::types::consumer_config::ConsumerConfig;
use super::super::types::enums::{AckPolicy, PersistMode, PriorityPolicy};
use super::super::types::stream_config::StreamConfig;

const REQUIRED_LEVEL: &str = "_nats.req.level";
const SERVER_LEVEL: &str = "_nats.level";
const SERVER_VERSION: &str = "_nats.ver";

/// Whether the metadata is within its limit: keys and values together.
pub fn is_within_limit(metadata: &Metadata) -> bool {
    metadata
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum::<usize>()
        <= METADATA_BYTES_MAX
}

/// Replaces the `_nats.*` keys of a request by the one that is stored.
pub fn set_stored(metadata: &mut Metadata, level: u32) {
    metadata.remove(SERVER_LEVEL);
    metadata.remove(SERVER_VERSION);
    metadata.insert(REQUIRED_LEVEL.to_owned(), level.to_string());
}

/// Adds what only replies carry.
pub fn add_dynamic(metadata: &mut Metadata) {
    metadata.insert(SERVER_LEVEL.to_owned(), API_LEVEL.to_string());
    metadata.insert(SERVER_VERSION.to_owned(), COMPATIBLE_VERSION.to_owned());
}

/// The API level a stream needs (LVL-002).
pub fn stream_level(config: &StreamConfig) -> u32 {
    if config.allow_batched {
        4
    } else if config.allow_msg_counter
        || config.allow_atomic
        || config.allow_msg_schedules
        || config.persist_mode == PersistMode::Async
    {
        2
    } else {
        u32::from(config.allow_msg_ttl || config.subject_delete_marker_ttl > 0)
    }
}

/// The API level a consumer needs (LVL-003).
pub fn consumer_level(config: &ConsumerConfig) -> u32 {
    if config.ack_policy == AckPolicy::FlowControl {
        4
    } else {
        u32::from(
            config.pause_until.is_some()
                || config.priority_policy != PriorityPolicy::None
                || !config.priority_groups.is_empty(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dynamic_keys_are_not_stored() {
        let mut metadata = Metadata::from([
            ("a".to_owned(), "b".to_owned()),
            ("_nats.ver".to_owned(), "x".to_owned()),
            ("_nats.level".to_owned(), "9".to_owned()),
            ("_nats.req.level".to_owned(), "9".to_owned()),
        ]);
        set_stored(&mut metadata, 1);
        assert_eq!(
            metadata,
            Metadata::from([
                ("_nats.req.level".to_owned(), "1".to_owned()),
                ("a".to_owned(), "b".to_owned()),
            ])
        );
        add_dynamic(&mut metadata);
        assert_eq!(metadata["_nats.level"], "5");
        assert_eq!(metadata["_nats.ver"], COMPATIBLE_VERSION);
    }

    #[test]
    fn levels() {
        let mut stream = StreamConfig::default();
        assert_eq!(stream_level(&stream), 0);
        stream.allow_msg_ttl = true;
        assert_eq!(stream_level(&stream), 1);
        stream.allow_atomic = true;
        assert_eq!(stream_level(&stream), 2);
        stream.allow_batched = true;
        assert_eq!(stream_level(&stream), 4);
        let mut consumer = ConsumerConfig::default();
        assert_eq!(consumer_level(&consumer), 0);
        consumer.pause_until = Some(riverlog_engine::ids::TimestampNs(1));
        assert_eq!(consumer_level(&consumer), 1);
        consumer.ack_policy = AckPolicy::FlowControl;
        assert_eq!(consumer_level(&consumer), 4);
    }
}
