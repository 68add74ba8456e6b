//! The store's own threads on the real disk: writers, readers, deletes and a consumer at once, with
//! budgets so small that checkpoints and log files turn over all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use riverlog_engine::consumer::{AckPolicy, ConsumerConfig};
use riverlog_engine::{
    Append, AppendError, Filter, Lsn, Next, Seq, Store, StoreOptions, Stream, StreamConfig,
    TimestampNs,
};

const WRITERS: u64 = 4;
const MESSAGES: u64 = 4_000;

fn options() -> StoreOptions {
    let mut options = StoreOptions::default();
    options.wal.file_bytes = 256 * 1024;
    options.wal.files_max = 4;
    options.wal.control_reserve_bytes = 64 * 1024;
    options.tail_bytes_max = 256 * 1024;
    options.queue_bytes_max = 128 * 1024;
    options.cache_bytes_max = 1 << 20;
    options
}

fn append(store: &Store, stream: &Stream, subject: &str, payload: &[u8]) -> (Seq, Lsn) {
    let append = Append {
        subject: subject.as_bytes(),
        payload,
        ..Append::default()
    };
    loop {
        match stream.append_nosync(&append) {
            Ok(done) => return (done.seq, done.lsn),
            Err(AppendError::Busy) => store.wait_room(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn payload(writer: u64, n: u64) -> Vec<u8> {
    let mut payload = format!("{writer}:{n}:").into_bytes();
    payload.resize(payload.len() + (n as usize * 7) % 300, b'.');
    payload
}

/// Writes, and deletes every fifth of its messages; returns the others.
fn write(store: &Store, stream: &Stream, writer: u64) -> Vec<(Seq, Vec<u8>)> {
    let mut kept = Vec::new();
    let mut last = Lsn(0);
    for n in 0..MESSAGES {
        let payload = payload(writer, n);
        let (seq, lsn) = append(store, stream, &format!("w.{writer}.{}", n % 7), &payload);
        last = lsn;
        if n % 5 == 4 {
            assert!(stream.delete(seq).expect("deletable").is_some());
        } else {
            kept.push((seq, payload));
        }
    }
    store.ticket(last).wait().expect("durable");
    kept
}

#[test]
fn everything_at_once_loses_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(dir.path(), options()).expect("a store");
    let config = StreamConfig {
        name: "S".into(),
        ..StreamConfig::default()
    };
    let (stream, ticket) = store.create_stream(config).expect("a stream");
    ticket.wait().expect("durable");
    let consumer = ConsumerConfig {
        name: "C".into(),
        ack: AckPolicy::Explicit,
        filters: vec!["w.*.3".into()],
        ..ConsumerConfig::default()
    };
    let (consumer, _) = stream.create_consumer(consumer).expect("a consumer");
    let done = Arc::new(AtomicBool::new(false));
    let reader = thread::spawn({
        let (stream, done) = (stream.clone(), done.clone());
        move || {
            let filter = Filter::new(b"w.1.>").expect("a filter");
            while !done.load(Ordering::Acquire) {
                let state = stream.state();
                assert!(state.first_seq.0 <= state.last_seq.0 + 1);
                let _ = stream.last_by_subject(&filter).expect("readable");
                let _ = stream.subjects(&filter).expect("readable");
                let _ = stream.get(Seq(state.last_seq.0 / 2)).expect("readable");
            }
        }
    });
    let drain = thread::spawn({
        let (consumer, done) = (consumer.clone(), done.clone());
        move || {
            let now = TimestampNs(1);
            let mut last = 0;
            loop {
                let finished = done.load(Ordering::Acquire);
                match consumer.next(now, &mut |_| true).expect("readable") {
                    Next::Message(delivery) => {
                        let seq = delivery.message.seq;
                        assert!(seq.0 > last, "{seq} after {last}");
                        last = seq.0;
                        consumer.ack(seq, now).expect("acknowledged");
                    }
                    _ if finished => return,
                    _ => thread::yield_now(),
                }
            }
        }
    });
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (store, stream) = (store.clone(), stream.clone());
            thread::spawn(move || write(&store, &stream, writer))
        })
        .collect();
    let mut kept: Vec<(Seq, Vec<u8>)> = Vec::new();
    for writer in writers {
        kept.extend(writer.join().expect("a writer"));
    }
    done.store(true, Ordering::Release);
    reader.join().expect("the reader");
    drain.join().expect("the consumer");
    check(&stream, &kept);
    assert_eq!(consumer.num_pending().expect("readable"), 0);
    assert_eq!(consumer.info().num_ack_pending, 0);
    store.close();
    drop((store, stream, consumer));

    let (store, report) = Store::open(dir.path(), options()).expect("reopened");
    assert_eq!(report.cut, None);
    let stream = store.stream("S").expect("the stream");
    check(&stream, &kept);
    let consumer = stream.consumer("C").expect("the consumer");
    assert_eq!(consumer.num_pending().expect("readable"), 0);
}

fn check(stream: &Stream, kept: &[(Seq, Vec<u8>)]) {
    let state = stream.state();
    assert_eq!(state.msgs, kept.len() as u64);
    assert_eq!(state.last_seq.0, WRITERS * MESSAGES);
    for (seq, payload) in kept {
        let message = stream.get(*seq).expect("readable").expect("stored");
        assert_eq!(message.payload(), payload);
    }
}
