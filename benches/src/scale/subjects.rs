//! Many distinct subjects: memory, and what a lookup costs.

use std::hint::black_box;
use std::time::Duration;

use riverlog_engine::{Append, Filter, Seq, Store, Stream};

use super::context::{Context, MIB, timed};
use super::load::{check_msgs, create, existing, plain, push, settle};
use super::{Phase, Scenario};
use crate::error::{BenchResult, check};
use crate::measure::figure::Gate;
use crate::measure::latency::Latencies;
use crate::measure::os::Usage;
use crate::measure::random::{Random, scramble};

/// See the module.
pub const SCENARIO: Scenario = Scenario {
    name: "subjects",
    phases: &[Phase::new("fill", fill), Phase::new("reopened", reopened)],
};

const PREFIX: &[u8; 25] = b"devices.eu-west-1.sensor.";
const SUBJECT_BYTES: usize = PREFIX.len() + 16;
const PAYLOAD: [u8; 64] = [7; 64];
/// Lookups per figure.
const LOOKUPS: usize = 200_000;
/// Subjects of the warm lookups: their pages and blocks fit into the cache many times.
const WARM_SUBJECTS: u64 = 500;

/// Subject number `n`, 41 bytes: a regular beginning and 16 hexadecimal digits.
pub fn subject(n: u64) -> [u8; SUBJECT_BYTES] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; SUBJECT_BYTES];
    text[..PREFIX.len()].copy_from_slice(PREFIX);
    let mut rest = scramble(n);
    for digit in text[PREFIX.len()..].iter_mut().rev() {
        *digit = DIGITS[(rest & 15) as usize];
        rest >>= 4;
    }
    text
}

/// Memory that this many subjects may cost: 200 MiB up to ten million, 4 bytes for each further one.
fn rss_gate_mib(subjects: u64) -> f64 {
    200.0 + subjects.saturating_sub(10_000_000) as f64 * 4.0 / MIB
}

fn fill(context: &Context) -> BenchResult<()> {
    let count = context.sizes.subjects();
    let (store, _) = context.open()?;
    let stream = create(&store, plain("S"))?;
    let (filled, seconds) = timed(|| append_all(&store, &stream, count));
    filled?;
    context.report.figure("subjects", count as f64, "");
    let rate = count as f64 / seconds;
    context
        .report
        .figure("append, durable at the end", rate, "msgs/s");
    let rested = settle(Duration::from_secs(300))?;
    check(rested, || "the store never came to rest".into())?;
    memory(context, "filled", count)?;
    check_msgs(&stream, count)?;
    lookups(context, &stream, count)?;
    memory(context, "after lookups", count)
}

fn append_all(store: &Store, stream: &Stream, count: u64) -> BenchResult<()> {
    for n in 0..count {
        let append = Append {
            subject: &subject(n),
            payload: &PAYLOAD,
            ..Append::default()
        };
        push(store, stream, &append)?;
    }
    Ok(store.barrier().wait()?)
}

fn memory(context: &Context, when: &str, count: u64) -> BenchResult<()> {
    let usage = Usage::now()?;
    let gate = Gate::AtMost(rss_gate_mib(count));
    let mib = |bytes: u64| bytes as f64 / MIB;
    let report = &context.report;
    report.gated(&format!("RSS, {when}"), mib(usage.rss_bytes), "MiB", gate);
    let peak = mib(usage.rss_peak_bytes);
    report.gated(&format!("peak RSS, {when}"), peak, "MiB", gate);
    Ok(())
}

fn lookups(context: &Context, stream: &Stream, count: u64) -> BenchResult<()> {
    let mut random = Random::new(42);
    // Subjects above `count` were never appended: `scramble` gives every number another subject.
    let absent = |random: &mut Random| count + random.below(count);
    let times = look_up(stream, LOOKUPS, 0, || absent(&mut random))?;
    context.latency("last message of an absent subject", times, Some(1.0));

    let mut random = Random::new(43);
    let warm: Vec<u64> = (0..WARM_SUBJECTS).map(|_| random.below(count)).collect();
    look_up(stream, warm.len(), 1, in_turn(&warm))?;
    let times = look_up(stream, LOOKUPS, 1, in_turn(&warm))?;
    context.latency("last message of a present subject, warm", times, Some(10.0));
    let times = count_of(stream, LOOKUPS / 100, in_turn(&warm))?;
    context.latency("count of a present subject, warm", times, None);

    let times = look_up(stream, LOOKUPS / 4, 1, || random.below(count))?;
    context.latency("last message of any present subject", times, None);
    Ok(())
}

/// The given numbers, over and over.
fn in_turn(numbers: &[u64]) -> impl FnMut() -> u64 + '_ {
    let mut at = 0;
    move || {
        at = (at + 1) % numbers.len();
        numbers[at]
    }
}

/// Median and p99 of looking up the last message of subjects, compiling the filter included;
/// checks that each lookup finds `expected` messages and the right one.
fn look_up(
    stream: &Stream,
    lookups: usize,
    expected: u64,
    mut next: impl FnMut() -> u64,
) -> BenchResult<[f64; 2]> {
    let mut latencies = Latencies::with_capacity(lookups);
    for _ in 0..lookups {
        let n = next();
        let text = subject(n);
        let found = latencies.time(|| -> BenchResult<_> {
            let filter = Filter::new(&text).expect("a valid subject");
            Ok(stream.last_by_subject(&filter)?)
        })?;
        let seq = found.as_ref().map(|message| message.seq);
        let wanted = (expected == 1).then_some(Seq(n + 1));
        check(seq == wanted, || {
            format!("subject {n} is at {seq:?} instead of {wanted:?}")
        })?;
    }
    Ok(latencies.percentiles([50.0, 99.0]))
}

fn count_of(
    stream: &Stream,
    lookups: usize,
    mut next: impl FnMut() -> u64,
) -> BenchResult<[f64; 2]> {
    let mut latencies = Latencies::with_capacity(lookups);
    for _ in 0..lookups {
        let text = subject(next());
        let found = latencies.time(|| -> BenchResult<_> {
            let filter = Filter::new(&text).expect("a valid subject");
            Ok(stream.num_pending(std::slice::from_ref(&filter), Seq(1))?)
        })?;
        check(black_box(found) == 1, || {
            format!("{found} messages instead of 1")
        })?;
    }
    Ok(latencies.percentiles([50.0, 99.0]))
}

fn reopened(context: &Context) -> BenchResult<()> {
    let count = context.sizes.subjects();
    let (opened, seconds) = timed(|| context.open());
    let (store, _) = opened?;
    context
        .report
        .figure("open after a clean close", seconds, "s");
    let stream = existing(&store, "S")?;
    check_msgs(&stream, count)?;
    let mut random = Random::new(44);
    let times = look_up(&stream, LOOKUPS / 4, 1, || random.below(count))?;
    context.latency("reopened: last message of any present subject", times, None);
    memory(context, "reopened, after lookups", count)
}

#[cfg(test)]
mod tests {
    use super::{rss_gate_mib, subject};

    #[test]
    fn subjects_have_41_bytes_and_differ() {
        assert_eq!(subject(1).len(), 41);
        assert!(subject(1).starts_with(b"devices.eu-west-1.sensor."));
        assert_ne!(subject(1), subject(2));
        assert_eq!(rss_gate_mib(1), 200.0);
        assert!(rss_gate_mib(50_000_000) > 350.0);
    }
}
