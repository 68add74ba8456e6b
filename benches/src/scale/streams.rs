//! Many small streams: they must share files and syncs.

use riverlog_engine::{Append, Seq, Store};

use super::context::{Context, MIB, timed};
use super::load::{existing, plain, push};
use super::{Phase, Scenario};
use crate::error::{BenchResult, check};
use crate::measure::figure::Gate;
use crate::measure::os::{Usage, files};
use crate::measure::random::Random;

/// See the module.
pub const SCENARIO: Scenario = Scenario {
    name: "streams",
    phases: &[
        Phase::new("create", create_all),
        Phase::new("reopened", reopened),
    ],
};

/// Files that this many streams may take: they are few because the streams share them.
const FILES_MAX: f64 = 100.0;

fn name(n: u64) -> String {
    format!("device-{n:08}")
}

fn append_to_all(context: &Context, store: &Store, payload: &[u8]) -> BenchResult<()> {
    for n in 0..context.sizes.streams() {
        let append = Append {
            subject: b"status",
            payload,
            ..Append::default()
        };
        push(store, &existing(store, &name(n))?, &append)?;
    }
    Ok(store.barrier().wait()?)
}

fn create_all(context: &Context) -> BenchResult<()> {
    let count = context.sizes.streams();
    let before = Usage::now()?.rss_bytes;
    let (store, _) = context.open()?;
    let (result, seconds) = timed(|| -> BenchResult<()> {
        for n in 0..count {
            store.create_stream(plain(&name(n)))?;
        }
        Ok(store.barrier().wait()?)
    });
    result?;
    let report = &context.report;
    report.figure("streams", count as f64, "");
    report.figure("created", count as f64 / seconds, "1/s");
    let syncs = store.metrics().syncs;
    let (result, seconds) = timed(|| append_to_all(context, &store, b"first"));
    result?;
    report.figure(
        "one message to each, durable",
        count as f64 / seconds,
        "msgs/s",
    );
    let syncs = store.metrics().syncs - syncs;
    report.figure("syncs for them", syncs as f64, "");
    let grown = Usage::now()?.rss_bytes.saturating_sub(before) as f64;
    report.figure("RSS for each", grown / count as f64, "B");
    let ((), seconds) = timed(|| store.close());
    report.figure("close, which seals all of them", seconds, "s");
    count_files(context, "files when closed")
}

fn count_files(context: &Context, what: &str) -> BenchResult<()> {
    let count = files(&context.store_dir())?.len() as f64;
    context
        .report
        .gated(what, count, "", Gate::AtMost(FILES_MAX));
    Ok(())
}

fn reopened(context: &Context) -> BenchResult<()> {
    let count = context.sizes.streams();
    let before = Usage::now()?.rss_bytes;
    let (opened, seconds) = timed(|| context.open());
    let (store, recovery) = opened?;
    check(recovery.streams as u64 == count, || {
        format!("{} streams instead of {count}", recovery.streams)
    })?;
    let report = &context.report;
    report.figure("open", seconds, "s");
    let usage = Usage::now()?;
    let grown = usage.rss_bytes.saturating_sub(before) as f64;
    report.figure("reopened: RSS for each", grown / count as f64, "B");
    report.figure("reopened: RSS", usage.rss_bytes as f64 / MIB, "MiB");
    append_to_all(context, &store, b"second")?;
    let mut random = Random::new(8);
    for n in (0..1000).map(|_| random.below(count)) {
        let stream = existing(&store, &name(n))?;
        for (seq, payload) in [(1, &b"first"[..]), (2, b"second")] {
            let message = stream.get(Seq(seq))?;
            check(
                message.is_some_and(|message| message.payload() == payload),
                || format!("message {seq} of {} is not what was written", name(n)),
            )?;
        }
    }
    let ((), seconds) = timed(|| store.close());
    report.figure("close after one more message to each", seconds, "s");
    count_files(context, "files after a second message to each")
}
