//! Consumers: named cursors over a stream with acknowledgement and redelivery.
//!
//! Everything here is a pure state machine: no clock, no lock, no I/O. The stream owns the
//! messages, so a delivery takes two steps with the read in between, outside of any lock:
//!
//! 1. [`ConsumerState::plan`] says what may be delivered now: a redelivery, the first match from a
//!    position on, or nothing.
//! 2. The caller reads the message and commits with [`ConsumerState::redeliver`],
//!    [`ConsumerState::deliver_new`] or [`ConsumerState::skip_to`]. A commit answers [`Moved`] when
//!    the plan is out of date, and the caller plans again. A message that is read but not
//!    committed (too large for the request, T-45) has simply not been touched.
//!
//! Durability: [`ConsumerState::drain_events`] yields what happened as compact bytes for the
//! write-ahead log; a snapshot and [`ConsumerState::apply_events`] bring the same state back. A
//! snapshot is [whole](ConsumerState::encode_snapshot), or a head and the containers that changed. The order of the redelivery queue is not stored: what was queued is due at
//! once after a restart.
//!
//! Row ids such as `T-58` or `DLV-013` name the observable rules that the code obeys.

mod acks;
mod claim;
mod codec;
mod config;
mod containers;
mod delivery_counts;
mod effects;
mod events;
pub mod invariants;
mod notice;
mod num_pending;
mod open;
mod pending;
mod redelivery_queue;
mod removal;
mod snapshot;
mod state;

#[cfg(test)]
mod tests;

pub use acks::{AckOutcome, Acked};
pub use claim::Claim;
pub use codec::ConsumerFormatError;
pub use config::{AckPolicy, ConsumerConfig, DeliverPolicy};
pub use notice::{Notice, RemovalReason};
pub use num_pending::PendingCount;
pub use removal::Purge;
pub use state::{
    BlockReason, ConsumerPosition, ConsumerState, ConsumerStateInfo, Delivered, Moved, Plan,
    StartPosition,
};
