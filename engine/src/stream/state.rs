//! A stream's state in RAM, and the deterministic application of effects to it.
//!
//! The same `apply_*` functions serve live admission and recovery: a state is a function of the
//! operations applied, never of the clock or of what happens to be cached.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::erase::Erasures;
use super::extent::Extent;
use super::front::FrontWindow;
use super::index_part::{IndexPart, index_parts};
use super::interest::Interest;
use super::merged_run::MergedRun;
use super::prior::Prior;
use super::tail::Tail;
use super::tombstones::Tombstones;
use crate::config::{Storage, StreamConfig};
use crate::consumer::Claim;
use crate::dedup::{IdFloor, IdHash, IdWindow, RecentIds};
use crate::format::op::SeqRange;
use crate::format::record::Record;
use crate::ids::{Lsn, Seq, TimestampNs};
use crate::limits::accounted_bytes;

/// How many removals are remembered for [`StreamData::removed_at_or_after`].
const REMOVALS_REMEMBERED: usize = 1024;

/// Subjects whose prior state is remembered between two checkpoints, and sequences of them;
/// beyond that it starts over. About 10 MB and 16 MB.
const PRIORS_MAX: usize = 1 << 16;
const PRIOR_SEQS_MAX: usize = 1 << 20;

/// RAM that holds what is in the log only, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TailRam {
    pub msgs_bytes: u64,
    pub ids_bytes: u64,
}

impl TailRam {
    pub fn total(self) -> u64 {
        self.msgs_bytes + self.ids_bytes
    }
}

impl std::ops::Add for TailRam {
    type Output = TailRam;

    fn add(self, other: TailRam) -> TailRam {
        TailRam {
            msgs_bytes: self.msgs_bytes + other.msgs_bytes,
            ids_bytes: self.ids_bytes + other.ids_bytes,
        }
    }
}

/// Everything a stream knows, protected by the stream's mutex. No I/O happens while it is held.
#[derive(Debug)]
pub(crate) struct StreamData {
    pub config: StreamConfig,
    pub created: TimestampNs,
    pub first_seq: u64,
    pub last_seq: u64,
    pub last_ts: Option<TimestampNs>,
    pub last_msg_id: Vec<u8>,
    pub msgs: u64,
    pub bytes: u64,
    pub tombstones: Tombstones,
    /// Message ids that no file holds yet.
    pub ids: RecentIds,
    pub ids_floor: IdFloor,
    /// Seed of the stream's hashes of ids.
    pub ids_seed: u64,
    pub tail: Tail,
    /// A tail on its way into a segment.
    pub frozen: Option<Arc<Tail>>,
    /// Sealed data, ascending; changed by [`StreamData::set_extents`].
    pub extents: Arc<Vec<Extent>>,
    /// Merged index runs, ascending; changed by [`StreamData::set_runs`].
    pub runs: Arc<Vec<Arc<MergedRun>>>,
    /// The metadata log names other merged runs.
    pub runs_dirty: bool,
    /// Who knows the subjects of the sealed data, ascending: follows from extents and merged runs.
    pub index_parts: Arc<Vec<IndexPart>>,
    /// What sealed data and the frozen tail say about subjects of the tail.
    pub priors: HashMap<Box<[u8]>, Prior>,
    /// Sequences put into `priors` since they were last cleared for their number.
    prior_seqs: usize,
    /// Oldest messages, read ahead for eviction.
    pub front: FrontWindow,
    /// Everything live before it lives for ever, see [`super::expiry`].
    pub age_cursor: u64,
    /// Not later than the time of the first message at or behind the age cursor that the maximum age
    /// will remove; `None` while there is none.
    pub age_next: Option<TimestampNs>,
    /// Raised when messages move between tail, frozen tail and extents.
    pub layout_epoch: u64,
    /// Raised by every removal.
    pub removal_epoch: u64,
    /// The removal epoch for readers without the lock: what they learned of live messages holds as
    /// long as it does not change. Raised before the lock is released.
    pub removal_mark: Arc<AtomicU64>,
    removals: VecDeque<(u64, u64)>,
    /// Position of the last operation on this stream.
    pub last_lsn: Lsn,
    /// Position of the first operation that no checkpoint holds yet.
    pub dirty_since: Option<Lsn>,
    /// The configuration changed since the last checkpoint.
    pub config_dirty: bool,
    pub deleted: bool,
    pub erasures: Erasures,
    /// Which consumers want what.
    pub interest: Interest,
    /// What consumers needed and need no more; see [`super::claims`].
    pub abandoned: Vec<Arc<Claim>>,
    /// They changed since the last checkpoint.
    pub abandoned_dirty: bool,
}

impl StreamData {
    pub fn new(config: StreamConfig, created: TimestampNs) -> StreamData {
        let first_seq = config.first_seq.0.max(1);
        StreamData {
            config,
            created,
            first_seq,
            last_seq: first_seq - 1,
            last_ts: None,
            last_msg_id: Vec::new(),
            msgs: 0,
            bytes: 0,
            tombstones: Tombstones::default(),
            ids: RecentIds::default(),
            ids_floor: IdFloor::default(),
            ids_seed: 0,
            tail: Tail::starting_at(Seq(first_seq)),
            frozen: None,
            extents: Arc::default(),
            runs: Arc::default(),
            runs_dirty: false,
            index_parts: Arc::default(),
            priors: HashMap::new(),
            prior_seqs: 0,
            front: FrontWindow::default(),
            age_cursor: 0,
            age_next: None,
            layout_epoch: 0,
            removal_epoch: 0,
            removal_mark: Arc::default(),
            removals: VecDeque::new(),
            last_lsn: Lsn(0),
            dirty_since: None,
            config_dirty: true,
            deleted: false,
            erasures: Erasures::default(),
            interest: Interest::default(),
            abandoned: Vec::new(),
            abandoned_dirty: false,
        }
    }

    /// I10: live iff inside the range and not removed.
    pub fn is_live(&self, seq: u64) -> bool {
        seq >= self.first_seq && seq <= self.last_seq && !self.tombstones.contains(seq)
    }

    /// Which of the 64 sequences from `first` on are live; the lowest bit is for `first`.
    pub fn live_among_next(&self, first: u64) -> u64 {
        let last = first.saturating_add(63);
        if self.live_in(first, last) == last - first + 1 {
            return u64::MAX >> (63 - (last - first));
        }
        (first..=last).fold(0, |live, seq| {
            live | (u64::from(self.is_live(seq)) << (seq - first))
        })
    }

    /// Replaces the list of sealed data.
    pub fn set_extents(&mut self, extents: Vec<Extent>) {
        self.extents = Arc::new(extents);
        self.index_parts = Arc::new(index_parts(&self.extents, &self.runs));
    }

    /// Replaces the list of merged runs, which must ascend without overlap.
    pub fn set_runs(&mut self, runs: Vec<Arc<MergedRun>>) {
        self.runs = Arc::new(runs);
        self.index_parts = Arc::new(index_parts(&self.extents, &self.runs));
    }

    /// Goes on without a merged run.
    pub fn drop_run(&mut self, run: &Arc<MergedRun>) {
        let kept = self.runs.iter().filter(|known| !Arc::ptr_eq(known, run));
        let kept: Vec<_> = kept.cloned().collect();
        self.runs_dirty |= kept.len() < self.runs.len();
        self.set_runs(kept);
    }

    /// Number of live sequences in `first..=last`.
    pub fn live_in(&self, first: u64, last: u64) -> u64 {
        let first = first.max(self.first_seq);
        let last = last.min(self.last_seq);
        if first > last {
            return 0;
        }
        last - first + 1 - self.tombstones.count_in(first, last)
    }

    /// Accounted size of a message of this stream.
    pub fn size_of(&self, subject: usize, headers: usize, payload: usize) -> u64 {
        accounted_bytes(self.config.storage, subject, headers, payload)
    }

    /// RAM that a checkpoint can give back: messages and ids that are in the log only.
    pub fn tail_ram(&self) -> TailRam {
        match self.config.storage {
            Storage::File => TailRam {
                msgs_bytes: self.tail.ram_bytes(),
                ids_bytes: self.ids.ram_bytes(),
            },
            Storage::Memory => TailRam::default(),
        }
    }

    /// For how long the stream knows its ids.
    pub fn id_window(&self) -> IdWindow {
        IdWindow {
            length_ns: self.config.dedup_window_ns,
            floor: self.ids_floor,
        }
    }

    /// Replaces the configuration at `now`. Returns by how many nanoseconds the deduplication window
    /// has grown.
    pub fn change_config(&mut self, config: StreamConfig, now: TimestampNs) -> u64 {
        let (window, grown_ns) =
            self.id_window()
                .change(config.dedup_window_ns, Seq(self.last_seq), now);
        self.ids_floor = window.floor;
        self.config = config;
        self.config_dirty = true;
        grown_ns
    }

    /// Notes the log position of operations just applied.
    pub fn touched(&mut self, first: Lsn, last: Lsn) {
        self.last_lsn = last;
        self.dirty_since.get_or_insert(first);
    }

    /// Adds a message behind the last one.
    pub fn apply_append(&mut self, record: &Record<'_>, size: u64, id: Option<IdHash>) {
        debug_assert_eq!(record.seq.0, self.last_seq + 1);
        self.tail.skip_to(record.seq);
        self.tail
            .push(record, u32::try_from(size).unwrap_or(u32::MAX));
        self.last_seq = record.seq.0;
        self.last_ts = Some(record.ts);
        self.msgs += 1;
        self.bytes += size;
        if let Some(hash) = id {
            self.ids.insert(hash, record.seq, record.ts);
        }
        if self.last_msg_id != record.msg_id {
            self.last_msg_id.clear();
            self.last_msg_id.extend_from_slice(record.msg_id);
        }
    }

    /// Removes sequences; `bytes` is the accounted size of the live messages among them. They are
    /// counted here: after a salvage some of them may be missing.
    pub fn apply_remove(&mut self, ranges: &[SeqRange], bytes: u64) {
        for range in ranges {
            let (first, count) = (range.first.0, range.count);
            // A range outside the stream has nothing to remove: nothing may grow from it.
            let Some(end) = first.checked_add(count) else {
                continue;
            };
            let (first, end) = (first.max(self.first_seq), end.min(self.last_seq + 1));
            if first >= end {
                continue;
            }
            self.msgs = self.msgs.saturating_sub(self.live_in(first, end - 1));
            if first == self.first_seq {
                self.first_seq = end;
            } else {
                self.tombstones.insert_range(first, end - first);
            }
            if end > self.tail.base() {
                for seq in first.max(self.tail.base())..end {
                    self.tail.remove(seq);
                }
            }
            self.note_removal(first, end - 1);
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        self.settle_first();
    }

    /// Removes everything below `first_seq`.
    pub fn apply_trim(&mut self, first_seq: u64, bytes: u64) {
        if first_seq <= self.first_seq {
            return;
        }
        self.note_removal(self.first_seq, first_seq - 1);
        let gone = self.live_in(self.first_seq, first_seq - 1);
        self.msgs = self.msgs.saturating_sub(gone);
        self.first_seq = first_seq;
        self.last_seq = self.last_seq.max(first_seq - 1);
        self.tail.remove_below(first_seq);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.settle_first();
    }

    /// Gives sequences without messages.
    pub fn apply_skip(&mut self, last_seq: u64) {
        if last_seq <= self.last_seq {
            return;
        }
        let first = self.last_seq + 1;
        if self.msgs == 0 {
            self.first_seq = last_seq + 1;
            self.tombstones.remove_below(self.first_seq);
        } else {
            self.tombstones.insert_range(first, last_seq - first + 1);
        }
        self.last_seq = last_seq;
        self.settle_first();
    }

    /// Moves `first_seq` onto a live message, or behind the last sequence.
    fn settle_first(&mut self) {
        self.first_seq = if self.msgs == 0 {
            // Sizes of damaged messages may have been estimates.
            self.bytes = 0;
            self.last_seq + 1
        } else {
            self.tombstones
                .next_live(self.first_seq)
                .min(self.last_seq + 1)
        };
        self.tombstones.remove_below(self.first_seq);
    }

    /// Makes nothing live any more; what the tail holds stays until it is replaced.
    pub fn forget_messages(&mut self) {
        if self.msgs > 0 {
            self.note_removal(self.first_seq, self.last_seq);
        }
        (self.msgs, self.bytes) = (0, 0);
        self.settle_first();
        self.front.advance(self.first_seq);
        self.priors.clear();
    }

    /// Remembers what is known about a subject below the tail.
    pub fn keep_prior(&mut self, subject: Box<[u8]>, prior: Prior) {
        let seqs = match &prior {
            Prior::All { seqs, .. } => seqs.len(),
            Prior::Last(_) => 0,
        };
        self.prior_seqs += seqs;
        if self.priors.len() >= PRIORS_MAX || self.prior_seqs > PRIOR_SEQS_MAX {
            self.priors.clear();
            self.prior_seqs = seqs;
        }
        self.priors.insert(subject, prior);
    }

    fn note_removal(&mut self, first: u64, last: u64) {
        self.removal_epoch += 1;
        self.removal_mark
            .store(self.removal_epoch, Ordering::Release);
        if self.removals.len() == REMOVALS_REMEMBERED {
            self.removals.pop_front();
        }
        self.removals.push_back((first, last));
    }

    /// True when, since `epoch`, something at or after `seq` was removed, or nobody can tell.
    pub fn removed_at_or_after(&self, seq: u64, epoch: u64) -> bool {
        let since = self.removal_epoch - epoch.min(self.removal_epoch);
        let Ok(since) = usize::try_from(since) else {
            return true;
        };
        if since > self.removals.len() {
            return true;
        }
        self.removals
            .iter()
            .rev()
            .take(since)
            .any(|(_, last)| *last >= seq)
    }
}
