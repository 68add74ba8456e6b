//! Whether a server-wide storage limit is reached (LIM-001). The sums are refreshed now and then:
//! a limit may be overrun by what is published in between.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::shared::Shared;
use super::time::now;
use super::types::enums::Storage;

/// Time between two looks at all streams, in nanoseconds.
const REFRESH_NS: i64 = 100_000_000;

/// Cached answers.
#[derive(Default)]
pub(crate) struct Usage {
    file: Cached,
    memory: Cached,
}

#[derive(Default)]
struct Cached {
    full: AtomicBool,
    refreshed_at: AtomicI64,
}

impl Usage {
    /// Whether streams of this kind have used up what the server has for them.
    pub fn is_full(&self, shared: &Shared, storage: Storage) -> bool {
        let Some(max) = shared.bytes_max(storage) else {
            return false;
        };
        let cached = match storage {
            Storage::File => &self.file,
            Storage::Memory => &self.memory,
        };
        let now = now().0;
        let before = cached.refreshed_at.load(Ordering::Relaxed);
        if now.saturating_sub(before) >= REFRESH_NS {
            cached.refreshed_at.store(now, Ordering::Relaxed);
            cached
                .full
                .store(shared.bytes_used(storage) >= max, Ordering::Relaxed);
        }
        cached.full.load(Ordering::Relaxed)
    }
}
