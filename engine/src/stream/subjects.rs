//! Questions about subjects, answered from the index alone: no message is read.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::core::StreamCore;
use super::filter_set::FilterSet;
use super::layout::{IndexError, Layout, failed};
use super::read::SCAN_STEP;
use super::state::StreamData;
use super::tail::{SubjectSeqs, Tail};
use crate::error::ReadError;
use crate::index::{AnyEntry, AnyRun, RunError, SubjectKey};
use crate::subject::Filter;

/// Sees some live messages of a subject, ascending, with their accounted sizes, and says whether to
/// go on.
pub(super) type LiveVisitor<'v> = dyn FnMut(&[(u64, u32)]) -> ControlFlow<()> + 'v;

/// With fewer messages per subject their sequences stand next to the subjects, and to count the
/// other subjects instead saves no read.
const COMPLEMENT_MSGS_PER_SUBJECT_MIN: u64 = 32;

/// Sequences of one part that a question is about, and whether all of them are live.
#[derive(Clone, Copy)]
struct Span {
    first: u64,
    last: u64,
    clean: bool,
}

impl StreamCore {
    /// Number of live, durable messages at or after `from` that match any filter. Exact as of a
    /// moment during the call for what is not removed meanwhile.
    pub fn num_pending(&self, filters: &[Filter], from: u64) -> Result<u64, ReadError> {
        self.count_matching(filters, from, self.visible_seq())
    }

    /// Number of live messages in `from..=to` that match any filter.
    pub(super) fn count_matching(
        &self,
        filters: &[Filter],
        from: u64,
        to: u64,
    ) -> Result<u64, ReadError> {
        if FilterSet::wants_all(filters) {
            return Ok(self.lock().live_in(from, to));
        }
        let filters = FilterSet::new(filters);
        self.with_index(&mut |layout| {
            let mut count = {
                let data = self.lock();
                data.is_at(layout)?;
                let count = count_in_tail(&data, &data.tail, &filters, from, to);
                let frozen = layout.frozen.as_deref();
                count + frozen.map_or(0, |tail| count_in_tail(&data, tail, &filters, from, to))
            };
            for (number, part) in layout.parts.iter().enumerate() {
                if part.last >= from && part.first <= to {
                    count += self.count_in_part(layout, number, &filters, from, to)?;
                }
            }
            Ok(count)
        })
    }

    fn count_in_part(
        &self,
        layout: &Layout,
        number: usize,
        filters: &FilterSet<'_>,
        from: u64,
        to: u64,
    ) -> Result<u64, IndexError> {
        let Some(span) = self.span(layout, number, from, to) else {
            return Ok(0);
        };
        let run = layout.open(number)?;
        let counted = match self.count_by_complement(&run, filters, span) {
            Ok(None) => self.count_each(&run, filters, span),
            Ok(Some(count)) => Ok(count),
            Err(error) => Err(error),
        };
        counted.map_err(|error| failed(number, &run, error))
    }

    /// Live messages in a span, subject by subject.
    fn count_each(
        &self,
        run: &AnyRun,
        filters: &FilterSet<'_>,
        span: Span,
    ) -> Result<u64, RunError> {
        let mut count = 0;
        self.each_matching(run, filters, &mut |entry| {
            count += self.count_live(run, entry, span)?;
            Ok(())
        })?;
        Ok(count)
    }

    /// As [`StreamCore::count_each`], by the messages that do not match, which must be fewer.
    /// `None` if they are not, or if that would save nothing or not be exact.
    fn count_by_complement(
        &self,
        run: &AnyRun,
        filters: &FilterSet<'_>,
        span: Span,
    ) -> Result<Option<u64>, RunError> {
        let (Some(subjects), Some(msgs)) = (run.keys(), run.postings_count()) else {
            return Ok(None);
        };
        let is_long = msgs / COMPLEMENT_MSGS_PER_SUBJECT_MIN >= subjects;
        if !span.clean || !is_long || filters.literals().is_some() {
            return Ok(None);
        }
        let (mut matching, mut cut) = (0_u64, false);
        self.each_matching(run, filters, &mut |entry| {
            matching = matching.saturating_add(entry.count());
            cut |= entry.first() < span.first || entry.last() > span.last;
            Ok(())
        })?;
        if !cut || matching <= msgs / 2 {
            return Ok(None);
        }
        let (mut known, mut first, mut last, mut others) = (0_u64, u64::MAX, 0, 0);
        let mut failure = None;
        run.matching(self.id, &Filter::all(), &mut |subject, entry| {
            known = known.saturating_add(entry.count());
            first = first.min(entry.first());
            last = last.max(entry.last());
            if filters.matches(subject) {
                return ControlFlow::Continue(());
            }
            match self.count_live(run, &entry, span) {
                Ok(more) => {
                    others += more;
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(error) = failure {
            return Err(error);
        }
        // A run that lacks lost or removed messages cannot tell how many of them are in the span.
        let is_whole = first <= last && known.checked_sub(1) == Some(last - first);
        let in_span = first <= span.first && span.last <= last;
        let count = (span.last - span.first + 1).checked_sub(others);
        Ok(count.filter(|_| is_whole && in_span))
    }

    /// Visits each matching subject of a run once.
    fn each_matching(
        &self,
        run: &AnyRun,
        filters: &FilterSet<'_>,
        take: &mut dyn FnMut(&AnyEntry) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        for (filter, counts) in filters.iter() {
            let mut failure = None;
            run.matching(self.id, filter, &mut |subject, entry| {
                if counts(subject) {
                    failure = take(&entry).err();
                }
                match failure.is_some() {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            })?;
            if let Some(error) = failure {
                return Err(error);
            }
        }
        Ok(())
    }

    /// What of a part lies in `from..=to` and in the stream; `None` if nothing does.
    fn span(&self, layout: &Layout, number: usize, from: u64, to: u64) -> Option<Span> {
        let part = layout.parts.get(number)?;
        let data = self.lock();
        let first = part.first.max(from).max(data.first_seq);
        let last = part.last.min(to).min(data.last_seq);
        (first <= last).then(|| Span {
            first,
            last,
            clean: data.tombstones.count_in(first, last) == 0,
        })
    }

    /// Live messages of an entry in a span. Its list is decoded only where something in between
    /// was removed, or where it is cut.
    fn count_live(&self, run: &AnyRun, entry: &AnyEntry, span: Span) -> Result<u64, RunError> {
        let (first, last) = (span.first.max(entry.first()), span.last.min(entry.last()));
        if first > last {
            return Ok(0);
        }
        if span.clean || self.lock().tombstones.count_in(first, last) == 0 {
            return match (entry.first(), entry.last()) == (first, last) {
                true => Ok(entry.count()),
                false => run.count_in(entry, first, last),
            };
        }
        let mut count = 0;
        self.live_postings(run, entry, (first, last), &mut |live| {
            count += live.len() as u64;
            ControlFlow::Continue(())
        })?;
        Ok(count)
    }

    /// Visits the live messages of an entry in a range, ascending, some at a time.
    pub(super) fn live_postings(
        &self,
        run: &AnyRun,
        entry: &AnyEntry,
        (first, last): (u64, u64),
        visit: &mut LiveVisitor<'_>,
    ) -> Result<(), RunError> {
        let mut batch = Vec::with_capacity(SCAN_STEP.min(entry.count() as usize));
        let mut hand_over = |batch: &mut Vec<(u64, u32)>| {
            {
                let data = self.lock();
                batch.retain(|(seq, _)| data.is_live(*seq));
            }
            let flow = match batch.is_empty() {
                true => ControlFlow::Continue(()),
                false => visit(batch),
            };
            batch.clear();
            flow
        };
        let mut stopped = false;
        run.postings(entry, first, &mut |seq, size| {
            if seq > last {
                return ControlFlow::Break(());
            }
            batch.push((seq, size));
            if batch.len() < SCAN_STEP {
                return ControlFlow::Continue(());
            }
            let flow = hand_over(&mut batch);
            stopped = flow.is_break();
            flow
        })?;
        if !stopped {
            // It was the last batch: nothing is left to stop.
            let _ = hand_over(&mut batch);
        }
        Ok(())
    }

    /// The newest live, durable sequence whose subject matches.
    pub fn last_matching(&self, filter: &Filter) -> Result<Option<u64>, ReadError> {
        let visible = self.visible_seq();
        let wanted = Wanted::new(self, filter);
        self.with_index(&mut |layout| {
            {
                let data = self.lock();
                data.is_at(layout)?;
                if let Some(seq) = last_in_tail(&data, &data.tail, filter, visible) {
                    return Ok(Some(seq));
                }
            }
            self.last_below_tail(layout, &wanted, visible)
        })
    }

    /// The newest live sequence up to `to` below the tail.
    pub(super) fn last_below_tail(
        &self,
        layout: &Layout,
        wanted: &Wanted<'_>,
        to: u64,
    ) -> Result<Option<u64>, IndexError> {
        if let Some(frozen) = &layout.frozen {
            let data = self.lock();
            if let Some(seq) = last_in_tail(&data, frozen, wanted.filter, to) {
                return Ok(Some(seq));
            }
        }
        for (number, part) in layout.parts.iter().enumerate().rev() {
            if wanted.key.as_ref().is_some_and(|key| part.excludes(key)) {
                continue;
            }
            let mut found = self.last_in_part(layout, number, wanted, to)?;
            // A lost message might be the one.
            if self.look_for_lost(part, found.unwrap_or(0))? {
                found = self.last_in_part(layout, number, wanted, to)?;
            }
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn last_in_part(
        &self,
        layout: &Layout,
        number: usize,
        wanted: &Wanted<'_>,
        to: u64,
    ) -> Result<Option<u64>, IndexError> {
        let Some(part) = layout.parts.get(number) else {
            return Ok(None);
        };
        let (first, last) = (part.first, part.last.min(to));
        let run = layout.open(number)?;
        let mut best = None;
        let mut failure = None;
        let mut take = |entry: &AnyEntry| {
            let above = best.map_or(first, |seq: u64| seq + 1);
            match self.newest_live(&run, entry, above, last) {
                Ok(newer) => best = newer.or(best),
                Err(error) => failure = Some(error),
            }
            match failure.is_some() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let walked = match &wanted.key {
            Some(key) => run.lookup(key).map(|entry| {
                // One subject: there is nothing behind it to stop before.
                let _ = entry.map(|entry| take(&entry));
            }),
            None => run.matching(self.id, wanted.filter, &mut |_, entry| take(&entry)),
        };
        match failure.or(walked.err()) {
            Some(error) => Err(failed(number, &run, error)),
            None => Ok(best),
        }
    }

    /// The newest live sequence of an entry in `first..=last`.
    pub(super) fn newest_live(
        &self,
        run: &AnyRun,
        entry: &AnyEntry,
        first: u64,
        last: u64,
    ) -> Result<Option<u64>, RunError> {
        if entry.last() < first || entry.first() > last {
            return Ok(None);
        }
        if entry.last() <= last && self.lock().is_live(entry.last()) {
            return Ok(Some(entry.last()));
        }
        let mut found = None;
        run.postings_rev(entry, last, &mut |seq| {
            if seq < first {
                return ControlFlow::Break(());
            }
            if self.lock().is_live(seq) {
                found = Some(seq);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// Live, durable messages per matching subject, in subject order.
    pub fn subjects(&self, filter: &Filter) -> Result<BTreeMap<Bytes, u64>, ReadError> {
        let visible = self.visible_seq();
        let mut counts = BTreeMap::new();
        self.with_index(&mut |layout| self.check_whole(layout))?;
        self.walk_subjects(filter, &mut |subject| {
            let count = subject.count(visible)?;
            if count > 0 {
                counts.insert(Bytes::copy_from_slice(subject.name()), count);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(counts)
    }

    /// The newest live message of each matching subject, up to `to`.
    pub(super) fn last_of_each_subject(
        &self,
        filter: &Filter,
        to: u64,
        take: &mut dyn FnMut(u64),
    ) -> Result<(), ReadError> {
        self.with_index(&mut |layout| self.check_whole(layout))?;
        self.walk_subjects(filter, &mut |subject| {
            if let Some(seq) = subject.newest(to)? {
                take(seq);
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// The newest live message of an entry of a part, up to `to`.
    pub(super) fn newest_of_entry(
        &self,
        layout: &Layout,
        number: usize,
        run: &AnyRun,
        entry: &AnyEntry,
        to: u64,
    ) -> Result<Option<u64>, IndexError> {
        let Some(part) = layout.parts.get(number) else {
            return Ok(None);
        };
        self.newest_live(run, entry, part.first, part.last.min(to))
            .map_err(|error| failed(number, run, error))
    }

    /// Live messages of an entry of a part up to `to`.
    pub(super) fn count_of_entry(
        &self,
        layout: &Layout,
        number: usize,
        run: &AnyRun,
        entry: &AnyEntry,
        to: u64,
    ) -> Result<u64, IndexError> {
        match self.span(layout, number, 0, to) {
            None => Ok(0),
            Some(span) => self
                .count_live(run, entry, span)
                .map_err(|error| failed(number, run, error)),
        }
    }
}

/// A filter whose newest message is wanted; its key, if it has no wildcard.
pub(super) struct Wanted<'f> {
    filter: &'f Filter,
    key: Option<SubjectKey>,
}

impl<'f> Wanted<'f> {
    pub fn new(core: &StreamCore, filter: &'f Filter) -> Wanted<'f> {
        let key = filter.literal();
        Wanted {
            filter,
            key: key.map(|subject| SubjectKey::new(core.id, subject)),
        }
    }
}

fn count_in_tail(
    data: &StreamData,
    tail: &Tail,
    filters: &FilterSet<'_>,
    from: u64,
    to: u64,
) -> u64 {
    // What was removed is still in a frozen tail.
    let live = |seqs: &SubjectSeqs| match std::ptr::eq(tail, &raw const data.tail) {
        true => seqs.count_in(from, to),
        false => seqs
            .iter()
            .filter(|(seq, _)| *seq >= from && *seq <= to && data.is_live(*seq))
            .count() as u64,
    };
    match filters.literals() {
        Some(subjects) => subjects
            .filter_map(|subject| tail.subject(subject))
            .map(live)
            .sum(),
        None => tail
            .subjects()
            .filter(|(subject, _)| filters.matches(subject))
            .map(|(_, seqs)| live(seqs))
            .sum(),
    }
}

fn last_in_tail(data: &StreamData, tail: &Tail, filter: &Filter, to: u64) -> Option<u64> {
    let newest = |seqs: &SubjectSeqs| {
        seqs.iter()
            .rev()
            .map(|(seq, _)| seq)
            .find(|seq| *seq <= to && data.is_live(*seq))
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
