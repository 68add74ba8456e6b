//! Reads. Positions are resolved under the lock, bytes are read without it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use roaring::RoaringTreemap;

use super::admission::MatchedPrior;
use super::core::StreamCore;
use super::extent::{Extent, SealedFile};
use super::front::FrontEntry;
use super::prior::Prior;
use super::state::StreamData;
use super::tail::Tail;
use super::types::StreamState;
use crate::error::{Corrupt, ReadError};
use crate::ids::{SegmentId, Seq, TimestampNs};
use crate::message::Message;
use crate::subject::Filter;

/// Messages examined per hold of the lock, so that a long search does not stop appends.
const SCAN_STEP: usize = 4096;

/// Where the parts of a stream were at one moment.
struct Layout {
    extents: Arc<Vec<Extent>>,
    frozen: Option<Arc<Tail>>,
    layout_epoch: u64,
    removal_epoch: u64,
}

/// A filter resolved against one sealed file, kept by a reader that walks along.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    file: Option<SegmentId>,
    seqs: RoaringTreemap,
}

impl StreamData {
    fn layout(&self) -> Layout {
        Layout {
            extents: self.extents.clone(),
            frozen: self.frozen.clone(),
            layout_epoch: self.layout_epoch,
            removal_epoch: self.removal_epoch,
        }
    }
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
        let file = {
            let data = self.lock();
            if !data.is_live(seq) {
                return Ok(None);
            }
            if let Some(message) = data.in_ram(seq) {
                return Ok(Some(message.clone()));
            }
            match extent_of(&data.extents, seq) {
                Some(extent) => extent.file.clone(),
                None => return Err(self.missing(seq)),
            }
        };
        let read = file.segment.get(self.id, Seq(seq));
        if let Ok(Some(message)) = read {
            return Ok(Some(message));
        }
        // The file may have been dropped because its last message was just removed.
        if !self.lock().is_live(seq) {
            return Ok(None);
        }
        match read {
            Ok(_) => Err(self.missing(seq)),
            Err(error) => Err(error),
        }
    }

    /// A live sequence that no part of the stream holds: reported, never silently absent (I4).
    pub(super) fn missing(&self, seq: u64) -> ReadError {
        ReadError::Corrupt(Box::new(Corrupt {
            stream: self.id,
            first: Seq(seq),
            last: Seq(seq),
            file: self.shared.dir.clone(),
            offset: 0,
            reason: "no segment holds this sequence".into(),
        }))
    }

    /// The first live, durable message at or after `from` that matches any filter (all match when
    /// there is none), and how far the search came.
    pub fn next_message(
        &self,
        filters: &[Filter],
        from: u64,
        resolved: &mut Resolved,
    ) -> Result<Option<Message>, ReadError> {
        let visible = self.visible_seq();
        let mut seq = from;
        while seq <= visible {
            let layout = {
                let data = self.lock();
                seq = data.tombstones.next_live(seq.max(data.first_seq));
                if seq > visible {
                    return Ok(None);
                }
                if data.in_ram(seq).is_some() {
                    match scan_ram(&data, filters, &mut seq, visible) {
                        Some(message) => return Ok(Some(message)),
                        None => continue,
                    }
                }
                data.layout()
            };
            if filters.is_empty() {
                if let Some(message) = self.get(seq)? {
                    return Ok(Some(message));
                }
                continue;
            }
            let Some(extent) = extent_of(&layout.extents, seq) else {
                return Err(self.missing(seq));
            };
            if !extent.file.lost(self.id)?.is_empty() {
                // The index does not know every message: one by one, up to what is unreadable.
                let wanted = |m: &Message| filters.iter().any(|f| f.matches(m.subject()));
                match self.get(seq)? {
                    Some(message) if wanted(&message) => return Ok(Some(message)),
                    _ => seq += 1,
                }
                continue;
            }
            match self.next_in_file(filters, seq, extent, resolved)? {
                Some(found) => match self.get(found)? {
                    Some(message) => return Ok(Some(message)),
                    None => seq = found + 1,
                },
                None => seq = extent.last + 1,
            }
        }
        Ok(None)
    }

    fn next_in_file(
        &self,
        filters: &[Filter],
        from: u64,
        extent: &Extent,
        resolved: &mut Resolved,
    ) -> Result<Option<u64>, ReadError> {
        if resolved.file != Some(extent.file.id) {
            resolved.seqs = match self.resolve(filters, &extent.file) {
                Ok(seqs) => seqs,
                Err(error) if self.lists(extent) => return Err(error),
                Err(_) => return Ok(None),
            };
            resolved.file = Some(extent.file.id);
        }
        let mut candidates = resolved.seqs.iter();
        candidates.advance_to(from);
        loop {
            let data = self.lock();
            for _ in 0..SCAN_STEP {
                match candidates.next() {
                    Some(seq) if data.is_live(seq) => return Ok(Some(seq)),
                    Some(_) => {}
                    None => return Ok(None),
                }
            }
        }
    }

    /// Stored sequences of one file that match any filter.
    fn resolve(&self, filters: &[Filter], file: &SealedFile) -> Result<RoaringTreemap, ReadError> {
        let mut seqs = RoaringTreemap::new();
        for filter in filters {
            match filter.literal() {
                Some(subject) => {
                    let postings = file.of_subject(self.id, subject)?;
                    seqs.extend(postings.into_iter().map(|(seq, _)| seq));
                }
                None => {
                    for (_, postings) in file.matching(self.id, filter)? {
                        seqs.extend(postings.into_iter().map(|(seq, _)| seq));
                    }
                }
            }
        }
        Ok(seqs)
    }

    /// Number of live, durable messages at or after `from` that match any filter.
    pub fn num_pending(&self, filters: &[Filter], from: u64) -> Result<u64, ReadError> {
        let visible = self.visible_seq();
        let (layout, mut count) = {
            let data = self.lock();
            if filters.is_empty() {
                return Ok(data.live_in(from, visible));
            }
            let matches = |subject: &[u8]| filters.iter().any(|f| f.matches(subject));
            let in_ram = |tail: &Tail| -> u64 {
                tail.subjects()
                    .filter(|(subject, _)| matches(subject))
                    .flat_map(|(_, seqs)| seqs.iter())
                    .filter(|(seq, _)| *seq >= from && *seq <= visible && data.is_live(*seq))
                    .count() as u64
            };
            let count = in_ram(&data.tail) + data.frozen.as_deref().map_or(0, in_ram);
            (data.layout(), count)
        };
        for extent in layout.extents.iter().filter(|extent| extent.last >= from) {
            match self.resolve(filters, &extent.file) {
                Ok(seqs) => count += self.count_live(&seqs, from),
                Err(error) if self.lists(extent) => return Err(error),
                Err(_) => {}
            }
        }
        Ok(count)
    }

    /// An error if live messages above `seq` are missing in the index of a damaged file: an answer
    /// without them would be wrong (I4).
    fn check_whole(&self, extent: &Extent, seq: u64) -> Result<(), ReadError> {
        match self.live_loss(extent, seq)? {
            Some(damage) if self.lists(extent) => Err(ReadError::Corrupt(Box::new(damage))),
            _ => Ok(()),
        }
    }

    fn live_loss(&self, extent: &Extent, above: u64) -> Result<Option<Corrupt>, ReadError> {
        let lost = match extent.file.lost(self.id) {
            Err(_) if !self.lists(extent) => return Ok(None),
            lost => lost?,
        };
        if lost.is_empty() {
            return Ok(None);
        }
        let data = self.lock();
        let is_live = |damage: &Corrupt| {
            let first = damage.first.0.max(extent.first).max(above + 1);
            data.live_in(first, damage.last.0.min(extent.last)) > 0
        };
        Ok(lost.into_iter().find(is_live))
    }

    /// True while what `extent` holds belongs to the stream: its file is listed, or was replaced and
    /// something in it is live. Once neither is so, nobody needs to know what is wrong with it.
    pub(super) fn lists(&self, extent: &Extent) -> bool {
        let data = self.lock();
        let mut listed = data.extents.iter().map(|listed| listed.file.id);
        listed.any(|id| id == extent.file.id) || data.live_in(extent.first, extent.last) > 0
    }

    fn count_live(&self, seqs: &RoaringTreemap, from: u64) -> u64 {
        let mut candidates = seqs.iter();
        candidates.advance_to(from);
        let mut count = 0;
        loop {
            let data = self.lock();
            for _ in 0..SCAN_STEP {
                match candidates.next() {
                    Some(seq) => count += u64::from(data.is_live(seq)),
                    None => return count,
                }
            }
        }
    }

    /// The newest live, durable sequence whose subject matches.
    pub fn last_matching(&self, filter: &Filter) -> Result<Option<u64>, ReadError> {
        let visible = self.visible_seq();
        let layout = {
            let data = self.lock();
            if let Some(seq) = last_in_tail(&data, &data.tail, filter, visible) {
                return Ok(Some(seq));
            }
            data.layout()
        };
        self.last_below_tail(&layout, filter, visible)
    }

    fn last_below_tail(
        &self,
        layout: &Layout,
        filter: &Filter,
        visible: u64,
    ) -> Result<Option<u64>, ReadError> {
        if let Some(frozen) = &layout.frozen {
            let data = self.lock();
            if let Some(seq) = last_in_tail(&data, frozen, filter, visible) {
                return Ok(Some(seq));
            }
        }
        for extent in layout.extents.iter().rev() {
            let mut found = self.last_in_file(extent, filter, visible)?;
            if self.live_loss(extent, found.unwrap_or(0))?.is_some() {
                // A lost message might be the one: the index may be better now.
                extent.file.look_again()?;
                found = self.last_in_file(extent, filter, visible)?;
                self.check_whole(extent, found.unwrap_or(0))?;
            }
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn last_in_file(
        &self,
        extent: &Extent,
        filter: &Filter,
        visible: u64,
    ) -> Result<Option<u64>, ReadError> {
        let found = match filter.literal() {
            Some(subject) => {
                let wanted = |seq: u64| seq <= visible && self.lock().is_live(seq);
                extent.file.last_of_subject(self.id, subject, &wanted)
            }
            None => self
                .resolve(std::slice::from_ref(filter), &extent.file)
                .map(|seqs| {
                    let data = self.lock();
                    let wanted = |seq: &u64| *seq <= visible && data.is_live(*seq);
                    seqs.iter().rev().find(wanted)
                }),
        };
        match found {
            Err(_) if !self.lists(extent) => Ok(None),
            found => found,
        }
    }

    /// Live, durable messages per matching subject, in subject order.
    pub fn subjects(&self, filter: &Filter) -> Result<BTreeMap<Bytes, u64>, ReadError> {
        let visible = self.visible_seq();
        let mut counts: BTreeMap<Bytes, u64> = BTreeMap::new();
        for (subject, seqs) in self.matching_seqs(filter)? {
            let count = seqs.iter().filter(|(seq, _)| *seq <= visible).count() as u64;
            if count > 0 {
                counts.insert(subject, count);
            }
        }
        Ok(counts)
    }

    /// Number of subjects with live messages.
    pub fn num_subjects(&self) -> Result<u64, ReadError> {
        let epochs = {
            let data = self.lock();
            if !data.has_prior_data() {
                return Ok(data.tail.subjects().count() as u64);
            }
            (data.removal_epoch, data.last_seq)
        };
        if let Some((at, count)) = *self.lock_subject_count()
            && at == epochs
        {
            return Ok(count);
        }
        let count = self.known_seqs(&Filter::all())?.len() as u64;
        *self.lock_subject_count() = Some((epochs, count));
        Ok(count)
    }

    /// All live sequences with their accounted sizes, per matching subject, ascending.
    pub(super) fn matching_seqs(
        &self,
        filter: &Filter,
    ) -> Result<BTreeMap<Bytes, Vec<(u64, u32)>>, ReadError> {
        let extents = self.lock().extents.clone();
        for extent in extents.iter() {
            if self.live_loss(extent, 0)?.is_some() {
                extent.file.look_again()?;
                self.check_whole(extent, 0)?;
            }
        }
        self.known_seqs(filter)
    }

    /// As above, without what damage hides from the index.
    fn known_seqs(&self, filter: &Filter) -> Result<BTreeMap<Bytes, Vec<(u64, u32)>>, ReadError> {
        let mut found: BTreeMap<Bytes, Vec<(u64, u32)>> = BTreeMap::new();
        let (layout, in_tail) = {
            let data = self.lock();
            (data.layout(), live_of_tail(&data, &data.tail, filter))
        };
        for extent in layout.extents.iter() {
            let batch = match extent.file.matching(self.id, filter) {
                Ok(batch) => batch,
                Err(error) if self.lists(extent) => return Err(error),
                Err(_) => continue,
            };
            for (subject, seqs) in batch {
                let data = self.lock();
                let live = seqs.into_iter().filter(|(seq, _)| data.is_live(*seq));
                let mut live = live.peekable();
                if live.peek().is_some() {
                    found.entry(Bytes::from(subject)).or_default().extend(live);
                }
            }
        }
        if let Some(frozen) = &layout.frozen {
            let data = self.lock();
            for (subject, seqs) in live_of_tail(&data, frozen, filter) {
                found.entry(subject).or_default().extend(seqs);
            }
        }
        for (subject, seqs) in in_tail {
            found.entry(subject).or_default().extend(seqs);
        }
        Ok(found)
    }

    /// The first live, durable sequence whose time is at or after `ts`; one past the last visible
    /// sequence when there is none.
    pub fn seq_at(&self, ts: TimestampNs) -> Result<u64, ReadError> {
        loop {
            let visible = self.visible_seq();
            let layout = self.lock().layout();
            if let Some(seq) = self.seq_at_in(&layout, visible, ts)? {
                return Ok(seq);
            }
        }
    }

    /// `None` when a checkpoint moved the tail meanwhile.
    fn seq_at_in(
        &self,
        layout: &Layout,
        visible: u64,
        ts: TimestampNs,
    ) -> Result<Option<u64>, ReadError> {
        for extent in layout
            .extents
            .iter()
            .filter(|extent| extent.last_ts >= ts.0)
        {
            match extent.file.segment.first_seq_at_or_after(self.id, ts) {
                Ok(Some(seq)) => {
                    let data = self.lock();
                    let seq = data.tombstones.next_live(seq.0.max(data.first_seq));
                    return Ok(Some(seq.min(visible + 1)));
                }
                Ok(None) => {}
                Err(error) if self.lists(extent) => return Err(error),
                Err(_) => {}
            }
        }
        let data = self.lock();
        if data.layout_epoch != layout.layout_epoch {
            return Ok(None);
        }
        let tails = layout.frozen.as_deref().into_iter().chain([&data.tail]);
        let found = tails
            .flat_map(|tail| tail.iter_from(0))
            .find(|message| message.ts >= ts && data.is_live(message.seq.0));
        Ok(Some(found.map_or(visible + 1, |message| {
            message.seq.0.min(visible + 1)
        })))
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

    pub(super) fn load_front(&self, seq: u64) -> Result<(), ReadError> {
        let (layout, storage) = {
            let data = self.lock();
            (data.layout(), data.config.storage)
        };
        let Some(extent) = extent_of(&layout.extents, seq) else {
            let data = self.lock();
            let moved = data.layout_epoch != layout.layout_epoch || !data.is_live(seq);
            drop(data);
            return if moved {
                Ok(())
            } else {
                Err(self.missing(seq))
            };
        };
        let block = match extent.file.segment.block(self.id, Seq(seq)) {
            Ok(block) => block,
            Err(_) if !self.lists(extent) => return Ok(()),
            Err(ReadError::Corrupt(damage)) => {
                let entries = self.entries_of_damaged(extent, &damage, seq);
                self.keep_front(entries.into_iter());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let Some(block) = block else {
            return Err(self.missing(seq));
        };
        let entries = block.iter().map(|message| {
            let layout = message.layout();
            let size = crate::limits::accounted_bytes(
                storage,
                layout.subject as usize,
                layout.headers as usize,
                layout.payload as usize,
            );
            let size = u32::try_from(size).unwrap_or(u32::MAX);
            FrontEntry {
                seq: message.seq.0,
                size,
                ts: message.ts,
            }
        });
        self.keep_front(entries);
        Ok(())
    }

    fn keep_front(&self, entries: impl Iterator<Item = FrontEntry>) {
        let mut data = self.lock();
        let first = data.first_seq;
        data.front.advance(first);
        if data.front.get(data.tombstones.next_live(first)).is_some() {
            data.front.extend(entries);
        } else {
            data.front.fill(entries);
        }
    }

    /// What removal needs to know about messages that cannot be read: limits and age must get past
    /// them. Sizes come from the index, or are the file's average where it does not know them; the
    /// time is that of the youngest message of the file, so that nothing leaves too early.
    pub(super) fn entries_of_damaged(
        &self,
        extent: &Extent,
        damage: &Corrupt,
        seq: u64,
    ) -> Vec<FrontEntry> {
        let average = extent.bytes.checked_div(extent.msgs).unwrap_or(0);
        let average = u32::try_from(average).unwrap_or(u32::MAX);
        let (first, last) = (damage.first.0.min(seq), damage.last.0.max(seq));
        let (first, last) = (first.max(extent.first), last.min(extent.last));
        let mut sizes = BTreeMap::new();
        let known = extent.file.matching(self.id, &Filter::all());
        for (_, postings) in known.unwrap_or_default() {
            let within = postings.into_iter();
            sizes.extend(within.filter(|(seq, _)| (first..=last).contains(seq)));
        }
        // Without an index nothing tells which sequences were stored; one is enough to go on.
        sizes.entry(seq).or_insert(average);
        tracing::error!(stream = %self.name, first, last, file = %damage.file.display(), "damaged messages are removed unread");
        let ts = TimestampNs(extent.last_ts);
        let entry = |(seq, size)| FrontEntry { seq, size, ts };
        sizes.into_iter().map(entry).collect()
    }

    /// Accounted size of a stored message that cannot be read.
    pub(super) fn size_of_damaged(&self, damage: &Corrupt, seq: u64) -> Option<u32> {
        let extents = self.lock().extents.clone();
        let extent = extent_of(&extents, seq)?;
        let entries = self.entries_of_damaged(extent, damage, seq);
        let found = entries.into_iter().find(|entry| entry.seq == seq);
        found.map(|entry| entry.size)
    }

    pub(super) fn load_last(&self, subject: Box<[u8]>) -> Result<(), ReadError> {
        let layout = self.lock().layout();
        let last = match Filter::new(&subject) {
            Ok(filter) => self.last_below_tail(&layout, &filter, u64::MAX)?,
            // No message can have been stored under it.
            Err(_) => None,
        };
        // Sizes matter for eviction only, which asks for all sequences.
        self.keep_prior(&layout, subject, Prior::Last(last.map(|seq| (seq, 0))));
        Ok(())
    }

    pub(super) fn load_all(&self, subject: Box<[u8]>) -> Result<(), ReadError> {
        let layout = self.lock().layout();
        let mut seqs = Vec::new();
        for extent in layout.extents.iter() {
            match extent.file.of_subject(self.id, &subject) {
                Ok(postings) => seqs.extend(postings),
                Err(error) if self.lists(extent) => return Err(error),
                Err(_) => {}
            }
        }
        if let Some(in_frozen) = layout
            .frozen
            .as_ref()
            .and_then(|tail| tail.subject(&subject))
        {
            seqs.extend(in_frozen.iter());
        }
        let prior = {
            let data = self.lock();
            seqs.retain(|(seq, _)| data.is_live(*seq));
            Prior::All {
                seqs: seqs.into(),
                exact_at: data.removal_epoch,
            }
        };
        self.keep_prior(&layout, subject, prior);
        Ok(())
    }

    fn keep_prior(&self, layout: &Layout, subject: Box<[u8]>, prior: Prior) {
        let mut data = self.lock();
        if data.layout_epoch == layout.layout_epoch {
            data.keep_prior(subject, prior);
        }
    }

    pub(super) fn load_last_matching(&self, filter: Filter) -> Result<MatchedPrior, ReadError> {
        let layout = self.lock().layout();
        let last = self.last_below_tail(&layout, &filter, u64::MAX)?;
        let Layout {
            layout_epoch,
            removal_epoch,
            ..
        } = layout;
        Ok(MatchedPrior {
            filter,
            layout_epoch,
            removal_epoch,
            last,
        })
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

fn last_in_tail(data: &StreamData, tail: &Tail, filter: &Filter, visible: u64) -> Option<u64> {
    let newest = |seqs: &super::tail::SubjectSeqs| {
        seqs.iter()
            .rev()
            .map(|(seq, _)| seq)
            .find(|seq| *seq <= visible && data.is_live(*seq))
    };
    match filter.literal() {
        Some(subject) => tail.subject(subject).and_then(newest),
        None => tail
            .subjects()
            .filter(|(subject, _)| filter.matches(subject))
            .filter_map(|(_, seqs)| newest(seqs))
            .max(),
    }
}

fn live_of_tail(data: &StreamData, tail: &Tail, filter: &Filter) -> Vec<(Bytes, Vec<(u64, u32)>)> {
    tail.subjects()
        .filter(|(subject, _)| filter.matches(subject))
        .map(|(subject, seqs)| {
            let live = seqs.iter().filter(|(seq, _)| data.is_live(*seq)).collect();
            (Bytes::copy_from_slice(subject), live)
        })
        .filter(|(_, seqs): &(Bytes, Vec<_>)| !seqs.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::StreamConfig;
    use crate::io::Env;
    use crate::io::sim::{SimClock, SimDisk};
    use crate::store::{Store, StoreOptions, Threads};
    use crate::stream::{Append, PurgeRequest, Stream};

    /// A store with a stream of three durable messages, one nanosecond apart.
    fn fixture() -> (Store, Stream) {
        let clock = SimClock::new(1_000);
        let env = Env::simulated(&SimDisk::new(1), &clock, 1);
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
        for n in 1..=3 {
            clock.set_ns(1_000 + n);
            let append = Append {
                subject: b"s",
                ..Append::default()
            };
            stream.append_nosync(&append).expect("accepted");
        }
        store.commit();
        (store, stream)
    }

    #[test]
    fn a_time_is_not_looked_up_in_a_tail_that_left() {
        let (store, stream) = fixture();
        let core = &stream.core;
        let before = core.lock().layout();
        store.checkpoint().expect("sealed");
        let found = core.seq_at_in(&before, 3, TimestampNs(1_002));
        assert_eq!(found.expect("readable"), None);
        let now = core.lock().layout();
        let found = core.seq_at_in(&now, 3, TimestampNs(1_002));
        assert_eq!(found.expect("readable"), Some(2));
        // What was removed from the front is not found either.
        let request = PurgeRequest {
            below: Some(Seq(3)),
            ..PurgeRequest::default()
        };
        stream.purge(&request).expect("purged");
        assert_eq!(stream.seq_at(TimestampNs(1)).expect("readable"), Seq(3));
    }

    #[test]
    fn a_reader_that_still_looks_at_a_removed_file_finds_nothing_there() {
        let (store, stream) = fixture();
        let core = &stream.core;
        store.checkpoint().expect("sealed");
        let before = core.lock().layout();
        stream.purge(&PurgeRequest::default()).expect("purged");
        store.checkpoint().expect("the file is removed");
        let filters = [Filter::new(b"s").expect("a filter")];
        let mut resolved = Resolved::default();
        let found = core.next_in_file(&filters, 1, &before.extents[0], &mut resolved);
        assert_eq!(found.expect("no error"), None);
    }
}
