//! Log lines about one connection: the protocol trace (`-V`, CLI-002), its beginning and its end.
//!
//! Secrets are never shown. Nothing is formatted while the trace is off.

use std::fmt::{self, Write as _};

use serde_json::Value;
use tracing::Level;

use super::close::CloseReason;
use super::conn::Conn;
use crate::logging;
use crate::protocol::{Frame, Publish};

/// Fields of CONNECT that are not shown.
const SECRETS: [&str; 4] = ["auth_token", "jwt", "pass", "sig"];
const REDACTED: &str = "[REDACTED]";

/// How log lines name a connection: `127.0.0.1:55642 - cid:5 - "v1.2:go:name"`.
struct Label<'a>(&'a Conn);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} - cid:{}", self.0.peer(), self.0.id())?;
        let details = self.0.details();
        let known = [details.version, details.lang, details.name];
        if known.iter().any(|text| !text.is_empty()) {
            let [version, lang, name] = known;
            write!(f, " - {:?}", format!("v{version}:{lang}:{name}"))?;
        }
        Ok(())
    }
}

pub(super) fn created(conn: &Conn) {
    tracing::debug!("{} - Client connection created", Label(conn));
}

/// A client that was refused or could not keep up is worth a line without `-D` too.
pub(super) fn closed(conn: &Conn, reason: CloseReason) {
    let label = Label(conn);
    match reason {
        CloseReason::AuthenticationFailure | CloseReason::AuthenticationTimeout => {
            let user = conn.details().user.unwrap_or_default();
            tracing::error!("{label} - authentication error - {reason} - User {user:?}");
        }
        CloseReason::SlowConsumerPendingBytes | CloseReason::SlowConsumerWriteDeadline => {
            tracing::warn!("{label} - {reason}");
        }
        _ => {}
    }
    tracing::debug!("{label} - Client connection closed: {reason}");
}

pub(super) fn inbound(conn: &Conn, frame: &Frame) {
    if !tracing::enabled!(Level::TRACE) {
        return;
    }
    let label = Label(conn);
    let text = match frame {
        Frame::Ping => "PING".to_owned(),
        Frame::Pong => "PONG".to_owned(),
        Frame::Connect(json) => format!("CONNECT {}", without_secrets(json)),
        Frame::Subscribe {
            subject,
            queue,
            sid,
        } => {
            let queue = queue.as_deref().map(|queue| format!("{} ", shown(queue)));
            format!(
                "SUB {} {}{}",
                shown(subject),
                queue.unwrap_or_default(),
                shown(sid)
            )
        }
        Frame::Unsubscribe { sid, max } => {
            let max = max.map(|max| format!(" {max}")).unwrap_or_default();
            format!("UNSUB {}{max}", shown(sid))
        }
        Frame::ClientError(text) => format!("-ERR {}", shown(text)),
        Frame::Ignored => return,
        Frame::Publish(publish) => {
            let headers = publish.headers.as_deref().unwrap_or_default();
            tracing::trace!("{label} - <<- [{}]", publish_line(publish));
            let body: Vec<u8> = [headers, &publish.payload].concat();
            tracing::trace!("{label} - <<- MSG_PAYLOAD: [{}]", payload(&body));
            return;
        }
    };
    tracing::trace!("{label} - <<- [{text}]");
}

/// Bytes that are about to be written: whole protocol elements.
pub(super) fn outbound(conn: &Conn, mut bytes: &[u8]) {
    if !tracing::enabled!(Level::TRACE) {
        return;
    }
    let label = Label(conn);
    while let Some(end) = memchr::memchr(b'\n', bytes) {
        let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
        bytes = &bytes[end + 1..];
        tracing::trace!("{label} - ->> [{}]", shown(line));
        if line.starts_with(b"MSG ") || line.starts_with(b"HMSG ") {
            let size = shown(line)
                .rsplit(' ')
                .next()
                .and_then(|size| size.parse().ok());
            let (body, rest) = bytes.split_at(size.unwrap_or(0).min(bytes.len()));
            tracing::trace!("{label} - ->> MSG_PAYLOAD: [{}]", payload(body));
            bytes = rest.strip_prefix(b"\r\n").unwrap_or(rest);
        }
    }
}

fn publish_line(publish: &Publish) -> String {
    let (headers, body) = (publish.headers.as_ref(), publish.payload.len());
    let mut line = String::from(if headers.is_some() { "HPUB " } else { "PUB " });
    line.push_str(&shown(&publish.subject));
    if let Some(reply) = &publish.reply {
        line.push(' ');
        line.push_str(&shown(reply));
    }
    // Writing to a String cannot fail.
    let _ = match headers {
        Some(headers) => write!(line, " {} {}", headers.len(), headers.len() + body),
        None => write!(line, " {body}"),
    };
    line
}

fn shown(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// A payload in quotes, cut at `max_traced_msg_len`.
fn payload(body: &[u8]) -> String {
    let bytes_max = match logging::traced_bytes_max() {
        0 => usize::MAX,
        bytes_max => bytes_max,
    };
    let cut = &body[..body.len().min(bytes_max)];
    let dots = if cut.len() < body.len() { "..." } else { "" };
    format!("\"{}{dots}\"", cut.escape_ascii())
}

fn without_secrets(json: &[u8]) -> String {
    let Ok(mut value) = serde_json::from_slice::<Value>(json) else {
        // It cannot be told what is secret in it.
        return format!("({} bytes that are not JSON)", json.len());
    };
    for name in SECRETS {
        if let Some(secret) = value.get_mut(name) {
            *secret = Value::from(REDACTED);
        }
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let json = br#"{"user":"u","pass":"p1","auth_token":"p2","jwt":"p3","sig":"p4"}"#;
        let text = without_secrets(json);
        assert!(text.contains("\"user\":\"u\""), "{text}");
        for secret in ["p1", "p2", "p3", "p4"] {
            assert!(!text.contains(secret), "{text}");
        }
        assert_eq!(
            without_secrets(b"{\"pass\":\"p1\""),
            "(12 bytes that are not JSON)"
        );
    }

    #[test]
    fn publish_lines_look_as_sent() {
        let mut publish = Publish {
            subject: Bytes::from_static(b"a.b"),
            reply: None,
            headers: None,
            payload: Bytes::from_static(b"hi"),
        };
        assert_eq!(publish_line(&publish), "PUB a.b 2");
        publish.reply = Some(Bytes::from_static(b"r"));
        publish.headers = Some(Bytes::from_static(b"NATS/1.0\r\n\r\n"));
        assert_eq!(publish_line(&publish), "HPUB a.b r 12 14");
    }

    #[test]
    fn payloads_are_escaped() {
        assert_eq!(payload(b"a\n\xff\"b"), "\"a\\n\\xff\\\"b\"");
    }
}
