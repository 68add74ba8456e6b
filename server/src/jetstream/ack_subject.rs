//! Acknowledgement subjects: the reply subject of every delivery, which carries what the server
//! needs to know when the acknowledgement comes back (WIRE section 11, ADR-15).

use std::io::Write as _;

use bytes::BytesMut;
use riverlog_engine::ids::TimestampNs;

/// Positions a delivery carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckToken {
    /// Deliveries of this message so far, this one included.
    pub delivered: u64,
    /// Sequence in the stream.
    pub stream_seq: u64,
    /// Sequence of this delivery.
    pub consumer_seq: u64,
    /// When the message was stored.
    pub ts: TimestampNs,
    /// Messages still to come.
    pub pending: u64,
}

/// Who an acknowledgement is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckTarget<'a> {
    /// Stream.
    pub stream: &'a str,
    /// Consumer.
    pub consumer: &'a str,
    /// Sequence in the stream.
    pub stream_seq: u64,
    /// Sequence of the delivery.
    pub consumer_seq: u64,
    /// Deliveries of the message when it was sent.
    pub delivered: u64,
}

/// Appends the five tokens after `$JS.ACK.<stream>.<consumer>.` to `out`.
pub fn write_token(out: &mut BytesMut, token: &AckToken) {
    struct Out<'a>(&'a mut BytesMut);
    impl std::io::Write for Out<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let AckToken {
        delivered,
        stream_seq,
        consumer_seq,
        ts,
        pending,
    } = token;
    // Writing to memory does not fail.
    let _ = write!(
        Out(out),
        "{delivered}.{stream_seq}.{consumer_seq}.{}.{pending}",
        ts.0
    );
}

/// Reads an acknowledgement subject: 9 tokens, or 11 and more with domain and account hash in
/// front of the stream (ACK-014). `None` for everything else.
pub fn parse(subject: &str) -> Option<AckTarget<'_>> {
    let rest = subject.strip_prefix("$JS.ACK.")?;
    let count = rest.split('.').count();
    let mut tokens = rest.split('.');
    match count {
        7 => {}
        9.. => {
            tokens.next();
            tokens.next();
        }
        _ => return None,
    }
    let stream = tokens.next()?;
    let consumer = tokens.next()?;
    let delivered = tokens.next()?.parse().ok()?;
    let stream_seq = tokens.next()?.parse().ok()?;
    let consumer_seq = tokens.next()?.parse().ok()?;
    Some(AckTarget {
        stream,
        consumer,
        stream_seq,
        consumer_seq,
        delivered,
    })
}

/// What an acknowledgement says (WIRE section 11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckKind<'a> {
    /// Done.
    Ack,
    /// Redeliver, now or after this many nanoseconds.
    Nak(Option<u64>),
    /// Still working on it.
    InProgress,
    /// Never redeliver; with a reason.
    Term(&'a str),
    /// Done, and a pull request follows.
    Next(&'a [u8]),
}

impl AckKind<'_> {
    /// Reads an acknowledgement payload. `None` = not one.
    pub fn parse(payload: &[u8]) -> Option<AckKind<'_>> {
        match payload {
            b"" | b"+ACK" | b"+OK" => return Some(AckKind::Ack),
            b"+WPI" => return Some(AckKind::InProgress),
            _ => {}
        }
        if let Some(rest) = payload.strip_prefix(b"-NAK") {
            return Some(AckKind::Nak(parse_delay(rest)));
        }
        if let Some(rest) = payload.strip_prefix(b"+NXT") {
            return Some(AckKind::Next(rest.trim_ascii()));
        }
        let rest = payload.strip_prefix(b"+TERM")?;
        Some(AckKind::Term(
            std::str::from_utf8(rest).unwrap_or("").trim(),
        ))
    }
}

/// `{"delay":5000000000}` or `5s`; anything else is no delay (ACK-003).
fn parse_delay(rest: &[u8]) -> Option<u64> {
    let rest = rest.trim_ascii();
    if rest.is_empty() {
        return None;
    }
    let ns = if rest.starts_with(b"{") {
        serde_json::from_slice::<serde_json::Value>(rest)
            .ok()?
            .get("delay")?
            .as_i64()?
    } else {
        super::time::parse_duration(std::str::from_utf8(rest).ok()?)?
    };
    u64::try_from(ns).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_token_reads_back() {
        let mut out = BytesMut::new();
        out.extend_from_slice(b"$JS.ACK.ORDERS.worker.");
        let token = AckToken {
            delivered: 1,
            stream_seq: 42,
            consumer_seq: 17,
            ts: TimestampNs(1_767_323_045_000_000_006),
            pending: 3,
        };
        write_token(&mut out, &token);
        let subject = std::str::from_utf8(&out).unwrap();
        assert_eq!(
            subject,
            "$JS.ACK.ORDERS.worker.1.42.17.1767323045000000006.3"
        );
        let target = AckTarget {
            stream: "ORDERS",
            consumer: "worker",
            stream_seq: 42,
            consumer_seq: 17,
            delivered: 1,
        };
        assert_eq!(parse(subject), Some(target));
        for long in [
            "$JS.ACK._.hash.ORDERS.worker.1.42.17.1767.3",
            "$JS.ACK.hub.hash.ORDERS.worker.1.42.17.1767.3.more",
        ] {
            assert_eq!(parse(long), Some(target), "{long}");
        }
    }

    #[test]
    fn other_token_counts_are_no_acknowledgement() {
        for bad in [
            "$JS.ACK.S.c.1.2.3.4",
            "$JS.ACK.S.c.1.2.3.4.5.6",
            "$JS.ACK",
            "$JS.ACK.S.c.x.2.3.4.5",
            "$JS.FC.S.c.1.2.3.4.5",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn payloads() {
        for (payload, kind) in [
            ("", Some(AckKind::Ack)),
            ("+ACK", Some(AckKind::Ack)),
            ("+OK", Some(AckKind::Ack)),
            ("+ACK ", None),
            ("+WPI", Some(AckKind::InProgress)),
            ("+WPIx", None),
            ("-NAK", Some(AckKind::Nak(None))),
            (
                "-NAK {\"delay\":5000000000}",
                Some(AckKind::Nak(Some(5_000_000_000))),
            ),
            ("-NAK {\"delay\":0}", Some(AckKind::Nak(Some(0)))),
            ("-NAK 5s", Some(AckKind::Nak(Some(5_000_000_000)))),
            ("-NAK soon", Some(AckKind::Nak(None))),
            ("-NAK {", Some(AckKind::Nak(None))),
            ("+TERM", Some(AckKind::Term(""))),
            ("+TERM  bad data ", Some(AckKind::Term("bad data"))),
            ("+NXT", Some(AckKind::Next(b""))),
            ("+NXT 10", Some(AckKind::Next(b"10"))),
            ("hello", None),
        ] {
            assert_eq!(AckKind::parse(payload.as_bytes()), kind, "{payload:?}");
        }
    }
}
