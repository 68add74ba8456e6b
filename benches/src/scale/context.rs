//! What a phase gets: where its store is, how large it shall be, and where figures go.

use std::path::{Path, PathBuf};
use std::time::Instant;

use riverlog_engine::{RecoveryReport, Store, StoreOptions};

use super::sizes::Sizes;
use crate::error::{BenchError, BenchResult};
use crate::measure::child::{Notes, Reporter};
use crate::measure::figure::Gate;

/// One binary megabyte; the engine's budgets are in these.
pub const MIB: f64 = 1024.0 * 1024.0;
/// Budgets of every store here, in bytes.
const CACHE_BYTES: u64 = 64 << 20;
const TAIL_BYTES: u64 = 64 << 20;

/// The surroundings of one phase.
pub struct Context {
    /// Directory of the scenario.
    pub dir: PathBuf,
    /// Sizes asked for.
    pub sizes: Sizes,
    /// Where figures go.
    pub report: Reporter,
    /// Numbers for later phases.
    pub notes: Notes,
}

impl Context {
    /// The surroundings of a phase in `dir`.
    pub fn new(dir: &Path, sizes: Sizes) -> Context {
        Context {
            dir: dir.to_path_buf(),
            sizes,
            report: Reporter,
            notes: Notes::new(dir),
        }
    }

    /// Directory of the store.
    pub fn store_dir(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// Opens the store: 64 MiB of cache, 64 MiB of tails, everything else as it comes.
    pub fn open(&self) -> BenchResult<(Store, RecoveryReport)> {
        let mut options = StoreOptions::default();
        options.cache_bytes_max = CACHE_BYTES;
        options.tail_bytes_max = TAIL_BYTES;
        Store::open(&self.store_dir(), options).map_err(BenchError::from)
    }

    /// Reports median and 99th percentile of times given in nanoseconds.
    pub fn latency(&self, what: &str, [median, p99]: [f64; 2], gate_us: Option<f64>) {
        let name = format!("{what}, median");
        match gate_us {
            Some(us) => self
                .report
                .gated(&name, median / 1000.0, "us", Gate::AtMost(us)),
            None => self.report.figure(&name, median / 1000.0, "us"),
        }
        self.report
            .figure(&format!("{what}, p99"), p99 / 1000.0, "us");
    }
}

/// Runs `work` and returns what it gave and the seconds it took.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed().as_secs_f64())
}
