//! The metadata log against a map, under power cuts, damage and a full disk.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::format::key_ring::{Key, KeyRing};
use crate::io::sim::{CrashMatrix, Fault, Persist, SimClock, SimDisk, Trigger};

const UUID: u128 = 99;

fn env(disk: &SimDisk, seed: u64) -> Env {
    Env::simulated(disk, &SimClock::new(0), seed)
}

fn dir() -> &'static Path {
    Path::new("/meta")
}

fn create(disk: &SimDisk) -> MetaLog {
    MetaLog::create(&env(disk, 1), dir(), UUID).expect("an empty disk takes a log")
}

fn open(disk: &SimDisk) -> Result<MetaLog, MetaError> {
    MetaLog::open(&env(disk, 2), dir(), UUID)
}

fn put(key: &[u8], value: &[u8]) -> MetaBatch {
    let mut batch = MetaBatch::new();
    batch.put(key, value);
    batch
}

fn path(no: u64) -> String {
    format!("/meta/{no:020}.log")
}

fn names(disk: &SimDisk) -> Vec<String> {
    disk.files().into_iter().map(|(name, _)| name).collect()
}

#[test]
fn commits_are_there_after_reopening() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk);
    log.commit(&put(b"a/1", b"one")).expect("committed");
    let mut batch = put(b"a/2", b"two");
    batch.put(b"b", b"");
    batch.delete(b"a/1");
    log.commit(&batch).expect("committed");
    let log = open(&disk).expect("opens");
    assert_eq!(log.get(b"a/1"), None);
    assert_eq!(log.get(b"a/2"), Some(&b"two"[..]));
    assert_eq!(log.get(b"b"), Some(&b""[..]));
    assert_eq!(
        log.scan_prefix(b"a/").collect::<Vec<_>>(),
        [(&b"a/2"[..], &b"two"[..])]
    );
    assert_eq!(log.scan_prefix(b"").count(), 2);
    assert_eq!(log.cut(), None);
}

#[test]
fn absent_and_empty_are_different_answers() {
    let disk = SimDisk::new(1);
    assert!(matches!(open(&disk), Err(MetaError::Absent { .. })));
    create(&disk);
    assert_eq!(open(&disk).expect("opens").scan_prefix(b"").count(), 0);
    let again = MetaLog::create(&env(&disk, 3), dir(), UUID);
    assert_eq!(
        again.err().map(|e| e.kind()),
        Some(io::ErrorKind::AlreadyExists)
    );
    assert!(matches!(
        MetaLog::open(&env(&disk, 3), dir(), UUID + 1),
        Err(MetaError::WrongStore { .. })
    ));
}

#[test]
fn the_file_stays_within_twice_its_live_bytes() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk);
    for n in 0..2_000_u32 {
        let key = [(n % 50) as u8];
        log.commit(&put(&key, &[n as u8; 300])).expect("committed");
        let bound = 2 * log.live_bytes() + COMPACT_BYTES_MIN + 1_000;
        assert!(log.file_bytes() <= bound, "{} of {bound}", log.file_bytes());
    }
    assert_eq!(names(&disk).len(), 1, "{:?}", names(&disk));
    assert!(names(&disk)[0] > path(5));
    let log = open(&disk).expect("opens");
    assert_eq!(log.scan_prefix(b"").count(), 50);
    assert_eq!(log.get(&[49]), Some(&[207; 300][..]));
}

#[test]
fn a_snapshot_of_several_frames_is_read_back() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk);
    for n in 0..30_u8 {
        log.commit(&put(&[n], &vec![n; 100_000]))
            .expect("committed");
    }
    log.compact().expect("compacted");
    let log = open(&disk).expect("opens");
    assert_eq!(log.scan_prefix(b"").count(), 30);
    assert_eq!(log.get(&[29]).map(<[u8]>::len), Some(100_000));
}

/// Commits values that follow from a counter; returns the last durable one. The values are large
/// enough for several compactions.
fn script(disk: &SimDisk) -> u64 {
    let Ok(mut log) = MetaLog::create(&env(disk, 1), dir(), UUID) else {
        return 0;
    };
    let mut durable = 0;
    for n in 1..=12_u64 {
        let mut batch = put(b"n", &n.to_le_bytes());
        batch.put(b"copy", &n.to_le_bytes());
        batch.put(b"bulk", &vec![n as u8; 20_000]);
        batch.delete(b"bulk");
        if log.commit(&batch).is_err() {
            break;
        }
        durable = n;
    }
    durable
}

#[test]
fn commits_survive_a_power_cut_at_every_change() {
    let number = |log: &MetaLog, key: &[u8]| {
        let bytes = log
            .get(key)
            .unwrap_or_default()
            .try_into()
            .unwrap_or_default();
        u64::from_le_bytes(bytes)
    };
    let report = CrashMatrix::new(3)
        .random_outcomes(6)
        .run(script, |survivor, durable, _| {
            let mut log = match open(&survivor) {
                Ok(log) => log,
                Err(MetaError::Absent { .. }) if *durable == 0 => return Ok(()),
                Err(error) => return Err(error.to_string()),
            };
            let found = number(&log, b"n");
            if found < *durable || found > durable + 1 || number(&log, b"copy") != found {
                return Err(format!("found {found}, durable {durable}"));
            }
            log.commit(&put(b"n", &77_u64.to_le_bytes()))
                .map_err(|e| e.to_string())?;
            let log = open(&survivor).map_err(|e| e.to_string())?;
            if number(&log, b"n") != 77 {
                return Err("a commit after the restart is gone".to_owned());
            }
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
    assert!(report.points > 40, "{report:?}");
}

#[test]
fn a_torn_last_commit_is_cut_and_reported() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk);
    log.commit(&put(b"k", b"old")).expect("committed");
    disk.cut_power_after(1);
    assert!(log.commit(&put(b"k", &[7; 5_000])).is_err());
    let survivor = disk.crash(Persist::LastWriteFirstHalf);
    let torn = survivor.read_file(path(1)).expect("the log");
    let mut log = open(&survivor).expect("opens");
    assert_eq!(log.get(b"k"), Some(&b"old"[..]));
    assert_eq!(
        log.cut().map(|cut| cut.file.clone()),
        Some(PathBuf::from(path(1)))
    );
    let after = survivor.read_file(path(1)).expect("the log");
    assert_eq!(after, torn, "opening changes nothing");
    log.commit(&put(b"k", b"new")).expect("committed");
    assert_eq!(
        names(&survivor),
        [path(2)],
        "nothing is appended behind the cut"
    );
    assert_eq!(open(&survivor).expect("opens").cut(), None);
}

#[test]
fn damage_is_refused_and_nothing_is_removed() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk);
    for n in 0..4_u8 {
        log.commit(&put(&[n], &[n; 30])).expect("committed");
    }
    let used = FRAMES_OFFSET + log.file_bytes();
    for offset in (0..64).chain(4096..4160).chain(FRAMES_OFFSET..used) {
        let copy = disk.fork();
        copy.corrupt(path(1), offset, 1 << (offset % 8))
            .expect("inside");
        match open(&copy) {
            // A header copy, or a mark between commits.
            Ok(log) => assert_eq!(log.scan_prefix(b"").count(), 4, "offset {offset}"),
            Err(MetaError::Damaged {
                file, offset: at, ..
            }) => {
                assert_eq!(file, PathBuf::from(path(1)));
                assert!(at <= offset, "the frame begins at or before the flip");
                assert_eq!(names(&copy), [path(1)]);
            }
            Err(other) => panic!("offset {offset}: {other}"),
        }
    }
}

#[test]
fn an_unreadable_newest_file_is_no_reason_to_take_an_older_one() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk);
    log.commit(&put(b"k", b"old")).expect("committed");
    let old = disk.read_file(path(1)).expect("readable");
    log.compact().expect("compacted");
    // The older file is still there, as after a crash before its removal.
    let env = env(&disk, 5);
    let file = env
        .io
        .open(Path::new(&path(1)), OpenMode::CreateNew)
        .expect("created");
    file.write_at(&old, 0).expect("written");
    for at in [0, 4096] {
        disk.corrupt(path(2), at, 1).expect("inside");
    }
    match open(&disk) {
        Err(MetaError::Damaged {
            file, offset: 0, ..
        }) => {
            assert_eq!(file, PathBuf::from(path(2)));
        }
        other => panic!("not refused: {:?}", other.map(|log| log.live_bytes())),
    }
    assert_eq!(names(&disk), [path(1), path(2)], "nothing is removed");
    disk.corrupt(path(2), 0, 1).expect("inside");
    let mut log = open(&disk).expect("opens");
    assert_eq!(log.get(b"k"), Some(&b"old"[..]));
    log.settle().expect("settled");
    assert_eq!(names(&disk), [path(3)]);
}

/// A start may find a file whose name a power cut would still take back. Before it removes what that
/// file does not name, it makes certain that the next start finds the same.
#[test]
fn what_a_start_found_is_what_the_next_one_finds() {
    let random = (0..20).map(|seed| Persist::Random { seed });
    for persist in Persist::FIXED.into_iter().chain(random) {
        let disk = SimDisk::new(1);
        let mut log = create(&disk);
        log.commit(&put(b"k", b"old")).expect("committed");
        disk.inject_on("meta", Fault::SyncError, Trigger::After(0));
        log.commit(&put(b"k", b"in doubt")).expect_err("no sync");
        disk.clear_faults();
        disk.inject_on("meta", Fault::SyncError, Trigger::After(1));
        log.commit(&put(b"other", b"")).expect_err("no sync");
        drop(log);
        let disk = disk.kill_process();
        let mut log = open(&disk).expect("opens");
        log.settle().expect("settled");
        let found = log.get(b"k").map(<[u8]>::to_vec);
        let log = open(&disk.crash(persist)).expect("opens");
        assert_eq!(log.get(b"k").map(<[u8]>::to_vec), found, "{persist:?}");
    }
}

#[test]
fn a_full_disk_fails_the_commit_and_nothing_else() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk);
    log.commit(&put(b"k", b"v")).expect("committed");
    disk.set_capacity(300 << 10);
    let error = log
        .commit(&put(b"big", &vec![1; 600 << 10]))
        .expect_err("no space");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(log.get(b"big"), None);
    log.commit(&put(b"k", b"w"))
        .expect("small commits still fit");
    disk.set_capacity(4 << 20);
    log.commit(&put(b"big", &vec![1; 600 << 10]))
        .expect("there is space now");
    let log = open(&disk).expect("opens");
    assert_eq!(log.get(b"k"), Some(&b"w"[..]));
    assert_eq!(log.get(b"big").map(<[u8]>::len), Some(600 << 10));
}

#[test]
fn a_failed_commit_is_in_doubt_until_a_newer_file_has_the_state() {
    for fault in [Fault::WriteError, Fault::SyncError] {
        let disk = SimDisk::new(1);
        let mut log = create(&disk);
        log.commit(&put(b"k", b"old")).expect("committed");
        disk.inject(fault, Trigger::After(0));
        assert!(log.commit(&put(b"k", b"new")).is_err(), "{fault:?}");
        assert_eq!(
            log.get(b"k"),
            Some(&b"old"[..]),
            "not shown: it may not be durable"
        );
        // The next try does not build on what the failed one left.
        log.commit(&put(b"other", b"x"))
            .expect("the disk works again");
        assert_eq!(names(&disk), [path(2)]);
        let log = open(&disk).expect("opens");
        assert_eq!(log.get(b"k"), Some(&b"old"[..]));
        assert_eq!(log.get(b"other"), Some(&b"x"[..]));
    }
}

#[test]
fn a_failed_compaction_loses_nothing() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk);
    log.commit(&put(b"k", b"v")).expect("committed");
    disk.inject_on(".tmp", Fault::WriteError, Trigger::After(0));
    assert!(log.compact().is_err());
    log.commit(&put(b"k", b"w")).expect("the old file goes on");
    assert_eq!(names(&disk), [path(1)]);
    // The rename happened, its directory sync did not: either file may be the newest now.
    disk.inject(Fault::SyncError, Trigger::After(1));
    assert!(log.compact().is_err());
    log.commit(&put(b"k", b"x"))
        .expect("a third file settles it");
    assert_eq!(names(&disk), [path(4)]);
    assert_eq!(open(&disk).expect("opens").get(b"k"), Some(&b"x"[..]));
}

#[test]
fn commits_survive_a_fault_at_every_operation() {
    for fault in [
        Fault::WriteError,
        Fault::SyncError,
        Fault::NoSpace,
        Fault::NameError,
    ] {
        for at in 0..200 {
            let disk = SimDisk::new(1);
            let mut log = create(&disk);
            disk.inject(fault, Trigger::After(at));
            let mut durable = Vec::new();
            for n in 0..12_u8 {
                let mut batch = put(&[n], b"");
                batch.put(b"bulk", &[n; 20_000]);
                if log.commit(&batch).is_ok() {
                    durable.push(n);
                }
            }
            let happened = disk.faults() > 0;
            let survivor = disk.crash(Persist::Random { seed: at });
            let log = open(&survivor).unwrap_or_else(|e| panic!("{fault:?} at {at}: {e}"));
            for n in durable {
                assert!(
                    log.get(&[n]).is_some(),
                    "{fault:?} at {at}: commit {n} is gone"
                );
            }
            if !happened {
                break;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn it_equals_a_map(
        commits in prop::collection::vec(
            prop::collection::vec((0_u8..20, prop::option::of(0_usize..3_000)), 1..6), 1..40),
        reopen_every in 1_usize..10,
    ) {
        let disk = SimDisk::new(1);
        let mut log = create(&disk);
        let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for (n, commit) in commits.iter().enumerate() {
            let mut batch = MetaBatch::new();
            for (key, value) in commit {
                match value {
                    Some(len) => {
                        batch.put(&[*key], &vec![*key; *len]);
                        model.insert(vec![*key], vec![*key; *len]);
                    }
                    None => {
                        batch.delete(&[*key]);
                        model.remove(&vec![*key]);
                    }
                }
            }
            log.commit(&batch).expect("committed");
            if n % reopen_every == 0 {
                log = open(&disk).expect("opens");
            }
            let live: u64 = model.iter().map(|(k, v)| batch::put_bytes(k, v)).sum();
            prop_assert_eq!(log.live_bytes(), live);
            let found: Vec<_> = log.scan_prefix(b"").collect();
            let wanted: Vec<_> = model.iter().map(|(k, v)| (&k[..], &v[..])).collect();
            prop_assert_eq!(found, wanted);
        }
    }
}

fn keyed(disk: &SimDisk, seed: u64, keys: &[u8]) -> Env {
    let mut env = env(disk, seed);
    let mut keys = keys.iter().map(|byte| Key::new(&[*byte; 32]));
    let first = keys.next().map(KeyRing::new);
    env.keys = first.map(|first| std::sync::Arc::new(keys.fold(first, KeyRing::with_previous)));
    env
}

/// The bytes of all frames that hold entries.
fn frames_of(disk: &SimDisk, no: u64) -> Vec<Vec<u8>> {
    let bytes = disk.read_file(path(no)).expect("readable");
    let starts =
        (FRAMES_OFFSET as usize..bytes.len()).filter(|at| bytes[*at..].starts_with(b"RLFr"));
    starts
        .map(|at| {
            let len = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().expect("four bytes"));
            bytes[at + HEAD_BYTES..at + HEAD_BYTES + len as usize].to_vec()
        })
        .filter(|payload| !payload.is_empty())
        .collect()
}

#[test]
fn a_log_moves_to_a_new_key_and_needs_the_old_one_until_then() {
    let disk = SimDisk::new(1);
    let ids = [1_u8, 2].map(|byte| Key::new(&[byte; 32]).id());
    let mut log = MetaLog::create(&keyed(&disk, 1, &[]), dir(), UUID).expect("created");
    log.commit(&put(b"a", b"one")).expect("committed");
    let open = |seed, keys: &[u8]| MetaLog::open(&keyed(&disk, seed, keys), dir(), UUID);
    // Taken over, but nothing was written yet.
    let log = open(2, &[1]).expect("plain");
    assert_eq!((log.key(), names(&disk).len()), (None, 1));
    let mut log = open(3, &[1]).expect("plain");
    log.use_current_key().expect("moved");
    assert_eq!(log.key(), Some(ids[0]));
    for keys in [&[][..], &[2]] {
        match open(4, keys) {
            Err(MetaError::KeyMissing { key, .. }) => assert_eq!(key, Some(ids[0])),
            other => panic!("{:?}", other.map(|log| log.key())),
        }
    }
    // The first commit under a new key moves the state as well.
    let mut log = open(5, &[2, 1]).expect("both keys");
    log.commit(&put(b"b", b"two")).expect("committed");
    assert_eq!(log.key(), Some(ids[1]));
    let log = open(6, &[2]).expect("the new key");
    assert_eq!(log.get(b"a"), Some(&b"one"[..]));
    assert_eq!(log.get(b"b"), Some(&b"two"[..]));
    assert_eq!(names(&disk).len(), 1);
}

/// A commit whose frame a crash took back before its first sector came to the disk leaves no trace;
/// the next one at its place must not be encrypted in the same way.
#[test]
fn the_same_place_is_never_encrypted_twice_alike() {
    let disk = SimDisk::new(1);
    let log = MetaLog::create(&keyed(&disk, 1, &[1]), dir(), UUID);
    let mut log = log.expect("created");
    log.commit(&put(b"before", &[])).expect("committed");
    drop(log);
    let written = [2, 3].map(|seed| {
        let disk = disk.fork();
        let mut log = MetaLog::open(&keyed(&disk, seed, &[1]), dir(), UUID).expect("opens");
        log.commit(&put(b"key", &[7; 200])).expect("committed");
        frames_of(&disk, 1).pop().expect("a commit")
    });
    assert_eq!(written[0].len(), written[1].len());
    let pairs = written[0].windows(16).zip(written[1].windows(16));
    assert!(pairs.into_iter().all(|(a, b)| a != b));
}
