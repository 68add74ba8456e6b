//! Keys that are overwritten at random: the disk must follow what is live, and rest must be rest.

use std::time::Duration;

use riverlog_engine::{Append, Filter, StreamConfig};

use super::context::{Context, MIB, timed};
use super::load::{check_msgs, create, push, settle};
use super::{Phase, Scenario};
use crate::error::{BenchResult, check};
use crate::measure::figure::Gate;
use crate::measure::os::{Usage, file_bytes};
use crate::measure::random::Random;

/// See the module.
pub const SCENARIO: Scenario = Scenario {
    name: "overwrite",
    phases: &[Phase::new("fill", fill)],
};

const PAYLOAD_BYTES: usize = 1000;
/// Besides 1.5 times the live bytes: two files that are not full, and one that is being written
/// while its sources are still there.
const CONSTANT_BYTES: f64 = 3.0 * 64.0 * MIB;
/// How long nothing may be written at the end.
const IDLE: Duration = Duration::from_secs(10);

fn key(n: u64) -> String {
    format!("kv.{n:016x}")
}

fn fill(context: &Context) -> BenchResult<()> {
    let keys = context.sizes.keys();
    let writes = context.sizes.overwrite_bytes() / PAYLOAD_BYTES as u64;
    let (store, _) = context.open()?;
    let config = StreamConfig {
        name: "S".into(),
        msgs_per_subject_max: Some(1),
        ..StreamConfig::default()
    };
    let stream = create(&store, config)?;
    let mut random = Random::new(5);
    let mut payload = [0; PAYLOAD_BYTES];
    let mut newest = vec![0u64; keys as usize];
    let start = Usage::now()?;
    let (result, seconds) = timed(|| -> BenchResult<()> {
        for _ in 0..writes {
            let n = random.below(keys);
            random.fill(&mut payload);
            let subject = key(n);
            let append = Append {
                subject: subject.as_bytes(),
                payload: &payload,
                ..Append::default()
            };
            newest[n as usize] = push(&store, &stream, &append)?.seq.0;
        }
        Ok(store.barrier().wait()?)
    });
    result?;
    let report = &context.report;
    let written = writes as f64 * PAYLOAD_BYTES as f64;
    report.figure("keys", keys as f64, "");
    report.figure("payload bytes written", written / MIB, "MiB");
    report.figure("rate", writes as f64 / seconds, "msgs/s");
    let usage = Usage::now()?;
    report.figure("RSS", usage.rss_bytes as f64 / MIB, "MiB");
    report.figure("peak RSS", usage.rss_peak_bytes as f64 / MIB, "MiB");

    let (rested, seconds) = timed(|| settle(Duration::from_secs(300)));
    check(rested?, || "the store never came to rest".into())?;
    report.figure("until it rested", seconds, "s");
    let live = newest.iter().filter(|seq| **seq > 0).count() as u64;
    check_msgs(&stream, live)?;
    disk(context, stream.state().bytes)?;
    let per_written =
        (Usage::now()?.device_write_bytes - start.device_write_bytes) as f64 / written;
    report.figure(
        "bytes written to the disk per payload byte",
        per_written,
        "",
    );

    let before = Usage::now()?;
    std::thread::sleep(IDLE);
    let after = Usage::now()?;
    let idle = after.write_call_bytes - before.write_call_bytes + after.device_write_bytes
        - before.device_write_bytes;
    report.gated(
        "bytes written in ten idle seconds",
        idle as f64,
        "B",
        Gate::AtMost(0.0),
    );

    for n in (0..keys).step_by((keys as usize / 1000).max(1)) {
        let filter = Filter::new(key(n).as_bytes()).expect("a valid subject");
        let found = stream
            .last_by_subject(&filter)?
            .map_or(0, |message| message.seq.0);
        check(found == newest[n as usize], || {
            format!("key {n} is at {found}")
        })?;
    }
    Ok(())
}

fn disk(context: &Context, live_bytes: u64) -> BenchResult<()> {
    let dir = context.store_dir();
    let total = file_bytes(&dir)? as f64;
    let log = file_bytes(&dir.join("wal"))? as f64;
    let report = &context.report;
    let live = live_bytes as f64;
    report.figure("live bytes, as the stream counts them", live / MIB, "MiB");
    let gate = Gate::AtMost((1.5 * live + CONSTANT_BYTES) / MIB);
    let name = "disk without the log; gate: 1.5 x live + 192 MiB";
    report.gated(name, (total - log) / MIB, "MiB", gate);
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
    report.figure("log", log / MIB, "MiB");
    Ok(())
}
