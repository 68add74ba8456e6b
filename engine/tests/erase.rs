//! Secure erase: once it says so, the message's bytes are in no file of the store, also not after a
//! crash; before that nothing else is lost, and a restart goes on with it.

mod support;

use std::path::Path;
use std::time::Duration;

use riverlog_engine::io::Env;
use riverlog_engine::io::sim::{CrashMatrix, Fault, FaultMatrix, SimClock, SimDisk};
use riverlog_engine::{
    Append, Compression, Filter, PurgeRequest, Seq, Store, StoreOptions, Stream, StreamConfig,
};
use support::DIR;

const START_NS: i64 = 1_700_000_000_000_000_000;
const SECRET: &[u8] = b"the secret that must not stay on any disk";
const SOON: Duration = Duration::ZERO;

fn open(disk: &SimDisk, clock: &SimClock) -> Store {
    let env = Env::simulated(disk, clock, 1);
    let (store, _) = Store::open_in(env, Path::new(DIR), support::options()).expect("a store");
    store
}

fn fixture() -> (SimDisk, SimClock, Store) {
    let (disk, clock) = (SimDisk::new(1), SimClock::new(START_NS));
    let store = open(&disk, &clock);
    (disk, clock, store)
}

/// Messages stand in the files as they are, so that they can be found there.
fn config(name: &str) -> StreamConfig {
    StreamConfig {
        name: name.into(),
        compression: Compression::None,
        ..StreamConfig::default()
    }
}

fn append(stream: &Stream, payload: &[u8]) -> Seq {
    let append = Append {
        subject: b"s",
        payload,
        ..Append::default()
    };
    stream.append(&append).expect("stored").seq
}

/// Files that hold the secret.
fn leaks(disk: &SimDisk) -> Vec<String> {
    let holds = |path: &String| {
        let bytes = disk.read_file(path).unwrap_or_default();
        bytes.windows(SECRET.len()).any(|window| window == SECRET)
    };
    let files = disk.files().into_iter().map(|(path, _)| path);
    files.filter(holds).collect()
}

fn payloads(stream: &Stream) -> Vec<Vec<u8>> {
    let messages = stream.messages(&[], Seq(1)..=Seq(u64::MAX));
    let payload = |message: Result<riverlog_engine::Message, _>| {
        message.expect("readable").payload().to_vec()
    };
    messages.map(payload).collect()
}

#[test]
fn a_sealed_message_leaves_every_file() {
    let (disk, clock, store) = fixture();
    let (stream, _) = store.create_stream(config("S")).expect("a stream");
    let (other, _) = store.create_stream(config("T")).expect("a stream");
    append(&stream, b"before");
    let seq = append(&stream, SECRET);
    append(&stream, b"behind");
    append(&other, b"other");
    store.checkpoint().expect("sealed");
    append(&stream, b"fresh");
    assert_eq!(leaks(&disk).len(), 2, "in the log and a sealed file");
    let erasure = stream
        .erase(seq, SOON)
        .expect("logged")
        .expect("it is live");
    assert_eq!(stream.get(seq).expect("readable"), None);
    assert!(!erasure.is_complete());
    assert!(erasure.wait(SOON));
    assert_eq!(leaks(&disk), Vec::<String>::new());
    let survivor = disk.kill_process();
    drop(store);
    let store = open(&survivor, &clock);
    assert_eq!(leaks(&survivor), Vec::<String>::new());
    let stream = store.stream("S").expect("it is there");
    assert_eq!(payloads(&stream), [&b"before"[..], b"behind", b"fresh"]);
    assert_eq!(
        payloads(&store.stream("T").expect("it is there")),
        [b"other"]
    );
}

#[test]
fn a_message_that_is_only_in_the_log_leaves_it() {
    let (disk, _, store) = fixture();
    let (stream, _) = store.create_stream(config("S")).expect("a stream");
    let seq = append(&stream, SECRET);
    append(&stream, b"kept");
    let erasure = stream
        .erase(seq, SOON)
        .expect("logged")
        .expect("it is live");
    assert!(erasure.wait(SOON));
    assert_eq!(leaks(&disk), Vec::<String>::new());
    assert_eq!(payloads(&stream), [b"kept"]);
}

/// Files of the log that are kept for reuse hold what they held.
#[test]
fn recycled_files_of_the_log_are_no_hiding_place() {
    let (disk, _, store) = fixture();
    let (stream, _) = store.create_stream(config("S")).expect("a stream");
    let seq = append(&stream, SECRET);
    for round in 0..6 {
        for _ in 0..9 {
            append(&stream, &[round; 5_000]);
        }
        store.checkpoint().expect("sealed");
    }
    let erasure = stream
        .erase(seq, SOON)
        .expect("logged")
        .expect("it is live");
    assert!(erasure.wait(SOON));
    assert_eq!(leaks(&disk), Vec::<String>::new());
    assert_eq!(stream.state().msgs, 54);
}

#[test]
fn an_erasure_waits_for_its_deadline_and_no_longer() {
    let (disk, clock, store) = fixture();
    let (stream, _) = store.create_stream(config("S")).expect("a stream");
    let first = append(&stream, SECRET);
    let second = append(&stream, SECRET);
    for n in 0..9 {
        append(&stream, &[n; 1_000]);
    }
    store.checkpoint().expect("sealed");
    let hour = Duration::from_secs(3_600);
    let first = stream
        .erase(first, hour)
        .expect("logged")
        .expect("it is live");
    clock.advance_ns(1_000_000_000_000);
    let second = stream
        .erase(second, hour)
        .expect("logged")
        .expect("it is live");
    for _ in 0..10 {
        store.step().expect("upkeep");
    }
    assert!(!first.is_complete() && !leaks(&disk).is_empty());
    clock.set_ns(first.deadline().0 - 1_000_000_000);
    for _ in 0..10 {
        store.step().expect("upkeep");
    }
    assert!(first.is_complete() && !second.is_complete());
    // It was in the same files.
    assert_eq!(leaks(&disk), Vec::<String>::new());
    clock.set_ns(second.deadline().0 - 1_000_000_000);
    for _ in 0..10 {
        store.step().expect("upkeep");
    }
    assert!(second.is_complete());
}

#[test]
fn a_restart_goes_on_with_an_erasure() {
    for sealed in [false, true] {
        let (disk, clock, store) = fixture();
        let (stream, _) = store.create_stream(config("S")).expect("a stream");
        let seq = append(&stream, SECRET);
        append(&stream, b"kept");
        store.checkpoint().expect("sealed");
        let hour = Duration::from_secs(3_600);
        let erasure = stream
            .erase(seq, hour)
            .expect("logged")
            .expect("it is live");
        store.commit();
        if sealed {
            store.checkpoint().expect("sealed");
        }
        let survivor = disk.kill_process();
        drop((erasure, stream, store));
        let store = open(&survivor, &clock);
        assert!(!leaks(&survivor).is_empty());
        clock.advance_ns(3_600_000_000_000);
        for _ in 0..10 {
            store.step().expect("upkeep");
        }
        assert_eq!(leaks(&survivor), Vec::<String>::new(), "sealed: {sealed}");
        assert_eq!(
            payloads(&store.stream("S").expect("it is there")),
            [b"kept"]
        );
    }
}

#[test]
fn what_is_not_there_cannot_be_erased() {
    let (_, _, store) = fixture();
    let (stream, _) = store.create_stream(config("S")).expect("a stream");
    let seq = append(&stream, b"payload");
    assert!(stream.erase(Seq(2), SOON).expect("no error").is_none());
    stream.delete(seq).expect("deleted");
    assert!(stream.erase(seq, SOON).expect("no error").is_none());
}

#[test]
fn background_threads_complete_an_erasure() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(dir.path(), StoreOptions::default()).expect("a store");
    let (stream, _) = store.create_stream(config("S")).expect("a stream");
    let seq = append(&stream, SECRET);
    append(&stream, b"kept");
    let erasure = stream
        .erase(seq, SOON)
        .expect("logged")
        .expect("it is live");
    assert!(erasure.wait(Duration::from_secs(60)));
    let mut files = 0;
    for sub in ["wal", "seg", "meta", "idx"] {
        for entry in std::fs::read_dir(dir.path().join(sub)).expect("a directory") {
            let bytes = std::fs::read(entry.expect("an entry").path()).expect("readable");
            assert!(
                !bytes.windows(SECRET.len()).any(|window| window == SECRET),
                "in {sub}"
            );
            files += 1;
        }
    }
    assert!(files >= 3);
    assert_eq!(payloads(&stream), [b"kept"]);
}

/// What a run was told.
struct Told {
    appended: usize,
    erase_durable: bool,
    complete: bool,
}

fn script(disk: &SimDisk) -> Option<Told> {
    let env = Env::simulated(disk, &SimClock::new(START_NS), 1);
    let (store, _) = Store::open_in(env, Path::new(DIR), support::options()).ok()?;
    let (stream, ticket) = store.create_stream(config("S")).ok()?;
    store.commit();
    if store.durable_lsn() < ticket.lsn() {
        return None;
    }
    let mut told = Told {
        appended: 0,
        erase_durable: false,
        complete: false,
    };
    for n in 0..6_usize {
        let kept = format!("kept {n}").into_bytes();
        let append = Append {
            subject: b"s",
            payload: if n == 2 { SECRET } else { &kept },
            ..Append::default()
        };
        if stream.append(&append).is_err() {
            return Some(told);
        }
        told.appended = n + 1;
        if n == 3 {
            let _ = store.checkpoint();
        }
    }
    if let Ok(Some(erasure)) = stream.erase(Seq(3), SOON) {
        store.commit();
        told.erase_durable = store.durable_lsn() >= erasure.lsn();
        for _ in 0..20 {
            let _ = store.step();
        }
        told.complete = erasure.is_complete();
    }
    Some(told)
}

fn check(disk: &SimDisk, told: &Option<Told>) -> Result<(), String> {
    if told.as_ref().is_some_and(|told| told.complete) && !leaks(disk).is_empty() {
        return Err(format!("complete, but in {:?}", leaks(disk)));
    }
    let clock = SimClock::new(START_NS + 1_000_000_000_000);
    let env = Env::simulated(disk, &clock, 2);
    let (store, _) = Store::open_in(env, Path::new(DIR), support::options())
        .map_err(|error| error.to_string())?;
    let Some(told) = told else { return Ok(()) };
    let stream = store.stream("S").ok_or("the stream is gone")?;
    for n in 0..told.appended {
        let seq = Seq(n as u64 + 1);
        let found = stream.get(seq).map_err(|error| error.to_string())?;
        let expected = format!("kept {n}").into_bytes();
        match found {
            None if n == 2 => {}
            Some(_) if n == 2 && !told.erase_durable => {}
            Some(message) if n != 2 && message.payload() == expected => {}
            found => return Err(format!("{seq} is {found:?}")),
        }
    }
    if told.erase_durable {
        for _ in 0..30 {
            store.step().map_err(|error| error.to_string())?;
        }
        if !leaks(disk).is_empty() {
            return Err(format!("after a restart it is in {:?}", leaks(disk)));
        }
    }
    stream
        .purge(&PurgeRequest::default())
        .map_err(|error| error.to_string())?;
    let left = stream.num_pending(&[Filter::all()], Seq(1));
    match left {
        Ok(0) => Ok(()),
        left => Err(format!("{left:?} left")),
    }
}

#[test]
fn the_power_goes_anywhere() {
    let report = CrashMatrix::new(5)
        .random_outcomes(3)
        .run(script, |survivor, told, _| check(&survivor, told))
        .unwrap_or_else(|failure| panic!("{failure}"));
    assert!(report.points > 60, "{report:?}");
}

#[test]
fn any_call_fails() {
    let faults = [
        Fault::ReadError,
        Fault::WriteError,
        Fault::NoSpace,
        Fault::SyncError,
        Fault::NameError,
    ];
    let runs = FaultMatrix::new(6)
        .run(&faults, script, |disk, told, _| check(&disk, told))
        .unwrap_or_else(|failure| panic!("{failure}"));
    assert!(runs > 100, "{runs}");
}
