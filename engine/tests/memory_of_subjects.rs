//! Many distinct subjects take no more memory than their budget, neither while they are only in the
//! log nor when the index of a sealed file is made anew. Counts what the whole process holds, so
//! that its tests run one at a time.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use riverlog_engine::cache::Cache;
use riverlog_engine::format::record::{Record, record_crc};
use riverlog_engine::ids::SegmentId;
use riverlog_engine::index::{Run, RunIdentity, SubjectKey, rebuild_run};
use riverlog_engine::io::Env;
use riverlog_engine::segment::{Codec, Segment, SegmentWriter};
use riverlog_engine::{
    Append, AppendError, Seq, Store, StoreOptions, StreamConfig, StreamId, Threads, TimestampNs,
};

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

// SAFETY: every call is passed on unchanged to the system allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller's promises are those of this call.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are those of this call.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that was held during `work` beyond what was held before, in bytes.
fn peak_of(work: impl FnOnce()) -> usize {
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    work();
    PEAK.load(Ordering::Relaxed).saturating_sub(before)
}

fn subject(n: u64) -> String {
    let scrambled = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("devices.eu-west-1.sensor.{scrambled:016x}")
}

#[test]
fn tails_hold_no_more_than_their_budget() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    const BUDGET: u64 = 4 << 20;
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = StoreOptions::default();
    options.threads = Threads::Manual;
    options.tail_bytes_max = BUDGET;
    options.queue_bytes_max = 64 << 20;
    let (store, _) = Store::open(dir.path(), options).expect("a store");
    let config = StreamConfig {
        name: "S".into(),
        ..StreamConfig::default()
    };
    let (stream, _) = store.create_stream(config).expect("a stream");
    // Nothing seals a tail meanwhile.
    for n in 0.. {
        let subject = subject(n);
        let append = Append {
            subject: subject.as_bytes(),
            payload: &[7; 64],
            ..Append::default()
        };
        match stream.append_nosync(&append) {
            Ok(_) => {}
            Err(AppendError::Busy) => break,
            Err(error) => panic!("{error}"),
        }
    }
    let held = store.status().tail_bytes;
    assert!(held <= BUDGET + 1024, "{held} bytes in tails");
    assert!(held >= BUDGET / 2, "appends stopped at {held} bytes");
}

#[test]
fn an_index_is_rebuilt_in_bounded_memory() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    const MSGS: u64 = 400_000;
    const UUID: u128 = 1;
    const STREAM: StreamId = StreamId(1);
    let dir = tempfile::tempdir().expect("a directory");
    let (data, index) = (dir.path().join("1.seg"), dir.path().join("1.idx"));
    let env = Env::real();
    let mut writer = SegmentWriter::new(&env, &data, UUID, SegmentId(1)).expect("a file");
    writer.begin_extent(STREAM, Codec::None).expect("begun");
    for n in 1..=MSGS {
        let (seq, ts, subject) = (Seq(n), TimestampNs(n as i64), subject(n));
        let subject = subject.as_bytes();
        let record = Record {
            seq,
            ts,
            subject,
            crc: record_crc(STREAM, seq, ts, 0, subject, b"", b"payload", b""),
            payload: b"payload",
            ..Record::default()
        };
        writer.push(&record).expect("written");
    }
    let manifest = writer.finish().expect("sealed").manifest;
    let cache = Arc::new(Cache::new(1 << 20, 16));
    let segment = Segment::open(&env, &data, UUID, manifest, cache.clone());
    // Their keys alone take 20 MB.
    let peak = peak_of(|| {
        let rebuilt = rebuild_run(&env, &index, UUID, &segment, &|_| 7, &cache);
        let sealed = rebuilt.expect("rebuilt").sealed;
        assert_eq!((sealed.keys, sealed.postings), (MSGS, MSGS));
    });
    assert!(peak < 24 << 20, "{peak} bytes");
    let files = std::fs::read_dir(dir.path()).expect("listed").count();
    assert_eq!(files, 2, "temporary files are gone");

    let wanted = RunIdentity::OfSegment(manifest);
    let run = Run::open(&env, &index, UUID, &wanted, cache).expect("a run");
    for n in (1..=MSGS).step_by(997) {
        let key = SubjectKey::new(STREAM, subject(n).as_bytes());
        let entry = run.lookup(&key).expect("readable").expect("known");
        assert_eq!((entry.count, entry.first), (1, Seq(n)));
    }
}
