//! Consumers at the public API: counts, starts, restarts and retention, on both kinds of storage.

use std::path::Path;

use riverlog_engine::consumer::{AckPolicy, ConsumerConfig, DeliverPolicy};
use riverlog_engine::io::Env;
use riverlog_engine::io::sim::{SimClock, SimDisk};
use riverlog_engine::{
    Append, Consumer, Discard, Filter, Next, PurgeRequest, Retention, Seq, Storage, Store,
    StoreOptions, Stream, StreamConfig, Threads, TimestampNs,
};

const START_NS: i64 = 1_700_000_000_000_000_000;
const NOW: TimestampNs = TimestampNs(START_NS);

struct Fixture {
    disk: SimDisk,
    clock: SimClock,
    store: Store,
    stream: Stream,
    storage: Storage,
}

fn open(disk: &SimDisk, clock: &SimClock, seed: u64) -> Store {
    let mut options = StoreOptions::default();
    options.threads = Threads::Manual;
    options.wal.file_bytes = 1 << 20;
    options.wal.control_reserve_bytes = 64 << 10;
    let env = Env::simulated(disk, clock, seed);
    Store::open_in(env, Path::new("/data"), options)
        .expect("a store")
        .0
}

fn fixture(storage: Storage, config: StreamConfig) -> Fixture {
    let (disk, clock) = (SimDisk::new(1), SimClock::new(START_NS));
    let store = open(&disk, &clock, 1);
    let config = StreamConfig {
        name: "S".into(),
        storage,
        ..config
    };
    let (stream, _) = store.create_stream(config).expect("a stream");
    Fixture {
        disk,
        clock,
        store,
        stream,
        storage,
    }
}

/// Runs a test on a file stream and on a memory stream.
fn on_both(config: StreamConfig, test: impl Fn(&mut Fixture)) {
    for storage in [Storage::File, Storage::Memory] {
        test(&mut fixture(storage, config.clone()));
    }
}

impl Fixture {
    fn append(&self, subject: &str) -> u64 {
        self.clock.advance_ns(1_000_000);
        let append = Append {
            subject: subject.as_bytes(),
            payload: b"payload",
            ..Append::default()
        };
        let done = self.stream.append_nosync(&append).expect("accepted");
        self.store.commit();
        done.seq.0
    }

    /// Moves everything into sealed files, where there are any.
    fn seal(&self) {
        self.store.checkpoint().expect("a checkpoint");
    }

    /// The process dies and starts again; a memory stream would be gone.
    fn restart(&mut self) {
        if self.storage == Storage::Memory {
            return;
        }
        self.disk = self.disk.kill_process();
        self.store = open(&self.disk, &self.clock, 2);
        self.stream = self.store.stream("S").expect("the stream");
    }

    fn consumer(&self, config: ConsumerConfig) -> Consumer {
        let config = ConsumerConfig {
            name: "C".into(),
            ack: AckPolicy::Explicit,
            ack_wait_ns: 3_600_000_000_000,
            ..config
        };
        let (consumer, _) = self.stream.create_consumer(config).expect("a consumer");
        self.store.commit();
        consumer
    }
}

/// Sequence and `num_pending` of the next delivery.
fn next(consumer: &Consumer) -> Option<(u64, u64)> {
    match consumer.next(NOW, &mut |_| true).expect("an answer") {
        Next::Message(delivery) => Some((delivery.message.seq.0, delivery.num_pending)),
        _ => None,
    }
}

fn rest(consumer: &Consumer) -> Vec<u64> {
    std::iter::from_fn(|| next(consumer).map(|(seq, _)| seq)).collect()
}

fn only(filter: &str) -> ConsumerConfig {
    ConsumerConfig {
        filters: vec![filter.into()],
        ..ConsumerConfig::default()
    }
}

#[test]
fn num_pending_follows_deletes_appends_and_checkpoints() {
    on_both(StreamConfig::default(), |f| {
        for n in 0..12 {
            f.append(if n % 2 == 0 { "a.x" } else { "b.x" });
        }
        let consumer = f.consumer(only("a.*"));
        assert_eq!(next(&consumer), Some((1, 5)));
        f.seal();
        assert_eq!(consumer.num_pending().expect("a count"), 5);
        assert!(f.stream.delete(Seq(5)).expect("deleted").is_some());
        assert!(f.stream.delete(Seq(6)).expect("deleted").is_some());
        assert_eq!(next(&consumer), Some((3, 3)));
        f.append("a.y");
        f.append("b.y");
        assert_eq!(next(&consumer), Some((7, 3)));
        f.seal();
        assert_eq!(next(&consumer), Some((9, 2)));
        let request = PurgeRequest {
            filter: Some(Filter::new(b"a.x").expect("a filter")),
            ..PurgeRequest::default()
        };
        f.stream.purge(&request).expect("purged");
        f.store.commit();
        assert_eq!(next(&consumer), Some((13, 0)));
        assert_eq!(next(&consumer), None);
    });
}

/// Messages that a limit evicts before their delivery are not counted any more.
#[test]
fn num_pending_of_a_filtered_consumer_follows_eviction() {
    let config = StreamConfig {
        msgs_max: Some(6),
        ..StreamConfig::default()
    };
    on_both(config, |f| {
        for _ in 0..6 {
            f.append("a");
        }
        let consumer = f.consumer(only("a"));
        assert_eq!(next(&consumer), Some((1, 5)));
        for _ in 0..3 {
            f.append("b");
        }
        // 2 and 3 are gone with 1.
        assert_eq!(next(&consumer), Some((4, 2)));
        assert_eq!(consumer.num_pending().expect("a count"), 2);
        f.append("b");
        f.append("b");
        assert_eq!(next(&consumer), Some((6, 0)));
    });
}

/// The same when the consumer asks in between and finds nothing.
#[test]
fn num_pending_after_the_waiting_messages_were_deleted() {
    on_both(StreamConfig::default(), |f| {
        for _ in 0..4 {
            f.append("a");
        }
        let consumer = f.consumer(only("a"));
        assert_eq!(next(&consumer), Some((1, 3)));
        for seq in 2..=4 {
            f.stream.delete(Seq(seq)).expect("deleted");
        }
        f.store.commit();
        assert_eq!(next(&consumer), None);
        assert_eq!(consumer.num_pending().expect("a count"), 0);
        f.append("a");
        assert_eq!(next(&consumer), Some((5, 0)));
    });
}

#[test]
fn a_consumer_continues_where_it_was_after_a_restart() {
    on_both(StreamConfig::default(), |f| {
        for _ in 0..6 {
            f.append("a");
        }
        let consumer = f.consumer(ConsumerConfig::default());
        assert_eq!(next(&consumer), Some((1, 5)));
        assert_eq!(next(&consumer), Some((2, 4)));
        assert_eq!(next(&consumer), Some((3, 3)));
        consumer.ack(Seq(2), NOW).expect("acknowledged");
        f.store.commit();
        for seal in [false, true] {
            if seal {
                f.seal();
            }
            f.restart();
            let consumer = f.stream.consumer("C").expect("the consumer");
            let info = consumer.info();
            assert_eq!(info.delivered.stream_seq, Seq(3));
            assert_eq!(info.delivered.consumer_seq, 3);
            assert_eq!(info.ack_floor.stream_seq, Seq(0));
            assert_eq!(info.num_ack_pending, 2);
        }
        let consumer = f.stream.consumer("C").expect("the consumer");
        consumer.ack(Seq(1), NOW).expect("acknowledged");
        assert_eq!(consumer.info().ack_floor.stream_seq, Seq(2));
        assert_eq!(rest(&consumer), [4, 5, 6]);
    });
}

#[test]
fn deliver_policies_start_where_they_say() {
    on_both(StreamConfig::default(), |f| {
        for subject in ["a", "b", "a", "c", "b"] {
            f.append(subject);
        }
        let third = TimestampNs(START_NS + 3_000_000);
        f.seal();
        let cases = [
            (DeliverPolicy::All, vec![1, 2, 3, 4, 5, 6]),
            (DeliverPolicy::Last, vec![5, 6]),
            (DeliverPolicy::New, vec![6]),
            (DeliverPolicy::BySeq(Seq(4)), vec![4, 5, 6]),
            (DeliverPolicy::ByTime(third), vec![3, 4, 5, 6]),
            (DeliverPolicy::LastPerSubject, vec![3, 4, 5, 6]),
        ];
        let consumers: Vec<Consumer> = cases
            .iter()
            .enumerate()
            .map(|(n, (deliver, _))| {
                let config = ConsumerConfig {
                    name: format!("C{n}"),
                    deliver: *deliver,
                    ..ConsumerConfig::default()
                };
                f.stream.create_consumer(config).expect("a consumer").0
            })
            .collect();
        f.append("a");
        for (consumer, (deliver, expected)) in consumers.iter().zip(&cases) {
            assert_eq!(&rest(consumer), expected, "{deliver:?}");
        }
    });
}

#[test]
fn a_work_queue_keeps_what_is_not_acknowledged() {
    let config = StreamConfig {
        retention: Retention::WorkQueue,
        ..StreamConfig::default()
    };
    on_both(config, |f| {
        for _ in 0..5 {
            f.append("job");
        }
        let consumer = f.consumer(ConsumerConfig::default());
        for _ in 0..3 {
            next(&consumer);
        }
        f.seal();
        consumer.ack(Seq(2), NOW).expect("acknowledged");
        f.store.commit();
        f.restart();
        assert!(f.stream.get(Seq(2)).expect("an answer").is_none());
        assert_eq!(f.stream.state().msgs, 4);
        let consumer = f.stream.consumer("C").expect("the consumer");
        for seq in [1, 3] {
            consumer.ack(Seq(seq), NOW).expect("acknowledged");
        }
        for (seq, _) in std::iter::from_fn(|| next(&consumer)) {
            consumer.ack(Seq(seq), NOW).expect("acknowledged");
        }
        f.store.commit();
        assert_eq!(f.stream.state().msgs, 0);
        assert_eq!(f.stream.state().last_seq, Seq(5));
    });
}

/// A full stream with discard new takes messages again once consumers have made room.
#[test]
fn a_full_work_queue_takes_messages_after_acknowledgements() {
    let config = StreamConfig {
        retention: Retention::WorkQueue,
        discard: Discard::New,
        msgs_max: Some(2),
        ..StreamConfig::default()
    };
    on_both(config, |f| {
        f.append("job");
        f.append("job");
        let append = Append {
            subject: b"job",
            ..Append::default()
        };
        assert!(f.stream.append_nosync(&append).is_err());
        let consumer = f.consumer(ConsumerConfig::default());
        assert_eq!(next(&consumer), Some((1, 1)));
        consumer.ack(Seq(1), NOW).expect("acknowledged");
        assert_eq!(f.append("job"), 3);
    });
}
