//! Many idle durable consumers.

use riverlog_engine::consumer::{AckPolicy, ConsumerConfig};
use riverlog_engine::{Append, Next, Seq, Store, Stream, TimestampNs};

use super::context::{Context, timed};
use super::load::{create, existing, plain};
use super::{Phase, Scenario};
use crate::error::{BenchError, BenchResult, check};
use crate::measure::os::{Usage, file_bytes, kill_self};

/// See the module.
pub const SCENARIO: Scenario = Scenario {
    name: "consumers",
    phases: &[
        Phase::new("create", create_all),
        Phase::killed("reopened", reopened),
        Phase::new("killed", killed),
    ],
};

const ACK_WAIT_NS: u64 = 30_000_000_000;

fn name(n: u64) -> String {
    format!("worker-{n:08}")
}

fn create_all(context: &Context) -> BenchResult<()> {
    let count = context.sizes.consumers();
    let (store, _) = context.open()?;
    let stream = create(&store, plain("S"))?;
    send(&stream)?;
    let before = Usage::now()?.rss_bytes;
    let (result, seconds) = timed(|| -> BenchResult<()> {
        for n in 0..count {
            let config = ConsumerConfig {
                name: name(n),
                durable: true,
                filters: vec![format!("orders.{}", n % 1000)],
                ack: AckPolicy::Explicit,
                ack_wait_ns: ACK_WAIT_NS,
                ..ConsumerConfig::default()
            };
            stream.create_consumer(config)?;
        }
        Ok(store.barrier().wait()?)
    });
    result?;
    let report = &context.report;
    report.figure("durable consumers", count as f64, "");
    report.figure("created", count as f64 / seconds, "1/s");
    let grown = Usage::now()?.rss_bytes.saturating_sub(before) as f64;
    report.figure("RSS for each", grown / count as f64, "B");
    close(context, store, "close, which stores all of them")
}

fn send(stream: &Stream) -> BenchResult<()> {
    let append = Append {
        subject: b"orders.7",
        payload: b"hello",
        ..Append::default()
    };
    stream.append(&append)?;
    Ok(())
}

/// Closes the store, which makes a checkpoint of everything that changed.
fn close(context: &Context, store: Store, what: &str) -> BenchResult<()> {
    let before = Usage::now()?.write_call_bytes;
    let ((), seconds) = timed(|| store.close());
    let written = Usage::now()?.write_call_bytes - before;
    let report = &context.report;
    report.figure(what, seconds * 1000.0, "ms");
    report.figure(
        &format!("{what}: bytes written"),
        written as f64 / 1024.0,
        "KiB",
    );
    Ok(())
}

fn reopened(context: &Context) -> BenchResult<()> {
    let count = context.sizes.consumers();
    let before = Usage::now()?.rss_bytes;
    let (opened, seconds) = timed(|| context.open());
    let (store, _) = opened?;
    let stream = existing(&store, "S")?;
    let found = stream.consumers().len() as u64;
    check(found == count, || {
        format!("{found} consumers instead of {count}")
    })?;
    let report = &context.report;
    report.figure("open", seconds, "s");
    let grown = Usage::now()?.rss_bytes.saturating_sub(before) as f64;
    report.figure("reopened: RSS for each", grown / count as f64, "B");
    let bytes = file_bytes(&context.store_dir().join("meta"))? as f64;
    report.figure("metadata for each", bytes / count as f64, "B");
    work(&stream, 7)?;
    close(context, store, "close after one of them worked")?;
    // A second store in the same process: now with a message that nobody took before the kill.
    let (store, _) = context.open()?;
    send(&existing(&store, "S")?)?;
    kill_self()
}

/// Consumer number `n` takes the next message and acknowledges it.
fn work(stream: &Stream, n: u64) -> BenchResult<()> {
    let missing = || BenchError::Failed(format!("{} is gone", name(n)));
    let consumer = stream.consumer(&name(n)).ok_or_else(missing)?;
    let Next::Message(delivery) = consumer.next(TimestampNs(0), &mut |_| true)? else {
        return Err(BenchError::Failed(format!("{} gets nothing", name(n))));
    };
    let ack = consumer.ack(delivery.message.seq, TimestampNs(0))?;
    stream.ticket(ack.lsn).wait()?;
    Ok(())
}

fn killed(context: &Context) -> BenchResult<()> {
    let (opened, seconds) = timed(|| context.open());
    let (store, _) = opened?;
    context.report.figure("open after kill -9", seconds, "s");
    let stream = existing(&store, "S")?;
    let floor = |n: u64| {
        let consumer = stream.consumer(&name(n));
        consumer.map(|consumer| consumer.info().ack_floor.stream_seq)
    };
    check(floor(7) == Some(Seq(1)), || {
        "an acknowledgement is lost".into()
    })?;
    check(floor(8) == Some(Seq(0)), || {
        "an acknowledgement came from nowhere".into()
    })?;
    work(&stream, 7)
}
