//! Messages that the embedder wants to hear of at a time of their own.

use super::core::StreamCore;
use super::due::Due;
use super::extent::Extent;
use super::state::StreamData;
use crate::error::ReadError;
use crate::format::timers::TimerKind;
use crate::ids::{Seq, TimestampNs};

/// Timers of a sealed file examined per hold of the lock.
const STEP: usize = 4096;

impl StreamCore {
    /// The first `max` live, durable messages that are due at `now`, earliest first.
    pub fn due_notices(
        &self,
        now: TimestampNs,
        max: usize,
    ) -> Result<Vec<(Seq, TimestampNs)>, ReadError> {
        let visible = self.visible_seq();
        let (mut found, extents) = {
            let data = self.lock();
            let tails = data.frozen.as_deref().into_iter().chain([&data.tail]);
            let due: Vec<Due> = tails
                .flat_map(|tail| {
                    tail.due_after(TimerKind::Notice, None)
                        .take_while(|(at, _)| *at <= now)
                        .filter(|(_, seq)| *seq <= visible && data.is_live(*seq))
                        .take(max)
                })
                .collect();
            (due, data.extents.clone())
        };
        for extent in extents.iter() {
            if extent.timers.next(TimerKind::Notice) <= now {
                match self.notices_in_file(extent, now, max) {
                    Ok(due) => found.extend(due),
                    Err(error) if self.lists(extent) => return Err(error),
                    Err(_) => {}
                }
            }
        }
        found.sort_unstable();
        found.truncate(max);
        Ok(found.into_iter().map(|(at, seq)| (Seq(seq), at)).collect())
    }

    fn notices_in_file(
        &self,
        extent: &Extent,
        now: TimestampNs,
        max: usize,
    ) -> Result<Vec<Due>, ReadError> {
        let mut due = Vec::new();
        let mut after = None;
        while due.len() < max {
            let segment = &extent.file.segment;
            let timers = segment.timers_due(self.id, TimerKind::Notice, after, now, STEP)?;
            after = timers.due.last().map(|timer| (timer.due, timer.seq));
            {
                let data = self.lock();
                let live = timers.due.iter().filter(|timer| data.is_live(timer.seq.0));
                due.extend(live.map(|timer| (timer.due, timer.seq.0)));
            }
            if timers.next.is_none_or(|next| next > now) {
                if due.is_empty() {
                    let next = timers.next.unwrap_or(TimestampNs::FAR);
                    extent.timers.advance(TimerKind::Notice, next);
                }
                break;
            }
        }
        // What comes before the first live one is gone for good.
        if let Some((at, _)) = due.first() {
            extent.timers.advance(TimerKind::Notice, *at);
        }
        due.truncate(max);
        Ok(due)
    }
}

impl StreamData {
    /// Nothing of a kind is due before this.
    pub(super) fn next_timer(&self, kind: TimerKind) -> Option<TimestampNs> {
        let in_tail = self.tail.due_after(kind, None).next();
        let in_frozen = self.frozen.as_ref().and_then(|frozen| {
            let mut due = frozen.due_after(kind, None);
            due.find(|(_, seq)| self.is_live(*seq))
        });
        let in_files = self.extents.iter().map(|extent| extent.timers.next(kind));
        let in_files = in_files.filter(|at| *at < TimestampNs::FAR);
        let in_ram = in_tail.into_iter().chain(in_frozen).map(|(at, _)| at);
        in_ram.chain(in_files).min()
    }
}
