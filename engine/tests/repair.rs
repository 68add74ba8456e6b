//! Repair: what is derived is made anew, what a backup has comes back, what nobody has stays reported
//! or is given up by name. A crash in between costs nothing.

mod support;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

use riverlog_engine::format::record::record_crc;
use riverlog_engine::io::Env;
use riverlog_engine::io::sim::{CrashMatrix, Fault, SimClock, SimDisk, Trigger};
use riverlog_engine::message::{BodyLayout, MessageTimers};
use riverlog_engine::{
    Append, BackupSource, Message, OpenError, RangeSource, RepairError, RepairOptions,
    RepairReport, Seq, SourceError, Store, Stream, StreamConfig, StreamId, VerifyReport,
};
use support::model::ModelStream;
use support::sample::{End, START_NS, Sample, places, sample, without};
use support::{DIR, differences, readable_or_reported};

const BACKUP: &str = "/backup";

fn env(disk: &SimDisk) -> Env {
    support::suite_env(disk, &SimClock::new(START_NS + 1_000_000), 2)
}

fn open(disk: &SimDisk) -> Store {
    let opened = Store::open_in(env(disk), Path::new(DIR), support::options());
    opened.unwrap_or_else(|error| panic!("{error}")).0
}

fn verify(disk: &SimDisk) -> VerifyReport {
    let report = Store::verify_in(&env(disk), Path::new(DIR), &support::options());
    report.unwrap_or_else(|error| panic!("{error}"))
}

fn try_repair(
    disk: &SimDisk,
    options: &RepairOptions,
    source: Option<&dyn RangeSource>,
) -> Result<RepairReport, RepairError> {
    Store::repair_in(
        &env(disk),
        Path::new(DIR),
        &support::options(),
        options,
        source,
    )
}

fn repair(
    disk: &SimDisk,
    options: &RepairOptions,
    source: Option<&dyn RangeSource>,
) -> RepairReport {
    try_repair(disk, options, source).unwrap_or_else(|error| panic!("{error}"))
}

fn backup_source(disk: &SimDisk) -> BackupSource {
    BackupSource::open_in(&env(disk), Path::new(BACKUP), &support::options()).expect("a backup")
}

fn same(what: &str, disk: &SimDisk, model: &ModelStream) {
    let store = open(disk);
    let stream = store.stream("S").expect("the stream");
    if let Err(difference) = differences(&stream, model) {
        panic!("{what}: {difference}");
    }
}

/// A closed store with a backup of its stream beside it.
fn with_backup(kind: u8) -> Sample {
    let sample = sample(kind, End::Close);
    let store = open(&sample.disk);
    let stream = store.stream("S").expect("the stream");
    stream.backup(Path::new(BACKUP)).expect("a backup");
    sample
}

fn store_files(sample: &Sample, part: &str) -> Vec<(String, Vec<u8>)> {
    let mut files = sample.files(part);
    files.retain(|(path, _)| path.starts_with(DIR));
    files
}

#[test]
fn an_intact_store_stays_as_it_is() {
    let sample = sample(1, End::Close);
    let before = store_files(&sample, "/seg/");
    let report = repair(&sample.disk, &RepairOptions::default(), None);
    assert!(
        report.is_clean() && report.quarantined.is_empty(),
        "{report}"
    );
    assert!(
        report.indexes_rebuilt.is_empty() && report.restored.is_empty(),
        "{report}"
    );
    assert_eq!(report.files, before.len() as u64);
    assert_eq!(store_files(&sample, "/seg/"), before);
    same("untouched", &sample.disk, sample.newest());
}

#[test]
fn a_damaged_index_is_made_anew() {
    let sample = sample(0, End::Close);
    for (path, bytes) in sample.files("idx/") {
        let mut damaged = vec![without(&sample.disk, &path)];
        for at in (0..bytes.len() as u64).step_by(bytes.len() / 12) {
            let disk = sample.disk.fork();
            disk.corrupt(&path, at, 2).expect("inside the file");
            damaged.push(disk);
        }
        for disk in damaged {
            let report = repair(&disk, &RepairOptions::default(), None);
            assert_eq!(report.indexes_rebuilt.len(), 1, "{report}");
            assert!(report.is_clean(), "{report}");
            let after = verify(&disk);
            assert!(after.is_intact(), "{after}");
        }
    }
}

/// Whatever bit is flipped, afterwards nothing is missing.
fn a_backup_brings_everything_back(kind: u8) {
    let sample = with_backup(kind);
    let model = sample.newest();
    let mut with_loss = 0;
    for (path, bytes) in store_files(&sample, "/seg/") {
        for (n, at) in places(&bytes).into_iter().enumerate().step_by(3) {
            let disk = sample.disk.fork();
            let what = format!("byte {at} of {path}");
            disk.corrupt(&path, at, 1 << (n % 8))
                .expect("inside the file");
            let lost = verify(&disk).lost().count();
            with_loss += usize::from(lost > 0);
            let source = backup_source(&disk);
            let report = repair(&disk, &RepairOptions::default(), Some(&source));
            assert!(
                report.is_clean() && report.given_up.is_empty(),
                "{what}: {report}"
            );
            assert_eq!(report.restored.is_empty(), lost == 0, "{what}: {report}");
            assert_eq!(report.quarantined.len(), 1, "{what}: {report}");
            let set_aside = disk.read_file(&report.quarantined[0]).expect("a file");
            let mut expected = bytes.clone();
            expected[at as usize] ^= 1 << (n % 8);
            assert!(set_aside == expected, "{what}: it is set aside as it was");
            let after = verify(&disk);
            assert!(after.is_intact(), "{what}: {after}");
            same(&what, &disk, model);
            let again = repair(&disk, &RepairOptions::default(), Some(&source));
            assert!(
                again.quarantined.is_empty() && again.restored.is_empty(),
                "{again}"
            );
        }
    }
    assert!(with_loss > 0, "some place mattered");
}

#[test]
fn a_backup_brings_back_what_was_lost() {
    a_backup_brings_everything_back(0);
}

#[test]
fn a_backup_brings_back_what_was_lost_compressed() {
    a_backup_brings_everything_back(1);
}

#[test]
fn a_backup_brings_back_a_missing_file() {
    let sample = with_backup(0);
    for (path, _) in store_files(&sample, "/seg/") {
        let disk = without(&sample.disk, &path);
        let source = backup_source(&disk);
        let report = repair(&disk, &RepairOptions::default(), Some(&source));
        assert!(report.is_clean() && !report.restored.is_empty(), "{report}");
        assert!(report.restored.iter().all(|range| !range.proven));
        same(&path, &disk, sample.newest());
        assert!(verify(&disk).is_intact());
    }
}

/// A damaged block of which every message is live: the block table proves that the right ones came
/// back.
#[test]
fn what_comes_back_is_proven() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    let config = StreamConfig {
        name: "S".into(),
        ..StreamConfig::default()
    };
    let (stream, _) = store.create_stream(config).expect("a stream");
    for n in 0..40u8 {
        let id = [b'i', n];
        let append = Append {
            subject: b"s.1",
            payload: &[n; 300],
            headers: if n % 3 == 0 { b"h: 1" } else { b"" },
            msg_id: (n % 4 == 0).then_some(&id[..]),
            ..Append::default()
        };
        stream.append_nosync(&append).expect("appended");
    }
    store.checkpoint().expect("a checkpoint");
    stream.backup(Path::new(BACKUP)).expect("a backup");
    drop(stream);
    drop(store);
    let sealed = disk.files().into_iter();
    let mut sealed = sealed.filter(|(path, _)| path.starts_with("/data/seg/"));
    let (path, _) = sealed.next().expect("a sealed file");
    disk.corrupt(&path, 3_000, 1).expect("inside the file");
    disk.corrupt(&path, 9_000, 1).expect("inside the file");
    let source = backup_source(&disk);
    let report = repair(&disk, &RepairOptions::default(), Some(&source));
    assert!(report.is_clean(), "{report}");
    let restored: Vec<_> = report.restored.iter().map(|r| (r.proven, r.msgs)).collect();
    match support::suite_is_encrypted() {
        // A block is readable as a whole or not at all, and nothing says in the clear what was in it.
        true => assert_eq!(restored, [(false, 40)], "{report}"),
        false => assert_eq!(restored, [(true, 1), (true, 1)], "{report}"),
    }
    let store = open(&disk);
    let stream = store.stream("S").expect("the stream");
    for n in 0..40u8 {
        let message = stream.get(Seq(u64::from(n) + 1)).expect("readable");
        assert_eq!(message.expect("there").payload(), [n; 300]);
    }
}

/// Has messages that never were in the stream, with checksums that fit them.
struct Liar(StreamId);

impl RangeSource for Liar {
    fn messages(
        &self,
        _: &str,
        first: Seq,
        last: Seq,
        take: &mut dyn FnMut(StreamId, Message) -> ControlFlow<()>,
    ) -> Result<(), SourceError> {
        for seq in first.0..=last.0 {
            let (seq, ts) = (Seq(seq), riverlog_engine::TimestampNs(START_NS));
            let crc = record_crc(self.0, seq, ts, 0, b"s.1", b"", b"lies", b"");
            let layout = BodyLayout {
                subject: 3,
                headers: 0,
                payload: 4,
            };
            let body = bytes::Bytes::from_static(b"s.1lies");
            let message = Message::from_body(seq, ts, MessageTimers::default(), crc, layout, body)
                .expect("it fits");
            if take(self.0, message).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Does not answer.
struct Silent;

impl RangeSource for Silent {
    fn messages(
        &self,
        _: &str,
        _: Seq,
        _: Seq,
        _: &mut dyn FnMut(StreamId, Message) -> ControlFlow<()>,
    ) -> Result<(), SourceError> {
        Err(SourceError("nobody there".into()))
    }
}

/// A store whose only stream has lost one whole block.
fn one_lost_block() -> (SimDisk, Vec<u64>) {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    let config = StreamConfig {
        name: "S".into(),
        compression: riverlog_engine::Compression::S2,
        ..StreamConfig::default()
    };
    let (stream, _) = store.create_stream(config).expect("a stream");
    for n in 0..9u8 {
        let payload: Vec<u8> = (0..9_000)
            .map(|at| (at as u8).wrapping_mul(n) ^ n)
            .collect();
        let append = Append {
            subject: b"s.1",
            payload: &payload,
            ..Append::default()
        };
        stream.append_nosync(&append).expect("appended");
        store.commit();
        if n == 4 {
            store.checkpoint().expect("a checkpoint");
        }
    }
    drop(stream);
    drop(store);
    let sealed = disk.files().into_iter();
    let mut sealed = sealed.filter(|(path, _)| path.starts_with("/data/seg/"));
    let (path, _) = sealed.next().expect("a sealed file");
    disk.corrupt(&path, 200, 1).expect("inside the file");
    let report = verify(&disk);
    let lost = report.lost().flat_map(|l| l.first.0..=l.last.0).collect();
    (disk, lost)
}

#[test]
fn other_messages_than_those_that_were_lost_are_refused() {
    let (disk, lost) = one_lost_block();
    assert!(!lost.is_empty());
    let report = repair(&disk, &RepairOptions::default(), Some(&Liar(StreamId(1))));
    if support::suite_is_encrypted() {
        // Nothing in the clear says what was in the block: the source is taken at its word, which the
        // report says.
        assert!(!report.restored.is_empty(), "{report}");
        assert!(report.restored.iter().all(|range| !range.proven));
        return;
    }
    assert!(report.restored.is_empty(), "{report}");
    let left: Vec<u64> = report
        .left
        .iter()
        .flat_map(|l| l.first.0..=l.last.0)
        .collect();
    assert_eq!(left, lost, "{report}");
    let refused = try_repair(&disk, &RepairOptions::default(), Some(&Silent));
    assert!(matches!(refused, Err(RepairError::Source(_))));
    let store = open(&disk);
    let stream = store.stream("S").expect("the stream");
    for seq in lost {
        assert!(stream.get(Seq(seq)).is_err());
    }
}

#[test]
fn without_a_source_damage_stays_reported_or_is_given_up() {
    let mut with_loss = 0;
    for kind in [0, 1] {
        let sample = sample(kind, End::Close);
        for (path, bytes) in sample.files("seg/") {
            for at in places(&bytes).into_iter().step_by(11) {
                let disk = sample.disk.fork();
                disk.corrupt(&path, at, 1).expect("inside the file");
                let what = format!("byte {at} of {path}");
                let lost: BTreeSet<u64> = verify(&disk)
                    .lost()
                    .flat_map(|lost| lost.first.0..=lost.last.0)
                    .filter(|seq| sample.newest().msgs.contains_key(seq))
                    .collect();
                with_loss += usize::from(!lost.is_empty());
                let report = repair(&disk, &RepairOptions::default(), None);
                assert_eq!(report.is_clean(), lost.is_empty(), "{what}: {report}");
                {
                    let store = open(&disk);
                    let stream = store.stream("S").expect("the stream");
                    let unread = readable_or_reported(&stream, sample.newest());
                    let unread = unread.unwrap_or_else(|error| panic!("{what}: {error}"));
                    assert_eq!(unread, lost.iter().copied().collect::<Vec<_>>(), "{what}");
                }
                let give_up = RepairOptions::default().give_up(true);
                let report = repair(&disk, &give_up, None);
                assert!(report.is_clean(), "{what}: {report}");
                let given_up = report.given_up.iter().flat_map(|l| l.first.0..=l.last.0);
                let given_up: BTreeSet<u64> = given_up
                    .filter(|seq| sample.newest().msgs.contains_key(seq))
                    .collect();
                assert_eq!(given_up, lost, "{what}");
                let mut model = sample.newest().clone();
                model.msgs.retain(|seq, _| !lost.contains(seq));
                same(&what, &disk, &model);
                let after = verify(&disk);
                assert!(after.is_intact(), "{what}: {after}");
            }
        }
    }
    assert!(with_loss > 2);
}

/// Damage in a file that streams share: the others go on in a new file, or stay where they are.
#[test]
fn streams_that_share_a_file_are_repaired_together() {
    if support::suite_is_encrypted() {
        // The blocks to damage are found by what they hold.
        return;
    }
    let disk = SimDisk::new(1);
    let store = open(&disk);
    let streams: Vec<Stream> = (0..6u8)
        .map(|n| {
            let config = StreamConfig {
                name: format!("s{n}"),
                ..StreamConfig::default()
            };
            let (stream, _) = store.create_stream(config).expect("a stream");
            for seq in 0..3u8 {
                let append = Append {
                    subject: b"s.1",
                    payload: &[n * 16 + seq; 700],
                    ..Append::default()
                };
                stream.append_nosync(&append).expect("appended");
            }
            stream
        })
        .collect();
    store.checkpoint().expect("a checkpoint");
    streams[3].backup(Path::new(BACKUP)).expect("a backup");
    drop(streams);
    drop(store);
    let sealed = disk.files().into_iter();
    let mut sealed = sealed.filter(|(path, _)| path.starts_with("/data/seg/"));
    let (path, _) = sealed.next().expect("a sealed file");
    let bytes = disk.read_file(&path).expect("a file");
    let hit = |payload: u8| {
        let at = bytes
            .windows(100)
            .position(|window| *window == [payload; 100]);
        disk.corrupt(&path, at.expect("stored") as u64 + 50, 1)
            .expect("inside the file");
    };
    hit(3 * 16 + 1);
    hit(4 * 16 + 2);
    let source = backup_source(&disk);
    let report = repair(&disk, &RepairOptions::default(), Some(&source));
    assert_eq!(report.restored.len(), 1, "{report}");
    assert_eq!(report.left.len(), 1, "{report}");
    assert_eq!(report.left[0].first, Seq(3));
    assert!(
        report.quarantined.is_empty(),
        "one stream still needs the file"
    );
    let read = |disk: &SimDisk| -> Vec<(u8, u64)> {
        let store = open(disk);
        let mut unread = Vec::new();
        for n in 0..6u8 {
            let stream = store.stream(&format!("s{n}")).expect("the stream");
            for seq in 0..3u8 {
                match stream.get(Seq(u64::from(seq) + 1)) {
                    Ok(Some(message)) => assert_eq!(message.payload(), [n * 16 + seq; 700]),
                    Ok(None) => panic!("{n} {seq} is silently absent"),
                    Err(_) => unread.push((n, u64::from(seq) + 1)),
                }
            }
        }
        unread
    };
    assert_eq!(read(&disk), [(4, 3)]);
    let report = repair(&disk, &RepairOptions::default().give_up(true), None);
    assert_eq!(
        (report.given_up.len(), report.quarantined.len()),
        (1, 1),
        "{report}"
    );
    assert!(verify(&disk).is_intact());
}

/// The power goes at every change while a repair runs: nothing that was readable is lost, and the
/// repair can be run again.
#[test]
fn a_crash_in_a_repair_costs_nothing() {
    for give_up in [false, true] {
        let sample = with_backup(1);
        let model = sample.newest();
        let (path, _) = &store_files(&sample, "/seg/")[0];
        sample.disk.corrupt(path, 150, 1).expect("inside the file");
        let (index, _) = &store_files(&sample, "/idx/")[1];
        sample.disk.corrupt(index, 100, 1).expect("inside the file");
        let lost: Vec<u64> = verify(&sample.disk)
            .lost()
            .flat_map(|lost| lost.first.0..=lost.last.0)
            .filter(|seq| model.msgs.contains_key(seq))
            .collect();
        assert!(!lost.is_empty());
        let options = RepairOptions::default().give_up(give_up);
        let source = |disk: &SimDisk| {
            BackupSource::open_in(&env(disk), Path::new(BACKUP), &support::options()).ok()
        };
        let mut without_lost = model.clone();
        without_lost.msgs.retain(|seq, _| !lost.contains(seq));
        let matrix = CrashMatrix::new(9)
            .starting_from(&sample.disk)
            .random_outcomes(1);
        let report = matrix.run(
            |disk| {
                let source = source(disk).filter(|_| !give_up);
                let source = source.as_ref().map(|source| source as &dyn RangeSource);
                try_repair(disk, &options, source).is_ok()
            },
            |survivor, done, _| {
                {
                    let store = open(&survivor);
                    let stream = store.stream("S").ok_or("the stream is gone")?;
                    let expected = match (give_up, done) {
                        (true, true) => vec![&without_lost],
                        (true, false) => vec![model, &without_lost],
                        (false, _) => vec![model],
                    };
                    let fits = expected
                        .iter()
                        .map(|model| readable_or_reported(&stream, model));
                    let mut unread = Err("nothing fits".to_owned());
                    for fit in fits {
                        match fit {
                            Ok(seqs) => unread = Ok(seqs),
                            Err(error) if unread.is_err() => unread = Err(error),
                            Err(_) => {}
                        }
                    }
                    let unread = match (unread, give_up) {
                        (Ok(unread), _) => unread,
                        // Given up one by one.
                        (Err(_), true) if !done => Vec::new(),
                        (Err(error), _) => return Err(error),
                    };
                    if *done && !unread.is_empty() {
                        return Err(format!("{unread:?} are unreadable after the repair"));
                    }
                    if unread.iter().any(|seq| !lost.contains(seq)) {
                        return Err(format!("{unread:?} are unreadable, only {lost:?} were"));
                    }
                }
                let source = source(&survivor).filter(|_| !give_up);
                let source = source.as_ref().map(|source| source as &dyn RangeSource);
                let again = try_repair(&survivor, &options, source);
                let again = again.map_err(|error| error.to_string())?;
                if !again.is_clean() {
                    return Err(again.to_string());
                }
                let store = open(&survivor);
                let stream = store.stream("S").ok_or("the stream is gone")?;
                let expected = if give_up { &without_lost } else { model };
                differences(&stream, expected)
            },
        );
        let report = report.unwrap_or_else(|failure| panic!("{failure}"));
        assert!(report.points > 20, "{report:?}");
    }
}

/// Every operation of a repair fails once: an error or a repaired store, and nothing readable is lost.
#[test]
fn a_fault_in_a_repair_costs_nothing() {
    for fault in [
        Fault::WriteError,
        Fault::NoSpace,
        Fault::SyncError,
        Fault::NameError,
    ] {
        let sample = with_backup(0);
        let (path, _) = &store_files(&sample, "/seg/")[0];
        sample.disk.corrupt(path, 150, 1).expect("inside the file");
        for nth in (0..90).step_by(2) {
            let disk = sample.disk.fork();
            let source = backup_source(&disk);
            disk.inject_on("data", fault, Trigger::After(nth));
            let repaired = try_repair(&disk, &RepairOptions::default(), Some(&source));
            let happened = disk.faults() > 0;
            disk.clear_faults();
            let disk = disk.kill_process();
            if let Err(error) = repaired {
                assert!(happened, "{error}");
            }
            {
                let store = open(&disk);
                let stream = store.stream("S").expect("the stream");
                let unread = readable_or_reported(&stream, sample.newest());
                let unread = unread.unwrap_or_else(|error| panic!("{fault:?} {nth}: {error}"));
                assert!(unread.len() <= 4, "{unread:?}");
            }
            let source = backup_source(&disk);
            let again = repair(&disk, &RepairOptions::default(), Some(&source));
            assert!(again.is_clean(), "{again}");
            same("in the end", &disk, sample.newest());
            if !happened {
                break;
            }
        }
    }
}

/// Acknowledged operations that are damaged in the log: refused, unless they may be given up.
#[test]
fn a_damaged_log_is_given_up_only_if_allowed() {
    let sample = sample(0, End::Kill);
    let mut given_up = 0;
    let logs = sample.files("wal/").into_iter();
    let all = logs.flat_map(|(path, bytes)| {
        let written = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64;
        (8_192..written)
            .step_by(41)
            .map(move |at| (path.clone(), at))
    });
    for (path, at) in all {
        let disk = sample.disk.fork();
        disk.corrupt(&path, at, 1).expect("inside the file");
        if verify(&disk).opens() {
            continue;
        }
        let refused = try_repair(&disk, &RepairOptions::default(), None);
        assert!(matches!(
            refused,
            Err(RepairError::Open(OpenError::Damaged { .. }))
        ));
        let report = repair(&disk, &RepairOptions::default().give_up(true), None);
        let recovery = report.recovery.as_ref().expect("it was opened");
        given_up += recovery.lost.len();
        assert!(verify(&disk).is_intact());
    }
    assert!(given_up > 0, "some place mattered");
}
