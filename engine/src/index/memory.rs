//! An index of one segment in memory: what is left where no file can be written.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use super::reader::SubjectKey;
use crate::config::Storage;
use crate::error::{Corrupt, ReadError};
use crate::format::key_page::{PAGED_SUBJECT_BYTES_MAX, decode_key, encode_key};
use crate::ids::StreamId;
use crate::limits::accounted_bytes;
use crate::segment::{ScanItem, Segment};
use crate::subject::Filter;

use super::Posting;
use super::cursor::{KeyOrder, OwnedKey};

/// Sees a subject and its sequences, and says whether to go on.
pub type ListVisitor<'v> = dyn FnMut(&[u8], &[Posting]) -> ControlFlow<()> + 'v;

/// The subjects of one sealed file: sequences, ascending, with their accounted sizes.
#[derive(Debug, Default)]
pub struct MemoryRun {
    /// In the order of a run: long keys come last.
    subjects: BTreeMap<OwnedKey, Vec<Posting>>,
}

impl MemoryRun {
    /// Reads the blocks of a sealed file. Damaged ranges are left out and returned.
    pub fn build(segment: &Segment) -> Result<(MemoryRun, Vec<Corrupt>), ReadError> {
        let mut run = MemoryRun::default();
        let mut lost = Vec::new();
        segment.scan(&mut |item| {
            let block = match item {
                ScanItem::Block(block) => block,
                ScanItem::Lost(damage) => {
                    lost.push(damage);
                    return ControlFlow::Continue(());
                }
            };
            for message in block.iter() {
                let layout = message.layout();
                let (subject, headers) = (layout.subject as usize, layout.headers as usize);
                let payload = layout.payload as usize;
                let size = accounted_bytes(Storage::File, subject, headers, payload);
                let size = u32::try_from(size).unwrap_or(u32::MAX);
                let mut key = Vec::new();
                encode_key(block.stream(), message.subject(), &mut key);
                let is_long = subject > PAGED_SUBJECT_BYTES_MAX;
                let postings = run.subjects.entry((is_long, key)).or_default();
                postings.push((message.seq, size));
            }
            ControlFlow::Continue(())
        })?;
        Ok((run, lost))
    }

    /// Whether it has no subject.
    pub fn is_empty(&self) -> bool {
        self.subjects.is_empty()
    }

    /// The sequences of a subject.
    pub fn lookup(&self, subject: &SubjectKey) -> Option<&[Posting]> {
        let key = (subject.is_long(), subject.bytes().to_vec());
        self.subjects.get(&key).map(Vec::as_slice)
    }

    /// The first key after `after` that starts with `prefix`, and its sequences.
    pub(crate) fn next_key(
        &self,
        prefix: &[u8],
        after: Option<KeyOrder<'_>>,
    ) -> Option<(KeyOrder<'_>, &[Posting])> {
        let from = match after {
            Some((is_long, key)) => Bound::Excluded((is_long, key.to_vec())),
            None => Bound::Included((false, prefix.to_vec())),
        };
        self.subjects
            .range((from, Bound::Unbounded))
            .find(|((_, key), _)| key.starts_with(prefix))
            .map(|((is_long, key), postings)| ((*is_long, &key[..]), &postings[..]))
    }

    /// Visits the subjects of a stream that match, in the order of a run.
    pub fn matching(&self, stream: StreamId, filter: &Filter, visit: &mut ListVisitor<'_>) {
        let mut prefix = Vec::new();
        encode_key(stream, filter.prefix(), &mut prefix);
        let mut subject = Vec::new();
        for ((_, key), postings) in &self.subjects {
            // Keys were encoded from a stream and a subject.
            let matches = key.starts_with(&prefix)
                && decode_key(key, &mut subject).is_ok()
                && filter.matches(&subject);
            if matches && visit(&subject, postings).is_break() {
                return;
            }
        }
    }
}
