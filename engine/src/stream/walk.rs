//! Walks the subjects of a stream in order, each with everything that is known of it.
//!
//! Subjects are merged from the parts of the index and the tails, one at a time: memory holds a
//! page of each part and the names of the tails' subjects, never the subjects or the messages of a
//! stream. Where the stream changes under the walk it goes on behind the last subject.

use std::ops::ControlFlow;

use super::core::StreamCore;
use super::layout::{IndexError, Layout, failed};
use super::state::StreamData;
use super::subjects::LiveVisitor;
use super::tail::Tail;
use crate::error::ReadError;
use crate::format::key_page::{PAGED_SUBJECT_BYTES_MAX, decode_key, encode_key};
use crate::index::{AnyCursor, AnyEntry, AnyRun, KeyMerge, OwnedKey, SubjectKey, Use};
use crate::subject::Filter;

/// One subject of a walk.
pub(super) struct WalkedSubject<'w> {
    core: &'w StreamCore,
    layout: &'w Layout,
    name: &'w [u8],
    runs: &'w [AnyRun],
    /// What the parts know of it, by the part's number, ascending.
    entries: &'w [(usize, AnyEntry)],
}

/// Sees a subject and says whether to go on. It may see a subject again if it failed at it.
pub(super) type SubjectVisitor<'v> =
    dyn FnMut(&WalkedSubject<'_>) -> Result<ControlFlow<()>, IndexError> + 'v;

impl StreamCore {
    /// Visits the matching subjects: those of ordinary length first, in the order of
    /// [`compare_subjects`](crate::index::compare_subjects), then very long ones. Subjects may have
    /// no live message.
    pub(super) fn walk_subjects(
        &self,
        filter: &Filter,
        visit: &mut SubjectVisitor<'_>,
    ) -> Result<(), ReadError> {
        let mut done = None;
        self.with_index(&mut |layout| match filter.literal() {
            Some(subject) => self.walk_one(layout, subject, visit),
            None => self.walk_from(layout, filter, &mut done, visit),
        })
    }

    fn walk_one(
        &self,
        layout: &Layout,
        subject: &[u8],
        visit: &mut SubjectVisitor<'_>,
    ) -> Result<(), IndexError> {
        let key = SubjectKey::new(self.id, subject);
        let (mut runs, mut entries) = (Vec::new(), Vec::new());
        for number in 0..layout.parts.len() {
            let run = layout.open(number)?;
            let entry = run.lookup(&key);
            let entry = entry.map_err(|error| failed(number, &run, error))?;
            entries.extend(entry.map(|entry| (number, entry)));
            runs.push(run);
        }
        let walked = WalkedSubject {
            core: self,
            layout,
            name: subject,
            runs: &runs,
            entries: &entries,
        };
        visit(&walked).map(|_| ())
    }

    fn walk_from(
        &self,
        layout: &Layout,
        filter: &Filter,
        done: &mut Option<OwnedKey>,
        visit: &mut SubjectVisitor<'_>,
    ) -> Result<(), IndexError> {
        let mut in_tails = self.tail_keys(layout, filter, done.as_ref())?;
        let mut prefix = Vec::new();
        encode_key(self.id, filter.prefix(), &mut prefix);
        let (mut runs, mut cursors) = (Vec::new(), Vec::new());
        for number in 0..layout.parts.len() {
            let run = layout.open(number)?;
            let after = done.as_ref().map(|(long, key)| (*long, &key[..]));
            let cursor = AnyCursor::new(run.clone(), prefix.clone(), after, Use::Once);
            cursors.push(cursor.map_err(|error| failed(number, &run, error))?);
            runs.push(run);
        }
        let mut keys = KeyMerge::new(cursors);
        let mut key = OwnedKey::default();
        let (mut entries, mut name) = (Vec::new(), Vec::new());
        loop {
            let sealed = keys.key();
            let tail_first = match (in_tails.last(), sealed) {
                (None, None) => return Ok(()),
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some((long, tail)), Some(sealed)) => (*long, &tail[..]) < sealed,
            };
            if tail_first {
                entries.clear();
                key = in_tails.pop().unwrap_or_default();
            } else {
                let taken = keys.take(&mut key, &mut entries);
                taken.map_err(|(number, error)| match runs.get(number) {
                    Some(run) => failed(number, run, error),
                    None => IndexError::Moved,
                })?;
                if in_tails.last() == Some(&key) {
                    in_tails.pop();
                }
            }
            // What is no key of a subject names no message.
            if decode_key(&key.1, &mut name).is_err() || !filter.matches(&name) {
                continue;
            }
            let walked = WalkedSubject {
                core: self,
                layout,
                name: &name,
                runs: &runs,
                entries: &entries,
            };
            let flow = visit(&walked)?;
            let done = done.get_or_insert_default();
            done.0 = key.0;
            done.1.clone_from(&key.1);
            if flow.is_break() {
                return Ok(());
            }
        }
    }

    /// Keys of the tails' subjects behind `after`, the lowest last.
    fn tail_keys(
        &self,
        layout: &Layout,
        filter: &Filter,
        after: Option<&OwnedKey>,
    ) -> Result<Vec<OwnedKey>, IndexError> {
        let mut keys = Vec::new();
        {
            let data = self.lock();
            data.is_at(layout)?;
            let tails = layout.frozen.as_deref().into_iter().chain([&data.tail]);
            for (subject, _) in tails.flat_map(Tail::subjects) {
                if filter.matches(subject) {
                    let mut key = Vec::with_capacity(8 + subject.len());
                    encode_key(self.id, subject, &mut key);
                    keys.push((subject.len() > PAGED_SUBJECT_BYTES_MAX, key));
                }
            }
        }
        keys.retain(|key| after.is_none_or(|after| key > after));
        keys.sort_unstable_by(|a, b| b.cmp(a));
        keys.dedup();
        Ok(keys)
    }
}

impl WalkedSubject<'_> {
    pub fn name(&self) -> &[u8] {
        self.name
    }

    fn sealed(&self) -> impl Iterator<Item = (usize, &AnyRun, &AnyEntry)> {
        self.entries
            .iter()
            .filter_map(|(number, entry)| Some((*number, self.runs.get(*number)?, entry)))
    }

    /// Live messages in the tails, ascending.
    fn in_tails(&self) -> Result<Vec<(u64, u32)>, IndexError> {
        let data = self.core.lock();
        data.is_at(self.layout)?;
        Ok(live_in_tails(&data, self.layout, self.name).collect())
    }

    /// Whether it has a live message up to `to`.
    pub fn is_live(&self, to: u64) -> Result<bool, IndexError> {
        {
            let data = self.core.lock();
            data.is_at(self.layout)?;
            if live_in_tails(&data, self.layout, self.name).any(|(seq, _)| seq <= to) {
                return Ok(true);
            }
        }
        for (number, run, entry) in self.sealed() {
            let newest = self
                .core
                .newest_of_entry(self.layout, number, run, entry, to)?;
            if newest.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The newest live message up to `to`.
    pub fn newest(&self, to: u64) -> Result<Option<u64>, IndexError> {
        let in_tails = self.in_tails()?;
        if let Some((seq, _)) = in_tails.iter().rev().find(|(seq, _)| *seq <= to) {
            return Ok(Some(*seq));
        }
        for (number, run, entry) in self.sealed().collect::<Vec<_>>().into_iter().rev() {
            let newest = self
                .core
                .newest_of_entry(self.layout, number, run, entry, to)?;
            if newest.is_some() {
                return Ok(newest);
            }
        }
        Ok(None)
    }

    /// Number of live messages up to `to`.
    pub fn count(&self, to: u64) -> Result<u64, IndexError> {
        let in_tails = {
            let data = self.core.lock();
            data.is_at(self.layout)?;
            live_in_tails(&data, self.layout, self.name)
                .filter(|(seq, _)| *seq <= to)
                .count() as u64
        };
        let mut count = in_tails;
        for (number, run, entry) in self.sealed() {
            count += self
                .core
                .count_of_entry(self.layout, number, run, entry, to)?;
        }
        Ok(count)
    }

    /// Visits the live messages with their accounted sizes, ascending, some at a time.
    pub fn live(&self, visit: &mut LiveVisitor<'_>) -> Result<(), IndexError> {
        let in_tails = self.in_tails()?;
        for (number, run, entry) in self.sealed() {
            let Some(part) = self.layout.parts.get(number) else {
                continue;
            };
            let mut stopped = false;
            let range = (part.first, part.last);
            let visited = self.core.live_postings(run, entry, range, &mut |live| {
                let flow = visit(live);
                stopped = flow.is_break();
                flow
            });
            visited.map_err(|error| failed(number, run, error))?;
            if stopped {
                return Ok(());
            }
        }
        if !in_tails.is_empty() {
            // There is nothing behind it to stop before.
            let _ = visit(&in_tails);
        }
        Ok(())
    }
}

fn live_in_tails<'d>(
    data: &'d StreamData,
    layout: &'d Layout,
    subject: &[u8],
) -> impl Iterator<Item = (u64, u32)> + 'd {
    let frozen = layout.frozen.as_deref();
    let in_frozen = frozen.and_then(|tail| tail.subject(subject));
    let in_tail = data.tail.subject(subject);
    in_frozen
        .into_iter()
        .chain(in_tail)
        .flat_map(super::tail::SubjectSeqs::iter)
        .filter(|(seq, _)| data.is_live(*seq))
}
