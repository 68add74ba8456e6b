//! Writing the log: frames go to the end of the current file; a full file is closed and the next
//! one, allocated beforehand, takes over. Files whose ops are durable elsewhere are used again.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use super::WalOptions;
use super::log_file::{self, END_BYTES, FRAMES_OFFSET, frame_head, seal_frame, write_header};
use super::queue::FRAME_PAYLOAD_BYTES_TARGET;
use crate::format::cipher::Sealer;
use crate::format::file_header::{FileHeader, FileKind};
use crate::format::frame::{FrameHead, FrameKind, HEAD_BYTES};
use crate::ids::Lsn;
use crate::io::{Env, IoFile, OpenMode};

/// Suffix of log files.
pub(crate) const SUFFIX: &str = ".wal";
/// Released files that are kept for reuse; more are removed, so that an idle log gives its disk
/// space back.
const SPARES_MAX: usize = 4;

/// Heads and marks of the frames that the queue can hold.
const HEADS_BYTES: u64 = 2048;

/// Why a frame was not written.
#[derive(Debug)]
pub enum AppendError {
    /// The log has its files or the disk is full. Nothing was written: try again after a release.
    NoSpace,
    /// A write or sync failed. The log must not be written any more.
    Io {
        /// What failed.
        operation: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AppendError::NoSpace => f.write_str("no space left for the log"),
            AppendError::Io { operation, source } => write!(f, "log {operation} failed: {source}"),
        }
    }
}

impl std::error::Error for AppendError {}

fn failed(operation: &'static str) -> impl FnOnce(io::Error) -> AppendError {
    move |source| AppendError::Io { operation, source }
}

/// The file that takes frames.
struct Current {
    path: PathBuf,
    file: Arc<dyn IoFile>,
    epoch: u64,
    sealer: Sealer,
    len: u64,
    /// Where the next frame goes.
    offset: u64,
}

/// On a full disk the first file of a log may be this small.
const FIRST_FILE_BYTES_MIN: u64 = 16 << 10;

/// A file that takes no more frames.
struct Closed {
    path: PathBuf,
    len: u64,
    last_lsn: Lsn,
    /// Removed when it is released, not recycled: it was written by an earlier run, possibly with
    /// other sizes, or what is in it must not stay on disk.
    foreign: bool,
}

/// An allocated file under the number it will have.
struct Spare {
    no: u64,
    path: PathBuf,
    len: u64,
}

/// The write-ahead log.
pub struct Wal {
    env: Env,
    dir: PathBuf,
    store_uuid: u128,
    options: WalOptions,
    current: Current,
    closed: VecDeque<Closed>,
    spares: VecDeque<Spare>,
    next_file_no: u64,
    next_lsn: Lsn,
    prev_digest: u64,
    /// Ops were written since the last sync.
    unsynced_ops: bool,
    synced_lsn: Lsn,
    disk_full: bool,
    mark: Vec<u8>,
    /// Files with ops up to here are removed when they are released; see [`Wal::retire`].
    retired: Lsn,
    /// Released files that could not be removed.
    unremoved: Vec<PathBuf>,
}

impl Wal {
    /// Starts a log whose first op will be `first_lsn`, in a new file that is durable on return; where
    /// there is no space for one of the usual size, in a smaller one.
    /// `recycle` are the files of the log before, all of whose ops are below `first_lsn`; they stay
    /// until [`Wal::release_through`] says that those ops are durable elsewhere.
    pub fn create(
        env: &Env,
        dir: &Path,
        store_uuid: u128,
        options: WalOptions,
        first_lsn: Lsn,
        recycle: Vec<PathBuf>,
    ) -> io::Result<Wal> {
        assert!(first_lsn.0 > 0, "lsn 0 means none");
        assert!(
            options.files_max >= 2,
            "one file to write and one to follow it"
        );
        env.io.create_dir_all(dir)?;
        let last_no = log_file::list(env, dir, SUFFIX)?
            .last()
            .map_or(0, |(no, _)| *no);
        let no = last_no + 1;
        let path = dir.join(log_file::file_name(no, SUFFIX));
        let file = env.io.open(&path, OpenMode::CreateNew)?;
        let file_bytes = options.file_bytes.max(FRAMES_OFFSET + END_BYTES as u64);
        let mut len = file_bytes;
        while let Err(error) = file.allocate(len) {
            if is_no_space(&error) && len / 4 >= FIRST_FILE_BYTES_MIN {
                // A small one takes the deletes that make room for the next.
                file.set_len(0)?;
                len /= 4;
                continue;
            }
            // Without a header it is no part of the log, but it would keep the disk full.
            let _ = env.io.remove(&path);
            return Err(error);
        }
        let (header, sealer) = begin(env, store_uuid, no, first_lsn);
        write_header(&*file, &header)?;
        file.sync_data()?;
        env.io.sync_dir(dir)?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            env.io.sync_dir(parent)?;
        }
        let mut closed = VecDeque::new();
        for path in recycle {
            let len = env.io.open(&path, OpenMode::Read)?.len()?;
            let last_lsn = Lsn(first_lsn.0 - 1);
            closed.push_back(Closed {
                path,
                len,
                last_lsn,
                foreign: true,
            });
        }
        Ok(Wal {
            env: env.clone(),
            dir: dir.to_owned(),
            store_uuid,
            options: WalOptions {
                file_bytes,
                ..options
            },
            current: Current {
                path,
                file,
                epoch: header.epoch,
                sealer,
                len,
                offset: FRAMES_OFFSET,
            },
            closed,
            spares: VecDeque::new(),
            next_file_no: no + 1,
            next_lsn: first_lsn,
            prev_digest: 0,
            unsynced_ops: false,
            synced_lsn: Lsn(first_lsn.0 - 1),
            disk_full: len < file_bytes,
            mark: Vec::new(),
            retired: Lsn(0),
            unremoved: Vec::new(),
        })
    }

    /// Writes a frame of `count` ops; not durable before [`Wal::sync`]. `frame` starts with
    /// [`HEAD_BYTES`] of room for the head, then come the encoded ops. On `NoSpace` it is unchanged
    /// and may be tried again.
    pub fn append_frame(
        &mut self,
        first_lsn: Lsn,
        count: u32,
        durable_lsn: Lsn,
        frame: &mut Vec<u8>,
    ) -> Result<(), AppendError> {
        assert_eq!(first_lsn, self.next_lsn, "lsns have no gaps (I3)");
        assert!(count > 0 && frame.len() > HEAD_BYTES, "a frame holds ops");
        assert!(
            durable_lsn < first_lsn,
            "a frame is durable after it was written"
        );
        let payload_bytes = (frame.len() - HEAD_BYTES) as u64;
        self.make_room(log_file::frame_bytes(&self.current.sealer, payload_bytes))?;
        let head = frame_head(
            FrameKind::Data,
            first_lsn,
            count,
            durable_lsn,
            self.prev_digest,
        );
        let head = seal_frame(frame, self.current.epoch, &self.current.sealer, head);
        self.write(head, frame)?;
        self.unsynced_ops = true;
        Ok(())
    }

    /// Makes every frame so far durable.
    pub fn sync(&mut self) -> Result<(), AppendError> {
        self.current.file.sync_data().map_err(failed("sync"))?;
        self.unsynced_ops = false;
        self.synced_lsn = Lsn(self.next_lsn.0 - 1);
        Ok(())
    }

    /// The last op that a successful sync covers.
    pub fn synced_lsn(&self) -> Lsn {
        self.synced_lsn
    }

    /// Writes, without a sync, that everything so far is durable. With it a damaged last frame is
    /// told from one that never was complete. Left out where the file is full.
    pub fn append_mark(&mut self) -> Result<(), AppendError> {
        assert!(!self.unsynced_ops, "a mark follows a sync");
        if self.free_in_current() < HEAD_BYTES as u64 {
            return Ok(());
        }
        let durable_lsn = Lsn(self.next_lsn.0 - 1);
        let head = frame_head(
            FrameKind::Mark,
            self.next_lsn,
            0,
            durable_lsn,
            self.prev_digest,
        );
        let mut mark = std::mem::take(&mut self.mark);
        mark.clear();
        mark.resize(HEAD_BYTES, 0);
        let head = seal_frame(&mut mark, self.current.epoch, &self.current.sealer, head);
        let written = self.write(head, &mark);
        self.mark = mark;
        written
    }

    fn write(&mut self, head: FrameHead, sealed: &[u8]) -> Result<(), AppendError> {
        self.current
            .file
            .write_at(sealed, self.current.offset)
            .map_err(failed("write"))?;
        self.current.offset += head.frame_bytes();
        self.prev_digest = head.digest(self.current.epoch);
        self.next_lsn = head.next_lsn();
        Ok(())
    }

    /// Bytes of frames that still fit into the current file.
    fn free_in_current(&self) -> u64 {
        (self.current.len - self.current.offset).saturating_sub(END_BYTES as u64)
    }

    /// Makes the current file one that takes a frame of `frame_bytes`.
    fn make_room(&mut self, frame_bytes: u64) -> Result<(), AppendError> {
        if frame_bytes <= self.free_in_current() {
            return Ok(());
        }
        if !self.prepare()? {
            return Err(AppendError::NoSpace);
        }
        self.begin_file(frame_bytes)
    }

    /// Begins the next file, which takes a frame of `frame_bytes`.
    fn begin_file(&mut self, frame_bytes: u64) -> Result<(), AppendError> {
        // The next file's header says that everything before it is durable.
        if self.unsynced_ops {
            self.sync()?;
        }
        let Some(spare) = self.spares.front_mut() else {
            return Err(AppendError::NoSpace);
        };
        let file = self
            .env
            .io
            .open(&spare.path, OpenMode::ReadWrite)
            .map_err(failed("open"))?;
        let len = FRAMES_OFFSET + frame_bytes + END_BYTES as u64;
        if len > spare.len {
            match file.allocate(len) {
                Ok(()) => spare.len = len,
                Err(e) if is_no_space(&e) => {
                    self.disk_full = true;
                    return Err(AppendError::NoSpace);
                }
                Err(e) => return Err(failed("allocate")(e)),
            }
        }
        let (header, sealer) = begin(&self.env, self.store_uuid, spare.no, self.next_lsn);
        write_header(&*file, &header).map_err(failed("write"))?;
        let next = Current {
            path: std::mem::take(&mut spare.path),
            file,
            epoch: header.epoch,
            sealer,
            len: spare.len,
            offset: FRAMES_OFFSET,
        };
        self.spares.pop_front();
        let full = std::mem::replace(&mut self.current, next);
        self.closed.push_back(Closed {
            path: full.path,
            len: full.len,
            last_lsn: Lsn(self.next_lsn.0 - 1),
            foreign: false,
        });
        Ok(())
    }

    /// Has a file ready to follow the current one; false if there is no space for it. Call it while
    /// nobody waits.
    pub fn prepare(&mut self) -> Result<bool, AppendError> {
        if !self.spares.is_empty() {
            return Ok(true);
        }
        let own = self.closed.iter().filter(|closed| !closed.foreign).count();
        if own + 2 > self.options.files_max as usize {
            return Ok(false);
        }
        let no = self.next_file_no;
        let path = self.dir.join(log_file::file_name(no, SUFFIX));
        let allocated = self
            .env
            .io
            .open(&path, OpenMode::CreateNew)
            .and_then(|file| file.allocate(self.options.file_bytes));
        match allocated {
            Ok(()) => {}
            Err(e) if is_no_space(&e) => {
                self.disk_full = true;
                // A file without a header is no part of the log; the number is not used again.
                self.next_file_no += 1;
                self.remove(&path);
                return Ok(false);
            }
            Err(e) => return Err(failed("allocate")(e)),
        }
        self.env
            .io
            .sync_dir(&self.dir)
            .map_err(failed("directory sync"))?;
        self.next_file_no += 1;
        self.disk_full = false;
        self.spares.push_back(Spare {
            no,
            path,
            len: self.options.file_bytes,
        });
        Ok(true)
    }

    /// Sees to it that no op so far stays on disk when it is released: the file that takes frames is
    /// closed, it and the closed ones will be removed and not used again, and so are files at hand
    /// that were used before. False if there is no space for a next file; then try again.
    pub fn retire(&mut self) -> Result<bool, AppendError> {
        for spare in std::mem::take(&mut self.spares) {
            self.remove(&spare.path);
        }
        for closed in &mut self.closed {
            closed.foreign = true;
        }
        if !self.prepare()? {
            return Ok(false);
        }
        self.begin_file(0)?;
        // The files before it may be gone before the next frame is synced.
        self.sync()?;
        if let Some(closed) = self.closed.back_mut() {
            closed.foreign = true;
        }
        self.retired = Lsn(self.next_lsn.0 - 1);
        Ok(true)
    }

    /// Tries again to remove what could not be removed, durably. Returns the position up to which
    /// no retired op is on disk any more; `None` while some may be.
    pub fn gone_through(&mut self) -> Option<Lsn> {
        let waiting = self.closed.front().map(|file| file.last_lsn);
        if waiting.is_some_and(|last| last <= self.retired) {
            return None;
        }
        for path in std::mem::take(&mut self.unremoved) {
            self.remove(&path);
        }
        let removed = self.unremoved.is_empty() && self.env.io.sync_dir(&self.dir).is_ok();
        removed.then_some(self.retired)
    }

    /// The ops up to `lsn` are durable elsewhere, and the metadata that says so is durable too:
    /// files without later ops are recycled or removed.
    pub fn release_through(&mut self, lsn: Lsn) -> Result<(), AppendError> {
        let mut renamed = false;
        while self.closed.front().is_some_and(|file| file.last_lsn <= lsn) {
            let Some(file) = self.closed.pop_front() else {
                break;
            };
            let same_size = file.len == self.options.file_bytes;
            if file.foreign || !same_size || self.spares.len() >= SPARES_MAX {
                self.remove(&file.path);
                continue;
            }
            let no = self.next_file_no;
            let path = self.dir.join(log_file::file_name(no, SUFFIX));
            self.env
                .io
                .rename(&file.path, &path)
                .map_err(failed("rename"))?;
            self.next_file_no += 1;
            renamed = true;
            self.disk_full = false;
            self.spares.push_back(Spare {
                no,
                path,
                len: file.len,
            });
        }
        if renamed {
            // Before a header is written under the new name: a rename that a crash takes back would
            // leave the new frames under the old name.
            self.env
                .io
                .sync_dir(&self.dir)
                .map_err(failed("directory sync"))?;
        }
        Ok(())
    }

    /// A file that cannot be removed takes space and does no harm: recovery skips it.
    fn remove(&mut self, path: &Path) {
        match self.env.io.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(file = %path.display(), %error, "cannot remove a log file");
                self.unremoved.push(path.to_owned());
            }
            _ => {}
        }
    }

    /// Bytes of files and frames that hold ops not released yet.
    pub fn used_bytes(&self) -> u64 {
        let closed: u64 = self.closed.iter().map(|file| file.len).sum();
        closed + self.current.offset - FRAMES_OFFSET
    }

    /// Bytes of ops that fit into the files at hand, however they are cut into frames of usual
    /// size.
    pub fn room(&self) -> u64 {
        // All frames go to the current file, or, at worst, none of them does; then each further
        // file can lose the room of one frame at its end.
        let capacity = self.options.file_bytes - FRAMES_OFFSET;
        let heads = HEADS_BYTES.min(capacity / 4);
        let frame = (FRAME_PAYLOAD_BYTES_TARGET as u64 + HEADS_BYTES).min(capacity / 4);
        let spares: u64 = self
            .spares
            .iter()
            .map(|spare| {
                spare
                    .len
                    .saturating_sub(FRAMES_OFFSET + END_BYTES as u64 + frame)
            })
            .sum();
        spares.max(self.free_in_current().saturating_sub(heads))
    }

    /// The lsn that the next frame starts with.
    pub fn next_lsn(&self) -> Lsn {
        self.next_lsn
    }

    /// Whether the last attempt to get disk space failed for want of it.
    pub fn is_disk_full(&self) -> bool {
        self.disk_full
    }

    /// Log space that appends leave to other ops: what the options say, but never so much of small
    /// files that no append finds room.
    pub fn control_reserve_bytes(&self) -> u64 {
        let most = self.options.file_bytes / 4;
        self.options.control_reserve_bytes.min(most)
    }
}

/// The header of a file that is begun now, and what encrypts its frames.
fn begin(env: &Env, store_uuid: u128, file_no: u64, base: Lsn) -> (FileHeader, Sealer) {
    let sealer = env.sealer(FileKind::Wal, store_uuid, file_no);
    let header = FileHeader {
        epoch: env.entropy.next_u64(),
        base: base.0,
        ..sealer.header()
    };
    (header, sealer)
}

fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
