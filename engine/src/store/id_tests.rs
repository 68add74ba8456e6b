//! Message ids of a whole store, seen from inside.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Store, StoreOptions, Threads};
use crate::config::StreamConfig;
use crate::format::id_page::PAGE_ENTRIES;
use crate::ids::TimestampNs;
use crate::io::Env;
use crate::io::sim::{Fault, SimClock, SimDisk, Trigger};
use crate::stream::{Append, Stream};

const SECOND_NS: u64 = 1_000_000_000;

struct World {
    disk: SimDisk,
    clock: SimClock,
    store: Store,
}

impl World {
    fn open(disk: SimDisk, clock: SimClock) -> World {
        let env = Env::simulated(&disk, &clock, 5);
        let options = StoreOptions {
            threads: Threads::Manual,
            ..StoreOptions::default()
        };
        let (store, _) = Store::open_in(env, Path::new("/data"), options).expect("opens");
        World { disk, clock, store }
    }

    fn new() -> World {
        World::open(SimDisk::new(1), SimClock::new(1_000_000_000_000))
    }

    fn stream(&self, name: &str, window_s: u64) -> Stream {
        let config = StreamConfig {
            name: name.into(),
            dedup_window_ns: window_s * SECOND_NS,
            ..StreamConfig::default()
        };
        self.store.create_stream(config).expect("created").0
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance_ns((seconds * SECOND_NS) as i64);
    }

    fn now(&self) -> TimestampNs {
        TimestampNs(self.store.inner.shared.env.clock.now_ns())
    }

    /// Ids in all files.
    fn stored(&self) -> u64 {
        let files = self.store.inner.shared.ids.list();
        files.iter().map(|file| file.entries()).sum()
    }

    fn ids(&self, stream: &Stream) -> BTreeMap<u64, u128> {
        let ids = stream.core.ids_of(self.now()).expect("opened");
        let ids = ids.map(|id| id.expect("read"));
        ids.map(|id| (id.seq.0, id.hash)).collect()
    }
}

fn publish(stream: &Stream, id: &str) -> (u64, bool) {
    let append = Append {
        subject: b"s",
        msg_id: Some(id.as_bytes()),
        ..Append::default()
    };
    let done = stream.append_nosync(&append).expect("answered");
    (done.seq.0, done.duplicate)
}

/// A copy of a stream takes exactly its ids: those in files, those in RAM, none of another stream's.
#[test]
fn the_ids_of_one_stream_can_be_listed() {
    let world = World::new();
    let (a, b) = (world.stream("a", 60), world.stream("b", 60));
    let mut expected = BTreeMap::new();
    for n in 0..20 {
        let id = format!("id {n}");
        publish(&b, &id);
        let seq = publish(&a, &id).0;
        expected.insert(seq, a.core.id_hash(id.as_bytes()).0);
        if n % 6 == 5 {
            world.store.checkpoint().expect("a checkpoint");
        }
        assert_eq!(world.ids(&a), expected);
        world.pass(1);
    }
    assert_eq!(world.store.inner.shared.ids.list().len(), 3);
    // Message n was published n - 1 seconds after the first, which was 70 seconds ago.
    world.pass(50);
    expected.retain(|seq, _| *seq > 11);
    assert_eq!(world.ids(&a), expected);
    assert_eq!(publish(&a, "id 0"), (21, false));
    expected.insert(21, a.core.id_hash(b"id 0").0);
    assert_eq!(
        world.ids(&a),
        expected,
        "one entry for an id that was used again"
    );
}

#[test]
fn a_merge_leaves_out_what_nobody_can_ask_for() {
    let world = World::new();
    let (long, short, deleted) = (
        world.stream("long", 3_600),
        world.stream("short", 10),
        world.stream("deleted", 3_600),
    );
    for n in 0..8 {
        for stream in [&long, &short, &deleted] {
            publish(stream, &format!("id {n}"));
        }
        world.store.checkpoint().expect("a checkpoint");
        world.pass(2);
    }
    assert_eq!(
        (world.store.inner.shared.ids.list().len(), world.stored()),
        (8, 24)
    );
    world.store.delete_stream("deleted").expect("deleted");
    world.store.step().expect("upkeep");
    // Of the short window, what is 8, 6, 4 and 2 seconds old is left.
    assert_eq!(
        (world.store.inner.shared.ids.list().len(), world.stored()),
        (1, 12)
    );
    let world = World::open(world.disk.kill_process(), world.clock.clone());
    let stream = |name| world.store.stream(name).expect("there");
    for n in 0..8 {
        let id = format!("id {n}");
        assert_eq!(publish(&stream("long"), &id), (n + 1, true));
        let again = publish(&stream("short"), &id);
        assert_eq!(again.1, n >= 4, "{id} is {} seconds old", 16 - 2 * n);
    }
    assert!(
        world.store.stream("deleted").is_none(),
        "the merge made its deletion durable"
    );
}

/// A merge that fails leaves the files as they are and no rest behind, and is tried again when there
/// are other files.
#[test]
fn a_merge_that_fails_costs_nothing() {
    let faults = [
        Fault::NoSpace,
        Fault::WriteError,
        Fault::SyncError,
        Fault::NameError,
        Fault::ReadError,
    ];
    for fault in faults {
        let mut hits = 0;
        while fail_a_merge(fault, hits) {
            hits += 1;
        }
        let expected = if fault == Fault::NameError { 2 } else { 1 };
        assert!(hits >= expected, "{fault:?} hit {hits} operations");
    }
}

/// False when the merge had no operation for the fault any more.
fn fail_a_merge(fault: Fault, nth: u64) -> bool {
    let world = World::new();
    let stream = world.stream("s", 3_600);
    for n in 0..8 {
        publish(&stream, &format!("id {n}"));
        world.store.checkpoint().expect("a checkpoint");
    }
    let before = world.disk.faults();
    world.disk.inject_on("/ids", fault, Trigger::After(nth));
    // It may fail or not; what counts is what it leaves.
    _ = world.store.step();
    let hit = world.disk.faults() > before;
    world.disk.clear_faults();
    let known = |ids: u64| {
        for n in 0..ids {
            let expected = (n + 1, true);
            assert_eq!(
                publish(&stream, &format!("id {n}")),
                expected,
                "{fault:?} {nth}"
            );
        }
    };
    known(8);
    assert_eq!(publish(&stream, "id 8"), (9, false));
    world.store.checkpoint().expect("a checkpoint");
    world.store.step().expect("upkeep");
    known(9);
    let listed = world.store.inner.shared.ids.list().len();
    let files = world.disk.files().into_iter();
    let files = files.filter(|(path, _)| path.contains("/ids/")).count();
    assert_eq!(files, listed, "{fault:?} {nth} left a file behind");
    hit
}

/// RAM holds ids until a checkpoint, then 1.5 bytes of each.
#[test]
fn a_checkpoint_gives_the_ram_of_ids_back() {
    let world = World::new();
    let stream = world.stream("s", 3_600);
    let ids = 50 * PAGE_ENTRIES as u64;
    for n in 0..ids {
        publish(&stream, &format!("id {n}"));
    }
    stream
        .purge(&crate::PurgeRequest::default())
        .expect("purged");
    let held = world.store.inner.shared.tail_ram();
    assert!(
        held >= ids * 32,
        "ids without messages count as well: {held}"
    );
    world.store.checkpoint().expect("a checkpoint");
    assert_eq!(world.store.inner.shared.tail_ram(), 0);
    assert_eq!(stream.core.lock().ids.ram_bytes(), 0);
    let files = world.store.inner.shared.ids.list();
    let filters: u64 = files.iter().map(|file| file.filter_ram_bytes()).sum();
    assert!(filters <= ids * 2, "{filters} bytes for {ids} ids");
    assert_eq!(publish(&stream, "id 7"), (8, true));
}

/// A deleted stream gives back what its ids count for, whatever a checkpoint holds of them.
#[test]
fn the_ram_of_a_deleted_stream_is_given_back() {
    let world = World::new();
    for checkpoint in [false, true] {
        let stream = world.stream("s", 3_600);
        publish(&stream, "a");
        if checkpoint {
            world.store.checkpoint().expect("a checkpoint");
            publish(&stream, "b");
        }
        world.store.delete_stream("s").expect("deleted");
        assert_eq!(world.store.inner.shared.tail_ram(), 0);
    }
}
