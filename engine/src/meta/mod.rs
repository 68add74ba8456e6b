//! The metadata log: small durable state as key and value, all of it in memory.
//!
//! A commit is one frame in `<n>.log`, durable when [`MetaLog::commit`] returns. When the file is
//! twice as large as what lives in it, the state is written to a new file under a temporary name,
//! synced, renamed to `<n+1>.log`, and only then the old one is removed: a file with that suffix is
//! always complete. So a newest file that cannot be read is damage, and never an excuse to take an
//! older one.

mod batch;
mod error;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use batch::MetaBatch;
pub use error::{MetaCut, MetaError};

use crate::format::cipher::Sealer;
use crate::format::file_header::{FileHeader, FileKind};
use crate::format::frame::{FrameHead, FrameKind, HEAD_BYTES};
use crate::format::key_ring::KeyId;
use crate::ids::Lsn;
use crate::io::{Env, IoFile, OpenMode};
use crate::wal::log_file::{self, END_BYTES, FRAMES_OFFSET, frame_head, seal_frame, write_header};

/// Suffix of complete files.
const SUFFIX: &str = ".log";
/// Suffix of a file that is being written.
const TEMPORARY_SUFFIX: &str = ".tmp";
/// Flag of the frames that a file starts with: the state when it was written.
pub(crate) const SNAPSHOT: u16 = 1;
/// Flag of the last of them.
pub(crate) const SNAPSHOT_END: u16 = 2;
/// A snapshot is cut into frames of about this size.
const SNAPSHOT_FRAME_BYTES: usize = 1 << 20;
/// Disk space is reserved in steps of this size, before a commit needs it.
const ALLOCATE_BYTES: u64 = 256 << 10;
/// A file is not worth compacting before it has this many bytes of commits.
const COMPACT_BYTES_MIN: u64 = 64 << 10;
/// Largest commit.
const BATCH_BYTES_MAX: u64 = 1 << 30;

/// See the [module](self). One writer; the owner keeps it behind a lock of its own that readers of
/// other state do not need, because commits do I/O.
pub struct MetaLog {
    env: Env,
    dir: PathBuf,
    store_uuid: u128,
    map: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Encoded bytes of `map`.
    live_bytes: u64,
    file: Current,
    /// Compaction is due when the file's frames reach this.
    compact_at: u64,
    cut: Option<MetaCut>,
    /// The number of the next file.
    next_no: u64,
    /// A commit or the directory is in an unknown state on disk: a newer file settles it.
    in_doubt: bool,
    /// The key of the file.
    key: Option<KeyId>,
}

/// The file that takes commits.
struct Current {
    no: u64,
    file: Arc<dyn IoFile>,
    epoch: u64,
    sealer: Sealer,
    allocated: u64,
    /// Where the next frame goes.
    offset: u64,
    next_lsn: Lsn,
    prev_digest: u64,
}

impl MetaLog {
    /// Starts a log in a directory that has none.
    ///
    /// # Errors
    /// `AlreadyExists` if it has one, or what the system says.
    pub fn create(env: &Env, dir: &Path, store_uuid: u128) -> io::Result<MetaLog> {
        env.io.create_dir_all(dir)?;
        if !log_file::list(env, dir, SUFFIX)?.is_empty() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        remove_temporary(env, dir)?;
        let map = BTreeMap::new();
        let (file, temporary) = write_snapshot(env, dir, store_uuid, 1, Lsn(1), &map)?;
        publish(env, dir, 1, &temporary)?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            env.io.sync_dir(parent)?;
        }
        Ok(MetaLog::with_state(env, dir, store_uuid, map, file, None))
    }

    /// Opens the log in `dir`.
    ///
    /// # Errors
    /// `Absent` if there is none, `Damaged` if it cannot be read completely; nothing is changed
    /// then. A torn last commit is cut and reported by [`MetaLog::cut`].
    pub fn open(env: &Env, dir: &Path, store_uuid: u128) -> Result<MetaLog, MetaError> {
        let files = log_file::list(env, dir, SUFFIX).map_err(MetaError::io(dir))?;
        let Some((no, path)) = files.last() else {
            return Err(MetaError::Absent {
                dir: dir.to_owned(),
            });
        };
        let found = read::read(env, path, *no, store_uuid)?;
        // Whatever has a lower number was complete before this one was begun. It stays until a newer
        // file is there for certain: an earlier run may have failed to sync the directory, and a power
        // cut can then still take the name of this one back. So it is with a log just created.
        let is_new = *no == 1 && found.next_lsn <= Lsn(2);
        let name_in_doubt = files.len() > 1 || is_new;
        remove_temporary(env, dir).map_err(MetaError::io(dir))?;
        let file = env
            .io
            .open(path, OpenMode::ReadWrite)
            .map_err(MetaError::io(path))?;
        let allocated = file.len().map_err(MetaError::io(path))?;
        let current = Current {
            no: *no,
            file,
            epoch: found.epoch,
            // With a salt of its own: what an earlier run wrote behind the last valid frame, and a
            // crash took back, is never encrypted again under the same key.
            sealer: env.sealer(FileKind::Meta, store_uuid, *no),
            allocated,
            offset: found.end,
            next_lsn: found.next_lsn,
            prev_digest: found.digest,
        };
        let mut log = MetaLog::with_state(env, dir, store_uuid, found.map, current, found.cut);
        // Nothing is written behind a torn frame: the next commit moves the state to a clean file.
        // Until then nothing has changed, whatever else stops the store from opening.
        log.in_doubt = name_in_doubt || log.cut.is_some() || found.key != log.file.sealer.key();
        log.key = found.key;
        Ok(log)
    }

    /// Reads the log in `dir` and changes nothing; what it returns takes no commits. The second
    /// value is the file, the third the bytes that were read.
    pub(crate) fn read(
        env: &Env,
        dir: &Path,
        store_uuid: u128,
    ) -> Result<(MetaLog, PathBuf, u64), MetaError> {
        let files = log_file::list(env, dir, SUFFIX).map_err(MetaError::io(dir))?;
        let Some((no, path)) = files.last() else {
            return Err(MetaError::Absent {
                dir: dir.to_owned(),
            });
        };
        let found = read::read(env, path, *no, store_uuid)?;
        let file = env
            .io
            .open(path, OpenMode::Read)
            .map_err(MetaError::io(path))?;
        let current = Current {
            no: *no,
            file,
            epoch: found.epoch,
            sealer: env.sealer(FileKind::Meta, store_uuid, *no),
            allocated: 0,
            offset: found.end,
            next_lsn: found.next_lsn,
            prev_digest: found.digest,
        };
        let mut log = MetaLog::with_state(env, dir, store_uuid, found.map, current, found.cut);
        log.key = found.key;
        Ok((log, path.clone(), found.end))
    }

    fn with_state(
        env: &Env,
        dir: &Path,
        store_uuid: u128,
        map: BTreeMap<Vec<u8>, Vec<u8>>,
        file: Current,
        cut: Option<MetaCut>,
    ) -> MetaLog {
        let next_no = file.no + 1;
        let key = file.sealer.key();
        let live_bytes = map
            .iter()
            .map(|(key, value)| batch::put_bytes(key, value))
            .sum();
        MetaLog {
            env: env.clone(),
            dir: dir.to_owned(),
            store_uuid,
            map,
            live_bytes,
            file,
            compact_at: 2 * live_bytes + COMPACT_BYTES_MIN,
            cut,
            next_no,
            in_doubt: false,
            key,
        }
    }

    /// The value of `key`.
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.map.get(key).map(Vec::as_slice)
    }

    /// All keys that start with `prefix`, in order, with their values.
    pub fn scan_prefix<'a>(
        &'a self,
        prefix: &'a [u8],
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.map
            .range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.as_slice(), value.as_slice()))
    }

    /// Makes a batch durable, all of it or nothing.
    ///
    /// # Errors
    /// `StorageFull` if there is no space: nothing has changed. After any other error it is unknown
    /// whether a restart would find the batch; this value still shows the state before it, and the
    /// next commit first writes that state to a new file, so it never builds on what the failed one
    /// left. Either way a later try may succeed.
    pub fn commit(&mut self, batch: &MetaBatch) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        if batch.bytes() > BATCH_BYTES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if self.in_doubt {
            self.compact()?;
        }
        let frame_bytes = log_file::frame_bytes(&self.file.sealer, batch.bytes());
        // The mark behind the frame and the zeros that end the file are reserved with it.
        let needed = self.file.offset + frame_bytes + HEAD_BYTES as u64 + END_BYTES as u64;
        if needed > self.file.allocated {
            let allocated = needed.next_multiple_of(ALLOCATE_BYTES);
            self.file.file.allocate(allocated)?;
            self.file.allocated = allocated;
        }
        if let Err(error) = self.file.commit(batch.encoded()) {
            self.in_doubt = true;
            return Err(error);
        }
        self.apply(batch);
        if self.file.offset - FRAMES_OFFSET >= self.compact_at {
            self.compact_or_wait();
        }
        Ok(())
    }

    /// Makes certain that a restart finds the present state and no other one, which an earlier run may
    /// have left behind. Call it before anything is removed that only another state would name.
    ///
    /// # Errors
    /// As for [`MetaLog::commit`].
    pub fn settle(&mut self) -> io::Result<()> {
        match self.in_doubt {
            true => self.compact(),
            false => Ok(()),
        }
    }

    /// The key that the file is encrypted with.
    pub fn key(&self) -> Option<KeyId> {
        self.key
    }

    /// Writes the state to a new file if the present one has another key than new files have.
    ///
    /// # Errors
    /// As for [`MetaLog::commit`].
    pub fn use_current_key(&mut self) -> io::Result<()> {
        match self.key == self.file.sealer.key() {
            true => Ok(()),
            false => self.compact(),
        }
    }

    /// What was cut off when the log was opened.
    pub fn cut(&self) -> Option<&MetaCut> {
        self.cut.as_ref()
    }

    /// Encoded bytes of the keys and values.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Bytes of the file's frames.
    pub fn file_bytes(&self) -> u64 {
        self.file.offset - FRAMES_OFFSET
    }

    fn apply(&mut self, batch: &MetaBatch) {
        let mut live = self.live_bytes;
        let applied = read::apply(batch.encoded(), &mut self.map, &mut live);
        debug_assert_eq!(applied, Ok(()), "a batch decodes as it was encoded");
        self.live_bytes = live;
    }

    /// A failed compaction is not worth failing the commit before it, which is durable.
    fn compact_or_wait(&mut self) {
        if let Err(error) = self.compact() {
            tracing::warn!(%error, "the metadata log could not be compacted");
            self.compact_at = self.file_bytes() + self.file_bytes() / 2;
        }
    }

    /// Writes the state to a new file, which counts from then on.
    fn compact(&mut self) -> io::Result<()> {
        let no = self.next_no;
        self.next_no += 1;
        let lsn = self.file.next_lsn;
        let written = write_snapshot(&self.env, &self.dir, self.store_uuid, no, lsn, &self.map);
        let (file, temporary) = written.inspect_err(|_| {
            // It has the temporary name, so the log is as it was. A rest is removed later.
            let _ = remove_temporary(&self.env, &self.dir);
        })?;
        // From the rename until the directory is synced, either file may be the newest one.
        self.in_doubt = true;
        publish(&self.env, &self.dir, no, &temporary)?;
        self.in_doubt = false;
        self.key = file.sealer.key();
        self.file = file;
        self.compact_at = 2 * self.live_bytes + COMPACT_BYTES_MIN;
        self.remove_older(no);
        Ok(())
    }

    /// An older file that stays does no harm: the newest one counts.
    fn remove_older(&self, no: u64) {
        let remove = || -> io::Result<()> {
            for (older, path) in log_file::list(&self.env, &self.dir, SUFFIX)? {
                if older < no {
                    self.env.io.remove(&path)?;
                }
            }
            Ok(())
        };
        if let Err(error) = remove() {
            tracing::warn!(%error, "cannot remove an old metadata file");
        }
    }
}

impl Current {
    /// Writes a commit and syncs it; then, without a sync, a mark that says so.
    fn commit(&mut self, payload: &[u8]) -> io::Result<()> {
        self.write(FrameKind::Meta, 0, payload)?;
        self.file.sync_data()?;
        self.write(FrameKind::Mark, 0, &[])
    }

    fn write(&mut self, kind: FrameKind, flags: u16, payload: &[u8]) -> io::Result<()> {
        let op_count = u32::from(kind == FrameKind::Meta);
        let durable_lsn = Lsn(self.next_lsn.0 - 1);
        let head = frame_head(kind, self.next_lsn, op_count, durable_lsn, self.prev_digest);
        let mut frame = vec![0; HEAD_BYTES];
        frame.extend_from_slice(payload);
        let head = seal_frame(
            &mut frame,
            self.epoch,
            &self.sealer,
            FrameHead { flags, ..head },
        );
        self.file.write_at(&frame, self.offset)?;
        self.offset += head.frame_bytes();
        self.next_lsn = head.next_lsn();
        self.prev_digest = head.digest(self.epoch);
        Ok(())
    }
}

/// Writes the whole state to a new file under its temporary name and syncs it.
fn write_snapshot(
    env: &Env,
    dir: &Path,
    store_uuid: u128,
    no: u64,
    lsn: Lsn,
    map: &BTreeMap<Vec<u8>, Vec<u8>>,
) -> io::Result<(Current, PathBuf)> {
    remove_temporary(env, dir)?;
    let path = dir.join(log_file::file_name(no, TEMPORARY_SUFFIX));
    let file = env.io.open(&path, OpenMode::CreateNew)?;
    let sealer = env.sealer(FileKind::Meta, store_uuid, no);
    let header = FileHeader {
        epoch: env.entropy.next_u64(),
        base: lsn.0,
        ..sealer.header()
    };
    write_header(&*file, &header)?;
    let mut current = Current {
        no,
        file,
        epoch: header.epoch,
        sealer,
        allocated: 0,
        offset: FRAMES_OFFSET,
        next_lsn: lsn,
        prev_digest: 0,
    };
    let mut payload = Vec::new();
    for (key, value) in map {
        if payload.len() >= SNAPSHOT_FRAME_BYTES {
            current.write(FrameKind::Meta, SNAPSHOT, &payload)?;
            payload.clear();
        }
        batch::encode_put(key, value, &mut payload);
    }
    current.write(FrameKind::Meta, SNAPSHOT | SNAPSHOT_END, &payload)?;
    current.file.sync_data()?;
    current.allocated = current.file.len()?;
    Ok((current, path))
}

/// Gives a complete file its name.
fn publish(env: &Env, dir: &Path, no: u64, temporary: &Path) -> io::Result<()> {
    env.io
        .rename(temporary, &dir.join(log_file::file_name(no, SUFFIX)))?;
    env.io.sync_dir(dir)
}

fn remove_temporary(env: &Env, dir: &Path) -> io::Result<()> {
    for (_, path) in log_file::list(env, dir, TEMPORARY_SUFFIX)? {
        env.io.remove(&path)?;
    }
    Ok(())
}
