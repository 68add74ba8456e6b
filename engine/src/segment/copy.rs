//! Reading whole blocks to copy what is in them.

use std::sync::Arc;

use super::decoded::{DecodedBlock, Stretch};
use super::reader::{LoadError, Segment};
use crate::error::ReadError;
use crate::format::block::HEAD_BYTES;
use crate::ids::{Seq, StreamId};

impl Segment {
    /// The block that covers `at_or_after`, or else the first one of the stream behind it, and the
    /// bytes that were read for it. Past the cache: what is copied is not read again soon.
    ///
    /// # Errors
    ///
    /// [`ReadError::Corrupt`] if the block is damaged anywhere, also if every message in it can
    /// still be read.
    pub fn block_past_cache(
        &self,
        stream: StreamId,
        at_or_after: Seq,
    ) -> Result<Option<(Arc<DecodedBlock>, u64)>, ReadError> {
        let found = self.with_table(|table| self.locate(table, stream, at_or_after, true))?;
        let Some(found) = found else {
            return Ok(None);
        };
        let damaged = |reason: String| {
            let (first, last) = (found.first_seq, found.last_seq);
            let report = self.report(stream, first, last, found.offset, reason);
            ReadError::Corrupt(Box::new(report))
        };
        let loaded = match self.read_block(&found) {
            Ok(loaded) => loaded,
            Err(LoadError::Io(error)) => return Err(error),
            Err(LoadError::Damaged(reason)) => return Err(damaged(reason)),
        };
        if let Some(reason) = loaded.damage() {
            return Err(damaged(reason.to_string()));
        }
        match loaded.stretch(found.first_seq) {
            Some(Stretch::Good(block)) => {
                let bytes = HEAD_BYTES as u64 + u64::from(found.disk_len);
                Ok(Some((block, bytes)))
            }
            _ => Err(damaged("the block is empty".to_owned())),
        }
    }
}
