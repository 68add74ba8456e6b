//! Bodies for sealed data: blocks, segments and index runs.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{UUID, damage, env, env_by, keys};
use bytes::Bytes;

use crate::cache::Cache;
use crate::error::ReadError;
use crate::format::block::{BlockHead, Codec, EncodedBlock, HEAD_BYTES, content_digest};
use crate::format::cipher::{Opener, Sealer};
use crate::format::file_header::FileKind;
use crate::format::footer::{self, Footer};
use crate::format::identity::FileIdentity;
use crate::format::key_page::{KeyPage, Value};
use crate::format::page::{self, PAGE_BYTES, PAYLOAD_BYTES_MAX, PageKind};
use crate::format::record::{Record, flag};
use crate::format::timers::TimerKind;
use crate::ids::{SegmentId, Seq, StreamId, TimestampNs};
use crate::index::{
    Merge, MergeInput, MergeScope, Run, RunError, RunIdentity, RunManifest, RunSource, RunWriter,
    SubjectKey,
};
use crate::io::sim::SimDisk;
use crate::io::{Env, OpenMode};
use crate::segment::{LoadedBlock, Segment, SegmentManifest, SegmentWriter, Stretch};
use crate::subject::Filter;

const STREAM: StreamId = StreamId(3);
const ID: SegmentId = SegmentId(1);
const LAST_SEQ: u64 = 60;

/// Decodes a block whose checksums hold and whose content is the input, one that was encrypted, and
/// one whose head is the input. Whatever record is served must match its own checksum and lie inside
/// the block.
pub fn fuzz_block(data: &[u8]) {
    let identity = FileIdentity::new(FileKind::Segment, UUID, ID.0);
    _ = BlockHead::decode(identity, 64, data);
    let Some(([codec, first, span, count], raw)) = data.split_first_chunk::<4>() else {
        return;
    };
    let is_encrypted = codec & 2 != 0;
    let codec = match codec % 2 {
        0 => Codec::None,
        _ => Codec::S2,
    };
    let raw_len = match minlz::s2::decode_len(raw) {
        Ok((len, _)) if codec == Codec::S2 => len as u32,
        _ => raw.len() as u32,
    };
    let first_seq = Seq(u64::from(*first));
    let head = BlockHead {
        codec,
        key: 0,
        stream: STREAM,
        first_seq,
        last_seq: Seq(first_seq.0 + u64::from(*span)),
        first_ts: TimestampNs(0),
        max_ts: TimestampNs(0),
        count: u32::from(*count),
        raw_len,
        disk_len: raw.len() as u32,
        content_digest: content_digest(raw),
        disk_digest: content_digest(raw),
    };
    let keys = is_encrypted.then(keys);
    let sealer = Sealer::new(keys.as_deref(), 5, FileKind::Segment, UUID, ID.0);
    let opener = Opener::new(keys, FileKind::Segment, UUID, ID.0);
    let mut block = Vec::new();
    let disk = raw.into();
    EncodedBlock { head, disk }.seal(&sealer, 64, &mut block);
    let Ok(head) = BlockHead::decode(identity, 64, &block[..HEAD_BYTES]) else {
        return;
    };
    check_block(&head, &LoadedBlock::decode(&opener, 64, &head, block));
}

/// The stretches of a block cover its sequences in order.
fn check_block(head: &BlockHead, block: &LoadedBlock) {
    let mut next = head.first_seq;
    for stretch in block.stretches() {
        match stretch {
            Stretch::Lost { first, last, .. } => {
                assert!(first == next && last >= first, "losses adjoin");
                next = Seq(last.0 + 1);
            }
            Stretch::Good(block) => {
                assert!(block.first_seq() >= next);
                let mut count = 0;
                for message in block.iter() {
                    assert!(message.seq >= next, "sequences ascend");
                    next = Seq(message.seq.0 + 1);
                    count += 1;
                    assert_eq!(block.get(message.seq).as_ref(), Some(&message));
                    let record = message.as_record();
                    assert_eq!(record.computed_crc(STREAM), message.crc);
                }
                assert_eq!((count, next.0), (block.count(), block.last_seq().0 + 1));
            }
        }
    }
    assert_eq!(next.0, head.last_seq.0 + 1, "the block is covered");
}

fn subject_of(seq: u64) -> Vec<u8> {
    format!("a.{}.{}", seq % 4, seq % 3).into_bytes()
}

fn payload_of(seq: u64) -> Vec<u8> {
    vec![seq as u8; (seq % 7 * 400) as usize]
}

/// Life time of a message with an even sequence.
fn ttl_of(seq: u64) -> u64 {
    seq % 8 * 100
}

/// Two of three sequences; every third is a gap.
fn is_written(seq: u64) -> bool {
    (1..=LAST_SEQ).contains(&seq) && !seq.is_multiple_of(3)
}

/// Writes a segment of two streams with the same messages and its run.
fn write_sealed(env: &Env) -> std::io::Result<(SegmentManifest, [PathBuf; 2])> {
    let files = [
        PathBuf::from("/sealed/1.seg"),
        PathBuf::from("/sealed/1.idx"),
    ];
    env.io.create_dir_all(Path::new("/sealed"))?;
    let mut writer = SegmentWriter::new(env, &files[0], UUID, ID)?;
    let mut postings: BTreeMap<Vec<u8>, Vec<(Seq, u32)>> = BTreeMap::new();
    for (stream, codec) in [(STREAM, Codec::None), (StreamId(STREAM.0 + 1), Codec::S2)] {
        writer.begin_extent(stream, codec)?;
        for seq in (1..=LAST_SEQ).filter(|seq| is_written(*seq)) {
            let (subject, payload) = (subject_of(seq), payload_of(seq));
            let ts = TimestampNs(seq as i64);
            let mut record = Record {
                seq: Seq(seq),
                ts,
                subject: &subject,
                payload: &payload,
                ..Record::default()
            };
            if seq.is_multiple_of(2) {
                record.flags = flag::TTL;
                record.ttl_ns = ttl_of(seq);
            }
            record.crc = record.computed_crc(stream);
            writer.push(&record)?;
            if stream == STREAM {
                let posting = (Seq(seq), payload.len() as u32);
                postings.entry(subject).or_default().push(posting);
            }
        }
    }
    let sealed = writer.finish()?;
    let source = RunSource::Segment(sealed.manifest);
    let mut run = RunWriter::new(env, &files[1], UUID, source, 100)?;
    for (subject, postings) in &postings {
        run.push(STREAM, subject, postings)?;
    }
    // Enough subjects for a filter.
    for n in 100..140_u64 {
        let subject = format!("b.{n}");
        run.push(StreamId(STREAM.0 + 1), subject.as_bytes(), &[(Seq(n), 1)])?;
    }
    run.finish(0)?;
    Ok((sealed.manifest, files))
}

/// Reads a segment after damage that the input describes, five bytes a change. A message is read
/// as it was written or reported as lost; it is never absent and never another one.
pub fn fuzz_segment(data: &[u8]) {
    let disk = SimDisk::new(1);
    let env = env_by(&disk, data);
    let Ok((manifest, files)) = write_sealed(&env) else {
        return;
    };
    damage(&disk, &files[..1], data);
    let cache = Arc::new(Cache::new(1 << 18, 4));
    let segment = Segment::open(&env, &files[0], UUID, manifest, cache);
    for stream in [STREAM, StreamId(STREAM.0 + 1)] {
        for seq in 0..=LAST_SEQ + 1 {
            match segment.get(stream, Seq(seq)) {
                Ok(Some(message)) => {
                    assert!(is_written(seq));
                    assert_eq!(message.subject(), subject_of(seq));
                    assert_eq!(message.payload(), payload_of(seq));
                }
                Ok(None) => assert!(!is_written(seq), "sequence {seq} is silently absent"),
                Err(ReadError::Corrupt(report)) => {
                    assert!(report.first.0 <= seq && seq <= report.last.0);
                }
                Err(error) => panic!("no system call failed: {error}"),
            }
        }
        check_walk(&segment, stream);
        check_timers(&segment, stream);
        if let Ok(Some(seq)) = segment.first_seq_at_or_after(stream, TimestampNs(20)) {
            assert_eq!(seq, Seq(20));
        }
    }
    _ = segment.extents();
    _ = segment.verify(&mut |_| {});
}

/// No timer is invented, and none appears twice or out of order.
fn check_timers(segment: &Segment, stream: StreamId) {
    let found = segment.timers_due(
        stream,
        TimerKind::Expiry,
        None,
        TimestampNs::FAR,
        usize::MAX,
    );
    let found = found.expect("no system call failed");
    assert!(found.due.is_sorted_by(|a, b| a.key() < b.key()));
    for timer in found.due {
        let seq = timer.seq.0;
        assert!(is_written(seq) && seq.is_multiple_of(2));
        assert_eq!(timer.due.0, (seq + ttl_of(seq)) as i64);
    }
}

/// Walking forward by blocks and reports ends, and passes every message.
fn check_walk(segment: &Segment, stream: StreamId) {
    let mut seq = Seq(0);
    loop {
        let next = match segment.block(stream, seq) {
            Ok(Some(block)) => {
                let skipped = seq.0..block.first_seq().0;
                assert!(skipped.into_iter().all(|seq| !is_written(seq)));
                block.last_seq().next()
            }
            Ok(None) => break,
            Err(ReadError::Corrupt(report)) => {
                let skipped = seq.0..report.first.0.min(LAST_SEQ + 1);
                assert!(skipped.into_iter().all(|seq| !is_written(seq)));
                report.last.next()
            }
            Err(error) => panic!("no system call failed: {error}"),
        };
        assert!(next > seq, "the walk advances");
        seq = next;
    }
    assert!((seq.0..=LAST_SEQ).all(|seq| !is_written(seq)));
}

/// Reads a run after damage that the input describes; then a run whose checksums hold and whose
/// pages are the input. The first answers rightly or not at all, neither panics.
pub fn fuzz_run(data: &[u8]) {
    let disk = SimDisk::new(1);
    let env = env_by(&disk, data);
    let Ok((manifest, files)) = write_sealed(&env) else {
        return;
    };
    damage(&disk, &files[1..], data);
    let cache = || Arc::new(Cache::new(1 << 18, 4));
    let wanted = RunIdentity::OfSegment(manifest);
    if let Ok(run) = Run::open(&env, &files[1], UUID, &wanted, cache()) {
        check_run(&run, |_| true);
        merge_with(&env, Arc::new(run));
    }
    let pages = split_pages(data);
    if write_pages(&disk, Path::new("/sealed/2.idx"), &pages).is_ok() {
        let manifest = SegmentManifest {
            id: SegmentId(2),
            footer_digest: 0,
            key: None,
            ..manifest
        };
        let path = Path::new("/sealed/2.idx");
        let wanted = RunIdentity::OfSegment(manifest);
        let run = Run::open(&env, path, UUID, &wanted, cache());
        read_all(&run);
        if let Ok(run) = run {
            merge_with(&env, Arc::new(run));
        }
    }
    if let Ok(mut page) = KeyPage::new(Bytes::copy_from_slice(data)) {
        for _ in 0..data.len() {
            match page.next_value() {
                Ok(Some(value)) => _ = Value::decode(&data[value]),
                _ => break,
            }
        }
    }
}

/// Every message of the stream that is to be there is found under its subject, or damage is.
fn check_run(run: &Run, is_kept: impl Fn(u64) -> bool) {
    for seq in (1..=LAST_SEQ).filter(|seq| is_written(*seq)) {
        let Ok(entry) = run.lookup(&SubjectKey::new(STREAM, &subject_of(seq))) else {
            continue;
        };
        let entry = entry.expect("the subject was written");
        if let Ok(postings) = list(run, &entry) {
            let posting = (Seq(seq), payload_of(seq).len() as u32);
            assert_eq!(postings.contains(&posting), is_kept(seq));
        }
    }
}

/// Merges a run with itself, cut in two, without every fifth message. What comes out holds the
/// messages of the first run, unless the merge fails.
fn merge_with(env: &Env, run: Arc<Run>) {
    let (path, id) = (Path::new("/sealed/9.idx"), SegmentId(9));
    _ = env.io.remove(path);
    let half = |first, last| MergeInput {
        run: run.clone(),
        scope: Some(MergeScope {
            stream: STREAM,
            first: Seq(first),
            last: Seq(last),
        }),
    };
    let inputs = vec![half(LAST_SEQ / 2 + 1, u64::MAX), half(0, LAST_SEQ / 2)];
    let writer = RunWriter::new(env, path, UUID, RunSource::Merged(id), 10);
    let Ok(mut merge) = Merge::new(inputs, writer.expect("no system call failed")) else {
        return;
    };
    let is_kept = |seq: u64| !seq.is_multiple_of(5);
    let retain = &mut |_: StreamId, postings: &mut Vec<(Seq, u32)>| {
        postings.retain(|(seq, _)| is_kept(seq.0));
    };
    while let Ok(is_done) = merge.advance(7, retain) {
        if !is_done {
            continue;
        }
        let sealed = merge.finish().expect("no system call failed");
        let manifest = RunManifest {
            id,
            file_bytes: sealed.file_bytes,
            footer_digest: sealed.footer_digest,
        };
        let cache = Arc::new(Cache::new(1 << 18, 4));
        let wanted = RunIdentity::Exactly(manifest);
        let merged = Run::open(env, path, UUID, &wanted, cache).expect("just written");
        if run.postings_count() > 0 {
            check_run(&merged, is_kept);
        }
        return;
    }
}

/// Up to five pages, each behind its length (2).
pub(super) fn split_pages(mut data: &[u8]) -> Vec<&[u8]> {
    let mut pages = Vec::new();
    while let Some((len, rest)) = data.split_first_chunk::<2>()
        && pages.len() < 5
    {
        let len = usize::from(u16::from_le_bytes(*len)) % (PAYLOAD_BYTES_MAX + 1);
        let (page, behind) = rest.split_at(len.min(rest.len()));
        pages.push(page);
        data = behind;
    }
    pages
}

fn list(run: &Run, entry: &crate::index::SubjectEntry) -> Result<Vec<(Seq, u32)>, RunError> {
    let mut postings = Vec::new();
    run.postings(entry, Seq(0), &mut |seq, size| {
        postings.push((seq, size));
        ControlFlow::Continue(())
    })?;
    Ok(postings)
}

fn read_all(run: &Result<Run, RunError>) {
    let Ok(run) = run else {
        return;
    };
    _ = run.lookup(&SubjectKey::new(STREAM, b"a.b"));
    for text in [&b">"[..], b"a.*", b"a.>"] {
        let Ok(filter) = Filter::new(text) else {
            continue;
        };
        for stream in 0..4 {
            _ = run.matching(StreamId(stream), &filter, &mut |_, entry| {
                _ = list(run, &entry);
                _ = run.count_from(&entry, Seq(9));
                _ = run.postings_rev(&entry, Seq(9), &mut |_, _| ControlFlow::Continue(()));
                ControlFlow::Continue(())
            });
        }
    }
}

/// Writes a run file whose pages are the given bytes: keys, postings, separators, long keys, filter.
fn write_pages(disk: &SimDisk, path: &Path, payloads: &[&[u8]]) -> std::io::Result<()> {
    let sealer = Sealer::new(None, 0, FileKind::Index, UUID, 2);
    let kinds = [
        PageKind::Keys,
        PageKind::Postings,
        PageKind::KeySeparators,
        PageKind::LongKeys,
        PageKind::Filter,
    ];
    let mut file = vec![0; 64];
    for (page_no, (kind, payload)) in kinds.into_iter().zip(payloads).enumerate() {
        page::encode(&sealer, kind, page_no as u32, payload, &mut file);
    }
    let has = |at: usize| u32::from(payloads.len() > at);
    let footer = Footer {
        kind: FileKind::Index,
        store_uuid: UUID,
        file_no: 2,
        pages_offset: 64,
        section_pages: [has(0) + has(1), has(2), has(3), has(4)],
        items: [0; 3],
        source_digest: 0,
        file_bytes: (64 + payloads.len() * PAGE_BYTES + footer::BYTES) as u64,
        key: None,
    };
    file.extend_from_slice(&footer.encode());
    let env = env(disk);
    env.io.open(path, OpenMode::CreateNew)?.write_at(&file, 0)
}

#[cfg(test)]
mod tests {
    use super::super::tests::run;
    use super::*;
    use crate::format::block::BlockBuilder;
    use crate::format::key_page::{KeyPageBuilder, Place, encode_key};
    use crate::format::record::record_crc;

    #[test]
    fn blocks() {
        run(21, 3_000, 200, fuzz_block);
        // A valid block, as it is and with a few bytes changed.
        let mut builder = BlockBuilder::new(STREAM);
        for seq in 1..50 {
            let (seq, ts) = (Seq(seq), TimestampNs(seq as i64));
            let crc = record_crc(STREAM, seq, ts, 0, b"a.b", b"", b"payload", b"");
            let record = Record {
                seq,
                ts,
                subject: b"a.b",
                headers: b"",
                payload: b"payload",
                msg_id: b"",
                crc,
                ..Record::default()
            };
            builder.push(&record).expect("it fits");
        }
        let mut valid = vec![0, 1, 48, 49];
        valid.extend_from_slice(&builder.finish(Codec::None).disk);
        fuzz_block(&valid);
        valid[0] = 2;
        fuzz_block(&valid);
        run(22, 1_500, 9, |data| {
            let mut bytes = valid.clone();
            for change in data.chunks_exact(3) {
                let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % bytes.len();
                bytes[at] ^= change[2];
            }
            fuzz_block(&bytes);
        });
    }

    #[test]
    fn segments() {
        fuzz_segment(&[]);
        run(23, 150, 5, fuzz_segment);
        run(24, 60, 60, fuzz_segment);
    }

    #[test]
    fn runs() {
        fuzz_run(&[]);
        run(25, 60, 60, fuzz_run);
        // Sound pages with a few bytes changed.
        let mut keys = KeyPageBuilder::default();
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for n in 0..60_u8 {
            key.clear();
            value.clear();
            encode_key(STREAM, &[b'a', b'.', 0x21 + n], &mut key);
            let place = match n % 3 {
                0 => Place::One(5),
                1 => Place::Inline(&[0, 5, 3, 6]),
                _ => Place::Pages {
                    page_no: 1,
                    offset: 0,
                    further: u32::from(n % 2),
                },
            };
            Value {
                count: if n % 3 == 0 { 1 } else { 2 },
                first: Seq(4),
                last: Seq(7),
                bytes: 11,
                place,
            }
            .encode(&mut value);
            assert!(keys.push(&key, &value));
        }
        let mut valid = Vec::new();
        for page in [
            &keys.finish()[..],
            &[2, 0, 4, 5, 3, 6, 1, 2, 9, 9],
            &[0, 1, 0],
        ] {
            valid.extend_from_slice(&(page.len() as u16).to_le_bytes());
            valid.extend_from_slice(page);
        }
        fuzz_run(&valid);
        run(26, 150, 12, |data| {
            let mut bytes = valid.clone();
            for change in data.chunks_exact(3) {
                let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % bytes.len();
                bytes[at] ^= change[2];
            }
            fuzz_run(&bytes);
        });
    }
}
