//! Keys of the metadata log. Numbers are big-endian, so that keys sort by them.

use crate::ids::{ConsumerId, IdFileId, SegmentId, StreamId};

/// Counters of the store: next ids and the checkpoint position.
pub(crate) const COUNTERS: &[u8] = b"C";
/// Where the background check of sealed files is.
pub(crate) const SCRUB: &[u8] = b"R";
/// Prefix of everything about streams.
pub(crate) const STREAMS: &[u8] = b"S";
/// Prefix of sealed files.
pub(crate) const SEGMENTS: &[u8] = b"G";

/// Prefix of files of message ids.
pub(crate) const ID_FILES: &[u8] = b"I";

/// Kinds of values below a stream.
pub(crate) mod kind {
    /// Creation time and configuration.
    pub const CONFIG: u8 = b'a';
    /// Positions and counters.
    pub const POSITIONS: u8 = b'b';
    /// Extents in sealed files.
    pub const EXTENTS: u8 = b'c';
    /// One tombstone container.
    pub const TOMBSTONES: u8 = b'd';
    /// Message ids of a stream; only in backups.
    pub const IDS: u8 = b'e';
    /// One consumer.
    pub const CONSUMER: u8 = b'f';
    /// One container of a consumer.
    pub const CONSUMER_CONTAINER: u8 = b'h';
    /// Claims of consumers that are not settled.
    pub const CLAIMS: u8 = b'g';
    /// Erasures that are not complete.
    pub const ERASURES: u8 = b'x';
    /// Merged index runs.
    pub const RUNS: u8 = b'r';
}

/// Prefix of one stream.
pub(crate) fn stream(id: StreamId) -> Vec<u8> {
    [STREAMS, &id.0.to_be_bytes()].concat()
}

/// A value of a stream.
pub(crate) fn stream_value(id: StreamId, kind: u8) -> Vec<u8> {
    [STREAMS, &id.0.to_be_bytes(), &[kind]].concat()
}

/// A numbered value of a stream.
pub(crate) fn numbered(id: StreamId, kind: u8, number: u64) -> Vec<u8> {
    [STREAMS, &id.0.to_be_bytes(), &[kind], &number.to_be_bytes()].concat()
}

/// A consumer.
pub(crate) fn consumer(stream: StreamId, id: ConsumerId) -> Vec<u8> {
    numbered(stream, kind::CONSUMER, id.0)
}

/// Prefix of a consumer's containers.
pub(crate) fn consumer_containers(stream: StreamId, id: ConsumerId) -> Vec<u8> {
    numbered(stream, kind::CONSUMER_CONTAINER, id.0)
}

/// A container of a consumer.
pub(crate) fn consumer_container(stream: StreamId, id: ConsumerId, container: u64) -> Vec<u8> {
    [
        &consumer_containers(stream, id)[..],
        &container.to_be_bytes(),
    ]
    .concat()
}

/// A sealed file.
pub(crate) fn segment(id: SegmentId) -> Vec<u8> {
    [SEGMENTS, &id.0.to_be_bytes()].concat()
}

/// A file of message ids.
pub(crate) fn id_file(id: IdFileId) -> Vec<u8> {
    [ID_FILES, &id.0.to_be_bytes()].concat()
}

/// A key below [`STREAMS`], taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamKey {
    pub stream: StreamId,
    pub kind: u8,
    pub number: u64,
    /// A second number: the container of a consumer.
    pub part: u64,
}

/// Takes a key below [`STREAMS`] apart.
pub(crate) fn parse_stream(key: &[u8]) -> Option<StreamKey> {
    let rest = key.strip_prefix(STREAMS)?;
    let (id, rest) = rest.split_first_chunk::<8>()?;
    let (kind, rest) = rest.split_first()?;
    let mut numbers = [0; 2];
    let (words, rest) = rest.as_chunks::<8>();
    if !rest.is_empty() || words.len() > numbers.len() {
        return None;
    }
    for (number, word) in numbers.iter_mut().zip(words) {
        *number = u64::from_be_bytes(*word);
    }
    let [number, part] = numbers;
    Some(StreamKey {
        stream: StreamId(u64::from_be_bytes(*id)),
        kind: *kind,
        number,
        part,
    })
}

/// Takes a key below [`SEGMENTS`] apart.
pub(crate) fn parse_segment(key: &[u8]) -> Option<SegmentId> {
    let id = key.strip_prefix(SEGMENTS)?;
    Some(SegmentId(u64::from_be_bytes(id.try_into().ok()?)))
}

/// Takes a key below [`ID_FILES`] apart.
pub(crate) fn parse_id_file(key: &[u8]) -> Option<IdFileId> {
    let id = key.strip_prefix(ID_FILES)?;
    Some(IdFileId(u64::from_be_bytes(id.try_into().ok()?)))
}
