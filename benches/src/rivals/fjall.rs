//! fjall, a log-structured merge tree: the number of a message is its key.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::contender::{CACHE_BYTES, Contender, Rival, foreign};
use crate::error::BenchResult;

/// See the module.
pub const RIVAL: Rival = Rival {
    name: "fjall",
    durable_by: "Database::persist(SyncData), WriteBatch::durability(SyncData)",
    open,
    reads_all: true,
    reads_by_number: true,
    has_keys: true,
    cannot: "",
};

struct Fjall {
    database: Database,
    log: Keyspace,
    keys: Keyspace,
    next: AtomicU64,
}

fn open(dir: &Path) -> BenchResult<Box<dyn Contender>> {
    let builder = Database::builder(dir).cache_size(CACHE_BYTES);
    let database = builder.open().map_err(foreign)?;
    let keyspace = |name: &str| {
        database
            .keyspace(name, KeyspaceCreateOptions::default)
            .map_err(foreign)
    };
    let (log, keys) = (keyspace("log")?, keyspace("keys")?);
    Ok(Box::new(Fjall {
        database,
        log,
        keys,
        next: AtomicU64::new(0),
    }))
}

impl Contender for Fjall {
    fn append(&self, _: u64, payload: &[u8]) -> BenchResult<()> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        self.log.insert(n.to_be_bytes(), payload).map_err(foreign)?;
        self.database
            .persist(PersistMode::SyncData)
            .map_err(foreign)
    }

    fn append_batch(&self, payloads: &[Vec<u8>]) -> BenchResult<()> {
        let first = self
            .next
            .fetch_add(payloads.len() as u64, Ordering::Relaxed);
        let mut batch = self
            .database
            .batch()
            .durability(Some(PersistMode::SyncData));
        for (n, payload) in (first..).zip(payloads) {
            batch.insert(&self.log, n.to_be_bytes(), payload.as_slice());
        }
        batch.commit().map_err(foreign)
    }

    fn read_all(&self, visit: &mut dyn FnMut(&[u8]) -> BenchResult<()>) -> BenchResult<()> {
        for entry in self.log.iter() {
            visit(&entry.value().map_err(foreign)?)?;
        }
        Ok(())
    }

    fn get(&self, n: u64) -> BenchResult<Option<Vec<u8>>> {
        let value = self.log.get(n.to_be_bytes()).map_err(foreign)?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn put_keys(&self, values: &[(String, Vec<u8>)]) -> BenchResult<()> {
        let mut batch = self
            .database
            .batch()
            .durability(Some(PersistMode::SyncData));
        for (key, value) in values {
            batch.insert(&self.keys, key.as_str(), value.as_slice());
        }
        batch.commit().map_err(foreign)
    }

    fn get_key(&self, key: &str) -> BenchResult<Option<Vec<u8>>> {
        let value = self.keys.get(key).map_err(foreign)?;
        Ok(value.map(|value| value.to_vec()))
    }
}
