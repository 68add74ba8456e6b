//! Publishing into a stream, inside the read loop of the publishing connection (PUB rows).
//!
//! A message is checked, appended to the engine and forgotten; its acknowledgement waits on the
//! connection until the engine's durable position covers it.

use std::sync::Arc;

use bytes::Bytes;
use riverlog_engine::{Append, AppendError, Appended, ExpectSubject, Filter, Lsn, Rollup, Ttl};

use super::errors::{self, ApiError};
use super::limits::{FILE_RECORD_BYTES_MAX, HEADER_BYTES_MAX};
use super::publish_headers::{PublishHeaders, parse_seq, stored_block, with_value};
use super::shared::Shared;
use super::stream_handle::StreamHandle;
use super::types::enums::Storage;
use super::types::stream_config::StreamConfig;
use crate::net::acks::{AckBody, PendingAck};
use crate::routing::{Inbound, InternalSubscriber};

/// Attempts to append to a full commit queue, each after waiting for room.
const BUSY_ATTEMPTS_MAX: u32 = 1000;

const NS_PER_SEC: i64 = 1_000_000_000;

/// What a publish has to obey, precomputed from the configuration.
#[derive(Debug)]
pub(crate) struct PublishRules {
    /// Nothing is acknowledged (SCFG-018).
    no_ack: bool,
    sealed: bool,
    /// Header and payload bytes of one message.
    msg_size_max: Option<usize>,
    allow_rollup: bool,
    allow_ttl: bool,
    /// Shortest life time of a message in seconds: below it, the marker would leave before what it
    /// replaced could have been noticed (TTL-009).
    ttl_secs_min: i64,
    storage: Storage,
    /// Acknowledgement up to the sequence.
    ack_part: Arc<str>,
    /// The same for errors: `"stream":"S"` and the domain.
    error_part: String,
}

impl PublishRules {
    pub fn new(config: &StreamConfig, domain: Option<&str>) -> PublishRules {
        PublishRules {
            no_ack: config.no_ack,
            sealed: config.sealed,
            msg_size_max: usize::try_from(config.max_msg_size).ok(),
            allow_rollup: config.allow_rollup_hdrs && !config.deny_purge,
            allow_ttl: config.allow_msg_ttl,
            ttl_secs_min: match config.max_msgs_per_subject {
                1 => 0,
                _ => config.subject_delete_marker_ttl / NS_PER_SEC,
            },
            storage: config.storage,
            ack_part: AckBody::stream_part(&config.name, domain),
            error_part: format!(
                "\"stream\":{}",
                serde_json::Value::from(config.name.as_str())
            ),
        }
    }

    /// `{"error":{…},"stream":"S","seq":0}` (PUB-002).
    fn error_body(&self, error: &ApiError) -> Bytes {
        let error = serde_json::to_string(error).unwrap_or_else(|_| "{}".to_owned());
        Bytes::from(format!(
            "{{\"error\":{error},{},\"seq\":0}}",
            self.error_part
        ))
    }
}

/// Takes the messages of a stream's subjects. Keeps the stream alive until it is unsubscribed.
pub(crate) struct PublishSubscriber {
    shared: Arc<Shared>,
    stream: Arc<StreamHandle>,
}

impl PublishSubscriber {
    pub fn new(shared: &Arc<Shared>, stream: &Arc<StreamHandle>) -> PublishSubscriber {
        PublishSubscriber {
            shared: Arc::clone(shared),
            stream: Arc::clone(stream),
        }
    }
}

impl InternalSubscriber for PublishSubscriber {
    fn deliver(&self, message: &Inbound<'_>) -> bool {
        let rules = self.stream.rules();
        let result = admit(&self.shared, &self.stream, &rules, message);
        acknowledge(&self.shared, &rules, message, result);
        true
    }
}

fn admit(
    shared: &Shared,
    stream: &StreamHandle,
    rules: &PublishRules,
    message: &Inbound<'_>,
) -> Result<Appended, ApiError> {
    let headers: &[u8] = message.headers.map_or(&[], |block| block);
    if rules.sealed {
        return Err(errors::STREAM_SEALED);
    }
    if headers.is_empty() {
        check_size(rules, 0, message.payload.len())?;
        check_storage(shared, rules)?;
        let append = Append {
            subject: message.subject,
            payload: message.payload,
            ..Append::default()
        };
        return append_with_room(shared, stream, &append);
    }
    let found = PublishHeaders::scan(headers);
    let stored;
    let headers = if found.has_status || found.has_request_info {
        stored = stored_block(headers).unwrap_or_default();
        &stored[..]
    } else {
        headers
    };
    admit_with_headers(shared, stream, rules, message, headers, &found)
}

/// PUB-029 gives the order of the checks.
fn admit_with_headers(
    shared: &Shared,
    stream: &StreamHandle,
    rules: &PublishRules,
    message: &Inbound<'_>,
    headers: &[u8],
    found: &PublishHeaders<'_>,
) -> Result<Appended, ApiError> {
    refuse_unsupported(found)?;
    if found
        .expected_stream
        .is_some_and(|expected| expected != stream.name.as_bytes())
    {
        return Err(errors::STREAM_NOT_MATCH);
    }
    let ttl = ttl(rules, found.ttl)?;
    let rewritten;
    let headers = match ttl {
        Some((_, Some(secs))) => {
            rewritten = with_value(headers, b"Nats-TTL", secs.to_string().as_bytes());
            &rewritten[..]
        }
        _ => headers,
    };
    let filter = match found.expected_last_subject_seq_subject {
        Some(subject) => {
            let filter = Filter::new(subject)
                .map_err(|_| errors::STREAM_EXPECTED_LAST_SEQ_PER_SUBJECT_INVALID)?;
            Some(filter)
        }
        None => None,
    };
    if filter.is_some() && found.expected_last_subject_seq.is_none() {
        return Err(errors::STREAM_EXPECTED_LAST_SEQ_PER_SUBJECT_INVALID);
    }
    let rollup = rollup(rules, found.rollup)?;
    check_size(rules, headers.len(), message.payload.len())?;
    check_storage(shared, rules)?;
    let append = Append {
        subject: message.subject,
        headers,
        payload: message.payload,
        msg_id: found.msg_id.filter(|id| !id.is_empty()),
        expect_last_seq: found.expected_last_seq.map(parse_seq),
        expect_last_subject_seq: found.expected_last_subject_seq.map(|seq| ExpectSubject {
            seq: parse_seq(seq),
            filter: filter.as_ref(),
        }),
        expect_last_msg_id: found.expected_last_msg_id.filter(|id| !id.is_empty()),
        rollup,
        ttl: ttl.map(|(ttl, _)| ttl),
        leaves_no_marker: found.leaves_no_marker(),
        ..Append::default()
    };
    append_with_room(shared, stream, &append)
}

/// Headers of features that no stream has here.
fn refuse_unsupported(found: &PublishHeaders<'_>) -> Result<(), ApiError> {
    if found.incr.is_some() {
        return Err(errors::MESSAGE_INCR_DISABLED);
    }
    if found.batch_id.is_some() {
        return Err(errors::ATOMIC_PUBLISH_DISABLED);
    }
    if found.schedule.is_some() {
        return Err(errors::MESSAGE_SCHEDULES_DISABLED);
    }
    if found.stream_source.is_some() {
        return Err(errors::MESSAGE_SOURCE_HDR_NOT_ALLOWED);
    }
    Ok(())
}

/// The life time that a header asks for, and the seconds to store in its place if it is too short
/// (TTL-001, TTL-002, TTL-003, TTL-009).
fn ttl(rules: &PublishRules, value: Option<&[u8]>) -> Result<Option<(Ttl, Option<i64>)>, ApiError> {
    let Some(value) = value else {
        return Ok(None);
    };
    let secs = parse_ttl(value).ok_or(errors::MESSAGE_TTL_INVALID)?;
    if !rules.allow_ttl {
        return Err(errors::MESSAGE_TTL_DISABLED);
    }
    let TtlText::Secs(secs) = secs else {
        return Ok(Some((Ttl::Never, None)));
    };
    let raised = secs.max(rules.ttl_secs_min);
    let ttl_ns = raised.saturating_mul(NS_PER_SEC).unsigned_abs();
    let rewritten = (raised != secs).then_some(raised);
    Ok(Some((Ttl::For { ttl_ns }, rewritten)))
}

/// A life time as a header gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TtlText {
    Never,
    Secs(i64),
}

/// T-35, T-36: whole seconds of at least one, a duration of at least one second, which is cut to whole
/// ones, or `never`.
fn parse_ttl(text: &[u8]) -> Option<TtlText> {
    let text = std::str::from_utf8(text).ok()?;
    if text.eq_ignore_ascii_case("never") {
        return Some(TtlText::Never);
    }
    let secs = match text.parse::<i64>() {
        Ok(secs) => secs,
        Err(_) => super::time::parse_duration(text)? / NS_PER_SEC,
    };
    (secs > 0).then_some(TtlText::Secs(secs))
}

fn rollup(rules: &PublishRules, value: Option<&[u8]>) -> Result<Option<Rollup>, ApiError> {
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    if !rules.allow_rollup {
        return Err(errors::stream_rollup_failed("rollup not permitted"));
    }
    if value.eq_ignore_ascii_case(b"sub") {
        Ok(Some(Rollup::Subject))
    } else if value.eq_ignore_ascii_case(b"all") {
        Ok(Some(Rollup::All))
    } else {
        let value = String::from_utf8_lossy(value);
        Err(errors::stream_rollup_failed(format_args!(
            "rollup value invalid: {value:?}"
        )))
    }
}

fn check_size(rules: &PublishRules, headers: usize, payload: usize) -> Result<(), ApiError> {
    if rules
        .msg_size_max
        .is_some_and(|max| headers + payload > max)
    {
        return Err(errors::STREAM_MESSAGE_EXCEEDS_MAXIMUM);
    }
    if headers > HEADER_BYTES_MAX {
        return Err(errors::STREAM_HEADER_EXCEEDS_MAXIMUM);
    }
    if rules.storage == Storage::File && headers + payload > FILE_RECORD_BYTES_MAX {
        return Err(errors::stream_store_failed("message too large"));
    }
    Ok(())
}

/// PUB-023.
fn check_storage(shared: &Shared, rules: &PublishRules) -> Result<(), ApiError> {
    if shared.usage.is_full(shared, rules.storage) {
        return Err(errors::INSUFFICIENT_RESOURCES);
    }
    Ok(())
}

/// Appends; a full commit queue is waited for, which is how the disk slows the publisher down.
fn append_with_room(
    shared: &Shared,
    stream: &StreamHandle,
    append: &Append<'_>,
) -> Result<Appended, ApiError> {
    for _ in 0..BUSY_ATTEMPTS_MAX {
        match stream.engine.append_nosync(append) {
            Ok(appended) => return Ok(appended),
            Err(AppendError::Busy) => tokio::task::block_in_place(|| shared.store.wait_room()),
            Err(error) => return Err(refusal(&error)),
        }
    }
    Err(errors::STREAM_TOO_MANY_REQUESTS)
}

fn refusal(error: &AppendError) -> ApiError {
    match error {
        AppendError::WrongLastSeq(seq) => errors::stream_wrong_last_sequence(seq),
        AppendError::WrongLastMsgId(id) => errors::stream_wrong_last_msg_id(id),
        AppendError::NoSpace | AppendError::Stopped(_) => errors::INSUFFICIENT_RESOURCES,
        AppendError::Busy => errors::STREAM_TOO_MANY_REQUESTS,
        AppendError::Deleted => errors::STREAM_NOT_FOUND,
        AppendError::Subject => errors::stream_store_failed("invalid subject"),
        other => errors::stream_store_failed(other),
    }
}

fn acknowledge(
    shared: &Arc<Shared>,
    rules: &PublishRules,
    message: &Inbound<'_>,
    result: Result<Appended, ApiError>,
) {
    let reply = match message.reply {
        Some(reply) if !rules.no_ack => reply.clone(),
        _ => Bytes::new(),
    };
    let admitted = message.headers.map_or(0, Bytes::len) + message.payload.len();
    let ack = match result {
        Ok(appended) => PendingAck {
            lsn: appended.lsn.0,
            reply,
            body: AckBody::PubAck {
                stream_part: Arc::clone(&rules.ack_part),
                seq: appended.seq.0,
                duplicate: appended.duplicate,
            },
            admitted_bytes: admitted,
        },
        // A refusal may rest on messages that are not durable yet; the place in the queue behind
        // them makes it wait for those of this connection.
        Err(error) => PendingAck {
            lsn: 0,
            reply,
            body: AckBody::Raw(rules.error_body(&error)),
            admitted_bytes: 0,
        },
    };
    match message.origin {
        Some(origin) => origin.queue_ack(ack),
        None => answer_server(shared, ack),
    }
}

/// A message published by the server itself has no connection to wait on.
fn answer_server(shared: &Arc<Shared>, ack: PendingAck) {
    let mut body = Vec::new();
    ack.body.write(&mut body);
    let after = shared.store.ticket(Lsn(ack.lsn));
    shared.publish_after(Some(after), ack.reply, Bytes::from(body));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> PublishRules {
        let config = StreamConfig {
            name: "S".to_owned(),
            max_msg_size: 100,
            allow_rollup_hdrs: true,
            ..StreamConfig::default()
        };
        PublishRules::new(&config, None)
    }

    #[test]
    fn error_acknowledgement_has_the_exact_shape() {
        let body = rules().error_body(&errors::stream_wrong_last_sequence(10));
        assert_eq!(
            body,
            r#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 10"},"stream":"S","seq":0}"#
        );
    }

    #[test]
    fn rollup_values() {
        let rules = rules();
        assert_eq!(rollup(&rules, None), Ok(None));
        assert_eq!(rollup(&rules, Some(b"SUB")), Ok(Some(Rollup::Subject)));
        assert_eq!(rollup(&rules, Some(b"all")), Ok(Some(Rollup::All)));
        let error = rollup(&rules, Some(b"x")).unwrap_err();
        assert_eq!(error.description, r#"rollup value invalid: "x""#);
        let denied = PublishRules {
            allow_rollup: false,
            ..rules
        };
        let error = rollup(&denied, Some(b"sub")).unwrap_err();
        assert_eq!((error.code, error.err_code), (500, 10111));
        assert_eq!(error.description, "rollup not permitted");
    }

    #[test]
    fn sizes() {
        let rules = rules();
        assert_eq!(check_size(&rules, 40, 60), Ok(()));
        assert_eq!(check_size(&rules, 41, 60).unwrap_err().err_code, 10054);
        let open = PublishRules {
            msg_size_max: None,
            ..rules
        };
        assert_eq!(check_size(&open, 65_536, 0).unwrap_err().err_code, 10097);
        let error = check_size(&open, 0, 33 << 20).unwrap_err();
        assert_eq!(
            (error.err_code, error.description.as_ref()),
            (10077, "message too large")
        );
    }

    #[test]
    fn ttl_texts() {
        for (text, secs) in [
            ("5", Some(5)),
            ("5s", Some(5)),
            ("1h30m", Some(5400)),
            ("1.9s", Some(1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("0", None),
            ("0.5s", None),
            ("500ms", None),
            ("-1", None),
            ("-5s", None),
            ("abc", None),
            ("", None),
            ("9223372036854775808", None),
        ] {
            let expected = secs.map(TtlText::Secs);
            assert_eq!(parse_ttl(text.as_bytes()), expected, "{text}");
        }
        for text in ["never", "NEVER", "Never"] {
            assert_eq!(parse_ttl(text.as_bytes()), Some(TtlText::Never));
        }
    }

    #[test]
    fn a_life_time_is_refused_or_raised_to_that_of_the_marker() {
        let secs = |secs: u64| Ttl::For {
            ttl_ns: secs * 1_000_000_000,
        };
        assert_eq!(ttl(&rules(), None), Ok(None));
        let refused = |value| ttl(&rules(), Some(value)).unwrap_err().err_code;
        assert_eq!((refused(b"5"), refused(b"x")), (10166, 10165));
        let config = StreamConfig {
            name: "S".to_owned(),
            allow_msg_ttl: true,
            subject_delete_marker_ttl: 60_000_000_000,
            max_msgs_per_subject: -1,
            ..StreamConfig::default()
        };
        let rules = PublishRules::new(&config, None);
        for (text, expected) in [
            ("5", (secs(60), Some(60))),
            ("1m", (secs(60), None)),
            ("61s", (secs(61), None)),
            ("never", (Ttl::Never, None)),
        ] {
            assert_eq!(ttl(&rules, Some(text.as_bytes())), Ok(Some(expected)));
        }
        let one_each = StreamConfig {
            max_msgs_per_subject: 1,
            ..config
        };
        let rules = PublishRules::new(&one_each, None);
        assert_eq!(ttl(&rules, Some(b"5")), Ok(Some((secs(5), None))));
    }
}
