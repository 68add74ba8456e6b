//! The consuming side: a durable pull consumer reads and acknowledges everything, every payload checked.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::payload::Payloads;
use super::publish::STREAM;
use super::wire::{Frame, Wire, number};
use crate::error::{BenchError, BenchResult};

/// Messages of one pull request.
const BATCH: u64 = 500;
/// Pull requests on their way.
const REQUESTS_AHEAD: u64 = 4;

/// What came of it.
pub struct ConsumeOutcome {
    /// Messages read and acknowledged.
    pub messages: u64,
    /// From the first request until the confirmation of the last ack.
    pub elapsed: Duration,
}

/// Reads the `messages` messages of the stream in order and acknowledges each.
///
/// `connections` publishers wrote them: each one's numbers must be there, complete and in order.
pub fn consume(
    addr: SocketAddr,
    messages: u64,
    payload_bytes: usize,
    connections: u32,
) -> BenchResult<ConsumeOutcome> {
    let mut wire = Wire::connect(addr)?;
    let config = format!(
        "{{\"stream_name\":\"{STREAM}\",\"config\":{{\"durable_name\":\"C\",\"ack_policy\":\"explicit\",\
         \"max_ack_pending\":20000}}}}"
    );
    let reply = wire.request(&format!("$JS.API.CONSUMER.CREATE.{STREAM}.C"), &config)?;
    if reply.windows(7).any(|part| part == b"\"error\"") {
        let text = String::from_utf8_lossy(&reply);
        return Err(BenchError::Failed(format!("no consumer: {text}")));
    }
    wire.send(b"SUB _INBOX.versus.pull 1\r\nSUB _INBOX.versus.last 2\r\nPING\r\n")?;
    wire.wait_pong()?;

    let payloads = Payloads::new(payload_bytes);
    let mut next_number = vec![0_u64; connections as usize];
    let mut requested = 0;
    let mut received = 0;
    let mut confirmed = false;
    let mut batch = Vec::new();
    let start = Instant::now();
    while !confirmed {
        while requested < messages && requested < received + BATCH * REQUESTS_AHEAD {
            let count = BATCH.min(messages - requested);
            append_pull(&mut batch, count);
            requested += count;
        }
        if !batch.is_empty() {
            wire.send(&batch)?;
            batch.clear();
        }
        wire.fill()?;
        while let Some(frame) = wire.next_frame()? {
            match frame {
                Frame::Msg { reply, payload } if !reply.is_empty() => {
                    received += 1;
                    check_seq(reply, received)?;
                    check_payload(&payloads, payload, received, &mut next_number)?;
                    append_ack(&mut batch, reply, received == messages);
                }
                Frame::Msg { .. } => confirmed = true,
                Frame::Ping => batch.extend_from_slice(b"PONG\r\n"),
                Frame::Pong => {}
                Frame::Status { headers } => {
                    let text = String::from_utf8_lossy(headers);
                    return Err(BenchError::Failed(format!("pull ended: {text}")));
                }
            }
        }
    }
    let elapsed = start.elapsed();
    if received != messages {
        return Err(BenchError::Failed(format!(
            "{received} of {messages} messages came back"
        )));
    }
    Ok(ConsumeOutcome {
        messages: received,
        elapsed,
    })
}

fn append_pull(batch: &mut Vec<u8>, count: u64) {
    let body = format!("{{\"batch\":{count},\"expires\":60000000000}}");
    let head = format!(
        "PUB $JS.API.CONSUMER.MSG.NEXT.{STREAM}.C _INBOX.versus.pull {}\r\n{body}\r\n",
        body.len()
    );
    batch.extend_from_slice(head.as_bytes());
}

/// The last ack asks for a confirmation: then all acks before it have been applied too.
fn append_ack(batch: &mut Vec<u8>, reply: &[u8], last: bool) {
    batch.extend_from_slice(b"PUB ");
    batch.extend_from_slice(reply);
    batch.extend_from_slice(if last {
        b" _INBOX.versus.last 0\r\n\r\n"
    } else {
        b" 0\r\n\r\n"
    });
}

/// `$JS.ACK.V.C.<delivered>.<stream seq>.…`: each message once, in order.
fn check_seq(reply: &[u8], expected: u64) -> BenchResult<()> {
    let mut tokens = reply.split(|byte| *byte == b'.').skip(4);
    let delivered = tokens.next().and_then(number);
    let seq = tokens.next().and_then(number);
    if delivered == Some(1) && seq == Some(expected as usize) {
        return Ok(());
    }
    let text = String::from_utf8_lossy(reply);
    Err(BenchError::Failed(format!(
        "{text} instead of the first delivery of sequence {expected}"
    )))
}

fn check_payload(
    payloads: &Payloads,
    payload: &[u8],
    seq: u64,
    next_number: &mut [u64],
) -> BenchResult<()> {
    let damaged = || BenchError::Failed(format!("payload of sequence {seq} is not what was sent"));
    let (connection, number) = payloads.check(payload).ok_or_else(damaged)?;
    let next = next_number
        .get_mut(connection as usize)
        .ok_or_else(damaged)?;
    if number != *next {
        return Err(BenchError::Failed(format!(
            "sequence {seq} is message {number} of connection {connection} instead of {next}"
        )));
    }
    *next += 1;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Payloads, check_payload, check_seq};

    #[test]
    fn wrong_order_and_redelivery_are_noticed() {
        assert!(check_seq(b"$JS.ACK.V.C.1.7.9.1700000000.3", 7).is_ok());
        assert!(check_seq(b"$JS.ACK.V.C.1.8.9.1700000000.3", 7).is_err());
        assert!(check_seq(b"$JS.ACK.V.C.2.7.9.1700000000.3", 7).is_err());
        assert!(check_seq(b"other", 7).is_err());

        let payloads = Payloads::new(64);
        let mut bytes = Vec::new();
        payloads.append(&mut bytes, 1, 0);
        let mut next = vec![0, 0];
        assert!(check_payload(&payloads, &bytes, 1, &mut next).is_ok());
        assert!(
            check_payload(&payloads, &bytes, 2, &mut next).is_err(),
            "the same message again"
        );
        assert!(
            check_payload(&payloads, &bytes, 1, &mut [0]).is_err(),
            "unknown connection"
        );
    }
}
