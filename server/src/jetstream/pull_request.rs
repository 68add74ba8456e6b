//! Pull requests: what a client asks for, and the status messages that answer it (PULL rows,
//! WIRE section 12).

use riverlog_engine::ids::TimestampNs;

use super::json::{DurationNs, Fields, JsonError, ObjectFromJson, UnknownFields, parse_object};
use super::time::format_duration;
use super::types::consumer_config::ConsumerConfig;

/// A parsed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullRequest {
    /// Messages still wanted. A request for 0 gets one message (PULL-024).
    pub batch: i64,
    /// When it ends. `None` = when it is filled.
    pub expires: Option<TimestampNs>,
    /// Bytes it may still take; 0 = any number.
    pub max_bytes: i64,
    /// Do not wait for messages that are not there.
    pub no_wait: bool,
    /// Nanoseconds between heartbeats; 0 = none.
    pub heartbeat_ns: i64,
    /// The request belongs to a priority group.
    pub has_group: bool,
}

#[derive(Default)]
struct Body {
    batch: i64,
    expires: DurationNs,
    max_bytes: i64,
    no_wait: bool,
    idle_heartbeat: DurationNs,
    group: String,
}

impl ObjectFromJson for Body {
    fn read_fields(f: &mut Fields) -> Result<Body, JsonError> {
        let mut body = Body::default();
        f.read("batch", &mut body.batch)?;
        f.read("expires", &mut body.expires)?;
        f.read("max_bytes", &mut body.max_bytes)?;
        f.read("no_wait", &mut body.no_wait)?;
        f.read("idle_heartbeat", &mut body.idle_heartbeat)?;
        f.read("group", &mut body.group)?;
        Ok(body)
    }
}

impl PullRequest {
    /// Reads a body: a JSON object, a number, or anything else for one message (PULL-002).
    /// The error is a status text.
    pub fn parse(body: &[u8], now: TimestampNs) -> Result<PullRequest, String> {
        let mut request = PullRequest {
            batch: 1,
            expires: None,
            max_bytes: 0,
            no_wait: false,
            heartbeat_ns: 0,
            has_group: false,
        };
        if !body.starts_with(b"{") {
            if let Some(batch) = std::str::from_utf8(body).ok().and_then(|t| t.parse().ok()) {
                request.batch = batch;
            }
            return Ok(request);
        }
        let body: Body = parse_object(body, "", UnknownFields::Ignore)
            .map_err(|error| format!("400 Bad Request - {}", known_text(&error)))?;
        request.batch = body.batch;
        request.max_bytes = body.max_bytes.max(0);
        request.no_wait = body.no_wait;
        request.has_group = !body.group.is_empty();
        request.heartbeat_ns = body.idle_heartbeat.0.max(0);
        if body.expires.0 != 0 {
            request.expires = Some(TimestampNs(now.0.saturating_add(body.expires.0)));
        }
        if request.heartbeat_ns > 0 && request.heartbeat_ns > body.expires.0 / 2 {
            return Err("400 Bad Request - heartbeat value too large".to_owned());
        }
        Ok(request)
    }

    /// Checks the per-request limits of the consumer (PULL-013..015). The error is a status text.
    pub fn check_limits(&self, config: &ConsumerConfig, now: TimestampNs) -> Result<(), String> {
        if config.max_batch > 0 && self.batch > config.max_batch {
            return Err(format!(
                "409 Exceeded MaxRequestBatch of {}",
                config.max_batch
            ));
        }
        let limit = now.0.saturating_add(config.max_expires);
        if config.max_expires > 0 && self.expires.is_some_and(|at| at.0 > limit) {
            let limit = format_duration(config.max_expires);
            return Err(format!("409 Exceeded MaxRequestExpires of {limit}"));
        }
        if config.max_bytes > 0 && self.max_bytes > config.max_bytes {
            return Err(format!(
                "409 Exceeded MaxRequestMaxBytes of {}",
                config.max_bytes
            ));
        }
        Ok(())
    }
}

/// Pull requests are read by another reader in the reference server, with slightly other texts.
fn known_text(error: &JsonError) -> String {
    if error.0 == "unexpected EOF" {
        return "unexpected end of JSON input".to_owned();
    }
    error.0.replace(" of type int64", " of type int")
}

/// A status header block without further headers.
pub fn status(text: &str) -> Vec<u8> {
    format!("NATS/1.0 {text}\r\n\r\n").into_bytes()
}

/// A status header block with what is left of a request.
pub fn status_with_pending(text: &str, messages: i64, bytes: i64) -> Vec<u8> {
    format!(
        "NATS/1.0 {text}\r\nNats-Pending-Messages: {messages}\r\nNats-Pending-Bytes: {bytes}\r\n\r\n"
    )
    .into_bytes()
}

/// A heartbeat header block (PULL-018, T-54).
pub fn heartbeat(consumer_seq: u64, stream_seq: u64) -> Vec<u8> {
    format!(
        "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: {consumer_seq}\r\nNats-Last-Stream: {stream_seq}\r\n\r\n"
    )
    .into_bytes()
}

/// A heartbeat of a push consumer; `stalled` is the flow control request it waits for.
pub fn push_heartbeat(consumer_seq: u64, stream_seq: u64, stalled: Option<&[u8]>) -> Vec<u8> {
    let mut block = heartbeat(consumer_seq, stream_seq);
    if let Some(subject) = stalled {
        block.truncate(block.len() - 2);
        block.extend_from_slice(b"Nats-Consumer-Stalled: ");
        block.extend_from_slice(subject);
        block.extend_from_slice(b"\r\n\r\n");
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: TimestampNs = TimestampNs(1000);

    #[test]
    fn body_forms() {
        for (body, batch) in [
            ("", 1),
            ("5", 5),
            ("abc", 1),
            ("5x", 1),
            ("[]", 1),
            ("{}", 0),
            (r#"{"batch":7}"#, 7),
            (r#"{"batch":0}"#, 0),
        ] {
            assert_eq!(
                PullRequest::parse(body.as_bytes(), NOW).unwrap().batch,
                batch,
                "{body}"
            );
        }
        let body = br#"{"batch":3,"expires":500,"max_bytes":9,"no_wait":true,"idle_heartbeat":250,"group":"g","x":1}"#;
        let request = PullRequest::parse(body, NOW).unwrap();
        let wanted = PullRequest {
            batch: 3,
            expires: Some(TimestampNs(1500)),
            max_bytes: 9,
            no_wait: true,
            heartbeat_ns: 250,
            has_group: true,
        };
        assert_eq!(request, wanted);
    }

    #[test]
    fn refused_bodies() {
        for (body, text) in [
            ("{", "400 Bad Request - unexpected end of JSON input"),
            (
                r#"{"idle_heartbeat":5}"#,
                "400 Bad Request - heartbeat value too large",
            ),
            (
                r#"{"expires":300,"idle_heartbeat":200}"#,
                "400 Bad Request - heartbeat value too large",
            ),
        ] {
            assert_eq!(
                PullRequest::parse(body.as_bytes(), NOW).unwrap_err(),
                text,
                "{body}"
            );
        }
    }

    #[test]
    fn per_request_limits() {
        let config = ConsumerConfig {
            max_batch: 2,
            max_expires: 1_500_000_000,
            max_bytes: 100,
            ..ConsumerConfig::default()
        };
        for (body, result) in [
            ("2", Ok(())),
            ("3", Err("409 Exceeded MaxRequestBatch of 2")),
            (
                r#"{"expires":3600000000000}"#,
                Err("409 Exceeded MaxRequestExpires of 1.5s"),
            ),
            (
                r#"{"max_bytes":101}"#,
                Err("409 Exceeded MaxRequestMaxBytes of 100"),
            ),
            (
                r#"{"batch":2,"expires":1500000000,"max_bytes":100}"#,
                Ok(()),
            ),
        ] {
            let got = PullRequest::parse(body.as_bytes(), NOW)
                .unwrap()
                .check_limits(&config, NOW);
            assert_eq!(got, result.map_err(str::to_owned), "{body}");
        }
    }

    #[test]
    fn status_blocks() {
        assert_eq!(
            status("404 No Messages"),
            b"NATS/1.0 404 No Messages\r\n\r\n"
        );
        assert_eq!(
            status_with_pending("408 Request Timeout", 5, 0),
            b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 5\r\nNats-Pending-Bytes: 0\r\n\r\n"
        );
        assert_eq!(heartbeat(7, 19).len(), 76);
        assert_eq!(push_heartbeat(7, 19, None), heartbeat(7, 19));
        assert!(
            push_heartbeat(7, 19, Some(b"fc"))
                .ends_with(b"Nats-Last-Stream: 19\r\nNats-Consumer-Stalled: fc\r\n\r\n")
        );
    }
}
