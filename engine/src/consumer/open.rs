//! What a consumer knows of single messages, and a place for it that costs nothing while there is
//! none: a consumer that has caught up holds positions and counters only.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::LazyLock;

use roaring::RoaringTreemap;

use super::containers::Changed;
use super::delivery_counts::DeliveryCounts;
use super::pending::{PendingTable, Tick};
use super::redelivery_queue::RedeliveryQueue;

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub(super) struct Open {
    /// Messages to deliver before the position.
    pub(super) listed: RoaringTreemap,
    pub(super) pending: PendingTable,
    pub(super) queue: RedeliveryQueue,
    /// Deliveries of messages pending or given up, where it is not 1. 0 after a first delivery was
    /// taken back.
    pub(super) deliveries: DeliveryCounts,
    /// Pending messages that are due whatever their last delivery: refused or taken back.
    pub(super) urgent: RoaringTreemap,
    /// Pending messages refused with a delay, and when they are due.
    pub(super) delayed: BTreeMap<u64, Tick>,
    /// Messages given up after the last allowed delivery and still stored (T-59).
    pub(super) exhausted: RoaringTreemap,
    /// What the next checkpoint has to write.
    pub(super) changed: Changed,
}

static NOTHING: LazyLock<Open> = LazyLock::new(Open::default);

impl Open {
    fn is_empty(&self) -> bool {
        self.listed.is_empty()
            && self.pending.is_empty()
            && self.queue.is_empty()
            && self.deliveries.is_empty()
            && self.urgent.is_empty()
            && self.delayed.is_empty()
            && self.exhausted.is_empty()
            && self.changed.is_empty()
    }
}

/// A value that is made when it is first changed. Reading it before gives the empty one.
#[derive(Clone, Debug, Default)]
pub(super) struct Lazy<T>(Option<Box<T>>);

impl Lazy<Open> {
    /// Gives the memory back if there is nothing in it.
    pub(super) fn shrink(&mut self) {
        if self.0.as_ref().is_some_and(|open| open.is_empty()) {
            self.0 = None;
        }
    }
}

impl Deref for Lazy<Open> {
    type Target = Open;

    fn deref(&self) -> &Open {
        self.0.as_deref().unwrap_or(&NOTHING)
    }
}

impl DerefMut for Lazy<Open> {
    fn deref_mut(&mut self) -> &mut Open {
        self.0.get_or_insert_default()
    }
}
