//! Consumer configuration (CCFG rows).

use riverlog_engine::ids::TimestampNs;
use serde::Serialize;

use super::super::json::{DurationNs, Fields, JsonError, ObjectFromJson};
use super::enums::{AckPolicy, CreateAction, DeliverPolicy, PriorityPolicy, ReplayPolicy};
use super::stream_config::{duration, some_time};
use super::{Metadata, is_false, is_zero_i64, is_zero_u64};

/// A consumer's configuration as it goes over the wire and into the store's attachment.
/// Durations are nanoseconds; -1 means "no limit" where the protocol says so.
#[derive(Clone, Default, Debug, PartialEq, Serialize)]
#[expect(
    missing_docs,
    reason = "field names are those of the protocol; CCFG rows describe them"
)]
pub struct ConsumerConfig {
    #[serde(rename = "durable_name", skip_serializing_if = "String::is_empty")]
    pub durable: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    pub deliver_policy: DeliverPolicy,
    #[serde(skip_serializing_if = "is_zero_u64")]
    pub opt_start_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_time")]
    pub opt_start_time: Option<TimestampNs>,
    pub ack_policy: AckPolicy,
    #[serde(skip_serializing_if = "is_zero_i64")]
    pub ack_wait: i64,
    #[serde(skip_serializing_if = "is_zero_i64")]
    pub max_deliver: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backoff: Vec<i64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub filter_subject: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filter_subjects: Vec<String>,
    pub replay_policy: ReplayPolicy,
    #[serde(skip_serializing_if = "is_zero_u64")]
    pub rate_limit_bps: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sample_freq: String,
    #[serde(skip_serializing_if = "is_zero_i64")]
    pub max_waiting: i64,
    #[serde(skip_serializing_if = "is_zero_i64")]
    pub max_ack_pending: i64,
    #[serde(skip_serializing_if = "is_false")]
    pub flow_control: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub headers_only: bool,
    #[serde(skip_serializing_if = "is_zero_i64")]
    pub max_batch: i64,
    #[serde(skip_serializing_if = "is_zero_i64")]
    pub max_expires: i64,
    #[serde(skip_serializing_if = "is_zero_i64")]
    pub max_bytes: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub deliver_subject: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub deliver_group: String,
    #[serde(skip_serializing_if = "is_zero_i64")]
    pub idle_heartbeat: i64,
    #[serde(skip_serializing_if = "is_zero_i64")]
    pub inactive_threshold: i64,
    pub num_replicas: i64,
    #[serde(skip_serializing_if = "is_false")]
    pub mem_storage: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub direct: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub sourcing: bool,
    #[serde(skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_time")]
    pub pause_until: Option<TimestampNs>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub priority_groups: Vec<String>,
    #[serde(skip_serializing_if = "PriorityPolicy::is_default")]
    pub priority_policy: PriorityPolicy,
    #[serde(skip_serializing_if = "is_zero_i64")]
    pub priority_timeout: i64,
}

impl ConsumerConfig {
    /// Whether state outlives the last interest in it.
    pub fn is_durable(&self) -> bool {
        !self.durable.is_empty()
    }

    /// Whether messages are pushed to a subject.
    pub fn is_push(&self) -> bool {
        !self.deliver_subject.is_empty()
    }

    /// All filters; empty = every message.
    pub fn filters(&self) -> Vec<String> {
        if self.filter_subject.is_empty() {
            self.filter_subjects.clone()
        } else {
            vec![self.filter_subject.clone()]
        }
    }
}

impl ObjectFromJson for ConsumerConfig {
    fn read_fields(f: &mut Fields) -> Result<ConsumerConfig, JsonError> {
        let mut c = ConsumerConfig::default();
        f.read("durable_name", &mut c.durable)?;
        f.read("name", &mut c.name)?;
        f.read("description", &mut c.description)?;
        f.read("deliver_policy", &mut c.deliver_policy)?;
        f.read("opt_start_seq", &mut c.opt_start_seq)?;
        f.read("opt_start_time", &mut c.opt_start_time)?;
        f.read("ack_policy", &mut c.ack_policy)?;
        c.ack_wait = duration(f, "ack_wait")?;
        f.read("max_deliver", &mut c.max_deliver)?;
        let mut backoff: Vec<DurationNs> = Vec::new();
        f.read("backoff", &mut backoff)?;
        c.backoff = backoff.into_iter().map(|d| d.0).collect();
        f.read("filter_subject", &mut c.filter_subject)?;
        f.read("filter_subjects", &mut c.filter_subjects)?;
        f.read("replay_policy", &mut c.replay_policy)?;
        f.read("rate_limit_bps", &mut c.rate_limit_bps)?;
        f.read("sample_freq", &mut c.sample_freq)?;
        f.read("max_waiting", &mut c.max_waiting)?;
        f.read("max_ack_pending", &mut c.max_ack_pending)?;
        f.read("flow_control", &mut c.flow_control)?;
        f.read("headers_only", &mut c.headers_only)?;
        f.read("max_batch", &mut c.max_batch)?;
        c.max_expires = duration(f, "max_expires")?;
        f.read("max_bytes", &mut c.max_bytes)?;
        f.read("deliver_subject", &mut c.deliver_subject)?;
        f.read("deliver_group", &mut c.deliver_group)?;
        c.idle_heartbeat = duration(f, "idle_heartbeat")?;
        c.inactive_threshold = duration(f, "inactive_threshold")?;
        f.read("num_replicas", &mut c.num_replicas)?;
        f.read("mem_storage", &mut c.mem_storage)?;
        f.read("direct", &mut c.direct)?;
        f.read("sourcing", &mut c.sourcing)?;
        f.read("metadata", &mut c.metadata)?;
        f.read("pause_until", &mut c.pause_until)?;
        f.read("priority_groups", &mut c.priority_groups)?;
        f.read("priority_policy", &mut c.priority_policy)?;
        c.priority_timeout = duration(f, "priority_timeout")?;
        Ok(c)
    }
}

/// Body of a consumer create request (CAPI-001).
#[derive(Clone, Default, Debug)]
pub struct CreateConsumerRequest {
    /// Stream the consumer belongs to; must equal the one in the subject.
    pub stream_name: String,
    /// The wanted configuration.
    pub config: ConsumerConfig,
    /// What the request may do.
    pub action: CreateAction,
    /// Refuse values that would be changed silently.
    pub pedantic: bool,
}

impl ObjectFromJson for CreateConsumerRequest {
    fn read_fields(f: &mut Fields) -> Result<CreateConsumerRequest, JsonError> {
        let mut r = CreateConsumerRequest::default();
        f.read("stream_name", &mut r.stream_name)?;
        f.read("config", &mut r.config)?;
        f.read("action", &mut r.action)?;
        f.read("pedantic", &mut r.pedantic)?;
        Ok(r)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::json::{UnknownFields, parse_object};
    use super::*;

    #[test]
    fn every_written_field_is_read_back() {
        let body = r#"{"durable_name":"d","name":"d","description":"x","deliver_policy":"last","opt_start_seq":1,"opt_start_time":"2020-01-01T00:00:00Z","ack_policy":"explicit","ack_wait":2,"max_deliver":3,"backoff":[1,2],"filter_subject":"f","filter_subjects":["g"],"replay_policy":"original","rate_limit_bps":4,"sample_freq":"5","max_waiting":6,"max_ack_pending":7,"flow_control":true,"headers_only":true,"max_batch":8,"max_expires":9,"max_bytes":10,"deliver_subject":"s","deliver_group":"g","idle_heartbeat":11,"inactive_threshold":12,"num_replicas":1,"mem_storage":true,"direct":true,"sourcing":true,"metadata":{"a":"b"},"pause_until":"2030-01-01T00:00:00Z","priority_groups":["p"],"priority_policy":"overflow","priority_timeout":13}"#;
        let config: ConsumerConfig =
            parse_object(body.as_bytes(), "ConsumerConfig", UnknownFields::Refuse).unwrap();
        assert_eq!(serde_json::to_string(&config).unwrap(), body);
    }

    #[test]
    fn fields_that_are_always_present() {
        // CCFG-049
        let json = serde_json::to_string(&ConsumerConfig::default()).unwrap();
        assert_eq!(
            json,
            r#"{"deliver_policy":"all","ack_policy":"none","replay_policy":"instant","num_replicas":0}"#
        );
    }
}
