//! Messages that are to be reported at a time of their own: from tail and sealed files, across
//! checkpoints and restarts, until they are removed.

use std::path::Path;

use riverlog_engine::io::Env;
use riverlog_engine::io::sim::{SimClock, SimDisk};
use riverlog_engine::{
    Append, Seq, Storage, Store, StoreOptions, Stream, StreamConfig, Threads, TimestampNs,
};

const START: i64 = 1_000;

fn open(disk: &SimDisk) -> Store {
    let env = Env::simulated(disk, &SimClock::new(START), 1);
    let mut options = StoreOptions::default();
    options.threads = Threads::Manual;
    let (store, _) = Store::open_in(env, Path::new("/data"), options).expect("a store");
    store
}

fn append(stream: &Stream, notify_at: Option<i64>) -> Seq {
    let append = Append {
        subject: b"s",
        payload: b"x",
        notify_at: notify_at.map(TimestampNs),
        ..Append::default()
    };
    stream.append_nosync(&append).expect("accepted").seq
}

#[track_caller]
fn check(stream: &Stream, now: i64, expected: &[(u64, i64)]) {
    let expected: Vec<(Seq, TimestampNs)> = expected
        .iter()
        .map(|(seq, at)| (Seq(*seq), TimestampNs(*at)))
        .collect();
    let found = stream.due_notices(TimestampNs(now), usize::MAX);
    assert_eq!(found.expect("readable"), expected);
    for max in 0..=expected.len() {
        let found = stream.due_notices(TimestampNs(now), max);
        assert_eq!(found.expect("readable"), expected[..max], "at most {max}");
    }
}

fn stream(store: &Store, storage: Storage) -> Stream {
    let config = StreamConfig {
        name: "S".into(),
        storage,
        ..StreamConfig::default()
    };
    store.create_stream(config).expect("a stream").0
}

#[test]
fn notices_come_from_every_part_of_a_stream_until_the_message_is_removed() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    let stream = stream(&store, Storage::File);
    for at in [Some(50), None, Some(10), Some(-5)] {
        append(&stream, at);
    }
    store.commit();
    check(&stream, -6, &[]);
    check(&stream, 20, &[(4, -5), (3, 10)]);
    assert_eq!(stream.next_notice(), Some(TimestampNs(-5)));
    store.checkpoint().expect("sealed");
    check(&stream, 20, &[(4, -5), (3, 10)]);
    append(&stream, Some(15));
    check(&stream, 20, &[(4, -5), (3, 10)]);
    store.commit();
    check(&stream, 20, &[(4, -5), (3, 10), (5, 15)]);
    store.checkpoint().expect("sealed");
    append(&stream, Some(30));
    stream.delete(Seq(4)).expect("deleted");
    stream.delete(Seq(5)).expect("deleted");
    store.commit();
    check(&stream, 60, &[(3, 10), (6, 30), (1, 50)]);
    drop((store, stream));

    let store = open(&disk);
    let stream = store.stream("S").expect("the stream");
    check(&stream, 60, &[(3, 10), (6, 30), (1, 50)]);
    assert_eq!(stream.next_notice(), Some(TimestampNs(10)));
    stream.delete(Seq(3)).expect("deleted");
    check(&stream, 60, &[(6, 30), (1, 50)]);
    assert_eq!(stream.next_notice(), Some(TimestampNs(30)));
    let message = stream.get(Seq(1)).expect("readable").expect("live");
    assert_eq!(message.notify_at(), Some(TimestampNs(50)));
}

#[test]
fn a_message_in_memory_has_its_notice_too() {
    let store = open(&SimDisk::new(1));
    let stream = stream(&store, Storage::Memory);
    append(&stream, Some(7));
    append(&stream, Some(3));
    check(&stream, 7, &[(2, 3), (1, 7)]);
    stream.delete(Seq(2)).expect("deleted");
    check(&stream, 7, &[(1, 7)]);
    assert_eq!(stream.next_notice(), Some(TimestampNs(7)));
}

/// What is removed while a sealed file still lists it is passed over in steps.
#[test]
fn many_notices_of_sealed_messages() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    let stream = stream(&store, Storage::File);
    for n in 1..=10_000 {
        append(&stream, Some(20_000 - n));
    }
    store.checkpoint().expect("sealed");
    for seq in 2_000..=10_000 {
        stream.delete(Seq(seq)).expect("deleted");
    }
    store.commit();
    let expected: Vec<(u64, i64)> = (1_995..2_000)
        .rev()
        .map(|seq| (seq, 20_000 - seq as i64))
        .collect();
    let found = stream
        .due_notices(TimestampNs(i64::MAX), 5)
        .expect("readable");
    let found: Vec<(u64, i64)> = found.iter().map(|(seq, at)| (seq.0, at.0)).collect();
    assert_eq!(found, expected);
    assert_eq!(stream.next_notice(), Some(TimestampNs(18_001)));
}
