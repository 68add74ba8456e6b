//! Sequences near the end of their range.

mod support;

use std::path::Path;

use riverlog_engine::consumer::{ConsumerConfig, DeliverPolicy};
use riverlog_engine::io::Env;
use riverlog_engine::io::sim::{Persist, SimClock, SimDisk};
use riverlog_engine::{
    Append, Filter, Next, PurgeRequest, Seq, Storage, Store, Stream, StreamConfig, TimestampNs,
};

fn open(disk: &SimDisk) -> Store {
    let env = Env::simulated(disk, &SimClock::new(1_000), 1);
    let (store, _) =
        Store::open_in(env, Path::new(support::DIR), support::options()).expect("opens");
    store
}

fn append(stream: &Stream, subject: &str) -> Seq {
    let append = Append {
        subject: subject.as_bytes(),
        ..Append::default()
    };
    stream.append_nosync(&append).expect("accepted").seq
}

#[test]
fn a_purge_below_any_sequence_leaves_a_stream_that_takes_messages() {
    for below in [u64::MAX, u64::MAX - 1, u64::MAX / 2 + 1, 1 << 40] {
        for storage in [Storage::File, Storage::Memory] {
            let disk = SimDisk::new(1);
            let store = open(&disk);
            let config = StreamConfig {
                name: "S".into(),
                storage,
                ..StreamConfig::default()
            };
            let (stream, _) = store.create_stream(config).expect("created");
            append(&stream, "s.1");
            store.commit();
            let request = PurgeRequest {
                below: Some(Seq(below)),
                ..PurgeRequest::default()
            };
            match stream.purge(&request) {
                Ok((purged, _)) => assert_eq!(purged, 1),
                // Refused as a whole.
                Err(_) => assert_eq!(stream.state().msgs, 1),
            }
            let before = stream.state().last_seq;
            let first = append(&stream, "s.1");
            assert_eq!(first.0, before.0 + 1);
            append(&stream, "s.2");
            append(&stream, "s.1");
            store.commit();
            store.checkpoint().expect("checkpointed");
            append(&stream, "s.3");
            store.commit();
            assert!(stream.get(first).expect("readable").is_some());
            let filter = Filter::new(b"s.1").expect("a filter");
            let last = stream.last_by_subject(&filter).expect("readable");
            assert_eq!(last.map(|m| m.seq), Some(Seq(first.0 + 2)));
            stream.delete(Seq(first.0 + 1)).expect("deletable");
            store.commit();
            if storage == Storage::Memory {
                continue;
            }
            let expected = stream.state();
            let after = disk.crash(Persist::Nothing);
            drop(store);
            let store = open(&after);
            let stream = store.stream("S").expect("there");
            let found = stream.state();
            assert_eq!(
                (found.first_seq, found.last_seq, found.msgs, found.bytes),
                (
                    expected.first_seq,
                    expected.last_seq,
                    expected.msgs,
                    expected.bytes
                )
            );
        }
    }
}

#[test]
fn a_stream_that_starts_at_the_highest_allowed_sequence_works() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    let config = StreamConfig {
        name: "S".into(),
        first_seq: Seq(u64::MAX / 2),
        msgs_max: Some(3),
        ..StreamConfig::default()
    };
    let (stream, _) = store.create_stream(config).expect("created");
    for (name, deliver) in [
        ("all", DeliverPolicy::All),
        ("new", DeliverPolicy::New),
        ("far", DeliverPolicy::BySeq(Seq(u64::MAX))),
    ] {
        let config = ConsumerConfig {
            name: name.into(),
            deliver,
            ..ConsumerConfig::default()
        };
        stream.create_consumer(config).expect("created");
    }
    for _ in 0..5 {
        append(&stream, "s.1");
    }
    store.checkpoint().expect("checkpointed");
    assert_eq!(stream.state().first_seq, Seq(u64::MAX / 2 + 2));
    let next = |name: &str| {
        let consumer = stream.consumer(name).expect("there");
        match consumer
            .next(TimestampNs(1), &mut |_| true)
            .expect("readable")
        {
            Next::Message(delivery) => Some(delivery.message.seq),
            _ => None,
        }
    };
    assert_eq!(next("all"), Some(Seq(u64::MAX / 2 + 2)));
    assert_eq!(next("new"), Some(Seq(u64::MAX / 2 + 2)));
    assert_eq!(next("far"), None);
    let far = stream.consumer("far").expect("there");
    assert_eq!(far.num_pending().expect("known"), 0);
    far.reset(Seq(u64::MAX)).expect("reset");
    assert_eq!(next("far"), None);
    store.checkpoint().expect("checkpointed");
    let after = disk.crash(Persist::Nothing);
    drop(store);
    let store = open(&after);
    let stream = store.stream("S").expect("there");
    assert_eq!(stream.consumers().len(), 3);
    assert_eq!(stream.state().msgs, 3);
}
