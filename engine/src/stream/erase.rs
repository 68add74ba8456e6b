//! Secure erase: a removal whose bytes leave the disk by a deadline.
//!
//! The removal takes effect at once. Its bytes are then in sealed files, which maintenance rewrites
//! without them, and in the log, whose files it removes instead of using them again. Until all of
//! them are gone the erasure is pending; it is logged and kept by checkpoints, so a restart goes on
//! with it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::core::StreamCore;
use super::types::ChangeError;
use crate::format::cursor::Cursor;
use crate::format::op::{Op, SeqRange};
use crate::format::{FormatError, varint};
use crate::ids::{Lsn, Seq, TimestampNs};
use crate::stream::state::StreamData;

/// Rounds of upkeep that [`Erasure::wait`] runs itself in manual mode.
const ROUNDS_MAX: u32 = 1_000;
/// Longest sleep of [`Erasure::wait`] before it looks whether the store stopped.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// An erasure that is not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    pub seq: u64,
    /// Position of the erasure; the message was logged before it.
    pub lsn: Lsn,
    pub deadline: TimestampNs,
}

/// A stream's erasures that are not complete.
#[derive(Debug, Default)]
pub(crate) struct Erasures {
    pending: Vec<Pending>,
    dirty: bool,
}

impl Erasures {
    pub fn add(&mut self, pending: Pending) {
        self.pending.push(pending);
        self.dirty = true;
    }

    pub fn iter(&self) -> impl Iterator<Item = &Pending> {
        self.pending.iter()
    }

    pub fn contains(&self, seq: u64) -> bool {
        self.pending.iter().any(|pending| pending.seq == seq)
    }

    /// Forgets what is complete; returns how many that were.
    pub fn remove(&mut self, done: &[u64]) -> u64 {
        let before = self.pending.len();
        self.pending.retain(|pending| !done.contains(&pending.seq));
        (before - self.pending.len()) as u64
    }

    /// Forgets all; returns how many that were.
    pub fn clear(&mut self) -> u64 {
        std::mem::take(&mut self.pending).len() as u64
    }

    pub fn mark_dirty(&mut self) {
        self.dirty = true;
    }

    /// The stored form, if it changed since the last call; empty when nothing is pending.
    pub fn take_dirty(&mut self) -> Option<Vec<u8>> {
        std::mem::take(&mut self.dirty).then(|| self.encode(&[]))
    }

    /// The stored form without what is `done`; empty when nothing is pending.
    pub fn encode(&self, done: &[u64]) -> Vec<u8> {
        let mut out = Vec::new();
        for pending in self.pending.iter().filter(|p| !done.contains(&p.seq)) {
            varint::encode(pending.seq, &mut out);
            varint::encode(pending.lsn.0, &mut out);
            out.extend_from_slice(&pending.deadline.0.to_le_bytes());
        }
        out
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Erasures, FormatError> {
        let mut input = Cursor::new(bytes);
        let mut erasures = Erasures::default();
        while !input.rest().is_empty() {
            erasures.pending.push(Pending {
                seq: input.varint()?,
                lsn: Lsn(input.varint()?),
                deadline: TimestampNs(input.i64()?),
            });
        }
        Ok(erasures)
    }
}

/// How many erasures a store has pending, and who waits for them.
#[derive(Debug, Default)]
pub(crate) struct ErasureCount {
    pending: AtomicU64,
    /// Raised when some are complete. A leaf in the order of locks.
    completions: Mutex<u64>,
    fewer: Condvar,
}

impl ErasureCount {
    pub fn add(&self, count: u64) {
        self.pending.fetch_add(count, Ordering::AcqRel);
    }

    pub fn remove(&self, count: u64) {
        if count > 0 {
            self.pending.fetch_sub(count, Ordering::AcqRel);
            *self.lock() += 1;
            self.fewer.notify_all();
        }
    }

    pub fn get(&self) -> u64 {
        self.pending.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.completions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until some are complete since there were `seen` completions, at most `timeout`.
    fn wait(&self, seen: u64, timeout: Duration) {
        let waited = self
            .fewer
            .wait_timeout_while(self.lock(), timeout, |completions| *completions == seen);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl StreamData {
    /// Removes a message whose bytes must leave the disk.
    pub fn apply_erase(&mut self, bytes: u64, pending: Pending) {
        let range = SeqRange {
            first: Seq(pending.seq),
            count: 1,
        };
        self.apply_remove(&[range], bytes);
        self.erasures.add(pending);
    }
}

impl StreamCore {
    /// See [`crate::Stream::erase`].
    pub fn erase(
        self: &Arc<Self>,
        seq: u64,
        within: Duration,
    ) -> Result<Option<Erasure>, ChangeError> {
        let Some(size) = self.size_to_remove(seq)? else {
            return Ok(None);
        };
        let bytes = u64::from(size);
        let within = i64::try_from(within.as_nanos()).unwrap_or(i64::MAX);
        let now = self.shared.env.clock.now_ns();
        let deadline = TimestampNs(now.saturating_add(within));
        let mut data = self.lock();
        if !data.is_live(seq) {
            return Ok(None);
        }
        let op = Op::Erase {
            stream: self.id,
            seq: Seq(seq),
            bytes,
            deadline,
        };
        let lsn = self.log(&mut data, &op)?;
        let pending = Pending { seq, lsn, deadline };
        let ram_before = data.tail_ram();
        if self.is_file() {
            data.apply_erase(bytes, pending);
            self.shared.erasures.add(1);
        } else {
            let (first, count) = (Seq(seq), 1);
            data.apply_remove(&[SeqRange { first, count }], bytes);
        }
        self.settle(&mut data, ram_before);
        drop(data);
        // Maintenance has to know the deadline.
        self.shared.wake.ask();
        Ok(Some(Erasure {
            core: self.clone(),
            pending,
        }))
    }
}

/// A message that is removed and whose bytes are on their way off the disk.
#[derive(Clone)]
pub struct Erasure {
    core: Arc<StreamCore>,
    pending: Pending,
}

impl Erasure {
    /// The removal is durable when the store's durable position reaches this.
    pub fn lsn(&self) -> Lsn {
        self.pending.lsn
    }

    /// When the bytes are to be gone.
    pub fn deadline(&self) -> TimestampNs {
        self.pending.deadline
    }

    /// True when the message's bytes are in no file of the store any more.
    pub fn is_complete(&self) -> bool {
        !self.core.lock().erasures.contains(self.pending.seq)
    }

    /// Waits until the erasure is complete, at most `timeout`; says whether it is.
    pub fn wait(&self, timeout: Duration) -> bool {
        let shared = &self.core.shared;
        if shared.is_pumped() {
            for _ in 0..ROUNDS_MAX {
                if self.is_complete() {
                    return true;
                }
                shared.make_room();
            }
            return self.is_complete();
        }
        let clock = &shared.env.clock;
        let timeout = i64::try_from(timeout.as_nanos()).unwrap_or(i64::MAX);
        let end = clock.now_ns().saturating_add(timeout);
        loop {
            let seen = *shared.erasures.lock();
            if self.is_complete() || shared.queue.stopped().is_some() {
                return self.is_complete();
            }
            let Ok(left @ 1..) = u64::try_from(end.saturating_sub(clock.now_ns())) else {
                return false;
            };
            // A store that stops does not say so here.
            let left = Duration::from_nanos(left).min(WAIT_MAX);
            shared.erasures.wait(seen, left);
        }
    }
}

impl std::fmt::Debug for Erasure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Erasure")
            .field("stream", &self.core.name)
            .field("seq", &self.pending.seq)
            .field("deadline", &self.pending.deadline)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn erasures_come_back(numbers: Vec<(u64, u64, i64)>) {
            let mut erasures = Erasures::default();
            for (seq, lsn, deadline) in numbers {
                let (lsn, deadline) = (Lsn(lsn), TimestampNs(deadline));
                erasures.add(Pending { seq, lsn, deadline });
            }
            let stored = erasures.take_dirty().unwrap_or_default();
            let read = Erasures::decode(&stored).expect("as it was written");
            prop_assert_eq!(read.pending, erasures.pending);
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Erasures::decode(&bytes);
        }
    }
}
