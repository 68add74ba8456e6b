//! Messages leave when they are too old, although nobody asks.

use std::time::{Duration, Instant};

use riverlog_engine::{Append, Storage, Store, StoreOptions, Stream, StreamConfig};

/// Far longer than the age; a machine under load may be slow.
const PATIENCE: Duration = Duration::from_secs(30);

fn append(store: &Store, stream: &Stream) {
    let append = Append {
        subject: b"s",
        ..Append::default()
    };
    let done = stream.append_nosync(&append).expect("accepted");
    store.ticket(done.lsn).wait().expect("durable");
}

fn wait_until_empty(stream: &Stream) {
    let started = Instant::now();
    while stream.state().msgs > 0 {
        assert!(started.elapsed() < PATIENCE, "the message stays");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The store had nothing to wait for when the message came.
#[test]
fn a_message_in_an_empty_stream_of_an_idle_store_leaves_in_time() {
    for storage in [Storage::File, Storage::Memory] {
        let dir = tempfile::tempdir().expect("a directory");
        let (store, _) = Store::open(dir.path(), StoreOptions::default()).expect("a store");
        let config = StreamConfig {
            name: "S".into(),
            storage,
            age_max_ns: Some(100_000_000),
            ..StreamConfig::default()
        };
        let (stream, _) = store.create_stream(config).expect("a stream");
        for _ in 0..3 {
            // Long enough for the maintenance thread to find that nothing is due.
            std::thread::sleep(Duration::from_millis(50));
            append(&store, &stream);
            wait_until_empty(&stream);
        }
    }
}

/// A message that is due earlier than anything known so far is not left until later ones are due.
#[test]
fn a_message_due_before_all_others_leaves_first() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(dir.path(), StoreOptions::default()).expect("a store");
    let aged = |name: &str, age_ns| StreamConfig {
        name: name.into(),
        age_max_ns: Some(age_ns),
        ..StreamConfig::default()
    };
    let (slow, _) = store
        .create_stream(aged("slow", 3_600_000_000_000))
        .expect("a stream");
    let (quick, _) = store
        .create_stream(aged("quick", 100_000_000))
        .expect("a stream");
    append(&store, &slow);
    std::thread::sleep(Duration::from_millis(50));
    append(&store, &quick);
    wait_until_empty(&quick);
    assert_eq!(slow.state().msgs, 1);
}
