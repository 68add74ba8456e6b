//! What always holds for a stream's state; consumers have theirs in
//! [`crate::consumer::invariants`]. Checked where live operations change a state, and by tests.

use std::fmt;

use crate::stream::state::StreamData;

/// An invariant of a stream that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// I3: the first sequence lies more than one above the last.
    FirstAboveEnd,
    /// I10: the number of messages is not that of the live sequences.
    MessageCount,
    /// I10: the first sequence is not live, or messages are counted where none is.
    FirstNotLive,
    /// I4: sealed ranges overlap, are out of order, or reach into the tail.
    ExtentsDisordered,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream invariant violated: {self:?}")
    }
}

/// The first violated invariant, if any. Costs the number of sealed files and tombstone containers.
pub(crate) fn violated(data: &StreamData) -> Option<Violation> {
    if data.first_seq > data.last_seq + 1 {
        return Some(Violation::FirstAboveEnd);
    }
    if data.msgs != data.live_in(data.first_seq, data.last_seq) {
        return Some(Violation::MessageCount);
    }
    let is_empty = data.first_seq == data.last_seq + 1;
    if is_empty != (data.msgs == 0) || (!is_empty && !data.is_live(data.first_seq)) {
        return Some(Violation::FirstNotLive);
    }
    let mut end = 0;
    for extent in data.extents.iter() {
        if extent.first <= end || extent.last < extent.first {
            return Some(Violation::ExtentsDisordered);
        }
        end = extent.last;
    }
    (data.tail.base() <= end).then_some(Violation::ExtentsDisordered)
}

/// Panics in debug builds if an invariant is violated. Only where a live operation ends: what comes
/// from the disk is never asserted on.
pub(crate) fn debug_check(data: &StreamData) {
    if cfg!(debug_assertions)
        && let Some(violation) = violated(data)
    {
        panic!("{violation}: {data:?}");
    }
}
