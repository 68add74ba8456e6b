//! Loads what admission and removal need to know about stored messages, outside the lock.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::admission::MatchedPrior;
use super::core::StreamCore;
use super::extent::Extent;
use super::front::FrontEntry;
use super::layout::Layout;
use super::prior::Prior;
use super::read::extent_of;
use super::subjects::Wanted;
use crate::error::{Corrupt, ReadError};
use crate::ids::{Seq, TimestampNs};
use crate::index::SubjectKey;
use crate::subject::Filter;

/// Unreadable messages that are prepared for removal at once.
const DAMAGED_STEP: usize = 1 << 16;

impl StreamCore {
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
            Err(_) if !self.has_file(extent) => return Ok(()),
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
        let mut sizes = self.indexed_sizes(first, last).unwrap_or_default();
        // Without an index nothing tells which sequences were stored; one is enough to go on.
        sizes.entry(seq).or_insert(average);
        tracing::error!(stream = %self.name, first, last, file = %damage.file.display(), "damaged messages are removed unread");
        let ts = TimestampNs(extent.last_ts);
        let entry = |(seq, size)| FrontEntry { seq, size, ts };
        sizes.into_iter().map(entry).collect()
    }

    /// Sequences from `first` to `last` that the index knows, the first ones if there are many, and
    /// their accounted sizes.
    fn indexed_sizes(&self, first: u64, last: u64) -> Result<BTreeMap<u64, u32>, ReadError> {
        self.with_index(&mut |layout| {
            let mut sizes = BTreeMap::new();
            let parts = layout.parts.iter().enumerate();
            for (number, part) in parts.filter(|(_, p)| p.last >= first && p.first <= last) {
                let (first, last) = (first.max(part.first), last.min(part.last));
                layout.ask(number, |run| {
                    let mut failure = None;
                    run.matching(self.id, &Filter::all(), &mut |_, entry| {
                        if entry.last() < first || entry.first() > last {
                            return ControlFlow::Continue(());
                        }
                        let listed = run.postings(&entry, first, &mut |seq, size| {
                            if seq > last {
                                return ControlFlow::Break(());
                            }
                            sizes.insert(seq, size);
                            if sizes.len() > DAMAGED_STEP {
                                sizes.pop_last();
                            }
                            ControlFlow::Continue(())
                        });
                        failure = listed.err();
                        match failure.is_some() {
                            true => ControlFlow::Break(()),
                            false => ControlFlow::Continue(()),
                        }
                    })?;
                    failure.map_or(Ok(()), Err)
                })?;
            }
            Ok(sizes)
        })
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
        let filter = Filter::new(&subject).ok();
        let wanted = filter.as_ref().map(|filter| Wanted::new(self, filter));
        self.with_index(&mut |layout| {
            let last = match &wanted {
                Some(wanted) => self.last_below_tail(layout, wanted, u64::MAX)?,
                // No message can have been stored under it.
                None => None,
            };
            // Sizes matter for eviction only, which asks for all sequences.
            let prior = Prior::Last(last.map(|seq| (seq, 0)));
            self.keep_prior(layout, subject.clone(), prior);
            Ok(())
        })
    }

    pub(super) fn load_all(&self, subject: Box<[u8]>) -> Result<(), ReadError> {
        let key = SubjectKey::new(self.id, &subject);
        self.with_index(&mut |layout| {
            let mut seqs = Vec::new();
            for (number, part) in layout.parts.iter().enumerate() {
                layout.ask(number, |run| {
                    let Some(entry) = run.lookup(&key)? else {
                        return Ok(());
                    };
                    self.live_postings(run, &entry, (part.first, part.last), &mut |live| {
                        seqs.extend_from_slice(live);
                        ControlFlow::Continue(())
                    })
                })?;
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
            self.keep_prior(layout, subject.clone(), prior);
            Ok(())
        })
    }

    fn keep_prior(&self, layout: &Layout, subject: Box<[u8]>, prior: Prior) {
        let mut data = self.lock();
        if data.layout_epoch == layout.layout_epoch {
            data.keep_prior(subject, prior);
        }
    }

    pub(super) fn load_last_matching(&self, filter: Filter) -> Result<MatchedPrior, ReadError> {
        let wanted = Wanted::new(self, &filter);
        let (last, layout_epoch, removal_epoch) = self.with_index(&mut |layout| {
            let last = self.last_below_tail(layout, &wanted, u64::MAX)?;
            Ok((last, layout.layout_epoch, layout.removal_epoch))
        })?;
        Ok(MatchedPrior {
            filter,
            layout_epoch,
            removal_epoch,
            last,
        })
    }
}
