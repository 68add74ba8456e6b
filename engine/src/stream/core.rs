//! The shared part of a stream, and the append path.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::admission::{IdQuery, Known, Need, Refusal, Verdict};
use super::cursor::ConsumerCore;
use super::prior::Prior;
use super::release::ReleaseOrder;
use super::state::{StreamData, TailRam};
use super::subject_count::SubjectCount;
use super::tail::Tail;
use super::types::{Append, AppendError, Appended, ChangeError};
use crate::config::{Compression, ConfigError, Storage};
use crate::dedup::merge::{IdMerge, IdSource, IdsOf};
use crate::dedup::{IdAnswer, IdHash, IdKey};
use crate::error::{ReadError, Stopped};
use crate::format::op::{Op, SeqRange};
use crate::format::record::{Record, flag};
use crate::ids::{Lsn, Seq, StreamId, TimestampNs};
use crate::invariants;
use crate::limits::{MESSAGE_BYTES_MAX, MSG_ID_BYTES_MAX, SUBJECT_BYTES_MAX};
use crate::message::{MessageTimers, Ttl};
use crate::store::shared::StoreShared;
use crate::subject;
use crate::wal::{Class, EnqueueError, StreamGate};

/// How often an operation starts over because the stream changed while it read outside the lock.
/// Each round means that somebody else made progress; past this many the caller tries again.
const ATTEMPTS_MAX: u32 = 10_000;

/// One stream: identity, lock-protected state, visibility gate and consumers.
pub(crate) struct StreamCore {
    pub id: StreamId,
    pub name: String,
    pub storage: Storage,
    /// Readers see sequences up to the gate's durable one.
    pub gate: Arc<StreamGate>,
    pub shared: Arc<StoreShared>,
    id_key: IdKey,
    data: Mutex<StreamData>,
    /// [`StreamData::removal_mark`].
    removals: Arc<AtomicU64>,
    /// The last number of subjects that was asked for, with the removal epoch and last sequence at
    /// which it holds.
    subject_count: Mutex<Option<SubjectCount>>,
    pub consumers: Mutex<BTreeMap<Arc<str>, Arc<ConsumerCore>>>,
    /// When maintenance has to look for messages whose time is over.
    expiry_at: AtomicI64,
    /// Consumers that may have something for the next checkpoint. A consumer enters before its
    /// operation gets a log position, so that a checkpoint that releases the log up to there finds
    /// it here. Taken under a consumer's lock and never the other way round.
    changed_consumers: Mutex<Vec<Arc<ConsumerCore>>>,
    /// Taken while consumers stop needing messages; see [`super::release`].
    pub(super) release: Mutex<ReleaseOrder>,
}

impl std::fmt::Debug for StreamCore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamCore")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Reused lists of one append.
#[derive(Default)]
struct Scratch {
    victims: Vec<(u64, u32)>,
    ranges: Vec<SeqRange>,
}

thread_local! {
    static SCRATCH: std::cell::RefCell<Scratch> = std::cell::RefCell::default();
}

impl StreamCore {
    pub fn new(
        id: StreamId,
        gate: Arc<StreamGate>,
        shared: Arc<StoreShared>,
        data: StreamData,
    ) -> Arc<StreamCore> {
        Arc::new(StreamCore {
            id,
            name: data.config.name.clone(),
            storage: data.config.storage,
            gate,
            id_key: IdKey::new(shared.dedup_seed, id, data.ids_seed),
            shared,
            removals: data.removal_mark.clone(),
            data: Mutex::new(data),
            subject_count: Mutex::default(),
            consumers: Mutex::default(),
            // What became due while nobody looked.
            expiry_at: AtomicI64::new(i64::MIN),
            changed_consumers: Mutex::default(),
            release: Mutex::default(),
        })
    }

    /// Locks the state. A panic of another thread cannot leave it half-changed: every change is
    /// computed before the first field is written.
    pub fn lock(&self) -> MutexGuard<'_, StreamData> {
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Last sequence that readers and consumers may see.
    pub fn visible_seq(&self) -> u64 {
        self.gate.durable_seq().0
    }

    /// The removal epoch. As long as it stays, what was live is live.
    pub fn removals(&self) -> u64 {
        self.removals.load(Ordering::Acquire)
    }

    pub fn lock_changed_consumers(&self) -> MutexGuard<'_, Vec<Arc<ConsumerCore>>> {
        self.changed_consumers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock_subject_count(&self) -> MutexGuard<'_, Option<SubjectCount>> {
        self.subject_count
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_file(&self) -> bool {
        self.storage == Storage::File
    }

    pub fn compression(&self) -> Compression {
        self.lock().config.compression
    }

    /// Empties the stream for whoever still has a handle.
    pub fn mark_deleted(&self, data: &mut StreamData) {
        data.deleted = true;
        data.forget_messages();
        self.drop_tail_of_deleted(data);
        data.set_extents(Vec::new());
        self.shared.erasures.remove(data.erasures.clear());
        if !self.is_file() {
            data.tail = Tail::starting_at(Seq(data.last_seq + 1));
            data.ids.clear();
        }
    }

    /// Gives back the RAM of a deleted stream's tail; while a checkpoint holds a part of it, that
    /// one does so at its end.
    pub fn drop_tail_of_deleted(&self, data: &mut StreamData) {
        if data.deleted && self.is_file() && data.frozen.is_none() {
            self.shared
                .tail_ram_changed(data.tail_ram(), TailRam::default());
            data.tail = Tail::starting_at(Seq(data.last_seq + 1));
            data.ids.clear();
        }
    }

    /// A message has to leave at `at`; wakes maintenance if it would look later.
    pub fn expires_at(&self, at: TimestampNs) {
        self.expiry_at.fetch_min(at.0, Ordering::AcqRel);
        self.shared.expires_at(at);
    }

    /// When to look for messages whose time is over, unless somebody says so earlier.
    pub fn expiry_at(&self) -> TimestampNs {
        TimestampNs(self.expiry_at.load(Ordering::Acquire))
    }

    /// Forgets when to look. Whoever adds a message from here on says so himself.
    pub fn begin_expiry(&self) {
        self.expiry_at.store(i64::MAX, Ordering::Release);
    }

    /// Has maintenance look at `at`, unless it does so earlier.
    pub fn plan_expiry(&self, at: TimestampNs) {
        self.expiry_at.fetch_min(at.0, Ordering::AcqRel);
    }

    /// See [`crate::Stream::append_nosync`].
    pub fn append_nosync(&self, append: &Append<'_>) -> Result<Appended, AppendError> {
        check_sizes(append)?;
        let id = append.msg_id.map(|id| self.id_hash(id));
        SCRATCH.with_borrow_mut(|scratch| {
            let mut known = Known::default();
            if let Some(hash) = id
                && self.is_file()
            {
                known.id = self.shared.ids.probe(hash);
            }
            for _ in 0..ATTEMPTS_MAX {
                let need = match self.try_append(append, id, &known, scratch) {
                    Ok(appended) => return Ok(appended),
                    Err(Refusal::Error(error)) => return Err(error),
                    Err(Refusal::Need(need)) => need,
                };
                self.load(need, &mut known).map_err(AppendError::Read)?;
            }
            Err(AppendError::Busy)
        })
    }

    fn try_append(
        &self,
        append: &Append<'_>,
        id: Option<IdHash>,
        known: &Known,
        scratch: &mut Scratch,
    ) -> Result<Appended, Refusal> {
        scratch.victims.clear();
        let mut data = self.lock();
        if data.deleted {
            return Err(AppendError::Deleted.into());
        }
        if self.is_file() {
            self.shared.room_for_append().map_err(Refusal::Error)?;
        }
        let now = TimestampNs(self.shared.env.clock.now_ns());
        let id = id.filter(|_| data.config.dedup_window_ns > 0);
        let query = id.map(|hash| self.id_query(hash, known));
        let matched = known.matched.as_ref();
        let trim_to = match data.admit(append, query, matched, now, &mut scratch.victims)? {
            Verdict::Duplicate(seq) => {
                return Ok(Appended {
                    seq,
                    duplicate: true,
                    lsn: data.last_lsn,
                });
            }
            Verdict::Accept { trim_to } => trim_to,
        };
        let appended = self.accept(&mut data, append, id, now, trim_to, scratch)?;
        let due = data.due_of_last();
        drop(data);
        if let Some(due) = due {
            self.expires_at(due);
        }
        if !self.is_file() {
            self.shared.announce_memory(&self.gate, appended.seq);
        }
        Ok(appended)
    }

    /// The ids that the stream knows at `now`; for whoever copies the stream elsewhere, together with
    /// [`StreamData::ids_seed`].
    pub fn ids_of(&self, now: TimestampNs) -> Result<IdsOf, ReadError> {
        loop {
            let data = self.lock();
            let recent = data.ids.sorted(self.id);
            let window = data.id_window();
            // Under the lock: an id that left RAM is in one of these files.
            let (epoch, files) = (self.shared.ids.epoch(), self.shared.ids.list());
            drop(data);
            let files = files.iter().filter(|_| self.is_file());
            let opened: Result<Vec<_>, _> = files.map(|file| file.cursor()).collect();
            let opened = match opened {
                // A file may have been removed since.
                Err(_) if self.shared.ids.epoch() != epoch => continue,
                opened => opened?,
            };
            let sources = opened.into_iter().map(IdSource::File);
            let merge = IdMerge::new(sources.chain([IdSource::Sorted(recent.into_iter())]));
            return Ok(IdsOf::new(merge, self.id, window, now));
        }
    }

    /// See [`IdKey::mask`].
    pub fn id_mask(&self) -> u128 {
        self.id_key.mask()
    }

    /// The stream's hash of an id.
    pub fn id_hash(&self, id: &[u8]) -> IdHash {
        self.id_key.hash(id)
    }

    /// Under the stream's lock: an answer from before the last change of the files is none.
    fn id_query(&self, hash: IdHash, known: &Known) -> IdQuery {
        let epoch = self.shared.ids.epoch();
        let stored = match self.storage {
            Storage::File => known.id.filter(|answer| answer.epoch == epoch),
            Storage::Memory => Some(IdAnswer { epoch, found: None }),
        };
        IdQuery { hash, stored }
    }

    fn accept(
        &self,
        data: &mut StreamData,
        append: &Append<'_>,
        id: Option<IdHash>,
        now: TimestampNs,
        trim_to: Option<u64>,
        scratch: &mut Scratch,
    ) -> Result<Appended, Refusal> {
        let seq = Seq(data.last_seq + 1);
        // Times never run backwards inside a stream, so that they can be searched.
        let ts = data.last_ts.map_or(now, |last| last.max(now));
        let msg_id = append.msg_id.unwrap_or_default();
        let (subject, headers, payload) = (append.subject, append.headers, append.payload);
        let timers = append.timers();
        let mut record = Record {
            seq,
            ts,
            subject,
            headers,
            payload,
            msg_id,
            flags: timers.flags,
            ttl_ns: timers.ttl_ns,
            notify_at: timers.notify_at,
            crc: 0,
        };
        record.crc = record.computed_crc(self.id);
        let size = data.size_of(subject.len(), headers.len(), payload.len());
        let mut trim_to = trim_to;
        if !data.has_interest(subject) {
            // It takes its sequence and its id, and leaves at once (T-33, T-85, T-86).
            scratch
                .victims
                .push((seq.0, u32::try_from(size).unwrap_or(u32::MAX)));
            trim_to = trim_to.map(|_| seq.0 + 1);
        }
        let freed = ranges_of(&mut scratch.victims, &mut scratch.ranges);
        let removal = Removal {
            trim_to,
            ranges: &scratch.ranges,
            freed,
            totals: removal_totals(data, trim_to, seq, size),
        };
        let lsn = self.log_append(&record, &removal)?;
        let (_, trim_bytes) = removal_totals(data, trim_to, seq, size);
        let ram_before = data.tail_ram();
        let window = data.id_window();
        data.ids.expire(now, window);
        data.apply_append(&record, size, id);
        if let Some(first) = trim_to {
            data.apply_trim(first, trim_bytes);
        } else if !scratch.ranges.is_empty() {
            let exact = data.removal_epoch;
            data.apply_remove(&scratch.ranges, freed);
            data.refresh_prior(subject, exact);
        }
        data.front_advance();
        invariants::debug_check(data);
        if self.is_file() && (trim_to.is_some() || !scratch.ranges.is_empty()) {
            self.shared.space_changed();
        }
        self.shared.tail_ram_changed(ram_before, data.tail_ram());
        if let Some((first, last)) = lsn {
            data.touched(first, last);
        }
        Ok(Appended {
            seq,
            duplicate: false,
            lsn: lsn.map_or(Lsn(0), |(_, last)| last),
        })
    }

    /// Puts the append and what it removes into the log as one unit.
    fn log_append(
        &self,
        record: &Record<'_>,
        removal: &Removal<'_>,
    ) -> Result<Option<(Lsn, Lsn)>, Refusal> {
        if !self.is_file() {
            return Ok(None);
        }
        let stream = self.id;
        let ops = 1 + u32::from(removal.trim_to.is_some() || !removal.ranges.is_empty());
        let touched = Some((&self.gate, record.seq));
        let last = self
            .shared
            .queue
            .enqueue(Class::Append, ops, touched, |out| {
                Op::Append {
                    stream,
                    record: *record,
                }
                .encode(out);
                if let Some(first) = removal.trim_to {
                    let first_seq = Seq(first);
                    let (msgs, bytes) = removal.totals;
                    Op::Trim {
                        stream,
                        first_seq,
                        msgs,
                        bytes,
                    }
                    .encode(out);
                } else if !removal.ranges.is_empty() {
                    let msgs = removal.ranges.iter().map(|range| range.count).sum();
                    let ranges = Cow::Borrowed(removal.ranges);
                    Op::Remove {
                        stream,
                        ranges,
                        msgs,
                        bytes: removal.freed,
                    }
                    .encode(out);
                }
            })
            .map_err(|error| Refusal::Error(append_error(error)))?;
        Ok(Some((Lsn(last.0 + 1 - u64::from(ops)), last)))
    }

    /// Logs one operation that no message waits for, and notes its position.
    pub fn log(&self, data: &mut StreamData, op: &Op<'_>) -> Result<Lsn, ChangeError> {
        if !self.is_file() {
            return Ok(Lsn(0));
        }
        let lsn = self.shared.log_control(op)?;
        data.touched(lsn, lsn);
        Ok(lsn)
    }

    /// Loads what admission asked for and leaves it in the state or in `known`.
    pub(super) fn load(&self, need: Need, known: &mut Known) -> Result<(), ReadError> {
        match need {
            Need::Front(seq) => self.load_front(seq)?,
            Need::Last(subject) => self.load_last(subject)?,
            Need::All(subject) => self.load_all(subject)?,
            Need::LastMatching(filter) => known.matched = Some(self.load_last_matching(filter)?),
            Need::Id(hash) => known.id = self.shared.ids.lookup(self.id, hash)?,
        }
        Ok(())
    }
}

/// Messages and bytes that a rollup of the whole stream removes: everything before `seq`, and with it
/// the new message itself if nobody wants it.
fn removal_totals(data: &StreamData, trim_to: Option<u64>, seq: Seq, size: u64) -> (u64, u64) {
    match trim_to {
        Some(first) if first > seq.0 => (data.msgs + 1, data.bytes + size),
        _ => (data.msgs, data.bytes),
    }
}

struct Removal<'a> {
    trim_to: Option<u64>,
    ranges: &'a [SeqRange],
    freed: u64,
    totals: (u64, u64),
}

impl StreamData {
    /// After a removal by this subject's own append: keeps its prior exact.
    fn refresh_prior(&mut self, subject: &[u8], exact_before: u64) {
        let (first_seq, last_seq, epoch) = (self.first_seq, self.last_seq, self.removal_epoch);
        let tombstones = &self.tombstones;
        let Some(Prior::All { seqs, exact_at }) = self.priors.get_mut(subject) else {
            return;
        };
        let is_live = |seq: u64| seq >= first_seq && seq <= last_seq && !tombstones.contains(seq);
        if *exact_at == exact_before {
            // Its own append removed the oldest ones only.
            while seqs.front().is_some_and(|(seq, _)| !is_live(*seq)) {
                seqs.pop_front();
            }
        } else {
            seqs.retain(|(seq, _)| is_live(*seq));
        }
        *exact_at = epoch;
    }

    fn front_advance(&mut self) {
        self.front.advance(self.first_seq);
    }
}

impl Append<'_> {
    /// What the record says besides the message's bytes.
    fn timers(&self) -> MessageTimers {
        let mut timers = MessageTimers::default();
        match self.ttl {
            Some(Ttl::Never) => timers.flags |= flag::NEVER,
            Some(Ttl::For { ttl_ns }) => {
                timers.flags |= flag::TTL;
                timers.ttl_ns = ttl_ns;
            }
            None => {}
        }
        if self.leaves_no_marker {
            timers.flags |= flag::NO_MARKER;
        }
        if let Some(at) = self.notify_at {
            timers.flags |= flag::NOTIFY;
            timers.notify_at = at;
        }
        timers
    }
}

fn check_sizes(append: &Append<'_>) -> Result<(), AppendError> {
    let id_len = append.msg_id.map_or(0, <[u8]>::len);
    let total = append.subject.len() + append.headers.len() + append.payload.len() + id_len;
    if append.subject.len() > SUBJECT_BYTES_MAX || !subject::is_valid_literal(append.subject) {
        return Err(AppendError::Subject);
    }
    if total > MESSAGE_BYTES_MAX || id_len > MSG_ID_BYTES_MAX {
        return Err(AppendError::TooLarge);
    }
    Ok(())
}

/// Sorts victims, writes them as ranges and returns the sum of their sizes.
pub(crate) fn ranges_of(victims: &mut Vec<(u64, u32)>, ranges: &mut Vec<SeqRange>) -> u64 {
    ranges.clear();
    victims.sort_unstable();
    victims.dedup_by_key(|(seq, _)| *seq);
    let mut bytes = 0;
    for (seq, size) in victims.iter() {
        bytes += u64::from(*size);
        match ranges.last_mut() {
            Some(range) if range.first.0 + range.count == *seq => range.count += 1,
            _ => ranges.push(SeqRange {
                first: Seq(*seq),
                count: 1,
            }),
        }
    }
    bytes
}

/// The caller's view of a refused enqueue.
pub(crate) fn append_error(error: EnqueueError) -> AppendError {
    match error {
        EnqueueError::Full => AppendError::Busy,
        EnqueueError::NoSpace => AppendError::NoSpace,
        EnqueueError::TooLarge => AppendError::TooLarge,
        EnqueueError::Poisoned => AppendError::Stopped(Stopped::Poisoned),
        EnqueueError::Closed => AppendError::Stopped(Stopped::Closed),
    }
}

/// The caller's view of a refused enqueue of a control operation.
pub(crate) fn change_error(error: EnqueueError) -> ChangeError {
    match error {
        EnqueueError::Full | EnqueueError::NoSpace => ChangeError::NoSpace,
        EnqueueError::TooLarge => {
            ConfigError::Invalid("the change is too large for the log").into()
        }
        EnqueueError::Poisoned => ChangeError::Stopped(Stopped::Poisoned),
        EnqueueError::Closed => ChangeError::Stopped(Stopped::Closed),
    }
}
