//! What a damaged block held, as far as the block table and its head still tell.

use std::ops::ControlFlow;

use super::reader::{ScanItem, Segment};
use crate::format::block::{BlockBuilder, BlockHead, Codec, HEAD_BYTES};
use crate::format::block_table::BlockRef;
use crate::format::record::Record;
use crate::ids::{Seq, StreamId};
use crate::message::Message;

/// A block that cannot be read whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExpectedBlock {
    pub first: Seq,
    pub last: Seq,
    /// Number of its records, if its head is readable.
    pub count: Option<u32>,
    /// `None` in an encrypted file, which has digests of what it stores only: one of the content
    /// would confirm a guess.
    content_digest: Option<u64>,
}

/// Whether records are those that a block held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// They are.
    Same,
    /// They are as many, and others.
    Different,
    /// Some are missing: nobody can tell.
    Unknown,
}

impl Segment {
    /// The block that covers `seq` according to the table.
    pub(crate) fn expected_block(&self, stream: StreamId, seq: Seq) -> Option<ExpectedBlock> {
        let found = self.with_table(|table| self.locate(table, stream, seq, false));
        let found = found.ok().flatten()?;
        Some(ExpectedBlock {
            first: found.first_seq,
            last: found.last_seq,
            count: self.head_of(&found).map(|head| head.count),
            content_digest: self.key_id().is_none().then_some(found.content_digest),
        })
    }

    fn head_of(&self, found: &BlockRef) -> Option<BlockHead> {
        let mut bytes = [0_u8; HEAD_BYTES];
        let file = self.file().ok()?;
        file.read_exact_at(&mut bytes, found.offset).ok()?;
        BlockHead::decode(self.opener.identity(), found.offset, &bytes).ok()
    }

    /// Readable messages of a stream from `first` to `last`.
    pub(crate) fn readable(&self, stream: StreamId, first: Seq, last: Seq) -> Vec<Message> {
        let mut messages = Vec::new();
        // What cannot be read is not among them.
        let _ = self.walk(stream, first, last, &mut |item| {
            if let ScanItem::Block(block) = item {
                let inside = block.iter_from(first).take_while(|m| m.seq <= last);
                messages.extend(inside);
            }
            ControlFlow::Continue(())
        });
        messages
    }
}

impl ExpectedBlock {
    /// Compares records, ascending, with the digest of the block's content.
    pub fn compare<'a>(
        &self,
        stream: StreamId,
        records: impl Iterator<Item = Record<'a>>,
    ) -> Proof {
        let mut builder = BlockBuilder::new(stream);
        let mut count = 0;
        for record in records {
            if builder.push(&record).is_err() {
                return Proof::Unknown;
            }
            count += 1;
        }
        if count == 0 {
            return Proof::Unknown;
        }
        let Some(expected) = self.content_digest else {
            return Proof::Unknown;
        };
        let digest = builder.finish(Codec::None).head.content_digest;
        match self.count {
            _ if digest == expected => Proof::Same,
            Some(expected) if expected == count => Proof::Different,
            _ => Proof::Unknown,
        }
    }
}
