//! Decides whether a message is accepted, and what its acceptance removes.
//!
//! Admission works on RAM alone. Where it needs to know something about stored data that is not at
//! hand it answers [`Refusal::Need`]; the caller loads that outside the lock and asks again.

use super::prior::Prior;
use super::state::StreamData;
use super::tail::SubjectSeqs;
use super::types::{Append, AppendError, ExpectSubject, Rollup};
use crate::config::Discard;
use crate::dedup::{IdAnswer, IdHash};
use crate::ids::{Seq, TimestampNs};
use crate::subject::Filter;

/// Stored data that admission cannot do without.
#[derive(Clone, Debug)]
pub(crate) enum Need {
    /// The newest live sequence of a subject below the tail.
    Last(Box<[u8]>),
    /// All live sequences of a subject below the tail.
    All(Box<[u8]>),
    /// The newest live sequence below the tail whose subject matches.
    LastMatching(Filter),
    /// The message at this sequence, the oldest one to evict, and some behind it.
    Front(u64),
    /// What stored files know of a message id.
    Id(IdHash),
}

/// Why a message was not accepted.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Load this and try again.
    Need(Need),
    /// The answer for the caller.
    Error(AppendError),
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Refusal {
        Refusal::Error(error)
    }
}

/// What acceptance does.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Known id: nothing is stored.
    Duplicate(Seq),
    /// Store it. The victims went into the caller's list; all messages below `trim_to` go as well.
    Accept {
        /// New first sequence, for a rollup of the whole stream.
        trim_to: Option<u64>,
    },
}

/// The newest sealed sequence matching a filter, as of two epochs.
#[derive(Debug)]
pub(crate) struct MatchedPrior {
    pub filter: Filter,
    pub layout_epoch: u64,
    pub removal_epoch: u64,
    pub last: Option<u64>,
}

/// What was loaded for an append so far.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub matched: Option<MatchedPrior>,
    pub id: Option<IdAnswer>,
}

/// The message id of an append, and what stored files know of it at present.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdQuery {
    pub hash: IdHash,
    pub stored: Option<IdAnswer>,
}

impl StreamData {
    /// Checks `append` at `now`. Sequences to remove are added to `victims` with their accounted
    /// sizes, in no particular order; the new message itself can be among them.
    pub fn admit(
        &self,
        append: &Append<'_>,
        id: Option<IdQuery>,
        matched: Option<&MatchedPrior>,
        now: TimestampNs,
        victims: &mut Vec<(u64, u32)>,
    ) -> Result<Verdict, Refusal> {
        if let Some(expect) = &append.expect_last_subject_seq {
            let last = self.last_expected(append.subject, expect, matched)?;
            if last != expect.seq {
                return Err(AppendError::WrongLastSeq(last).into());
            }
        }
        if append
            .expect_last_seq
            .is_some_and(|seq| seq != self.last_seq)
        {
            return Err(AppendError::WrongLastSeq(self.last_seq).into());
        }
        if let Some(id) = id
            && let Some(seq) = self.known_id(id, now)?
        {
            return Ok(Verdict::Duplicate(seq));
        }
        if append
            .expect_last_msg_id
            .is_some_and(|id| id != self.last_msg_id)
        {
            let last = String::from_utf8_lossy(&self.last_msg_id).into_owned();
            return Err(AppendError::WrongLastMsgId(last).into());
        }
        if append.rollup == Some(Rollup::All) {
            return Ok(Verdict::Accept {
                trim_to: Some(self.last_seq + 1),
            });
        }
        let size = self.size_of(
            append.subject.len(),
            append.headers.len(),
            append.payload.len(),
        );
        let size = u32::try_from(size).map_err(|_| AppendError::TooLarge)?;
        self.subject_victims(append, size, victims)?;
        self.front_victims(size, victims)?;
        Ok(Verdict::Accept { trim_to: None })
    }

    /// The sequence that an id was used for within the window.
    fn known_id(&self, id: IdQuery, now: TimestampNs) -> Result<Option<Seq>, Refusal> {
        // A use in RAM is newer than any in a file.
        let newest = match (self.ids.get(id.hash), id.stored) {
            (Some(recent), _) => Some((recent.seq, recent.ts)),
            (None, Some(answer)) => answer.found,
            (None, None) => return Err(Refusal::Need(Need::Id(id.hash))),
        };
        let window = self.id_window();
        Ok(newest
            .filter(|(seq, ts)| window.holds(*seq, *ts, now))
            .map(|(seq, _)| seq))
    }

    fn last_expected(
        &self,
        own: &[u8],
        expect: &ExpectSubject<'_>,
        matched: Option<&MatchedPrior>,
    ) -> Result<u64, Refusal> {
        let subject = match expect.filter {
            None => own,
            Some(filter) => match filter.literal() {
                Some(subject) => subject,
                None => return self.last_matching(filter, matched),
            },
        };
        Ok(self.last_of(subject)?.map_or(0, |(seq, _)| seq))
    }

    /// Newest live sequence of a subject.
    pub fn last_of(&self, subject: &[u8]) -> Result<Option<(u64, u32)>, Refusal> {
        if let Some(last) = self.tail.subject(subject).and_then(SubjectSeqs::last) {
            return Ok(Some(last));
        }
        if !self.has_prior_data() {
            return Ok(None);
        }
        match self.priors.get(subject) {
            Some(Prior::Last(None)) => Ok(None),
            Some(Prior::Last(Some(last))) if self.is_live(last.0) => Ok(Some(*last)),
            Some(Prior::All { seqs, .. }) => Ok(seqs
                .iter()
                .rev()
                .find(|(seq, _)| self.is_live(*seq))
                .copied()),
            _ => Err(Refusal::Need(Need::Last(subject.into()))),
        }
    }

    fn last_matching(
        &self,
        filter: &Filter,
        matched: Option<&MatchedPrior>,
    ) -> Result<u64, Refusal> {
        let in_tail = self
            .tail
            .subjects()
            .filter(|(subject, _)| filter.matches(subject))
            .filter_map(|(_, seqs)| seqs.last())
            .map(|(seq, _)| seq)
            .max();
        if let Some(seq) = in_tail {
            return Ok(seq);
        }
        if !self.has_prior_data() {
            return Ok(0);
        }
        match matched {
            Some(prior)
                if prior.layout_epoch == self.layout_epoch
                    && prior.removal_epoch == self.removal_epoch
                    && prior.filter == *filter =>
            {
                Ok(prior.last.unwrap_or(0))
            }
            _ => Err(Refusal::Need(Need::LastMatching(filter.clone()))),
        }
    }

    /// False when everything that is live is in the tail.
    pub fn has_prior_data(&self) -> bool {
        self.first_seq < self.tail.base() && self.msgs > self.tail.live()
    }

    /// All live sequences of a subject below the tail.
    fn prior_seqs(&self, subject: &[u8]) -> Result<impl Iterator<Item = (u64, u32)>, Refusal> {
        let known = if !self.has_prior_data() {
            None
        } else {
            match self.priors.get(subject) {
                Some(Prior::Last(None)) => None,
                Some(Prior::All { seqs, .. }) => Some(seqs),
                _ => return Err(Refusal::Need(Need::All(subject.into()))),
            }
        };
        Ok(known
            .into_iter()
            .flatten()
            .copied()
            .filter(|(seq, _)| self.is_live(*seq)))
    }

    /// Number of live messages of a subject below the tail, for the per-subject limit.
    fn prior_count(&self, subject: &[u8]) -> Result<u64, Refusal> {
        if let Some(Prior::All { seqs, exact_at }) = self.priors.get(subject)
            && *exact_at == self.removal_epoch
            && self.has_prior_data()
        {
            return Ok(seqs.len() as u64);
        }
        Ok(self.prior_seqs(subject)?.count() as u64)
    }

    fn subject_victims(
        &self,
        append: &Append<'_>,
        size: u32,
        victims: &mut Vec<(u64, u32)>,
    ) -> Result<(), Refusal> {
        let subject = append.subject;
        let in_tail = self.tail.subject(subject);
        if append.rollup == Some(Rollup::Subject) {
            victims.extend(self.prior_seqs(subject)?);
            victims.extend(in_tail.into_iter().flat_map(SubjectSeqs::iter));
            return Ok(());
        }
        let mut at_subject_limit = false;
        if let Some(max) = self.config.msgs_per_subject_max {
            let count = self.prior_count(subject)? + in_tail.map_or(0, |seqs| seqs.len() as u64);
            at_subject_limit = count >= max;
            if at_subject_limit {
                if self.config.discard == Discard::New && self.config.discard_new_per_subject {
                    return Err(AppendError::MsgsPerSubjectExceeded.into());
                }
                let surplus = usize::try_from(count + 1 - max).unwrap_or(usize::MAX);
                let tail_seqs = in_tail.into_iter().flat_map(SubjectSeqs::iter);
                victims.extend(self.prior_seqs(subject)?.chain(tail_seqs).take(surplus));
            }
        }
        if self.config.discard == Discard::New {
            self.refuse_when_full(size, at_subject_limit, victims)?;
        }
        Ok(())
    }

    /// With discard new, a message is refused unless it replaces one of its own subject (T-13).
    fn refuse_when_full(
        &self,
        size: u32,
        at_subject_limit: bool,
        victims: &[(u64, u32)],
    ) -> Result<(), AppendError> {
        if self.config.msgs_max.is_some_and(|max| self.msgs >= max) && !at_subject_limit {
            return Err(AppendError::MsgsExceeded);
        }
        let freed: u64 = victims.iter().map(|(_, size)| u64::from(*size)).sum();
        let after = self.bytes.saturating_sub(freed) + u64::from(size);
        if self.config.bytes_max.is_some_and(|max| after > max) {
            return Err(AppendError::BytesExceeded);
        }
        Ok(())
    }

    /// With discard old, the oldest messages make room: first for the count, then for the bytes.
    fn front_victims(&self, size: u32, victims: &mut Vec<(u64, u32)>) -> Result<(), Refusal> {
        if self.config.discard == Discard::New {
            return Ok(());
        }
        let msgs_max = self.config.msgs_max.unwrap_or(u64::MAX);
        let bytes_max = self.config.bytes_max.unwrap_or(u64::MAX);
        let by_subject = victims.len();
        let freed: u64 = victims.iter().map(|(_, size)| u64::from(*size)).sum();
        let new_seq = self.last_seq + 1;
        let mut msgs = self.msgs + 1 - by_subject as u64;
        let mut bytes = self.bytes + u64::from(size) - freed;
        let mut seq = self.first_seq;
        while msgs > msgs_max || bytes > bytes_max {
            let entry_size = if seq >= new_seq {
                size
            } else if self.tombstones.contains(seq)
                || victims[..by_subject]
                    .iter()
                    .any(|(victim, _)| *victim == seq)
            {
                seq += 1;
                continue;
            } else {
                self.size_at(seq).ok_or(Refusal::Need(Need::Front(seq)))?
            };
            victims.push((seq, entry_size));
            msgs -= 1;
            bytes -= u64::from(entry_size);
            if seq >= new_seq {
                break;
            }
            seq = self.tombstones.next_live(seq + 1);
        }
        Ok(())
    }

    /// Accounted size of a live message, if RAM knows it.
    pub fn size_at(&self, seq: u64) -> Option<u32> {
        if let Some(message) = self.in_ram(seq) {
            let layout = message.layout();
            let size = self.size_of(
                layout.subject as usize,
                layout.headers as usize,
                layout.payload as usize,
            );
            return u32::try_from(size).ok();
        }
        self.front.get(seq).map(|entry| entry.size)
    }

    /// A message that is in the tail or the frozen tail. Says nothing about liveness.
    pub fn in_ram(&self, seq: u64) -> Option<&crate::message::Message> {
        self.tail
            .get(seq)
            .or_else(|| self.frozen.as_ref().and_then(|frozen| frozen.get(seq)))
    }
}
