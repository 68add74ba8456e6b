//! Appending allocates nothing per message: bodies go into shared chunks, operations into reused
//! frames. Alone in its file, because it counts the allocations of the whole process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use riverlog_engine::{Append, AppendError, Lsn, Store, StoreOptions, StreamConfig};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on unchanged to the system allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are those of this call.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are those of this call.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn an_append_allocates_nothing_of_its_own() {
    const MESSAGES: u64 = 50_000;
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(dir.path(), StoreOptions::default()).expect("a store");
    let config = StreamConfig {
        name: "S".into(),
        ..StreamConfig::default()
    };
    let (stream, _) = store.create_stream(config).expect("a stream");
    let append = Append {
        subject: b"orders.new",
        payload: &[7; 128],
        ..Append::default()
    };
    let mut last = Lsn(0);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..MESSAGES {
        last = loop {
            match stream.append_nosync(&append) {
                Ok(done) => break done.lsn,
                Err(AppendError::Busy) => store.wait_room(),
                Err(error) => panic!("{error}"),
            }
        };
    }
    store.ticket(last).wait().expect("durable");
    let allocated = ALLOCATIONS.load(Ordering::Relaxed) - before;
    // Chunks, growing tables and frames: far less than one in ten messages.
    assert!(
        allocated < MESSAGES / 10,
        "{allocated} allocations for {MESSAGES} messages"
    );
}
