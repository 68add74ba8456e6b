//! A stream of which nearly everything was removed: one message in 1,000 is left.

use std::hint::black_box;
use std::time::Duration;

use riverlog_engine::{Append, Filter, PurgeRequest, Seq, Stream};

use super::context::{Context, MIB, timed};
use super::load::{check_msgs, create, existing, plain, push, settle};
use super::{Phase, Scenario};
use crate::error::{BenchResult, check};
use crate::measure::figure::Gate;
use crate::measure::latency::Latencies;
use crate::measure::os::{Usage, file_bytes};
use crate::measure::random::Random;

/// See the module.
pub const SCENARIO: Scenario = Scenario {
    name: "sparse",
    phases: &[Phase::new("fill", fill), Phase::new("reopened", reopened)],
};

const LIVE_EVERY: u64 = 1000;
/// Messages between two purges.
const STEP: u64 = 1_000_000;

fn fill(context: &Context) -> BenchResult<()> {
    let count = context.sizes.sequences();
    let (store, _) = context.open()?;
    let stream = create(&store, plain("S"))?;
    let purge = PurgeRequest {
        filter: Some(Filter::new(b"drop.*").expect("a valid filter")),
        ..PurgeRequest::default()
    };
    let (result, seconds) = timed(|| -> BenchResult<f64> {
        let mut purge_s = 0.0;
        for seq in 1..=count {
            let keep = seq.is_multiple_of(LIVE_EVERY);
            let append = Append {
                subject: if keep { b"keep.a" } else { b"drop.a" },
                payload: b"12345678",
                ..Append::default()
            };
            push(&store, &stream, &append)?;
            if seq.is_multiple_of(STEP) || seq == count {
                store.barrier().wait()?;
                let (purged, seconds) = timed(|| stream.purge(&purge));
                purged?.1.wait()?;
                purge_s += seconds;
            }
        }
        Ok(purge_s)
    });
    let purge_s = result?;
    let report = &context.report;
    report.figure("sequences", count as f64, "");
    report.figure("append and purge", count as f64 / seconds, "msgs/s");
    report.figure("of that time in purges", purge_s / seconds * 100.0, "%");
    settle(Duration::from_secs(300))?;
    check_msgs(&stream, count / LIVE_EVERY)?;
    state(context, &stream, "state()")?;
    let usage = Usage::now()?;
    report.figure("RSS", usage.rss_bytes as f64 / MIB, "MiB");
    report.figure("peak RSS", usage.rss_peak_bytes as f64 / MIB, "MiB");
    let dir = context.store_dir();
    report.figure(
        "segments",
        file_bytes(&dir.join("seg"))? as f64 / MIB,
        "MiB",
    );
    report.figure(
        "index runs",
        file_bytes(&dir.join("idx"))? as f64 / MIB,
        "MiB",
    );
    report.figure(
        "metadata",
        file_bytes(&dir.join("meta"))? as f64 / MIB,
        "MiB",
    );
    Ok(())
}

fn state(context: &Context, stream: &Stream, what: &str) -> BenchResult<()> {
    let mut latencies = Latencies::with_capacity(1000);
    for _ in 0..1000 {
        black_box(latencies.time(|| stream.state()));
    }
    let [median, slowest] = latencies.percentiles([50.0, 100.0]);
    let report = &context.report;
    report.figure(&format!("{what}, median"), median / 1000.0, "us");
    let gate = Gate::AtMost(5.0);
    report.gated(
        &format!("{what}, slowest of 1,000"),
        slowest / 1e6,
        "ms",
        gate,
    );
    Ok(())
}

/// Everything that a process needs for the stream once it is open, with nothing read into the cache.
fn reopened(context: &Context) -> BenchResult<()> {
    let count = context.sizes.sequences();
    let before = Usage::now()?.rss_bytes;
    let (opened, seconds) = timed(|| context.open());
    let (store, _) = opened?;
    let stream = existing(&store, "S")?;
    check_msgs(&stream, count / LIVE_EVERY)?;
    let report = &context.report;
    report.figure("open", seconds, "s");
    state(context, &stream, "reopened: state()")?;
    let grown = Usage::now()?.rss_bytes.saturating_sub(before);
    let gate = Gate::AtMost(16.0);
    report.gated(
        "RSS that the open store takes, removed sequences and all",
        grown as f64 / MIB,
        "MiB",
        gate,
    );
    let mut random = Random::new(6);
    let mut latencies = Latencies::with_capacity(1000);
    for _ in 0..1000 {
        let from = random.below(count - LIVE_EVERY) + 1;
        let found = latencies.time(|| stream.next_message(&[], Seq(from)))?;
        let wanted = from.next_multiple_of(LIVE_EVERY);
        check(found.is_some_and(|message| message.seq.0 == wanted), || {
            format!("the message after {from} is not {wanted}")
        })?;
    }
    context.latency(
        "next message from anywhere",
        latencies.percentiles([50.0, 99.0]),
        None,
    );
    Ok(())
}
