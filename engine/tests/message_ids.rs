//! A message id is stored once within its window, whatever becomes of the message, of the store's
//! files and of the process.

use std::path::Path;

use riverlog_engine::consumer::{AckPolicy, ConsumerConfig};
use riverlog_engine::io::sim::{Persist, SimClock, SimDisk};
use riverlog_engine::io::{Env, OpenMode};
use riverlog_engine::{
    Append, AppendError, Appended, Discard, Next, PurgeRequest, ReadError, Retention, Seq, Storage,
    Store, StoreOptions, Stream, StreamConfig, Threads, TimestampNs,
};

const SECOND_NS: u64 = 1_000_000_000;
const START_NS: i64 = 1_700_000_000_000_000_000;
const DIR: &str = "/data";

struct World {
    disk: SimDisk,
    clock: SimClock,
    store: Store,
    stream: Stream,
}

fn options() -> StoreOptions {
    let mut options = StoreOptions::default();
    options.threads = Threads::Manual;
    options
}

fn config() -> StreamConfig {
    StreamConfig {
        name: "S".into(),
        dedup_window_ns: 60 * SECOND_NS,
        ..StreamConfig::default()
    }
}

fn open(disk: &SimDisk, clock: &SimClock) -> Store {
    let env = Env::simulated(disk, clock, 5);
    let (store, _) = Store::open_in(env, Path::new(DIR), options()).expect("opens");
    store
}

impl World {
    fn new(config: StreamConfig) -> World {
        let (disk, clock) = (SimDisk::new(1), SimClock::new(START_NS));
        let store = open(&disk, &clock);
        let (stream, _) = store.create_stream(config).expect("created");
        World {
            disk,
            clock,
            store,
            stream,
        }
    }

    fn publish(&self, id: &str) -> Result<Appended, AppendError> {
        let done = self.stream.append_nosync(&append(id));
        self.store.commit();
        done
    }

    #[track_caller]
    fn stored(&self, id: &str) -> u64 {
        let done = self.publish(id).expect("accepted");
        assert!(!done.duplicate, "{id} is a duplicate of {}", done.seq);
        done.seq.0
    }

    #[track_caller]
    fn duplicate(&self, id: &str, seq: u64) {
        let done = self.publish(id).expect("answered");
        assert_eq!((done.duplicate, done.seq.0), (true, seq), "{id}");
    }

    fn checkpoint(&self) {
        self.store.checkpoint().expect("a checkpoint");
    }

    fn pass(&self, seconds: u64) {
        self.clock
            .advance_ns(i64::try_from(seconds * SECOND_NS).expect("small"));
    }

    fn id_files(&self) -> Vec<String> {
        let files = self.disk.files().into_iter().map(|(path, _)| path);
        files.filter(|path| path.contains("/ids/")).collect()
    }

    fn restart(self, clean: bool) -> World {
        let disk = match clean {
            true => {
                self.store.close();
                self.disk.kill_process()
            }
            false => self.disk.crash(Persist::Nothing),
        };
        let store = open(&disk, &self.clock);
        let stream = store.stream("S").expect("the stream");
        World {
            disk,
            clock: self.clock.clone(),
            store,
            stream,
        }
    }
}

fn append(id: &str) -> Append<'_> {
    Append {
        subject: b"s.a",
        payload: b"x",
        msg_id: Some(id.as_bytes()),
        ..Append::default()
    }
}

/// T-28: an expectation is checked before the id.
#[test]
fn expectations_come_before_duplicates() {
    for checkpoint in [false, true] {
        let world = World::new(config());
        world.stored("a");
        if checkpoint {
            world.checkpoint();
        }
        let refused = world.stream.append_nosync(&Append {
            expect_last_seq: Some(0),
            ..append("a")
        });
        assert!(
            matches!(refused, Err(AppendError::WrongLastSeq(1))),
            "{refused:?}"
        );
        world.duplicate("a", 1);
    }
}

/// T-29, and further: deleted, purged, evicted and acknowledged messages leave their ids, also over a
/// checkpoint, a restart and a power cut.
#[test]
fn an_id_outlives_its_message_and_the_process() {
    for (checkpoint, clean) in [(false, true), (false, false), (true, true), (true, false)] {
        let mut world = World::new(StreamConfig {
            msgs_max: Some(3),
            retention: Retention::WorkQueue,
            ..config()
        });
        let ids = [
            "deleted",
            "acknowledged",
            "purged",
            "evicted",
            "b",
            "c",
            "d",
        ];
        world.stored(ids[0]);
        world.stream.delete(Seq(1)).expect("deleted");
        world.stored(ids[1]);
        let (consumer, _) = world
            .stream
            .create_consumer(ConsumerConfig {
                name: "C".into(),
                durable: true,
                ack: AckPolicy::Explicit,
                ..ConsumerConfig::default()
            })
            .expect("a consumer");
        world.store.commit();
        let now = TimestampNs(START_NS);
        let next = consumer.next(now, &mut |_| true).expect("read");
        assert!(matches!(next, Next::Message(_)));
        consumer.ack(Seq(2), now).expect("acknowledged");
        world.stored(ids[2]);
        world
            .stream
            .purge(&PurgeRequest::default())
            .expect("purged");
        assert_eq!(world.stream.state().msgs, 0);
        for id in &ids[3..] {
            world.stored(id);
        }
        if checkpoint {
            world.checkpoint();
            assert_eq!(world.id_files().len(), 1);
        }
        world = world.restart(clean);
        for (at, id) in ids.iter().enumerate() {
            world.duplicate(id, at as u64 + 1);
        }
        world = world.restart(clean);
        for (at, id) in ids.iter().enumerate() {
            world.duplicate(id, at as u64 + 1);
        }
        world.pass(60);
        assert_eq!(world.stored("deleted"), 8, "the window has passed");
    }
}

/// T-31: the last id is known after a restart whether or not its window has passed.
#[test]
fn the_last_id_is_known_after_a_restart() {
    let world = World::new(config());
    world.stored("a");
    world.checkpoint();
    let world = world.restart(false);
    let expecting = |id, last| Append {
        expect_last_msg_id: Some(last),
        ..append(id)
    };
    let wrong = world.stream.append_nosync(&expecting("b", b"other"));
    assert!(matches!(wrong, Err(AppendError::WrongLastMsgId(last)) if last == "a"));
    world
        .stream
        .append_nosync(&expecting("b", b"a"))
        .expect("accepted");
}

/// T-33: a message that nobody wants leaves at once, its id does not.
#[test]
fn the_id_of_a_message_without_interest_is_known() {
    let world = World::new(StreamConfig {
        retention: Retention::Interest,
        ..config()
    });
    assert_eq!(world.stored("a"), 1);
    assert_eq!(world.stream.state().msgs, 0);
    world.duplicate("a", 1);
    world.checkpoint();
    world.duplicate("a", 1);
}

/// T-34
#[test]
fn a_refused_message_does_not_use_its_id() {
    let world = World::new(StreamConfig {
        msgs_max: Some(1),
        discard: Discard::New,
        ..config()
    });
    world.stored("a");
    let refused = world.publish("b");
    assert!(
        matches!(refused, Err(AppendError::MsgsExceeded)),
        "{refused:?}"
    );
    world.checkpoint();
    world
        .stream
        .purge(&PurgeRequest::default())
        .expect("purged");
    assert_eq!(world.stored("b"), 2);
}

#[test]
fn streams_do_not_share_ids() {
    let world = World::new(config());
    let other = StreamConfig {
        name: "other".into(),
        ..config()
    };
    let (other, _) = world.store.create_stream(other).expect("created");
    for checkpoint in [false, true] {
        if checkpoint {
            world.checkpoint();
        }
        let id = format!("a{checkpoint}");
        let seq = world.stored(&id);
        let done = other.append_nosync(&append(&id)).expect("accepted");
        assert!(!done.duplicate);
        world.duplicate(&id, seq);
    }
    world.checkpoint();
    world.duplicate("afalse", 1);
    let again = other.append_nosync(&append("afalse")).expect("answered");
    assert!(again.duplicate);
}

#[test]
fn a_memory_stream_knows_its_ids_until_the_window_has_passed() {
    let world = World::new(StreamConfig {
        storage: Storage::Memory,
        ..config()
    });
    world.stored("a");
    world.checkpoint();
    world.duplicate("a", 1);
    assert!(world.id_files().is_empty());
    world.pass(60);
    assert_eq!(world.stored("a"), 2);
}

/// A window that was made shorter counts at once, and for what is in files as well; one that was made
/// longer keeps what is known for longer, and brings nothing back.
#[test]
fn windows_change_at_once() {
    for restart in [false, true] {
        let mut world = World::new(config());
        let window = |world: &World, seconds: u64| {
            let config = StreamConfig {
                dedup_window_ns: seconds * SECOND_NS,
                ..config()
            };
            world.stream.update_config(config).expect("updated");
            world.store.commit();
        };
        world.stored("old");
        world.checkpoint();
        world.pass(30);
        world.stored("new");
        world.checkpoint();
        world.pass(20);
        window(&world, 40);
        window(&world, 3_600);
        if restart {
            world = world.restart(false);
        }
        // 50 and 20 seconds old.
        world.duplicate("new", 2);
        assert_eq!(
            world.stored("old"),
            3,
            "expired with the window of 40 seconds"
        );
        world.pass(3_000);
        world.store.step().expect("upkeep");
        if restart {
            world = world.restart(false);
        }
        world.duplicate("new", 2);
        world.duplicate("old", 3);
        window(&world, 0);
        assert_eq!(world.stored("new"), 4, "no window, no duplicates");
        window(&world, 60);
        assert_eq!(world.stored("new"), 5, "it was not recorded");
        world.duplicate("new", 5);
    }
}

/// Files are merged eight to one, and go when everything in them has expired; nothing else is written
/// by an idle store.
#[test]
fn files_of_ids_are_few_and_temporary() {
    let world = World::new(config());
    for n in 0..100_u64 {
        world.stored(&format!("id {n}"));
        world.checkpoint();
        world.store.step().expect("upkeep");
        assert!(world.id_files().len() < 8, "{:?}", world.id_files());
        world.pass(1);
    }
    for n in 41..100 {
        world.duplicate(&format!("id {n}"), n + 1);
    }
    assert_eq!(world.stored("id 40"), 101, "60 seconds old");
    world.checkpoint();
    world.store.step().expect("upkeep");
    let changes = || {
        world
            .disk
            .log()
            .iter()
            .filter(|op| op.kind.changes_disk())
            .count()
    };
    let before = changes();
    world.pass(30);
    (0..3).for_each(|_| world.store.step().expect("upkeep"));
    assert_eq!(changes(), before, "an idle store writes nothing");
    world.pass(30);
    world.store.step().expect("upkeep");
    assert!(world.id_files().is_empty(), "{:?}", world.id_files());
    let before = changes();
    world.store.step().expect("upkeep");
    assert_eq!(changes(), before, "once");
    let world = world.restart(false);
    assert_eq!(world.stored("id 99"), 102);
}

/// A file that is named nowhere is removed at the next start.
#[test]
fn unfinished_files_are_removed() {
    let world = World::new(config());
    world.stored("a");
    world.checkpoint();
    let env = Env::simulated(&world.disk, &world.clock, 5);
    let orphan = Path::new("/data/ids/00000000000000ff.ids");
    env.io.open(orphan, OpenMode::CreateNew).expect("created");
    assert_eq!(world.id_files().len(), 2);
    let world = world.restart(true);
    assert_eq!(world.id_files().len(), 1);
    world.duplicate("a", 1);
}

/// An id whose page cannot be read is refused, naming the file, until the window has passed; what the
/// filter excludes is not affected, nor is a publish without an id.
#[test]
fn damaged_ids_are_refused_until_they_expire() {
    let world = World::new(config());
    for n in 0..50 {
        world.stored(&format!("id {n}"));
    }
    world.checkpoint();
    let file = world.id_files().remove(0);
    world
        .disk
        .corrupt(Path::new(&file), 64 + 500, 1)
        .expect("there");
    let world = world.restart(true);
    for n in 0..50 {
        match world.publish(&format!("id {n}")) {
            Err(AppendError::Read(ReadError::DamagedIds(damage))) => {
                assert_eq!(
                    (damage.file.as_path(), damage.offset),
                    (Path::new(&file), 64)
                );
            }
            other => panic!("{other:?}"),
        }
    }
    let accepted = (0..100).filter(|n| world.publish(&format!("new {n}")).is_ok());
    assert!(accepted.count() > 90);
    let plain = Append {
        msg_id: None,
        ..append("")
    };
    world
        .stream
        .append_nosync(&plain)
        .expect("no id, no question");
    world.pass(60);
    world.store.step().expect("upkeep");
    world.stored("id 7");
}

/// A file that is gone hides whether an id was used: nothing is stored twice.
#[test]
fn a_missing_file_is_no_reason_to_store_twice() {
    let world = World::new(config());
    world.stored("a");
    world.checkpoint();
    let file = world.id_files().remove(0);
    let world = {
        world.store.close();
        let env = Env::simulated(&world.disk, &world.clock, 5);
        env.io.remove(Path::new(&file)).expect("removed");
        world.restart(true)
    };
    for id in ["a", "b"] {
        let refused = world.publish(id);
        assert!(
            matches!(&refused, Err(AppendError::Read(ReadError::Io { file: named, .. })) if named == Path::new(&file)),
            "{refused:?}"
        );
    }
    world.pass(60);
    world.store.step().expect("upkeep");
    assert_eq!(world.stored("a"), 2);
}

/// Publishers race with each other, with checkpoints and with merges: each id is stored once.
#[test]
fn racing_publishers_store_each_id_once() {
    const IDS: u64 = 4_000;
    const PUBLISHERS: u64 = 4;
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = StoreOptions::default();
    options.tail_bytes_max = 64 << 10;
    let (store, _) = Store::open(dir.path(), options).expect("a store");
    let (stream, _) = store.create_stream(config()).expect("a stream");
    let publish = |offset: u64| {
        let (stream, store) = (stream.clone(), store.clone());
        move || {
            let mut seqs = vec![0; IDS as usize];
            for round in 0..3 {
                for n in 0..IDS {
                    let n = (n + offset * round) % IDS;
                    let id = format!("id {n}");
                    let seq = loop {
                        match stream.append_nosync(&append(&id)) {
                            Ok(done) => break done.seq.0,
                            Err(AppendError::Busy) => store.wait_room(),
                            Err(error) => panic!("{error}"),
                        }
                    };
                    let known = &mut seqs[n as usize];
                    assert!(*known == 0 || *known == seq, "{id}: {known} and {seq}");
                    *known = seq;
                }
            }
            seqs
        }
    };
    let threads: Vec<_> = (0..PUBLISHERS)
        .map(|n| std::thread::spawn(publish(n * 997)))
        .collect();
    let answers: Vec<_> = threads
        .into_iter()
        .map(|t| t.join().expect("no panic"))
        .collect();
    assert!(
        answers.windows(2).all(|pair| pair[0] == pair[1]),
        "one answer for all"
    );
    assert_eq!(stream.state().msgs, IDS);
    store.close();
}

/// What memory streams hold is not the budget of file streams.
#[test]
fn memory_streams_do_not_use_up_the_budget_for_the_log() {
    let (disk, clock) = (SimDisk::new(1), SimClock::new(START_NS));
    let env = Env::simulated(&disk, &clock, 5);
    let mut options = options();
    options.tail_bytes_max = 64 << 10;
    let (store, _) = Store::open_in(env, Path::new(DIR), options).expect("opens");
    let memory = StreamConfig {
        name: "M".into(),
        storage: Storage::Memory,
        ..config()
    };
    let (memory, _) = store.create_stream(memory).expect("created");
    let (stream, _) = store.create_stream(config()).expect("created");
    let large = Append {
        subject: b"s.a",
        payload: &[7; 1024],
        ..Append::default()
    };
    for _ in 0..200 {
        memory.append_nosync(&large).expect("accepted");
    }
    store.commit();
    stream
        .append_nosync(&large)
        .expect("a file stream has its own budget");
}
