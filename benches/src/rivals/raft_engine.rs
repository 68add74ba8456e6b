//! raft-engine, a log for many Raft groups: a lane is a group.
//!
//! The indexes of a group must follow each other without a gap, so that a group has one writer;
//! appends of several threads go to several groups.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine, LogBatch, MessageExt};

use super::contender::{Contender, Rival, foreign};
use crate::error::{BenchError, BenchResult};

/// See the module.
pub const RIVAL: Rival = Rival {
    name: "raft-engine",
    durable_by: "Engine::write(batch, sync = true)",
    open,
    reads_all: true,
    reads_by_number: true,
    has_keys: false,
    cannot: "one writer per group: 8 threads write to 8 groups; its keys are held in RAM with their \
             values, for Raft's own state",
};

/// The group of a lane; group 0 means something special.
fn group(lane: u64) -> u64 {
    lane + 1
}

/// Entries are the index and the payload.
struct Entries;

const INDEX_BYTES: usize = 8;

impl MessageExt for Entries {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        let bytes = entry.value.first_chunk::<INDEX_BYTES>();
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

struct RaftEngine {
    engine: Engine,
    /// Index of the next entry of each lane; the first one is 1.
    next: Mutex<BTreeMap<u64, u64>>,
}

fn open(dir: &Path) -> BenchResult<Box<dyn Contender>> {
    let config = Config {
        dir: dir.display().to_string(),
        ..Config::default()
    };
    let engine = Engine::open(config).map_err(foreign)?;
    Ok(Box::new(RaftEngine {
        engine,
        next: Mutex::default(),
    }))
}

impl RaftEngine {
    fn write<'a>(&self, lane: u64, payloads: impl Iterator<Item = &'a [u8]>) -> BenchResult<()> {
        let next = |count: u64| {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = next.entry(lane).or_insert(1);
            *entry += count;
            *entry - count
        };
        let mut entries: Vec<BytesValue> = payloads
            .map(|payload| {
                let mut entry = BytesValue::default();
                entry.value.extend_from_slice(&[0; INDEX_BYTES]);
                entry.value.extend_from_slice(payload);
                entry
            })
            .collect();
        let first = next(entries.len() as u64);
        for (index, entry) in (first..).zip(&mut entries) {
            entry.value[..INDEX_BYTES].copy_from_slice(&index.to_le_bytes());
        }
        let mut batch = LogBatch::default();
        batch
            .add_entries::<Entries>(group(lane), &entries)
            .map_err(foreign)?;
        self.engine.write(&mut batch, true).map_err(foreign)?;
        Ok(())
    }
}

fn payload(entry: &BytesValue) -> BenchResult<&[u8]> {
    let missing = || BenchError::Failed("an entry without an index".into());
    entry.value.get(INDEX_BYTES..).ok_or_else(missing)
}

impl Contender for RaftEngine {
    fn append(&self, lane: u64, payload: &[u8]) -> BenchResult<()> {
        self.write(lane, std::iter::once(payload))
    }

    fn append_batch(&self, payloads: &[Vec<u8>]) -> BenchResult<()> {
        self.write(0, payloads.iter().map(Vec::as_slice))
    }

    fn read_all(&self, visit: &mut dyn FnMut(&[u8]) -> BenchResult<()>) -> BenchResult<()> {
        const STEP: u64 = 1000;
        let group = group(0);
        let (first, last) = (
            self.engine.first_index(group),
            self.engine.last_index(group),
        );
        let (Some(mut from), Some(last)) = (first, last) else {
            return Ok(());
        };
        let mut entries = Vec::new();
        while from <= last {
            let to = last.min(from + STEP - 1) + 1;
            entries.clear();
            self.engine
                .fetch_entries_to::<Entries>(group, from, to, None, &mut entries)
                .map_err(foreign)?;
            for entry in &entries {
                visit(payload(entry)?)?;
            }
            from = to;
        }
        Ok(())
    }

    fn get(&self, n: u64) -> BenchResult<Option<Vec<u8>>> {
        let entry = self.engine.get_entry::<Entries>(group(0), n + 1);
        match entry.map_err(foreign)? {
            Some(entry) => Ok(Some(payload(&entry)?.to_vec())),
            None => Ok(None),
        }
    }
}
