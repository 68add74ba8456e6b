//! Stream configuration (SCFG rows).

use riverlog_engine::ids::TimestampNs;
use serde::Serialize;

use super::super::json::{DurationNs, Fields, JsonError, ListItem, ObjectFromJson};
use super::enums::{Compression, Discard, PersistMode, Retention, Storage};
use super::{Metadata, as_time, is_false, is_zero_i32, is_zero_i64, is_zero_u64};

/// A stream's configuration as it goes over the wire and into the store's attachment.
/// Durations are nanoseconds, sizes bytes, -1 means "no limit".
#[derive(Clone, Default, Debug, PartialEq, Serialize)]
#[expect(
    missing_docs,
    reason = "field names are those of the protocol; SCFG rows describe them"
)]
pub struct StreamConfig {
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<String>,
    pub retention: Retention,
    pub max_consumers: i64,
    pub max_msgs: i64,
    pub max_bytes: i64,
    pub max_age: i64,
    pub max_msgs_per_subject: i64,
    #[serde(skip_serializing_if = "is_zero_i32")]
    pub max_msg_size: i32,
    pub discard: Discard,
    pub storage: Storage,
    pub num_replicas: i64,
    #[serde(skip_serializing_if = "is_false")]
    pub no_ack: bool,
    #[serde(skip_serializing_if = "is_zero_i64")]
    pub duplicate_window: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<StreamSource>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<StreamSource>,
    pub compression: Compression,
    #[serde(skip_serializing_if = "is_zero_u64")]
    pub first_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject_transform: Option<SubjectTransform>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub republish: Option<Republish>,
    pub allow_direct: bool,
    pub mirror_direct: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub discard_new_per_subject: bool,
    pub sealed: bool,
    pub deny_delete: bool,
    pub deny_purge: bool,
    pub allow_rollup_hdrs: bool,
    pub consumer_limits: ConsumerLimits,
    pub allow_msg_ttl: bool,
    #[serde(skip_serializing_if = "is_zero_i64")]
    pub subject_delete_marker_ttl: i64,
    #[serde(skip_serializing_if = "is_false")]
    pub allow_msg_counter: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub allow_atomic: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub allow_msg_schedules: bool,
    #[serde(skip_serializing_if = "PersistMode::is_default")]
    pub persist_mode: PersistMode,
    #[serde(skip_serializing_if = "is_false")]
    pub allow_batched: bool,
    #[serde(skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

impl ObjectFromJson for StreamConfig {
    fn read_fields(f: &mut Fields) -> Result<StreamConfig, JsonError> {
        let mut c = StreamConfig::default();
        f.read("name", &mut c.name)?;
        f.read("description", &mut c.description)?;
        f.read("subjects", &mut c.subjects)?;
        f.read("retention", &mut c.retention)?;
        f.read("max_consumers", &mut c.max_consumers)?;
        f.read("max_msgs", &mut c.max_msgs)?;
        f.read("max_bytes", &mut c.max_bytes)?;
        c.max_age = duration(f, "max_age")?;
        f.read("max_msgs_per_subject", &mut c.max_msgs_per_subject)?;
        f.read("max_msg_size", &mut c.max_msg_size)?;
        f.read("discard", &mut c.discard)?;
        f.read("storage", &mut c.storage)?;
        f.read("num_replicas", &mut c.num_replicas)?;
        f.read("no_ack", &mut c.no_ack)?;
        c.duplicate_window = duration(f, "duplicate_window")?;
        c.placement = f.optional("placement")?;
        c.mirror = f.optional("mirror")?;
        f.read("sources", &mut c.sources)?;
        f.read("compression", &mut c.compression)?;
        f.read("first_seq", &mut c.first_seq)?;
        c.subject_transform = f.optional("subject_transform")?;
        c.republish = f.optional("republish")?;
        f.read("allow_direct", &mut c.allow_direct)?;
        f.read("mirror_direct", &mut c.mirror_direct)?;
        f.read("discard_new_per_subject", &mut c.discard_new_per_subject)?;
        f.read("sealed", &mut c.sealed)?;
        f.read("deny_delete", &mut c.deny_delete)?;
        f.read("deny_purge", &mut c.deny_purge)?;
        f.read("allow_rollup_hdrs", &mut c.allow_rollup_hdrs)?;
        f.read("consumer_limits", &mut c.consumer_limits)?;
        f.read("allow_msg_ttl", &mut c.allow_msg_ttl)?;
        c.subject_delete_marker_ttl = duration(f, "subject_delete_marker_ttl")?;
        f.read("allow_msg_counter", &mut c.allow_msg_counter)?;
        f.read("allow_atomic", &mut c.allow_atomic)?;
        f.read("allow_msg_schedules", &mut c.allow_msg_schedules)?;
        f.read("persist_mode", &mut c.persist_mode)?;
        f.read("allow_batched", &mut c.allow_batched)?;
        f.read("metadata", &mut c.metadata)?;
        Ok(c)
    }
}

pub(super) fn duration(f: &mut Fields, name: &str) -> Result<i64, JsonError> {
    let mut value = DurationNs::default();
    f.read(name, &mut value)?;
    Ok(value.0)
}

/// A stream configuration with the flag that turns silent defaulting into errors (JSAPI-014).
#[derive(Clone, Default, Debug)]
pub struct StreamConfigRequest {
    /// The wanted configuration.
    pub config: StreamConfig,
    /// Refuse values that would be changed silently.
    pub pedantic: bool,
}

impl ObjectFromJson for StreamConfigRequest {
    fn read_fields(f: &mut Fields) -> Result<StreamConfigRequest, JsonError> {
        let config = StreamConfig::read_fields(f)?;
        let mut pedantic = false;
        f.read("pedantic", &mut pedantic)?;
        Ok(StreamConfigRequest { config, pedantic })
    }
}

/// Ceilings and defaults for the consumers of a stream (SCFG-033).
#[derive(Clone, Default, Debug, PartialEq, Eq, Serialize)]
pub struct ConsumerLimits {
    /// Nanoseconds; 0 = not set.
    #[serde(skip_serializing_if = "is_zero_i64")]
    pub inactive_threshold: i64,
    /// Messages; 0 = not set.
    #[serde(skip_serializing_if = "is_zero_i64")]
    pub max_ack_pending: i64,
}

impl ObjectFromJson for ConsumerLimits {
    fn read_fields(f: &mut Fields) -> Result<ConsumerLimits, JsonError> {
        let mut c = ConsumerLimits {
            inactive_threshold: duration(f, "inactive_threshold")?,
            max_ack_pending: 0,
        };
        f.read("max_ack_pending", &mut c.max_ack_pending)?;
        Ok(c)
    }
}

/// Where replicas should be (SCFG-020). Stored and echoed; one server has no choice.
#[derive(Clone, Default, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "field names are those of the protocol")]
pub struct Placement {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub preferred: String,
}

impl ObjectFromJson for Placement {
    fn read_fields(f: &mut Fields) -> Result<Placement, JsonError> {
        let mut p = Placement::default();
        f.read("cluster", &mut p.cluster)?;
        f.read("tags", &mut p.tags)?;
        f.read("preferred", &mut p.preferred)?;
        Ok(p)
    }
}

/// A subject mapping.
#[derive(Clone, Default, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "field names are those of the protocol")]
pub struct SubjectTransform {
    pub src: String,
    pub dest: String,
}

impl ObjectFromJson for SubjectTransform {
    fn read_fields(f: &mut Fields) -> Result<SubjectTransform, JsonError> {
        let mut t = SubjectTransform::default();
        f.read("src", &mut t.src)?;
        f.read("dest", &mut t.dest)?;
        Ok(t)
    }
}

impl ListItem for SubjectTransform {
    const LIST_NAME: &'static str = "[]server.SubjectTransformConfig";
}

/// Republication of stored messages (SCFG-026).
#[derive(Clone, Default, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "field names are those of the protocol")]
pub struct Republish {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub src: String,
    pub dest: String,
    #[serde(skip_serializing_if = "is_false")]
    pub headers_only: bool,
}

impl ObjectFromJson for Republish {
    fn read_fields(f: &mut Fields) -> Result<Republish, JsonError> {
        let mut r = Republish::default();
        f.read("src", &mut r.src)?;
        f.read("dest", &mut r.dest)?;
        f.read("headers_only", &mut r.headers_only)?;
        Ok(r)
    }
}

/// Another stream to copy from (SCFG-021, SCFG-022).
#[derive(Clone, Default, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "field names are those of the protocol")]
pub struct StreamSource {
    pub name: String,
    #[serde(skip_serializing_if = "is_zero_u64")]
    pub opt_start_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_time")]
    pub opt_start_time: Option<TimestampNs>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub filter_subject: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subject_transforms: Vec<SubjectTransform>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalStream>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer: Option<SourceConsumer>,
}

pub(crate) fn some_time<S: serde::Serializer>(
    ts: &Option<TimestampNs>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match ts {
        Some(ts) => as_time::serialize(ts, serializer),
        None => serializer.serialize_none(),
    }
}

impl ObjectFromJson for StreamSource {
    fn read_fields(f: &mut Fields) -> Result<StreamSource, JsonError> {
        let mut s = StreamSource::default();
        f.read("name", &mut s.name)?;
        f.read("opt_start_seq", &mut s.opt_start_seq)?;
        f.read("opt_start_time", &mut s.opt_start_time)?;
        f.read("filter_subject", &mut s.filter_subject)?;
        f.read("subject_transforms", &mut s.subject_transforms)?;
        s.external = f.optional("external")?;
        s.consumer = f.optional("consumer")?;
        Ok(s)
    }
}

impl ListItem for StreamSource {
    const LIST_NAME: &'static str = "[]*server.StreamSource";
}

/// API and delivery prefixes of a stream in another account or domain.
#[derive(Clone, Default, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "field names are those of the protocol")]
pub struct ExternalStream {
    pub api: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub deliver: String,
}

impl ObjectFromJson for ExternalStream {
    fn read_fields(f: &mut Fields) -> Result<ExternalStream, JsonError> {
        let mut e = ExternalStream::default();
        f.read("api", &mut e.api)?;
        f.read("deliver", &mut e.deliver)?;
        Ok(e)
    }
}

/// A consumer made beforehand for a source.
#[derive(Clone, Default, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "field names are those of the protocol")]
pub struct SourceConsumer {
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub deliver_subject: String,
}

impl ObjectFromJson for SourceConsumer {
    fn read_fields(f: &mut Fields) -> Result<SourceConsumer, JsonError> {
        let mut c = SourceConsumer::default();
        f.read("name", &mut c.name)?;
        f.read("deliver_subject", &mut c.deliver_subject)?;
        Ok(c)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::json::{UnknownFields, parse_object};
    use super::*;

    #[test]
    fn every_written_field_is_read_back() {
        let body = r#"{"name":"S","description":"d","subjects":["s"],"retention":"interest","max_consumers":1,"max_msgs":2,"max_bytes":3,"max_age":4,"max_msgs_per_subject":5,"max_msg_size":6,"discard":"new","storage":"memory","num_replicas":1,"no_ack":true,"duplicate_window":7,"placement":{"cluster":"c","tags":["t"]},"mirror":{"name":"M","opt_start_seq":1,"external":{"api":"a","deliver":"d"}},"sources":[{"name":"X","filter_subject":"f","subject_transforms":[{"src":"a","dest":"b"}]}],"compression":"s2","first_seq":8,"subject_transform":{"src":"a","dest":"b"},"republish":{"src":"a","dest":"b","headers_only":true},"allow_direct":true,"mirror_direct":true,"discard_new_per_subject":true,"sealed":true,"deny_delete":true,"deny_purge":true,"allow_rollup_hdrs":true,"consumer_limits":{"inactive_threshold":1,"max_ack_pending":2},"allow_msg_ttl":true,"subject_delete_marker_ttl":9,"allow_msg_counter":true,"allow_atomic":true,"allow_msg_schedules":true,"persist_mode":"async","allow_batched":true,"metadata":{"a":"b"}}"#;
        let config: StreamConfig =
            parse_object(body.as_bytes(), "StreamConfig", UnknownFields::Refuse).unwrap();
        assert_eq!(serde_json::to_string(&config).unwrap(), body);
    }

    #[test]
    fn fields_that_are_always_present() {
        let json = serde_json::to_string(&StreamConfig::default()).unwrap();
        assert_eq!(
            json,
            r#"{"name":"","retention":"limits","max_consumers":0,"max_msgs":0,"max_bytes":0,"max_age":0,"max_msgs_per_subject":0,"discard":"old","storage":"file","num_replicas":0,"compression":"none","allow_direct":false,"mirror_direct":false,"sealed":false,"deny_delete":false,"deny_purge":false,"allow_rollup_hdrs":false,"consumer_limits":{},"allow_msg_ttl":false}"#
        );
    }
}
