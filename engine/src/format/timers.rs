//! Timer pages: which messages of a segment are due when.
//!
//! Timers are sorted by stream, kind, due time and sequence. A page holds runs: `stream~ kind1
//! count~ due8 seq~ size~`, then for each further timer of the run `due_step~ seq_step~ size~`
//! (`~`: variable-length integer; `seq_step` is zigzag). A run has the timers of one kind of one
//! stream; the next page goes on with a run of its own. A separator repeats the first timer of a
//! page.

use super::block_table::Entry;
use super::cursor::Cursor;
use super::page::PAYLOAD_BYTES_MAX;
use super::{FormatError, varint};
use crate::ids::{Seq, StreamId, TimestampNs};

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TimerKind {
    /// The message expires.
    Expiry = 1,
    /// The message is to be reported.
    Notice = 2,
}

impl TimerKind {
    fn from_byte(found: u8) -> Result<TimerKind, FormatError> {
        match found {
            1 => Ok(TimerKind::Expiry),
            2 => Ok(TimerKind::Notice),
            found => Err(FormatError::UnknownKind {
                what: "timer",
                found,
            }),
        }
    }
}

/// Something that is due for one message. The order of the fields is that of the section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timer {
    /// The message's stream.
    pub stream: StreamId,
    /// What is due.
    pub kind: TimerKind,
    /// When.
    pub due: TimestampNs,
    /// The message.
    pub seq: Seq,
    /// Its accounted size in bytes, see [`crate::limits::accounted_bytes`].
    pub size: u32,
}

/// Position of a timer in the order of the section.
pub type TimerKey = (StreamId, TimerKind, TimestampNs, Seq);

impl Timer {
    /// Position in the order of the section.
    pub fn key(&self) -> TimerKey {
        (self.stream, self.kind, self.due, self.seq)
    }
}

/// The first timer of a page: `stream8 kind1 due8 seq8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerSeparator(pub TimerKey);

impl Entry for TimerSeparator {
    const BYTES: usize = 25;

    fn encode(&self, out: &mut Vec<u8>) {
        let (stream, kind, due, seq) = self.0;
        out.extend_from_slice(&stream.0.to_le_bytes());
        out.push(kind as u8);
        out.extend_from_slice(&due.0.to_le_bytes());
        out.extend_from_slice(&seq.0.to_le_bytes());
    }

    fn decode(input: &[u8]) -> Result<TimerSeparator, FormatError> {
        let mut cursor = Cursor::new(input);
        Ok(TimerSeparator((
            StreamId(cursor.u64()?),
            TimerKind::from_byte(cursor.u8()?)?,
            TimestampNs(cursor.i64()?),
            Seq(cursor.u64()?),
        )))
    }
}

/// How many of the pages of a timer section are separators; they come behind the timer pages.
pub fn separator_pages(section_pages: u32) -> u32 {
    section_pages.div_ceil(TimerSeparator::PER_PAGE as u32 + 1)
}

/// Most bytes of a run's head, and of one further timer.
const RUN_HEAD_BYTES_MAX: usize = 3 * varint::BYTES_MAX + 1 + 8 + 2 + 5;
const STEP_BYTES_MAX: usize = 2 * varint::BYTES_MAX + 5;

/// Collects the payload of one page.
#[derive(Debug, Default)]
pub struct TimerPageBuilder {
    payload: Vec<u8>,
    /// First timer of the open run, and how many follow it.
    run: Option<(Timer, u64)>,
    last: Option<Timer>,
    /// Encoded timers of the open run behind the first.
    steps: Vec<u8>,
    first: Option<TimerKey>,
}

impl TimerPageBuilder {
    /// Adds a timer, which must not sort before the last one. False if the page is full.
    pub fn push(&mut self, timer: &Timer) -> bool {
        debug_assert!(self.last.is_none_or(|last| last.key() <= timer.key()));
        let open = if self.run.is_some() {
            RUN_HEAD_BYTES_MAX + self.steps.len()
        } else {
            0
        };
        if self.payload.len() + open + RUN_HEAD_BYTES_MAX.max(STEP_BYTES_MAX) > PAYLOAD_BYTES_MAX {
            return false;
        }
        let last = self.last.replace(*timer);
        self.first.get_or_insert(timer.key());
        match (&mut self.run, last) {
            (Some((first, further)), Some(last))
                if (first.stream, first.kind) == (timer.stream, timer.kind) =>
            {
                let due_step = timer.due.0.wrapping_sub(last.due.0) as u64;
                let seq_step = timer.seq.0.wrapping_sub(last.seq.0) as i64;
                varint::encode(due_step, &mut self.steps);
                varint::encode(varint::zigzag(seq_step), &mut self.steps);
                varint::encode(u64::from(timer.size), &mut self.steps);
                *further += 1;
            }
            _ => {
                self.end_run();
                self.run = Some((*timer, 0));
            }
        }
        true
    }

    fn end_run(&mut self) {
        let Some((first, further)) = self.run.take() else {
            return;
        };
        let out = &mut self.payload;
        varint::encode(first.stream.0, out);
        out.push(first.kind as u8);
        varint::encode(further + 1, out);
        out.extend_from_slice(&first.due.0.to_le_bytes());
        varint::encode(first.seq.0, out);
        varint::encode(u64::from(first.size), out);
        out.append(&mut self.steps);
    }

    /// The payload and its separator; the builder is empty afterwards. `None` without a timer.
    pub fn finish(&mut self) -> Option<(Vec<u8>, TimerSeparator)> {
        self.end_run();
        self.last = None;
        let first = self.first.take()?;
        Some((std::mem::take(&mut self.payload), TimerSeparator(first)))
    }
}

/// Decodes the payload of a timer page. The timers ascend.
pub fn decode_page(payload: &[u8]) -> Result<Vec<Timer>, FormatError> {
    let mut input = Cursor::new(payload);
    let mut timers: Vec<Timer> = Vec::new();
    while !input.rest().is_empty() {
        let stream = StreamId(input.varint()?);
        let kind = TimerKind::from_byte(input.u8()?)?;
        let count = input.varint()?;
        let mut timer = Timer {
            stream,
            kind,
            due: TimestampNs(input.i64()?),
            seq: Seq(input.varint()?),
            size: size(&mut input)?,
        };
        push_ascending(&mut timers, timer)?;
        // Every further timer takes bytes: the payload bounds the loop.
        for _ in 1..count {
            let due_step = input.varint()? as i64;
            timer.due = TimestampNs(timer.due.0.wrapping_add(due_step));
            let seq_step = varint::unzigzag(input.varint()?);
            timer.seq = Seq(timer.seq.0.wrapping_add_signed(seq_step));
            timer.size = size(&mut input)?;
            push_ascending(&mut timers, timer)?;
        }
    }
    Ok(timers)
}

const OUT_OF_ORDER: FormatError = FormatError::OutOfRange {
    what: "order of timers",
};

fn size(input: &mut Cursor<'_>) -> Result<u32, FormatError> {
    u32::try_from(input.varint()?).map_err(|_| FormatError::OutOfRange {
        what: "size of a timer's message",
    })
}

fn push_ascending(timers: &mut Vec<Timer>, timer: Timer) -> Result<(), FormatError> {
    if timers.last().is_some_and(|last| last.key() >= timer.key()) {
        return Err(OUT_OF_ORDER);
    }
    timers.push(timer);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn timer(stream: u64, kind: TimerKind, due: i64, seq: u64) -> Timer {
        Timer {
            stream: StreamId(stream),
            kind,
            due: TimestampNs(due),
            seq: Seq(seq),
            size: (seq % 70_000) as u32,
        }
    }

    fn pages(timers: &[Timer]) -> Vec<(Vec<u8>, TimerSeparator)> {
        let mut builder = TimerPageBuilder::default();
        let mut pages = Vec::new();
        for timer in timers {
            if !builder.push(timer) {
                pages.extend(builder.finish());
                assert!(builder.push(timer), "an empty page has room");
            }
        }
        pages.extend(builder.finish());
        pages
    }

    fn any_timers() -> impl Strategy<Value = Vec<Timer>> {
        let kind = prop_oneof![Just(TimerKind::Expiry), Just(TimerKind::Notice)];
        let due = prop_oneof![4 => 0..1_000_i64, 1 => any::<i64>()];
        let seq = prop_oneof![4 => 0..1_000_u64, 1 => any::<u64>()];
        let one = (0..4_u64, kind, due, seq).prop_map(|(s, k, d, q)| timer(s, k, d, q));
        proptest::collection::vec(one, 0..1_000).prop_map(|mut timers| {
            timers.sort_unstable();
            timers.dedup_by_key(|timer| timer.key());
            timers
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn timers_come_back(timers in any_timers()) {
            let pages = pages(&timers);
            let mut found = Vec::new();
            for (payload, separator) in &pages {
                prop_assert!(payload.len() <= PAYLOAD_BYTES_MAX);
                let decoded = decode_page(payload).expect("a page of ours");
                prop_assert_eq!(decoded.first().map(Timer::key), Some(separator.0));
                found.extend(decoded);
            }
            prop_assert_eq!(found, timers);
        }

        #[test]
        fn random_bytes_never_panic(payload: Vec<u8>) {
            _ = decode_page(&payload);
            _ = TimerSeparator::decode(&payload);
        }

        /// What a changed page decodes to still ascends.
        #[test]
        fn flipped_bits_never_panic(timers in any_timers(), bits in proptest::collection::vec(any::<prop::sample::Index>(), 1..4)) {
            for (mut payload, _) in pages(&timers).into_iter().take(1) {
                for bit in &bits {
                    let bit = bit.index(payload.len() * 8);
                    payload[bit / 8] ^= 1 << (bit % 8);
                }
                if let Ok(timers) = decode_page(&payload) {
                    prop_assert!(timers.is_sorted_by(|a, b| a.key() < b.key()));
                }
            }
        }
    }

    #[test]
    fn timers_of_one_kind_take_few_bytes() {
        let every_ms = |n: u64| timer(1, TimerKind::Expiry, n as i64 * 1_000_000, n);
        let timers: Vec<Timer> = (0..10_000).map(every_ms).collect();
        let bytes: usize = pages(&timers)
            .iter()
            .map(|(payload, _)| payload.len())
            .sum();
        assert!(bytes < timers.len() * 8, "{bytes} bytes");
    }

    #[test]
    fn separators_round_trip_and_their_pages_are_told_from_the_total() {
        let separator = TimerSeparator((StreamId(1), TimerKind::Notice, TimestampNs(-2), Seq(3)));
        let mut bytes = Vec::new();
        separator.encode(&mut bytes);
        assert_eq!(bytes.len(), TimerSeparator::BYTES);
        assert_eq!(TimerSeparator::decode(&bytes), Ok(separator));
        for timer_pages in 0..2_000_u32 {
            let separators = timer_pages.div_ceil(TimerSeparator::PER_PAGE as u32);
            assert_eq!(separator_pages(timer_pages + separators), separators);
        }
    }
}
