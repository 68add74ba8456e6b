//! The work, in processes of their own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::contender::{Contender, PAYLOAD_BYTES, Rival};
use crate::error::{BenchError, BenchResult, check};
use crate::measure::child::{Ending, Reporter};
use crate::measure::latency::Latencies;
use crate::measure::os::{Usage, drop_page_cache, kill_self};
use crate::measure::random::{Random, scramble};
use crate::versus::process::disk_bytes;

const MIB: f64 = 1024.0 * 1024.0;
const THREADS: u64 = 8;
const BATCH: u64 = 1000;
const POINT_READS: usize = 50_000;
/// Batches end after so many seconds: some need half an hour for a million messages.
const LOAD_SECONDS_MAX: f64 = 60.0;

/// How much work there is.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Messages of the batches and of the reads.
    pub messages: u64,
    /// Seconds of the appends that wait for the disk one by one.
    pub seconds: f64,
}

/// One process.
pub struct Phase {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does.
    pub run: fn(&Rival, &Path, Work) -> BenchResult<()>,
    /// How it ends.
    pub ending: Ending,
    /// Whether it starts in an empty directory.
    pub fresh: bool,
    /// Whether a contender can take part.
    pub applies: fn(&Rival) -> bool,
}

/// The phases, in the order of the table's rows.
pub const PHASES: &[Phase] = &[
    Phase {
        name: "one",
        run: one,
        ending: Ending::Exit,
        fresh: true,
        applies: |_| true,
    },
    Phase {
        name: "threads",
        run: threads,
        ending: Ending::Exit,
        fresh: true,
        applies: |_| true,
    },
    Phase {
        name: "load",
        run: load,
        ending: Ending::Killed,
        fresh: true,
        applies: |_| true,
    },
    Phase {
        name: "read",
        run: read,
        ending: Ending::Exit,
        fresh: false,
        applies: |_| true,
    },
    Phase {
        name: "keys",
        run: keys,
        ending: Ending::Killed,
        fresh: true,
        applies: |rival| rival.has_keys,
    },
    Phase {
        name: "read-keys",
        run: read_keys,
        ending: Ending::Exit,
        fresh: false,
        applies: |rival| rival.has_keys,
    },
];

/// Payload number `n`, which no compression shrinks.
pub fn payload(n: u64) -> Vec<u8> {
    let mut bytes = vec![0; PAYLOAD_BYTES];
    Random::new(n << 8).fill(&mut bytes);
    bytes
}

fn key(n: u64) -> String {
    format!("users.{:016x}", scramble(n))
}

fn one(rival: &Rival, dir: &Path, work: Work) -> BenchResult<()> {
    let store = (rival.open)(dir)?;
    let time = Duration::from_secs_f64(work.seconds);
    let mut latencies = Latencies::with_capacity(1 << 20);
    let (start, mut sent) = (Instant::now(), 0);
    while start.elapsed() < time {
        let payload = payload(sent);
        latencies.time(|| store.append(0, &payload))?;
        sent += 1;
    }
    let rate = sent as f64 / start.elapsed().as_secs_f64();
    Reporter.figure("durable append, 1 in flight", rate, "msgs/s");
    let [median, p99] = latencies.percentiles([50.0, 99.0]);
    Reporter.figure("its latency, median", median / 1000.0, "us");
    Reporter.figure("its latency, p99", p99 / 1000.0, "us");
    let store = match rival.reads_all {
        true => store,
        false => {
            drop(store);
            (rival.open)(dir)?
        }
    };
    check_all(rival, &*store, sent)
}

fn threads(rival: &Rival, dir: &Path, work: Work) -> BenchResult<()> {
    let store = (rival.open)(dir)?;
    let time = Duration::from_secs_f64(work.seconds);
    let start = Instant::now();
    let sent: u64 = std::thread::scope(|scope| {
        let append = |lane: u64| -> BenchResult<u64> {
            let mut sent = 0;
            while start.elapsed() < time {
                store.append(lane, &payload(sent))?;
                sent += 1;
            }
            Ok(sent)
        };
        let workers: Vec<_> = (0..THREADS)
            .map(|lane| scope.spawn(move || append(lane)))
            .collect();
        let joined = workers
            .into_iter()
            .map(|worker| worker.join().expect("a worker"));
        joined.sum::<BenchResult<u64>>()
    })?;
    let rate = sent as f64 / start.elapsed().as_secs_f64();
    Reporter.figure("durable append, 8 threads", rate, "msgs/s");
    Ok(())
}

fn load(rival: &Rival, dir: &Path, work: Work) -> BenchResult<()> {
    let store = (rival.open)(dir)?;
    let (mut seconds, mut messages) = (0.0, 0);
    for first in (0..work.messages).step_by(BATCH as usize) {
        if seconds > LOAD_SECONDS_MAX {
            break;
        }
        let last = (first + BATCH).min(work.messages);
        let payloads: Vec<Vec<u8>> = (first..last).map(payload).collect();
        let start = Instant::now();
        store.append_batch(&payloads)?;
        seconds += start.elapsed().as_secs_f64();
        messages = last;
    }
    std::fs::write(loaded_file(dir), messages.to_string())
        .map_err(|err| BenchError::Io("noting how many messages there are", err))?;
    let rate = messages as f64 / seconds;
    Reporter.figure("durable batches of 1,000", rate, "msgs/s");
    let usage = Usage::now()?;
    let peak = usage.rss_peak_bytes as f64 / MIB;
    Reporter.figure("peak RSS while writing", peak, "MiB");
    let payload_bytes = (messages * PAYLOAD_BYTES as u64) as f64;
    let per_payload = disk_bytes(dir)? as f64 / payload_bytes;
    Reporter.figure("disk bytes per payload byte", per_payload, "");
    let written = usage.device_write_bytes as f64 / payload_bytes;
    Reporter.figure("bytes written per payload byte", written, "");
    kill_self()
}

/// Says how many messages [`load`] wrote.
fn loaded_file(dir: &Path) -> PathBuf {
    dir.with_extension("loaded")
}

fn loaded(dir: &Path) -> BenchResult<u64> {
    let text = std::fs::read_to_string(loaded_file(dir))
        .map_err(|err| BenchError::Io("asking how many messages there are", err))?;
    let number = text.parse();
    number.map_err(|_| BenchError::Failed(format!("{text:?} is no number of messages")))
}

fn read(rival: &Rival, dir: &Path, _: Work) -> BenchResult<()> {
    let messages = loaded(dir)?;
    drop_page_cache(dir)?;
    let start = Instant::now();
    let store = (rival.open)(dir)?;
    Reporter.figure(
        "reopen after kill -9",
        start.elapsed().as_secs_f64() * 1000.0,
        "ms",
    );
    let opened = Usage::now()?.rss_bytes as f64 / MIB;
    Reporter.figure("RSS when open", opened, "MiB");
    let start = Instant::now();
    check_all(rival, &*store, messages)?;
    if rival.reads_all {
        let rate = messages as f64 / start.elapsed().as_secs_f64();
        Reporter.figure("sequential read, checked", rate, "msgs/s");
    }
    if rival.reads_by_number {
        point_reads(&*store, messages)?;
    }
    let rss = Usage::now()?.rss_peak_bytes as f64 / MIB;
    Reporter.figure("peak RSS while reading", rss, "MiB");
    Ok(())
}

/// Reads everything that was appended one after the other and compares it.
fn check_all(rival: &Rival, store: &dyn Contender, messages: u64) -> BenchResult<()> {
    if !rival.reads_all {
        let right = store.checked_at_open();
        return check(right == Some(messages), || {
            format!("{right:?} of {messages} messages are there")
        });
    }
    let mut n = 0;
    store.read_all(&mut |found| {
        check(found == payload(n), || {
            format!("message {n} is not what was written")
        })?;
        n += 1;
        Ok(())
    })?;
    check(n == messages, || {
        format!("{n} of {messages} messages are there")
    })
}

fn point_reads(store: &dyn Contender, messages: u64) -> BenchResult<()> {
    let mut random = Random::new(11);
    let mut latencies = Latencies::with_capacity(POINT_READS);
    for _ in 0..POINT_READS {
        let n = random.below(messages);
        let found = latencies.time(|| store.get(n))?;
        check(found == Some(payload(n)), || {
            format!("message {n} is not what was written")
        })?;
    }
    let [median, p99] = latencies.percentiles([50.0, 99.0]);
    Reporter.figure("read by number, median", median / 1000.0, "us");
    Reporter.figure("read by number, p99", p99 / 1000.0, "us");
    Ok(())
}

fn keys(rival: &Rival, dir: &Path, work: Work) -> BenchResult<()> {
    let store = (rival.open)(dir)?;
    let mut seconds = 0.0;
    for first in (0..work.messages).step_by(BATCH as usize) {
        let last = (first + BATCH).min(work.messages);
        let values: Vec<(String, Vec<u8>)> = (first..last).map(|n| (key(n), payload(n))).collect();
        let start = Instant::now();
        store.put_keys(&values)?;
        seconds += start.elapsed().as_secs_f64();
    }
    let rate = work.messages as f64 / seconds;
    Reporter.figure("random keys, durable batches of 1,000", rate, "msgs/s");
    kill_self()
}

fn read_keys(rival: &Rival, dir: &Path, work: Work) -> BenchResult<()> {
    let start = Instant::now();
    let store = (rival.open)(dir)?;
    Reporter.figure(
        "reopen with keys",
        start.elapsed().as_secs_f64() * 1000.0,
        "ms",
    );
    let mut random = Random::new(12);
    let mut present = Latencies::with_capacity(POINT_READS);
    let mut absent = Latencies::with_capacity(POINT_READS);
    for _ in 0..POINT_READS {
        let n = random.below(work.messages);
        let (here, nowhere) = (key(n), key(n + work.messages));
        let found = present.time(|| store.get_key(&here))?;
        check(found == Some(payload(n)), || {
            format!("key {n} is not what was written")
        })?;
        let found = absent.time(|| store.get_key(&nowhere))?;
        check(found.is_none(), || format!("key {n} came from nowhere"))?;
    }
    for (what, times) in [("a present", &mut present), ("an absent", &mut absent)] {
        let [median, p99] = times.percentiles([50.0, 99.0]);
        Reporter.figure(&format!("read {what} key, median"), median / 1000.0, "us");
        Reporter.figure(&format!("read {what} key, p99"), p99 / 1000.0, "us");
    }
    let rss = Usage::now()?.rss_peak_bytes as f64 / MIB;
    Reporter.figure("peak RSS while reading keys", rss, "MiB");
    Ok(())
}
