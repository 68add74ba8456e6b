//! A simulated machine for tests: a disk that loses power and lies, a clock that stands still,
//! random bits that repeat.
//!
//! [`SimDisk`] is a file system in memory that knows, of every file and directory, what programs see
//! and what the device holds. [`SimDisk::crash`] returns the disk that a power cut leaves:
//!
//! - Synced content, lengths and names survive. That and nothing else may be relied on.
//! - Of unsynced writes any subset of 512 B sectors survives; a sector is old or new, never mixed.
//!   Later writes may survive without earlier ones.
//! - Changes of one file's length survive oldest first; a growing write may grow it partly. Where
//!   the length survives without the content, zeros appear, never foreign bytes. A cut puts zeros
//!   behind the new length, also within a sector.
//! - Unsynced creations, renames and removals survive independently of each other and of content,
//!   but those of one name only in order; a rename is atomic. A file without a durable name is lost
//!   with all its synced content.
//!
//! [`Persist`] chooses among the outcomes, [`Fault`] injects errors and damage, and [`CrashMatrix`]
//! cuts the power at every change of a script and tries many outcomes each time; [`FaultMatrix`] lets
//! every operation of a script go wrong. Everything is deterministic: the same seed and the same calls give the same result. Threads make the order of
//! calls, and so the result, depend on the scheduler.
//!
//! # An exhaustive crash test
//!
//! The script returns what it was told is durable; the check opens the survivor and looks for it.
//!
//! ```
//! use riverlog_engine::io::sim::{CrashMatrix, SimDisk};
//! use riverlog_engine::io::{Io, IoFile, OpenMode};
//! use std::path::Path;
//!
//! /// Appends ten bytes, one sync each; returns how many were acknowledged.
//! fn append(disk: &SimDisk) -> u64 {
//!     let append = |acked: &mut u64| -> std::io::Result<()> {
//!         disk.create_dir_all(Path::new("data"))?;
//!         let file = disk.open(Path::new("data/log"), OpenMode::CreateNew)?;
//!         disk.sync_dir(Path::new("data"))?;
//!         for n in 0..10 {
//!             file.write_at(&[n as u8 + 1], n)?;
//!             file.sync_data()?;
//!             *acked = n + 1;
//!         }
//!         Ok(())
//!     };
//!     let mut acked = 0;
//!     // The error is the power cut.
//!     _ = append(&mut acked);
//!     acked
//! }
//!
//! let report = CrashMatrix::new(1).run(append, |survivor, acked, _point| {
//!     let found = survivor.read_file("data/log").unwrap_or_default();
//!     let durable = found.iter().zip(1..).take_while(|(byte, want)| **byte == *want).count();
//!     if durable as u64 >= *acked { Ok(()) } else { Err(format!("{durable} of {acked}")) }
//! });
//! let report = report.unwrap_or_else(|failure| panic!("{failure}"));
//! // Two directory steps, creation, sync of the directory, ten writes, ten syncs; and the end.
//! assert_eq!(report.points, 25);
//! ```

use std::io::{self, Result};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

mod crash;
mod env;
mod fault;
mod fault_matrix;
mod file;
mod image;
mod matrix;
mod names;
mod ops;
pub mod oracle;
mod rng;
mod state;
#[cfg(test)]
mod tests;

pub use crash::Persist;
pub use env::{SimClock, SimEntropy};
pub use fault::{Fault, Trigger};
pub use fault_matrix::{FaultFailure, FaultMatrix, FaultPoint, Restart};
pub use matrix::{CrashFailure, CrashMatrix, CrashPoint, CrashReport};
pub use ops::{Op, OpKind};
pub use rng::SimRng;

use self::fault::Rule;
use self::image::PAGE;
use self::names::{Inode, Names};
use self::state::{Call, State};
use super::{DirEntry, Io, IoFile, OpenMode};

/// A disk in memory that can lose power and misbehave; see the [module](self). Clones are the same
/// disk.
///
/// Paths are relative to the root of the disk, with or without a leading `/`; `..` is refused. Only
/// the root directory exists at first.
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Signalled when syncs are held or let go, and when the power goes.
    syncs: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in one test thread must not hide behind poison errors in the others.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SimDisk {
    /// An empty disk of unlimited size. The seed decides random faults.
    pub fn new(seed: u64) -> Self {
        Self::with_state(State::new(seed, Names::new()))
    }

    fn with_state(state: State) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                syncs: Condvar::new(),
            }),
        }
    }

    /// Limits the space for file content, in whole 4 KiB pages; names take none.
    pub fn set_capacity(&self, bytes: u64) {
        self.shared.lock().pages_max = bytes / PAGE;
    }

    /// Injects a fault on any path.
    pub fn inject(&self, fault: Fault, trigger: Trigger) {
        self.inject_on("", fault, trigger);
    }

    /// Injects a fault on paths that contain `path_part`. If several faults hit one operation, the
    /// one injected first happens.
    pub fn inject_on(&self, path_part: &str, fault: Fault, trigger: Trigger) {
        let path_part = path_part.to_owned();
        self.shared.lock().rules.push(Rule {
            fault,
            trigger,
            path_part,
            matched: 0,
        });
    }

    /// Ends all injected faults. What they broke stays broken.
    pub fn clear_faults(&self) {
        self.shared.lock().rules.clear();
    }

    /// Lets `changes` more operations that [change the disk](OpKind::changes_disk) succeed; the next
    /// one finds the power off, and so does every call after it.
    pub fn cut_power_after(&self, changes: u64) {
        let mut state = self.shared.lock();
        state.changes_max = Some(state.changes.saturating_add(changes));
    }

    /// Every call from now on fails with `BrokenPipe`.
    pub fn cut_power_now(&self) {
        self.shared.lock().is_powered = false;
        self.shared.syncs.notify_all();
    }

    /// False once the power was cut.
    pub fn is_powered(&self) -> bool {
        self.shared.lock().is_powered
    }

    /// Cuts the power and returns the disk that the machine finds when the power is back: no locks,
    /// no faults. May be called again with other choices.
    pub fn crash(&self, persist: Persist) -> SimDisk {
        self.cut_power_now();
        Self::with_state(self.shared.lock().after_crash(persist))
    }

    /// Kills the process: the caches survive, with all that is not durable yet, but locks and open
    /// files do not. Calls on this disk fail from now on.
    pub fn kill_process(&self) -> SimDisk {
        self.cut_power_now();
        self.fork()
    }

    /// An independent copy: same content and caches, no locks, no open files, no faults, and powered.
    pub fn fork(&self) -> SimDisk {
        Self::with_state(self.shared.lock().after_kill())
    }

    /// Keeps `sync_data` calls from finishing until the returned value is dropped, so that a test
    /// can act while a sync is under way. They make durable what was written before they began.
    pub fn hold_syncs(&self) -> SyncHold {
        self.shared.lock().sync_holds += 1;
        SyncHold {
            shared: self.shared.clone(),
        }
    }

    /// Operations so far.
    pub fn ops(&self) -> u64 {
        self.shared.lock().ops
    }

    /// Operations so far that [change the disk](OpKind::changes_disk).
    pub fn changes(&self) -> u64 {
        self.shared.lock().changes
    }

    /// Injected faults that happened so far.
    pub fn faults(&self) -> u64 {
        self.shared.lock().faults
    }

    /// The last 65,536 operations, oldest first.
    pub fn log(&self) -> Vec<Op> {
        self.shared.lock().log.to_vec()
    }

    /// Paths (with a leading `/`) and lengths of all files, sorted. Works without power.
    pub fn files(&self) -> Vec<(String, u64)> {
        self.shared.lock().files()
    }

    /// Content of a file as programs see it. Works without power and is not in the log.
    pub fn read_file(&self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        let state = self.shared.lock();
        let file = state
            .names
            .file(state.names.resolve(&names::parts(path.as_ref())?)?)?;
        let mut content = vec![0; file.len() as usize];
        file.live().read(&mut content, 0);
        Ok(content)
    }

    /// Inverts the bits of `mask` in the byte at `offset`, on the device and in the cache. Beyond
    /// the end of the file: `InvalidInput`.
    pub fn corrupt(&self, path: impl AsRef<Path>, offset: u64, mask: u8) -> Result<()> {
        let mut is_inside = true;
        self.tamper(path.as_ref(), |file| {
            is_inside = offset < file.len();
            if is_inside {
                file.flip(offset, mask);
            }
        })?;
        if is_inside {
            Ok(())
        } else {
            Err(io::ErrorKind::InvalidInput.into())
        }
    }

    /// Replaces bytes on the device and in the cache; those beyond the end of the file are ignored.
    pub fn overwrite(&self, path: impl AsRef<Path>, offset: u64, data: &[u8]) -> Result<()> {
        self.tamper(path.as_ref(), |file| file.overwrite(data, offset))
    }

    /// Cuts or extends (with zeros) a file, durably, with what was not synced of it.
    pub fn truncate(&self, path: impl AsRef<Path>, len: u64) -> Result<()> {
        self.tamper(path.as_ref(), |file| file.cut(len))
    }

    fn tamper(&self, path: &Path, body: impl FnOnce(&mut file::FileNode)) -> Result<()> {
        self.shared.lock().tamper(&names::parts(path)?, body)
    }

    /// Runs one operation on a path.
    fn on_path<T>(
        &self,
        kind: OpKind,
        path: &Path,
        body: impl FnOnce(&mut State, &[String], state::Ticket) -> Result<T>,
    ) -> Result<T> {
        let parts = names::parts(path)?;
        let path = path.to_string_lossy().into();
        let call = Call {
            kind,
            path: &path,
            offset: 0,
            len: 0,
        };
        self.shared
            .lock()
            .run(&call, |state, ticket| body(state, &parts, ticket))
    }
}

impl Io for SimDisk {
    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        // Step by step as the real disk does it, so that the power may go between the steps.
        let parts = names::parts(dir)?;
        let existing = self.shared.lock().names.existing_dirs(&parts)?;
        let level = |depth: usize| PathBuf::from(parts[..depth].join("/"));
        if existing > 0 {
            self.sync_dir(&level(existing - 1))?;
        }
        for depth in existing..parts.len() {
            self.on_path(OpKind::CreateDir, &level(depth + 1), State::create_dir)?;
            self.sync_dir(&level(depth))?;
        }
        Ok(())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn IoFile>> {
        let kind = match mode {
            OpenMode::Read | OpenMode::ReadWrite => OpKind::Open,
            OpenMode::CreateNew => OpKind::Create,
        };
        let inode = self.on_path(kind, path, |state, parts, ticket| {
            state.open(parts, mode, ticket)
        })?;
        Ok(Arc::new(SimFile {
            shared: self.shared.clone(),
            inode,
            path: path.to_string_lossy().into(),
            is_writable: mode != OpenMode::Read,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let to = names::parts(to)?;
        self.on_path(OpKind::Rename, from, |state, from, ticket| {
            state.rename(from, &to, ticket)
        })
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.on_path(OpKind::Remove, path, State::remove)
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>> {
        self.on_path(OpKind::List, dir, |state, parts, ticket| {
            state.list(parts, ticket)
        })
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.on_path(OpKind::SyncDir, dir, State::sync_dir)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn Send + Sync>> {
        let inode = self.on_path(OpKind::Lock, path, State::lock)?;
        Ok(Box::new(SimLock {
            shared: self.shared.clone(),
            inode,
        }))
    }

    fn free_bytes(&self, dir: &Path) -> Result<u64> {
        self.on_path(OpKind::Stat, dir, |state, parts, _| {
            state.names.resolve(parts)?;
            Ok(state.bytes_free())
        })
    }
}

/// An open file of a [`SimDisk`].
struct SimFile {
    shared: Arc<Shared>,
    inode: Inode,
    /// Path at open time, for the log only.
    path: Arc<str>,
    is_writable: bool,
}

impl SimFile {
    fn run<T>(
        &self,
        kind: OpKind,
        offset: u64,
        len: u64,
        body: impl FnOnce(&mut State, state::Ticket) -> Result<T>,
    ) -> Result<T> {
        let call = Call {
            kind,
            path: &self.path,
            offset,
            len,
        };
        self.shared.lock().run(&call, |state, ticket| {
            let needs_write = matches!(kind, OpKind::Write | OpKind::SetLen | OpKind::Allocate);
            if needs_write && !self.is_writable {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            body(state, ticket)
        })
    }
}

impl IoFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let len = buf.len() as u64;
        self.run(OpKind::Read, offset, len, |state, ticket| {
            state.read(self.inode, buf, offset, ticket)
        })
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.run(OpKind::Write, offset, buf.len() as u64, |state, ticket| {
            state.write(self.inode, buf, offset, ticket)
        })
    }

    fn sync_data(&self) -> Result<()> {
        let up_to = {
            let mut state = self.shared.lock();
            let up_to = state.ops;
            if state.sync_holds > 0 {
                state.syncs_held += 1;
                self.shared.syncs.notify_all();
                while state.sync_holds > 0 && state.is_powered {
                    let woken = self.shared.syncs.wait(state);
                    state = woken.unwrap_or_else(PoisonError::into_inner);
                }
                state.syncs_held -= 1;
            }
            up_to
        };
        self.run(OpKind::Sync, 0, 0, |state, ticket| {
            state.sync(self.inode, up_to, ticket)
        })
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.run(OpKind::SetLen, 0, len, |state, ticket| {
            state.set_len(self.inode, len, ticket)
        })
    }

    fn allocate(&self, len: u64) -> Result<()> {
        self.run(OpKind::Allocate, 0, len, |state, ticket| {
            state.allocate(self.inode, len, ticket)
        })
    }

    fn len(&self) -> Result<u64> {
        self.run(OpKind::Stat, 0, 0, |state, _| {
            Ok(state.names.file(self.inode)?.len())
        })
    }

    fn drop_cache(&self) {
        // Advice without an answer, also on the real disk; without power there is no cache left.
        _ = self.run(OpKind::DropCache, 0, 0, |state, _| {
            state.drop_cache(self.inode)
        });
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.shared.lock().close(self.inode);
    }
}

struct SimLock {
    shared: Arc<Shared>,
    inode: Inode,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.shared.lock().locks.remove(&self.inode);
    }
}

/// Keeps syncs from finishing while it lives; made by [`SimDisk::hold_syncs`].
pub struct SyncHold {
    shared: Arc<Shared>,
}

impl SyncHold {
    /// Blocks until at least `count` syncs wait, or the power is cut.
    pub fn wait_for_syncs(&self, count: usize) {
        let mut state = self.shared.lock();
        while state.syncs_held < count && state.is_powered {
            let woken = self.shared.syncs.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for SyncHold {
    fn drop(&mut self) {
        self.shared.lock().sync_holds -= 1;
        self.shared.syncs.notify_all();
    }
}
