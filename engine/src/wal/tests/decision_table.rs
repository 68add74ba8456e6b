//! One test per row of the table in `recover.rs`.

use super::*;
use crate::format::FormatError;
use crate::io::Env;
use crate::io::sim::Persist;
use crate::wal::recover::LostRange;

/// Four committed frames of two ops: lsns 1 to 8 in one file.
fn four_frames() -> (SimDisk, Vec<u64>) {
    let disk = SimDisk::new(1);
    let mut log = Writer::new(&disk, medium());
    (0..4).for_each(|_| _ = log.committed(2));
    let offsets = frame_offsets(&disk, &path(1));
    assert_eq!(offsets.len(), 4);
    (disk, offsets)
}

fn damaged(result: Result<Recovered, RecoverError>) -> LostRange {
    match result {
        Err(RecoverError::AckedDataDamaged(lost)) => lost,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn zeros_behind_the_last_frame_are_the_end() {
    let (disk, _) = four_frames();
    let found = recovered(&disk, 0);
    assert_eq!(found.lsns, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(found.report.cut, None);
    assert_eq!(found.report.last_durable_hint, Lsn(6));
    assert_eq!(found.report.next_lsn, Lsn(9));
}

#[test]
fn a_bad_last_frame_is_cut_and_reported() {
    let (disk, offsets) = four_frames();
    disk.corrupt(path(1), offsets[3] + 60, 1).expect("inside");
    let found = recovered(&disk, 0);
    assert_eq!(found.lsns, [1, 2, 3, 4, 5, 6]);
    let cut = found.report.cut.expect("reported");
    assert_eq!(
        (cut.lsn, cut.offset, cut.frames_valid),
        (Lsn(7), offsets[3], 0)
    );
    assert!(
        matches!(cut.reason, FormatError::ChecksumMismatch { .. }),
        "{cut:?}"
    );
    assert_eq!(found.report.next_lsn, Lsn(7));
}

#[test]
fn a_bad_mark_costs_nothing() {
    let disk = SimDisk::new(1);
    Writer::new(&disk, medium())
        .committed(2)
        .mark()
        .committed(2)
        .mark();
    let marks = frame_offsets(&disk, &path(1));
    disk.corrupt(path(1), marks[1] + 20, 1).expect("inside");
    let found = recovered(&disk, 0);
    assert_eq!(found.lsns, [1, 2, 3, 4]);
    assert_eq!((found.report.cut, found.report.harmless_damage), (None, 1));
}

#[test]
fn a_frame_in_flight_is_cut_with_what_follows_it() {
    let disk = SimDisk::new(1);
    // Three frames behind a durable one, none of them synced before the next was written.
    Writer::new(&disk, medium())
        .committed(2)
        .frame(2, 2)
        .frame(2, 2)
        .frame(2, 2);
    let offsets = frame_offsets(&disk, &path(1));
    disk.corrupt(path(1), offsets[1] + 5, 1).expect("inside");
    let found = recovered(&disk, 0);
    assert_eq!(found.lsns, [1, 2]);
    let cut = found.report.cut.expect("reported");
    assert_eq!(
        (cut.lsn, cut.offset, cut.frames_valid),
        (Lsn(3), offsets[1], 2)
    );
    assert_eq!(found.report.next_lsn, Lsn(3));
}

#[test]
fn acked_damage_is_refused_with_its_range() {
    let (disk, offsets) = four_frames();
    disk.corrupt(path(1), offsets[1] + 60, 4).expect("inside");
    let lost = damaged(recover_with(&disk, 0, false));
    assert_eq!(
        (lost.first_lsn, lost.last_lsn, lost.offset),
        (Lsn(3), Lsn(4), offsets[1])
    );
    assert_eq!(lost.file, PathBuf::from(path(1)));
}

#[test]
fn salvage_reports_the_lost_range_and_goes_on() {
    let (disk, offsets) = four_frames();
    disk.corrupt(path(1), offsets[1] + 60, 4).expect("inside");
    let found = recover_with(&disk, 0, true).expect("salvage goes on");
    assert_eq!(found.lsns, [1, 2, 5, 6, 7, 8]);
    assert_eq!(found.report.lost.len(), 1);
    assert_eq!(found.report.lost[0].first_lsn, Lsn(3));
    assert_eq!(found.report.lost[0].last_lsn, Lsn(4));
    assert_eq!(found.report.next_lsn, Lsn(9));
}

#[test]
fn a_mark_makes_damage_of_the_last_frame_certain() {
    let disk = SimDisk::new(1);
    Writer::new(&disk, medium())
        .committed(2)
        .committed(2)
        .mark();
    let offsets = frame_offsets(&disk, &path(1));
    disk.corrupt(path(1), offsets[1] + 60, 1).expect("inside");
    let lost = damaged(recover_with(&disk, 0, false));
    assert_eq!((lost.first_lsn, lost.last_lsn), (Lsn(3), Lsn(4)));
}

#[test]
fn a_lost_write_of_an_acked_frame_is_refused() {
    let (disk, offsets) = four_frames();
    let zeros = vec![0; (offsets[2] - offsets[1]) as usize];
    disk.overwrite(path(1), offsets[1], &zeros).expect("inside");
    let lost = damaged(recover_with(&disk, 0, false));
    assert_eq!(
        (lost.first_lsn, lost.last_lsn, lost.offset),
        (Lsn(3), Lsn(4), offsets[1])
    );
}

#[test]
fn a_missing_file_in_the_middle_is_refused() {
    let disk = SimDisk::new(1);
    let mut log = Writer::new(
        &disk,
        WalOptions {
            files_max: 100,
            ..small()
        },
    );
    (0..40).for_each(|_| _ = log.committed(2));
    let whole = recovered(&disk, 0);
    assert_eq!(whole.lsns.last(), Some(&80));
    assert!(
        whole.report.old_files.len() > 3,
        "{:?}",
        whole.report.old_files
    );
    disk.clone().remove_file(2);
    let lost = damaged(recover_with(&disk, 0, false));
    assert!(
        lost.first_lsn > Lsn(1) && lost.last_lsn < Lsn(80),
        "{lost:?}"
    );
    let salvaged = recover_with(&disk, 0, true).expect("salvage goes on");
    assert_eq!(
        salvaged.lsns.len() as u64 + lost.last_lsn.0 - lost.first_lsn.0 + 1,
        80,
        "everything but the lost range"
    );
}

#[test]
fn a_missing_first_file_is_refused() {
    let disk = SimDisk::new(1);
    let mut log = Writer::new(
        &disk,
        WalOptions {
            files_max: 100,
            ..small()
        },
    );
    (0..40).for_each(|_| _ = log.committed(2));
    disk.clone().remove_file(1);
    let lost = damaged(recover_with(&disk, 0, false));
    assert_eq!(lost.first_lsn, Lsn(1));
    // Not needed any more: covered by a checkpoint.
    let found = recovered(&disk, lost.last_lsn.0);
    assert_eq!(found.lsns.first(), Some(&(lost.last_lsn.0 + 1)));
}

#[test]
fn a_log_that_is_gone_is_not_an_empty_log() {
    let disk = SimDisk::new(1);
    assert!(
        recovered(&disk, 0).lsns.is_empty(),
        "a new store has no log yet"
    );
    assert!(matches!(
        recover_with(&disk, 7, false),
        Err(RecoverError::LogMissing { after: Lsn(7), .. })
    ));
    let salvaged = recover_with(&disk, 7, true).expect("salvage goes on");
    assert_eq!(salvaged.report.next_lsn, Lsn(8));
}

#[test]
fn stale_frames_of_a_recycled_file_do_not_count() {
    let disk = SimDisk::new(1);
    let mut log = Writer::new(&disk, small());
    let mut files = 0;
    while files < 8 {
        log.committed(2);
        let last = Lsn(log.next - 3);
        log.wal.release_through(last).expect("released");
        files = disk.files().last().map_or(0, |(name, _)| file_no(name));
    }
    let found = recovered(&disk, log.next - 3);
    assert_eq!(found.lsns, [log.next - 2, log.next - 1]);
    assert_eq!(found.report.cut, None);
}

#[test]
fn a_misdirected_frame_is_bad() {
    let (disk, offsets) = four_frames();
    let bytes = disk.read_file(path(1)).expect("readable");
    // The first frame again, where the third one should be; frame and payload are intact.
    let first = &bytes[offsets[0] as usize..offsets[1] as usize];
    disk.overwrite(path(1), offsets[2], first).expect("inside");
    let lost = damaged(recover_with(&disk, 0, false));
    assert_eq!((lost.first_lsn, lost.offset), (Lsn(5), offsets[2]));
}

#[test]
fn a_frame_with_a_broken_chain_is_bad() {
    let disk = SimDisk::new(1);
    let mut log = Writer::new(&disk, medium());
    log.committed(2);
    // A second log that agrees in everything but what came before.
    let other = SimDisk::new(1);
    let mut foreign = Writer::new(&other, medium());
    foreign.committed(1).committed(1).committed(2);
    log.committed(2);
    let here = frame_offsets(&disk, &path(1));
    let there = frame_offsets(&other, &path(1));
    let bytes = other.read_file(path(1)).expect("readable");
    let end = there[2] + 52 + 400;
    disk.overwrite(path(1), here[1], &bytes[there[2] as usize..end as usize])
        .expect("inside");
    let found = recovered(&disk, 0);
    assert_eq!(found.lsns, [1, 2]);
    let cut = found.report.cut.expect("reported");
    assert_eq!(
        cut.reason,
        FormatError::OutOfRange {
            what: "frame chain"
        }
    );
}

#[test]
fn a_file_of_another_store_is_refused() {
    let disk = SimDisk::new(1);
    Wal::create(&env(&disk, 1), dir(), UUID + 1, small(), Lsn(1), Vec::new()).expect("created");
    assert!(matches!(
        recover_with(&disk, 0, false),
        Err(RecoverError::WrongStore { .. })
    ));
}

#[test]
fn a_file_of_a_newer_version_is_refused_as_such() {
    let (disk, _) = four_frames();
    let mut header = disk.read_file(path(1)).expect("readable")[..64].to_vec();
    header[8] += 1;
    let crc = crc32fast::hash(&header[..60]);
    header[60..].copy_from_slice(&crc.to_le_bytes());
    disk.overwrite(path(1), 0, &header).expect("inside");
    disk.overwrite(path(1), 4096, &header).expect("inside");
    for salvage in [false, true] {
        assert!(matches!(
            recover_with(&disk, 0, salvage),
            Err(RecoverError::NewerVersion { .. })
        ));
    }
}

#[test]
fn a_newer_file_supersedes_what_an_older_one_holds_from_there_on() {
    let disk = SimDisk::new(1);
    Writer::new(&disk, small())
        .committed(2)
        .frame(2, 2)
        .frame(2, 2);
    // The first recovery finds lsn 3 damaged and cuts; the damage heals, as a bad cable does.
    let offset = frame_offsets(&disk, &path(1))[1] + 10;
    disk.corrupt(path(1), offset, 1).expect("inside");
    let first = recovered(&disk, 0);
    assert_eq!(first.lsns, [1, 2]);
    let (queue, mut committer) =
        queue_and_committer(&disk, 6, small(), 3, first.report.old_files).expect("created");
    enqueue(&queue, Class::Append, 1).expect("room");
    assert_eq!(committer.step(), Step::Committed(1));
    disk.corrupt(path(1), offset, 1).expect("inside");
    assert_eq!(recovered(&disk, 0).lsns, [1, 2, 3], "the new lsn 3, once");
}

#[test]
fn damage_that_a_checkpoint_covers_is_harmless() {
    let (disk, offsets) = four_frames();
    disk.corrupt(path(1), offsets[1] + 20, 1).expect("inside");
    for after in [4, 5, 8] {
        let found = recovered(&disk, after);
        assert_eq!(found.lsns, (after + 1..=8).collect::<Vec<_>>());
        assert_eq!(found.report.harmless_damage, 1, "after {after}");
    }
    let lost = damaged(recover_with(&disk, 3, false));
    assert_eq!(
        (lost.first_lsn, lost.last_lsn),
        (Lsn(4), Lsn(4)),
        "only what is needed"
    );
}

#[test]
fn an_op_that_the_store_cannot_apply_stops_recovery() {
    let (disk, offsets) = four_frames();
    let error = recover(&env(&disk, 2), dir(), UUID, Lsn(0), false, &mut |lsn, _| {
        if lsn == Lsn(4) {
            Err(FormatError::OutOfRange { what: "stream" })
        } else {
            Ok(())
        }
    });
    match error {
        Err(RecoverError::Op { lsn, offset, .. }) => {
            assert_eq!((lsn, offset), (Lsn(4), offsets[1]));
        }
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn unsynced_bytes_are_made_durable_before_they_are_recovered() {
    let disk = SimDisk::new(1);
    Writer::new(&disk, small()).committed(2).frame(2, 2);
    let killed = disk.kill_process();
    assert_eq!(recovered(&killed, 0).lsns, [1, 2, 3, 4]);
    // Now the power goes too: what recovery handed out is still there.
    let survivor = killed.crash(Persist::Nothing);
    assert_eq!(recovered(&survivor, 0).lsns, [1, 2, 3, 4]);
}

trait RemoveFile {
    fn remove_file(self, no: u64);
}

impl RemoveFile for SimDisk {
    fn remove_file(self, no: u64) {
        let env: Env = env(&self, 1);
        env.io
            .remove(Path::new(&path(no)))
            .expect("the file exists");
    }
}

fn file_no(name: &str) -> u64 {
    let name = Path::new(name).file_stem().and_then(|stem| stem.to_str());
    name.and_then(|digits| digits.parse().ok())
        .expect("a log file's name")
}
