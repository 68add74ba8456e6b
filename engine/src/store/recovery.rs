//! State rebuilt from metadata and the log, before the store serves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::keys::{self, StreamKey, kind};
use super::layout::Layout;
use super::stored::{
    Counters, StoredExtent, decode_extents, decode_id_manifest, decode_manifest, decode_runs,
};
use crate::config::{Retention, StreamConfig};
use crate::consumer::{Claim, ConsumerState};
use crate::dedup::{IdKey, IdManifest};
use crate::format::FormatError;
use crate::format::op::Op;
use crate::ids::{ConsumerId, IdFileId, Lsn, SegmentId, StreamId, TimestampNs};
use crate::meta::MetaLog;
use crate::segment::SegmentManifest;
use crate::stream::erase::{Erasures, Pending};
use crate::stream::merged_run::MergedRunInfo;
use crate::stream::snapshot::{Positions, StoredConsumer, get_consumer};
use crate::stream::state::StreamData;

/// A consumer under recovery.
pub(crate) struct RecoveredConsumer {
    pub created: TimestampNs,
    pub state: ConsumerState,
    /// Operations up to here are contained.
    pub applied: Lsn,
    pub dirty_since: Option<Lsn>,
}

/// A stream under recovery.
pub(crate) struct RecoveredStream {
    pub data: StreamData,
    pub extents: Vec<StoredExtent>,
    pub runs: Vec<MergedRunInfo>,
    pub consumers: BTreeMap<ConsumerId, RecoveredConsumer>,
}

/// Everything recovered so far.
#[derive(Default)]
pub(crate) struct Recovered {
    pub streams: BTreeMap<StreamId, RecoveredStream>,
    pub segments: BTreeMap<SegmentId, SegmentManifest>,
    pub id_files: BTreeMap<IdFileId, IdManifest>,
    /// By how much deduplication windows grew behind the checkpoint.
    pub windows_grown_ns: u64,
    pub deleted: Vec<(StreamId, Lsn)>,
    pub deleted_consumers: Vec<(StreamId, ConsumerId, Lsn)>,
    pub next_stream: u64,
    pub next_consumer: u64,
    pub next_segment: u64,
    pub checkpoint: Lsn,
    pub ops_applied: u64,
    /// Operations may be missing; what they held is given up.
    pub salvage: bool,
    /// Sequences that missing operations held: first and last, by stream.
    pub lost: Vec<(StreamId, u64, u64)>,
    dedup_seed: u64,
}

impl Recovered {
    /// Reads the metadata.
    pub fn from_meta(meta: &MetaLog, dedup_seed: u64) -> Result<Recovered, FormatError> {
        let mut recovered = Recovered {
            next_stream: 1,
            next_consumer: 1,
            next_segment: 1,
            dedup_seed,
            ..Recovered::default()
        };
        if let Some(value) = meta.get(keys::COUNTERS) {
            let counters = Counters::decode(value)?;
            recovered.next_stream = counters.next_stream;
            recovered.next_consumer = counters.next_consumer;
            recovered.next_segment = counters.next_segment;
            recovered.checkpoint = counters.checkpoint;
        }
        for (key, value) in meta.scan_prefix(keys::SEGMENTS) {
            let id = keys::parse_segment(key).ok_or(FormatError::OutOfRange { what: "key" })?;
            recovered.segments.insert(id, decode_manifest(id, value)?);
        }
        for (key, value) in meta.scan_prefix(keys::ID_FILES) {
            let id = keys::parse_id_file(key).ok_or(FormatError::OutOfRange { what: "key" })?;
            recovered
                .id_files
                .insert(id, decode_id_manifest(id, value)?);
        }
        // A stream's configuration sorts before its other values.
        for (key, value) in meta.scan_prefix(keys::STREAMS) {
            let key = keys::parse_stream(key).ok_or(FormatError::OutOfRange { what: "key" })?;
            recovered.take_value(key, value)?;
        }
        let consumers = recovered.streams.values_mut();
        for consumer in consumers.flat_map(|stream| stream.consumers.values_mut()) {
            let loaded = consumer.state.finish_loading();
            loaded.map_err(|_| FormatError::OutOfRange { what: "consumer" })?;
        }
        Ok(recovered)
    }

    /// The number in the name of a sealed file or index run, and whether the file is needed.
    pub fn file_named(&self, name: &str, index_files: &BTreeSet<SegmentId>) -> Option<(u64, bool)> {
        if let Some(id) = Layout::parse_id_file(name) {
            return Some((id.0, self.id_files.contains_key(&id)));
        }
        let id = Layout::parse(name)?;
        let named = match name.ends_with(".idx") {
            true => index_files.contains(&id),
            false => self.segments.contains_key(&id),
        };
        Some((id.0, named))
    }

    /// Takes a value of a stream, whose configuration comes first.
    pub fn take_value(&mut self, key: StreamKey, value: &[u8]) -> Result<(), FormatError> {
        if key.kind == kind::CONFIG {
            let (created, config) = value
                .split_first_chunk::<8>()
                .ok_or(FormatError::Truncated)?;
            let created = TimestampNs(i64::from_le_bytes(*created));
            self.add_stream(key.stream, created, config)?;
            return Ok(());
        }
        let missing = FormatError::OutOfRange {
            what: "value of a stream without configuration",
        };
        let stream = self.streams.get_mut(&key.stream).ok_or(missing)?;
        match key.kind {
            kind::POSITIONS => Positions::decode(value)?.restore(&mut stream.data),
            kind::EXTENTS => stream.extents = decode_extents(value)?,
            kind::RUNS => {
                stream.runs = decode_runs(value)?;
                // Their files may be missing: derived ones can be deleted by anybody.
                let ids = stream.runs.iter().map(|run| run.manifest.id.0 + 1);
                self.next_segment = self.next_segment.max(ids.max().unwrap_or(0));
            }
            kind::TOMBSTONES => {
                if !stream.data.tombstones.load_container(key.number, value) {
                    return Err(FormatError::OutOfRange {
                        what: "tombstone container",
                    });
                }
            }
            kind::IDS => {}
            kind::CLAIMS => {
                let claims = Claim::decode_all(value);
                let claims = claims.map_err(|_| FormatError::OutOfRange { what: "claims" })?;
                stream.data.abandoned = claims.into_iter().map(Arc::new).collect();
            }
            kind::ERASURES => stream.data.erasures = Erasures::decode(value)?,
            kind::CONSUMER => match get_consumer(value)? {
                StoredConsumer::Head(state, created, applied) => {
                    let consumer = RecoveredConsumer {
                        created,
                        state: *state,
                        applied,
                        dirty_since: None,
                    };
                    stream.consumers.insert(ConsumerId(key.number), consumer);
                }
                StoredConsumer::Config(_) | StoredConsumer::Whole(..) => {
                    return Err(FormatError::OutOfRange {
                        what: "consumer without head",
                    });
                }
            },
            kind::CONSUMER_CONTAINER => {
                let consumer = stream.consumers.get_mut(&ConsumerId(key.number));
                let loaded = consumer.map(|known| known.state.load_container(key.part, value));
                if loaded.is_none_or(|loaded| loaded.is_err()) {
                    return Err(FormatError::OutOfRange {
                        what: "consumer container",
                    });
                }
            }
            found => {
                return Err(FormatError::UnknownKind {
                    what: "metadata key",
                    found,
                });
            }
        }
        Ok(())
    }

    /// Leaves out merged index runs that may not know messages whose removal the log has lost. It
    /// was read up to `end`, and `whole` if nothing in between was lost.
    pub fn drop_doubtful_runs(&mut self, end: Lsn, whole: bool) {
        for stream in self.streams.values_mut() {
            let before = stream.runs.len();
            stream.runs.retain(|run| whole && run.lsn <= end);
            stream.data.runs_dirty |= stream.runs.len() < before;
        }
    }

    /// Numbers of the index files that streams are answered from: merged runs, and the runs of
    /// sealed files where no merged one covers them.
    pub fn index_files(&self) -> BTreeSet<SegmentId> {
        let mut needed = BTreeSet::new();
        for stream in self.streams.values() {
            needed.extend(stream.runs.iter().map(|run| run.manifest.id));
            for extent in &stream.extents {
                let mut next = extent.first;
                for run in stream.runs.iter().filter(|run| run.last >= extent.first) {
                    if run.first > next {
                        break;
                    }
                    next = run.last.saturating_add(1);
                }
                if next <= extent.last {
                    needed.insert(extent.file);
                }
            }
        }
        needed
    }

    fn add_stream(
        &mut self,
        id: StreamId,
        created: TimestampNs,
        config: &[u8],
    ) -> Result<&mut RecoveredStream, FormatError> {
        let mut data = StreamData::new(StreamConfig::decode(config)?, created);
        data.ids_seed = IdKey::default_seed(self.dedup_seed, id);
        self.next_stream = self.next_stream.max(id.0 + 1);
        Ok(self.streams.entry(id).or_insert(RecoveredStream {
            data,
            extents: Vec::new(),
            runs: Vec::new(),
            consumers: BTreeMap::new(),
        }))
    }

    /// Applies one operation of the log, unless the metadata contains it already.
    pub fn apply(&mut self, lsn: Lsn, op: &Op<'_>) -> Result<(), FormatError> {
        match op {
            Op::StreamPut {
                stream,
                created,
                changed,
                config,
            } => {
                if let Some(known) = self.streams.get_mut(stream) {
                    if lsn > known.data.last_lsn {
                        let decided = known.data.config.retention == Retention::Interest;
                        let config = StreamConfig::decode(config)?;
                        let grown_ns = known.data.change_config(config, *changed);
                        self.windows_grown_ns = self.windows_grown_ns.saturating_add(grown_ns);
                        if !decided {
                            known.data.abandon_everything();
                        }
                        known.data.touched(lsn, lsn);
                    }
                } else {
                    // If it was deleted since, the log says so further on.
                    self.add_stream(*stream, *created, config)?
                        .data
                        .touched(lsn, lsn);
                }
            }
            Op::StreamDelete { stream } => {
                self.streams.remove(stream);
                self.deleted.push((*stream, lsn));
            }
            Op::ConsumerPut { .. } | Op::ConsumerDelete { .. } | Op::ConsumerDelta { .. } => {
                return self.apply_consumer(lsn, op);
            }
            Op::Append { .. }
            | Op::Remove { .. }
            | Op::Trim { .. }
            | Op::Skip { .. }
            | Op::Erase { .. } => {
                let seed = self.dedup_seed;
                let Some(known) = self.streams.get_mut(&op.stream()) else {
                    return Ok(());
                };
                if lsn <= known.data.last_lsn {
                    return Ok(());
                }
                if let Op::Append { record, .. } = op
                    && self.salvage
                    && record.seq.0 > known.data.last_seq + 1
                {
                    tracing::error!(
                        stream = %known.data.config.name,
                        first = known.data.last_seq + 1,
                        last = record.seq.0 - 1,
                        "acknowledged messages are lost to damage in the log"
                    );
                    let first = known.data.last_seq + 1;
                    self.lost.push((op.stream(), first, record.seq.0 - 1));
                    known.data.apply_skip(record.seq.0 - 1);
                }
                apply_to_stream(&mut known.data, lsn, op, seed)?;
                known.data.touched(lsn, lsn);
            }
        }
        self.ops_applied += 1;
        Ok(())
    }

    fn apply_consumer(&mut self, lsn: Lsn, op: &Op<'_>) -> Result<(), FormatError> {
        let Some(stream) = self.streams.get_mut(&op.stream()) else {
            return Ok(());
        };
        match op {
            Op::ConsumerPut {
                consumer,
                created,
                config,
                ..
            } => {
                self.next_consumer = self.next_consumer.max(consumer.0 + 1);
                match (get_consumer(config)?, stream.consumers.get_mut(consumer)) {
                    (StoredConsumer::Whole(state), None) => {
                        let recovered = RecoveredConsumer {
                            created: *created,
                            state: *state,
                            applied: lsn,
                            dirty_since: Some(lsn),
                        };
                        stream.consumers.insert(*consumer, recovered);
                    }
                    (StoredConsumer::Config(config), Some(known)) if lsn > known.applied => {
                        if config.filters != known.state.config().filters {
                            abandon(&mut stream.data, lsn, known.state.claim());
                        }
                        known.state.update_config(config);
                        known.touched(lsn);
                    }
                    _ => {}
                }
            }
            Op::ConsumerDelete {
                stream: id,
                consumer,
            } => {
                if let Some(known) = stream.consumers.remove(consumer) {
                    abandon(&mut stream.data, lsn, known.state.claim());
                }
                self.deleted_consumers.push((*id, *consumer, lsn));
            }
            Op::ConsumerDelta {
                consumer, events, ..
            } => {
                if let Some(known) = stream.consumers.get_mut(consumer)
                    && lsn > known.applied
                {
                    if ConsumerState::is_reset(events) {
                        abandon(&mut stream.data, lsn, known.state.claim());
                    }
                    let applied = known.state.apply_events(events);
                    if applied.is_err() && !self.salvage {
                        return Err(FormatError::OutOfRange {
                            what: "consumer events",
                        });
                    }
                    known.touched(lsn);
                }
            }
            _ => {}
        }
        self.ops_applied += 1;
        Ok(())
    }
}

/// Gives a consumer's claim to its stream, unless the stream contains that already.
fn abandon(stream: &mut StreamData, lsn: Lsn, claim: Claim) {
    if lsn > stream.last_lsn && stream.config.retention == Retention::Interest {
        stream.abandon(claim);
        stream.touched(lsn, lsn);
    }
}

impl RecoveredConsumer {
    fn touched(&mut self, lsn: Lsn) {
        self.applied = lsn;
        self.dirty_since.get_or_insert(lsn);
    }
}

fn apply_to_stream(
    data: &mut StreamData,
    lsn: Lsn,
    op: &Op<'_>,
    seed: u64,
) -> Result<(), FormatError> {
    match op {
        Op::Append { record, .. } => {
            if record.seq.0 != data.last_seq + 1 {
                return Err(FormatError::OutOfRange {
                    what: "sequence of an append",
                });
            }
            let (subject, headers) = (record.subject.len(), record.headers.len());
            let size = data.size_of(subject, headers, record.payload.len());
            let key = || IdKey::new(seed, op.stream(), data.ids_seed);
            let id = (!record.msg_id.is_empty() && data.config.dedup_window_ns > 0)
                .then(|| key().hash(record.msg_id));
            data.apply_append(record, size, id);
        }
        Op::Remove { ranges, bytes, .. } => data.apply_remove(ranges, *bytes),
        Op::Trim {
            first_seq, bytes, ..
        } => data.apply_trim(first_seq.0, *bytes),
        Op::Skip { last_seq, .. } => data.apply_skip(last_seq.0),
        Op::Erase {
            seq,
            bytes,
            deadline,
            ..
        } => {
            let (seq, deadline) = (seq.0, *deadline);
            data.apply_erase(*bytes, Pending { seq, lsn, deadline });
        }
        _ => {}
    }
    Ok(())
}
