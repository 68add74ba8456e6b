//! Opening a large store after `kill -9`, and once more when all index files are gone.

use riverlog_engine::{Append, Filter, Seq};

use super::context::{Context, MIB, timed};
use super::load::{check_msgs, create, existing, plain, push};
use super::subjects::subject;
use super::{Phase, Scenario};
use crate::error::{BenchResult, Doing, check};
use crate::measure::figure::Gate;
use crate::measure::os::{Usage, drop_page_cache, file_bytes, files, kill_self};
use crate::measure::random::Random;

/// See the module.
pub const SCENARIO: Scenario = Scenario {
    name: "reopen",
    phases: &[
        Phase::killed("fill", fill),
        Phase::new("open", open),
        Phase::new("rebuild", rebuild),
    ],
};

const PAYLOAD_BYTES: usize = 1000;

fn payload(n: u64) -> [u8; PAYLOAD_BYTES] {
    let mut bytes = [0; PAYLOAD_BYTES];
    Random::new(n << 8).fill(&mut bytes);
    bytes
}

fn fill(context: &Context) -> BenchResult<()> {
    let count = context.sizes.reopen_subjects();
    let (store, _) = context.open()?;
    let stream = create(&store, plain("S"))?;
    for n in 0..count {
        let append = Append {
            subject: &subject(n),
            payload: &payload(n),
            ..Append::default()
        };
        push(&store, &stream, &append)?;
    }
    store.barrier().wait()?;
    context
        .report
        .figure("subjects, one message each", count as f64, "");
    let bytes = file_bytes(&context.store_dir().join("seg"))?;
    context
        .report
        .figure("segments when killed", bytes as f64 / MIB, "MiB");
    kill_self()
}

fn open(context: &Context) -> BenchResult<()> {
    let count = context.sizes.reopen_subjects();
    let dir = context.store_dir();
    drop_page_cache(&dir)?;
    let allowed = file_bytes(&dir.join("wal"))? + file_bytes(&dir.join("meta"))?;
    let before = Usage::now()?;
    let (opened, seconds) = timed(|| context.open());
    let (store, report) = opened?;
    let read_bytes = Usage::now()?.read_call_bytes - before.read_call_bytes;
    let (appended, first_s) = timed(|| -> BenchResult<Seq> {
        let stream = existing(&store, "S")?;
        let append = Append {
            subject: b"first",
            ..Append::default()
        };
        Ok(stream.append(&append)?.seq)
    });
    check(appended? == Seq(count + 1), || {
        "a sequence is missing".into()
    })?;
    let stream = existing(&store, "S")?;
    check_msgs(&stream, count + 1)?;
    let mut random = Random::new(3);
    for n in (0..1000).map(|_| random.below(count)).chain([count - 1]) {
        let message = stream.get(Seq(n + 1))?;
        check(
            message.is_some_and(|message| message.payload() == payload(n)),
            || format!("message {} is not what was written", n + 1),
        )?;
    }
    let figures = &context.report;
    figures.gated(
        "open after kill -9, nothing cached",
        seconds,
        "s",
        Gate::AtMost(3.0),
    );
    figures.figure("then the first durable append", first_s * 1000.0, "ms");
    let gate = Gate::AtMost(allowed as f64 / MIB);
    figures.gated(
        "bytes read to open; gate: log and metadata",
        read_bytes as f64 / MIB,
        "MiB",
        gate,
    );
    figures.figure("operations replayed", report.ops_replayed as f64, "");
    figures.figure("RSS when open", Usage::now()?.rss_bytes as f64 / MIB, "MiB");
    Ok(())
}

fn rebuild(context: &Context) -> BenchResult<()> {
    let count = context.sizes.reopen_subjects();
    let dir = context.store_dir();
    for path in files(&dir.join("idx"))? {
        std::fs::remove_file(path).doing("removing an index file")?;
    }
    drop_page_cache(&dir)?;
    let (opened, open_s) = timed(|| context.open());
    let (store, _) = opened?;
    let stream = existing(&store, "S")?;
    let seg_bytes = file_bytes(&dir.join("seg"))?;
    // A subject may be in any file, so the first question needs every index.
    let filter = Filter::new(&subject(count / 2)).expect("a valid subject");
    let (found, first_s) = timed(|| stream.num_pending(std::slice::from_ref(&filter), Seq(1)));
    let found = found?;
    check(found == 1, || format!("{found} messages instead of 1"))?;
    let rate = seg_bytes as f64 / (open_s + first_s) / 1e6;
    let report = &context.report;
    report.figure("open without index files", open_s, "s");
    report.figure("the first question, which rebuilds all", first_s, "s");
    report.gated(
        "segment bytes per second of both",
        rate,
        "MB/s",
        Gate::AtLeast(300.0),
    );
    let peak = Usage::now()?.rss_peak_bytes as f64 / MIB;
    report.figure("peak RSS of the rebuild", peak, "MiB");
    let mut random = Random::new(4);
    for n in (0..1000).map(|_| random.below(count)) {
        let filter = Filter::new(&subject(n)).expect("a valid subject");
        let seq = stream.last_by_subject(&filter)?.map(|message| message.seq);
        check(seq == Some(Seq(n + 1)), || {
            format!("subject {n} is at {seq:?}")
        })?;
    }
    Ok(())
}
