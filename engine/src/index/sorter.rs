//! Puts the subjects of messages in the order of a run.

use std::io;

use super::writer::RunWriter;
use crate::format::key_page::{PAGED_SUBJECT_BYTES_MAX, encode_key};
use crate::ids::{Seq, StreamId};

/// Messages of one stream with their keys, in one allocation each.
#[derive(Debug, Default)]
pub(super) struct Sorter {
    keys: Vec<u8>,
    items: Vec<Item>,
    /// Bytes that all keys begin with.
    shared: usize,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    /// What follows the bytes that all keys share: decides nearly all comparisons.
    lead: u64,
    seq: Seq,
    start: u32,
    len: u32,
    size: u32,
}

impl Item {
    fn key<'k>(&self, keys: &'k [u8]) -> &'k [u8] {
        let start = self.start as usize;
        &keys[start..start + self.len as usize]
    }
}

impl Sorter {
    /// RAM that the messages take, in bytes.
    pub fn bytes(&self) -> usize {
        self.keys.len() + self.items.len() * size_of::<Item>()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Adds a message behind the others of the stream. False, and nothing happens, if there is no
    /// room for it.
    pub fn add(&mut self, stream: StreamId, subject: &[u8], seq: Seq, size: u32) -> bool {
        let start = self.keys.len();
        let key_bytes_max = 8 + subject.len();
        let (Ok(at), true) = (
            u32::try_from(start),
            u32::try_from(start + key_bytes_max).is_ok(),
        ) else {
            return false;
        };
        encode_key(stream, subject, &mut self.keys);
        let (before, key) = self.keys.split_at(start);
        match self.items.first() {
            None => self.shared = key.len(),
            Some(first) => {
                let first = first.key(before);
                if key.get(..self.shared) != first.get(..self.shared) {
                    let same = key.iter().zip(first).take_while(|(a, b)| a == b);
                    self.shared = self.shared.min(same.count());
                }
            }
        }
        let len = key.len() as u32;
        self.items.push(Item {
            lead: 0,
            seq,
            start: at,
            len,
            size,
        });
        true
    }

    /// Writes all subjects and forgets them.
    pub fn write(&mut self, writer: &mut RunWriter) -> io::Result<()> {
        let (keys, shared) = (&self.keys[..], self.shared);
        for item in &mut self.items {
            let rest = &item.key(keys)[shared..];
            let mut lead = [0; 8];
            let len = rest.len().min(lead.len());
            lead[..len].copy_from_slice(&rest[..len]);
            item.lead = u64::from_be_bytes(lead);
        }
        self.items.sort_unstable_by(|a, b| {
            let by_key = || a.key(keys)[shared..].cmp(&b.key(keys)[shared..]);
            let by_lead = a.lead.cmp(&b.lead);
            by_lead.then_with(by_key).then_with(|| a.seq.cmp(&b.seq))
        });
        for group in self.items.chunk_by(|a, b| a.key(keys) == b.key(keys)) {
            let Some(first) = group.first() else {
                continue;
            };
            let key = first.key(keys);
            let is_long = key.len() > 8 + PAGED_SUBJECT_BYTES_MAX;
            writer.begin_key(key, is_long)?;
            for item in group {
                writer.push_posting(item.seq, item.size)?;
            }
            writer.end_subject()?;
        }
        self.keys.clear();
        self.items.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::key_page::compare_subjects;

    proptest! {
        #[test]
        fn messages_are_sorted_by_subject_and_sequence(
            subjects in prop::collection::vec("[a.\\-z]{1,12}", 1..60),
        ) {
            let mut sorter = Sorter::default();
            for (seq, subject) in (1..).zip(&subjects) {
                prop_assert!(sorter.add(StreamId(3), subject.as_bytes(), Seq(seq), 7));
            }
            let mut expected: Vec<_> = (1..).zip(&subjects).collect();
            expected.sort_by(|(seq_a, a), (seq_b, b)| {
                compare_subjects(a.as_bytes(), b.as_bytes()).then(seq_a.cmp(seq_b))
            });
            let (_, env) = crate::segment::tests::memory::MemoryIo::env();
            let path = std::path::Path::new("/1.idx");
            let source = super::super::RunSource::Merged(crate::ids::SegmentId(1));
            let mut writer = RunWriter::new(&env, path, 1, source, 60)?;
            sorter.write(&mut writer)?;
            let sealed = writer.finish(0)?;
            let manifest = super::super::RunManifest {
                id: crate::ids::SegmentId(1),
                file_bytes: sealed.file_bytes,
                footer_digest: sealed.footer_digest,
            };
            let cache = std::sync::Arc::new(crate::cache::Cache::new(1 << 20, 8));
            let wanted = super::super::RunIdentity::Exactly(manifest);
            let run = super::super::Run::open(&env, path, 1, &wanted, cache).expect("a run");
            let mut found = Vec::new();
            let all = crate::subject::Filter::all();
            run.matching(StreamId(3), &all, &mut |subject, entry| {
                run.postings(&entry, Seq(0), &mut |seq, _| {
                    found.push((seq.0, String::from_utf8_lossy(subject).into_owned()));
                    std::ops::ControlFlow::Continue(())
                })
                .expect("postings");
                std::ops::ControlFlow::Continue(())
            })
            .expect("subjects");
            let expected: Vec<_> = expected.into_iter().map(|(seq, s)| (seq, s.clone())).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
