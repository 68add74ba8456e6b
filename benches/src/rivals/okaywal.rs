//! okaywal, a write-ahead log: its entries are read when it is opened, and handed over to somebody
//! else when a file is full.
//!
//! A file is never full here, so that it keeps what it was given.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use okaywal::{Configuration, Entry, EntryId, LogManager, SegmentReader, WriteAheadLog};

use super::contender::{Contender, Rival, foreign};
use super::phases::payload;
use crate::error::BenchResult;

/// See the module.
pub const RIVAL: Rival = Rival {
    name: "okaywal",
    durable_by: "EntryWriter::commit",
    open,
    reads_all: false,
    reads_by_number: false,
    has_keys: false,
    cannot: "reads only while it opens, which is in the reopen time; no positions after that; gives \
             entries away when a file is full, so that the file is kept from ever being full",
};

const FILE_BYTES: u32 = 64 << 20;

/// Compares what is found with what was written.
#[derive(Debug, Default)]
struct Checker {
    found: u64,
    right: Arc<AtomicU64>,
}

impl LogManager for Checker {
    fn recover(&mut self, entry: &mut Entry<'_>) -> std::io::Result<()> {
        for chunk in entry.read_all_chunks()?.into_iter().flatten() {
            let right = chunk == payload(self.found);
            self.right.fetch_add(u64::from(right), Ordering::Relaxed);
            self.found += 1;
        }
        Ok(())
    }

    fn checkpoint_to(
        &mut self,
        _: EntryId,
        _: &mut SegmentReader,
        _: &WriteAheadLog,
    ) -> std::io::Result<()> {
        Ok(())
    }
}

struct Okaywal {
    log: WriteAheadLog,
    right: Arc<AtomicU64>,
}

fn open(dir: &Path) -> BenchResult<Box<dyn Contender>> {
    let checker = Checker::default();
    let right = checker.right.clone();
    let log = Configuration::default_for(dir)
        .preallocate_bytes(FILE_BYTES)
        .checkpoint_after_bytes(u64::MAX)
        .open(checker)
        .map_err(foreign)?;
    Ok(Box::new(Okaywal { log, right }))
}

impl Contender for Okaywal {
    fn append(&self, _: u64, payload: &[u8]) -> BenchResult<()> {
        let mut entry = self.log.begin_entry().map_err(foreign)?;
        entry.write_chunk(payload).map_err(foreign)?;
        entry.commit().map_err(foreign)?;
        Ok(())
    }

    fn append_batch(&self, payloads: &[Vec<u8>]) -> BenchResult<()> {
        let mut entry = self.log.begin_entry().map_err(foreign)?;
        for payload in payloads {
            entry.write_chunk(payload).map_err(foreign)?;
        }
        entry.commit().map_err(foreign)?;
        Ok(())
    }

    fn checked_at_open(&self) -> Option<u64> {
        Some(self.right.load(Ordering::Relaxed))
    }
}
