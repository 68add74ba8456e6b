//! Where a new consumer starts (DLV-006..011, T-46..T-50).

use super::core::StreamCore;
use crate::consumer::{ConsumerConfig, DeliverPolicy, StartPosition};
use crate::error::ReadError;
use crate::ids::Seq;
use crate::subject::Filter;

impl StreamCore {
    pub(super) fn start_position(
        &self,
        config: &ConsumerConfig,
        filters: &[Filter],
    ) -> Result<StartPosition, ReadError> {
        let visible = self.visible_seq();
        let (first_seq, one_per_subject) = {
            let data = self.lock();
            (data.first_seq, data.config.msgs_per_subject_max == Some(1))
        };
        let at = |seq: u64| {
            Ok(StartPosition {
                next: Seq(seq.max(1)),
                listed: Vec::new(),
            })
        };
        match config.deliver {
            DeliverPolicy::All => at(first_seq),
            DeliverPolicy::New => at(visible + 1),
            DeliverPolicy::BySeq(seq) => at(seq.0.max(first_seq)),
            DeliverPolicy::ByTime(ts) => at(self.seq_at(ts)?),
            DeliverPolicy::Last if filters.is_empty() => at(self.last_live(visible)),
            DeliverPolicy::Last => {
                let mut last = None;
                for filter in filters {
                    last = last.max(self.last_matching(filter)?);
                }
                at(last.unwrap_or(visible + 1))
            }
            // With one message per subject the snapshot is the stream itself (T-47).
            DeliverPolicy::LastPerSubject if one_per_subject => at(first_seq),
            DeliverPolicy::LastPerSubject => {
                let all = [Filter::all()];
                let filters = if filters.is_empty() {
                    &all[..]
                } else {
                    filters
                };
                let mut listed = Vec::new();
                for filter in filters {
                    self.last_of_each_subject(filter, visible, &mut |seq| listed.push(Seq(seq)))?;
                }
                listed.sort_unstable();
                listed.dedup();
                Ok(StartPosition {
                    next: Seq(visible + 1),
                    listed,
                })
            }
        }
    }

    fn last_live(&self, visible: u64) -> u64 {
        let data = self.lock();
        match data.tombstones.prev_live(visible) {
            Some(seq) if seq >= data.first_seq => seq,
            _ => visible + 1,
        }
    }
}
