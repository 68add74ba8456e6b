//! What the writer refuses, and what it says it wrote.

use std::io::ErrorKind;

use super::*;
use crate::config::Storage;
use crate::limits::accounted_bytes;
use crate::segment::segment_path;

fn writer() -> (Env, SegmentWriter) {
    let (_, env) = MemoryIo::env();
    let writer = SegmentWriter::new(&env, Path::new("/7.seg"), UUID, ID).unwrap();
    (env, writer)
}

#[test]
fn a_record_that_went_bad_in_memory_is_not_sealed() {
    let (_, mut writer) = writer();
    writer.begin_extent(StreamId(1), Codec::None).unwrap();
    let mut sample = Sample::new(1, 1);
    let crc = sample.record().crc;
    sample.payload[0] ^= 1;
    let record = Record {
        crc,
        ..sample.record()
    };
    assert_eq!(
        writer.push(&record).unwrap_err().kind(),
        ErrorKind::InvalidData
    );
    // The same bytes in another stream are another record.
    writer.begin_extent(StreamId(2), Codec::None).unwrap();
    let record = Sample::new(1, 1);
    assert_eq!(
        writer.push(&record.record()).unwrap_err().kind(),
        ErrorKind::InvalidData
    );
}

#[test]
fn misuse_is_an_error() {
    let (env, mut writer) = writer();
    let push = |writer: &mut SegmentWriter, stream, seq| {
        let result = writer.push(&Sample::new(stream, seq).record());
        result.map_err(|error| error.kind())
    };
    assert_eq!(push(&mut writer, 1, 5), Err(ErrorKind::InvalidInput));
    writer.begin_extent(StreamId(1), Codec::S2).unwrap();
    assert_eq!(push(&mut writer, 1, 5), Ok(()));
    assert_eq!(push(&mut writer, 1, 5), Err(ErrorKind::InvalidInput));
    assert_eq!(push(&mut writer, 1, 4), Err(ErrorKind::InvalidInput));
    assert_eq!(push(&mut writer, 1, u64::MAX), Err(ErrorKind::InvalidInput));
    assert_eq!(push(&mut writer, 1, 6), Ok(()));
    writer.begin_extent(StreamId(2), Codec::S2).unwrap();
    let again = writer.begin_extent(StreamId(1), Codec::S2);
    assert_eq!(again.unwrap_err().kind(), ErrorKind::InvalidInput);
    let exists = SegmentWriter::new(&env, Path::new("/7.seg"), UUID, ID);
    assert_eq!(exists.unwrap_err().kind(), ErrorKind::AlreadyExists);
}

#[test]
fn extents_say_what_was_written() {
    let mut samples: Vec<Sample> = (10..200).map(|seq| Sample::new(9, seq)).collect();
    samples.extend((5..7).map(|seq| Sample::new(3, 2 * seq)));
    let sealed = Sealed::new(samples, Codec::S2);
    let extents = &sealed.sealed.extents;
    assert_eq!(extents.len(), 2);
    let (small, large) = (extents[0], extents[1]);
    assert_eq!((small.stream, large.stream), (StreamId(3), StreamId(9)));
    assert_eq!(
        (small.first_seq, small.last_seq, small.msgs),
        (Seq(10), Seq(12), 2)
    );
    assert_eq!(
        (large.first_seq, large.last_seq, large.msgs),
        (Seq(10), Seq(199), 190)
    );
    assert_eq!(large.first_ts, TimestampNs(10_000_000));
    assert_eq!(large.last_ts, TimestampNs(199_000_000));
    let bytes = |stream| -> u64 {
        let of_stream = sealed.samples.iter().filter(|s| s.stream == stream);
        of_stream
            .map(|s| {
                accounted_bytes(
                    Storage::File,
                    s.subject.len(),
                    s.headers.len(),
                    s.payload.len(),
                )
            })
            .sum()
    };
    assert_eq!(large.bytes, bytes(StreamId(9)));
    assert_eq!(small.block_first + small.blocks, large.block_first);
    assert_eq!(sealed.open().extents().unwrap(), *extents);
    assert_eq!(
        sealed.sealed.manifest.file_bytes,
        sealed.bytes().len() as u64
    );
}

#[test]
fn an_extent_without_messages_leaves_no_trace() {
    let (env, mut writer) = writer();
    writer.begin_extent(StreamId(1), Codec::None).unwrap();
    writer.begin_extent(StreamId(2), Codec::None).unwrap();
    let sealed = writer.finish().unwrap();
    assert_eq!(sealed.extents, vec![]);
    let cache = Arc::new(Cache::new(1 << 20, 8));
    let segment = Segment::open(&env, Path::new("/7.seg"), UUID, sealed.manifest, cache);
    assert_eq!(segment.get(StreamId(1), Seq(1)).unwrap(), None);
    assert!(segment.block(StreamId(1), Seq(0)).unwrap().is_none());
    assert_eq!(segment.extents().unwrap(), vec![]);
    assert!(segment.verify(&mut |_| {}).unwrap().is_intact());
}

#[test]
fn compression_is_used_where_it_helps() {
    let mut samples: Vec<Sample> = (1..500).map(|seq| Sample::new(1, seq)).collect();
    let raw = Sealed::new(samples.clone(), Codec::None);
    let packed = Sealed::new(samples.clone(), Codec::S2);
    assert!(packed.bytes().len() < raw.bytes().len());
    // Bytes without any pattern stay as they are instead of growing.
    let mut state = 1_u64;
    for sample in &mut samples {
        sample.payload = (0..200)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
    }
    let raw = Sealed::new(samples.clone(), Codec::None);
    let packed = Sealed::new(samples, Codec::S2);
    assert!(packed.bytes().len() <= raw.bytes().len());
}

#[test]
fn file_names_sort_by_number() {
    let name = |id| segment_path(Path::new("seg"), SegmentId(id));
    assert_eq!(name(10), Path::new("seg/000000000000000a.seg"));
    assert!(name(9) < name(10) && name(255) < name(256));
}
