//! One view of runs in files and in memory.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::cursor::{KeyCursor, KeyOrder, OwnedKey};
use super::postings::SubjectEntry;
use super::reader::{Run, SubjectKey, Use};
use super::{MemoryRun, Posting, RunError};
use crate::ids::{Seq, StreamId};
use crate::subject::Filter;

/// An open run, wherever it is.
#[derive(Clone, Debug)]
pub(crate) enum AnyRun {
    File(Arc<Run>),
    Memory(Arc<MemoryRun>),
}

/// What it knows of a subject.
#[derive(Clone, Debug)]
pub(crate) enum AnyEntry {
    File(SubjectEntry),
    /// The whole list, which is not empty.
    Memory(Vec<Posting>),
}

impl AnyEntry {
    pub fn count(&self) -> u64 {
        match self {
            AnyEntry::File(entry) => entry.count,
            AnyEntry::Memory(list) => list.len() as u64,
        }
    }

    pub fn first(&self) -> u64 {
        match self {
            AnyEntry::File(entry) => entry.first.0,
            AnyEntry::Memory(list) => list.first().map_or(u64::MAX, |(seq, _)| seq.0),
        }
    }

    pub fn last(&self) -> u64 {
        match self {
            AnyEntry::File(entry) => entry.last.0,
            AnyEntry::Memory(list) => list.last().map_or(0, |(seq, _)| seq.0),
        }
    }
}

impl AnyRun {
    /// Number of its subjects, those of other streams included; `None` if nobody counted.
    pub fn keys(&self) -> Option<u64> {
        match self {
            AnyRun::File(run) => Some(run.keys()),
            AnyRun::Memory(_) => None,
        }
    }

    /// Number of its messages, those of other streams included; `None` if nobody counted.
    pub fn postings_count(&self) -> Option<u64> {
        match self {
            AnyRun::File(run) => Some(run.postings_count()),
            AnyRun::Memory(_) => None,
        }
    }

    /// True for the same open run.
    pub fn is(&self, other: &AnyRun) -> bool {
        match (self, other) {
            (AnyRun::File(a), AnyRun::File(b)) => Arc::ptr_eq(a, b),
            (AnyRun::Memory(a), AnyRun::Memory(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    pub fn lookup(&self, subject: &SubjectKey) -> Result<Option<AnyEntry>, RunError> {
        Ok(match self {
            AnyRun::File(run) => run.lookup(subject)?.map(AnyEntry::File),
            AnyRun::Memory(run) => {
                let list = run.lookup(subject);
                list.map(|list| AnyEntry::Memory(list.to_vec()))
            }
        })
    }

    /// Visits the subjects of a stream that match.
    pub fn matching(
        &self,
        stream: StreamId,
        filter: &Filter,
        visit: &mut dyn FnMut(&[u8], AnyEntry) -> ControlFlow<()>,
    ) -> Result<(), RunError> {
        match self {
            AnyRun::File(run) => run.matching(stream, filter, &mut |subject, entry| {
                visit(subject, AnyEntry::File(entry))
            }),
            AnyRun::Memory(run) => {
                run.matching(stream, filter, &mut |subject, list| {
                    visit(subject, AnyEntry::Memory(list.to_vec()))
                });
                Ok(())
            }
        }
    }

    /// Visits sequences and sizes from `from` on, ascending.
    pub fn postings(
        &self,
        entry: &AnyEntry,
        from: u64,
        visit: &mut dyn FnMut(u64, u32) -> ControlFlow<()>,
    ) -> Result<(), RunError> {
        match (self, entry) {
            (AnyRun::File(run), AnyEntry::File(entry)) => {
                run.postings(entry, Seq(from), &mut |seq, size| visit(seq.0, size))
            }
            (_, AnyEntry::Memory(list)) => {
                let behind = list.iter().filter(|(seq, _)| seq.0 >= from);
                for (seq, size) in behind {
                    if visit(seq.0, *size).is_break() {
                        break;
                    }
                }
                Ok(())
            }
            (AnyRun::Memory(_), AnyEntry::File(_)) => Ok(()),
        }
    }

    /// Visits sequences up to and including `to`, descending.
    pub fn postings_rev(
        &self,
        entry: &AnyEntry,
        to: u64,
        visit: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(), RunError> {
        match (self, entry) {
            (AnyRun::File(run), AnyEntry::File(entry)) => {
                run.postings_rev(entry, Seq(to), &mut |seq, _| visit(seq.0))
            }
            (_, AnyEntry::Memory(list)) => {
                let before = list.iter().rev().filter(|(seq, _)| seq.0 <= to);
                for (seq, _) in before {
                    if visit(seq.0).is_break() {
                        break;
                    }
                }
                Ok(())
            }
            (AnyRun::Memory(_), AnyEntry::File(_)) => Ok(()),
        }
    }

    /// Number of sequences in `first..=last`, of which only the parts at the borders are decoded.
    pub fn count_in(&self, entry: &AnyEntry, first: u64, last: u64) -> Result<u64, RunError> {
        let from = |seq: u64| match (self, entry) {
            (AnyRun::File(run), AnyEntry::File(entry)) => run.count_from(entry, Seq(seq)),
            (_, AnyEntry::Memory(list)) => {
                Ok((list.len() - list.partition_point(|(at, _)| at.0 < seq)) as u64)
            }
            (AnyRun::Memory(_), AnyEntry::File(_)) => Ok(0),
        };
        let behind = match last.checked_add(1) {
            Some(next) => from(next)?,
            None => 0,
        };
        Ok(from(first)?.saturating_sub(behind))
    }
}

/// A position among the keys of a run that start with a prefix.
pub(crate) enum AnyCursor {
    File(KeyCursor),
    Memory {
        run: Arc<MemoryRun>,
        prefix: Vec<u8>,
        at: Option<OwnedKey>,
        list: Vec<Posting>,
    },
}

impl AnyCursor {
    /// Stands on the first key that starts with `prefix` and comes after `after`.
    pub fn new(
        run: AnyRun,
        prefix: Vec<u8>,
        after: Option<KeyOrder<'_>>,
        uses: Use,
    ) -> Result<AnyCursor, RunError> {
        Ok(match run {
            AnyRun::File(run) => AnyCursor::File(KeyCursor::new(run, prefix, after, uses)?),
            AnyRun::Memory(run) => {
                let found = run.next_key(&prefix, after);
                let found = found.map(|((long, key), list)| ((long, key.to_vec()), list.to_vec()));
                let (at, list) = found.unzip();
                AnyCursor::Memory {
                    run,
                    prefix,
                    at,
                    list: list.unwrap_or_default(),
                }
            }
        })
    }

    /// The key it stands on; `None` at the end.
    pub fn key(&self) -> Option<KeyOrder<'_>> {
        match self {
            AnyCursor::File(cursor) => cursor.current().map(|(key, _)| key),
            AnyCursor::Memory { at, .. } => at.as_ref().map(|(long, key)| (*long, &key[..])),
        }
    }

    fn entry(&self) -> Option<AnyEntry> {
        match self {
            AnyCursor::File(cursor) => {
                let (_, entry) = cursor.current()?;
                Some(AnyEntry::File(entry.clone()))
            }
            AnyCursor::Memory { at, list, .. } => {
                at.as_ref().map(|_| AnyEntry::Memory(list.clone()))
            }
        }
    }

    fn advance(&mut self) -> Result<(), RunError> {
        match self {
            AnyCursor::File(cursor) => cursor.advance(),
            AnyCursor::Memory {
                run,
                prefix,
                at,
                list,
            } => {
                let after = at.as_ref().map(|(long, key)| (*long, &key[..]));
                let found = run.next_key(prefix, after);
                let found = found.map(|((long, key), list)| ((long, key.to_vec()), list.to_vec()));
                let (next, postings) = found.unzip();
                (*at, *list) = (next, postings.unwrap_or_default());
                Ok(())
            }
        }
    }
}

/// Walks several runs at once, key by key.
pub(crate) struct KeyMerge {
    cursors: Vec<AnyCursor>,
    /// Cursors that are not at their end, the one with the lowest key last.
    order: Vec<usize>,
}

impl KeyMerge {
    pub fn new(cursors: Vec<AnyCursor>) -> KeyMerge {
        let mut order: Vec<usize> = (0..cursors.len())
            .filter(|at| cursors[*at].key().is_some())
            .collect();
        order.sort_by(|a, b| cursors[*b].key().cmp(&cursors[*a].key()));
        KeyMerge { cursors, order }
    }

    /// The lowest key.
    pub fn key(&self) -> Option<KeyOrder<'_>> {
        self.cursors[*self.order.last()?].key()
    }

    /// Takes the lowest key: it replaces `key`, and what the cursors know of it, each with its
    /// number, replaces `entries`. False at the end. An error names the cursor that failed.
    pub fn take(
        &mut self,
        key: &mut OwnedKey,
        entries: &mut Vec<(usize, AnyEntry)>,
    ) -> Result<bool, (usize, RunError)> {
        entries.clear();
        let Some((is_long, lowest)) = self.key() else {
            return Ok(false);
        };
        key.0 = is_long;
        key.1.clear();
        key.1.extend_from_slice(lowest);
        while let Some(at) = self.order.last().copied()
            && self.cursors[at].key() == Some((key.0, &key.1))
        {
            self.order.pop();
            if let Some(entry) = self.cursors[at].entry() {
                entries.push((at, entry));
            }
            self.cursors[at].advance().map_err(|error| (at, error))?;
            if let Some(next) = self.cursors[at].key() {
                let above = |other: &usize| self.cursors[*other].key() > Some(next);
                let place = self.order.partition_point(above);
                self.order.insert(place, at);
            }
        }
        entries.sort_by_key(|(at, _)| *at);
        Ok(true)
    }
}
