//! Every single flipped bit of a small log: nothing acknowledged is lost in silence.

use super::*;
use crate::wal::recover::LostRange;

/// Ops behind the last one that has a mark after it may be cut, nothing before.
fn check_flip(disk: &SimDisk, file: u64, offset: u64, mask: u8, certain: u64, last: u64) {
    disk.corrupt(path(file), offset, mask).expect("inside");
    match recover_with(disk, 0, false) {
        Ok(found) => {
            let end = found.lsns.len() as u64;
            assert_eq!(found.lsns, (1..=end).collect::<Vec<_>>());
            assert!(
                end >= certain,
                "file {file} offset {offset}: {end} of {certain}"
            );
            if end < last {
                let cut = found.report.cut.expect("a shorter log is reported");
                assert_eq!(
                    (cut.lsn, cut.file),
                    (Lsn(end + 1), PathBuf::from(path(file)))
                );
            }
        }
        Err(RecoverError::AckedDataDamaged(LostRange {
            file: name,
            offset: at,
            first_lsn,
            last_lsn,
        })) => {
            assert_eq!(name, PathBuf::from(path(file)));
            assert!(at <= offset, "the frame begins at or before the flip");
            assert!(first_lsn <= last_lsn && last_lsn.0 <= last);
            let salvaged = recover_with(disk, 0, true).expect("salvage goes on");
            let lost = last_lsn.0 - first_lsn.0 + 1;
            assert_eq!(salvaged.lsns.len() as u64, last - lost, "offset {offset}");
        }
        Err(other) => panic!("file {file} offset {offset}: {other}"),
    }
    disk.corrupt(path(file), offset, mask).expect("inside");
}

/// Offsets that hold something: headers and frames with the zeros that end them.
fn used_offsets(disk: &SimDisk, file: u64) -> Vec<u64> {
    let bytes = disk.read_file(path(file)).expect("readable");
    let used = |at: &u64| *at < 64 || (4096..4160).contains(at) || *at >= FRAMES_OFFSET;
    (0..bytes.len() as u64).filter(used).collect()
}

#[test]
fn every_flipped_byte_is_noticed_or_harmless() {
    let disk = SimDisk::new(1);
    let mut log = Writer::new(&disk, small());
    for _ in 0..5 {
        log.committed(1).committed(3).mark().committed(2);
    }
    let last = log.next - 1;
    let certain = last - 2;
    let files = recovered(&disk, 0).report.old_files.len() as u64;
    assert!(files >= 3, "the log spans files");
    for file in [1, 2, files - 1, files] {
        for offset in used_offsets(&disk, file) {
            check_flip(&disk, file, offset, 1 << (offset % 8), certain, last);
        }
    }
    assert_eq!(
        recovered(&disk, 0).lsns.len() as u64,
        last,
        "all flips were taken back"
    );
}

#[test]
fn with_a_mark_behind_it_every_op_is_certain() {
    let disk = SimDisk::new(1);
    let mut log = Writer::new(&disk, small());
    log.committed(2).committed(1).mark();
    for offset in used_offsets(&disk, 1) {
        check_flip(&disk, 1, offset, 0x80, 3, 3);
    }
}

#[test]
fn a_damaged_sector_is_refused_or_cut_wherever_it_is() {
    let disk = SimDisk::new(1);
    let mut log = Writer::new(
        &disk,
        WalOptions {
            file_bytes: 32 << 10,
            ..small()
        },
    );
    while log.next < 150 {
        log.committed(2).committed(3).mark();
    }
    let last = log.next - 1;
    let last_mark = *frame_offsets(&disk, &path(1))
        .last()
        .expect("there are frames");
    for sector in FRAMES_OFFSET / 512..(32 << 10) / 512 {
        let before = disk.fork();
        before
            .overwrite(path(1), sector * 512, &[0xa5; 512])
            .expect("inside");
        match recover_with(&before, 0, false) {
            Ok(found) if found.lsns.len() as u64 == last => {}
            // The last frame and the mark that vouched for it are both gone.
            Ok(found) => {
                assert!((sector + 1) * 512 > last_mark, "sector {sector}");
                assert!(found.report.cut.is_some(), "sector {sector}");
            }
            Err(RecoverError::AckedDataDamaged(lost)) => {
                let salvaged = recover_with(&before, 0, true).expect("salvage goes on");
                let count = lost.last_lsn.0 - lost.first_lsn.0 + 1;
                assert_eq!(salvaged.lsns.len() as u64, last - count, "sector {sector}");
            }
            Err(other) => panic!("sector {sector}: {other}"),
        }
    }
}

#[test]
fn recovery_reads_each_byte_once() {
    let disk = SimDisk::new(1);
    let options = WalOptions {
        file_bytes: 8 << 20,
        ..small()
    };
    let (queue, mut committer) =
        queue_and_committer(&disk, 1, options, 1, Vec::new()).expect("created");
    let config = vec![7; 700_000];
    for _ in 0..9 {
        let accepted = queue.enqueue(Class::Append, 1, None, |out| {
            let put = Op::StreamPut {
                stream: STREAM,
                created: TimestampNs(0),
                changed: TimestampNs(0),
                config: &config,
            };
            put.encode(out);
        });
        accepted.expect("accepted");
        committer.step();
    }
    let mut ops = 0;
    let report = recover(&env(&disk, 2), dir(), UUID, Lsn(0), false, &mut |_, _| {
        ops += 1;
        Ok(())
    });
    assert_eq!(ops, 9);
    let report = report.expect("recovered");
    assert!(report.bytes_read <= 8 << 20, "{}", report.bytes_read);
}
