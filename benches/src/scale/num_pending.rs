//! How many messages match, asked of a store that was just opened and of files the system forgot.

use riverlog_engine::{Filter, Seq};

use super::context::{Context, timed};
use super::filtered::{RARE, subject};
use super::load::existing;
use crate::error::{BenchResult, check};
use crate::measure::figure::Gate;
use crate::measure::os::{Usage, drop_page_cache, files, resident_bytes};

const QUESTIONS: [&[&str]; 6] = [
    &["orders.r3.77"],
    &["orders.r3.*"],
    &["orders.*.77"],
    &["orders.r1.1", "orders.r2.2", "orders.r3.3", RARE],
    &["orders.>"],
    &[">"],
];

struct Worst {
    ms: f64,
    read_bytes: u64,
    segment_bytes: u64,
}

/// Asks every question from several starts, each time of a cold store.
pub fn run(context: &Context) -> BenchResult<()> {
    let count = context.sizes.messages();
    let mut worst = Worst {
        ms: 0.0,
        read_bytes: 0,
        segment_bytes: 0,
    };
    for filters in QUESTIONS {
        let mut slowest_ms = 0f64;
        for from in [1, count / 3, count - count / 50] {
            slowest_ms = slowest_ms.max(ask(context, filters, from, &mut worst)?);
        }
        let name = format!("num_pending of {}, cold", filters.join(" "));
        context.report.figure(&name, slowest_ms, "ms");
    }
    let report = &context.report;
    report.gated(
        "num_pending, the slowest",
        worst.ms,
        "ms",
        Gate::AtMost(20.0),
    );
    let read_kib = worst.read_bytes as f64 / 1024.0;
    report.figure("bytes read for it, at most", read_kib, "KiB");
    let segment_kib = worst.segment_bytes as f64 / 1024.0;
    let gate = Gate::AtMost(0.0);
    report.gated("of them from segment files", segment_kib, "KiB", gate);
    Ok(())
}

fn ask(context: &Context, filters: &[&str], from: u64, worst: &mut Worst) -> BenchResult<f64> {
    let count = context.sizes.messages();
    let compiled: Vec<Filter> = filters
        .iter()
        .map(|text| Filter::new(text.as_bytes()).expect("a valid filter"))
        .collect();
    let matches = |seq: &u64| {
        let subject = subject(*seq);
        compiled
            .iter()
            .any(|filter| filter.matches(subject.as_bytes()))
    };
    let expected = expected(from, count, matches);
    let (store, _) = context.open()?;
    let stream = existing(&store, "S")?;
    drop_page_cache(&context.store_dir())?;
    let before = (segment_resident(context)?, Usage::now()?.read_call_bytes);
    let (found, seconds) = timed(|| stream.num_pending(&compiled, Seq(from)));
    let after = (segment_resident(context)?, Usage::now()?.read_call_bytes);
    let found = found?;
    check(found == expected, || {
        format!("{found} messages match {filters:?} from {from}, not {expected}")
    })?;
    worst.ms = worst.ms.max(seconds * 1000.0);
    worst.read_bytes = worst.read_bytes.max(after.1 - before.1);
    worst.segment_bytes = worst.segment_bytes.max(after.0.saturating_sub(before.0));
    Ok(seconds * 1000.0)
}

/// Messages in `from..=last` for which `matches` holds; it repeats with a period of 100,000.
fn expected(from: u64, last: u64, matches: impl Fn(&u64) -> bool) -> u64 {
    const PERIOD: u64 = 100_000;
    let len = (last + 1).saturating_sub(from);
    let in_period = match len >= PERIOD {
        true => (from..from + PERIOD).filter(&matches).count() as u64,
        false => 0,
    };
    let rest = from + len / PERIOD * PERIOD;
    len / PERIOD * in_period + (rest..=last).filter(&matches).count() as u64
}

/// Bytes of segment files in the page cache: what a question brings there was read for it, or right
/// behind what was read.
fn segment_resident(context: &Context) -> BenchResult<u64> {
    let mut total = 0;
    for path in files(&context.store_dir().join("seg"))? {
        total += resident_bytes(&path)?;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::expected;

    #[test]
    fn counting_by_periods_is_counting() {
        let matches = |seq: &u64| (seq % 100_000).is_multiple_of(7);
        for (from, last) in [(1, 350_000), (99_999, 250_001), (5, 4), (10, 20)] {
            let counted = (from..=last).filter(matches).count() as u64;
            assert_eq!(expected(from, last, matches), counted);
        }
    }
}
