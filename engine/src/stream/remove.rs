//! Removal: single messages, purges, and limits that became stricter.

use std::borrow::Cow;

use super::core::{StreamCore, ranges_of};
use super::state::StreamData;
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
        let ram_before = data.tail.ram_bytes();
        data.apply_remove(&ranges, bytes);
        self.settle(&mut data, ram_before);
        Ok(Removed { msgs, lsn })
    }

    pub(super) fn settle(&self, data: &mut StreamData, ram_before: u64) {
        let first = data.first_seq;
        data.front.advance(first);
        invariants::debug_check(data);
        if self.is_file() {
            self.shared.space_changed();
        }
        self.shared
            .tail_ram_changed(ram_before, data.tail.ram_bytes());
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
        let mut victims: Vec<(u64, u32)> = self
            .matching_seqs(&filter)?
            .into_values()
            .flatten()
            .collect();
        victims.retain(|(seq, _)| *seq < below);
        if let Some(keep) = request.keep {
            victims.sort_unstable();
            let keep = usize::try_from(keep).unwrap_or(usize::MAX);
            victims.truncate(victims.len().saturating_sub(keep));
        }
        self.remove(victims)
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
        let ram_before = data.tail.ram_bytes();
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
            let max = usize::try_from(max).unwrap_or(usize::MAX);
            let mut victims = Vec::new();
            for seqs in self.matching_seqs(&Filter::all())?.into_values() {
                let surplus = seqs.len().saturating_sub(max);
                victims.extend(seqs.into_iter().take(surplus));
            }
            self.remove(victims)?;
        }
        if discard == Discard::Old {
            self.enforce_totals()?;
        }
        Ok(())
    }

    pub(super) fn enforce_totals(&self) -> Result<(), ChangeError> {
        loop {
            let mut victims = Vec::new();
            let mut missing = None;
            {
                let data = self.lock();
                let msgs_max = data.config.msgs_max.unwrap_or(u64::MAX);
                let bytes_max = data.config.bytes_max.unwrap_or(u64::MAX);
                let (mut msgs, mut bytes) = (data.msgs, data.bytes);
                let mut seq = data.tombstones.next_live(data.first_seq);
                while (msgs > msgs_max || bytes > bytes_max) && victims.len() < STEP {
                    let Some(size) = data.size_at(seq) else {
                        missing = Some(seq);
                        break;
                    };
                    victims.push((seq, size));
                    msgs -= 1;
                    bytes = bytes.saturating_sub(u64::from(size));
                    seq = data.tombstones.next_live(seq + 1);
                }
            }
            let progress = !victims.is_empty();
            if progress {
                self.remove(victims)?;
            }
            match missing {
                Some(seq) => self.load_front(seq)?,
                None if progress => {}
                None => return Ok(()),
            }
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
