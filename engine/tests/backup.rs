//! Backups: what is restored is the stream as it was at one position of the log; what goes wrong
//! leaves the backup before, and no stream.

mod support;

use std::path::Path;

use riverlog_engine::io::sim::{CrashMatrix, Fault, SimClock, SimDisk, Trigger};
use riverlog_engine::io::{Env, Io, OpenMode};
use riverlog_engine::{
    Append, BackupError, BackupReport, Filter, Next, PurgeRequest, RestoreError, Seq, Storage,
    Store, Stream, StreamConfig, TimestampNs,
};
use support::model::ModelStream;
use support::sample::{End, START_NS, content, places, sample, without};
use support::{Action, DIR, Pair, config, consumer_config, differences};

const BACKUP: &str = "/backup";

fn env(disk: &SimDisk) -> Env {
    support::suite_env(disk, &SimClock::new(START_NS + 1_000_000), 3)
}

fn open(disk: &SimDisk) -> Store {
    let opened = Store::open_in(env(disk), Path::new(DIR), support::options());
    opened.unwrap_or_else(|error| panic!("{error}")).0
}

/// A store of its own, with a stream in it already, so that ids differ from those of the backup.
fn other_store(disk: &SimDisk) -> Store {
    let clock = SimClock::new(START_NS + 2_000_000);
    let env = support::suite_env(disk, &clock, 77);
    let (store, _) =
        Store::open_in(env, Path::new("/other"), support::options()).expect("a new store");
    let config = StreamConfig {
        name: "first".into(),
        ..StreamConfig::default()
    };
    store.create_stream(config).expect("a stream");
    store.commit();
    store
}

fn append(subject: u8, len: u16) -> Action {
    Action::Append {
        subject,
        len,
        id: None,
    }
}

fn act(pair: &mut Pair, actions: &[Action]) {
    for action in actions {
        if let Err(halt) = pair.act(action) {
            panic!("{action:?}: {halt:?}");
        }
    }
}

/// Sealed data in two files, a tail, removals, ids, and a consumer in the middle of its work.
fn pair(disk: &SimDisk, kind: u8) -> Pair {
    let Ok(mut pair) = Pair::create(&env(disk), config(kind)) else {
        panic!("no fault was injected")
    };
    let with_id = Action::Append {
        subject: 2,
        len: 10,
        id: Some(1),
    };
    act(&mut pair, &[append(0, 400), append(1, 9_000), with_id]);
    act(
        &mut pair,
        &[append(3, 20), Action::Commit, Action::Deliver(3)],
    );
    act(&mut pair, &[Action::Ack(1), Action::Checkpoint]);
    act(
        &mut pair,
        &[append(0, 5_000), append(4, 8), Action::Delete(1)],
    );
    act(
        &mut pair,
        &[Action::Checkpoint, append(1, 300), append(2, 3)],
    );
    act(
        &mut pair,
        &[Action::Deliver(1), Action::Ack(0), Action::Commit],
    );
    pair
}

fn newest(pair: &Pair) -> ModelStream {
    pair.history.last().expect("a first state").1.clone()
}

fn same(stream: &Stream, model: &ModelStream) {
    if let Err(difference) = differences(stream, model) {
        panic!("{difference}");
    }
}

/// A restored stream is like the one it came from, in everything that can be asked.
fn equal(restored: &Stream, original: &Stream) {
    let (mut a, mut b) = (restored.state(), original.state());
    (a.consumers, b.consumers) = (0, 0);
    assert_eq!(a, b);
    assert_eq!(restored.created(), original.created());
    assert_eq!(restored.deleted(1_000), original.deleted(1_000));
    for seq in 0..=b.last_seq.0 {
        let (a, b) = (restored.get(Seq(seq)), original.get(Seq(seq)));
        let (a, b) = (a.expect("readable"), b.expect("readable"));
        assert_eq!(a.is_some(), b.is_some(), "{seq}");
        if let (Some(a), Some(b)) = (a, b) {
            assert_eq!((a.seq, a.ts, a.flags), (b.seq, b.ts, b.flags));
            assert_eq!(a.subject(), b.subject());
            assert_eq!(a.headers_and_payload(), b.headers_and_payload());
            assert_eq!(a.msg_id(), b.msg_id());
        }
    }
    let (a, b) = (restored.consumers(), original.consumers());
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(&b) {
        assert_eq!(a.config(), b.config());
        let known = |consumer: &riverlog_engine::Consumer| {
            let info = consumer.info();
            let at =
                |p: &riverlog_engine::consumer::ConsumerPosition| (p.consumer_seq, p.stream_seq);
            let counts = (info.num_ack_pending, info.num_redelivered);
            (at(&info.delivered), at(&info.ack_floor), counts)
        };
        assert_eq!(known(a), known(b));
    }
}

/// Every delivery from here on, with acknowledgements, is the same.
fn delivers_alike(a: &Stream, b: &Stream) {
    let (a, b) = (a.consumer("C"), b.consumer("C"));
    let (a, b) = (a.expect("the consumer"), b.expect("the consumer"));
    let much_later = TimestampNs(START_NS + 10_000_000_000_000_000);
    for now in [TimestampNs(START_NS), much_later] {
        for step in 0..100 {
            let (x, y) = (a.next(now, &mut |_| true), b.next(now, &mut |_| true));
            match (x.expect("an answer"), y.expect("an answer")) {
                (Next::Message(x), Next::Message(y)) => {
                    let key = |d: &riverlog_engine::Delivery| {
                        (d.message.seq, d.consumer_seq, d.deliveries, d.num_pending)
                    };
                    assert_eq!(key(&x), key(&y));
                    if step % 2 == 0 {
                        a.ack(x.message.seq, now).expect("acknowledged");
                        b.ack(y.message.seq, now).expect("acknowledged");
                    }
                }
                (Next::Message(x), _) => panic!("only the first delivers {:?}", x.message.seq),
                (_, Next::Message(y)) => panic!("only the second delivers {:?}", y.message.seq),
                _ => break,
            }
        }
    }
}

#[test]
fn a_stream_comes_back_as_it_was() {
    for kind in 0..10 {
        let disk = SimDisk::new(1);
        let pair = pair(&disk, kind);
        let original = &pair.stream;
        let report = original.backup(Path::new(BACKUP)).expect("a backup");
        assert_eq!((report.msgs, report.lost.len()), (original.state().msgs, 0));
        assert_eq!(report.last_seq, original.state().last_seq);
        let check = Store::verify_backup_in(&env(&disk), Path::new(BACKUP), &support::options())
            .expect("a backup");
        assert!(check.is_intact(), "{check}");
        assert_eq!(check.msgs, report.msgs);

        let target = other_store(&disk);
        let (restored, report) = target.restore(Path::new(BACKUP), None).expect("restored");
        assert_eq!(report.msgs, original.state().msgs);
        assert_eq!(restored.name(), "S");
        equal(&restored, original);
        same(&restored, &newest(&pair));
        assert_ne!(restored.id(), original.id());

        let (copy, _) = pair
            .store
            .restore(Path::new(BACKUP), Some("copy"))
            .expect("restored");
        equal(&copy, original);

        drop((restored, target));
        let again = other_store_again(&disk);
        let restored = again.stream("S").expect("it survives a restart");
        equal(&restored, original);
        delivers_alike(&restored, original);
    }
}

fn other_store_again(disk: &SimDisk) -> Store {
    let clock = SimClock::new(START_NS + 3_000_000);
    let env = support::suite_env(disk, &clock, 78);
    let opened = Store::open_in(env, Path::new("/other"), support::options());
    opened.unwrap_or_else(|error| panic!("{error}")).0
}

/// A restored stream goes on like any other: appends, removals, checkpoints, restarts.
#[test]
fn a_restored_stream_goes_on() {
    let disk = SimDisk::new(1);
    let pair = pair(&disk, 0);
    pair.stream.backup(Path::new(BACKUP)).expect("a backup");
    let mut model = newest(&pair);
    let target = other_store(&disk);
    let (restored, _) = target
        .restore(Path::new(BACKUP), Some("T"))
        .expect("restored");
    let config = StreamConfig {
        name: "T".into(),
        ..config(0)
    };
    for round in 0..3u8 {
        let payload = vec![round; 4_000];
        model.append(&config, "s.3", &payload, None, START_NS + 2_000_000);
        let append = Append {
            subject: b"s.3",
            payload: &payload,
            ..Append::default()
        };
        let done = restored.append_nosync(&append).expect("appended");
        assert_eq!(done.seq, Seq(model.last_seq));
        let first = restored.state().first_seq;
        model.delete(first.0);
        restored.delete(first).expect("deleted");
        target.commit();
        if round == 1 {
            target.checkpoint().expect("a checkpoint");
        }
        same(&restored, &model);
    }
    drop((restored, target));
    let target = other_store_again(&disk);
    let restored = target.stream("T").expect("the stream");
    same(&restored, &model);
    // And it can be backed up in turn.
    restored.backup(Path::new("/backup2")).expect("a backup");
    let (copy, _) = target
        .restore(Path::new("/backup2"), Some("U"))
        .expect("restored");
    same(&copy, &model);
    target.delete_stream("T").expect("deleted");
    target.checkpoint().expect("a checkpoint");
    same(&copy, &model);
}

#[test]
fn message_ids_are_known_after_a_restore() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    let (stream, _) = store.create_stream(config(0)).expect("a stream");
    let send = |stream: &Stream, n: u32| {
        let id = format!("id-{n}");
        let append = Append {
            subject: b"s.1",
            msg_id: Some(id.as_bytes()),
            ..Append::default()
        };
        let done = stream.append_nosync(&append).expect("an answer");
        (done.seq.0, done.duplicate)
    };
    for n in 1..=20 {
        assert_eq!(send(&stream, n), (u64::from(n), false));
        if n % 7 == 0 {
            store.checkpoint().expect("a checkpoint");
        }
    }
    // An id outlives its message.
    stream.purge(&PurgeRequest::default()).expect("purged");
    store.commit();
    stream.backup(Path::new(BACKUP)).expect("a backup");
    // Not in the backup.
    assert_eq!(send(&stream, 21), (21, false));
    let target = other_store(&disk);
    target.restore(Path::new(BACKUP), None).expect("restored");
    drop(target);
    let target = other_store_again(&disk);
    let restored = target.stream("S").expect("the stream");
    for n in 1..=20 {
        assert_eq!(send(&restored, n), (u64::from(n), true), "{n}");
    }
    assert_eq!(send(&restored, 21), (21, false));
    assert_eq!(send(&restored, 21), (21, true));
}

#[test]
fn a_second_backup_copies_what_is_new() {
    let disk = SimDisk::new(1);
    let mut pair = pair(&disk, 0);
    let back_up = |pair: &Pair| pair.stream.backup(Path::new(BACKUP)).expect("a backup");
    let first = back_up(&pair);
    assert!(
        first.files_written >= 2 && first.files_kept == 0,
        "{first:?}"
    );
    let nothing = back_up(&pair);
    assert_eq!((nothing.files_written, nothing.bytes_written), (0, 0));
    assert_eq!(nothing.files_kept, first.files_written);

    act(&mut pair, &[append(0, 100), append(1, 100), Action::Commit]);
    let before = content(&disk);
    let second = back_up(&pair);
    assert_eq!(second.files_written, 1, "{second:?}");
    assert_eq!(second.files_kept, first.files_written);
    for (path, bytes) in content(&disk) {
        if path.starts_with("/backup/data/") && before.contains_key(&path) {
            assert_eq!(
                before.get(&path),
                Some(&bytes),
                "{path} was not written again"
            );
        }
    }
    // A file in which nothing is live any more leaves the backup.
    act(&mut pair, &[Action::PurgeKeep(1), Action::Commit]);
    let third = back_up(&pair);
    assert!(third.files_removed >= 2, "{third:?}");
    let target = other_store(&disk);
    let (restored, _) = target.restore(Path::new(BACKUP), None).expect("restored");
    same(&restored, &newest(&pair));
}

/// Of a file that many streams share, only the one stream's messages are copied.
#[test]
fn a_backup_holds_one_stream() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    let mut streams = Vec::new();
    for n in 0..20 {
        let config = StreamConfig {
            name: format!("s{n}"),
            ..StreamConfig::default()
        };
        let (stream, _) = store.create_stream(config).expect("a stream");
        let payload = vec![n; 1_000];
        let append = Append {
            subject: b"x",
            payload: &payload,
            ..Append::default()
        };
        stream.append_nosync(&append).expect("appended");
        streams.push(stream);
    }
    store.checkpoint().expect("a checkpoint");
    let report = streams[7].backup(Path::new(BACKUP)).expect("a backup");
    assert_eq!((report.msgs, report.files_written), (1, 1));
    let target = other_store(&disk);
    let (restored, _) = target.restore(Path::new(BACKUP), None).expect("restored");
    let message = restored.get(Seq(1)).expect("readable").expect("there");
    assert_eq!(message.payload(), vec![7; 1_000]);
    let bytes: usize = content(&disk)
        .iter()
        .filter(|(path, _)| path.starts_with("/backup/data/"))
        .map(|(_, bytes)| bytes.windows(64).filter(|w| **w == [8; 64]).count())
        .sum();
    assert_eq!(bytes, 0, "nothing of another stream");
}

/// Appends, deliveries and acknowledgements go on while backups are made on the real disk: each backup
/// is the stream as it was at one moment.
#[test]
fn a_backup_of_a_busy_stream_is_one_moment() {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = riverlog_engine::StoreOptions::default();
    options.tail_bytes_max = 256 << 10;
    let (store, _) = Store::open(&dir.path().join("store"), options).expect("a store");
    let limited = StreamConfig {
        name: "busy".into(),
        msgs_max: Some(2_000),
        ..StreamConfig::default()
    };
    let (stream, _) = store.create_stream(limited).expect("a stream");
    let (consumer, _) = stream
        .create_consumer(consumer_config())
        .expect("a consumer");
    let (stop, durable) = (AtomicBool::new(false), AtomicU64::new(0));
    let checked = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0_u64;
            while !stop.load(Ordering::Acquire) {
                n += 1;
                let payload = [n.to_le_bytes(); 8].concat();
                let append = Append {
                    subject: b"a.b",
                    payload: &payload,
                    ..Append::default()
                };
                if n.is_multiple_of(64) {
                    let done = stream.append(&append).expect("appended");
                    assert_eq!(done.seq.0, n);
                    durable.store(n, Ordering::Release);
                } else {
                    while let Err(error) = stream.append_nosync(&append) {
                        assert!(
                            matches!(error, riverlog_engine::AppendError::Busy),
                            "{error}"
                        );
                        store.wait_room();
                    }
                }
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                let now = TimestampNs(START_NS);
                if let Next::Message(delivery) =
                    consumer.next(now, &mut |_| true).expect("an answer")
                {
                    consumer
                        .ack(delivery.message.seq, now)
                        .expect("acknowledged");
                }
            }
        });
        let mut checked = 0;
        for round in 0..6 {
            let known = durable.load(Ordering::Acquire);
            let to = dir.path().join("backup");
            let report = stream.backup(&to).expect("a backup");
            assert!(report.last_seq.0 >= known, "what was acknowledged is there");
            assert!(report.lost.is_empty(), "{report:?}");
            let name = format!("r{round}");
            let (restored, _) = store.restore(&to, Some(&name)).expect("restored");
            let state = restored.state();
            assert_eq!(state.last_seq, report.last_seq);
            assert_eq!(state.msgs, state.last_seq.0.min(2_000));
            assert_eq!(state.first_seq.0, state.last_seq.0 + 1 - state.msgs);
            for seq in state.first_seq.0..=state.last_seq.0 {
                let message = restored.get(Seq(seq)).expect("readable").expect("there");
                assert_eq!(message.payload()[..8], seq.to_le_bytes());
                checked += 1;
            }
            let copy = restored.consumer("C").expect("the consumer").info();
            assert!(copy.delivered.stream_seq <= state.last_seq, "{copy:?}");
            assert!(
                copy.ack_floor.stream_seq <= copy.delivered.stream_seq,
                "{copy:?}"
            );
            store.delete_stream(&name).expect("deleted");
        }
        stop.store(true, Ordering::Release);
        checked
    });
    assert!(checked > 0, "the stream was busy");
}

/// The power goes at every change of the disk while a second backup is made: the directory holds the
/// first one or the second one, whole.
#[test]
fn a_crash_leaves_one_backup() {
    let disk = SimDisk::new(1);
    let mut first = pair(&disk, 1);
    first.stream.backup(Path::new(BACKUP)).expect("a backup");
    let before = newest(&first);
    act(
        &mut first,
        &[Action::Delete(0), append(0, 700), Action::Commit],
    );
    let after = newest(&first);
    drop(first);
    let run = |disk: &SimDisk| -> Option<BackupReport> {
        let opened = Store::open_in(env(disk), Path::new(DIR), support::options());
        let (store, _) = opened.ok()?;
        store.stream("S")?.backup(Path::new(BACKUP)).ok()
    };
    let matrix = CrashMatrix::new(5).starting_from(&disk).random_outcomes(2);
    let report = matrix.run(run, |survivor, made, _| {
        let check =
            Store::verify_backup_in(&env(&survivor), Path::new(BACKUP), &support::options());
        let check = check.map_err(|error| error.to_string())?;
        if !check.is_intact() {
            return Err(check.to_string());
        }
        let target = other_store(&survivor);
        let restored = target.restore(Path::new(BACKUP), None);
        let (restored, _) = restored.map_err(|error| error.to_string())?;
        match (
            differences(&restored, &before),
            differences(&restored, &after),
        ) {
            (_, Ok(())) => Ok(()),
            (Ok(()), _) if made.is_none() => Ok(()),
            (_, Err(difference)) => Err(difference),
        }
    });
    let report = report.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(report.points > 20, "{report:?}");
}

/// The power goes at every change while a stream is restored: there is no such stream, or all of it.
#[test]
fn a_crash_leaves_all_of_a_restored_stream_or_nothing() {
    let disk = SimDisk::new(1);
    let source = pair(&disk, 0);
    source.stream.backup(Path::new(BACKUP)).expect("a backup");
    let model = newest(&source);
    let run = |disk: &SimDisk| -> Option<()> {
        let opened = Store::open_in(env(disk), Path::new(DIR), support::options());
        let (store, _) = opened.ok()?;
        store.restore(Path::new(BACKUP), Some("T")).ok().map(|_| ())
    };
    let source_stream = source.stream.clone();
    drop(source);
    drop(source_stream);
    let matrix = CrashMatrix::new(6).starting_from(&disk).random_outcomes(2);
    let report = matrix.run(run, |survivor, done, _| {
        let opened = Store::open_in(env(&survivor), Path::new(DIR), support::options());
        let (store, _) = opened.map_err(|error| error.to_string())?;
        same(&store.stream("S").ok_or("the source is gone")?, &model);
        match (store.stream("T"), done) {
            (Some(restored), _) => differences(&restored, &model)?,
            (None, Some(())) => return Err("a restored stream is gone".into()),
            (None, None) => {}
        }
        drop(store);
        let report = Store::verify_in(&env(&survivor), Path::new(DIR), &support::options());
        let report = report.map_err(|error| error.to_string())?;
        match report.is_intact() {
            true => Ok(()),
            false => Err(report.to_string()),
        }
    });
    let report = report.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(report.points > 20, "{report:?}");
}

/// Every operation goes wrong in every way: an error, and the earlier backup is as it was; or success,
/// and the new one is there.
#[test]
fn a_fault_leaves_one_backup() {
    for fault in [
        Fault::WriteError,
        Fault::NoSpace,
        Fault::SyncError,
        Fault::NameError,
    ] {
        for nth in 0..60 {
            let disk = SimDisk::new(1);
            let mut pair = pair(&disk, 0);
            pair.stream.backup(Path::new(BACKUP)).expect("a backup");
            let before = newest(&pair);
            act(
                &mut pair,
                &[Action::Delete(0), append(0, 700), Action::Commit],
            );
            disk.inject_on("backup", fault, Trigger::After(nth));
            let made = pair.stream.backup(Path::new(BACKUP));
            let happened = disk.faults() > 0;
            disk.clear_faults();
            let target = other_store(&disk);
            let (restored, _) = target
                .restore(Path::new(BACKUP), None)
                .expect("a whole backup");
            match made {
                Ok(_) => same(&restored, &newest(&pair)),
                Err(error) => {
                    assert!(happened, "{error}");
                    let old = differences(&restored, &before);
                    let new = differences(&restored, &newest(&pair));
                    assert!(
                        old.is_ok() || new.is_ok(),
                        "{fault:?} {nth}: {old:?}, {new:?}"
                    );
                }
            }
            pair.stream
                .backup(Path::new(BACKUP))
                .expect("the next one succeeds");
            if !happened {
                break;
            }
        }
    }
}

/// Any damage to a backup: an error that says so, or the stream as it was.
#[test]
fn a_damaged_backup_is_refused() {
    for kind in [0, 1] {
        let disk = SimDisk::new(1);
        let source = pair(&disk, kind);
        source.stream.backup(Path::new(BACKUP)).expect("a backup");
        let model = newest(&source);
        drop(source);
        let files: Vec<_> = content(&disk)
            .into_iter()
            .filter(|(path, _)| path.starts_with(BACKUP))
            .collect();
        assert!(files.len() >= 3);
        let judge = |what: &str, disk: &SimDisk| {
            let check = Store::verify_backup_in(&env(disk), Path::new(BACKUP), &support::options());
            let target = other_store(disk);
            match (target.restore(Path::new(BACKUP), None), check) {
                (Ok((restored, _)), Ok(check)) => {
                    assert!(check.lost.is_empty(), "{what}: {check}");
                    assert!(!check.is_intact(), "{what} is not found");
                    same(&restored, &model);
                }
                (Ok(_), Err(error)) => panic!("{what}: restored, but {error}"),
                (Err(error), check) => {
                    assert!(
                        matches!(
                            error,
                            RestoreError::Backup(
                                BackupError::Damaged { .. }
                                    | BackupError::NotABackup { .. }
                                    | BackupError::NewerVersion { .. }
                            )
                        ),
                        "{what}: {error}"
                    );
                    assert!(target.stream("S").is_none(), "{what}");
                    assert!(!check.is_ok_and(|check| check.is_intact()), "{what}");
                }
            }
        };
        for (path, bytes) in &files {
            for (n, at) in places(bytes).into_iter().enumerate() {
                let disk = disk.fork();
                disk.corrupt(path, at, 1 << (n % 8))
                    .expect("inside the file");
                judge(&format!("byte {at} of {path}"), &disk);
            }
            let len = bytes.len() as u64;
            for cut in [0, 1, 63, 64, len / 3, len / 2, len - 1] {
                let disk = disk.fork();
                disk.truncate(path, cut).expect("a file");
                judge(&format!("{path} cut to {cut}"), &disk);
            }
            let garbage: Vec<u8> = (0..bytes.len()).map(|n| (n * 7 + n / 256) as u8).collect();
            let garbled = disk.fork();
            garbled.overwrite(path, 0, &garbage).expect("a file");
            judge(&format!("garbage in {path}"), &garbled);
            judge(&format!("without {path}"), &without(&disk, path));
        }
    }
}

/// What the stream has lost already is named, left out, and counts as removed in the copy.
#[test]
fn damaged_messages_are_left_out_and_named() {
    let sample = sample(0, End::Close);
    let model = sample.newest();
    let (path, bytes) = &sample.files("seg/")[0];
    let mut with_loss = 0;
    for at in places(bytes).into_iter().step_by(9) {
        let disk = sample.disk.fork();
        disk.corrupt(path, at, 4).expect("inside the file");
        let store = open(&disk);
        let stream = store.stream("S").expect("the stream");
        let report = stream.backup(Path::new(BACKUP)).expect("a backup");
        let mut expected = model.clone();
        for lost in &report.lost {
            with_loss += 1;
            expected
                .msgs
                .retain(|seq, _| *seq < lost.first.0 || *seq > lost.last.0);
        }
        let missing = model.msgs.len() - expected.msgs.len();
        assert!(missing <= 4, "{report:?}");
        let target = other_store(&disk);
        let (restored, restore) = target.restore(Path::new(BACKUP), None).expect("restored");
        assert_eq!(restore.lost.is_empty(), report.lost.is_empty());
        same(&restored, &expected);
    }
    assert!(with_loss > 0);
}

#[test]
fn misuse_is_an_error() {
    let disk = SimDisk::new(1);
    let pair = pair(&disk, 0);
    let to = Path::new(BACKUP);
    let new_stream = |name: &str, storage| {
        let config = StreamConfig {
            name: name.into(),
            storage,
            ..StreamConfig::default()
        };
        pair.store.create_stream(config).expect("a stream").0
    };
    let memory = new_stream("memory", Storage::Memory);
    assert!(matches!(memory.backup(to), Err(BackupError::Memory)));
    pair.stream.backup(to).expect("a backup");
    let other = new_stream("other", Storage::File);
    assert!(matches!(
        other.backup(to),
        Err(BackupError::OtherStream { .. })
    ));
    let in_store = pair.stream.backup(Path::new(DIR));
    assert!(matches!(in_store, Err(BackupError::NotABackup { .. })));
    let nowhere = pair.store.restore(Path::new("/nowhere"), None);
    assert!(matches!(
        nowhere,
        Err(RestoreError::Backup(BackupError::NotABackup { .. }))
    ));
    assert!(matches!(
        pair.store.restore(to, None),
        Err(RestoreError::Exists)
    ));
    assert!(matches!(
        pair.store.restore(to, Some("")),
        Err(RestoreError::Name)
    ));
    disk.create_dir_all(Path::new("/foreign"))
        .expect("a directory");
    disk.open(Path::new("/foreign/file"), OpenMode::CreateNew)
        .expect("a file");
    let foreign = pair.stream.backup(Path::new("/foreign"));
    assert!(matches!(foreign, Err(BackupError::NotABackup { .. })));
    pair.store.delete_stream("other").expect("deleted");
    let gone = other.backup(Path::new("/new"));
    assert!(matches!(gone, Err(BackupError::Deleted)));
    pair.store.close();
    let closed = pair.stream.backup(to);
    assert!(matches!(closed, Err(BackupError::Stopped(_))));
}

#[test]
fn an_empty_stream_comes_back() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    let config = StreamConfig {
        name: "S".into(),
        first_seq: Seq(50),
        ..StreamConfig::default()
    };
    let (stream, _) = store.create_stream(config).expect("a stream");
    stream.backup(Path::new(BACKUP)).expect("a backup");
    let target = other_store(&disk);
    let (restored, report) = target.restore(Path::new(BACKUP), None).expect("restored");
    assert_eq!((report.msgs, report.last_seq), (0, Seq(49)));
    let done = restored.append_nosync(&Append {
        subject: b"a",
        ..Append::default()
    });
    assert_eq!(done.expect("appended").seq, Seq(50));
    assert_eq!(
        restored.subjects(&Filter::all()).expect("subjects").len(),
        0
    );
}
