//! What takes the place of the last message of a subject when that expires.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::admission::{Known, Need};
use super::core::{StreamCore, ranges_of};
use super::expiry::Expired;
use super::prior::Prior;
use super::remove::Removed;
use super::state::StreamData;
use super::types::ChangeError;
use crate::config::{DeleteMarker, Discard};
use crate::error::ReadError;
use crate::format::op::Op;
use crate::format::record::{Record, flag};
use crate::ids::{Lsn, Seq, TimestampNs};

/// How often a step starts over because the layout of the stream changed meanwhile.
const ATTEMPTS_MAX: u32 = 1_000;

impl StreamCore {
    /// Removes what is still live of `expired`, and appends a marker for each subject of which
    /// nothing is left, as one unit of the log. The last one of a subject decides whether it leaves
    /// a marker.
    pub(super) fn remove_expired(&self, expired: Vec<Expired>) -> Result<Removed, ChangeError> {
        if expired.iter().all(|expired| expired.subject.is_none()) {
            let victims = expired.iter().map(|expired| (expired.seq, expired.size));
            return self.remove(victims.collect());
        }
        for _ in 0..ATTEMPTS_MAX {
            match self.try_remove_expired(&expired)? {
                Ok(removed) => {
                    self.make_room_for_markers()?;
                    return Ok(removed);
                }
                Err(needs) => {
                    for need in needs {
                        self.load(need, &mut Known::default())?;
                    }
                }
            }
        }
        let error = std::io::Error::other("the stream changes all the time");
        Err(ReadError::io(&self.shared.dir, error).into())
    }

    /// One attempt: what the indexes have to tell first comes back as needs.
    fn try_remove_expired(
        &self,
        expired: &[Expired],
    ) -> Result<Result<Removed, Vec<Need>>, ChangeError> {
        let mut data = self.lock();
        let live = expired.iter().filter(|expired| data.is_live(expired.seq));
        let live: Vec<&Expired> = live.collect();
        let mut victims: Vec<(u64, u32)> = live.iter().map(|e| (e.seq, e.size)).collect();
        if victims.is_empty() {
            let lsn = data.last_lsn;
            return Ok(Ok(Removed { msgs: 0, lsn }));
        }
        let marker = data.config.delete_marker.clone();
        let subjects = match &marker {
            None => Vec::new(),
            Some(_) => match data.subjects_to_mark(&live) {
                Ok(subjects) => subjects,
                Err(needs) => return Ok(Err(needs)),
            },
        };
        let mut ranges = Vec::new();
        let bytes = ranges_of(&mut victims, &mut ranges);
        let msgs = victims.len() as u64;
        let stream = self.id;
        let removal = Op::Remove {
            stream,
            ranges: Cow::Borrowed(&ranges),
            msgs,
            bytes,
        };
        let now = TimestampNs(self.shared.env.clock.now_ns());
        let ts = data.last_ts.map_or(now, |last| last.max(now));
        let marker = marker.unwrap_or_default();
        let records: Vec<Record<'_>> = subjects
            .iter()
            .zip(data.last_seq + 1..)
            .map(|(subject, seq)| self.marker_record(&marker, subject, Seq(seq), ts))
            .collect();
        let lsn = self.log_removal(&mut data, &removal, &records)?;
        let ram_before = data.tail_ram();
        data.apply_remove(&ranges, bytes);
        for record in &records {
            let size = data.size_of(record.subject.len(), record.headers.len(), 0);
            data.apply_append(record, size, None);
        }
        self.settle(&mut data, ram_before);
        drop(data);
        if let Some(last) = records.last() {
            if let Some(due) = last.expires_at() {
                self.expires_at(due);
            }
            if !self.is_file() {
                self.shared.announce_memory(&self.gate, last.seq);
            }
        }
        Ok(Ok(Removed { msgs, lsn }))
    }

    fn marker_record<'a>(
        &self,
        marker: &'a DeleteMarker,
        subject: &'a [u8],
        seq: Seq,
        ts: TimestampNs,
    ) -> Record<'a> {
        let mut record = Record {
            seq,
            ts,
            subject,
            headers: &marker.headers,
            flags: flag::TTL | flag::MARKER,
            ttl_ns: marker.ttl_ns,
            ..Record::default()
        };
        record.crc = record.computed_crc(self.id);
        record
    }

    fn log_removal(
        &self,
        data: &mut StreamData,
        removal: &Op<'_>,
        markers: &[Record<'_>],
    ) -> Result<Lsn, ChangeError> {
        if !self.is_file() {
            return Ok(Lsn(0));
        }
        let stream = self.id;
        let ops = 1 + markers.len() as u32;
        let touched = markers.last().map(|record| (&self.gate, record.seq));
        let last = self.shared.log_control_unit(ops, touched, |out| {
            removal.encode(out);
            for record in markers {
                let record = *record;
                Op::Append { stream, record }.encode(out);
            }
        })?;
        data.touched(Lsn(last.0 + 1 - u64::from(ops)), last);
        Ok(last)
    }

    /// A marker can be larger than what it replaces.
    fn make_room_for_markers(&self) -> Result<(), ChangeError> {
        let is_over = {
            let data = self.lock();
            let bytes_max = data.config.bytes_max.unwrap_or(u64::MAX);
            data.config.discard == Discard::Old && data.bytes > bytes_max
        };
        if is_over {
            self.enforce_totals()?;
        }
        Ok(())
    }
}

impl StreamData {
    /// Subjects of which `expired` is all that is left and that are to be marked, in the order of
    /// their last messages; or what has to be loaded to tell.
    fn subjects_to_mark<'a>(&self, expired: &[&'a Expired]) -> Result<Vec<&'a [u8]>, Vec<Need>> {
        let seqs: BTreeSet<u64> = expired.iter().map(|expired| expired.seq).collect();
        let mut newest: BTreeMap<&[u8], &Expired> = BTreeMap::new();
        for expired in expired {
            if let Some(subject) = &expired.subject {
                let known = newest.entry(subject).or_insert(expired);
                if known.seq < expired.seq {
                    *known = expired;
                }
            }
        }
        let mut marked = Vec::new();
        let mut needs = Vec::new();
        for (subject, newest) in newest {
            if newest.leaves_no_marker || !self.has_interest(subject) {
                continue;
            }
            match self.has_more(subject, &seqs) {
                Ok(true) => {}
                Ok(false) => marked.push((newest.seq, subject)),
                Err(need) => needs.push(need),
            }
        }
        if !needs.is_empty() {
            return Err(needs);
        }
        marked.sort_unstable();
        Ok(marked.into_iter().map(|(_, subject)| subject).collect())
    }

    /// Whether a subject has a live message besides `seqs`.
    fn has_more(&self, subject: &[u8], seqs: &BTreeSet<u64>) -> Result<bool, Need> {
        let stays = |seq: u64| self.is_live(seq) && !seqs.contains(&seq);
        let in_tail = self.tail.subject(subject);
        if in_tail.is_some_and(|seqs| seqs.iter().any(|(seq, _)| stays(seq))) {
            return Ok(true);
        }
        if !self.has_prior_data() {
            return Ok(false);
        }
        match self.priors.get(subject) {
            Some(Prior::Last(None)) => Ok(false),
            Some(Prior::Last(Some((seq, _)))) if stays(*seq) => Ok(true),
            Some(Prior::All { seqs, .. }) => Ok(seqs.iter().any(|(seq, _)| stays(*seq))),
            _ => Err(Need::All(subject.into())),
        }
    }
}
