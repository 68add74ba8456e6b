//! Messages that a consumer stopped needing: it was deleted, its filters changed, it was reset, or
//! the stream began to remove what nobody needs (T-87, T-88).
//!
//! The change itself is one logged operation. What it makes superfluous is found afterwards, by
//! walking the claim that was given up and asking the other consumers; work is proportional to that
//! claim, not to the stream. Until the walk is done the claim stays with the stream: a checkpoint
//! keeps it, replay finds it again from the operation, and maintenance goes on with it.

use std::sync::Arc;

use super::core::StreamCore;
use super::cursor::compile;
use super::place::Place;
use super::release::Leaving;
use super::state::StreamData;
use super::types::ChangeError;
use crate::config::Retention;
use crate::consumer::Claim;
use crate::error::ReadError;
use crate::format::op::Op;
use crate::ids::Seq;
use crate::limits::POSITION_MAX;
use crate::message::Message;
use crate::subject::Filter;

/// Messages that are looked at and removed together.
const STEP_MESSAGES_MAX: usize = 1024;
/// Consumers that are asked from where on everything is needed. Any of them gives a true answer.
const BOUND_CONSUMERS_MAX: usize = 64;

impl StreamData {
    /// Notes a claim that nobody holds any more. Nothing to do unless consumers decide what stays.
    pub fn abandon(&mut self, claim: Claim) {
        if self.config.retention == Retention::Interest {
            self.abandoned.push(Arc::new(claim));
            self.abandoned_dirty = true;
        }
    }

    /// Messages that were delivered and have not left yet.
    pub fn abandon_open(&mut self, seqs: impl Iterator<Item = u64>) {
        if self.config.retention != Retention::Limits {
            self.abandoned.push(Arc::new(Claim {
                next: Seq(POSITION_MAX),
                open: seqs.collect(),
                ..Claim::default()
            }));
            self.abandoned_dirty = true;
        }
    }

    /// A claim to everything that is stored: what a stream has when consumers begin to decide.
    pub fn abandon_everything(&mut self) {
        let next = Seq(self.first_seq);
        self.abandon(Claim {
            next,
            ..Claim::default()
        });
    }
}

impl StreamCore {
    /// Settles what is abandoned. A failure is not the caller's: it is tried again by maintenance.
    pub fn settle_claims_or_later(&self) {
        if let Err(error) = self.settle_claims() {
            tracing::warn!(stream = %self.name, %error, "superfluous messages are removed later");
        }
    }

    /// Removes what nobody needs of the claims that were given up.
    fn settle_claims(&self) -> Result<(), ChangeError> {
        loop {
            let claim = {
                let mut data = self.lock();
                let Some(claim) = data.abandoned.first().cloned() else {
                    return Ok(());
                };
                if data.config.retention == Retention::Limits || data.deleted {
                    data.abandoned = Vec::new();
                    data.abandoned_dirty = true;
                    return Ok(());
                }
                claim
            };
            self.settle_claim(&claim)?;
            let mut data = self.lock();
            data.abandoned.retain(|other| !Arc::ptr_eq(other, &claim));
            data.abandoned_dirty = true;
        }
    }

    fn settle_claim(&self, claim: &Claim) -> Result<(), ChangeError> {
        let retention = self.lock().config.retention;
        if retention == Retention::Interest && self.trim_without_interest()? {
            return Ok(());
        }
        let mut open = claim.open.iter().peekable();
        while open.peek().is_some() {
            let step: Vec<u64> = open.by_ref().take(STEP_MESSAGES_MAX).collect();
            self.drop_unneeded(self.leaving(&step)?)?;
        }
        if retention != Retention::Interest {
            return Ok(());
        }
        let filters = compile(&claim.filters)?;
        let end = self.needed_from();
        let mut place = Place::default();
        let mut from = claim.next.0;
        let mut more = true;
        while more {
            let mut step = Vec::new();
            while more && step.len() < STEP_MESSAGES_MAX {
                match self.next_admitted(&filters, from, &mut place) {
                    Ok(Some(message)) if message.seq.0 < end => {
                        from = message.seq.0 + 1;
                        step.push(Leaving::of(self, &message));
                    }
                    Ok(_) => more = false,
                    // What cannot be read stays until it is deleted.
                    Err(ReadError::Corrupt(damage)) if damage.last.0 >= from => {
                        from = damage.last.0 + 1;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            self.drop_unneeded(step)?;
        }
        Ok(())
    }

    /// Removes those of `leaving` that nobody needs.
    fn drop_unneeded(&self, leaving: Vec<Leaving>) -> Result<(), ChangeError> {
        if leaving.is_empty() {
            return Ok(());
        }
        let mut order = self.lock_release();
        let victims = self.unneeded(&mut order, leaving, None);
        self.remove(victims)?;
        Ok(())
    }

    /// A sequence from which on everything is needed, because somebody wants every message and has
    /// not come further.
    fn needed_from(&self) -> u64 {
        let consumers = self.lock().interest.some_of_everything(BOUND_CONSUMERS_MAX);
        let next = consumers
            .iter()
            .map(|consumer| consumer.lock().state.next_seq().0);
        next.min().unwrap_or(u64::MAX)
    }

    /// As [`StreamCore::next_message`], including what is admitted and not durable yet.
    fn next_admitted(
        &self,
        filters: &[Filter],
        from: u64,
        place: &mut Place,
    ) -> Result<Option<Message>, ReadError> {
        let mut from = from;
        loop {
            let visible = self.visible_seq();
            if let Some(message) = self.next_message(filters, from, place)? {
                return Ok(Some(message));
            }
            from = from.max(visible + 1);
            let data = self.lock();
            for _ in 0..STEP_MESSAGES_MAX {
                from = data.tombstones.next_live(from.max(data.first_seq));
                if from > data.last_seq {
                    return Ok(None);
                }
                // What is not durable is in RAM. What has become durable meanwhile is found above.
                let Some(message) = data.in_ram(from) else {
                    break;
                };
                if filters.is_empty() || filters.iter().any(|f| f.matches(message.subject())) {
                    return Ok(Some(message.clone()));
                }
                from += 1;
            }
        }
    }

    /// Without any consumer nothing is needed: the stream is emptied. Returns whether that is so.
    fn trim_without_interest(&self) -> Result<bool, ChangeError> {
        let mut data = self.lock();
        if !data.interest.is_empty() {
            return Ok(false);
        }
        if data.msgs > 0 {
            let (first_seq, msgs, bytes) = (data.last_seq + 1, data.msgs, data.bytes);
            let op = Op::Trim {
                stream: self.id,
                first_seq: Seq(first_seq),
                msgs,
                bytes,
            };
            self.log(&mut data, &op)?;
            let ram_before = data.tail_ram();
            data.apply_trim(first_seq, bytes);
            self.settle(&mut data, ram_before);
        }
        Ok(true)
    }
}
