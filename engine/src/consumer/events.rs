//! The recorded form of what happens to a consumer.
//!
//! A batch is its number followed by events. An event starts with a byte that holds its kind in
//! the low and a count in the high four bits; runs over consecutive sequences become one event.
//! Sequences are written as the distance to the highest delivered one, times as the difference to
//! the last delivery, so that an acknowledgement takes two or three bytes.

use roaring::RoaringTreemap;

use super::codec::{ConsumerFormatError, RUN_MAX, Reader, put_i64, put_set, put_u64};
use super::config::AckPolicy;
use super::pending::Tick;
use super::state::ConsumerState;
use crate::limits::POSITION_MAX;

/// Counts from here on continue in a number of their own.
const COUNT_INLINE_MAX: u64 = 15;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventKind {
    /// First deliveries: gap above the highest delivered sequence, time.
    Deliver = 0,
    /// Messages acknowledged, terminated or removed.
    Ack = 1,
    /// Everything up to a message acknowledged.
    AckAll = 2,
    /// Further deliveries: distance, time.
    Redeliver = 3,
    /// Deliveries that reached nobody.
    Undeliver = 4,
    /// Refused, due at once.
    Nak = 5,
    /// Refused, due at a time: distance, time.
    NakUntil = 6,
    /// Wait restarted: distance, time.
    Progress = 7,
    /// Given up after the last allowed delivery.
    GiveUp = 8,
    /// The position: distance above the highest delivered sequence.
    Position = 9,
    /// Everything below a sequence purged, as [`super::Purge::Covering`].
    PurgeBelow = 10,
    /// First sequence and the removed runs of a [`super::Purge::Partial`].
    PurgePartly = 11,
    /// Everything below a sequence removed by limits.
    Trim = 12,
    /// Start over at a sequence.
    Reset = 13,
    /// A listed message is gone.
    Unlist = 14,
}

impl EventKind {
    fn from_nibble(nibble: u8) -> Result<EventKind, ConsumerFormatError> {
        use EventKind::*;
        const KINDS: [EventKind; 15] = [
            Deliver,
            Ack,
            AckAll,
            Redeliver,
            Undeliver,
            Nak,
            NakUntil,
            Progress,
            GiveUp,
            Position,
            PurgeBelow,
            PurgePartly,
            Trim,
            Reset,
            Unlist,
        ];
        KINDS
            .get(usize::from(nibble))
            .copied()
            .ok_or(ConsumerFormatError::BadValue)
    }

    fn has_time(self) -> bool {
        matches!(
            self,
            EventKind::Deliver | EventKind::Redeliver | EventKind::NakUntil | EventKind::Progress
        )
    }
}

/// Consecutive sequences to which the same happened.
#[derive(Clone, Debug)]
struct Run {
    kind: EventKind,
    operand: u64,
    tick: Tick,
    tick_delta: i64,
    /// The sequence that would continue the run.
    next: u64,
    count: u64,
}

/// Events recorded and not drained yet.
#[derive(Clone, Debug)]
pub(super) struct EventLog {
    enabled: bool,
    position_moved: bool,
    /// `None` while there is nothing, which is how most consumers are.
    recorded: Option<Box<Recorded>>,
    /// Number of the last batch drained or applied.
    pub(super) batch: u64,
}

#[derive(Clone, Debug, Default)]
struct Recorded {
    bytes: Vec<u8>,
    events: u32,
    run: Option<Run>,
}

impl EventLog {
    pub(super) fn new(enabled: bool) -> EventLog {
        EventLog {
            enabled,
            position_moved: false,
            recorded: None,
            batch: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.recorded.is_none() && !self.position_moved
    }

    /// Records an event about one sequence. `operand` and the base of `times` (time, base) are
    /// those of the state before the event.
    pub(super) fn record(
        &mut self,
        kind: EventKind,
        seq: u64,
        operand: u64,
        times: Option<(Tick, Tick)>,
    ) {
        if !self.enabled {
            return;
        }
        let (tick, base) = times.unwrap_or_default();
        let recorded = self.recorded.get_or_insert_default();
        if let Some(run) = &mut recorded.run
            && kind != EventKind::AckAll
            && (run.kind, run.next, run.tick) == (kind, seq, tick)
            && run.count < RUN_MAX
        {
            run.count += 1;
            run.next += 1;
            return;
        }
        recorded.flush();
        recorded.run = Some(Run {
            kind,
            operand,
            tick,
            tick_delta: tick.0.wrapping_sub(base.0),
            next: seq + 1,
            count: 1,
        });
    }

    pub(super) fn position_moved(&mut self) {
        self.position_moved = self.enabled;
    }

    pub(super) fn purged_below(&mut self, resume: u64) {
        self.plain(EventKind::PurgeBelow, resume);
    }

    pub(super) fn purged_partly(&mut self, first_seq: u64, removed: &RoaringTreemap) {
        if !self.enabled {
            return;
        }
        self.plain(EventKind::PurgePartly, first_seq);
        put_set(&mut self.recorded.get_or_insert_default().bytes, removed);
    }

    pub(super) fn trimmed(&mut self, first_seq: u64) {
        self.plain(EventKind::Trim, first_seq);
    }

    pub(super) fn reset_to(&mut self, next: u64) {
        self.position_moved = false;
        self.plain(EventKind::Reset, next);
    }

    pub(super) fn unlisted(&mut self, seq: u64) {
        self.plain(EventKind::Unlist, seq);
    }

    fn plain(&mut self, kind: EventKind, value: u64) {
        if self.enabled {
            let recorded = self.recorded.get_or_insert_default();
            recorded.flush();
            recorded.bytes.push(kind as u8);
            put_u64(&mut recorded.bytes, value);
            recorded.events += 1;
        }
    }
}

impl Recorded {
    fn flush(&mut self) {
        let Some(run) = self.run.take() else { return };
        let count = run.count - 1;
        let inline = count.min(COUNT_INLINE_MAX);
        self.bytes.push(run.kind as u8 | (inline as u8) << 4);
        if inline == COUNT_INLINE_MAX {
            put_u64(&mut self.bytes, count - inline);
        }
        put_u64(&mut self.bytes, run.operand);
        if run.kind.has_time() {
            put_i64(&mut self.bytes, run.tick_delta);
        }
        self.events += 1;
    }
}

impl ConsumerState {
    /// Whether [`ConsumerState::drain_events`] has something to record.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Appends everything that happened since the last call as one batch and returns the number
    /// of events; with none, nothing is appended. Batches carry numbers: they must reach the log
    /// in the order they were drained. Consumers kept in memory record nothing.
    pub fn drain_events(&mut self, out: &mut Vec<u8>) -> u32 {
        let events = self.encode_events(out);
        self.events_logged();
        events
    }

    /// As [`ConsumerState::drain_events`], but the events stay recorded until
    /// [`ConsumerState::events_logged`] follows: a log may still refuse them.
    pub fn encode_events(&mut self, out: &mut Vec<u8>) -> u32 {
        let position = self.next.saturating_sub(self.delivered.stream);
        let log = &mut self.events;
        if log.position_moved {
            log.plain(EventKind::Position, position);
            log.position_moved = false;
        }
        let Some(recorded) = &mut log.recorded else {
            return 0;
        };
        recorded.flush();
        put_u64(out, log.batch + 1);
        out.extend_from_slice(&recorded.bytes);
        recorded.events
    }

    /// The events of the last [`ConsumerState::encode_events`] are in the log.
    pub fn events_logged(&mut self) {
        if let Some(recorded) = self.events.recorded.take() {
            debug_assert!(recorded.run.is_none(), "nothing came in between");
            self.events.batch += 1;
        }
    }

    /// Whether a batch holds a reset. It is a batch of its own.
    pub fn is_reset(batch: &[u8]) -> bool {
        let mut reader = Reader::new(batch);
        let head = reader.u64().and_then(|_| reader.u8());
        head.is_ok_and(|head| head & 0x0f == EventKind::Reset as u8)
    }

    /// Applies one batch of [`ConsumerState::drain_events`]. A batch the state already contains
    /// changes nothing; one that does not follow is refused. After any other error the state may
    /// contain a part of the batch and must be thrown away. Total: no bytes make it panic.
    pub fn apply_events(&mut self, bytes: &[u8]) -> Result<(), ConsumerFormatError> {
        let mut reader = Reader::new(bytes);
        let found = reader.u64()?;
        let have = self.events.batch;
        if found <= have {
            return Ok(());
        }
        if found - 1 != have {
            return Err(ConsumerFormatError::MissingBatch { have, found });
        }
        while !reader.is_empty() {
            self.apply_event(&mut reader)?;
        }
        self.events.batch = found;
        self.last_delivered = Some(self.clock.start()).filter(|_| self.delivered.consumer > 0);
        Ok(())
    }

    fn apply_event(&mut self, reader: &mut Reader<'_>) -> Result<(), ConsumerFormatError> {
        let head = reader.u8()?;
        let kind = EventKind::from_nibble(head & 0x0f)?;
        let mut count = u64::from(head >> 4);
        if count == COUNT_INLINE_MAX {
            count = count.saturating_add(reader.u64()?);
        }
        let count = count.saturating_add(1);
        if count > RUN_MAX {
            return Err(ConsumerFormatError::BadValue);
        }
        let operand = reader.u64()?;
        let tick = match kind.has_time() {
            true => Tick(self.clock.0.wrapping_add(reader.i64()?)),
            false => Tick::default(),
        };
        match kind {
            EventKind::Deliver => {
                let first = self
                    .delivered
                    .stream
                    .saturating_add(1)
                    .saturating_add(operand);
                let end = sequence(first.saturating_add(count))?;
                for seq in first..end {
                    self.apply_deliver(seq, tick);
                }
            }
            EventKind::Position => {
                let next = sequence(self.delivered.stream.saturating_add(operand))?;
                self.next = self.next.max(next);
            }
            EventKind::PurgeBelow => self.apply_purged_below(sequence(operand)?),
            EventKind::PurgePartly => self.read_purged_partly(reader, operand)?,
            EventKind::Trim => self.apply_trimmed(sequence(operand)?),
            EventKind::Reset => self.apply_reset(sequence(operand)?.max(1)),
            EventKind::Unlist => {
                self.unlist(operand);
            }
            _ => {
                let first = self.delivered.stream.checked_sub(operand);
                let first = first.ok_or(ConsumerFormatError::BadValue)?;
                for seq in first..sequence(first.saturating_add(count))? {
                    self.apply_to(kind, seq, tick)?;
                }
            }
        }
        Ok(())
    }

    fn apply_to(
        &mut self,
        kind: EventKind,
        seq: u64,
        tick: Tick,
    ) -> Result<(), ConsumerFormatError> {
        match kind {
            EventKind::Ack => {
                self.apply_ack(seq);
            }
            EventKind::AckAll if seq <= self.delivered.stream => {
                self.apply_ack_all(seq);
            }
            EventKind::Redeliver => {
                self.open.queue.take_out(seq);
                self.apply_redeliver(seq, tick);
            }
            EventKind::Undeliver => {
                let latest = seq == self.delivered.stream && self.delivered.consumer > 0;
                if self.config.ack == AckPolicy::None && !(latest && seq > 0) {
                    return Err(ConsumerFormatError::BadValue);
                }
                self.apply_undeliver(seq);
            }
            EventKind::Nak => self.apply_nak(seq),
            EventKind::NakUntil => self.apply_nak_until(seq, tick),
            EventKind::Progress => self.apply_progress(seq, tick),
            EventKind::GiveUp => self.apply_give_up(seq),
            _ => return Err(ConsumerFormatError::BadValue),
        }
        Ok(())
    }

    fn read_purged_partly(
        &mut self,
        reader: &mut Reader<'_>,
        first_seq: u64,
    ) -> Result<(), ConsumerFormatError> {
        // Only delivered messages can have been removed from the consumer.
        let removed = reader.set(self.delivered.stream + 1)?;
        self.apply_purged_partly(sequence(first_seq)?, &removed);
        Ok(())
    }
}

/// A stream sequence with headroom above it.
fn sequence(seq: u64) -> Result<u64, ConsumerFormatError> {
    if seq <= POSITION_MAX {
        Ok(seq)
    } else {
        Err(ConsumerFormatError::BadNumber)
    }
}
