//! Messages leave by age without anybody asking, on the store's own thread.

use std::time::{Duration, Instant};

use riverlog_engine::{Append, Storage, Store, StoreOptions, StreamConfig};

/// Longest time the test waits for something that should happen within a fraction of a second.
const PATIENCE: Duration = Duration::from_secs(30);

fn becomes_empty(stream: &riverlog_engine::Stream) -> bool {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if stream.state().msgs == 0 {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

fn age_out(storage: Storage) {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(dir.path(), StoreOptions::default()).expect("a store");
    let config = StreamConfig {
        name: "S".into(),
        storage,
        age_max_ns: Some(100_000_000),
        ..StreamConfig::default()
    };
    let (stream, ticket) = store.create_stream(config).expect("a stream");
    ticket.wait().expect("durable");
    // Twice: the second message comes when the store has nothing due any more.
    for round in 1..=2 {
        std::thread::sleep(Duration::from_millis(50));
        let append = Append {
            subject: b"s",
            payload: b"x",
            ..Append::default()
        };
        let seq = stream.append_nosync(&append).expect("accepted").seq;
        assert_eq!(seq.0, round);
        assert!(becomes_empty(&stream), "message {round} is still there");
    }
    let longer = StreamConfig {
        age_max_ns: None,
        ..stream.config()
    };
    stream.update_config(longer).expect("updated");
    stream
        .append_nosync(&Append {
            subject: b"s",
            ..Append::default()
        })
        .expect("accepted");
    let shorter = StreamConfig {
        age_max_ns: Some(100_000_000),
        ..stream.config()
    };
    stream.update_config(shorter).expect("updated");
    assert!(becomes_empty(&stream), "a new maximum age is not applied");
}

#[test]
fn on_disk() {
    age_out(Storage::File);
}

#[test]
fn in_memory() {
    age_out(Storage::Memory);
}
