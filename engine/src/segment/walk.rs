//! Reading a range of one stream, past the cache, with what is lost of it.

use std::ops::ControlFlow;

use super::decoded::Stretch;
use super::reader::{LoadError, ScanItem, Segment};
use crate::error::{Corrupt, ReadError};
use crate::ids::{Seq, StreamId};

impl Segment {
    /// Visits what the segment holds of a stream from the block that covers `first` to the one that
    /// covers `last`, ascending: blocks may reach beyond both ends. What the device refuses to read
    /// is visited as lost.
    ///
    /// # Errors
    ///
    /// Only [`ReadError::Io`], if the file cannot be opened or its table not be read.
    pub(crate) fn walk(
        &self,
        stream: StreamId,
        first: Seq,
        last: Seq,
        visit: &mut dyn FnMut(ScanItem) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let mut seq = first;
        while seq <= last {
            let found = match self.with_table(|table| self.locate(table, stream, seq, true)) {
                Ok(Some(found)) if found.first_seq <= last => found,
                Ok(_) => return Ok(()),
                Err(ReadError::Corrupt(hole)) => {
                    seq = Seq(hole.last.0.saturating_add(1));
                    if visit(ScanItem::Lost(*hole)).is_break() {
                        return Ok(());
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            seq = Seq(found.last_seq.0.saturating_add(1));
            let lost = |first: Seq, last: Seq, reason: String| -> Corrupt {
                self.report(stream, first, last, found.offset, reason)
            };
            let whole = |reason| lost(found.first_seq, found.last_seq, reason);
            let loaded = match self.read_block(&found) {
                Ok(loaded) => loaded,
                Err(LoadError::Io(error)) => {
                    // If it is there at all, the failure is that of these sectors.
                    self.file()?;
                    if visit(ScanItem::Lost(whole(error.to_string()))).is_break() {
                        return Ok(());
                    }
                    continue;
                }
                Err(LoadError::Damaged(reason)) => {
                    if visit(ScanItem::Lost(whole(reason))).is_break() {
                        return Ok(());
                    }
                    continue;
                }
            };
            for stretch in loaded.stretches() {
                let item = match stretch {
                    Stretch::Good(block) => ScanItem::Block(block),
                    Stretch::Lost {
                        first,
                        last,
                        reason,
                    } => ScanItem::Lost(lost(first, last, reason.to_string())),
                };
                if visit(item).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
