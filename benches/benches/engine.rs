//! Append, group commit, lookups, reads and consumers of the embedded engine on the real disk.
//!
//! `cargo bench -p riverlog-benches --bench engine`. The store lives below the current directory,
//! so that the figures are those of its file system.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use riverlog_engine::consumer::{AckPolicy, ConsumerConfig};
use riverlog_engine::{
    Append, AppendError, Filter, Lsn, Next, Seq, Store, StoreOptions, Stream, StreamConfig,
    TimestampNs,
};

struct Fixture {
    store: Store,
    _dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        let dir = tempfile::tempdir_in(".").expect("a directory");
        let (store, _) = Store::open(dir.path(), StoreOptions::default()).expect("a store");
        Fixture { store, _dir: dir }
    }

    fn stream(&self, name: &str) -> Stream {
        let config = StreamConfig {
            name: name.into(),
            ..StreamConfig::default()
        };
        let (stream, ticket) = self.store.create_stream(config).expect("a stream");
        ticket.wait().expect("durable");
        stream
    }

    fn append(&self, stream: &Stream, subject: &[u8], payload: &[u8]) -> Lsn {
        let append = Append {
            subject,
            payload,
            ..Append::default()
        };
        loop {
            match stream.append_nosync(&append) {
                Ok(done) => return done.lsn,
                Err(AppendError::Busy) => self.store.wait_room(),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn appends(c: &mut Criterion) {
    let mut group = c.benchmark_group("append_pipelined");
    for bytes in [128usize, 256, 1024] {
        let fixture = Fixture::new();
        let stream = fixture.stream("S");
        let payload = vec![7u8; bytes];
        group.throughput(Throughput::Elements(1));
        group.bench_with_input(
            BenchmarkId::from_parameter(bytes),
            &payload,
            |b, payload| {
                b.iter_custom(|iterations| {
                    let start = Instant::now();
                    let mut last = Lsn(0);
                    for _ in 0..iterations {
                        last = fixture.append(&stream, b"orders.new", payload);
                    }
                    fixture.store.ticket(last).wait().expect("durable");
                    start.elapsed()
                });
            },
        );
    }
    group.finish();
}

fn batches(c: &mut Criterion) {
    const BATCH: usize = 1000;
    let fixture = Fixture::new();
    let stream = fixture.stream("S");
    let message = Append {
        subject: b"orders.new",
        payload: &[7u8; 256],
        ..Append::default()
    };
    let batch = [message; BATCH];
    let mut group = c.benchmark_group("append_batch_durable");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function(BenchmarkId::from_parameter(BATCH), |b| {
        b.iter(|| stream.append_batch(black_box(&batch)).expect("durable"));
    });
    group.finish();
}

fn group_commit(c: &mut Criterion) {
    let mut group = c.benchmark_group("one_message_in_each_of");
    for streams in [1usize, 100] {
        let fixture = Fixture::new();
        let all: Vec<Stream> = (0..streams)
            .map(|n| fixture.stream(&format!("S{n}")))
            .collect();
        group.throughput(Throughput::Elements(streams as u64));
        group.bench_with_input(BenchmarkId::from_parameter(streams), &all, |b, all| {
            b.iter(|| {
                let mut last = Lsn(0);
                for stream in all {
                    last = fixture.append(stream, b"orders.new", &[7u8; 256]);
                }
                fixture.store.ticket(last).wait().expect("durable");
            });
        });
    }
    group.finish();
}

fn reads(c: &mut Criterion) {
    const MESSAGES: u64 = 500_000;
    let fixture = Fixture::new();
    let stream = fixture.stream("S");
    for n in 0..MESSAGES {
        let subject = format!("orders.{}", n % 1000);
        fixture.append(&stream, subject.as_bytes(), &[7u8; 256]);
    }
    fixture.store.barrier().wait().expect("durable");
    let mut seq = 1;
    c.bench_function("get_by_sequence", |b| {
        b.iter(|| {
            seq = seq % MESSAGES + 7919;
            black_box(stream.get(Seq(seq % MESSAGES + 1)).expect("readable"))
        });
    });
    let last = Filter::new(b"orders.77").expect("a filter");
    c.bench_function("last_by_subject", |b| {
        b.iter(|| black_box(stream.last_by_subject(&last).expect("readable")));
    });
    let absent = Filter::new(b"orders.none").expect("a filter");
    c.bench_function("last_by_absent_subject", |b| {
        b.iter(|| black_box(stream.last_by_subject(&absent).expect("readable")));
    });
    c.bench_function("num_pending_of_one_subject", |b| {
        let filters = std::slice::from_ref(&last);
        b.iter(|| black_box(stream.num_pending(filters, Seq(1)).expect("readable")));
    });
    let mut group = c.benchmark_group("messages");
    group.throughput(Throughput::Elements(MESSAGES));
    for (name, filters) in [("all", vec![]), ("matching_all", vec![Filter::all()])] {
        group.bench_function(name, |b| {
            b.iter(|| stream.messages(&filters, Seq(1)..=Seq(MESSAGES)).count());
        });
    }
    group.finish();
}

fn consumers(c: &mut Criterion) {
    const MESSAGES: u64 = 200_000;
    let fixture = Fixture::new();
    let stream = fixture.stream("S");
    for _ in 0..MESSAGES {
        fixture.append(&stream, b"orders.new", &[7u8; 256]);
    }
    fixture.store.barrier().wait().expect("durable");
    let config = ConsumerConfig {
        name: "worker".into(),
        ack: AckPolicy::Explicit,
        ..ConsumerConfig::default()
    };
    let (consumer, created) = stream.create_consumer(config).expect("a consumer");
    created.wait().expect("durable");
    let now = TimestampNs(0);
    let mut group = c.benchmark_group("consumer");
    group.throughput(Throughput::Elements(1));
    group.bench_function("next_and_ack", |b| {
        b.iter(|| {
            let delivery = loop {
                match consumer.next(now, &mut |_| true).expect("readable") {
                    Next::Message(delivery) => break delivery,
                    _ => drop(consumer.reset(Seq(1)).expect("reset")),
                }
            };
            black_box(consumer.ack(delivery.message.seq, now).expect("logged"))
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(3));
    targets = appends, batches, group_commit, reads, consumers
}
criterion_main!(benches);
