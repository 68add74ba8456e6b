//! Retention decided by consumers: a message leaves when nobody needs it any more.
//!
//! Whether somebody does is asked of the consumers' own state, message by message; floors are not
//! compared. A message is needed by a consumer whose filter matches and that has not delivered it,
//! waits for its acknowledgement, or has given it up and keeps it as a dead letter.

use std::sync::Arc;

use super::core::StreamCore;
use super::cursor::ConsumerCore;
use super::state::StreamData;
use super::types::ChangeError;
use crate::config::Retention;
use crate::consumer::Acked;
use crate::ids::{ConsumerId, Lsn, Seq};
use crate::subject::Filter;

fn wants(filters: &[Filter], subject: &[u8]) -> bool {
    filters.is_empty() || filters.iter().any(|filter| filter.matches(subject))
}

impl StreamData {
    /// Whether a message of `subject` is to be kept at all.
    pub fn has_interest(&self, subject: &[u8]) -> bool {
        self.config.retention != Retention::Interest
            || self
                .interest
                .iter()
                .any(|(_, filters)| wants(filters, subject))
    }

    /// Notes what a consumer wants; `None` when it is gone.
    pub fn set_interest(&mut self, consumer: ConsumerId, filters: Option<Arc<[Filter]>>) {
        self.interest.retain(|(id, _)| *id != consumer);
        if let Some(filters) = filters {
            self.interest.push((consumer, filters));
        }
    }
}

impl StreamCore {
    /// Removes what an acknowledgement made superfluous; returns the position of the removal.
    pub(super) fn release(&self, acked: &Acked) -> Result<Lsn, ChangeError> {
        let retention = self.lock().config.retention;
        let seqs: Vec<u64> = match (retention, acked) {
            (Retention::Limits, _) | (_, Acked::Nothing) => return Ok(Lsn(0)),
            (_, Acked::One(seq)) => vec![seq.0],
            (_, Acked::Many(seqs)) => seqs.iter().collect(),
        };
        let mut lsn = Lsn(0);
        for seq in seqs {
            if (retention == Retention::WorkQueue || !self.is_needed(seq)?)
                && let Some(removed) = self.delete(seq)?
            {
                lsn = lsn.max(removed.lsn);
            }
        }
        Ok(lsn)
    }

    fn is_needed(&self, seq: u64) -> Result<bool, ChangeError> {
        let Some(message) = self.get(seq)? else {
            return Ok(true);
        };
        let consumers: Vec<Arc<ConsumerCore>> = self.lock_consumers().values().cloned().collect();
        Ok(consumers
            .iter()
            .any(|consumer| consumer.needs(message.seq, message.subject())))
    }

    /// With interest retention, removes every message that no consumer needs (T-87, T-88).
    pub(super) fn drop_unneeded(&self) -> Result<(), ChangeError> {
        if self.lock().config.retention != Retention::Interest {
            return Ok(());
        }
        let consumers: Vec<Arc<ConsumerCore>> = self.lock_consumers().values().cloned().collect();
        let mut victims = Vec::new();
        for (subject, seqs) in self.matching_seqs(&Filter::all())? {
            let needed = |seq: &u64| consumers.iter().any(|c| c.needs(Seq(*seq), &subject));
            victims.extend(seqs.into_iter().filter(|(seq, _)| !needed(seq)));
        }
        self.remove(victims)?;
        Ok(())
    }
}

impl ConsumerCore {
    /// Whether this consumer still needs a message.
    fn needs(&self, seq: Seq, subject: &[u8]) -> bool {
        let data = self.lock();
        wants(data.filters(), subject) && data.state.holds(seq)
    }
}
