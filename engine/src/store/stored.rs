//! Stored forms of what the metadata log keeps about the store and its files.

use std::sync::Arc;

use crate::dedup::IdManifest;
use crate::format::cursor::Cursor;
use crate::format::key_ring::KeyId;
use crate::format::timers::TimerKind;
use crate::format::{FormatError, varint};
use crate::ids::{IdFileId, Lsn, SegmentId, TimestampNs};
use crate::index::RunManifest;
use crate::segment::SegmentManifest;
use crate::stream::extent::Extent;
use crate::stream::merged_run::{MergedRun, MergedRunInfo};

/// The stored form of a manifest.
pub(crate) fn encode_manifest(manifest: &SegmentManifest) -> Vec<u8> {
    let mut out = vec![1];
    varint::encode(manifest.file_bytes, &mut out);
    varint::encode(manifest.bytes, &mut out);
    out.extend_from_slice(&manifest.footer_digest.to_le_bytes());
    let key = manifest.key.map_or(0, KeyId::number);
    out.extend_from_slice(&key.to_le_bytes());
    out
}

/// Reads the stored form of a manifest.
pub(crate) fn decode_manifest(id: SegmentId, bytes: &[u8]) -> Result<SegmentManifest, FormatError> {
    let mut input = Cursor::new(bytes);
    match input.u8()? {
        1 => {}
        found => {
            return Err(FormatError::UnknownKind {
                what: "segment manifest",
                found,
            });
        }
    }
    Ok(SegmentManifest {
        id,
        file_bytes: input.varint()?,
        bytes: input.varint()?,
        footer_digest: input.u64()?,
        key: KeyId::from_number(input.u64()?),
    })
}

/// The stored form of a stream's merged index runs.
pub(crate) fn encode_runs(runs: &[Arc<MergedRun>]) -> Vec<u8> {
    let mut out = vec![1];
    for run in runs {
        let manifest = &run.manifest;
        varint::encode(manifest.id.0, &mut out);
        out.push(run.level);
        for number in [
            run.first,
            run.last,
            run.keys,
            run.postings,
            run.lsn.0,
            manifest.file_bytes,
        ] {
            varint::encode(number, &mut out);
        }
        out.extend_from_slice(&manifest.footer_digest.to_le_bytes());
    }
    out
}

/// The stored form of a manifest of message ids.
pub(crate) fn encode_id_manifest(manifest: &IdManifest) -> Vec<u8> {
    let mut out = vec![1];
    varint::encode(manifest.file_bytes, &mut out);
    out.extend_from_slice(&manifest.footer_digest.to_le_bytes());
    let key = manifest.key.map_or(0, KeyId::number);
    out.extend_from_slice(&key.to_le_bytes());
    varint::encode(manifest.entries, &mut out);
    for time in [manifest.oldest, manifest.youngest, manifest.expires] {
        out.extend_from_slice(&time.0.to_le_bytes());
    }
    out
}

/// Reads the stored form of a stream's merged index runs.
pub(crate) fn decode_runs(bytes: &[u8]) -> Result<Vec<MergedRunInfo>, FormatError> {
    let what = "merged index runs";
    let mut input = Cursor::new(bytes);
    match input.u8()? {
        1 => {}
        found => return Err(FormatError::UnknownKind { what, found }),
    }
    let mut runs: Vec<MergedRunInfo> = Vec::new();
    while !input.rest().is_empty() {
        let id = SegmentId(input.varint()?);
        let level = input.u8()?;
        let (first, last) = (input.varint()?, input.varint()?);
        let (keys, postings) = (input.varint()?, input.varint()?);
        let lsn = Lsn(input.varint()?);
        let manifest = RunManifest {
            id,
            file_bytes: input.varint()?,
            footer_digest: input.u64()?,
        };
        let ascends = runs.last().is_none_or(|before| before.last < first);
        if first > last || !ascends {
            return Err(FormatError::OutOfRange { what });
        }
        runs.push(MergedRunInfo {
            manifest,
            level,
            first,
            last,
            keys,
            postings,
            lsn,
        });
    }
    Ok(runs)
}

/// Reads the stored form of a manifest of message ids.
pub(crate) fn decode_id_manifest(id: IdFileId, bytes: &[u8]) -> Result<IdManifest, FormatError> {
    let mut input = Cursor::new(bytes);
    match input.u8()? {
        1 => {}
        found => {
            return Err(FormatError::UnknownKind {
                what: "manifest of message ids",
                found,
            });
        }
    }
    let manifest = IdManifest {
        id,
        file_bytes: input.varint()?,
        footer_digest: input.u64()?,
        key: KeyId::from_number(input.u64()?),
        entries: input.varint()?,
        oldest: TimestampNs(input.i64()?),
        youngest: TimestampNs(input.i64()?),
        expires: TimestampNs(input.i64()?),
    };
    match manifest.holds_its_entries() {
        true => Ok(manifest),
        false => Err(FormatError::OutOfRange {
            what: "manifest of message ids",
        }),
    }
}

/// Numbers that concern the whole store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counters {
    pub next_stream: u64,
    pub next_consumer: u64,
    pub next_segment: u64,
    /// Every operation up to here is contained in the metadata and the sealed files.
    pub checkpoint: Lsn,
}

impl Counters {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![1];
        for number in [
            self.next_stream,
            self.next_consumer,
            self.next_segment,
            self.checkpoint.0,
        ] {
            varint::encode(number, &mut out);
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Counters, FormatError> {
        let mut input = Cursor::new(bytes);
        match input.u8()? {
            1 => {}
            found => {
                return Err(FormatError::UnknownKind {
                    what: "store counters",
                    found,
                });
            }
        }
        Ok(Counters {
            next_stream: input.varint()?,
            next_consumer: input.varint()?,
            next_segment: input.varint()?,
            checkpoint: Lsn(input.varint()?),
        })
    }
}

/// The stored form of a list of extents.
pub(crate) fn encode_extents<'a>(extents: impl IntoIterator<Item = &'a Extent>) -> Vec<u8> {
    let mut out = vec![1];
    for extent in extents {
        for number in [
            extent.file.id.0,
            extent.first,
            extent.last,
            extent.msgs,
            extent.bytes,
        ] {
            varint::encode(number, &mut out);
        }
        out.extend_from_slice(&extent.first_ts.to_le_bytes());
        out.extend_from_slice(&extent.last_ts.to_le_bytes());
        for kind in [TimerKind::Expiry, TimerKind::Notice] {
            // Not how far expiry came since: removals behind this share may be lost.
            out.extend_from_slice(&extent.timers.sealed(kind).0.to_le_bytes());
        }
    }
    out
}

/// Reads a stored list of extents: file, then the numbers in their stored order.
pub(crate) fn decode_extents(bytes: &[u8]) -> Result<Vec<StoredExtent>, FormatError> {
    let mut input = Cursor::new(bytes);
    match input.u8()? {
        1 => {}
        found => {
            return Err(FormatError::UnknownKind {
                what: "extent list",
                found,
            });
        }
    }
    let mut extents = Vec::new();
    while !input.rest().is_empty() {
        extents.push(StoredExtent {
            file: SegmentId(input.varint()?),
            first: input.varint()?,
            last: input.varint()?,
            msgs: input.varint()?,
            bytes: input.varint()?,
            first_ts: input.i64()?,
            last_ts: input.i64()?,
            first_expiry: TimestampNs(input.i64()?),
            first_notice: TimestampNs(input.i64()?),
        });
    }
    Ok(extents)
}

/// One stored extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredExtent {
    pub file: SegmentId,
    pub first: u64,
    pub last: u64,
    pub msgs: u64,
    pub bytes: u64,
    pub first_ts: i64,
    pub last_ts: i64,
    pub first_expiry: TimestampNs,
    pub first_notice: TimestampNs,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE_ENTRIES: u64 = crate::format::id_page::PAGE_ENTRIES as u64;

    proptest! {
        #[test]
        fn manifests_of_ids_come_back(entries in 1..1_000_000_u64, filter in 0..50_000_u64, key: u64, times: [i64; 3]) {
            let manifest = IdManifest {
                id: IdFileId(5),
                file_bytes: 192 + 4096 * (entries.div_ceil(PAGE_ENTRIES) + filter),
                footer_digest: 77,
                key: KeyId::from_number(key),
                entries,
                oldest: TimestampNs(times[0]),
                youngest: TimestampNs(times[1]),
                expires: TimestampNs(times[2]),
            };
            let stored = encode_id_manifest(&manifest);
            prop_assert_eq!(decode_id_manifest(manifest.id, &stored), Ok(manifest));
            let short = IdManifest { file_bytes: 192 + 4096 * (entries.div_ceil(PAGE_ENTRIES) - 1), ..manifest };
            let stored = encode_id_manifest(&short);
            prop_assert!(decode_id_manifest(manifest.id, &stored).is_err(), "no place for the ids");
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            _ = decode_id_manifest(IdFileId(1), &bytes);
        }
    }
}
