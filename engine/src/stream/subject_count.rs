//! How many subjects a stream has, kept up to date at the cost of what was appended since it was
//! asked for last.

use std::collections::HashSet;
use std::ops::ControlFlow;

use super::core::StreamCore;
use super::layout::{IndexError, Layout, failed};
use super::state::StreamData;
use super::tail::SubjectSeqs;
use crate::error::ReadError;
use crate::index::SubjectKey;
use crate::subject::Filter;

/// Subjects of newly sealed data that are looked up one by one; where there may be more all subjects
/// are walked, which takes no memory for their names.
const SEALED_SUBJECTS_MAX: u64 = 1 << 17;

/// The number of subjects with live messages up to a sequence.
#[derive(Clone, Copy, Debug)]
pub(super) struct SubjectCount {
    removal_epoch: u64,
    last_seq: u64,
    count: u64,
}

impl StreamCore {
    /// Number of subjects with live messages.
    pub fn num_subjects(&self) -> Result<u64, ReadError> {
        let (removal_epoch, last_seq) = {
            let data = self.lock();
            if !data.has_prior_data() {
                return Ok(data.tail.subjects_len());
            }
            (data.removal_epoch, data.last_seq)
        };
        let known = *self.lock_subject_count();
        if let Some(known) = known
            && known.removal_epoch == removal_epoch
        {
            if known.last_seq >= last_seq {
                return Ok(known.count);
            }
            if let Some(new) = self.with_index(&mut |layout| self.subjects_since(layout, &known))? {
                self.remember(new);
                return Ok(new.count);
            }
        }
        let mut count = 0;
        self.walk_subjects(&Filter::all(), &mut |subject| {
            count += u64::from(subject.is_live(last_seq)?);
            Ok(ControlFlow::Continue(()))
        })?;
        // What damage hides may come back.
        if self
            .with_index(&mut |layout| self.check_whole(layout))
            .is_ok()
        {
            self.remember(SubjectCount {
                removal_epoch,
                last_seq,
                count,
            });
        }
        Ok(count)
    }

    /// Keeps a count, unless something was removed while it was made.
    fn remember(&self, new: SubjectCount) {
        let mut known = self.lock_subject_count();
        let is_exact = self.lock().removal_epoch == new.removal_epoch;
        let is_newer = known.is_none_or(|known| {
            (known.removal_epoch, known.last_seq) < (new.removal_epoch, new.last_seq)
        });
        if is_exact && is_newer {
            *known = Some(new);
        }
    }

    /// The present count, from an earlier one; `None` where a walk is cheaper or something was
    /// removed since.
    fn subjects_since(
        &self,
        layout: &Layout,
        known: &SubjectCount,
    ) -> Result<Option<SubjectCount>, IndexError> {
        let mut new = HashSet::new();
        let last_seq = {
            let data = self.lock();
            data.is_at(layout)?;
            if data.removal_epoch != known.removal_epoch {
                return Ok(None);
            }
            let tails = layout.frozen.as_deref().into_iter().chain([&data.tail]);
            for message in tails.flat_map(|tail| tail.iter_from(known.last_seq + 1)) {
                let subject = message.subject();
                if data.is_live(message.seq.0) && !new.contains(subject) {
                    new.insert(Box::from(subject));
                }
            }
            new.retain(|subject| !is_in_tails(&data, layout, subject, known.last_seq));
            data.last_seq
        };
        if !self.sealed_since(layout, known.last_seq, &mut new)? {
            return Ok(None);
        }
        let mut count = known.count;
        for subject in &new {
            count += u64::from(!self.is_sealed(layout, subject, known.last_seq)?);
        }
        Ok(Some(SubjectCount {
            last_seq,
            count,
            ..*known
        }))
    }

    /// Adds the subjects of parts behind `seq`; false if they may be too many.
    fn sealed_since(
        &self,
        layout: &Layout,
        seq: u64,
        new: &mut HashSet<Box<[u8]>>,
    ) -> Result<bool, IndexError> {
        let mut subjects_max = 0;
        let parts = layout.parts.iter().enumerate();
        for (number, part) in parts.filter(|(_, part)| part.last > seq) {
            let Some(live) = self.first_live(part.first.max(seq + 1), part.last) else {
                continue;
            };
            let run = layout.open(number)?;
            let span = part.last - part.first + 1;
            subjects_max += run.keys().map_or(span, |keys| keys.min(span));
            if subjects_max > SEALED_SUBJECTS_MAX {
                return Ok(false);
            }
            let mut failure = None;
            let walked = run.matching(self.id, &Filter::all(), &mut |subject, entry| {
                let is_new = entry.last() >= live && !new.contains(subject);
                match is_new.then(|| self.newest_live(&run, &entry, live, part.last)) {
                    Some(Ok(Some(_))) => {
                        new.insert(Box::from(subject));
                    }
                    Some(Err(error)) => failure = Some(error),
                    _ => {}
                }
                match failure.is_some() {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            });
            if let Some(error) = failure.or(walked.err()) {
                return Err(failed(number, &run, error));
            }
        }
        let data = self.lock();
        data.is_at(layout)?;
        new.retain(|subject| !is_in_tails(&data, layout, subject, seq));
        Ok(true)
    }

    fn first_live(&self, first: u64, last: u64) -> Option<u64> {
        let data = self.lock();
        let first = data.tombstones.next_live(first.max(data.first_seq));
        (first <= last).then_some(first)
    }

    /// Whether a subject has a live message up to `to` in sealed data.
    fn is_sealed(&self, layout: &Layout, subject: &[u8], to: u64) -> Result<bool, IndexError> {
        let key = SubjectKey::new(self.id, subject);
        for (number, part) in layout.parts.iter().enumerate() {
            if part.first > to {
                break;
            }
            let run = layout.open(number)?;
            let entry = run.lookup(&key);
            let Some(entry) = entry.map_err(|error| failed(number, &run, error))? else {
                continue;
            };
            if self
                .newest_of_entry(layout, number, &run, &entry, to)?
                .is_some()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether a subject has a live message up to `to` in RAM.
fn is_in_tails(data: &StreamData, layout: &Layout, subject: &[u8], to: u64) -> bool {
    let mut tails = layout.frozen.as_deref().into_iter().chain([&data.tail]);
    tails.any(|tail| {
        let seqs = tail
            .subject(subject)
            .into_iter()
            .flat_map(SubjectSeqs::iter);
        let mut seqs = seqs.take_while(|(seq, _)| *seq <= to);
        seqs.any(|(seq, _)| data.is_live(seq))
    })
}
