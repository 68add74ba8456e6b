//! Messages waiting for their first delivery.

use super::core::StreamCore;
use super::cursor::ConsumerCore;
use crate::error::ReadError;
use crate::ids::Seq;
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

impl ConsumerCore {
    /// Messages waiting for their first delivery. Exact: without a filter from the sequence range
    /// and its tombstones, with one from the index, kept up to date step by step.
    pub fn num_pending(&self) -> Result<u64, ReadError> {
        let Some(stream) = self.upgrade_stream() else {
            return Ok(0);
        };
        let visible = stream.visible_seq();
        let (filters, position, listed, known, epoch, counted_from) = {
            let data = self.lock();
            let known = data.pending.get().zip(data.pending.as_of());
            let listed = data.state.listed().count() as u64;
            (
                data.filters.clone(),
                data.state.next_seq(),
                listed,
                known,
                data.pending_epoch,
                data.pending_from,
            )
        };
        if filters.is_empty() {
            return Ok(listed + stream.num_pending(&[], position.0)?);
        }
        let (stale, now_epoch) = {
            let data = stream.lock();
            (
                data.removed_at_or_after(position.0.min(counted_from), epoch),
                data.removal_epoch,
            )
        };
        if let Some((count, as_of)) = known
            && !stale
        {
            if as_of.0 >= visible {
                return Ok(listed + count);
            }
            if let Some(more) = stream.count_in_ram(&filters, as_of.0 + 1, visible) {
                let mut data = self.lock();
                if data.pending.as_of() == Some(as_of) && data.state.next_seq() == position {
                    data.pending.set(count + more, Seq(visible));
                    data.pending_epoch = now_epoch;
                    data.pending_from = position.0;
                }
                return Ok(listed + count + more);
            }
        }
        let count = stream.num_pending(&filters, position.0)?;
        let mut data = self.lock();
        if data.state.next_seq() == position && stream.visible_seq() == visible {
            data.pending.set(count, Seq(visible));
            data.pending_epoch = now_epoch;
            data.pending_from = position.0;
        }
        Ok(listed + count)
    }
}
