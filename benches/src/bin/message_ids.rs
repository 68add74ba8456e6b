//! What millions of message ids within their window cost: RAM, append rate, lookup, reopening.
//!
//! `cargo run --release -p riverlog-benches --bin message_ids -- --ids 10000000`. The store lives below
//! the current directory. `--plain` appends the same messages without ids, for comparison.

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser;
use riverlog_engine::{Append, AppendError, Lsn, Store, StoreOptions, Stream, StreamConfig};

#[derive(Parser)]
struct Options {
    /// How many messages to append.
    #[arg(long, default_value_t = 10_000_000)]
    ids: u64,
    /// Append them without ids.
    #[arg(long)]
    plain: bool,
}

fn main() {
    let options = Options::parse();
    let dir = tempfile::tempdir_in(".").expect("a directory");
    let (store, stream) = open(dir.path());
    println!("open store: {}", memory());
    let started = Instant::now();
    let mut last = Lsn(0);
    for n in 0..options.ids {
        last = publish(&store, &stream, (!options.plain).then_some(n)).0;
        if (n + 1).is_multiple_of(options.ids.div_ceil(5)) {
            println!("{} appended: {}", n + 1, memory());
        }
    }
    store.ticket(last).wait().expect("durable");
    let rate = options.ids as f64 / started.elapsed().as_secs_f64();
    let busy = thread_time() / u32::try_from(options.ids).unwrap_or(u32::MAX);
    println!(
        "{rate:.0} appends/s, {busy:?} on the CPU each; {}",
        memory()
    );
    if options.plain {
        return;
    }
    // Let merges end.
    std::thread::sleep(Duration::from_secs(3));
    lookups(
        "new id",
        &store,
        &stream,
        200_000,
        &|n| options.ids + n,
        false,
    );
    lookups(
        "known id",
        &store,
        &stream,
        20_000,
        &|n| n * (options.ids / 20_000),
        true,
    );
    println!("after lookups: {}", memory());
    store.close();
    let ids = std::fs::read_dir(dir.path().join("ids")).expect("the directory of ids");
    let sizes = ids.map(|entry| {
        entry
            .and_then(|entry| entry.metadata())
            .expect("a file")
            .len()
    });
    let sizes: Vec<u64> = sizes.collect();
    let total: u64 = sizes.iter().sum();
    println!("{} files of ids, {} MB", sizes.len(), total >> 20);
    drop((stream, store));
    let started = Instant::now();
    let (store, stream) = open(dir.path());
    println!("reopened in {:?}; {}", started.elapsed(), memory());
    let started = Instant::now();
    assert!(publish(&store, &stream, Some(1)).1, "still known");
    println!(
        "first lookup, which loads the filters: {:?}; {}",
        started.elapsed(),
        memory()
    );
}

fn open(dir: &Path) -> (Store, Stream) {
    let (store, _) = Store::open(dir, StoreOptions::default()).expect("a store");
    let stream = store.stream("S").unwrap_or_else(|| {
        let config = StreamConfig {
            name: "S".into(),
            // The messages go at once; their ids stay.
            msgs_max: Some(1),
            dedup_window_ns: 24 * 3_600 * 1_000_000_000,
            ..StreamConfig::default()
        };
        store.create_stream(config).expect("a stream").0
    });
    (store, stream)
}

fn publish(store: &Store, stream: &Stream, id: Option<u64>) -> (Lsn, bool) {
    let text = id.map(|id| format!("order-{id:016}"));
    let append = Append {
        subject: b"orders.new",
        payload: b"x",
        msg_id: text.as_ref().map(|text| text.as_bytes()),
        ..Append::default()
    };
    loop {
        match stream.append_nosync(&append) {
            Ok(done) => return (done.lsn, done.duplicate),
            Err(AppendError::Busy) => store.wait_room(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn lookups(
    what: &str,
    store: &Store,
    stream: &Stream,
    count: u64,
    id: &dyn Fn(u64) -> u64,
    known: bool,
) {
    let (started, before) = (Instant::now(), thread_time());
    for n in 0..count {
        assert_eq!(publish(store, stream, Some(id(n))).1, known, "{what} {n}");
    }
    let (elapsed, busy) = (started.elapsed(), thread_time() - before);
    let each = |time: Duration| time / count as u32;
    println!(
        "{what}: {:?} each, {:?} on the CPU",
        each(elapsed),
        each(busy)
    );
}

/// Time this thread has spent on a CPU.
fn thread_time() -> Duration {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = schedstat.split_whitespace().next();
    Duration::from_nanos(first.and_then(|ns| ns.parse().ok()).unwrap_or(0))
}

/// Resident memory now and at its highest.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1))
            .and_then(|number| number.parse::<u64>().ok())
            .unwrap_or(0)
    };
    format!(
        "{} MB resident, {} MB at most",
        field("VmRSS") >> 10,
        field("VmHWM") >> 10
    )
}
