//! Iterating over what is stored.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::core::StreamCore;
use super::place::Place;
use crate::error::ReadError;
use crate::ids::Seq;
use crate::message::Message;
use crate::subject::Filter;

/// The durable messages of a stream, ascending, as of each step: see [`crate::Stream::messages`].
///
/// A damaged range is one item, [`ReadError::Corrupt`], and the next item lies behind it. After
/// [`ReadError::Io`] the iteration ends.
#[derive(Debug)]
pub struct Messages {
    core: Arc<StreamCore>,
    filters: Vec<Filter>,
    next: u64,
    last: u64,
    place: Place,
}

impl Messages {
    pub(crate) fn new(
        core: Arc<StreamCore>,
        filters: &[Filter],
        range: &RangeInclusive<Seq>,
    ) -> Messages {
        Messages {
            core,
            filters: filters.to_vec(),
            next: range.start().0,
            last: range.end().0,
            place: Place::default(),
        }
    }

    /// Where the next item is looked for.
    pub fn position(&self) -> Seq {
        Seq(self.next)
    }

    /// Goes on at `seq`.
    pub fn seek(&mut self, seq: Seq) {
        self.next = seq.0;
    }

    /// The next message at or behind the position, and the position behind it.
    pub(super) fn step(&mut self) -> Option<Result<Message, ReadError>> {
        if self.next > self.last {
            return None;
        }
        // What becomes visible during the search is left to the next one.
        let visible = self.core.visible_seq();
        let found = self
            .core
            .next_message(&self.filters, self.next, &mut self.place);
        match found {
            Ok(Some(message)) if message.seq.0 <= self.last => {
                self.next = message.seq.0 + 1;
                Some(Ok(message))
            }
            Ok(Some(_)) => None,
            Ok(None) => {
                // Whoever waits for more holds no block.
                self.place.let_go();
                // Nothing up to here matches; it need not be looked at again.
                self.next = self.next.max(visible.min(self.last) + 1);
                None
            }
            Err(ReadError::Corrupt(damage)) if damage.first.0 > self.last => None,
            Err(ReadError::Corrupt(damage)) => {
                self.next = damage.last.0.max(self.next).saturating_add(1);
                Some(Err(ReadError::Corrupt(damage)))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

impl Iterator for Messages {
    type Item = Result<Message, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.step();
        if matches!(item, None | Some(Err(ReadError::Io { .. }))) {
            self.place = Place::default();
            self.last = 0;
            self.next = u64::MAX;
        }
        item
    }
}
