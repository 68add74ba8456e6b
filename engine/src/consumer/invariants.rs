//! What always holds for a consumer. Used by debug asserts, by the decoder of stored states, by
//! tests and by simulations.

use std::fmt;

use super::config::AckPolicy;
use super::state::ConsumerState;
use crate::ids::Seq;

/// An invariant of [`ConsumerState`] that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// I16: the acknowledgement floor lies above the last delivery.
    FloorAboveDelivered,
    /// I16: an open message lies at or below the floor, or above the last delivery.
    PendingOutsideWindow,
    /// Consumer sequences of open messages do not ascend with the stream sequences.
    PendingUnordered,
    /// The scan position lies at or below the last delivery.
    PositionBehindDelivered,
    /// A listed message lies at or below the last delivery, or at or above the scan position.
    ListedOutsideWindow,
    /// A message is queued, delayed or urgent without being open.
    DueWithoutPending,
    /// A message is open and given up at the same time, or given up without being delivered.
    ExhaustedInconsistent,
    /// A delivery count belongs to no message, or their number is wrong.
    DeliveriesInconsistent,
    /// Something is open although nothing waits for acknowledgements.
    OpenWithoutAcks,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "consumer invariant violated: {self:?}")
    }
}

/// The first violated invariant, if any. Walks everything the consumer holds.
pub fn violated(state: &ConsumerState) -> Option<Violation> {
    let (delivered, floor) = (state.delivered, state.floor);
    if floor.consumer > delivered.consumer || floor.stream > delivered.stream {
        return Some(Violation::FloorAboveDelivered);
    }
    if state.next <= delivered.stream {
        return Some(Violation::PositionBehindDelivered);
    }
    let listed_low = state
        .open
        .listed
        .min()
        .is_some_and(|seq| seq <= delivered.stream);
    if listed_low || state.open.listed.max().is_some_and(|seq| seq >= state.next) {
        return Some(Violation::ListedOutsideWindow);
    }
    let nothing_open = state.open.pending.is_empty() && state.open.exhausted.is_empty();
    if state.config.ack == AckPolicy::None && !nothing_open {
        return Some(Violation::OpenWithoutAcks);
    }
    let mut consumer_seq = 0;
    for (seq, entry) in state.open.pending.iter() {
        if seq <= floor.stream || seq > delivered.stream || entry.consumer_seq > delivered.consumer
        {
            return Some(Violation::PendingOutsideWindow);
        }
        if entry.consumer_seq <= consumer_seq {
            return Some(Violation::PendingUnordered);
        }
        consumer_seq = entry.consumer_seq;
    }
    let open = |seq: u64| state.open.pending.contains(seq);
    let due = state
        .open
        .queue
        .iter()
        .chain(&state.open.urgent)
        .chain(state.open.delayed.keys().copied());
    if !{ due }.all(open) {
        return Some(Violation::DueWithoutPending);
    }
    if !state
        .open
        .exhausted
        .iter()
        .all(|seq| seq > 0 && seq <= delivered.stream && !open(seq))
    {
        return Some(Violation::ExhaustedInconsistent);
    }
    let known = |seq: u64| open(seq) || state.open.exhausted.contains(seq);
    let redelivered = state
        .open
        .deliveries
        .iter()
        .filter(|&(_, count)| count > 1)
        .count() as u64;
    if redelivered != state.open.deliveries.redelivered()
        || !state.open.deliveries.iter().all(|(seq, _)| known(seq))
    {
        return Some(Violation::DeliveriesInconsistent);
    }
    None
}

/// I16 against the stream: nothing is delivered that lies behind `last`.
pub fn within_stream(state: &ConsumerState, last: Seq) -> bool {
    state.info().delivered.stream_seq <= last
}

/// Panics in debug builds when an invariant is violated. The walk is skipped for consumers that
/// hold so much that it would dominate a debug run.
pub(super) fn debug_check(state: &ConsumerState) {
    if cfg!(debug_assertions)
        && state.open.pending.len() <= 256
        && state.open.exhausted.len() <= 256
    {
        debug_assert_eq!(violated(state), None);
    }
}
