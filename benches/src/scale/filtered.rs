//! Reading a few messages out of many, or all of them through a filter.

use std::time::Duration;

use riverlog_engine::{Append, Stream};

use super::context::{Context, timed};
use super::load::{check_msgs, create, existing, plain, push, read, settle};
use super::{Phase, Scenario, num_pending};
use crate::error::{BenchResult, check};
use crate::measure::figure::Gate;
use crate::measure::os::drop_page_cache;
use crate::versus::report::median;

/// See the module.
pub const SCENARIO: Scenario = Scenario {
    name: "filtered",
    phases: &[
        Phase::new("fill", fill),
        Phase::new("few", few),
        Phase::new("all", all),
        Phase::new("num-pending", num_pending::run),
    ],
};

/// One message in so many has the subject [`RARE`].
const RARE_EVERY: u64 = 100_000;
/// The subject of the few.
pub const RARE: &str = "audit.denied";
/// Filters that match half of the messages.
const HALF: [&str; 5] = [
    "orders.r0.>",
    "orders.r1.>",
    "orders.r2.>",
    "orders.r3.>",
    "orders.r4.>",
];
const PAYLOAD: [u8; 128] = [7; 128];

/// The subject of the message at `seq`: one of 1,000 in ten regions, or [`RARE`].
pub fn subject(seq: u64) -> String {
    if seq.is_multiple_of(RARE_EVERY) {
        return RARE.into();
    }
    format!("orders.r{}.{}", seq / 100 % 10, seq % 100)
}

fn fill(context: &Context) -> BenchResult<()> {
    let count = context.sizes.messages();
    let (store, _) = context.open()?;
    let stream = create(&store, plain("S"))?;
    let subjects: Vec<String> = (0..1000).map(|n| subject(n + 1000)).collect();
    for seq in 1..=count {
        let subject = match seq.is_multiple_of(RARE_EVERY) {
            true => RARE,
            false => subjects[(seq % 1000) as usize].as_str(),
        };
        let append = Append {
            subject: subject.as_bytes(),
            payload: &PAYLOAD,
            ..Append::default()
        };
        push(&store, &stream, &append)?;
    }
    store.barrier().wait()?;
    settle(Duration::from_secs(120))?;
    check_msgs(&stream, count)?;
    context.report.figure("messages", count as f64, "");
    Ok(())
}

fn few(context: &Context) -> BenchResult<()> {
    let count = context.sizes.messages();
    let (store, _) = context.open()?;
    let stream = existing(&store, "S")?;
    drop_page_cache(&context.store_dir())?;
    let (found, filtered_s) = timed(|| read(&stream, &[RARE], &mut |_| true));
    check(found? == count / RARE_EVERY, || {
        "the filter misses some".into()
    })?;
    // The scan comes second: it finds the blocks of the first one in the cache.
    let (scanned, scan_s) = timed(|| scan_for(&stream, RARE));
    check(scanned? == count / RARE_EVERY, || {
        "the scan misses some".into()
    })?;
    let report = &context.report;
    let found = (count / RARE_EVERY) as f64;
    report.figure("1 match in 100,000: matches", found, "");
    report.figure("filtered read, nothing cached", filtered_s * 1000.0, "ms");
    report.figure("scan, the reader filters", scan_s * 1000.0, "ms");
    let gate = Gate::AtLeast(100.0);
    report.gated("scan over filtered read", scan_s / filtered_s, "x", gate);
    Ok(())
}

fn scan_for(stream: &Stream, subject: &str) -> BenchResult<u64> {
    let mut found = 0;
    read(stream, &[], &mut |message| {
        found += u64::from(message.subject() == subject.as_bytes());
        true
    })?;
    Ok(found)
}

fn all(context: &Context) -> BenchResult<()> {
    const ROUNDS: usize = 5;
    let count = context.sizes.messages();
    let limit = count.min(2_000_000);
    let (store, _) = context.open()?;
    let stream = existing(&store, "S")?;
    let some = |filters: &[&str]| -> BenchResult<f64> {
        let mut left = limit;
        let (seen, seconds) = timed(|| {
            read(&stream, filters, &mut |_| {
                left -= 1;
                left > 0
            })
        });
        check(seen? == limit, || "the filter misses some".into())?;
        Ok(limit as f64 / seconds)
    };
    some(&[])?;
    let (mut plain, mut wild, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut half = Vec::new();
    for _ in 0..ROUNDS {
        plain.push(some(&[])?);
        wild.push(some(&["orders.>", "audit.>"])?);
        let (seen, seconds) = timed(|| read(&stream, &HALF, &mut |_| true));
        check(seen? > 0, || "the filter misses all".into())?;
        half.push(count as f64 / seconds);
        ratios.push(wild[wild.len() - 1] / plain[plain.len() - 1]);
    }
    let middle = |rates: Vec<f64>| median(rates).unwrap_or_default();
    let report = &context.report;
    report.figure("read without a filter", middle(plain), "msgs/s");
    report.figure(
        "read through filters that match all",
        middle(wild),
        "msgs/s",
    );
    report.figure(
        "passed through filters that match half",
        middle(half),
        "msgs/s",
    );
    report.gated(
        "filtered over unfiltered",
        middle(ratios),
        "",
        Gate::AtLeast(0.8),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{RARE, subject};

    #[test]
    fn a_thousand_subjects_and_the_rare_one() {
        let subjects: std::collections::HashSet<String> = (1..=100_000).map(subject).collect();
        assert_eq!(subjects.len(), 1001);
        assert_eq!(subject(100_000), RARE);
        assert_eq!(subject(1234), "orders.r2.34");
    }
}
