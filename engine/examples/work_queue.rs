//! A work queue: every job is done by one worker, and leaves the stream when it is acknowledged.
//!
//! ```text
//! cargo run -p riverlog-engine --example work_queue
//! ```

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use riverlog_engine::consumer::{AckPolicy, ConsumerConfig};
use riverlog_engine::{
    Append, Consumer, Next, Retention, Store, StoreOptions, StreamConfig, TimestampNs,
};

const JOBS: usize = 200;
const WORKERS: usize = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let (store, _) = Store::open(dir.path(), StoreOptions::default())?;
    let config = StreamConfig {
        name: "jobs".into(),
        retention: Retention::WorkQueue,
        ..StreamConfig::default()
    };
    let (stream, _) = store.create_stream(config)?;
    let config = ConsumerConfig {
        name: "workers".into(),
        durable: true,
        ack: AckPolicy::Explicit,
        ack_wait_ns: 30_000_000_000,
        ..ConsumerConfig::default()
    };
    let (consumer, created) = stream.create_consumer(config)?;
    created.wait()?;

    for n in 0..JOBS {
        let payload = format!("job {n}");
        let job = Append {
            subject: b"jobs.resize",
            payload: payload.as_bytes(),
            ..Append::default()
        };
        stream.append_nosync(&job)?;
    }
    // One wait for all of them.
    store.barrier().wait()?;
    println!("{} jobs queued", stream.state().msgs);

    let done = AtomicUsize::new(0);
    let failures = AtomicUsize::new(0);
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (consumer, done, failures) = (&consumer, &done, &failures);
            scope.spawn(move || work(worker, consumer, done, failures));
        }
    });
    println!(
        "{} jobs done, {} of them at the second attempt",
        done.load(Ordering::Relaxed),
        failures.load(Ordering::Relaxed)
    );
    println!("{} jobs left in the stream", stream.state().msgs);
    assert_eq!(stream.state().msgs, 0);
    store.close();
    Ok(())
}

fn work(worker: usize, consumer: &Consumer, done: &AtomicUsize, failures: &AtomicUsize) {
    while done.load(Ordering::Relaxed) < JOBS {
        match consumer.next(now(), &mut |_| true) {
            Ok(Next::Message(delivery)) => {
                let seq = delivery.message.seq;
                // Every tenth job fails the first time: it is handed back and comes again.
                if seq.0 % 10 == 0 && delivery.deliveries == 1 {
                    failures.fetch_add(1, Ordering::Relaxed);
                    if let Err(error) = consumer.nak(seq, None, now()) {
                        eprintln!("worker {worker}: {error}");
                    }
                    continue;
                }
                match consumer.ack(seq, now()) {
                    // Nobody needs to wait for the disk here: a lost acknowledgement means that
                    // the job is done again.
                    Ok(_) => done.fetch_add(1, Ordering::Relaxed),
                    Err(error) => return eprintln!("worker {worker}: {error}"),
                };
            }
            Ok(Next::TooLarge(_) | Next::Idle(_)) => thread::sleep(Duration::from_millis(1)),
            Err(error) => return eprintln!("worker {worker}: {error}"),
        }
    }
}

fn now() -> TimestampNs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ns = since.unwrap_or_default().as_nanos();
    TimestampNs(i64::try_from(ns).unwrap_or(i64::MAX))
}
