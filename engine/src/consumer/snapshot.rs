//! The whole state as bytes, for checkpoints.

use super::codec::{ConsumerFormatError, RUN_MAX, Reader, ahead, put_i64, put_set, put_u64};
use super::config::{AckPolicy, ConsumerConfig};
use super::invariants;
use super::pending::{PendingEntry, Tick};
use super::state::{ConsumerState, SeqPair, StartPosition};
use crate::limits::POSITION_MAX;

/// Version byte of the stored form.
const FORMAT_VERSION: u8 = 1;

impl ConsumerState {
    /// Appends the whole state. Recorded events that have not been drained are part of it: drain
    /// them first, or they would be lost to a log that is replayed on top. The settings are not
    /// contained.
    pub fn encode_snapshot(&self, out: &mut Vec<u8>) {
        debug_assert!(!self.has_events(), "events are drained before a snapshot");
        out.push(FORMAT_VERSION);
        put_u64(out, self.events.batch);
        for value in [
            self.delivered.consumer,
            self.delivered.stream,
            self.floor.consumer,
            self.floor.stream,
            self.next,
        ] {
            put_u64(out, value);
        }
        put_i64(out, self.clock.0);
        put_set(out, &self.listed);
        put_set(out, &self.exhausted);
        put_set(out, &self.urgent);
        put_u64(out, self.delayed.len() as u64);
        let mut end = 0;
        for (&seq, due) in &self.delayed {
            put_u64(out, seq - end);
            put_i64(out, due.0.wrapping_sub(self.clock.0));
            end = seq;
        }
        put_u64(out, self.deliveries.iter().count() as u64);
        end = 0;
        for (seq, count) in self.deliveries.iter() {
            put_u64(out, seq - end);
            put_u64(out, u64::from(count));
            end = seq;
        }
        self.encode_pending(out);
    }

    /// Runs of consecutive stream and consumer sequences sent in the same tick.
    fn encode_pending(&self, out: &mut Vec<u8>) {
        let mut runs: Vec<(u64, PendingEntry, u64)> = Vec::new();
        for (seq, entry) in self.pending.iter() {
            match runs.last_mut() {
                Some((first, start, len))
                    if *len < RUN_MAX
                        && *first + *len == seq
                        && start.consumer_seq + *len == entry.consumer_seq
                        && start.sent == entry.sent =>
                {
                    *len += 1;
                }
                _ => runs.push((seq, entry, 1)),
            }
        }
        put_u64(out, runs.len() as u64);
        let (mut seq_end, mut consumer_end, mut sent) = (0, 0, self.clock.0);
        for (seq, entry, len) in runs {
            put_u64(out, len);
            put_u64(out, seq - seq_end);
            put_u64(out, entry.consumer_seq - consumer_end);
            put_i64(out, entry.sent.0.wrapping_sub(sent));
            seq_end = seq + len;
            consumer_end = entry.consumer_seq + len;
            sent = entry.sent.0;
        }
    }

    /// Restores a state. Everything that is due is found by the next
    /// [`ConsumerState::expire`]. Total: any bytes give a consistent state or an error.
    pub fn decode_snapshot(
        config: ConsumerConfig,
        bytes: &[u8],
    ) -> Result<ConsumerState, ConsumerFormatError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            FORMAT_VERSION => {}
            0 => return Err(ConsumerFormatError::BadValue),
            newer => return Err(ConsumerFormatError::NewerVersion(newer)),
        }
        let mut state = ConsumerState::new(config, &StartPosition::default());
        state.events.batch = reader.u64()?;
        state.delivered = SeqPair {
            consumer: reader.u64()?,
            stream: reader.u64()?,
        };
        state.floor = SeqPair {
            consumer: reader.u64()?,
            stream: reader.u64()?,
        };
        state.next = reader.u64()?;
        state.clock = Tick(reader.i64()?);
        // The headroom keeps later deliveries from running out of numbers.
        if state.next > POSITION_MAX || state.delivered.consumer > u64::MAX / 2 {
            return Err(ConsumerFormatError::BadValue);
        }
        if state.next <= state.delivered.stream {
            return Err(ConsumerFormatError::BadValue);
        }
        state.last_delivered = Some(state.clock.start()).filter(|_| state.delivered.consumer > 0);
        state.listed = reader.set(state.next)?;
        state.exhausted = reader.set(state.next)?;
        state.urgent = reader.set(state.next)?;
        let mut seq = 0u64;
        for _ in 0..reader.count()? {
            seq = ahead(seq, reader.u64()?)?;
            state
                .delayed
                .insert(seq, Tick(state.clock.0.wrapping_add(reader.i64()?)));
        }
        seq = 0;
        for _ in 0..reader.count()? {
            seq = ahead(seq, reader.u64()?)?;
            let count = u32::try_from(reader.u64()?).map_err(|_| ConsumerFormatError::BadNumber)?;
            if count == 1 || state.deliveries.get(seq) != 1 {
                return Err(ConsumerFormatError::BadValue);
            }
            state.deliveries.set(seq, count);
        }
        state.decode_pending(&mut reader)?;
        state.arm_all();
        reader.finish()?;
        match invariants::violated(&state) {
            None => Ok(state),
            Some(_) => Err(ConsumerFormatError::BadValue),
        }
    }

    fn decode_pending(&mut self, reader: &mut Reader<'_>) -> Result<(), ConsumerFormatError> {
        let (mut seq, mut consumer_seq, mut sent) = (0u64, 0u64, self.clock.0);
        for _ in 0..reader.count()? {
            let len = reader.u64()?;
            seq = ahead(seq, reader.u64()?)?;
            consumer_seq = ahead(consumer_seq, reader.u64()?)?;
            sent = sent.wrapping_add(reader.i64()?);
            let seq_end = ahead(seq, len)?;
            let consumer_end = ahead(consumer_seq, len)?;
            // Each number must be possible before that many entries are made.
            if self.config.ack == AckPolicy::None
                || len > RUN_MAX
                || seq_end > self.delivered.stream + 1
                || consumer_end > self.delivered.consumer + 1
            {
                return Err(ConsumerFormatError::BadValue);
            }
            for step in 0..len {
                let entry = PendingEntry {
                    consumer_seq: consumer_seq + step,
                    sent: Tick(sent),
                };
                self.pending.push(seq + step, entry, None);
            }
            (seq, consumer_seq) = (seq_end, consumer_end);
        }
        Ok(())
    }
}
