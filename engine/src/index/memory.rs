//! An index of one segment in memory: what is left where no file can be written.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use crate::config::Storage;
use crate::error::{Corrupt, ReadError};
use crate::ids::{Seq, StreamId};
use crate::limits::accounted_bytes;
use crate::segment::{ScanItem, Segment};
use crate::subject::Filter;

/// Sequences of one subject, ascending, with their accounted sizes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryEntry {
    /// The sequences.
    pub postings: Vec<(Seq, u32)>,
}

/// The subjects of one sealed file.
#[derive(Debug, Default)]
pub struct MemoryRun {
    subjects: BTreeMap<(StreamId, Box<[u8]>), MemoryEntry>,
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
            {
                for message in block.iter() {
                    let layout = message.layout();
                    let (subject, headers) = (layout.subject as usize, layout.headers as usize);
                    let payload = layout.payload as usize;
                    let size = accounted_bytes(Storage::File, subject, headers, payload);
                    let size = u32::try_from(size).unwrap_or(u32::MAX);
                    let key = (block.stream(), Box::from(message.subject()));
                    run.subjects
                        .entry(key)
                        .or_default()
                        .postings
                        .push((message.seq, size));
                }
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
    pub fn lookup(&self, stream: StreamId, subject: &[u8]) -> Option<&MemoryEntry> {
        self.subjects.get(&(stream, Box::from(subject)))
    }

    /// Visits the subjects of a stream that match, in subject order.
    pub fn matching(
        &self,
        stream: StreamId,
        filter: &Filter,
        visit: &mut dyn FnMut(&[u8], &MemoryEntry) -> ControlFlow<()>,
    ) {
        let from = (stream, Box::from(filter.prefix()));
        let until = (Bound::Included(from), Bound::Unbounded);
        for ((of, subject), entry) in self.subjects.range(until) {
            if *of != stream || !subject.starts_with(filter.prefix()) {
                return;
            }
            if filter.matches(subject) && visit(subject, entry).is_break() {
                return;
            }
        }
    }
}
