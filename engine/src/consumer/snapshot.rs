//! The whole state as bytes: of a new consumer, of one under a checkpoint (its head), and of one
//! that is exported with its stream.

use super::codec::{ConsumerFormatError, Reader, put_bytes, put_i64, put_u64};
use super::config::ConsumerConfig;
use super::invariants;
use super::pending::Tick;
use super::state::{ConsumerState, SeqPair, StartPosition};
use crate::limits::POSITION_MAX;

/// Version byte of the stored form.
const FORMAT_VERSION: u8 = 1;

impl ConsumerState {
    /// Appends positions and counters, without the messages in containers. Recorded events that
    /// have not been drained are part of the state: drain them first, or they would be lost to a
    /// log that is replayed on top. The settings are not contained.
    pub fn encode_head(&self, out: &mut Vec<u8>) {
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
    }

    /// Appends the whole state: the head, then every container. The same state always gives the
    /// same bytes.
    pub fn encode_snapshot(&self, out: &mut Vec<u8>) {
        let mut part = Vec::new();
        self.encode_head(&mut part);
        put_bytes(out, &part);
        let numbers = self.container_numbers();
        put_u64(out, numbers.len() as u64);
        for number in numbers {
            part.clear();
            self.encode_container(number, &mut part);
            put_u64(out, number);
            put_bytes(out, &part);
        }
    }

    /// Restores a state. Everything that is due is found by the next
    /// [`ConsumerState::expire`]. Total: any bytes give a consistent state or an error.
    pub fn decode_snapshot(
        config: ConsumerConfig,
        bytes: &[u8],
    ) -> Result<ConsumerState, ConsumerFormatError> {
        let mut reader = Reader::new(bytes);
        let mut state = ConsumerState::decode_head(config, reader.bytes()?)?;
        for _ in 0..reader.count()? {
            let number = reader.u64()?;
            state.load_container(number, reader.bytes()?)?;
        }
        reader.finish()?;
        state.finish_loading()?;
        // No checkpoint holds it in parts yet.
        state.note_all_changed();
        Ok(state)
    }

    /// Restores positions and counters. [`ConsumerState::load_container`] and then
    /// [`ConsumerState::finish_loading`] follow.
    pub fn decode_head(
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
        reader.finish()?;
        // The headroom keeps later deliveries from running out of numbers.
        if state.next > POSITION_MAX || state.delivered.consumer > u64::MAX / 2 {
            return Err(ConsumerFormatError::BadValue);
        }
        if state.next <= state.delivered.stream {
            return Err(ConsumerFormatError::BadValue);
        }
        state.last_delivered = Some(state.clock.start()).filter(|_| state.delivered.consumer > 0);
        Ok(state)
    }

    /// Checks a state whose containers are loaded, and learns its deadlines.
    pub fn finish_loading(&mut self) -> Result<(), ConsumerFormatError> {
        self.arm_all();
        match invariants::violated(self) {
            None => Ok(()),
            Some(_) => Err(ConsumerFormatError::BadValue),
        }
    }
}
