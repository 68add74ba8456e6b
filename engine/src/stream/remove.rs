//! Removal: single messages, purges, and limits that became stricter.

use std::borrow::Cow;
use std::ops::ControlFlow;

use super::core::{StreamCore, ranges_of};
use super::state::{StreamData, TailRam};
use super::types::{ChangeError, PurgeRequest};
use crate::config::{ConfigError, Discard};
use crate::error::ReadError;
use crate::format::op::Op;
use crate::ids::{Lsn, Seq};
use crate::invariants;
use crate::limits::FIRST_SEQ_MAX;
use crate::subject::Filter;

/// Messages removed per hold of the lock.
const STEP: usize = 4096;

/// Messages removed as one unit, where a request removes more.
const REMOVE_STEP: usize = 1 << 16;

/// What a removal did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Messages removed.
    pub msgs: u64,
    /// Durable when the store's durable position reaches this.
    pub lsn: Lsn,
}

impl StreamCore {
    /// Removes one message; `None` when there is no such live message.
    pub fn delete(&self, seq: u64) -> Result<Option<Removed>, ChangeError> {
        let Some(size) = self.size_to_remove(seq)? else {
            return Ok(None);
        };
        let removed = self.remove(vec![(seq, size)])?;
        Ok((removed.msgs > 0).then_some(removed))
    }

    /// Accounted size of a live message; `None` when there is no such one.
    pub(super) fn size_to_remove(&self, seq: u64) -> Result<Option<u32>, ChangeError> {
        let known = {
            let data = self.lock();
            if !data.is_live(seq) {
                return Ok(None);
            }
            data.size_at(seq)
        };
        if let Some(size) = known {
            return Ok(Some(size));
        }
        match self.get(seq) {
            // Removing it is how damage is cleared away.
            Err(ReadError::Corrupt(damage)) => match self.size_of_damaged(&damage, seq) {
                Some(size) => Ok(Some(size)),
                None => Err(ReadError::Corrupt(damage).into()),
            },
            Err(error) => Err(error.into()),
            Ok(Some(message)) => {
                let layout = message.layout();
                let size = self.lock().size_of(
                    layout.subject as usize,
                    layout.headers as usize,
                    layout.payload as usize,
                );
                Ok(Some(u32::try_from(size).unwrap_or(u32::MAX)))
            }
            Ok(None) => Ok(None),
        }
    }

    /// Removes what is still live of `victims` (sequence, accounted size) as one unit.
    pub fn remove(&self, mut victims: Vec<(u64, u32)>) -> Result<Removed, ChangeError> {
        let mut ranges = Vec::new();
        let mut data = self.lock();
        victims.retain(|(seq, _)| data.is_live(*seq));
        if victims.is_empty() {
            return Ok(Removed {
                msgs: 0,
                lsn: data.last_lsn,
            });
        }
        let bytes = ranges_of(&mut victims, &mut ranges);
        let msgs = victims.len() as u64;
        let op = Op::Remove {
            stream: self.id,
            ranges: Cow::Borrowed(&ranges),
            msgs,
            bytes,
        };
        let lsn = self.log(&mut data, &op)?;
        let ram_before = data.tail_ram();
        data.apply_remove(&ranges, bytes);
        self.settle(&mut data, ram_before);
        Ok(Removed { msgs, lsn })
    }

    pub(super) fn settle(&self, data: &mut StreamData, ram_before: TailRam) {
        let first = data.first_seq;
        data.front.advance(first);
        invariants::debug_check(data);
        if self.is_file() {
            self.shared.space_changed();
        }
        self.shared.tail_ram_changed(ram_before, data.tail_ram());
    }

    /// Removes messages by filter, position or count.
    pub fn purge(&self, request: &PurgeRequest) -> Result<Removed, ChangeError> {
        let below = request.below.map_or(u64::MAX, |seq| seq.0);
        if request.below.is_some() && below > FIRST_SEQ_MAX {
            return Err(ConfigError::Invalid("the sequence to purge below is too large").into());
        }
        if request.filter.is_none()
            && request.keep.unwrap_or(0) == 0
            && let Some(removed) = self.trim_all(request.below)?
        {
            return Ok(removed);
        }
        let filter = request.filter.clone().unwrap_or_else(Filter::all);
        if filter.is_all() && request.keep.is_none() {
            return self.remove_front(&mut |_, _, seq| seq >= below);
        }
        let below = match request.keep {
            Some(keep) => self.start_of_newest(&filter, below, keep)?,
            None => below,
        };
        let mut wanted = |seq: u64, _: &[u8]| seq < below;
        self.remove_of_subjects(&filter, &mut wanted)
    }

    /// The sequence from which on up to `keep` live messages below `below` match.
    fn start_of_newest(&self, filter: &Filter, below: u64, keep: u64) -> Result<u64, ReadError> {
        let filter = std::slice::from_ref(filter);
        let (first, last) = {
            let data = self.lock();
            (data.first_seq, data.last_seq.min(below.saturating_sub(1)))
        };
        let (mut low, mut high) = (first, last.saturating_add(1));
        // From `high` on at most `keep` match; halve towards the first such sequence.
        while low < high {
            let middle = low + (high - low) / 2;
            if self.count_matching(filter, middle, last)? <= keep {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(high)
    }

    /// Removes the live messages that match and are `unwanted`, some at a time, as they are found
    /// subject by subject. After a failure or a crash in between a part of them is removed.
    pub(super) fn remove_of_subjects(
        &self,
        filter: &Filter,
        unwanted: &mut dyn FnMut(u64, &[u8]) -> bool,
    ) -> Result<Removed, ChangeError> {
        self.with_index(&mut |layout| self.check_whole(layout))?;
        let mut removal = Removal::new(self);
        let walked = self.walk_subjects(filter, &mut |subject| {
            subject.live(&mut |live| {
                let live = live.iter().copied();
                removal.extend(live.filter(|(seq, _)| unwanted(*seq, subject.name())))
            })?;
            Ok(removal.flow())
        });
        removal.finish(walked)
    }

    /// Removes everything. A position behind the end also moves the end (T-05); `None` when it is
    /// not behind the end.
    fn trim_all(&self, below: Option<Seq>) -> Result<Option<Removed>, ChangeError> {
        let mut data = self.lock();
        if below.is_some_and(|below| below.0 <= data.last_seq) {
            return Ok(None);
        }
        let first_seq = (data.last_seq + 1).max(below.map_or(0, |seq| seq.0));
        let (msgs, bytes) = (data.msgs, data.bytes);
        if first_seq == data.first_seq {
            return Ok(Some(Removed {
                msgs: 0,
                lsn: data.last_lsn,
            }));
        }
        let op = Op::Trim {
            stream: self.id,
            first_seq: Seq(first_seq),
            msgs,
            bytes,
        };
        let lsn = self.log(&mut data, &op)?;
        let ram_before = data.tail_ram();
        data.apply_trim(first_seq, bytes);
        self.settle(&mut data, ram_before);
        if !self.is_file() {
            self.gate.raise(Seq(data.last_seq));
        }
        Ok(Some(Removed { msgs, lsn }))
    }

    /// Removes what a stricter configuration does not allow any more (T-12). With discard new only
    /// the limit per subject is applied to stored messages.
    pub fn enforce_limits(&self) -> Result<(), ChangeError> {
        let (per_subject, discard) = {
            let data = self.lock();
            (data.config.msgs_per_subject_max, data.config.discard)
        };
        if let Some(max) = per_subject {
            self.enforce_per_subject(max)?;
        }
        if discard == Discard::Old {
            self.enforce_totals()?;
        }
        Ok(())
    }

    fn enforce_per_subject(&self, max: u64) -> Result<(), ChangeError> {
        self.with_index(&mut |layout| self.check_whole(layout))?;
        let mut removal = Removal::new(self);
        let walked = self.walk_subjects(&Filter::all(), &mut |subject| {
            let mut surplus = subject.count(u64::MAX)?.saturating_sub(max);
            if surplus > 0 {
                subject.live(&mut |live| {
                    let take = live
                        .len()
                        .min(usize::try_from(surplus).unwrap_or(usize::MAX));
                    surplus -= take as u64;
                    match removal.extend(live.iter().copied().take(take)) {
                        ControlFlow::Continue(()) if surplus > 0 => ControlFlow::Continue(()),
                        _ => ControlFlow::Break(()),
                    }
                })?;
            }
            Ok(removal.flow())
        });
        removal.finish(walked).map(|_| ())
    }

    pub(super) fn enforce_totals(&self) -> Result<(), ChangeError> {
        let (msgs_max, bytes_max) = {
            let data = self.lock();
            let config = &data.config;
            (
                config.msgs_max.unwrap_or(u64::MAX),
                config.bytes_max.unwrap_or(u64::MAX),
            )
        };
        self.remove_front(&mut |msgs, bytes, _| msgs <= msgs_max && bytes <= bytes_max)
            .map(|_| ())
    }

    /// Removes the oldest messages until `done` says so of what is left: number of messages, their
    /// bytes, and the first sequence. Up to [`STEP`] messages leave as one unit or, if one of them
    /// cannot be read, not at all.
    fn remove_front(
        &self,
        done: &mut dyn FnMut(u64, u64, u64) -> bool,
    ) -> Result<Removed, ChangeError> {
        let mut total = Removed {
            msgs: 0,
            lsn: self.lock().last_lsn,
        };
        let mut victims = Vec::new();
        loop {
            let missing = self.front_victims(&mut victims, done);
            if let Some(seq) = missing
                && victims.len() < STEP
            {
                self.load_front(seq)?;
                continue;
            }
            if victims.is_empty() {
                return Ok(total);
            }
            let removed = self.remove(std::mem::take(&mut victims))?;
            total.msgs += removed.msgs;
            total.lsn = removed.lsn;
        }
    }

    /// Adds to `victims`, oldest messages with their sizes, until `done` or [`STEP`] of them are
    /// there. Returns a message whose size has to be loaded first.
    fn front_victims(
        &self,
        victims: &mut Vec<(u64, u32)>,
        done: &mut dyn FnMut(u64, u64, u64) -> bool,
    ) -> Option<u64> {
        let data = self.lock();
        victims.retain(|(seq, _)| data.is_live(*seq));
        let held: u64 = victims.iter().map(|(_, size)| u64::from(*size)).sum();
        let mut msgs = data.msgs - victims.len() as u64;
        let mut bytes = data.bytes.saturating_sub(held);
        // What others removed meanwhile need not leave here.
        while let Some((seq, size)) = victims.last().copied()
            && done(msgs + 1, bytes + u64::from(size), seq)
        {
            victims.pop();
            msgs += 1;
            bytes += u64::from(size);
        }
        let from = victims.last().map_or(data.first_seq, |(seq, _)| seq + 1);
        let mut seq = data.tombstones.next_live(from);
        while msgs > 0 && !done(msgs, bytes, seq) && victims.len() < STEP {
            let Some(size) = data.size_at(seq) else {
                return Some(seq);
            };
            victims.push((seq, size));
            msgs -= 1;
            bytes = bytes.saturating_sub(u64::from(size));
            seq = data.tombstones.next_live(seq + 1);
        }
        None
    }
}

/// Messages that are removed as they are found, some at a time.
struct Removal<'c> {
    core: &'c StreamCore,
    victims: Vec<(u64, u32)>,
    removed: Removed,
    failure: Option<ChangeError>,
}

impl<'c> Removal<'c> {
    fn new(core: &'c StreamCore) -> Removal<'c> {
        Removal {
            core,
            victims: Vec::new(),
            removed: Removed {
                msgs: 0,
                lsn: core.lock().last_lsn,
            },
            failure: None,
        }
    }

    fn flow(&self) -> ControlFlow<()> {
        match self.failure.is_some() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    /// Adds messages; removes all so far when they are many.
    fn extend(&mut self, victims: impl Iterator<Item = (u64, u32)>) -> ControlFlow<()> {
        self.victims.extend(victims);
        if self.victims.len() >= REMOVE_STEP {
            self.remove();
        }
        self.flow()
    }

    fn remove(&mut self) {
        match self.core.remove(std::mem::take(&mut self.victims)) {
            Ok(removed) => {
                self.removed.msgs += removed.msgs;
                self.removed.lsn = removed.lsn;
            }
            Err(error) => self.failure = Some(error),
        }
    }

    /// Removes the rest, if all were found.
    fn finish(mut self, found: Result<(), ReadError>) -> Result<Removed, ChangeError> {
        found?;
        if self.failure.is_none() {
            self.remove();
        }
        match self.failure {
            Some(error) => Err(error),
            None => Ok(self.removed),
        }
    }
}

impl From<ChangeError> for ReadError {
    fn from(error: ChangeError) -> ReadError {
        match error {
            ChangeError::Read(error) => error,
            other => ReadError::io("", std::io::Error::other(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::StreamConfig;
    use crate::io::Env;
    use crate::io::sim::{SimClock, SimDisk};
    use crate::store::{Store, StoreOptions, Threads};
    use crate::stream::Append;

    /// Messages that arrive between the question what to purge and the purge stay.
    #[test]
    fn a_position_that_the_stream_has_passed_is_not_a_purge_of_everything() {
        let env = Env::simulated(&SimDisk::new(1), &SimClock::new(1), 1);
        let options = StoreOptions {
            threads: Threads::Manual,
            ..StoreOptions::default()
        };
        let (store, _) = Store::open_in(env, Path::new("/data"), options).expect("a store");
        let config = StreamConfig {
            name: "S".into(),
            ..StreamConfig::default()
        };
        let (stream, _) = store.create_stream(config).expect("a stream");
        for _ in 0..3 {
            let append = Append {
                subject: b"s",
                ..Append::default()
            };
            stream.append_nosync(&append).expect("accepted");
        }
        let removed = stream.core.trim_all(Some(Seq(3))).expect("logged");
        assert_eq!(removed, None);
        assert_eq!(stream.state().msgs, 3);
        let removed = stream.core.trim_all(Some(Seq(4))).expect("logged");
        assert_eq!(removed.map(|removed| removed.msgs), Some(3));
    }
}
