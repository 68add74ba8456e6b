//! What always holds, each as a predicate with one definition and three users: asserts where live
//! operations end, simulations ([`crate::Store::check_invariants`]) and fuzzing.
//!
//! | | where it is checked |
//! |---|---|
//! | I1 nothing is acknowledged before its frame was synced | [`is_synced`], asserted in the committer |
//! | I2 nothing above the durable sequence is shown | [`is_visible`], asserted where messages are handed out |
//! | I3 positions only rise | [`Violation::FirstAboveEnd`]; the queue's own asserts |
//! | I4 live is readable or reported | [`Violation::ExtentsDisordered`]; the readers' errors |
//! | I5 sealed files never change | [`crate::io::sim::oracle::changed_after_sync`] |
//! | I6, I7 files go only after the commit that no longer needs them | every crash point of the crash tests |
//! | I8 bytes are checked before they are parsed | the fuzz targets of the decoders |
//! | I9 indexes are a function of the data | the tests that delete and garble them |
//! | I10 live sequences, counts | [`Violation::MessageCount`], [`Violation::FirstNotLive`] |
//! | I11 record checksums are computed once | verified by the segment writer |
//! | I12 disk space is bounded by what is live | the tests of compaction |
//! | I13 memory within the budgets | [`Violation::OverBudget`] |
//! | I14 a start reads metadata and log only | the simulation's record of reads |
//! | I15 no acknowledgement after a failed write or sync | asserted in the committer |
//! | I16 floor, deliveries and durable position of consumers | [`crate::consumer::invariants`] |

use std::fmt;

use crate::consumer;
use crate::ids::Lsn;
use crate::limits::MESSAGE_BYTES_MAX;
use crate::stream::core::StreamCore;
use crate::stream::state::StreamData;

/// An invariant that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// I2: readers see sequences that were never given.
    VisibleAboveEnd,
    /// I13: tails hold more than twice their budget and one message.
    OverBudget,
    /// I16: a consumer's own invariant.
    Consumer(consumer::invariants::Violation),
    /// I16: a consumer's position lies behind the end of the stream. Against the durable position
    /// every single delivery is checked.
    DeliveredAboveEnd,
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
        write!(f, "invariant violated: {self:?}")
    }
}

impl std::error::Error for Violation {}

/// I1: what is published now was synced before.
pub fn is_synced(published: Lsn, synced: Lsn) -> bool {
    published <= synced
}

/// I2: a message may be handed out.
pub fn is_visible(seq: u64, durable_seq: u64) -> bool {
    seq <= durable_seq
}

/// I13: tails are within their budget, which appends wait at, and one message that was admitted
/// before by each of `writers`.
pub fn within_tail_budget(tail_bytes: u64, budget: u64, writers: u64) -> bool {
    let overshoot = writers.saturating_mul(MESSAGE_BYTES_MAX as u64);
    tail_bytes <= budget.saturating_add(overshoot)
}

/// The first violated invariant of a stream and its consumers, if any. Walks everything they hold in
/// memory.
pub(crate) fn violated_in(core: &StreamCore) -> Option<Violation> {
    {
        let data = core.lock();
        if let Some(violation) = violated(&data) {
            return Some(violation);
        }
        if core.visible_seq() > data.last_seq {
            return Some(Violation::VisibleAboveEnd);
        }
    }
    let consumers: Vec<_> = core.lock_consumers().values().cloned().collect();
    for consumer in consumers {
        let data = consumer.lock();
        if let Some(violation) = consumer::invariants::violated(&data.state) {
            return Some(Violation::Consumer(violation));
        }
        let end = crate::ids::Seq(core.lock().last_seq);
        if !data.deleted && !consumer::invariants::within_stream(&data.state, end) {
            return Some(Violation::DeliveredAboveEnd);
        }
    }
    None
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
