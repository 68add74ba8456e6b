//! What a checkpoint keeps of a stream and its consumers, and how it comes back.

use super::state::StreamData;
use crate::consumer::{ConsumerConfig, ConsumerState};
use crate::dedup::IdFloor;
use crate::format::FormatError;
use crate::format::cursor::Cursor;
use crate::format::varint;
use crate::ids::{Lsn, Seq, TimestampNs};

const VERSION: u8 = 1;

/// Positions and counters at one log position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Positions {
    pub first_seq: u64,
    pub last_seq: u64,
    pub last_ts: Option<TimestampNs>,
    pub msgs: u64,
    pub bytes: u64,
    pub age_cursor: u64,
    pub ids_floor: IdFloor,
    pub ids_seed: u64,
    pub last_msg_id: Vec<u8>,
    /// Operations up to here are contained.
    pub applied: Lsn,
}

impl Positions {
    pub fn of(data: &StreamData) -> Positions {
        Positions {
            first_seq: data.first_seq,
            last_seq: data.last_seq,
            last_ts: data.last_ts,
            msgs: data.msgs,
            bytes: data.bytes,
            age_cursor: data.age_cursor,
            ids_floor: data.ids_floor,
            ids_seed: data.ids_seed,
            last_msg_id: data.last_msg_id.clone(),
            applied: data.last_lsn,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        for number in [
            self.first_seq,
            self.last_seq,
            self.msgs,
            self.bytes,
            self.applied.0,
            self.age_cursor,
        ] {
            varint::encode(number, &mut out);
        }
        out.push(u8::from(self.last_ts.is_some()));
        out.extend_from_slice(&self.last_ts.unwrap_or_default().0.to_le_bytes());
        out.extend_from_slice(&self.ids_floor.seq.0.to_le_bytes());
        out.extend_from_slice(&self.ids_floor.ts.0.to_le_bytes());
        out.extend_from_slice(&self.ids_seed.to_le_bytes());
        out.extend_from_slice(&self.last_msg_id);
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Positions, FormatError> {
        let mut input = Cursor::new(bytes);
        version(&mut input, "stream positions")?;
        let first_seq = input.varint()?;
        let last_seq = input.varint()?;
        let msgs = input.varint()?;
        let bytes = input.varint()?;
        let applied = Lsn(input.varint()?);
        let age_cursor = input.varint()?;
        let has_ts = input.u8()? != 0;
        let ts = TimestampNs(input.i64()?);
        let ids_floor = IdFloor {
            seq: Seq(input.u64()?),
            ts: TimestampNs(input.i64()?),
        };
        let ids_seed = input.u64()?;
        if first_seq == 0 || first_seq > last_seq.saturating_add(1) {
            return Err(FormatError::OutOfRange {
                what: "stream positions",
            });
        }
        Ok(Positions {
            first_seq,
            last_seq,
            last_ts: has_ts.then_some(ts),
            msgs,
            bytes,
            age_cursor,
            ids_floor,
            ids_seed,
            last_msg_id: input.rest().to_vec(),
            applied,
        })
    }

    /// Puts the positions into a fresh state.
    pub fn restore(self, data: &mut StreamData) {
        data.first_seq = self.first_seq;
        data.last_seq = self.last_seq;
        data.last_ts = self.last_ts;
        data.msgs = self.msgs;
        data.bytes = self.bytes;
        data.age_cursor = self.age_cursor;
        data.ids_floor = self.ids_floor;
        data.ids_seed = self.ids_seed;
        data.last_msg_id = self.last_msg_id;
        data.last_lsn = self.applied;
        data.tail = super::tail::Tail::starting_at(crate::ids::Seq(self.last_seq + 1));
    }
}

fn version(input: &mut Cursor<'_>, what: &'static str) -> Result<(), FormatError> {
    match input.u8()? {
        VERSION => Ok(()),
        found => Err(FormatError::UnknownKind { what, found }),
    }
}

/// Marks of a consumer's stored value.
const CONFIG_ONLY: u8 = 0;
const WITH_STATE: u8 = 1;
const HEAD: u8 = 2;

/// The value of a checkpoint: configuration, positions and the log position they contain. The
/// containers have values of their own.
pub(crate) fn put_consumer_head(
    state: &ConsumerState,
    created: TimestampNs,
    applied: Lsn,
    out: &mut Vec<u8>,
) {
    out.push(HEAD);
    put_config(state.config(), out);
    out.extend_from_slice(&created.0.to_le_bytes());
    varint::encode(applied.0, out);
    state.encode_head(out);
}

/// The value of a creation: configuration and the whole state.
pub(crate) fn put_consumer_creation(state: &ConsumerState, out: &mut Vec<u8>) {
    out.push(WITH_STATE);
    put_config(state.config(), out);
    state.encode_snapshot(out);
}

/// The value of a changed configuration.
pub(crate) fn put_consumer_config(config: &ConsumerConfig, out: &mut Vec<u8>) {
    out.push(CONFIG_ONLY);
    put_config(config, out);
}

fn put_config(config: &ConsumerConfig, out: &mut Vec<u8>) {
    let mut encoded = Vec::new();
    config.encode(&mut encoded);
    varint::encode(encoded.len() as u64, out);
    out.extend_from_slice(&encoded);
}

/// A consumer's stored value.
pub(crate) enum StoredConsumer {
    /// Configuration and whole state.
    Whole(Box<ConsumerState>),
    /// Configuration and positions, time of creation, and the log position they contain. The
    /// containers follow.
    Head(Box<ConsumerState>, TimestampNs, Lsn),
    /// A new configuration for a consumer that exists.
    Config(ConsumerConfig),
}

/// Reads a consumer's stored value.
pub(crate) fn get_consumer(bytes: &[u8]) -> Result<StoredConsumer, FormatError> {
    let unreadable = |_| FormatError::OutOfRange { what: "consumer" };
    let mut input = Cursor::new(bytes);
    let kind = input.u8()?;
    let config = ConsumerConfig::decode(input.sized_bytes()?).map_err(unreadable)?;
    match kind {
        CONFIG_ONLY => Ok(StoredConsumer::Config(config)),
        WITH_STATE => {
            let state = ConsumerState::decode_snapshot(config, input.rest()).map_err(unreadable)?;
            Ok(StoredConsumer::Whole(Box::new(state)))
        }
        HEAD => {
            let created = TimestampNs(input.i64()?);
            let applied = Lsn(input.varint()?);
            let state = ConsumerState::decode_head(config, input.rest()).map_err(unreadable)?;
            Ok(StoredConsumer::Head(Box::new(state), created, applied))
        }
        found => Err(FormatError::UnknownKind {
            what: "consumer",
            found,
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn positions_come_back(
            numbers: [u32; 6],
            ts: Option<i64>,
            ids: (i64, u64, u64),
            last_msg_id: Vec<u8>,
        ) {
            let [gap, last, msgs, bytes, applied, age_cursor] = numbers.map(u64::from);
            let positions = Positions {
                first_seq: (last + 1).saturating_sub(gap).max(1),
                last_seq: last,
                last_ts: ts.map(TimestampNs),
                ids_floor: IdFloor { seq: Seq(ids.1), ts: TimestampNs(ids.0) },
                ids_seed: ids.2,
                msgs,
                bytes,
                age_cursor,
                last_msg_id,
                applied: Lsn(applied),
            };
            prop_assert_eq!(Positions::decode(&positions.encode()), Ok(positions));
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Positions::decode(&bytes);
            let _ = get_consumer(&bytes);
        }
    }
}
