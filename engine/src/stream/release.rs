//! Acknowledgements, and the removals they cause.
//!
//! Both are one unit of the log: a crash leaves both or neither. So everything that a removal needs
//! to know is looked up before the consumer changes: sizes outside of any lock, and with interest
//! retention whether somebody else needs the message. What that answered must still hold when the
//! change is made: the release lock is held from the question on, and every way by which a consumer
//! stops needing a message goes through it. Lock order: release → consumer → stream.

use std::borrow::Cow;
use std::sync::{Arc, MutexGuard, PoisonError, Weak};

use roaring::RoaringTreemap;

use super::core::{StreamCore, change_error, ranges_of};
use super::cursor::{ConsumerCore, ConsumerData};
use super::types::ChangeError;
use crate::config::Retention;
use crate::consumer::{AckOutcome, Acked, ConsumerState};
use crate::error::ReadError;
use crate::format::op::Op;
use crate::ids::{ConsumerId, Lsn, Seq, TimestampNs};
use crate::message::Message;
use crate::wal::Class;

/// Messages that one unit of the log acknowledges and removes. More of them take several units,
/// each a state the consumer could have been left in.
const UNIT_MESSAGES_MAX: usize = 1024;
/// Starting over because the consumer moved while messages were looked up; each time somebody else
/// made progress.
const ATTEMPTS_MAX: u32 = 10_000;

/// The answer to an acknowledgement.
#[derive(Clone, Debug)]
pub struct AckResult {
    /// What it did.
    pub outcome: AckOutcome,
    /// Durable when the store's durable position reaches this.
    pub lsn: Lsn,
}

/// An acknowledgement that is final for its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Final {
    Ack,
    Term,
}

/// A message that leaves if nobody needs it.
#[derive(Debug)]
pub(super) struct Leaving {
    pub seq: u64,
    /// Accounted size.
    pub size: u32,
    /// Unknown if it cannot be read any more.
    pub subject: Option<Box<[u8]>>,
}

impl Leaving {
    pub fn of(stream: &StreamCore, message: &Message) -> Leaving {
        let layout = message.layout();
        let (subject, headers) = (layout.subject as usize, layout.headers as usize);
        let size = stream
            .lock()
            .size_of(subject, headers, layout.payload as usize);
        Leaving {
            seq: message.seq.0,
            size: u32::try_from(size).unwrap_or(u32::MAX),
            subject: Some(message.subject().into()),
        }
    }
}

/// What the release lock protects.
#[derive(Default)]
pub(crate) struct ReleaseOrder {
    /// The consumer that needed the last message that was asked about. It is usually the one that
    /// lags behind, and answers most questions.
    pub(super) blocker: Weak<ConsumerCore>,
}

/// What goes into the log as one unit, besides removals.
pub(super) struct Unit<'a> {
    pub consumer: ConsumerId,
    /// Its events.
    pub batches: Vec<&'a [u8]>,
}

impl ConsumerCore {
    /// Applies an acknowledgement that leaves its message open, and logs it.
    pub fn respond(
        self: &Arc<Self>,
        change: impl FnOnce(&mut ConsumerState) -> AckOutcome,
    ) -> Result<AckResult, ChangeError> {
        let Some(stream) = self.upgrade_stream() else {
            return Err(ChangeError::NotFound);
        };
        self.change(&stream, &mut self.lock(), Vec::new(), change)
    }

    /// Applies an acknowledgement or termination, and logs it together with the removal of what
    /// nobody needs any more.
    pub fn finish(
        self: &Arc<Self>,
        last: Seq,
        how: Final,
        now: TimestampNs,
    ) -> Result<AckResult, ChangeError> {
        let Some(stream) = self.upgrade_stream() else {
            return Err(ChangeError::NotFound);
        };
        let apply = |state: &mut ConsumerState| match how {
            Final::Ack => state.ack(last, now),
            Final::Term => state.term(last, now),
        };
        let mut finished = RoaringTreemap::new();
        for _ in 0..ATTEMPTS_MAX {
            let seqs = {
                let mut data = self.lock();
                // Read under the consumer's lock: a retention that becomes stricter asks the
                // consumer either before or after this change, never in between.
                if stream.lock().config.retention == Retention::Limits {
                    return self.change(&stream, &mut data, Vec::new(), apply);
                }
                data.state.finishes(last, UNIT_MESSAGES_MAX + 1)
            };
            let part = &seqs[..seqs.len().min(UNIT_MESSAGES_MAX)];
            let leaving = stream.leaving(part)?;
            let mut order = stream.lock_release();
            let leaving = stream.unneeded(&mut order, leaving, Some(self.id));
            let mut data = self.lock();
            if data.state.finishes(last, UNIT_MESSAGES_MAX + 1) != seqs {
                continue;
            }
            if part.len() < seqs.len()
                && let Some(&part_last) = part.last()
            {
                let part_last = Seq(part_last);
                self.change(&stream, &mut data, leaving, |s| s.ack_all(part_last, now))?;
                finished.extend(part);
                continue;
            }
            let mut result = self.change(&stream, &mut data, leaving, apply)?;
            if let AckOutcome::Applied(Acked::Many(seqs)) = &mut result.outcome {
                *seqs |= &finished;
            }
            return Ok(result);
        }
        Err(ChangeError::NoSpace)
    }

    /// Changes the state and logs that; `leaving` is removed in the same unit.
    fn change(
        self: &Arc<Self>,
        stream: &StreamCore,
        data: &mut ConsumerData,
        leaving: Vec<(u64, u32)>,
        change: impl FnOnce(&mut ConsumerState) -> AckOutcome,
    ) -> Result<AckResult, ChangeError> {
        if data.deleted {
            return Err(ChangeError::NotFound);
        }
        if stream.is_file() {
            stream.shared.room_for_control()?;
        }
        let outcome = change(&mut data.state);
        if matches!(outcome, AckOutcome::Applied(_)) {
            data.leaving.extend(leaving);
        }
        let lsn = self.log_events(stream, data)?;
        Ok(AckResult { outcome, lsn })
    }
}

impl StreamCore {
    pub(super) fn lock_release(&self) -> MutexGuard<'_, ReleaseOrder> {
        self.release.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a removal of those of `seqs` that are stored has to know.
    pub(super) fn leaving(&self, seqs: &[u64]) -> Result<Vec<Leaving>, ChangeError> {
        let mut leaving = Vec::with_capacity(seqs.len());
        for &seq in seqs {
            match self.get_admitted(seq) {
                Ok(Some(message)) => leaving.push(Leaving::of(self, &message)),
                Ok(None) => {}
                // Removing it is how damage is cleared away.
                Err(ReadError::Corrupt(damage)) => match self.size_of_damaged(&damage, seq) {
                    Some(size) => leaving.push(Leaving {
                        seq,
                        size,
                        subject: None,
                    }),
                    None => return Err(ReadError::Corrupt(damage).into()),
                },
                Err(error) => return Err(error.into()),
            }
        }
        Ok(leaving)
    }

    /// Those of `leaving` that no consumer but `except` needs: sequence and accounted size.
    pub(super) fn unneeded(
        &self,
        order: &mut ReleaseOrder,
        leaving: Vec<Leaving>,
        except: Option<ConsumerId>,
    ) -> Vec<(u64, u32)> {
        let retention = self.lock().config.retention;
        leaving
            .into_iter()
            .filter(|message| match retention {
                Retention::Limits => false,
                Retention::WorkQueue => true,
                Retention::Interest => !self.is_needed(order, message, except),
            })
            .map(|message| (message.seq, message.size))
            .collect()
    }

    /// Puts a consumer's events and the removal of what is still live of `victims` into the log as
    /// one unit, and removes. Returns the positions of the first and the last operation.
    pub(super) fn log_unit(
        &self,
        unit: &Unit<'_>,
        victims: &mut Vec<(u64, u32)>,
    ) -> Result<(Lsn, Lsn), ChangeError> {
        let mut data = (!victims.is_empty()).then(|| self.lock());
        let mut ranges = Vec::new();
        let mut bytes = 0;
        if let Some(data) = &data {
            victims.retain(|(seq, _)| data.is_live(*seq));
            bytes = ranges_of(victims, &mut ranges);
        }
        let removals = u32::from(!ranges.is_empty());
        let ops = u32::try_from(unit.batches.len()).unwrap_or(u32::MAX) + removals;
        let mut lsns = (Lsn(0), Lsn(0));
        if ops > 0 && self.is_file() {
            let (stream, consumer) = (self.id, unit.consumer);
            let encode = |out: &mut Vec<u8>| {
                for events in &unit.batches {
                    Op::ConsumerDelta {
                        stream,
                        consumer,
                        events,
                    }
                    .encode(out);
                }
                if !ranges.is_empty() {
                    Op::Remove {
                        stream,
                        ranges: Cow::Borrowed(&ranges),
                        msgs: victims.len() as u64,
                        bytes,
                    }
                    .encode(out);
                }
            };
            let queue = &self.shared.queue;
            let last = queue
                .enqueue(Class::Control, ops, None, encode)
                .map_err(change_error)?;
            lsns = (Lsn(last.0 + 1 - u64::from(ops)), last);
        }
        if let Some(data) = &mut data
            && !ranges.is_empty()
        {
            if self.is_file() {
                data.touched(lsns.1, lsns.1);
            }
            let ram_before = data.tail_ram();
            data.apply_remove(&ranges, bytes);
            self.settle(data, ram_before);
        }
        Ok(lsns)
    }
}
