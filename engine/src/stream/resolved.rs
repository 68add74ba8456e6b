//! A filter resolved against sealed data, for a reader that walks along.
//!
//! A stretch of sequences in one part of the index is resolved at a time. Where few messages match,
//! the stretch is long and its matches are listed; where many do it becomes shorter, and where
//! listing them would save nothing the reader goes through the messages one by one instead.

use std::ops::ControlFlow;

use roaring::RoaringTreemap;

use super::core::StreamCore;
use super::filter_set::FilterSet;
use super::index_part::part_of;
use super::layout::{IndexError, Layout, failed};
use crate::error::ReadError;
use crate::index::{AnyRun, RunError};
use crate::subject::Filter;

/// Matches that a stretch lists at least before it becomes shorter.
const LISTED_MAX: u64 = 1 << 16;
/// Matches that a stretch lists at most. To visit many subjects again for each stretch would cost
/// more than the memory saves, so the more subjects match, the more is listed.
const LISTED_HARD_MAX: u64 = 1 << 20;
/// A stretch becomes no shorter than this many times the matches that it may list: with more than
/// one match in so many messages the reader goes through them all.
const SPARSE: u64 = 4;

/// What matches in a stretch of sequences. It stays true while the stream changes: sealed messages
/// do not, and whether they are live is asked when they are read.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    /// First and last sequence; `None` when nothing is resolved.
    range: Option<(u64, u64)>,
    how: How,
}

#[derive(Debug, Default)]
enum How {
    /// These match.
    Listed(RoaringTreemap),
    /// Each message is to be read.
    #[default]
    OneByOne,
    /// As above, because the index does not know every message.
    Unknown,
}

impl Resolved {
    /// True if nothing is resolved.
    pub(super) fn is_empty(&self) -> bool {
        self.range.is_none()
    }

    pub(super) fn covers(&self, seq: u64) -> bool {
        self.range
            .is_some_and(|(first, last)| first <= seq && seq <= last)
    }

    pub(super) fn last(&self) -> u64 {
        self.range.map_or(0, |(_, last)| last)
    }

    /// The sequences that match, if they are listed.
    pub(super) fn listed(&self) -> Option<&RoaringTreemap> {
        match &self.how {
            How::Listed(seqs) => Some(seqs),
            How::OneByOne | How::Unknown => None,
        }
    }

    /// True if what matches around `seq` is listed.
    pub(super) fn lists(&self, seq: u64) -> bool {
        matches!(self.how, How::Listed(_)) && self.covers(seq)
    }

    /// True if the index can tell whether an unreadable message matches.
    pub(super) fn index_knows(&self) -> bool {
        !matches!(self.how, How::Unknown)
    }
}

impl StreamCore {
    /// Resolves filters for sealed messages from `from` on; up to `until` they are listed, however
    /// many match.
    pub(super) fn resolve(
        &self,
        filters: &[Filter],
        from: u64,
        until: Option<u64>,
    ) -> Result<Resolved, ReadError> {
        let filters = FilterSet::new(filters);
        self.with_index(&mut |layout| self.resolve_at(layout, &filters, from, until))
    }

    fn resolve_at(
        &self,
        layout: &Layout,
        filters: &FilterSet<'_>,
        from: u64,
        until: Option<u64>,
    ) -> Result<Resolved, IndexError> {
        let Some(number) = part_of(&layout.parts, from) else {
            self.lock().is_at(layout)?;
            return Err(self.missing(from).into());
        };
        let part = &layout.parts[number];
        if self.live_loss(part, from.saturating_sub(1))?.is_some() {
            return Ok(Resolved {
                range: Some((from, part.last)),
                how: How::Unknown,
            });
        }
        let last = until.unwrap_or(part.last).min(part.last);
        let run = layout.open(number)?;
        let mut stretch = Stretch {
            first: from,
            last,
            seqs: RoaringTreemap::new(),
            visited: 0,
            may_shrink: until.is_none(),
            dense: false,
        };
        stretch
            .collect(&run, self.id, filters)
            .map_err(|error| failed(number, &run, error))?;
        Ok(Resolved {
            range: Some((from, stretch.last)),
            how: match stretch.dense {
                true => How::OneByOne,
                false => How::Listed(stretch.seqs),
            },
        })
    }
}

/// A stretch whose matches are being listed.
struct Stretch {
    first: u64,
    last: u64,
    seqs: RoaringTreemap,
    /// Subjects that matched so far.
    visited: u64,
    may_shrink: bool,
    dense: bool,
}

impl Stretch {
    fn collect(
        &mut self,
        run: &AnyRun,
        stream: crate::ids::StreamId,
        filters: &FilterSet<'_>,
    ) -> Result<(), RunError> {
        for (filter, _) in filters.iter() {
            let mut failure = None;
            run.matching(stream, filter, &mut |_, entry| {
                self.visited += 1;
                if entry.last() < self.first || entry.first() > self.last {
                    return ControlFlow::Continue(());
                }
                let listed = run.postings(&entry, self.first, &mut |seq, _| self.add(seq));
                failure = listed.err();
                match self.dense || failure.is_some() {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            })?;
            if let Some(error) = failure {
                return Err(error);
            }
            if self.dense {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Lists a match; what lies behind the end of the stretch is left to the next one.
    fn add(&mut self, seq: u64) -> ControlFlow<()> {
        if seq > self.last {
            return ControlFlow::Break(());
        }
        self.seqs.insert(seq);
        let listed_max = self.visited.clamp(LISTED_MAX, LISTED_HARD_MAX);
        if !self.may_shrink || self.seqs.len() <= listed_max {
            return ControlFlow::Continue(());
        }
        let shortest = self.first.saturating_add(SPARSE * listed_max);
        if self.last <= shortest {
            self.dense = true;
            return ControlFlow::Break(());
        }
        self.last = (self.first + (self.last - self.first) / 2).max(shortest);
        self.seqs.remove_range(self.last + 1..);
        match seq > self.last {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}
