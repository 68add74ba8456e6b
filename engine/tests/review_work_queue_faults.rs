//! A work queue on a disk that fails now and then: what was acknowledged leaves in the end.

mod support;

use std::path::Path;

use riverlog_engine::consumer::{AckPolicy, ConsumerConfig};
use riverlog_engine::io::Env;
use riverlog_engine::io::sim::{Fault, SimClock, SimDisk, Trigger};
use riverlog_engine::{Append, Next, Retention, Seq, Store, StreamConfig, TimestampNs};

const NOW: TimestampNs = TimestampNs(1_000);

#[test]
fn a_message_whose_removal_failed_leaves_with_the_next_acknowledgement() {
    for retention in [Retention::WorkQueue, Retention::Interest] {
        let disk = SimDisk::new(1);
        let env = Env::simulated(&disk, &SimClock::new(NOW.0), 1);
        let mut options = support::options();
        options.cache_bytes_max = 0;
        let (store, _) = Store::open_in(env, Path::new(support::DIR), options).expect("opens");
        let config = StreamConfig {
            name: "S".into(),
            retention,
            ..StreamConfig::default()
        };
        let (stream, _) = store.create_stream(config).expect("created");
        let config = ConsumerConfig {
            name: "C".into(),
            durable: true,
            ack: AckPolicy::Explicit,
            ..ConsumerConfig::default()
        };
        let (consumer, _) = stream.create_consumer(config).expect("created");
        for _ in 0..3 {
            let append = Append {
                subject: b"s",
                ..Append::default()
            };
            stream.append_nosync(&append).expect("accepted");
        }
        store.checkpoint().expect("sealed");
        for _ in 0..3 {
            let next = consumer.next(NOW, &mut |_| true).expect("readable");
            assert!(matches!(next, Next::Message(_)));
        }
        disk.inject_on("seg", Fault::ReadError, Trigger::Always);
        consumer
            .ack(Seq(2), NOW)
            .expect_err("its size cannot be read");
        disk.clear_faults();
        assert_eq!(stream.state().msgs, 3);
        // The receiver asks again, as it got no answer.
        consumer.ack(Seq(2), NOW).expect("removed");
        assert_eq!(stream.state().msgs, 2);
        assert!(stream.get(Seq(2)).expect("readable").is_none());
    }
}
