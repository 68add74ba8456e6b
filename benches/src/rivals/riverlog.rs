//! The engine itself: one stream for the log, one for the keys.

use std::path::Path;

use riverlog_engine::{Append, Filter, Seq, Store, StoreOptions, Stream};

use super::contender::{CACHE_BYTES, Contender, Rival, foreign};
use crate::error::{BenchError, BenchResult};
use crate::scale::load::{create, plain};

/// See the module.
pub const RIVAL: Rival = Rival {
    name: "riverlog",
    durable_by: "Stream::append, Stream::append_batch",
    open,
    reads_all: true,
    reads_by_number: true,
    has_keys: true,
    cannot: "",
};

struct Riverlog {
    log: Stream,
    keys: Stream,
    _store: Store,
}

fn open(dir: &Path) -> BenchResult<Box<dyn Contender>> {
    let mut options = StoreOptions::default();
    options.cache_bytes_max = CACHE_BYTES;
    let (store, report) = Store::open(dir, options)?;
    let stream = |name: &str| match report.created {
        true => create(&store, plain(name)),
        false => store
            .stream(name)
            .ok_or_else(|| BenchError::Failed(format!("{name} is gone"))),
    };
    Ok(Box::new(Riverlog {
        log: stream("log")?,
        keys: stream("keys")?,
        _store: store,
    }))
}

fn message<'a>(subject: &'a [u8], payload: &'a [u8]) -> Append<'a> {
    Append {
        subject,
        payload,
        ..Append::default()
    }
}

impl Contender for Riverlog {
    fn append(&self, _: u64, payload: &[u8]) -> BenchResult<()> {
        self.log.append(&message(b"orders.new", payload))?;
        Ok(())
    }

    fn append_batch(&self, payloads: &[Vec<u8>]) -> BenchResult<()> {
        let batch: Vec<Append<'_>> = payloads
            .iter()
            .map(|payload| message(b"orders.new", payload))
            .collect();
        self.log.append_batch(&batch).map_err(foreign)?;
        Ok(())
    }

    fn read_all(&self, visit: &mut dyn FnMut(&[u8]) -> BenchResult<()>) -> BenchResult<()> {
        let last = self.log.state().last_seq;
        for message in self.log.messages(&[], Seq(1)..=last) {
            visit(message?.payload())?;
        }
        Ok(())
    }

    fn get(&self, n: u64) -> BenchResult<Option<Vec<u8>>> {
        let message = self.log.get(Seq(n + 1))?;
        Ok(message.map(|message| message.payload().to_vec()))
    }

    fn put_keys(&self, values: &[(String, Vec<u8>)]) -> BenchResult<()> {
        let batch: Vec<Append<'_>> = values
            .iter()
            .map(|(key, value)| message(key.as_bytes(), value))
            .collect();
        self.keys.append_batch(&batch).map_err(foreign)?;
        Ok(())
    }

    fn get_key(&self, key: &str) -> BenchResult<Option<Vec<u8>>> {
        let filter = Filter::new(key.as_bytes()).map_err(foreign)?;
        let message = self.keys.last_by_subject(&filter)?;
        Ok(message.map(|message| message.payload().to_vec()))
    }
}
