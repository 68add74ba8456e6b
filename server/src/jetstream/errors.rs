//! The JetStream error catalogue: what goes into the `error` object of a reply (ADR-7).
//!
//! Two tables: errors with a fixed text and errors whose text has one placeholder. Both carry the
//! published numbers: `code` is the HTTP-like class, `err_code` is the unique number that clients
//! compare, the text is for people.

use std::borrow::Cow;

use serde::Serialize;

/// The `error` object of an API reply or publish acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ApiError {
    /// HTTP-like class: 400, 404, 500, 503 ...
    pub code: u16,
    /// Unique number of the error.
    pub err_code: u16,
    /// Human readable text.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub description: Cow<'static, str>,
}

impl ApiError {
    const fn fixed(code: u16, err_code: u16, text: &'static str) -> ApiError {
        ApiError {
            code,
            err_code,
            description: Cow::Borrowed(text),
        }
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.description, self.err_code)
    }
}

impl std::error::Error for ApiError {}

macro_rules! fixed_errors {
    ($($name:ident $code:literal $err_code:literal $text:literal;)*) => {
        $(
            #[doc = $text]
            pub const $name: ApiError = ApiError::fixed($code, $err_code, $text);
        )*
        #[cfg(test)]
        const FIXED: &[ApiError] = &[$($name),*];
    };
}

macro_rules! text_errors {
    ($($name:ident $code:literal $err_code:literal $before:literal $after:literal;)*) => {
        $(
            #[doc = concat!($before, "{detail}", $after)]
            pub fn $name(detail: impl std::fmt::Display) -> ApiError {
                ApiError {
                    code: $code,
                    err_code: $err_code,
                    description: Cow::Owned(format!("{}{detail}{}", $before, $after)),
                }
            }
        )*
        #[cfg(test)]
        fn with_text() -> Vec<ApiError> {
            vec![$($name("x")),*]
        }
    };
}

fixed_errors! {
    ACCOUNT_RESOURCES_EXCEEDED 400 10002 "resource limits exceeded for account";
    BAD_REQUEST 400 10003 "bad request";
    CLUSTER_REQUIRED 503 10010 "JetStream clustering support required";
    CONSUMER_NAME_EXIST 400 10013 "consumer name already in use";
    CONSUMER_NOT_FOUND 404 10014 "consumer not found";
    CONSUMER_DURABLE_NAME_NOT_IN_SUBJECT 400 10016 "consumer expected to be durable but no durable name set in subject";
    CONSUMER_DURABLE_NAME_NOT_MATCH_SUBJECT 400 10017 "consumer name in subject does not match durable name in request";
    CONSUMER_DURABLE_NAME_NOT_SET 400 10018 "consumer expected to be durable but a durable name was not set";
    CONSUMER_EPHEMERAL_WITH_DURABLE_NAME 400 10020 "consumer expected to be ephemeral but a durable name was set in request";
    INSUFFICIENT_RESOURCES 503 10023 "insufficient resources";
    MAXIMUM_CONSUMERS_LIMIT 400 10026 "maximum consumers limit reached";
    MAXIMUM_STREAMS_LIMIT 400 10027 "maximum number of streams reached";
    MEMORY_RESOURCES_EXCEEDED 500 10028 "insufficient memory resources available";
    MIRROR_WITH_SOURCES 400 10031 "stream mirrors can not also contain other sources";
    MIRROR_WITH_SUBJECTS 400 10034 "stream mirrors can not contain subjects";
    NO_MESSAGE_FOUND 404 10037 "no message found";
    NOT_EMPTY_REQUEST 400 10038 "expected an empty request payload";
    NOT_ENABLED_FOR_ACCOUNT 503 10039 "JetStream not enabled for account";
    STORAGE_RESOURCES_EXCEEDED 500 10047 "insufficient storage resources available";
    STREAM_MESSAGE_EXCEEDS_MAXIMUM 400 10054 "message size exceeds maximum allowed";
    STREAM_MIRROR_NOT_UPDATABLE 400 10055 "stream mirror configuration can not be updated";
    STREAM_MISMATCH 400 10056 "stream name in subject does not match request";
    STREAM_NAME_EXIST 400 10058 "stream name already in use with a different configuration";
    STREAM_NOT_FOUND 404 10059 "stream not found";
    STREAM_NOT_MATCH 400 10060 "expected stream does not match";
    STREAM_SUBJECT_OVERLAP 400 10065 "subjects overlap with an existing stream";
    STREAM_REPLICAS_NOT_SUPPORTED 500 10074 "replicas > 1 not supported in non-clustered mode";
    CONSUMER_DELIVER_TO_WILDCARDS 400 10079 "consumer deliver subject has wildcards";
    CONSUMER_PUSH_MAX_WAITING 400 10080 "consumer in push mode can not set max waiting";
    CONSUMER_DELIVER_CYCLE 400 10081 "consumer deliver subject forms a cycle";
    CONSUMER_MAX_PENDING_ACK_POLICY_REQUIRED 400 10082 "consumer requires ack policy for max ack pending";
    CONSUMER_SMALL_HEARTBEAT 400 10083 "consumer idle heartbeat needs to be >= 100ms";
    CONSUMER_PULL_REQUIRES_ACK 400 10084 "consumer in pull mode requires explicit ack policy on workqueue stream";
    CONSUMER_PULL_WITH_RATE_LIMIT 400 10086 "consumer in pull mode can not have rate limit set";
    CONSUMER_HB_REQUIRES_PUSH 400 10088 "consumer idle heartbeat requires a push based consumer";
    CONSUMER_FC_REQUIRES_PUSH 400 10089 "consumer flow control requires a push based consumer";
    CONSUMER_DIRECT_REQUIRES_PUSH 400 10090 "consumer direct requires a push based consumer";
    CONSUMER_DIRECT_REQUIRES_EPHEMERAL 400 10091 "consumer direct requires an ephemeral consumer";
    STREAM_HEADER_EXCEEDS_MAXIMUM 400 10097 "header size exceeds maximum allowed of 64k";
    CONSUMER_WQ_REQUIRES_EXPLICIT_ACK 400 10098 "workqueue stream requires explicit ack";
    CONSUMER_WQ_MULTIPLE_UNFILTERED 400 10099 "multiple non-filtered consumers not allowed on workqueue stream";
    CONSUMER_WQ_CONSUMER_NOT_UNIQUE 400 10100 "filtered consumer not unique on workqueue stream";
    CONSUMER_WQ_CONSUMER_NOT_DELIVER_ALL 400 10101 "consumer must be deliver all on workqueue stream";
    CONSUMER_WITH_FLOW_CONTROL_NEEDS_HEARTBEATS 400 10108 "consumer with flow control also needs heartbeats";
    STREAM_SEALED 400 10109 "invalid operation on sealed stream";
    CONSUMER_INVALID_DELIVER_SUBJECT 400 10112 "invalid push consumer deliver subject";
    STREAM_MAX_BYTES_REQUIRED 400 10113 "account requires a stream config to have max bytes set";
    CONSUMER_MAX_REQUEST_EXPIRES_TOO_SMALL 400 10115 "consumer max request expires needs to be >= 1ms";
    CONSUMER_MAX_DELIVER_BACKOFF 400 10116 "max deliver is required to be > length of backoff values";
    STREAM_MAX_STREAM_BYTES_EXCEEDED 400 10122 "stream max bytes exceeds account limit max stream bytes";
    CONSUMER_REPLICAS_EXCEEDS_STREAM 400 10126 "consumer config replica count exceeds parent stream";
    CONSUMER_NAME_CONTAINS_PATH_SEPARATORS 400 10127 "Consumer name can not contain path separators";
    STREAM_NAME_CONTAINS_PATH_SEPARATORS 400 10128 "Stream name can not contain path separators";
    CONSUMER_CREATE_FILTER_SUBJECT_MISMATCH 400 10131 "Consumer create request did not match filtered subject from create subject";
    CONSUMER_CREATE_DURABLE_AND_NAME_MISMATCH 400 10132 "Consumer Durable and Name have to be equal if both are provided";
    REPLICAS_COUNT_CANNOT_BE_NEGATIVE 400 10133 "replicas count cannot be negative";
    CONSUMER_REPLICAS_SHOULD_MATCH_STREAM 400 10134 "consumer config replicas must match interest retention stream's replicas";
    CONSUMER_DUPLICATE_FILTER_SUBJECTS 400 10136 "consumer cannot have both FilterSubject and FilterSubjects specified";
    CONSUMER_MULTIPLE_FILTERS_NOT_ALLOWED 400 10137 "consumer with multiple subject filters cannot use subject based API";
    CONSUMER_OVERLAPPING_SUBJECT_FILTERS 400 10138 "consumer subject filters cannot overlap";
    CONSUMER_EMPTY_FILTER 400 10139 "consumer filter in FilterSubjects cannot be empty";
    MIRROR_WITH_FIRST_SEQ 400 10143 "stream mirrors can not have first sequence configured";
    CONSUMER_ALREADY_EXISTS 400 10148 "consumer already exists";
    CONSUMER_DOES_NOT_EXIST 400 10149 "consumer does not exist";
    CONSUMER_PRIORITY_POLICY_WITHOUT_GROUP 400 10159 "Setting PriorityPolicy requires at least one PriorityGroup to be set";
    CONSUMER_INVALID_PRIORITY_GROUP 400 10160 "Provided priority group does not exist for this consumer";
    CONSUMER_EMPTY_GROUP_NAME 400 10161 "Group name cannot be an empty string";
    CONSUMER_INVALID_GROUP_NAME 400 10162 "Valid priority group name must match A-Z, a-z, 0-9, -_/=)+ and may not exceed 16 characters";
    MESSAGE_TTL_INVALID 400 10165 "invalid per-message TTL";
    MESSAGE_TTL_DISABLED 400 10166 "per-message TTL is disabled";
    STREAM_TOO_MANY_REQUESTS 429 10167 "too many requests";
    MESSAGE_INCR_DISABLED 400 10168 "message counters is disabled";
    ATOMIC_PUBLISH_DISABLED 400 10174 "atomic publish is disabled";
    CONSUMER_PUSH_WITH_PRIORITY_GROUP 400 10178 "priority groups can not be used with push consumers";
    CONSUMER_ACK_POLICY_INVALID 400 10181 "consumer ack policy invalid";
    CONSUMER_REPLAY_POLICY_INVALID 400 10182 "consumer replay policy invalid";
    CONSUMER_ACK_WAIT_NEGATIVE 400 10183 "consumer ack wait needs to be positive";
    CONSUMER_BACK_OFF_NEGATIVE 400 10184 "consumer backoff needs to be positive";
    REQUIRED_API_LEVEL 412 10185 "JetStream minimum api level required";
    MESSAGE_SCHEDULES_DISABLED 400 10188 "message schedules is disabled";
    STREAM_EXPECTED_LAST_SEQ_PER_SUBJECT_INVALID 400 10193 "missing sequence for expected last sequence per subject";
    CONSUMER_PRIORITY_GROUP_WITH_POLICY_NONE 400 10196 "consumer can not have priority groups when policy is none";
    CONSUMER_PINNED_TTL_WITHOUT_PRIORITY_POLICY_NONE 400 10197 "PinnedTTL cannot be set when PriorityPolicy is none";
    BATCH_PUBLISH_DISABLED 400 10205 "batch publish is disabled";
    CONSUMER_ACK_FC_REQUIRES_PUSH 400 10218 "flow control ack policy requires a push based consumer";
    CONSUMER_ACK_FC_REQUIRES_FC 400 10219 "flow control ack policy requires flow control";
    CONSUMER_ACK_FC_REQUIRES_MAX_ACK_PENDING 400 10220 "flow control ack policy requires max ack pending";
    CONSUMER_ACK_FC_REQUIRES_NO_ACK_WAIT 400 10221 "flow control ack policy requires unset ack wait";
    CONSUMER_ACK_FC_REQUIRES_NO_MAX_DELIVER 400 10222 "flow control ack policy requires unset max deliver";
    MESSAGE_SOURCE_HDR_NOT_ALLOWED 400 10227 "message stream source header is not allowed";
}

text_errors! {
    consumer_create 500 10012 "" "";
    invalid_json 400 10025 "invalid JSON: " "";
    sequence_not_found 400 10043 "sequence " " not found";
    stream_create 500 10049 "" "";
    stream_delete 500 10050 "" "";
    stream_general 500 10051 "" "";
    stream_invalid_config 500 10052 "" "";
    stream_msg_delete_failed 500 10057 "" "";
    stream_update 500 10069 "" "";
    stream_wrong_last_msg_id 400 10070 "wrong last msg ID: " "";
    stream_wrong_last_sequence 400 10071 "wrong last sequence: " "";
    stream_store_failed 503 10077 "" "";
    consumer_invalid_policy 400 10094 "" "";
    consumer_invalid_sampling 400 10095 "failed to parse consumer sampling configuration: " "";
    consumer_name_too_long 400 10102 "consumer name is too long, maximum allowed is " "";
    consumer_store_failed 500 10104 "error creating store for consumer: " "";
    consumer_description_too_long 400 10107 "consumer description is too long, maximum allowed is " "";
    stream_purge_failed 500 10110 "" "";
    stream_rollup_failed 500 10111 "" "";
    consumer_max_pending_ack_excess 400 10121 "consumer max ack pending exceeds system limit of " "";
    consumer_max_request_batch_exceeded 400 10125 "consumer max request batch exceeds server limit of " "";
    consumer_metadata_length 400 10135 "consumer metadata exceeds maximum size of " "";
    consumer_inactive_threshold_excess 400 10153 "consumer inactive threshold exceeds system limit of " "";
    stream_transform_invalid_source 400 10155 "stream transform source: " "";
    pedantic 400 10157 "pedantic mode: " "";
    stream_offline_reason 500 10194 "stream is offline: " "";
    consumer_offline_reason 500 10195 "consumer is offline: " "";
    consumer_invalid_reset 400 10204 "invalid reset: " "";
}

/// A request for something the protocol has but this server does not do yet. Refusing it by name
/// is the rule: a setting is never accepted and then ignored.
pub fn not_supported_by_stream(what: &str) -> ApiError {
    stream_invalid_config(format!(
        "{what} is not supported by this version of Riverlog"
    ))
}

/// As [`not_supported_by_stream`], for a consumer request.
pub fn not_supported_by_consumer(what: &str) -> ApiError {
    consumer_create(format!(
        "{what} is not supported by this version of Riverlog"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn err_codes_are_unique_and_in_the_published_range() {
        let mut codes: Vec<u16> = FIXED
            .iter()
            .chain(&with_text())
            .map(|e| e.err_code)
            .collect();
        assert!(codes.iter().all(|code| (10002..=10227).contains(code)));
        let count = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), count);
    }

    #[test]
    fn error_object_has_the_shape_clients_parse() {
        let json = serde_json::to_string(&STREAM_NOT_FOUND).unwrap();
        assert_eq!(
            json,
            r#"{"code":404,"err_code":10059,"description":"stream not found"}"#
        );
        let json = serde_json::to_string(&stream_wrong_last_sequence(7)).unwrap();
        assert_eq!(
            json,
            r#"{"code":400,"err_code":10071,"description":"wrong last sequence: 7"}"#
        );
        let json = serde_json::to_string(&sequence_not_found(9)).unwrap();
        assert_eq!(
            json,
            r#"{"code":400,"err_code":10043,"description":"sequence 9 not found"}"#
        );
    }
}
