//! Where a repair takes messages from that the store has lost.

use std::fmt;
use std::ops::ControlFlow;

use crate::ids::{Seq, StreamId};
use crate::message::Message;

/// Somebody who has messages that a store has lost: a backup, or another copy of the stream.
pub trait RangeSource {
    /// Hands over the messages of a stream from `first` to `last` that the source has, ascending and
    /// with the sequences they have in the stream. `take` gets with each the id of the stream that the
    /// message's checksum binds; when it breaks, no more are wanted. A source that does not know the
    /// stream has none.
    ///
    /// # Errors
    ///
    /// If the source cannot answer.
    fn messages(
        &self,
        stream: &str,
        first: Seq,
        last: Seq,
        take: &mut dyn FnMut(StreamId, Message) -> ControlFlow<()>,
    ) -> Result<(), SourceError>;
}

/// A source could not answer; the text says why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceError(pub String);

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SourceError {}
