//! Where a reader that walks along is, with what it needs again for the next message.
//!
//! A block stays in the reader's hands until it reads elsewhere: its messages follow without a look
//! at files, tables, caches and, as long as nothing is removed, the stream's lock. A block is
//! verified when it is loaded and its messages never change, so that files may be replaced or
//! unlinked meanwhile. Which of its messages are live is asked anew after every removal.

use std::sync::Arc;

use super::core::StreamCore;
use super::resolved::Resolved;
use crate::format::block::RecordSpan;
use crate::ids::Seq;
use crate::message::Message;
use crate::segment::{BlockCursor, DecodedBlock, WeakCursor};
use crate::subject::Filter;

/// Sequences whose liveness is asked at once.
const WINDOW_SEQS: u64 = u64::BITS as u64;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Place {
    pub(super) resolved: Resolved,
    held: Option<Held>,
    /// The block of a place that is kept for later.
    left: Option<WeakCursor>,
}

/// A block, and what is live in it.
#[derive(Debug)]
struct Held {
    cursor: BlockCursor,
    live: Option<Window>,
}

/// Which of [`WINDOW_SEQS`] sequences are live, as of a removal epoch.
#[derive(Clone, Copy, Debug)]
struct Window {
    first: u64,
    live: u64,
    epoch: u64,
}

impl Window {
    /// The first live sequence at or behind `seq` in the window; `None` if there is none, or if the
    /// window no longer tells.
    fn next_live(&self, seq: u64, epoch: u64) -> Option<u64> {
        let at = seq.checked_sub(self.first)?;
        if at >= WINDOW_SEQS || self.epoch != epoch {
            return None;
        }
        let live = self.live >> at;
        (live != 0).then(|| seq + u64::from(live.trailing_zeros()))
    }
}

impl Place {
    /// True if there is nothing to go on with.
    pub(super) fn is_empty(&self) -> bool {
        self.resolved.is_empty() && self.held.is_none() && self.left.is_none()
    }

    /// Holds a block that was just loaded.
    pub(super) fn hold(&mut self, block: Arc<DecodedBlock>) {
        self.held = Some(Held {
            cursor: BlockCursor::new(block),
            live: None,
        });
    }

    /// Lets go of the block: the reader is in RAM, or at the end.
    pub(super) fn let_go(&mut self) {
        self.held = None;
    }

    /// Prepares for an idle time of unknown length: there may be any number of idle readers, so they
    /// must not hold memory. If the block is still cached by then, the reader goes on in it.
    pub(super) fn rest(&mut self) {
        let held = self.held.take();
        self.left = held.map(|held| held.cursor.downgrade());
    }

    /// Ends the rest.
    pub(super) fn resume(&mut self) {
        let left = self.left.take();
        self.held = left
            .and_then(|left| left.upgrade())
            .map(|cursor| Held { cursor, live: None });
    }

    /// The message at `seq`, which is known to be live, if its block is held.
    pub(super) fn read(&mut self, seq: u64) -> Option<Message> {
        let held = self.held.as_mut()?;
        if !held.cursor.covers(Seq(seq)) {
            return None;
        }
        let span = held.cursor.find(Seq(seq))?;
        held.cursor.block().message(&span)
    }

    /// Looks for the first live match in the block that is held, up to `visible`; leaves `seq` where
    /// the search should go on.
    pub(super) fn next_in_block(
        &mut self,
        stream: &StreamCore,
        filters: &[Filter],
        seq: &mut u64,
        visible: u64,
    ) -> Option<Message> {
        let held = self.held.as_mut()?;
        loop {
            *seq = held.next_live(stream, *seq, visible)?;
            // Live but not in the block: whoever reads it without the block says what that means.
            let span = held.cursor.find(Seq(*seq))?;
            if held.matches(filters, &span) {
                return held.cursor.block().message(&span);
            }
            *seq += 1;
        }
    }
}

impl Held {
    /// The first live sequence at or behind `seq` that the block covers.
    fn next_live(&mut self, stream: &StreamCore, seq: u64, visible: u64) -> Option<u64> {
        let end = visible.min(self.cursor.block().last_seq().0);
        if seq > end || !self.cursor.covers(Seq(seq)) {
            return None;
        }
        let epoch = stream.removals();
        let known = self.live.and_then(|window| window.next_live(seq, epoch));
        let found = match known {
            Some(found) => found,
            None => {
                let data = stream.lock();
                let first = data.tombstones.next_live(seq.max(data.first_seq));
                self.live = Some(Window {
                    first,
                    live: data.live_among_next(first),
                    epoch: data.removal_epoch,
                });
                first
            }
        };
        (found <= end).then_some(found)
    }

    fn matches(&self, filters: &[Filter], span: &RecordSpan) -> bool {
        let subject = self.cursor.block().subject(span);
        filters.is_empty() || filters.iter().any(|filter| filter.matches(subject))
    }
}
