//! A filter resolved against sealed data, for a reader that walks along.
//!
//! A stretch of sequences in one part of the index is resolved at a time. Where few messages match,
//! the stretch is long and its matches are listed; where many do it becomes shorter, and where
//! listing them would save nothing the reader goes through the messages one by one instead.
//!
//! A list that turns out to save nothing costs more than reading does. So a guess from what the
//! index says of whole subjects comes first, and a reader that finds many matches one by one goes on
//! like that. A wrong guess costs a short stretch: behind it the matches are listed.

use std::ops::ControlFlow;

use roaring::RoaringTreemap;

use super::core::StreamCore;
use super::filter_set::FilterSet;
use super::index_part::part_of;
use super::layout::{IndexError, Layout, failed};
use crate::error::ReadError;
use crate::ids::StreamId;
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
/// Sequences that a reader goes through one by one before it is asked again whether that pays.
const ONE_BY_ONE_SEQS: u64 = 1 << 14;
/// Subjects looked at to guess how many messages match. Guessing must stay cheaper than listing.
const GUESSED_SUBJECTS_MAX: u64 = 4096;

/// What matches in a stretch of sequences. It stays true while the stream changes: sealed messages
/// do not, and whether they are live is asked when they are read.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    /// First and last sequence; `None` when nothing is resolved.
    range: Option<(u64, u64)>,
    how: How,
    /// Matches that a reader found since, one by one.
    found: u64,
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

    /// A match was found without a list.
    pub(super) fn count_found(&mut self) {
        self.found += 1;
    }

    /// What this teaches about the messages from `from` on.
    fn outlook(&self, from: u64) -> Outlook {
        match (&self.how, self.range) {
            (How::OneByOne, Some((first, last)))
                if from > last && from - last <= ONE_BY_ONE_SEQS =>
            {
                match is_dense(self.found, first, last) {
                    true => Outlook::Dense,
                    false => Outlook::Misjudged,
                }
            }
            _ => Outlook::Unknown,
        }
    }

    /// True if the index can tell whether an unreadable message matches.
    pub(super) fn index_knows(&self) -> bool {
        !matches!(self.how, How::Unknown)
    }
}

/// What is expected of the messages behind a stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outlook {
    Unknown,
    /// Many match.
    Dense,
    /// Many were expected to match and did not: only a list tells.
    Misjudged,
}

/// True if listing `matches` in `first..=last` saves nothing.
fn is_dense(matches: u64, first: u64, last: u64) -> bool {
    matches.saturating_mul(SPARSE) > last.saturating_sub(first)
}

impl StreamCore {
    /// Resolves filters for sealed messages from `from` on, where `before` ends; up to `until` they
    /// are listed, however many match.
    pub(super) fn resolve(
        &self,
        filters: &[Filter],
        from: u64,
        until: Option<u64>,
        before: &Resolved,
    ) -> Result<Resolved, ReadError> {
        let filters = FilterSet::new(filters);
        let outlook = match until {
            Some(_) => Outlook::Misjudged,
            None => before.outlook(from),
        };
        self.with_index(&mut |layout| self.resolve_at(layout, &filters, from, until, outlook))
    }

    fn resolve_at(
        &self,
        layout: &Layout,
        filters: &FilterSet<'_>,
        from: u64,
        until: Option<u64>,
        outlook: Outlook,
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
                found: 0,
            });
        }
        let next = from.saturating_add(ONE_BY_ONE_SEQS - 1).min(part.last);
        let one_by_one = Resolved {
            range: Some((from, next)),
            how: How::OneByOne,
            found: 0,
        };
        if outlook == Outlook::Dense {
            return Ok(one_by_one);
        }
        let last = until.unwrap_or(part.last).min(part.last);
        let run = layout.open(number)?;
        if outlook == Outlook::Unknown {
            let guess = guess(&run, self.id, filters, from, next)
                .map_err(|error| failed(number, &run, error))?;
            if is_dense(guess, from, next) {
                return Ok(one_by_one);
            }
        }
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
        let dense = until.is_none() && is_dense(stretch.seqs.len(), from, stretch.last);
        Ok(Resolved {
            range: Some((from, stretch.last)),
            how: match dense || stretch.dense {
                true => How::OneByOne,
                false => How::Listed(stretch.seqs),
            },
            found: 0,
        })
    }
}

/// About how many messages in `first..=last` match, as if those of each subject lay evenly between
/// its first and its last one. Of many subjects only some are looked at: there may be more matches.
fn guess(
    run: &AnyRun,
    stream: StreamId,
    filters: &FilterSet<'_>,
    first: u64,
    last: u64,
) -> Result<u64, RunError> {
    let (mut visited, mut sum) = (0, 0u64);
    for (filter, counts) in filters.iter() {
        run.matching(stream, filter, &mut |subject, entry| {
            visited += 1;
            if counts(subject) {
                sum = sum.saturating_add(share(
                    entry.count(),
                    (entry.first(), entry.last()),
                    (first, last),
                ));
            }
            match visited >= GUESSED_SUBJECTS_MAX || is_dense(sum, first, last) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        if visited >= GUESSED_SUBJECTS_MAX || is_dense(sum, first, last) {
            break;
        }
    }
    Ok(sum)
}

/// How many of `count` things, which lie evenly in `spread`, lie in `within`; both ranges include
/// their ends.
fn share(count: u64, spread: (u64, u64), within: (u64, u64)) -> u64 {
    let (first, last) = (spread.0.max(within.0), spread.1.min(within.1));
    if first > last {
        return 0;
    }
    let shared = u128::from(last - first) + 1;
    let whole = u128::from(spread.1 - spread.0) + 1;
    let share = u128::from(count) * shared / whole;
    u64::try_from(share).unwrap_or(u64::MAX)
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
        stream: StreamId,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_what_lies_evenly() {
        for (count, spread, within, expected) in [
            (100, (1, 100), (1, 100), 100),
            (100, (1, 100), (51, 200), 50),
            (10, (1, 100), (11, 20), 1),
            (10, (1, 100), (101, 200), 0),
            (1, (7, 7), (1, 10), 1),
            (u64::MAX, (0, u64::MAX), (0, u64::MAX), u64::MAX),
            // Nothing that a damaged index says does harm.
            (5, (9, 3), (1, 10), 0),
        ] {
            assert_eq!(share(count, spread, within), expected);
        }
    }

    #[test]
    fn what_a_stretch_teaches_about_the_next_one() {
        let stretch = |how, found| Resolved {
            range: Some((1, ONE_BY_ONE_SEQS)),
            how,
            found,
        };
        let behind = ONE_BY_ONE_SEQS + 1;
        assert_eq!(Resolved::default().outlook(1), Outlook::Unknown);
        let dense = stretch(How::OneByOne, ONE_BY_ONE_SEQS / SPARSE);
        assert_eq!(dense.outlook(behind), Outlook::Dense);
        assert_eq!(dense.outlook(1), Outlook::Unknown);
        assert_eq!(dense.outlook(2 * behind), Outlook::Unknown);
        let sparse = stretch(How::OneByOne, ONE_BY_ONE_SEQS / SPARSE - 1);
        assert_eq!(sparse.outlook(behind), Outlook::Misjudged);
        for how in [How::Unknown, How::Listed(RoaringTreemap::new())] {
            let other = stretch(how, ONE_BY_ONE_SEQS);
            assert_eq!(other.outlook(behind), Outlook::Unknown);
        }
    }
}
