//! What a durable append costs: many streams with one message in flight each, and one stream as fast
//! as it goes.

use std::time::{Duration, Instant};

use riverlog_engine::{Append, Store, Stream};

use super::context::{Context, MIB};
use super::load::{check_msgs, create, plain, push};
use super::raw::{FilePerStream, RawLog};
use super::{Phase, Scenario};
use crate::error::BenchResult;
use crate::measure::figure::Gate;
use crate::measure::os::{Usage, pin_to_one_cpu};
use crate::versus::report::median;

/// See the module.
pub const SCENARIO: Scenario = Scenario {
    name: "commit",
    phases: &[
        Phase::new("streams", streams),
        Phase::new("pipelined", pipelined),
        Phase::new("one-core", one_core),
    ],
};

const STREAMS: usize = 100;
const MESSAGE: [u8; 256] = [7; 256];
const ROUNDS: usize = 5;

fn message() -> Append<'static> {
    Append {
        subject: b"orders.new",
        payload: &MESSAGE,
        ..Append::default()
    }
}

/// Median of what each of some rounds gave; there is at least one round.
fn middle(rates: &[f64]) -> f64 {
    median(rates.to_vec()).unwrap_or_default()
}

fn streams(context: &Context) -> BenchResult<()> {
    let time = Duration::from_millis(if context.sizes.quick { 300 } else { 2000 });
    let (store, _) = context.open()?;
    let all: Vec<Stream> = (0..STREAMS)
        .map(|n| create(&store, plain(&format!("S{n}"))))
        .collect::<BenchResult<_>>()?;
    let mut raw = FilePerStream::create(&context.dir.join("raw"), STREAMS)?;
    let mut rates: [Vec<f64>; 4] = Default::default();
    for _ in 0..ROUNDS {
        rates[0].push(in_step(&store, &all, time)?);
        rates[1].push(raw.run(1, &MESSAGE, time)?);
        rates[2].push(blocking(&all, time)?);
        rates[3].push(raw.run(STREAMS, &MESSAGE, time)?);
    }
    let [own, other, own_threads, other_threads] = rates.each_ref().map(|rates| middle(rates));
    let report = &context.report;
    report.figure("100 streams, 1 in flight each, one thread", own, "msgs/s");
    report.figure("file and fsync per stream, one thread", other, "msgs/s");
    report.gated("ratio, one thread", own / other, "x", Gate::AtLeast(50.0));
    report.figure("100 streams, a blocking thread each", own_threads, "msgs/s");
    report.figure(
        "file and fsync per stream, a thread each",
        other_threads,
        "msgs/s",
    );
    report.figure("ratio, a thread each", own_threads / other_threads, "x");
    Ok(())
}

/// One message to every stream, then the next when all are durable. Returns messages per second.
fn in_step(store: &Store, streams: &[Stream], time: Duration) -> BenchResult<f64> {
    let (start, mut sent) = (Instant::now(), 0);
    while start.elapsed() < time {
        for stream in streams {
            push(store, stream, &message())?;
            sent += 1;
        }
        store.barrier().wait()?;
    }
    Ok(f64::from(sent) / start.elapsed().as_secs_f64())
}

/// A thread per stream that appends and waits. Returns messages per second.
fn blocking(streams: &[Stream], time: Duration) -> BenchResult<f64> {
    let start = Instant::now();
    let sent: u64 = std::thread::scope(|scope| {
        let append = |stream: &Stream| -> BenchResult<u64> {
            let mut sent = 0;
            while start.elapsed() < time {
                stream.append(&message())?;
                sent += 1;
            }
            Ok(sent)
        };
        let workers: Vec<_> = streams
            .iter()
            .map(|stream| scope.spawn(move || append(stream)))
            .collect();
        let joined = workers
            .into_iter()
            .map(|worker| worker.join().expect("a worker"));
        joined.sum::<BenchResult<u64>>()
    })?;
    Ok(sent as f64 / start.elapsed().as_secs_f64())
}

/// One round of a pipelined stream.
struct Round {
    msgs_per_second: f64,
    log_bytes_per_second: f64,
    batch_bytes: f64,
    log_bytes: u64,
    cpu_seconds: f64,
}

fn round(store: &Store, stream: &Stream, messages: u64) -> BenchResult<Round> {
    let (before, usage, start) = (store.metrics(), Usage::now()?, Instant::now());
    for _ in 0..messages {
        push(store, stream, &message())?;
    }
    store.barrier().wait()?;
    let seconds = start.elapsed().as_secs_f64();
    let after = store.metrics();
    let log_bytes = after.frame_bytes - before.frame_bytes;
    Ok(Round {
        msgs_per_second: messages as f64 / seconds,
        log_bytes_per_second: log_bytes as f64 / seconds,
        batch_bytes: log_bytes as f64 / (after.frames - before.frames).max(1) as f64,
        log_bytes,
        cpu_seconds: Usage::now()?.cpu_seconds - usage.cpu_seconds,
    })
}

fn pipelined(context: &Context) -> BenchResult<()> {
    let messages = context.sizes.commit_messages();
    let (store, _) = context.open()?;
    let stream = create(&store, plain("pipelined"))?;
    let mut raw = RawLog::create(&context.dir.join("raw-log"))?;
    // The log's files are new, and so are the tails: not counted.
    round(&store, &stream, messages)?;
    let (mut rounds, mut raw_rates) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let own = round(&store, &stream, messages)?;
        let batch = own.batch_bytes as usize;
        raw_rates.push(raw.run(batch, own.log_bytes, Duration::from_secs(10))?);
        rounds.push(own);
    }
    check_msgs(&stream, messages * (ROUNDS as u64 + 1))?;
    let of = |part: fn(&Round) -> f64| middle(&rounds.iter().map(part).collect::<Vec<_>>());
    let shares = rounds.iter().zip(&raw_rates);
    let shares: Vec<f64> = shares
        .map(|(own, raw)| own.log_bytes_per_second / raw * 100.0)
        .collect();
    let report = &context.report;
    report.figure("one stream, pipelined", of(|r| r.msgs_per_second), "msgs/s");
    report.figure("its log", of(|r| r.log_bytes_per_second) / MIB, "MiB/s");
    report.figure("its batches", of(|r| r.batch_bytes) / 1024.0, "KiB");
    report.figure(
        "raw write and fdatasync of the same batches",
        middle(&raw_rates) / MIB,
        "MiB/s",
    );
    report.gated(
        "share of the raw bandwidth",
        middle(&shares),
        "%",
        Gate::AtLeast(70.0),
    );
    let cpu = of(|r| r.cpu_seconds) / messages as f64 * 1e9;
    report.figure("CPU time per message, all threads", cpu, "ns");
    Ok(())
}

fn one_core(context: &Context) -> BenchResult<()> {
    let messages = context.sizes.commit_messages();
    pin_to_one_cpu()?;
    let (store, _) = context.open()?;
    let stream = create(&store, plain("one-core"))?;
    round(&store, &stream, messages / 4)?;
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        rates.push(round(&store, &stream, messages)?.msgs_per_second);
    }
    let gate = Gate::AtLeast(500_000.0);
    context.report.gated(
        "one stream, everything on one core",
        middle(&rates),
        "msgs/s",
        gate,
    );
    Ok(())
}
