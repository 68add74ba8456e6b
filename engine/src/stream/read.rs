//! Reads by sequence. Positions are resolved under the lock, bytes are read without it.

use std::sync::Arc;

use super::core::StreamCore;
use super::extent::Extent;
use super::filter_set::FilterSet;
use super::place::Place;
use super::state::StreamData;
use super::types::StreamState;
use crate::error::ReadError;
use crate::ids::Seq;
use crate::message::Message;
use crate::segment::DecodedBlock;
use crate::subject::Filter;

/// Messages examined per hold of the lock, so that a long search does not stop appends.
pub(super) const SCAN_STEP: usize = 4096;

/// How often a message is looked for where the stream's files are replaced meanwhile.
const ATTEMPTS_MAX: u32 = 1_000;

/// Where a message was found.
enum Found {
    Nothing,
    InRam(Message),
    /// In a block that may hold what follows it.
    Sealed(Message, Arc<DecodedBlock>),
}

pub(super) fn extent_of(extents: &[Extent], seq: u64) -> Option<&Extent> {
    let at = extents.partition_point(|extent| extent.last < seq);
    extents.get(at).filter(|extent| extent.first <= seq)
}

impl StreamCore {
    /// The live, durable message at `seq`.
    pub fn get(&self, seq: u64) -> Result<Option<Message>, ReadError> {
        if seq > self.visible_seq() {
            return Ok(None);
        }
        self.get_admitted(seq)
    }

    /// The live message at `seq`, durable or not.
    pub(super) fn get_admitted(&self, seq: u64) -> Result<Option<Message>, ReadError> {
        Ok(match self.find(seq)? {
            Found::Nothing => None,
            Found::InRam(message) | Found::Sealed(message, _) => Some(message),
        })
    }

    /// As [`StreamCore::get`]; the block is held on to.
    fn get_at(&self, seq: u64, place: &mut Place) -> Result<Option<Message>, ReadError> {
        if seq > self.visible_seq() || !self.lock().is_live(seq) {
            return Ok(None);
        }
        if let Some(message) = place.read(seq) {
            return Ok(Some(message));
        }
        match self.find(seq)? {
            Found::Nothing => Ok(None),
            Found::InRam(message) => Ok(Some(message)),
            Found::Sealed(message, block) => {
                place.hold(block);
                Ok(Some(message))
            }
        }
    }

    fn find(&self, seq: u64) -> Result<Found, ReadError> {
        let mut read = Err(self.missing(seq));
        for _ in 0..ATTEMPTS_MAX {
            let extent = {
                let data = self.lock();
                if !data.is_live(seq) {
                    return Ok(Found::Nothing);
                }
                if let Some(message) = data.in_ram(seq) {
                    return Ok(Found::InRam(message.clone()));
                }
                match extent_of(&data.extents, seq) {
                    Some(extent) => extent.clone(),
                    None => return Err(self.missing(seq)),
                }
            };
            match extent.file.segment.covering(self.id, Seq(seq)) {
                Ok(Some(block)) => match block.get(Seq(seq)) {
                    Some(message) => return Ok(Found::Sealed(message, block)),
                    None => read = Err(self.missing(seq)),
                },
                Ok(None) => read = Err(self.missing(seq)),
                Err(error) => read = Err(error),
            }
            // The file may have been dropped because its last message was just removed, or may
            // have been replaced by another one.
            if !self.lock().is_live(seq) {
                return Ok(Found::Nothing);
            }
            if self.has_file(&extent) {
                break;
            }
        }
        read
    }

    /// The first live, durable message at or after `from` that matches any filter (all match when
    /// there is none). `place` is kept by a reader that walks along with the same filters.
    pub fn next_message(
        &self,
        filters: &[Filter],
        from: u64,
        place: &mut Place,
    ) -> Result<Option<Message>, ReadError> {
        let visible = self.visible_seq();
        let filters = match FilterSet::wants_all(filters) {
            true => &[],
            false => filters,
        };
        let mut seq = from;
        while seq <= visible {
            // Where matches are listed, those between them need no look.
            if !place.resolved.lists(seq)
                && let Some(message) = place.next_in_block(self, filters, &mut seq, visible)
            {
                place.resolved.count_found();
                return Ok(Some(message));
            }
            {
                let data = self.lock();
                seq = data.tombstones.next_live(seq.max(data.first_seq));
                if seq > visible {
                    return Ok(None);
                }
                if data.in_ram(seq).is_some() {
                    place.let_go();
                    match scan_ram(&data, filters, &mut seq, visible) {
                        Some(message) => return Ok(Some(message)),
                        None => continue,
                    }
                }
            }
            if filters.is_empty() {
                if let Some(message) = self.get_at(seq, place)? {
                    return Ok(Some(message));
                }
                continue;
            }
            if let Some(message) = self.next_sealed(filters, &mut seq, visible, place)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    /// Looks for a match in sealed data; moves `seq` on when there is none nearby.
    fn next_sealed(
        &self,
        filters: &[Filter],
        seq: &mut u64,
        visible: u64,
        place: &mut Place,
    ) -> Result<Option<Message>, ReadError> {
        if !place.resolved.covers(*seq) {
            place.resolved = self.resolve(filters, *seq, None, &place.resolved)?;
        }
        if let Some(listed) = place.resolved.listed() {
            let Some(found) = self.next_live_of(listed, *seq) else {
                *seq = place.resolved.last().saturating_add(1);
                return Ok(None);
            };
            *seq = found;
            if found > visible {
                return Ok(None);
            }
            let message = self.get_at(found, place)?;
            *seq += u64::from(message.is_none());
            return Ok(message);
        }
        match self.get_at(*seq, place) {
            Ok(Some(message)) if filters.iter().any(|f| f.matches(message.subject())) => {
                place.resolved.count_found();
                Ok(Some(message))
            }
            Ok(_) => {
                *seq += 1;
                Ok(None)
            }
            Err(ReadError::Corrupt(damage)) if place.resolved.index_knows() => {
                // Only what matches is reported.
                let last = damage.last.0.max(*seq).min(place.resolved.last());
                place.resolved = self.resolve(filters, *seq, Some(last), &place.resolved)?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn next_live_of(&self, seqs: &roaring::RoaringTreemap, from: u64) -> Option<u64> {
        let mut candidates = seqs.iter();
        candidates.advance_to(from);
        loop {
            let data = self.lock();
            for _ in 0..SCAN_STEP {
                match candidates.next() {
                    Some(seq) if data.is_live(seq) => return Some(seq),
                    Some(_) => {}
                    None => return None,
                }
            }
        }
    }

    /// Counters and positions.
    pub fn state(&self) -> StreamState {
        let mut state = {
            let data = self.lock();
            StreamState {
                msgs: data.msgs,
                bytes: data.bytes,
                first_seq: Seq(data.first_seq),
                first_ts: data
                    .in_ram(data.first_seq)
                    .map(|message| message.ts)
                    .or_else(|| data.front.get(data.first_seq).map(|entry| entry.ts)),
                last_seq: Seq(data.last_seq),
                last_ts: data.last_ts,
                deleted: data.tombstones.len(),
                consumers: 0,
            }
        };
        if state.msgs > 0 && state.first_ts.is_none() {
            // A message that cannot be read has no known time; reading it says why.
            let first = self.get_admitted(state.first_seq.0).ok().flatten();
            state.first_ts = first.map(|message| message.ts);
        }
        state.consumers = self.lock_consumers().len();
        state
    }

    /// Removed sequences between first and last, ascending, at most `max`.
    pub fn deleted(&self, max: usize) -> Vec<u64> {
        self.lock().tombstones.iter().take(max).collect()
    }
}

/// Searches the tail and the frozen tail for at most [`SCAN_STEP`] sequences; leaves `seq` where
/// the search should go on.
fn scan_ram(data: &StreamData, filters: &[Filter], seq: &mut u64, visible: u64) -> Option<Message> {
    for _ in 0..SCAN_STEP {
        if *seq > visible {
            return None;
        }
        let message = data.in_ram(*seq)?;
        let wanted = filters.is_empty() || filters.iter().any(|f| f.matches(message.subject()));
        if wanted && data.is_live(*seq) {
            return Some(message.clone());
        }
        *seq = data.tombstones.next_live(*seq + 1);
    }
    None
}
