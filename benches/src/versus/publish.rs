//! The publishing side: connections with many messages in flight, every ack checked.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::histogram::Histogram;
use super::payload::Payloads;
use super::wire::{Frame, Wire, number};
use crate::error::{BenchError, BenchResult};

/// Name of the stream and of its only subject.
pub const STREAM: &str = "V";

/// What to publish.
#[derive(Clone, Copy, Debug)]
pub struct PublishPlan {
    /// Connections that publish at the same time.
    pub connections: u32,
    /// Messages of one connection that were sent and not acknowledged.
    pub in_flight: u64,
    /// Messages of all connections together.
    pub messages: u64,
    /// Stop sending after this time.
    pub time_max: Duration,
    /// Bytes of one payload.
    pub payload_bytes: usize,
}

/// What came of it.
pub struct PublishOutcome {
    /// Acknowledged messages.
    pub acked: u64,
    /// From the first byte sent until the last ack.
    pub elapsed: Duration,
    /// Time from sending a message until its ack.
    pub latency: Histogram,
}

/// Publishes by plan on an empty stream and checks that the acks name every sequence exactly once.
pub fn publish(addr: SocketAddr, plan: &PublishPlan) -> BenchResult<PublishOutcome> {
    let start = Instant::now();
    let share = plan.messages / u64::from(plan.connections);
    let results = std::thread::scope(|scope| {
        let publishers: Vec<_> = (0..plan.connections)
            .map(|index| {
                scope.spawn(move || Publisher::connect(addr, plan, index)?.run(share, start))
            })
            .collect();
        publishers
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(result) => result,
                Err(_) => Err(BenchError::Failed("a publisher thread failed".into())),
            })
            .collect::<BenchResult<Vec<Published>>>()
    })?;
    let mut latency = Histogram::default();
    let mut seqs = SeqSet::default();
    let mut end = start;
    for published in &results {
        latency.merge(&published.latency);
        end = end.max(published.last_ack);
        for (first, count) in &published.runs {
            seqs.insert(*first, *count)?;
        }
    }
    let acked = seqs.check_complete()?;
    Ok(PublishOutcome {
        acked,
        elapsed: end.duration_since(start),
        latency,
    })
}

struct Published {
    /// Runs of consecutive sequences: first sequence and length.
    runs: Vec<(u64, u64)>,
    latency: Histogram,
    last_ack: Instant,
}

struct Publisher<'a> {
    wire: Wire,
    plan: &'a PublishPlan,
    index: u32,
    payloads: Payloads,
    frame_head: Vec<u8>,
    batch: Vec<u8>,
    /// Moment each message in flight was sent, by number modulo the window.
    sent_at: Vec<Instant>,
    sent: u64,
    acked: u64,
}

impl<'a> Publisher<'a> {
    fn connect(addr: SocketAddr, plan: &'a PublishPlan, index: u32) -> BenchResult<Self> {
        let mut wire = Wire::connect(addr)?;
        wire.send(format!("SUB _INBOX.versus.{index} 1\r\nPING\r\n").as_bytes())?;
        wire.wait_pong()?;
        let payloads = Payloads::new(plan.payload_bytes);
        let head = format!(
            "PUB {STREAM} _INBOX.versus.{index} {}\r\n",
            payloads.size_bytes()
        );
        Ok(Self {
            wire,
            plan,
            index,
            payloads,
            frame_head: head.into_bytes(),
            batch: Vec::new(),
            sent_at: vec![Instant::now(); plan.in_flight as usize],
            sent: 0,
            acked: 0,
        })
    }

    fn run(mut self, messages: u64, start: Instant) -> BenchResult<Published> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let mut latency = Histogram::default();
        let mut last_ack = start;
        let deadline = start + self.plan.time_max;
        let mut end = messages;
        self.send_up_to(end.min(self.plan.in_flight))?;
        while self.acked < end {
            self.wire.fill()?;
            last_ack = Instant::now();
            while let Some(frame) = self.wire.next_frame()? {
                match frame {
                    Frame::Msg { payload, .. } => {
                        let seq = ack_seq(payload)?;
                        extend_runs(&mut runs, seq)?;
                        let slot = (self.acked % self.plan.in_flight) as usize;
                        let waited = last_ack.duration_since(self.sent_at[slot]);
                        latency.record_us(waited.as_micros() as u64, 1);
                        self.acked += 1;
                    }
                    Frame::Ping => self.wire.send(b"PONG\r\n")?,
                    Frame::Pong => {}
                    Frame::Status { headers } => {
                        let text = String::from_utf8_lossy(headers);
                        return Err(BenchError::Failed(format!(
                            "status instead of an ack: {text}"
                        )));
                    }
                }
            }
            if last_ack >= deadline {
                end = self.sent;
            }
            self.send_up_to(end.min(self.acked + self.plan.in_flight))?;
        }
        Ok(Published {
            runs,
            latency,
            last_ack,
        })
    }

    /// Sends messages until `count` were sent, in one write.
    fn send_up_to(&mut self, count: u64) -> BenchResult<()> {
        if self.sent >= count {
            return Ok(());
        }
        self.batch.clear();
        let now = Instant::now();
        while self.sent < count {
            self.sent_at[(self.sent % self.plan.in_flight) as usize] = now;
            self.batch.extend_from_slice(&self.frame_head);
            self.payloads.append(&mut self.batch, self.index, self.sent);
            self.batch.extend_from_slice(b"\r\n");
            self.sent += 1;
        }
        self.wire.send(&self.batch)
    }
}

/// Sequence of `{"stream":"V","seq":22}`. Anything else is a refused or duplicate message.
fn ack_seq(payload: &[u8]) -> BenchResult<u64> {
    let seq = payload
        .strip_prefix(b"{\"stream\":\"V\",\"seq\":")
        .and_then(|rest| rest.strip_suffix(b"}"))
        .and_then(number);
    seq.map(|seq| seq as u64).ok_or_else(|| {
        BenchError::Failed(format!(
            "bad publish ack {}",
            String::from_utf8_lossy(payload)
        ))
    })
}

/// Adds a sequence; on one connection they must grow.
fn extend_runs(runs: &mut Vec<(u64, u64)>, seq: u64) -> BenchResult<()> {
    match runs.last_mut() {
        Some((first, count)) if *first + *count == seq => *count += 1,
        Some((first, count)) if seq < *first + *count => {
            let last = *first + *count - 1;
            return Err(BenchError::Failed(format!(
                "ack of sequence {seq} after {last}"
            )));
        }
        _ => runs.push((seq, 1)),
    }
    Ok(())
}

/// Which sequences were acknowledged.
#[derive(Default)]
struct SeqSet {
    seen: Vec<bool>,
}

impl SeqSet {
    fn insert(&mut self, first: u64, count: u64) -> BenchResult<()> {
        let end = (first + count) as usize;
        if self.seen.len() < end {
            self.seen.resize(end, false);
        }
        for seq in first as usize..end {
            if std::mem::replace(&mut self.seen[seq], true) {
                return Err(BenchError::Failed(format!(
                    "sequence {seq} was acknowledged twice"
                )));
            }
        }
        Ok(())
    }

    /// Number of sequences, which must be 1, 2, 3 and so on without gap.
    fn check_complete(&self) -> BenchResult<u64> {
        match self.seen.iter().skip(1).position(|seen| !seen) {
            Some(index) => Err(BenchError::Failed(format!(
                "sequence {} was never acknowledged",
                index + 1
            ))),
            None => Ok(self.seen.len().saturating_sub(1) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{SeqSet, ack_seq, extend_runs};

    #[test]
    fn only_plain_acks_count() {
        assert_eq!(ack_seq(b"{\"stream\":\"V\",\"seq\":22}").ok(), Some(22));
        for bad in [
            &b"{\"stream\":\"V\",\"seq\":22,\"duplicate\": true}"[..],
            b"{\"error\":{},\"stream\":\"V\",\"seq\":0}",
            b"{\"stream\":\"W\",\"seq\":22}",
            b"",
        ] {
            assert!(ack_seq(bad).is_err());
        }
    }

    #[test]
    fn doubled_missing_and_falling_sequences_are_noticed() {
        let mut runs = Vec::new();
        for seq in [1, 2, 5, 6] {
            assert!(extend_runs(&mut runs, seq).is_ok());
        }
        assert_eq!(runs, [(1, 2), (5, 2)]);
        assert!(extend_runs(&mut runs, 6).is_err());
        assert!(extend_runs(&mut runs, 3).is_err());

        let mut set = SeqSet::default();
        assert!(set.insert(1, 2).is_ok() && set.insert(4, 1).is_ok());
        assert!(set.check_complete().is_err());
        assert!(set.insert(3, 1).is_ok());
        assert_eq!(set.check_complete().ok(), Some(4));
        assert!(set.insert(2, 1).is_err());
    }
}
