//! commitlog, a log of segment files with an offset index.
//!
//! Its `flush` does not reach the disk (`File::flush` does nothing). The adapter syncs the segment
//! file itself, through a second handle.

use std::fs::File;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use commitlog::message::{MessageBuf, MessageSet};
use commitlog::{CommitLog, LogOptions, ReadLimit};

use super::contender::{Contender, Rival, foreign};
use crate::error::{BenchError, BenchResult, Doing};
use crate::measure::os::files;

/// See the module.
pub const RIVAL: Rival = Rival {
    name: "commitlog",
    durable_by: "no call of its own: fdatasync of its segment file from outside",
    open,
    reads_all: true,
    reads_by_number: true,
    has_keys: false,
    cannot: "one thread at a time; has no durable append of its own",
};

/// One segment for everything, so that the file to sync stays the same.
const SEGMENT_BYTES: usize = 3 << 30;
const MESSAGES_MAX: usize = 8 << 20;

struct Log {
    log: Mutex<Open>,
}

struct Open {
    log: CommitLog,
    segment: File,
}

fn open(dir: &Path) -> BenchResult<Box<dyn Contender>> {
    let mut options = LogOptions::new(dir);
    options
        .segment_max_bytes(SEGMENT_BYTES)
        .index_max_items(MESSAGES_MAX)
        .message_max_bytes(1 << 20);
    let log = CommitLog::new(options).map_err(foreign)?;
    let segments = files(dir)?;
    let mut segments = segments
        .iter()
        .filter(|path| path.extension().is_some_and(|kind| kind == "log"));
    let (Some(segment), None) = (segments.next(), segments.next()) else {
        return Err(BenchError::Failed("not exactly one segment file".into()));
    };
    let segment = File::open(segment).doing("opening the segment file")?;
    let log = Mutex::new(Open { log, segment });
    Ok(Box::new(Log { log }))
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contender for Log {
    fn append(&self, _: u64, payload: &[u8]) -> BenchResult<()> {
        let mut open = self.lock();
        open.log.append_msg(payload).map_err(foreign)?;
        open.segment.sync_data().doing("syncing the segment file")
    }

    fn append_batch(&self, payloads: &[Vec<u8>]) -> BenchResult<()> {
        let mut messages = MessageBuf::default();
        for payload in payloads {
            messages
                .push(payload)
                .map_err(|error| foreign(format!("{error:?}")))?;
        }
        let mut open = self.lock();
        open.log.append(&mut messages).map_err(foreign)?;
        open.segment.sync_data().doing("syncing the segment file")
    }

    fn read_all(&self, visit: &mut dyn FnMut(&[u8]) -> BenchResult<()>) -> BenchResult<()> {
        let open = self.lock();
        let mut next = 0;
        loop {
            let messages = open.log.read(next, ReadLimit::max_bytes(256 << 10));
            let messages = messages.map_err(foreign)?;
            if messages.is_empty() {
                return Ok(());
            }
            for message in messages.iter() {
                visit(message.payload())?;
                next = message.offset() + 1;
            }
        }
    }

    fn get(&self, n: u64) -> BenchResult<Option<Vec<u8>>> {
        let open = self.lock();
        let messages = open
            .log
            .read(n, ReadLimit::max_bytes(1024))
            .map_err(foreign)?;
        let first = messages.iter().next();
        Ok(first.map(|message| message.payload().to_vec()))
    }
}
