//! System calls that fail.

use std::io::ErrorKind;
use std::ops::ControlFlow;

use super::*;
use crate::error::ReadError;

fn sealed() -> Sealed {
    let samples = (1..200).map(|seq| Sample {
        payload: vec![b'x'; 1000],
        ..Sample::new(1, seq)
    });
    Sealed::new(samples.collect(), Codec::None)
}

/// Reads every message; returns those that a system error hid.
fn unread(sealed: &Sealed, segment: &Segment) -> Vec<Seq> {
    let mut unread = Vec::new();
    for sample in &sealed.samples {
        match segment.get(sample.stream, sample.seq) {
            Ok(found) => sample.check(&found.expect("it was sealed")),
            Err(ReadError::Io { .. }) => unread.push(sample.seq),
            Err(error) => panic!("nothing is damaged: {error}"),
        }
    }
    unread
}

#[test]
fn an_unreadable_table_is_made_anew_from_the_blocks() {
    let sealed = sealed();
    let len = sealed.sealed.manifest.file_bytes;
    let pages = len - 128 - 3 * 4096;
    for bad in [
        len - 10..len,
        pages..pages + 1,
        pages + 5000..pages + 5001,
        0..64,
    ] {
        sealed.io.set_bad(&sealed.path, bad.clone());
        let segment = sealed.open();
        assert_eq!(unread(&sealed, &segment), vec![], "{bad:?}");
        assert_eq!(segment.extents().unwrap(), sealed.sealed.extents);
    }
}

#[test]
fn an_unreadable_block_is_a_system_error_for_its_messages_only() {
    let sealed = sealed();
    let (_, blocks) = sealed.open().all_blocks().unwrap();
    let bad = blocks[1];
    sealed
        .io
        .set_bad(&sealed.path, bad.offset + 100..bad.offset + 101);
    let segment = sealed.open();
    let expect: Vec<Seq> = (bad.first_seq.0..=bad.last_seq.0).map(Seq).collect();
    assert_eq!(unread(&sealed, &segment), expect);
    let scanned = segment.scan(&mut |_| ControlFlow::Continue(()));
    assert!(matches!(scanned, Err(ReadError::Io { .. })));
    let verified = segment.verify(&mut |_| {}).expect("the file is there");
    assert_eq!(verified.lost, vec![], "it may be readable again");
    let refused = verified.unreadable.iter().map(|r| (r.first, r.last));
    assert_eq!(refused.collect::<Vec<_>>(), [(bad.first_seq, bad.last_seq)]);
    // The error is not remembered.
    sealed.io.set_bad(&sealed.path, 0..0);
    assert_eq!(unread(&sealed, &segment), vec![]);
}

#[test]
fn a_segment_is_sealed_only_if_every_write_and_the_sync_succeed() {
    let write = |writes| {
        let (io, env) = MemoryIo::env();
        let mut writer = SegmentWriter::new(&env, Path::new("/7.seg"), UUID, ID)?;
        io.fail_writes_after(writes);
        writer.begin_extent(StreamId(1), Codec::None)?;
        for seq in 1..100 {
            let sample = Sample {
                payload: vec![b'x'; 40_000],
                ..Sample::new(1, seq)
            };
            writer.push(&sample.record())?;
        }
        writer.finish()
    };
    let mut writes = 0;
    while let Err(error) = write(writes) {
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        writes += 1;
    }
    assert!(writes > 4, "several writes and a sync: {writes}");
}
