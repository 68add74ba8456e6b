//! What a run knows of one subject, and its posting list.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::reader::{Run, Use};
use super::{Posting, RunError};
use crate::format::FormatError;
use crate::format::cursor::Cursor;
use crate::format::key_page::{Place, Value, decode_chunk_head, decode_posting};
use crate::format::page::PageKind;
use crate::ids::Seq;

/// What a run knows of one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectEntry {
    /// Number of messages.
    pub count: u64,
    /// First sequence.
    pub first: Seq,
    /// Last sequence.
    pub last: Seq,
    /// Sum of the messages' accounted sizes.
    pub bytes: u64,
    place: Postings,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Postings {
    One(u32),
    Inline {
        encoded: Bytes,
        page_no: u32,
    },
    Pages {
        page_no: u32,
        offset: u32,
        further: u32,
    },
}

impl SubjectEntry {
    /// Decodes a value that is part of `payload`.
    pub(super) fn decode(
        payload: &Bytes,
        value: &[u8],
        page_no: u32,
    ) -> Result<SubjectEntry, FormatError> {
        let value = Value::decode(value)?;
        Ok(SubjectEntry {
            count: value.count,
            first: value.first,
            last: value.last,
            bytes: value.bytes,
            place: match value.place {
                Place::One(size) => Postings::One(size),
                Place::Inline(encoded) => Postings::Inline {
                    encoded: payload.slice_ref(encoded),
                    page_no,
                },
                Place::Pages {
                    page_no,
                    offset,
                    further,
                } => Postings::Pages {
                    page_no,
                    offset,
                    further,
                },
            },
        })
    }
}

impl Run {
    /// Visits the sequences and sizes of a subject from `from` on, ascending.
    pub fn postings(
        &self,
        entry: &SubjectEntry,
        from: Seq,
        visit: &mut dyn FnMut(Seq, u32) -> ControlFlow<()>,
    ) -> Result<(), RunError> {
        if from > entry.last {
            return Ok(());
        }
        for index in self.chunk_of(entry, from)?..self.chunks(entry) {
            for (seq, size) in self.chunk(entry, index, Use::Again)? {
                if seq >= from && visit(seq, size).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Visits the sequences and sizes of a subject up to and including `to`, descending.
    pub fn postings_rev(
        &self,
        entry: &SubjectEntry,
        to: Seq,
        visit: &mut dyn FnMut(Seq, u32) -> ControlFlow<()>,
    ) -> Result<(), RunError> {
        if to < entry.first {
            return Ok(());
        }
        for index in (0..=self.chunk_of(entry, to)?).rev() {
            for (seq, size) in self.chunk(entry, index, Use::Again)?.into_iter().rev() {
                if seq <= to && visit(seq, size).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Number of sequences of a subject from `from` on. Decodes one part of the list at most.
    pub fn count_from(&self, entry: &SubjectEntry, from: Seq) -> Result<u64, RunError> {
        if from <= entry.first {
            return Ok(entry.count);
        }
        if from > entry.last {
            return Ok(0);
        }
        let index = self.chunk_of(entry, from)?;
        let (before, _) = self.chunk_head(entry, index)?;
        let list = self.chunk(entry, index, Use::Again)?;
        let earlier = list.partition_point(|(seq, _)| *seq < from) as u64;
        Ok(entry.count.saturating_sub(before + earlier))
    }

    /// Number of parts that the posting list of an entry is cut into.
    pub(super) fn chunks(&self, entry: &SubjectEntry) -> u32 {
        match entry.place {
            Postings::One(_) | Postings::Inline { .. } => 1,
            // Both numbers come from disk; pages end where the file does.
            Postings::Pages {
                page_no, further, ..
            } => further
                .min(self.data_pages().saturating_sub(page_no))
                .saturating_add(1),
        }
    }

    /// The last part that starts at or before `seq`: later ones cannot hold anything earlier.
    fn chunk_of(&self, entry: &SubjectEntry, seq: Seq) -> Result<u32, RunError> {
        let (mut low, mut high) = (0, self.chunks(entry));
        // The sequences of a subject tend to lie evenly.
        let span = u128::from(entry.last.0.saturating_sub(entry.first.0)) + 1;
        let ahead = u128::from(seq.0.saturating_sub(entry.first.0));
        let guess = ahead.saturating_mul(u128::from(high)) / span;
        let mut probe = u32::try_from(guess).unwrap_or(u32::MAX);
        let mut step = 1;
        while high - low > 1 {
            probe = probe.clamp(low + 1, high - 1);
            let (_, first) = self.chunk_head(entry, probe)?;
            // Near the guess in growing steps, then in halves.
            if first > seq {
                high = probe;
                probe = probe.saturating_sub(step).max(low + (high - low) / 2);
            } else {
                low = probe;
                probe = probe.saturating_add(step).min(low + (high - low) / 2);
            }
            step *= 2;
        }
        Ok(low)
    }

    /// How many postings come before a part, and its first sequence.
    fn chunk_head(&self, entry: &SubjectEntry, index: u32) -> Result<(u64, Seq), RunError> {
        let Postings::Pages { .. } = entry.place else {
            return Ok((0, entry.first));
        };
        // A guess is a part off at most if sequences lie evenly.
        let (page_no, chunk) = self.chunk_bytes(entry, index, 1, Use::Again)?;
        let mut cursor = Cursor::new(&chunk);
        let head = decode_chunk_head(&mut cursor).and_then(|(_, before)| {
            let (first, _) = decode_posting(&mut cursor, Seq(0))?;
            Ok((before, first))
        });
        head.map_err(|error| self.damaged(page_no, error))
    }

    /// Decodes part `index` of a posting list.
    pub(super) fn chunk(
        &self,
        entry: &SubjectEntry,
        index: u32,
        uses: Use,
    ) -> Result<Vec<Posting>, RunError> {
        match &entry.place {
            Postings::One(size) => Ok(vec![(entry.first, *size)]),
            Postings::Inline { encoded, page_no } => {
                decode_list(Cursor::new(encoded), entry.first, entry.count)
                    .map_err(|error| self.damaged(*page_no, error))
            }
            Postings::Pages { .. } => {
                let (page_no, chunk) = self.chunk_bytes(entry, index, 0, uses)?;
                let mut cursor = Cursor::new(&chunk);
                decode_chunk_head(&mut cursor)
                    .and_then(|(count, _)| decode_list(cursor, Seq(0), count))
                    .map_err(|error| self.damaged(page_no, error))
            }
        }
    }

    /// The page of part `index`, from the part on. So many parts on either side are read with it.
    fn chunk_bytes(
        &self,
        entry: &SubjectEntry,
        index: u32,
        around: u32,
        uses: Use,
    ) -> Result<(u32, Bytes), RunError> {
        let Postings::Pages {
            page_no, offset, ..
        } = entry.place
        else {
            return Ok((0, Bytes::new()));
        };
        let end = index.saturating_add(around).saturating_add(1);
        let end = page_no.saturating_add(end.min(self.chunks(entry)));
        let near = page_no.saturating_add(index.saturating_sub(around))..end;
        let page_no = page_no.saturating_add(index);
        let offset = if index == 0 { offset as usize } else { 0 };
        let payload = self.page_of_walk(PageKind::Postings, page_no, near, uses)?;
        Ok((page_no, payload.slice(offset.min(payload.len())..)))
    }
}

/// Decodes `count` postings. A posting takes at least two bytes, so the count is bounded by the
/// bytes at hand before anything is allocated.
fn decode_list(mut cursor: Cursor<'_>, from: Seq, count: u64) -> Result<Vec<Posting>, FormatError> {
    if count > cursor.rest().len() as u64 / 2 {
        return Err(FormatError::Truncated);
    }
    let mut list = Vec::with_capacity(count as usize);
    let mut last = from;
    for _ in 0..count {
        let posting = decode_posting(&mut cursor, last)?;
        last = posting.0;
        list.push(posting);
    }
    Ok(list)
}

/// Walks the postings of one subject part by part, reading nothing ahead.
#[derive(Debug)]
pub(super) struct PostingCursor {
    entry: SubjectEntry,
    next: u32,
}

impl PostingCursor {
    pub fn new(entry: SubjectEntry) -> PostingCursor {
        PostingCursor { entry, next: 0 }
    }

    /// The next postings, ascending; `None` at the end.
    pub fn next(&mut self, run: &Run) -> Result<Option<Vec<Posting>>, RunError> {
        if self.next >= run.chunks(&self.entry) {
            return Ok(None);
        }
        self.next += 1;
        run.chunk(&self.entry, self.next - 1, Use::Once).map(Some)
    }
}
