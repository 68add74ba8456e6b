//! Each injected fault does what its description says, and only when it should.

use std::io::ErrorKind;
use std::path::Path;

use super::{create, create_durable, read, survivor};
use crate::io::sim::{Fault, OpKind, Persist, SimDisk, Trigger};
use crate::io::{Io, OpenMode};

/// A durable file `f` of four sectors of ones.
fn ones() -> (SimDisk, std::sync::Arc<dyn crate::io::IoFile>) {
    let disk = SimDisk::new(7);
    let file = create_durable(&disk, "f", &[1; 2048]);
    (disk, file)
}

#[test]
fn a_read_error_fails_one_read() {
    let (disk, file) = ones();
    disk.inject(Fault::ReadError, Trigger::After(1));
    let mut buf = [0; 10];
    file.read_at(&mut buf, 0).unwrap();
    file.read_at(&mut buf, 0).unwrap_err();
    file.read_at(&mut buf, 0).unwrap();
}

#[test]
fn a_short_read_is_an_unexpected_end() {
    let (disk, file) = ones();
    disk.inject(Fault::ShortRead, Trigger::Always);
    let error = file.read_at(&mut [0; 10], 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn a_stale_read_returns_what_was_there_before_the_last_sync() {
    let (disk, file) = ones();
    file.write_at(&[2; 512], 512).unwrap();
    file.write_at(&[3; 512], 512).unwrap();
    file.sync_data().unwrap();
    disk.inject(Fault::StaleRead, Trigger::After(0));
    let mut buf = [0; 1024];
    file.read_exact_at(&mut buf, 100).unwrap();
    assert_eq!(buf, [1; 1024]);
    file.read_exact_at(&mut buf, 100).unwrap();
    assert_eq!(buf[412..924], [3; 512]);
    assert_eq!(disk.faults(), 1);
}

#[test]
fn a_bit_flip_stays_on_the_device() {
    let (disk, file) = ones();
    disk.inject(Fault::BitFlip, Trigger::After(0));
    file.read_at(&mut [0; 100], 500).unwrap();
    let found = survivor(&disk, Persist::Nothing, "f").unwrap();
    let flipped: Vec<usize> = (0..2048).filter(|at| found[*at] != 1).collect();
    assert_eq!(flipped.len(), 1);
    assert!((500..600).contains(&flipped[0]));
    assert_eq!((found[flipped[0]] ^ 1).count_ones(), 1);
}

#[test]
fn a_write_error_may_leave_a_part_of_the_write() {
    let mut parts = Vec::new();
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let file = create_durable(&disk, "f", b"");
        disk.inject(Fault::WriteError, Trigger::After(0));
        file.write_at(&[2; 1000], 0).unwrap_err();
        parts.push(file.len().unwrap());
        assert!(read(file.as_ref()).iter().all(|byte| *byte == 2));
    }
    assert!(parts.iter().all(|part| *part < 1000));
    assert!(parts.iter().any(|part| *part > 0));
    let (disk, file) = ones();
    disk.inject(Fault::WriteError, Trigger::Always);
    file.set_len(1).unwrap_err();
    file.allocate(10_000).unwrap_err();
    assert_eq!(file.len().unwrap(), 2048);
}

#[test]
fn injected_lack_of_space_hits_whatever_needs_space() {
    let (disk, file) = ones();
    disk.inject(Fault::NoSpace, Trigger::Always);
    let full = ErrorKind::StorageFull;
    assert_eq!(file.write_at(&[1; 600], 4096).unwrap_err().kind(), full);
    assert_eq!(file.allocate(10_000).unwrap_err().kind(), full);
    let created = disk
        .open(Path::new("g"), OpenMode::CreateNew)
        .err()
        .unwrap();
    assert_eq!(created.kind(), full);
    assert_eq!(
        disk.create_dir_all(Path::new("d")).unwrap_err().kind(),
        full
    );
    file.sync_data().unwrap();
    disk.open(Path::new("f"), OpenMode::ReadWrite).unwrap();
    disk.remove(Path::new("f")).unwrap();
}

#[test]
fn a_lost_write_is_seen_until_the_cache_is_dropped() {
    let (disk, file) = ones();
    disk.inject(Fault::LostWrite, Trigger::After(0));
    file.write_at(&[2; 512], 512).unwrap();
    assert_eq!(read(file.as_ref())[512], 2);
    file.sync_data().unwrap();
    assert_eq!(
        survivor(&disk.fork(), Persist::Everything, "f").unwrap(),
        [1; 2048]
    );
    file.drop_cache();
    assert_eq!(read(file.as_ref()), [1; 2048]);
}

#[test]
fn a_misdirected_write_lands_on_other_sectors() {
    let (disk, file) = ones();
    disk.inject(Fault::MisdirectedWrite, Trigger::After(0));
    file.write_at(&[2; 512], 512).unwrap();
    file.sync_data().unwrap();
    assert_eq!(read(file.as_ref())[512], 2);
    file.drop_cache();
    let found = read(file.as_ref());
    assert_eq!(found[512..1024], [1; 512]);
    assert_eq!(
        found
            .chunks(512)
            .filter(|sector| *sector == [2; 512])
            .count(),
        1
    );
}

#[test]
fn after_a_failed_sync_later_syncs_succeed_and_the_data_is_lost() {
    let mut lost = 0;
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let file = create_durable(&disk, "f", &[1; 2048]);
        disk.inject(Fault::SyncError, Trigger::After(0));
        file.write_at(&[2; 2048], 0).unwrap();
        file.sync_data().unwrap_err();
        file.sync_data().unwrap();
        assert_eq!(read(file.as_ref()), [2; 2048]);
        let found = survivor(&disk.fork(), Persist::Everything, "f").unwrap();
        lost += u32::from(found != [2; 2048]);
        file.drop_cache();
        assert_eq!(read(file.as_ref()), found);
    }
    assert!(lost > 10, "lost {lost} of 20");
}

#[test]
fn after_a_failed_sync_only_what_is_written_again_is_durable() {
    let disk = SimDisk::new(0);
    let file = create_durable(&disk, "f", b"");
    disk.inject(Fault::SyncError, Trigger::After(0));
    file.write_at(&[2; 1024], 0).unwrap();
    file.sync_data().unwrap_err();
    file.write_at(&[3; 512], 1024).unwrap();
    file.sync_data().unwrap();
    let found = survivor(&disk, Persist::Nothing, "f").unwrap();
    assert_eq!(found.len(), 1536);
    assert_eq!(found[1024..], [3; 512]);
    assert!(
        found[..1024]
            .chunks(512)
            .all(|sector| sector == [0; 512] || sector == [2; 512])
    );
}

#[test]
fn after_a_failed_directory_sync_later_syncs_succeed_and_names_are_lost() {
    let mut lost = 0;
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        disk.inject(Fault::SyncError, Trigger::After(0));
        create(&disk, "f");
        disk.sync_dir(Path::new("")).unwrap_err();
        disk.sync_dir(Path::new("")).unwrap();
        assert_eq!(disk.files().len(), 1);
        lost += u32::from(disk.crash(Persist::Everything).files().is_empty());
    }
    assert!(lost > 0 && lost < 20, "lost {lost} of 20");
}

#[test]
fn a_lying_sync_makes_nothing_durable() {
    let disk = SimDisk::new(1);
    disk.inject(Fault::LyingSync, Trigger::Always);
    create_durable(&disk, "f", b"content");
    assert_eq!(survivor(&disk.fork(), Persist::Nothing, "f"), None);
    assert_eq!(
        survivor(&disk, Persist::Everything, "f").unwrap(),
        b"content"
    );
}

#[test]
fn a_name_error_changes_nothing() {
    let (disk, _) = ones();
    disk.inject(Fault::NameError, Trigger::Always);
    let f = Path::new("f");
    disk.open(f, OpenMode::Read).err().unwrap();
    disk.open(Path::new("g"), OpenMode::CreateNew)
        .err()
        .unwrap();
    disk.rename(f, Path::new("g")).unwrap_err();
    disk.remove(f).unwrap_err();
    disk.list(Path::new("")).unwrap_err();
    disk.create_dir_all(Path::new("d")).unwrap_err();
    disk.clear_faults();
    assert_eq!(disk.list(Path::new("")).unwrap().len(), 1);
    assert_eq!(disk.read_file("f").unwrap(), [1; 2048]);
}

#[test]
fn capacity_limits_content_and_a_write_may_end_in_the_middle() {
    let disk = SimDisk::new(1);
    disk.set_capacity(3 * 4096);
    let root = Path::new("");
    let file = create(&disk, "f");
    let error = file.write_at(&[1; 20_000], 100).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 3 * 4096);
    assert_eq!(disk.free_bytes(root).unwrap(), 0);
    // Space that a file has can be written again; a hole needs some.
    file.write_at(&[2; 4096], 4096).unwrap();
    file.set_len(4 * 4096).unwrap();
    file.write_at(&[2], 3 * 4096).unwrap_err();
    // A removed file keeps its space while it is open.
    disk.remove(Path::new("f")).unwrap();
    assert_eq!(disk.free_bytes(root).unwrap(), 0);
    drop(file);
    assert_eq!(disk.free_bytes(root).unwrap(), 3 * 4096);
}

#[test]
fn allocated_space_cannot_run_out() {
    let disk = SimDisk::new(1);
    disk.set_capacity(4 * 4096);
    let file = create_durable(&disk, "f", &[1; 100]);
    file.allocate(3 * 4096).unwrap();
    let other = create(&disk, "g");
    other.write_at(&[1; 4096], 0).unwrap();
    other.write_at(&[1], 4096).unwrap_err();
    assert_eq!(
        file.allocate(4 * 4096).unwrap_err().kind(),
        ErrorKind::StorageFull
    );
    assert_eq!(file.len().unwrap(), 3 * 4096);
    file.write_at(&[2; 3 * 4096], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    let next = disk.crash(Persist::Nothing);
    assert_eq!(next.free_bytes(Path::new("")).unwrap(), 4096);
}

#[test]
fn faults_hit_the_named_paths_and_operations_only() {
    let disk = SimDisk::new(1);
    disk.inject_on("wal/", Fault::SyncError, Trigger::EachAfter(1));
    disk.create_dir_all(Path::new("wal")).unwrap();
    let (wal, other) = (create(&disk, "wal/1"), create(&disk, "other"));
    for _ in 0..3 {
        other.sync_data().unwrap();
    }
    wal.sync_data().unwrap();
    wal.sync_data().unwrap_err();
    wal.sync_data().unwrap_err();
    disk.clear_faults();
    let next = disk.ops() + 2;
    disk.inject(Fault::SyncError, Trigger::AtOp(next));
    wal.sync_data().unwrap();
    wal.sync_data().unwrap_err();
    wal.sync_data().unwrap();
}

#[test]
fn chance_faults_come_about_as_often_as_told_and_repeat_with_the_seed() {
    let run = |seed| {
        let disk = SimDisk::new(seed);
        let file = create(&disk, "f");
        disk.inject(Fault::WriteError, Trigger::PerMillion(250_000));
        (0..400)
            .map(|_| file.write_at(b"x", 0).is_err())
            .collect::<Vec<_>>()
    };
    let first = run(1);
    assert_eq!(first, run(1));
    assert_ne!(first, run(2));
    let failures = first.iter().filter(|failed| **failed).count();
    assert!((60..140).contains(&failures), "{failures} of 400");
}

#[test]
fn the_log_tells_every_operation_with_its_fault_and_result() {
    let disk = SimDisk::new(1);
    let file = create(&disk, "dir-less");
    disk.inject(Fault::SyncError, Trigger::After(0));
    file.write_at(&[0; 7], 5).unwrap();
    let error = file.sync_data().unwrap_err();
    assert!(error.to_string().contains("dir-less"), "{error}");
    disk.open(Path::new("missing"), OpenMode::Read)
        .err()
        .unwrap();
    let log = disk.log();
    let kinds: Vec<OpKind> = log.iter().map(|op| op.kind).collect();
    assert_eq!(
        kinds,
        [OpKind::Create, OpKind::Write, OpKind::Sync, OpKind::Open]
    );
    assert_eq!((log[1].number, log[1].offset, log[1].len), (2, 5, 7));
    assert_eq!(
        (log[2].fault, log[2].error),
        (Some(Fault::SyncError), Some(ErrorKind::Other))
    );
    assert_eq!(
        (log[3].fault, log[3].error),
        (None, Some(ErrorKind::NotFound))
    );
    assert_eq!(log[1].to_string().trim(), "2 Write dir-less 5+7");
}

#[test]
fn tests_can_damage_files() {
    let (disk, file) = ones();
    disk.corrupt("f", 3, 0x80).unwrap();
    disk.overwrite("f", 2046, &[5; 100]).unwrap();
    assert_eq!(
        disk.corrupt("f", 2048, 1).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    assert_eq!(
        disk.corrupt("g", 0, 1).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    let mut want = [1; 2048];
    want[3] = 0x81;
    want[2046..].fill(5);
    assert_eq!(read(file.as_ref()), want);
    assert_eq!(survivor(&disk.fork(), Persist::Nothing, "f").unwrap(), want);
    disk.truncate("f", 3).unwrap();
    assert_eq!(survivor(&disk, Persist::Nothing, "f").unwrap(), [1; 3]);
}
