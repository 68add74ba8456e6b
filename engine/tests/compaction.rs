//! Compaction gives space back and changes nothing else: no message is lost or comes back, readers
//! never notice, the bound on dead data holds, and an idle store writes nothing.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use riverlog_engine::io::Env;
use riverlog_engine::io::sim::{Fault, OpKind, SimClock, SimDisk, Trigger};
use riverlog_engine::{
    Append, Compression, Filter, PurgeRequest, Seq, Store, StoreOptions, Stream, StreamConfig,
};
use support::{Action, DIR, Halt, Pair, config};

const START_NS: i64 = 1_700_000_000_000_000_000;

struct Fixture {
    disk: SimDisk,
    clock: SimClock,
    store: Store,
}

fn open(options: StoreOptions) -> Fixture {
    let (disk, clock) = (SimDisk::new(1), SimClock::new(START_NS));
    let env = Env::simulated(&disk, &clock, 1);
    let (store, _) = Store::open_in(env, Path::new(DIR), options).expect("a store");
    Fixture { disk, clock, store }
}

impl Fixture {
    fn stream(&self, config: StreamConfig) -> Stream {
        let (stream, _) = self.store.create_stream(config).expect("a stream");
        stream
    }

    fn sealed_files(&self) -> Vec<String> {
        let files = self.disk.files().into_iter().map(|(path, _)| path);
        files.filter(|path| path.ends_with(".seg")).collect()
    }

    fn index_files(&self) -> usize {
        let files = self.disk.files();
        files
            .iter()
            .filter(|(path, _)| path.ends_with(".idx"))
            .count()
    }

    fn sealed_bytes(&self) -> u64 {
        let files = self.disk.files();
        let sealed = files.iter().filter(|(path, _)| path.ends_with(".seg"));
        sealed.map(|(_, len)| *len).sum()
    }
}

fn named(name: &str) -> StreamConfig {
    StreamConfig {
        name: name.into(),
        ..StreamConfig::default()
    }
}

fn append(stream: &Stream, subject: &str, payload: &[u8]) -> Seq {
    let append = Append {
        subject: subject.as_bytes(),
        payload,
        ..Append::default()
    };
    stream.append(&append).expect("stored").seq
}

fn get(stream: &Stream, seq: Seq) -> Option<Vec<u8>> {
    let message = stream.get(seq).expect("readable");
    message.map(|message| message.payload().to_vec())
}

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

#[test]
fn a_purge_of_an_idle_stream_removes_its_files() {
    let fixture = open(support::options());
    let stream = fixture.stream(named("S"));
    for n in 0..50 {
        append(&stream, "s", &[n; 300]);
    }
    fixture.store.checkpoint().expect("sealed");
    assert_eq!(
        (fixture.sealed_files().len(), fixture.index_files()),
        (1, 1)
    );
    stream.purge(&PurgeRequest::default()).expect("purged");
    fixture.store.step().expect("upkeep");
    assert_eq!(
        (fixture.sealed_files().len(), fixture.index_files()),
        (0, 0)
    );
    assert_eq!(fixture.store.space().files_dead, 1);
}

#[test]
fn the_files_of_a_deleted_stream_are_removed_and_stay_so() {
    let fixture = open(support::options());
    for name in ["A", "B"] {
        append(&fixture.stream(named(name)), "s", b"payload");
        fixture.store.checkpoint().expect("sealed");
    }
    fixture.store.delete_stream("A").expect("deleted");
    fixture.store.step().expect("upkeep");
    assert_eq!(fixture.sealed_files().len(), 1);
    // The deletion is in the log only.
    let disk = fixture.disk.kill_process();
    let env = Env::simulated(&disk, &fixture.clock, 2);
    let (store, _) = Store::open_in(env, Path::new(DIR), support::options()).expect("a store");
    assert!(store.stream("A").is_none());
    let stream = store.stream("B").expect("it is there");
    assert_eq!(get(&stream, Seq(1)), Some(b"payload".to_vec()));
}

/// What is dead in a file shared with others goes as well, also after a restart that has seen
/// nothing of the streams that are gone.
#[test]
fn space_of_deleted_streams_in_shared_files_comes_back() {
    for restart in [false, true] {
        let mut fixture = open(support::options());
        for n in 0..20 {
            let stream = fixture.stream(named(&format!("S{n}")));
            append(&stream, "s", &[n; 2_000]);
        }
        fixture.store.checkpoint().expect("sealed");
        let before = fixture.sealed_bytes();
        for n in 1..20 {
            fixture
                .store
                .delete_stream(&format!("S{n}"))
                .expect("deleted");
        }
        if restart {
            fixture.store.checkpoint().expect("forgotten");
            let Fixture { disk, clock, store } = fixture;
            drop(store);
            let env = Env::simulated(&disk, &clock, 2);
            let opened = Store::open_in(env, Path::new(DIR), support::options());
            let (store, _) = opened.expect("a store");
            fixture = Fixture { disk, clock, store };
        }
        fixture.store.compact().expect("compacted");
        let after = fixture.sealed_bytes();
        assert!(
            after < before / 2,
            "{after} bytes of {before}, restart: {restart}"
        );
        let stream = fixture.store.stream("S0").expect("it is there");
        assert_eq!(get(&stream, Seq(1)), Some(vec![0; 2_000]));
    }
}

/// ENGINE bound: what is sealed is at most one and a half times what is live, and a constant.
#[test]
fn random_overwrites_keep_the_space_bound() {
    for compression in [Compression::None, Compression::S2] {
        let mut options = support::options();
        options.compaction.slack_bytes = 4 * 1024;
        let fixture = open(options);
        let stream = fixture.stream(StreamConfig {
            msgs_per_subject_max: Some(1),
            compression,
            ..named("S")
        });
        let mut rng = Rng(7);
        let keys = 200;
        let mut newest = vec![None; keys];
        for round in 0..40_u64 {
            for _ in 0..100 {
                let key = rng.below(keys as u64) as usize;
                let len = 20 + rng.below(400) as usize;
                let payload: Vec<u8> = (0..len).map(|_| rng.below(256) as u8).collect();
                append(&stream, &format!("k.{key}"), &payload);
                newest[key] = Some(payload);
            }
            fixture.store.checkpoint().expect("sealed");
            fixture.store.compact().expect("compacted");
            let live: u64 = newest.iter().flatten().map(|p| p.len() as u64 + 40).sum();
            let sealed = fixture.sealed_bytes();
            // Each file has a few pages besides its data.
            let files = fixture.sealed_files().len() as u64;
            let bound = live * 3 / 2 + 4 * 1024 + files * 16 * 1024;
            assert!(
                sealed <= bound,
                "round {round}: {sealed} bytes, {live} live"
            );
            assert!(files <= 24, "round {round}: {files} files");
        }
        for (key, payload) in newest.iter().enumerate() {
            let filter = Filter::new(format!("k.{key}").as_bytes()).expect("a filter");
            let last = stream.last_by_subject(&filter).expect("readable");
            assert_eq!(last.map(|message| message.payload().to_vec()), *payload);
        }
        let space = fixture.store.space();
        assert!(space.compactions > 0, "{space:?}");
        // At most two bytes rewritten for each one freed, and the merges of small files.
        assert!(
            space.compaction_bytes_written < 20 * 40 * 100 * 300,
            "{space:?}"
        );
    }
}

#[test]
fn many_small_streams_end_up_in_a_handful_of_files() {
    let mut options = support::options();
    options.wal.file_bytes = 1 << 20;
    options.compaction.output_bytes_max = 1 << 20;
    let fixture = open(options);
    let streams: Vec<Stream> = (0..150)
        .map(|n| fixture.stream(named(&format!("S{n}"))))
        .collect();
    for round in 0..40_u8 {
        for stream in &streams {
            let append = Append {
                subject: b"s",
                payload: &[round; 40],
                ..Append::default()
            };
            stream.append_nosync(&append).expect("stored");
        }
        fixture.store.checkpoint().expect("sealed");
        fixture.store.compact().expect("compacted");
        let files = fixture.sealed_files().len();
        assert!(files < 20, "round {round}: {files} files");
        assert_eq!(fixture.index_files(), files);
    }
    for stream in &streams {
        for round in 0..40_u8 {
            let seq = Seq(u64::from(round) + 1);
            assert_eq!(get(stream, seq), Some(vec![round; 40]));
        }
        assert_eq!(
            stream
                .num_pending(&[Filter::all()], Seq(1))
                .expect("counted"),
            40
        );
    }
}

#[test]
fn an_idle_store_writes_nothing() {
    let fixture = open(support::options());
    let stream = fixture.stream(named("S"));
    for n in 0..200_u8 {
        append(&stream, &format!("k.{}", n % 7), &[n; 100]);
        if n % 10 == 0 {
            fixture.store.checkpoint().expect("sealed");
        }
    }
    for seq in (1..150).step_by(2) {
        stream.delete(Seq(seq)).expect("deleted");
    }
    fixture.store.checkpoint().expect("sealed");
    for _ in 0..100 {
        fixture.store.step().expect("upkeep");
        fixture.clock.advance_ns(1_000_000_000);
    }
    assert!(fixture.store.space().compactions > 0);
    let before = fixture.disk.ops();
    for _ in 0..100 {
        fixture.store.step().expect("upkeep");
        fixture.clock.advance_ns(10_000_000_000);
    }
    fixture.store.compact().expect("nothing is due");
    let changes = fixture.disk.log();
    let changes: Vec<_> = changes
        .iter()
        .filter(|op| op.number > before && op.kind.changes_disk())
        .collect();
    assert!(changes.is_empty(), "{changes:?}");
}

/// One step of upkeep reads a bounded amount; the rate decides when the next one runs.
#[test]
fn compaction_keeps_to_its_rate() {
    let mut options = support::options();
    options.wal.file_bytes = 4 << 20;
    options.tail_bytes_max = 64 << 20;
    options.compaction.bytes_per_second_max = 1 << 20;
    options.compaction.output_bytes_max = 64 << 20;
    let fixture = open(options);
    let stream = fixture.stream(StreamConfig {
        compression: Compression::None,
        ..named("S")
    });
    // 12 MiB, of which two thirds are dead.
    for n in 0..1_200_u64 {
        append(&stream, "s", &[n as u8; 10_000]);
        if n % 400 == 399 {
            fixture.store.checkpoint().expect("sealed");
        }
    }
    for seq in (1..=1_200).filter(|seq| seq % 3 != 0) {
        stream.delete(Seq(seq)).expect("deleted");
    }
    let mut seconds = 0;
    while fixture.store.space().compactions == 0 {
        for _ in 0..20 {
            fixture.store.step().expect("upkeep");
        }
        fixture.clock.advance_ns(1_000_000_000);
        seconds += 1;
        let space = fixture.store.space();
        let used = space.compaction_bytes_read + space.compaction_bytes_written;
        let allowed = (seconds + 1) * (1 << 20) + (9 << 20);
        assert!(used <= allowed, "{used} bytes in {seconds} s");
        assert!(seconds < 60);
    }
    assert!(seconds > 5, "{seconds} s");
}

/// Compaction never runs into what the log needs: with too little free space nothing is begun.
#[test]
fn without_space_for_the_result_nothing_is_begun() {
    let fixture = open(support::options());
    let stream = fixture.stream(named("S"));
    let mut rng = Rng(3);
    for _ in 0..60 {
        let payload: Vec<u8> = (0..1_000).map(|_| rng.below(256) as u8).collect();
        append(&stream, "s", &payload);
    }
    fixture.store.checkpoint().expect("sealed");
    for seq in 1..=40 {
        stream.delete(Seq(seq)).expect("deleted");
    }
    fixture.store.commit();
    let used: u64 = fixture
        .disk
        .files()
        .iter()
        .map(|(_, len)| len.next_multiple_of(4096))
        .sum();
    fixture.disk.set_capacity(used + 64 * 1024);
    fixture.store.compact().expect("no error");
    assert_eq!(fixture.store.space().compactions, 0);
    append(&stream, "s", b"appends go on");
    fixture.disk.set_capacity(used + 1024 * 1024);
    fixture.store.compact().expect("compacted");
    assert_eq!(fixture.store.space().compactions, 1);
    assert_eq!(stream.state().msgs, 21);
}

/// A file with a damaged block stays: what is lost in it is reported with its exact range.
#[test]
fn a_damaged_file_is_left_alone() {
    let mut options = support::options();
    // All messages are in one file.
    options.tail_bytes_max = 256 << 10;
    let fixture = open(options);
    let stream = fixture.stream(StreamConfig {
        compression: Compression::None,
        ..named("S")
    });
    for n in 0..20_u8 {
        append(&stream, "s", &[n; 5_000]);
    }
    fixture.store.checkpoint().expect("sealed");
    let file = fixture.sealed_files().remove(0);
    fixture
        .disk
        .corrupt(&file, 70_000, 8)
        .expect("inside the file");
    for seq in 1..=12 {
        let _ = stream.delete(Seq(seq));
    }
    let lost = |stream: &Stream| -> Vec<u64> {
        let live = 1..=20;
        live.filter(|seq| stream.get(Seq(*seq)).is_err()).collect()
    };
    let before = lost(&stream);
    assert_eq!(before.len(), 1, "{before:?}");
    for _ in 0..5 {
        fixture.store.compact().expect("no error");
        fixture.store.step().expect("upkeep");
    }
    assert_eq!(fixture.sealed_files(), vec![file]);
    assert_eq!(fixture.store.space().compactions, 0);
    assert_eq!(lost(&stream), before);
}

/// A read that fails gives the job up and tries again later; no file is left behind.
#[test]
fn a_failed_job_leaves_nothing_behind() {
    let fixture = open(support::options());
    let stream = fixture.stream(named("S"));
    for n in 0..40_u8 {
        append(&stream, "s", &[n; 1_000]);
    }
    fixture.store.checkpoint().expect("sealed");
    for seq in 1..=30 {
        stream.delete(Seq(seq)).expect("deleted");
    }
    let before = fixture.sealed_files();
    for fault in [
        Fault::ReadError,
        Fault::WriteError,
        Fault::NoSpace,
        Fault::SyncError,
    ] {
        fixture.disk.inject_on("seg/", fault, Trigger::Always);
        assert!(fixture.store.compact().is_err(), "{fault:?}");
        fixture.store.step().expect("only a warning");
        fixture.disk.clear_faults();
        assert_eq!(fixture.sealed_files(), before, "{fault:?}");
        assert_eq!(stream.state().msgs, 10);
        // Not at once: whatever failed may need time.
        fixture.store.step().expect("upkeep");
        assert_eq!(fixture.sealed_files(), before, "{fault:?}");
    }
    fixture.clock.advance_ns(60_000_000_000);
    for _ in 0..5 {
        fixture.store.step().expect("upkeep");
    }
    assert_eq!(fixture.store.space().compactions, 1);
    assert_ne!(fixture.sealed_files(), before);
}

/// Deletes, rolls, compactions and restarts in every order: the model agrees.
#[test]
fn orders_of_delete_roll_compact_and_crash() {
    let step = |n: u64| match n {
        0 => vec![Action::Delete(1), Action::Delete(5), Action::Commit],
        1 => vec![Action::Checkpoint],
        2 => vec![Action::Compact],
        3 => vec![Action::PurgeSubject(1)],
        _ => (0..6)
            .map(|n| Action::Append {
                subject: n % 3,
                len: 60,
                id: None,
            })
            .collect(),
    };
    for order in 0..5_u64.pow(4) {
        let disk = SimDisk::new(order);
        let env = Env::simulated(&disk, &SimClock::new(START_NS), 1);
        let mut pair = Pair::create(&env, config((order % 2) as u8)).expect("a store");
        let mut actions = step(4);
        actions.extend(step(1));
        let mut rest = order;
        for _ in 0..4 {
            actions.extend(step(rest % 5));
            rest /= 5;
        }
        for action in actions {
            match pair.act(&action) {
                Ok(()) => {}
                Err(Halt::Differs(what)) => panic!("order {order}, {action:?}: {what}"),
                Err(halt) => panic!("order {order}, {action:?}: {halt:?}"),
            }
        }
        let acknowledged = pair.acknowledged();
        if let Err(what) = pair.compare() {
            panic!("order {order}: {what:?}");
        }
        let history = std::mem::take(&mut pair.history);
        let survivor = disk.kill_process();
        let env = Env::simulated(&survivor, &SimClock::new(START_NS + 1), 2);
        if let Err(what) = support::reopen(&env, &history, acknowledged) {
            panic!("order {order}: {what}");
        }
    }
}

/// Readers, a writer that overwrites, and compaction at the same time: what is read is whole.
#[test]
fn readers_never_notice_a_compaction() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = StoreOptions::default();
    options.wal.file_bytes = 1 << 20;
    options.tail_bytes_max = 256 * 1024;
    options.cache_bytes_max = 64 * 1024;
    options.compaction.small_file_bytes = 64 * 1024;
    options.compaction.output_bytes_max = 256 * 1024;
    options.compaction.slack_bytes = 0;
    let (store, _) = Store::open(dir.path(), options).expect("a store");
    let config = StreamConfig {
        msgs_per_subject_max: Some(1),
        ..named("S")
    };
    let keys = 2_000;
    let (stream, _) = store.create_stream(config).expect("a stream");
    let stop = Arc::new(AtomicBool::new(false));
    let payload = |key: u64| format!("{key:04}").repeat(40).into_bytes();
    let readers: Vec<_> = (0..2_u64)
        .map(|n| {
            let (stream, stop) = (stream.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut rng = Rng(n);
                let mut found = 0_u64;
                while !stop.load(Ordering::Acquire) {
                    let key = rng.below(keys);
                    let subject = format!("k.{key}");
                    let filter = Filter::new(subject.as_bytes()).expect("a filter");
                    let last = stream.last_by_subject(&filter).expect("readable");
                    if let Some(message) = last {
                        assert_eq!(message.payload(), payload(key));
                        found += 1;
                    }
                    let pending = stream.num_pending(std::slice::from_ref(&filter), Seq(1));
                    assert!(pending.expect("counted") <= 1);
                    for message in stream.messages(&[filter], Seq(1)..=Seq(u64::MAX)) {
                        let message = message.expect("readable");
                        assert_eq!(message.payload(), payload(key));
                    }
                }
                found
            })
        })
        .collect();
    let mut rng = Rng(99);
    let mut written = 0_u64;
    // Each compaction takes some thousand messages.
    while store.space().compactions < 4 && written < 400_000 {
        for _ in 0..500 {
            let key = match written {
                first if first < keys => first,
                _ => rng.below(keys),
            };
            let subject = format!("k.{key}");
            let append = Append {
                subject: subject.as_bytes(),
                payload: &payload(key),
                ..Append::default()
            };
            while stream.append_nosync(&append).is_err() {
                store.wait_room();
            }
            written += 1;
        }
        store.barrier().wait().expect("durable");
    }
    stop.store(true, Ordering::Release);
    for reader in readers {
        assert!(reader.join().expect("no reader failed") > 0);
    }
    let space = store.space();
    assert!(space.compactions >= 4, "{space:?}");
    let subjects = stream.subjects(&Filter::all()).expect("readable");
    assert_eq!(subjects.len() as u64, keys);
    assert!(subjects.values().all(|count| *count == 1), "{subjects:?}");
}

/// A file that compaction wrote has its index at once, made from those of the files it replaces: the
/// new file is not read for it. Where one of these is missing the new file is.
#[test]
fn the_index_of_a_compacted_file_comes_from_those_it_replaces() {
    for is_missing in [false, true] {
        let mut options = support::options();
        options.wal.file_bytes = 1 << 20;
        options.compaction.output_bytes_max = 1 << 20;
        // No merged run answers in its place.
        options.index_merge_parts = 100;
        let fixture = open(options.clone());
        let (one, two) = (fixture.stream(named("A")), fixture.stream(named("B")));
        for round in 0..3 {
            for n in 0..40 {
                append(&one, &format!("a.{}", n % 9), &[round; 100]);
                append(&two, &format!("b.{n}.{round}"), &[round; 100]);
            }
            fixture.store.checkpoint().expect("sealed");
        }
        for seq in (1..=120).filter(|seq| seq % 3 != 0) {
            one.delete(Seq(seq)).expect("deleted");
            two.delete(Seq(seq)).expect("deleted");
        }
        if is_missing {
            let indexes = fixture.disk.files().into_iter().map(|(path, _)| path);
            let index = indexes.filter(|path| path.ends_with(".idx")).min();
            let env = Env::simulated(&fixture.disk, &fixture.clock, 3);
            let index = index.expect("an index");
            env.io.remove(Path::new(&index)).expect("removed");
        }
        let before = fixture.disk.ops();
        fixture.store.compact().expect("compacted");
        assert!(fixture.store.space().compactions > 0);
        let new: Vec<String> = fixture.sealed_files();
        assert_eq!(fixture.index_files(), new.len());
        let log = fixture.disk.log();
        let reads = log.iter().filter(|op| {
            let is_new = new.iter().any(|path| **path == *op.path);
            op.number > before && is_new && op.kind == OpKind::Read
        });
        assert_eq!(reads.count() > 0, is_missing);

        for (stream, filter, expected) in [(&one, "a.2", 5), (&two, "b.*.1", 13), (&two, ">", 40)] {
            let filter = Filter::new(filter.as_bytes()).expect("a filter");
            let found = stream.num_pending(&[filter], Seq(0)).expect("counted");
            assert_eq!(found, expected, "{is_missing}");
        }
        // A check compares the index with the file, message by message.
        drop((one, two));
        let Fixture { disk, clock, store } = fixture;
        drop(store);
        let env = Env::simulated(&disk, &clock, 2);
        let report = Store::verify_in(&env, Path::new(DIR), &options).expect("verified");
        assert!(report.findings.is_empty(), "{:?}", report.findings);
    }
}
