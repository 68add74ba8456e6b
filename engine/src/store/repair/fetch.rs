//! Takes lost messages from a source and checks them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::report::RepairError;
use super::source::RangeSource;
use crate::ids::{Seq, StreamId};
use crate::message::Message;
use crate::segment::{ExpectedBlock, Proof, Segment};
use crate::stream::core::StreamCore;

/// Sequences asked for at a time where no block says how many belong together.
const PIECE_SEQS: u64 = 1024;

/// Messages of a part of a lost range.
#[derive(Debug)]
pub(super) struct Piece {
    /// The last sequence of the part.
    pub last: u64,
    /// What the source has of it, bound to the stream.
    pub messages: Vec<Message>,
    /// The block table proves that they are what was lost.
    pub proven: bool,
}

/// A stream's extent in a damaged file.
pub(super) struct Fetch<'a> {
    pub core: &'a StreamCore,
    pub segment: &'a Segment,
    pub source: &'a dyn RangeSource,
}

impl Fetch<'_> {
    /// The part of the lost range `first..=last` that begins at `first`.
    pub fn piece(&self, first: u64, last: u64) -> Result<Piece, RepairError> {
        let stream = self.core.id;
        match self.segment.expected_block(stream, Seq(first)) {
            Some(block) => self.of_block(&block, first, last),
            None => {
                let last = last.min(first.saturating_add(PIECE_SEQS - 1));
                let messages = self.ask(Seq(first), Seq(last))?;
                Ok(Piece {
                    last,
                    messages: messages.into_values().collect(),
                    proven: false,
                })
            }
        }
    }

    /// Of the whole block, because only the whole of it can be compared with what is known.
    fn of_block(&self, block: &ExpectedBlock, first: u64, last: u64) -> Result<Piece, RepairError> {
        let fetched = self.ask(block.first, block.last)?;
        let mut all = fetched.clone();
        for message in self.segment.readable(self.core.id, block.first, block.last) {
            all.insert(message.seq.0, message);
        }
        let proof = block.compare(self.core.id, all.values().map(Message::as_record));
        let last = last.min(block.last.0);
        let mut messages: Vec<Message> = fetched.into_values().collect();
        messages.retain(|m| first <= m.seq.0 && m.seq.0 <= last);
        if proof == Proof::Different {
            tracing::error!(
                stream = %self.core.name,
                first = block.first.0,
                last = block.last.0,
                "the source has other messages than those that were lost"
            );
            messages.clear();
        }
        Ok(Piece {
            last,
            messages,
            proven: proof == Proof::Same,
        })
    }

    /// The messages that the source has in a range, each checked against the checksum it came with.
    fn ask(&self, first: Seq, last: Seq) -> Result<BTreeMap<u64, Message>, RepairError> {
        let mut messages = BTreeMap::new();
        let own = self.core.id;
        let mut take = |bound_to: StreamId, message: Message| {
            let inside = first <= message.seq && message.seq <= last;
            if inside && message.as_record().verify(bound_to).is_ok() {
                messages.insert(message.seq.0, rebound(message, bound_to, own));
            }
            ControlFlow::Continue(())
        };
        self.source
            .messages(&self.core.name, first, last, &mut take)
            .map_err(RepairError::Source)?;
        Ok(messages)
    }
}

/// The message with the checksum that binds it to `own`.
fn rebound(mut message: Message, bound_to: StreamId, own: StreamId) -> Message {
    if bound_to != own {
        message.crc = message.as_record().computed_crc(own);
    }
    message
}
