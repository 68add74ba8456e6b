//! Retention by consumers: the remaining messages are exactly those somebody still needs.

use riverlog_engine::consumer::{AckPolicy, ConsumerConfig};
use riverlog_engine::{
    Append, ChangeError, Consumer, Next, Retention, Seq, Storage, Store, StoreOptions, Stream,
    StreamConfig, TimestampNs,
};

const NOW: TimestampNs = TimestampNs(1);

struct Fixture {
    store: Store,
    stream: Stream,
    _dir: tempfile::TempDir,
}

fn fixture(retention: Retention, storage: Storage) -> Fixture {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(dir.path(), StoreOptions::default()).expect("a store");
    let config = StreamConfig {
        name: "S".into(),
        retention,
        storage,
        dedup_window_ns: 60_000_000_000,
        ..StreamConfig::default()
    };
    let (stream, _) = store.create_stream(config).expect("a stream");
    Fixture {
        store,
        stream,
        _dir: dir,
    }
}

impl Fixture {
    fn append(&self, subject: &str, id: Option<&str>) -> (u64, bool) {
        let append = Append {
            subject: subject.as_bytes(),
            msg_id: id.map(str::as_bytes),
            ..Append::default()
        };
        let done = self.stream.append_nosync(&append).expect("accepted");
        self.store.ticket(done.lsn).wait().expect("durable");
        (done.seq.0, done.duplicate)
    }

    fn consumer(&self, name: &str, filter: &str, ack: AckPolicy) -> Consumer {
        let config = ConsumerConfig {
            name: name.into(),
            filters: vec![filter.into()],
            ack,
            ..ConsumerConfig::default()
        };
        self.stream.create_consumer(config).expect("a consumer").0
    }

    fn live(&self) -> Vec<u64> {
        let last = self.stream.state().last_seq.0;
        (1..=last)
            .filter(|seq| self.stream.get(Seq(*seq)).expect("readable").is_some())
            .collect()
    }
}

fn next(consumer: &Consumer) -> Option<u64> {
    match consumer.next(NOW, &mut |_| true).expect("readable") {
        Next::Message(delivery) => Some(delivery.message.seq.0),
        _ => None,
    }
}

#[test]
fn without_interest_a_message_takes_its_sequence_and_leaves() {
    for storage in [Storage::File, Storage::Memory] {
        let f = fixture(Retention::Interest, storage);
        assert_eq!(f.append("a", Some("id")), (1, false));
        assert_eq!(f.append("a", Some("id")), (1, true));
        let state = f.stream.state();
        assert_eq!(
            (state.msgs, state.first_seq, state.last_seq),
            (0, Seq(2), Seq(1))
        );
        assert_eq!((state.bytes, state.deleted), (0, 0));
        f.consumer("C", "b.>", AckPolicy::Explicit);
        assert_eq!(f.append("a", None), (2, false));
        assert_eq!(f.append("b.1", None), (3, false));
        assert_eq!(f.live(), [3]);
    }
}

#[test]
fn a_message_leaves_when_every_consumer_that_wants_it_acknowledged_it() {
    for storage in [Storage::File, Storage::Memory] {
        let f = fixture(Retention::Interest, storage);
        let all = f.consumer("ALL", ">", AckPolicy::Explicit);
        let some = f.consumer("SOME", "a", AckPolicy::Explicit);
        f.append("a", None);
        f.append("b", None);
        assert_eq!(
            (next(&all), next(&all), next(&some)),
            (Some(1), Some(2), Some(1))
        );
        all.ack(Seq(1), NOW).expect("acknowledged");
        assert_eq!(f.live(), [1, 2]);
        all.ack(Seq(2), NOW).expect("acknowledged");
        assert_eq!(f.live(), [1]);
        some.ack(Seq(1), NOW).expect("acknowledged");
        assert_eq!(f.live(), [0u64; 0]);
    }
}

#[test]
fn delivery_is_enough_where_nothing_is_acknowledged() {
    let f = fixture(Retention::Interest, Storage::File);
    let none = f.consumer("NONE", ">", AckPolicy::None);
    f.append("a", None);
    f.append("a", None);
    assert_eq!(next(&none), Some(1));
    assert_eq!(f.live(), [2]);
}

#[test]
fn deleting_a_consumer_frees_what_only_it_needed() -> Result<(), ChangeError> {
    let f = fixture(Retention::Interest, Storage::File);
    f.consumer("A", "a", AckPolicy::Explicit);
    f.consumer("B", "b", AckPolicy::Explicit);
    for subject in ["a", "b", "a"] {
        f.append(subject, None);
    }
    f.stream.delete_consumer("A")?;
    assert_eq!(f.live(), [2]);
    f.stream.delete_consumer("B")?;
    assert_eq!(f.live(), [0u64; 0]);
    Ok(())
}

#[test]
fn turning_limits_into_interest_drops_what_nobody_needs() -> Result<(), ChangeError> {
    let f = fixture(Retention::Limits, Storage::File);
    let consumer = f.consumer("A", "a", AckPolicy::Explicit);
    for subject in ["a", "b", "a"] {
        f.append(subject, None);
    }
    assert_eq!(next(&consumer), Some(1));
    consumer.ack(Seq(1), NOW)?;
    assert_eq!(f.live(), [1, 2, 3]);
    f.stream.update_config(StreamConfig {
        retention: Retention::Interest,
        ..f.stream.config()
    })?;
    assert_eq!(f.live(), [3]);
    Ok(())
}

#[test]
fn a_work_queue_keeps_only_what_is_not_acknowledged() -> Result<(), ChangeError> {
    for storage in [Storage::File, Storage::Memory] {
        let f = fixture(Retention::WorkQueue, storage);
        let worker = f.consumer("W", ">", AckPolicy::Explicit);
        for _ in 0..4 {
            f.append("job", None);
        }
        assert_eq!(
            (next(&worker), next(&worker), next(&worker)),
            (Some(1), Some(2), Some(3))
        );
        worker.ack(Seq(2), NOW)?;
        worker.term(Seq(3), NOW)?;
        worker.nak(Seq(1), None, NOW)?;
        assert_eq!(f.live(), [1, 4]);
    }
    Ok(())
}
