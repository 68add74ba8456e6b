//! Counting new messages for consumers that keep up.

use super::core::StreamCore;
use crate::subject::Filter;

/// Messages examined per hold of the lock.
const COUNT_STEP: u64 = 4096;

impl StreamCore {
    /// Live messages in `first..=last` that match any filter, if all of them are in RAM.
    pub(super) fn count_in_ram(&self, filters: &[Filter], first: u64, last: u64) -> Option<u64> {
        let mut count = 0;
        let mut seq = first;
        while seq <= last {
            let data = self.lock();
            let stop = last.min(seq.saturating_add(COUNT_STEP));
            seq = data.tombstones.next_live(seq.max(data.first_seq));
            while seq <= stop {
                let message = data.in_ram(seq)?;
                count += u64::from(filters.iter().any(|f| f.matches(message.subject())));
                seq = data.tombstones.next_live(seq + 1);
            }
        }
        Some(count)
    }
}
