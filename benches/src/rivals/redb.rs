//! redb, a copy-on-write B-tree: the number of a message is its key.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::contender::{CACHE_BYTES, Contender, Rival, foreign};
use crate::error::BenchResult;

/// See the module.
pub const RIVAL: Rival = Rival {
    name: "redb",
    durable_by: "WriteTransaction::commit, Durability::Immediate",
    open,
    reads_all: true,
    reads_by_number: true,
    has_keys: true,
    cannot: "",
};

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const KEYS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("keys");

struct Redb {
    database: Database,
    next: AtomicU64,
}

fn open(dir: &Path) -> BenchResult<Box<dyn Contender>> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES as usize);
    let database = builder.create(dir.join("redb")).map_err(foreign)?;
    Ok(Box::new(Redb {
        database,
        next: AtomicU64::new(0),
    }))
}

impl Redb {
    fn insert<'a>(&self, payloads: impl Iterator<Item = &'a [u8]>) -> BenchResult<()> {
        let write = self.database.begin_write().map_err(foreign)?;
        {
            let mut table = write.open_table(LOG).map_err(foreign)?;
            for payload in payloads {
                let n = self.next.fetch_add(1, Ordering::Relaxed);
                table.insert(n, payload).map_err(foreign)?;
            }
        }
        write.commit().map_err(foreign)
    }
}

impl Contender for Redb {
    fn append(&self, _: u64, payload: &[u8]) -> BenchResult<()> {
        self.insert(std::iter::once(payload))
    }

    fn append_batch(&self, payloads: &[Vec<u8>]) -> BenchResult<()> {
        self.insert(payloads.iter().map(Vec::as_slice))
    }

    fn read_all(&self, visit: &mut dyn FnMut(&[u8]) -> BenchResult<()>) -> BenchResult<()> {
        let read = self.database.begin_read().map_err(foreign)?;
        let table = read.open_table(LOG).map_err(foreign)?;
        for entry in table.iter().map_err(foreign)? {
            visit(entry.map_err(foreign)?.1.value())?;
        }
        Ok(())
    }

    fn get(&self, n: u64) -> BenchResult<Option<Vec<u8>>> {
        let read = self.database.begin_read().map_err(foreign)?;
        let table = read.open_table(LOG).map_err(foreign)?;
        let value = table.get(n).map_err(foreign)?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    fn put_keys(&self, values: &[(String, Vec<u8>)]) -> BenchResult<()> {
        let write = self.database.begin_write().map_err(foreign)?;
        {
            let mut table = write.open_table(KEYS).map_err(foreign)?;
            for (key, value) in values {
                let (key, value) = (key.as_str(), value.as_slice());
                table.insert(key, value).map_err(foreign)?;
            }
        }
        write.commit().map_err(foreign)
    }

    fn get_key(&self, key: &str) -> BenchResult<Option<Vec<u8>>> {
        let read = self.database.begin_read().map_err(foreign)?;
        let table = read.open_table(KEYS).map_err(foreign)?;
        let value = table.get(key).map_err(foreign)?;
        Ok(value.map(|value| value.value().to_vec()))
    }
}
