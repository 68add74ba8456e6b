//! Things that happened to messages of a consumer and that its owner may want to announce.

use std::collections::VecDeque;

use crate::ids::Seq;

/// Notices kept for the owner; older ones are dropped and counted.
const NOTICES_MAX: usize = 4096;

/// Why a message will not be delivered (again).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovalReason {
    /// The receiver asked for it.
    Terminated,
    /// Somebody deleted the message while it was unacknowledged (T-09).
    Deleted,
    /// A limit of the stream removed it while it was unacknowledged (T-11).
    Limits,
}

/// One event worth an advisory. Positions are those of the first delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The message was given up after `deliveries` deliveries (T-58).
    MaxDeliveries {
        /// The message.
        seq: Seq,
        /// How often it was delivered.
        deliveries: u64,
    },
    /// The receiver refused the message.
    Nak {
        /// The message.
        seq: Seq,
        /// Consumer sequence of its first delivery.
        consumer_seq: u64,
        /// How often it was delivered.
        deliveries: u64,
    },
    /// The message left without an acknowledgement.
    Terminated {
        /// The message.
        seq: Seq,
        /// Consumer sequence of its first delivery.
        consumer_seq: u64,
        /// Redeliveries, at least 1 (T-09 counts the first and the second delivery alike) unless
        /// the receiver asked for it; then the number of deliveries.
        deliveries: u64,
        /// Who removed it.
        reason: RemovalReason,
    },
}

/// Bounded queue of notices.
#[derive(Clone, Debug, Default)]
pub(super) struct Notices {
    queue: VecDeque<Notice>,
    dropped: u64,
}

impl Notices {
    pub(super) fn push(&mut self, notice: Notice) {
        if self.queue.len() >= NOTICES_MAX {
            self.queue.pop_front();
            self.dropped += 1;
        }
        self.queue.push_back(notice);
    }

    pub(super) fn take(&mut self) -> VecDeque<Notice> {
        std::mem::take(&mut self.queue)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}
