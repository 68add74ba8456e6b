//! Deleted streams: what is left of them in the log, and in handles that outlive them.

mod support;

use std::path::Path;

use riverlog_engine::consumer::ConsumerConfig;
use riverlog_engine::io::Env;
use riverlog_engine::io::sim::{Persist, SimClock, SimDisk};
use riverlog_engine::{
    Append, Filter, Idle, Next, Seq, Storage, Store, StoreOptions, Stream, StreamConfig, Threads,
    TimestampNs,
};

fn append(stream: &Stream, payload: &[u8]) -> Seq {
    let append = Append {
        subject: b"s.1",
        payload,
        ..Append::default()
    };
    stream.append_nosync(&append).expect("accepted").seq
}

fn named(name: &str) -> StreamConfig {
    StreamConfig {
        name: name.into(),
        ..StreamConfig::default()
    }
}

fn open(disk: &SimDisk, options: StoreOptions) -> Store {
    let clock = SimClock::new(1_000);
    let env = Env::simulated(disk, &clock, 1);
    let (store, _) = Store::open_in(env, Path::new(support::DIR), options).expect("opens");
    store
}

/// A stream whose configuration changed and that took messages afterwards is deleted; a checkpoint
/// that frees only a part of the log must leave a log that can be replayed.
#[test]
fn a_deletion_that_is_checkpointed_before_the_log_is_free_can_be_replayed() {
    let mut options = support::options();
    options.threads = Threads::Manual;
    options.wal.file_bytes = 16 << 20;
    options.tail_bytes_max = 4 << 20;
    options.queue_bytes_max = 8 << 20;
    let disk = SimDisk::new(1);
    let store = open(&disk, options.clone());
    let (gone, _) = store.create_stream(named("gone")).expect("created");
    let (large, _) = store.create_stream(named("large")).expect("created");
    let (small, _) = store.create_stream(named("small")).expect("created");
    append(&gone, b"before");
    store.checkpoint().expect("checkpointed");
    // Keeps the log from here on.
    append(&small, b"kept in the log");
    gone.update_config(StreamConfig {
        msgs_max: Some(10),
        ..named("gone")
    })
    .expect("updated");
    append(&gone, b"after");
    store.delete_stream("gone").expect("deleted");
    for _ in 0..5 {
        append(&large, &vec![b'x'; 500_000]);
    }
    // Large tails only: the small one still needs the log.
    store.step().expect("works");
    let after = disk.crash(Persist::Nothing);
    drop(store);
    let store = open(&after, options);
    assert!(store.stream("gone").is_none());
    let small = store.stream("small").expect("there");
    assert!(small.get(Seq(1)).expect("readable").is_some());
    let large = store.stream("large").expect("there");
    assert_eq!(large.state().msgs, 5);
}

/// A handle of a deleted stream finds nothing; nothing is reported as damaged.
#[test]
fn a_handle_of_a_deleted_stream_finds_nothing() {
    for storage in [Storage::File, Storage::Memory] {
        for sealed in [false, true] {
            let disk = SimDisk::new(1);
            let store = open(&disk, support::options());
            let config = StreamConfig {
                storage,
                ..named("S")
            };
            let (stream, _) = store.create_stream(config).expect("created");
            let consumer = ConsumerConfig {
                name: "C".into(),
                ..ConsumerConfig::default()
            };
            let (consumer, _) = stream.create_consumer(consumer).expect("created");
            for _ in 0..3 {
                append(&stream, b"x");
            }
            store.commit();
            if sealed {
                store.checkpoint().expect("checkpointed");
            }
            store.delete_stream("S").expect("deleted");
            store.checkpoint().expect("checkpointed");
            assert_eq!(stream.get(Seq(2)).expect("no damage"), None);
            let all = Filter::all();
            assert_eq!(stream.last_by_subject(&all).expect("no damage"), None);
            assert_eq!(stream.num_pending(&[], Seq(1)).expect("no damage"), 0);
            let found = stream.next_message(&[], Seq(1));
            assert_eq!(found.expect("no damage"), None);
            assert!(stream.subjects(&all).expect("no damage").is_empty());
            let next = consumer.next(TimestampNs(1), &mut |_| true);
            assert!(matches!(
                next.expect("no damage"),
                Next::Idle(Idle::NoMessages)
            ));
        }
    }
}
