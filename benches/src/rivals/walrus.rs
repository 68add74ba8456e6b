//! walrus-rust, a log of topics that are consumed in order.

use std::path::Path;

use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus};

use super::contender::{Contender, Rival, foreign};
use crate::error::{BenchResult, Doing};

/// See the module.
pub const RIVAL: Rival = Rival {
    name: "walrus-rust",
    durable_by: "FsyncSchedule::SyncEach (O_SYNC and fsync)",
    open,
    reads_all: true,
    reads_by_number: false,
    has_keys: false,
    cannot: "a topic is read in order by one reader; no position to read at",
};

const TOPIC: &str = "log";

struct Log {
    walrus: Walrus,
}

fn open(dir: &Path) -> BenchResult<Box<dyn Contender>> {
    // Its directory is a part of the current one, unless an environment variable says otherwise.
    std::fs::create_dir_all(dir).doing("creating a directory")?;
    std::env::set_current_dir(dir).doing("entering a directory")?;
    // Reading leaves no trace, so that every reader starts at the first entry.
    let consistency = ReadConsistency::AtLeastOnce {
        persist_every: u32::MAX,
    };
    let schedule = FsyncSchedule::SyncEach;
    let walrus = Walrus::with_consistency_and_schedule_for_key("bench", consistency, schedule);
    let walrus = walrus.map_err(foreign)?;
    Ok(Box::new(Log { walrus }))
}

impl Contender for Log {
    fn append(&self, _: u64, payload: &[u8]) -> BenchResult<()> {
        self.walrus
            .append_for_topic(TOPIC, payload)
            .map_err(foreign)
    }

    fn append_batch(&self, payloads: &[Vec<u8>]) -> BenchResult<()> {
        let batch: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
        self.walrus
            .batch_append_for_topic(TOPIC, &batch)
            .map_err(foreign)
    }

    fn read_all(&self, visit: &mut dyn FnMut(&[u8]) -> BenchResult<()>) -> BenchResult<()> {
        const STEP_BYTES: usize = 256 << 10;
        loop {
            let entries = self
                .walrus
                .batch_read_for_topic(TOPIC, STEP_BYTES, true)
                .map_err(foreign)?;
            if entries.is_empty() {
                return Ok(());
            }
            for entry in entries {
                visit(&entry.data)?;
            }
        }
    }
}
