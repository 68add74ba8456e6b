//! Expiry: messages leave when their time is over.
//!
//! | rule | how the next one is found |
//! |---|---|
//! | a life time of the message's own | timers of the tails; timer pages of sealed files, of which RAM knows when the first one is due |
//! | the stream's maximum age | times never fall inside a stream: a walk from the front, which the age cursor remembers |
//!
//! The earlier one counts. A message that lives for ever is passed over once: everything live before
//! the age cursor is such a message, so that a round neither stops at them nor walks over all of
//! them again. The cursor is stored with the stream's positions and never lies behind a message that
//! still has to leave.

use super::core::StreamCore;
use super::due::Due;
use super::extent::Extent;
use super::read::extent_of;
use super::remove::Removed;
use super::state::StreamData;
use super::types::ChangeError;
use crate::error::ReadError;
use crate::format::record::expiry;
use crate::format::timers::TimerKind;
use crate::ids::{Seq, TimestampNs};
use crate::limits::accounted_bytes;
use crate::message::Message;

/// Messages removed per hold of the lock.
const STEP: usize = 4096;

/// The same where something may take a message's place: each subject is looked up in the indexes.
const STEP_MARKED: usize = 256;

/// Bytes of subjects in one step.
const STEP_SUBJECT_BYTES: usize = 256 * 1024;

/// A message whose time is over.
#[derive(Clone, Debug)]
pub(super) struct Expired {
    pub seq: u64,
    /// Accounted size in bytes.
    pub size: u32,
    /// Its subject, if something may take its place.
    pub subject: Option<Box<[u8]>>,
    pub leaves_no_marker: bool,
}

impl Expired {
    /// Without a subject: nothing takes its place.
    fn unmarked(seq: u64, size: u32) -> Expired {
        Expired {
            seq,
            size,
            subject: None,
            leaves_no_marker: false,
        }
    }

    fn of(message: &Message, size: u32, marks: bool) -> Expired {
        Expired {
            seq: message.seq.0,
            size,
            subject: marks.then(|| message.subject().into()),
            leaves_no_marker: message.leaves_no_marker(),
        }
    }
}

/// What one step removes.
struct Batch {
    marks: bool,
    expired: Vec<Expired>,
    subject_bytes: usize,
}

impl Batch {
    fn new(data: &StreamData) -> Batch {
        Batch {
            marks: data.config.delete_marker.is_some(),
            expired: Vec::new(),
            subject_bytes: 0,
        }
    }

    fn push(&mut self, expired: Expired) {
        self.subject_bytes += expired.subject.as_ref().map_or(0, |subject| subject.len());
        self.expired.push(expired);
    }

    fn is_full(&self) -> bool {
        let max = if self.marks { STEP_MARKED } else { STEP };
        self.expired.len() >= max || self.subject_bytes >= STEP_SUBJECT_BYTES
    }
}

/// What the walk by age needs to know about a stored message.
struct AgeEntry {
    ts: TimestampNs,
    is_ageless: bool,
    expired: Expired,
}

/// Where the walk by age stands.
enum Aged {
    /// Nothing else is too old.
    Done,
    /// A stretch of messages that stay was passed.
    Passed,
    Remove(Vec<Expired>),
    /// The message at this sequence is in this file.
    Read(Extent, u64),
    /// A live sequence that no part of the stream holds.
    Missing(u64),
}

impl StreamCore {
    /// Removes the messages whose time is over at `now`. Returns what was removed and when the next
    /// one is due.
    ///
    /// What cannot be read in one file does not keep the messages of others: the error comes after
    /// everything else was removed.
    pub fn expire(&self, now: TimestampNs) -> Result<(Removed, Option<TimestampNs>), ChangeError> {
        let mut total = Removed::default();
        let mut failure = None;
        self.expire_in_ram(now, &mut total)?;
        let extents = self.lock().extents.clone();
        for extent in extents.iter() {
            if extent.timers.next(TimerKind::Expiry) > now {
                continue;
            }
            match self.expire_in_file(extent, now, &mut total) {
                Err(ChangeError::Read(_)) if !self.lists(extent) => {}
                Err(error @ ChangeError::Read(_)) => failure = Some(error),
                done => done?,
            }
        }
        self.expire_by_age(now, &mut total)?;
        match failure {
            Some(error) => Err(error),
            None => Ok((total, self.next_expiry())),
        }
    }

    /// Removes what is due by its own life time in the tails.
    fn expire_in_ram(&self, now: TimestampNs, total: &mut Removed) -> Result<(), ChangeError> {
        // How far the frozen tail, which keeps what is removed, was looked at.
        let mut frozen_after: Option<(u64, Due)> = None;
        loop {
            let batch = {
                let data = self.lock();
                data.due_in_ram(now, &mut frozen_after)
            };
            if batch.expired.is_empty() {
                return Ok(());
            }
            self.remove_counted(batch.expired, total)?;
        }
    }

    /// Removes what is due by its own life time in a sealed file.
    fn expire_in_file(
        &self,
        extent: &Extent,
        now: TimestampNs,
        total: &mut Removed,
    ) -> Result<(), ChangeError> {
        let mut after = None;
        loop {
            let marks = self.lock().config.delete_marker.is_some();
            let max = if marks { STEP_MARKED } else { STEP };
            let segment = &extent.file.segment;
            let due = segment.timers_due(self.id, TimerKind::Expiry, after, now, max)?;
            after = due.due.last().map(|timer| (timer.due, timer.seq));
            let mut expired: Vec<Expired> = {
                let data = self.lock();
                let live = due.due.iter().filter(|timer| data.is_live(timer.seq.0));
                live.map(|timer| Expired::unmarked(timer.seq.0, timer.size))
                    .collect()
            };
            if marks {
                for expired in &mut expired {
                    if let Some(message) = self.readable(extent, expired.seq)? {
                        *expired = Expired::of(&message, expired.size, true);
                    }
                }
            }
            self.remove_counted(expired, total)?;
            match due.next {
                Some(next) if next <= now => {}
                next => {
                    let next = next.unwrap_or(TimestampNs::FAR);
                    extent.timers.advance(TimerKind::Expiry, next);
                    return Ok(());
                }
            }
        }
    }

    /// A sealed message; `None` if it is damaged: it leaves all the same, and nothing takes its
    /// place.
    fn readable(&self, extent: &Extent, seq: u64) -> Result<Option<Message>, ReadError> {
        match extent.file.segment.get(self.id, Seq(seq)) {
            Err(ReadError::Corrupt(damage)) => {
                let file = damage.file.display();
                tracing::error!(stream = %self.name, seq, %file, "a damaged message expires unread");
                Ok(None)
            }
            read => read,
        }
    }

    /// Removes what is older than the stream's maximum age.
    fn expire_by_age(&self, now: TimestampNs, total: &mut Removed) -> Result<(), ChangeError> {
        let mut loaded = Vec::new();
        loop {
            let aged = self.lock().aged(now, &loaded);
            match aged {
                Aged::Done => return Ok(()),
                Aged::Passed => {}
                Aged::Remove(expired) => self.remove_counted(expired, total)?,
                Aged::Read(extent, seq) => loaded = self.ages_in_file(&extent, seq)?,
                Aged::Missing(seq) => return Err(self.missing(seq).into()),
            }
        }
    }

    /// What the walk by age needs to know about the live message at `seq` and some behind it. Empty
    /// if that is not in the file any more.
    fn ages_in_file(&self, extent: &Extent, seq: u64) -> Result<Vec<AgeEntry>, ReadError> {
        let marks = self.lock().config.delete_marker.is_some();
        let entries: Vec<AgeEntry> = match extent.file.segment.block(self.id, Seq(seq)) {
            Ok(block) => block.map_or(Vec::new(), |block| {
                let entry = |message: Message| AgeEntry {
                    ts: message.ts,
                    is_ageless: message.is_ageless(),
                    expired: Expired::of(&message, size_in_file(&message), marks),
                };
                block.iter_from(Seq(seq)).map(entry).collect()
            }),
            Err(_) if !self.lists(extent) => return Ok(Vec::new()),
            Err(ReadError::Corrupt(damage)) => {
                let entries = self.entries_of_damaged(extent, &damage, seq).into_iter();
                let entry = |entry: super::front::FrontEntry| AgeEntry {
                    ts: entry.ts,
                    is_ageless: false,
                    expired: Expired::unmarked(entry.seq, entry.size),
                };
                entries.map(entry).collect()
            }
            Err(error) => return Err(error),
        };
        let found = entries.iter().any(|entry| entry.expired.seq == seq);
        if !found && self.lists(extent) && self.lock().is_live(seq) {
            return Err(self.missing(seq));
        }
        Ok(entries)
    }

    fn remove_counted(
        &self,
        expired: Vec<Expired>,
        total: &mut Removed,
    ) -> Result<(), ChangeError> {
        if expired.is_empty() {
            return Ok(());
        }
        let removed = self.remove_expired(expired)?;
        total.msgs += removed.msgs;
        total.lsn = removed.lsn;
        Ok(())
    }

    /// Nothing has to leave before this.
    fn next_expiry(&self) -> Option<TimestampNs> {
        let data = self.lock();
        let by_own = data.next_timer(TimerKind::Expiry);
        let age_max_ns = data.config.age_max_ns;
        let by_age = age_max_ns.and_then(|age_max_ns| Some(expiry(data.age_next?, age_max_ns)));
        by_own.into_iter().chain(by_age).min()
    }
}

fn size_in_file(message: &Message) -> u32 {
    let layout = message.layout();
    let size = accounted_bytes(
        crate::config::Storage::File,
        layout.subject as usize,
        layout.headers as usize,
        layout.payload as usize,
    );
    u32::try_from(size).unwrap_or(u32::MAX)
}

impl StreamData {
    /// Live messages of the tails that are due by their own life time.
    fn due_in_ram(&self, now: TimestampNs, frozen_after: &mut Option<(u64, Due)>) -> Batch {
        let mut batch = Batch::new(self);
        let push = |batch: &mut Batch, seq: u64| {
            if let (Some(message), Some(size)) = (self.in_ram(seq), self.size_at(seq)) {
                batch.push(Expired::of(message, size, batch.marks));
            }
        };
        for (at, seq) in self.tail.due_after(TimerKind::Expiry, None) {
            if at > now || batch.is_full() {
                break;
            }
            push(&mut batch, seq);
        }
        let Some(frozen) = &self.frozen else {
            return batch;
        };
        let after = frozen_after.filter(|(epoch, _)| *epoch == self.layout_epoch);
        for due in frozen.due_after(TimerKind::Expiry, after.map(|(_, due)| due)) {
            if due.0 > now || batch.is_full() {
                break;
            }
            *frozen_after = Some((self.layout_epoch, due));
            if self.is_live(due.1) {
                push(&mut batch, due.1);
            }
        }
        batch
    }

    /// Walks on by age from the cursor; `loaded` is what was read of sealed messages.
    fn aged(&mut self, now: TimestampNs, loaded: &[AgeEntry]) -> Aged {
        let Some(age_max_ns) = self.config.age_max_ns else {
            return Aged::Done;
        };
        let mut batch = Batch::new(self);
        let mut seq = self
            .tombstones
            .next_live(self.age_cursor.max(self.first_seq));
        let mut steps = 0;
        let stop = loop {
            if seq > self.last_seq || self.msgs == 0 {
                seq = self.last_seq + 1;
                self.age_next = None;
                break Aged::Done;
            }
            let Some(entry) = self.age_entry(seq, loaded, batch.marks) else {
                let Some(extent) = extent_of(&self.extents, seq) else {
                    break Aged::Missing(seq);
                };
                let oldest = TimestampNs(extent.first_ts);
                if expiry(oldest, age_max_ns) > now {
                    self.age_next = Some(oldest);
                    break Aged::Done;
                }
                break Aged::Read(extent.clone(), seq);
            };
            if !entry.is_ageless {
                if expiry(entry.ts, age_max_ns) > now {
                    self.age_next = Some(entry.ts);
                    break Aged::Done;
                }
                batch.push(entry.expired);
            }
            steps += 1;
            if batch.is_full() || steps >= STEP {
                break Aged::Passed;
            }
            seq = self.tombstones.next_live(seq + 1);
        };
        // The cursor passes a message that has to leave only once that is gone.
        let first = batch.expired.first().map(|expired| expired.seq);
        self.age_cursor = first.unwrap_or(seq);
        match first {
            Some(_) => Aged::Remove(batch.expired),
            None => stop,
        }
    }

    fn age_entry(&self, seq: u64, loaded: &[AgeEntry], marks: bool) -> Option<AgeEntry> {
        if let Some(message) = self.in_ram(seq) {
            return Some(AgeEntry {
                ts: message.ts,
                is_ageless: message.is_ageless(),
                expired: Expired::of(message, self.size_at(seq)?, marks),
            });
        }
        let at = loaded.binary_search_by_key(&seq, |entry| entry.expired.seq);
        let entry = loaded.get(at.ok()?)?;
        Some(AgeEntry {
            expired: entry.expired.clone(),
            ..*entry
        })
    }

    /// When the message just appended has to leave; `None` if something that is known already is due
    /// before it, or it stays.
    pub fn due_of_last(&mut self) -> Option<TimestampNs> {
        let message = self.tail.get(self.last_seq)?;
        let by_own = message.expires_at();
        if self.last_seq > self.age_cursor.max(self.first_seq) {
            // An older message is due before it by age.
            return by_own;
        }
        if message.is_ageless() {
            self.age_cursor = self.last_seq + 1;
            return None;
        }
        let by_age = self.config.age_max_ns.map(|max| expiry(message.ts, max));
        by_own.into_iter().chain(by_age).min()
    }
}
