//! Many message ids in the window.

use std::time::Duration;

use riverlog_engine::{Append, AppendError, Seq, Store, Stream, StreamConfig};

use super::context::{Context, MIB, timed};
use super::load::{check_msgs, create, existing, push, settle};
use super::{Phase, Scenario};
use crate::error::{BenchResult, check};
use crate::measure::figure::Gate;
use crate::measure::latency::Latencies;
use crate::measure::os::{Usage, kill_self};
use crate::measure::random::{Random, scramble};

/// See the module.
pub const SCENARIO: Scenario = Scenario {
    name: "dedup",
    phases: &[
        Phase::killed("fill", fill),
        Phase::new("reopened", reopened),
    ],
};

/// Longer than the scenario takes, so that no id leaves the window.
const WINDOW_NS: u64 = 24 * 3600 * 1_000_000_000;
const LOOKUPS: usize = 50_000;

/// Message id number `n`, shaped like the usual random ones.
fn id(n: u64) -> String {
    format!("{:016x}{:06x}", scramble(n), n & 0xff_ffff)
}

fn append<'a>(id: &'a [u8]) -> Append<'a> {
    Append {
        subject: b"orders.new",
        payload: &[7; 64],
        msg_id: Some(id),
        ..Append::default()
    }
}

fn memory(context: &Context, when: &str) -> BenchResult<()> {
    let usage = Usage::now()?;
    let gate = Gate::AtMost(200.0);
    let rss = usage.rss_bytes as f64 / MIB;
    context
        .report
        .gated(&format!("RSS, {when}"), rss, "MiB", gate);
    let peak = usage.rss_peak_bytes as f64 / MIB;
    context
        .report
        .figure(&format!("peak RSS, {when}"), peak, "MiB");
    Ok(())
}

fn fill(context: &Context) -> BenchResult<()> {
    let count = context.sizes.ids();
    let (store, _) = context.open()?;
    let config = StreamConfig {
        name: "S".into(),
        dedup_window_ns: WINDOW_NS,
        ..StreamConfig::default()
    };
    let stream = create(&store, config)?;
    let (result, seconds) = timed(|| -> BenchResult<()> {
        for n in 0..count {
            let appended = push(&store, &stream, &append(id(n).as_bytes()))?;
            check(!appended.duplicate, || format!("id {n} counts as seen"))?;
        }
        Ok(store.barrier().wait()?)
    });
    result?;
    let report = &context.report;
    report.figure("ids in the window", count as f64, "");
    report.figure("append with a new id", count as f64 / seconds, "msgs/s");
    settle(Duration::from_secs(120))?;
    memory(context, "filled")?;
    duplicates(context, &store, &stream, "append of a seen id")?;
    memory(context, "after the seen ids")?;
    kill_self()
}

fn duplicates(context: &Context, store: &Store, stream: &Stream, what: &str) -> BenchResult<()> {
    let count = context.sizes.ids();
    let mut random = Random::new(7);
    let mut latencies = Latencies::with_capacity(LOOKUPS);
    for _ in 0..LOOKUPS {
        let n = random.below(count);
        let id = id(n);
        let appended = loop {
            match latencies.time(|| stream.append_nosync(&append(id.as_bytes()))) {
                Err(AppendError::Busy) => store.wait_room(),
                other => break other?,
            }
        };
        check(appended.duplicate && appended.seq == Seq(n + 1), || {
            format!("id {n} was not recognised")
        })?;
    }
    context.latency(what, latencies.percentiles([50.0, 99.0]), None);
    Ok(())
}

fn reopened(context: &Context) -> BenchResult<()> {
    let (opened, seconds) = timed(|| context.open());
    let (store, _) = opened?;
    let stream = existing(&store, "S")?;
    context.report.figure("open after kill -9", seconds, "s");
    check_msgs(&stream, context.sizes.ids())?;
    duplicates(context, &store, &stream, "reopened: append of a seen id")?;
    memory(context, "reopened, after the seen ids")
}
