//! Reading the log back.
//!
//! | finding at the frame that should hold lsn `L` | meaning | answer |
//! |---|---|---|
//! | zeros, nothing valid behind them | the end of the log | done |
//! | something else, nothing valid behind it | torn tail, or damage to the very last frame: not to be told apart | cut there, reported |
//! | bad, and the next valid frame or file starts with `L` | only a mark is damaged, or the file was full | go on: no op is missing |
//! | bad, a later valid frame says `durable_lsn < L` | in flight when the system stopped, never acknowledged | cut there, reported |
//! | bad, a later valid frame says `durable_lsn >= L` | **acknowledged ops are damaged** | refuse; in salvage mode report the lost range and go on at the next valid frame |
//! | bad, a later file starts above `L` | a file is begun when everything before it is durable: as above | as above |
//! | valid, but wrong lsn, epoch, store or chain | stale bytes of a recycled file, or a misdirected write | bad |
//! | an encrypted frame whose checksum fits, and the key is missing | refuse, naming the key: it is no damage |
//! | the same with the key at hand, but not authentic | somebody changed it: as for acknowledged ops that are damaged |
//! | a file starts at or below an lsn that an older file still holds | the older file's ops from there on had been cut when the newer one was begun | the newer file counts |
//!
//! Damage that a checkpoint covers (all lsns up to `after`) is no loss.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::log_file::{self, FRAMES_OFFSET, Found, LogFile, Opened};
use super::writer::SUFFIX;
use crate::format::FormatError;
use crate::format::file_header::FileKind;
use crate::format::frame::{FrameHead, FrameKind};
use crate::format::key_ring::KeyId;
use crate::format::op::Op;
use crate::ids::Lsn;
use crate::io::Env;

/// Where the log was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The file.
    pub file: PathBuf,
    /// Offset of the first byte that was not taken.
    pub offset: u64,
    /// The lsn that would have come next.
    pub lsn: Lsn,
    /// Valid frames behind the cut that were left out because they were never acknowledged.
    pub frames_valid: u64,
    /// What was found at the offset.
    pub reason: FormatError,
}

/// Acknowledged ops that are damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostRange {
    /// The file where the damage begins.
    pub file: PathBuf,
    /// Offset of the damage.
    pub offset: u64,
    /// First lost op.
    pub first_lsn: Lsn,
    /// Last lost op.
    pub last_lsn: Lsn,
}

/// What a recovery found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalRecovered {
    /// The lsn that the next op gets.
    pub next_lsn: Lsn,
    /// The highest lsn that the log itself calls durable. Later recovered ops may or may not have
    /// been acknowledged.
    pub last_durable_hint: Lsn,
    /// The unusable tail, if there was one.
    pub cut: Option<Cut>,
    /// Lost ranges; empty unless salvaging.
    pub lost: Vec<LostRange>,
    /// Damaged places that held no op that is still needed.
    pub harmless_damage: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Ops handed to the sink.
    pub ops: u64,
    /// Those of them that were not encrypted.
    pub ops_plain: u64,
    /// All files of the log, to be passed to [`super::Wal::create`].
    pub old_files: Vec<PathBuf>,
}

/// Why the log was not recovered. Nothing on disk was changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum RecoverError {
    /// Acknowledged ops cannot be read. Salvage goes on without them.
    AckedDataDamaged(LostRange),
    /// There is no log file, although the metadata says that there was a log.
    LogMissing {
        /// The log's directory.
        dir: PathBuf,
        /// The checkpoint that the metadata names.
        after: Lsn,
    },
    /// Needed ops are encrypted with a key that was not given.
    KeyMissing {
        /// The file.
        file: PathBuf,
        /// The key that its header names.
        key: Option<KeyId>,
    },
    /// A frame was changed on purpose or encrypted with another key. Salvage goes on without it.
    NotAuthentic(LostRange),
    /// A file belongs to another store.
    WrongStore {
        /// The file.
        file: PathBuf,
    },
    /// A valid frame holds ops that this build cannot read or apply: most likely a newer version
    /// wrote them.
    Op {
        /// The file.
        file: PathBuf,
        /// Offset of the frame.
        offset: u64,
        /// The op.
        lsn: Lsn,
        /// What is wrong with it.
        source: FormatError,
    },
    /// A newer version wrote the file.
    NewerVersion {
        /// The file.
        file: PathBuf,
        /// The version.
        source: FormatError,
    },
    /// The system failed a call.
    Io {
        /// The file or directory.
        file: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecoverError::AckedDataDamaged(lost) => write!(
                f,
                "acknowledged operations {} to {} are damaged: {} at offset {}",
                lost.first_lsn,
                lost.last_lsn,
                lost.file.display(),
                lost.offset
            ),
            RecoverError::KeyMissing { file, key } => write!(
                f,
                "{} is encrypted with key {}, which was not given",
                file.display(),
                key.map_or("unknown".to_owned(), |key| key.to_string())
            ),
            RecoverError::NotAuthentic(lost) => write!(
                f,
                "operations {} to {} were changed on purpose or encrypted with another key: {} at offset {}",
                lost.first_lsn,
                lost.last_lsn,
                lost.file.display(),
                lost.offset
            ),
            RecoverError::LogMissing { dir, after } => write!(
                f,
                "no log file in {}, but the metadata names a checkpoint at {after}",
                dir.display()
            ),
            RecoverError::WrongStore { file } => {
                write!(f, "{} belongs to another store", file.display())
            }
            RecoverError::Op {
                file,
                offset,
                lsn,
                source,
            } => write!(
                f,
                "operation {lsn} in {} (frame at offset {offset}) is not usable: {source}",
                file.display()
            ),
            RecoverError::NewerVersion { file, source } => {
                write!(f, "{}: {source}", file.display())
            }
            RecoverError::Io { file, source } => write!(f, "{}: {source}", file.display()),
        }
    }
}

impl std::error::Error for RecoverError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RecoverError::Op { source, .. } | RecoverError::NewerVersion { source, .. } => {
                Some(source)
            }
            RecoverError::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Zeros where later frames say that there was one.
const NOTHING_WRITTEN: FormatError = FormatError::MagicMismatch { what: "frame" };

/// Receives the ops in lsn order.
pub type Sink<'s> = &'s mut dyn FnMut(Lsn, Op<'_>) -> Result<(), FormatError>;

/// Reads the log in `dir` and hands every op above `after` to `sink`, in lsn order, each once. See
/// the [module](self) for what it makes of damage. Writes nothing, but what it read is durable.
pub fn recover(
    env: &Env,
    dir: &Path,
    store_uuid: u128,
    after: Lsn,
    salvage: bool,
    sink: Sink<'_>,
) -> Result<WalRecovered, RecoverError> {
    let names = log_file::list(env, dir, SUFFIX).map_err(io_error(dir))?;
    let mut files = Vec::new();
    for (no, path) in &names {
        files.push(open(env, path, *no, store_uuid)?);
    }
    if !salvage && after.0 > 0 && !files.iter().any(|file| matches!(file, Entry::Log(_))) {
        return Err(RecoverError::LogMissing {
            dir: dir.to_owned(),
            after,
        });
    }
    let mut scan = Scan {
        limits: limits(&files),
        files,
        after,
        salvage,
        sink,
        lsn: Lsn(after.0.saturating_add(1)),
        bad: None,
        report: WalRecovered {
            last_durable_hint: after,
            ..WalRecovered::default()
        },
    };
    scan.run()?;
    let mut report = scan.report;
    report.next_lsn = scan.lsn.max(Lsn(after.0.saturating_add(1)));
    report.bytes_read = scan.files.iter().map(Entry::bytes_read).sum();
    report.old_files = names.into_iter().map(|(_, path)| path).collect();
    Ok(report)
}

fn io_error(file: &Path) -> impl FnOnce(io::Error) -> RecoverError {
    move |source| RecoverError::Io {
        file: file.to_owned(),
        source,
    }
}

enum Entry {
    Log(LogFile),
    Unused,
    Unreadable(PathBuf, FormatError),
}

impl Entry {
    fn bytes_read(&self) -> u64 {
        match self {
            Entry::Log(file) => file.bytes_read(),
            _ => 0,
        }
    }
}

fn open(env: &Env, path: &Path, no: u64, store_uuid: u128) -> Result<Entry, RecoverError> {
    match LogFile::open(env, path, FileKind::Wal, no).map_err(io_error(path))? {
        Opened::Log(file) if file.header.store_uuid != store_uuid => {
            Err(RecoverError::WrongStore {
                file: path.to_owned(),
            })
        }
        Opened::Log(file) => Ok(Entry::Log(file)),
        Opened::Unused => Ok(Entry::Unused),
        Opened::Unreadable(source @ FormatError::NewerVersion { .. }) => {
            Err(RecoverError::NewerVersion {
                file: path.to_owned(),
                source,
            })
        }
        Opened::Unreadable(source) => Ok(Entry::Unreadable(path.to_owned(), source)),
    }
}

/// For each file the lowest lsn that a later file starts with: it ends there.
fn limits(files: &[Entry]) -> Vec<Lsn> {
    let mut limits = vec![Lsn(u64::MAX); files.len()];
    let mut lowest = Lsn(u64::MAX);
    for (limit, file) in limits.iter_mut().zip(files).rev() {
        *limit = lowest;
        if let Entry::Log(file) = file {
            lowest = lowest.min(Lsn(file.header.base));
        }
    }
    limits
}

/// A place where the log could not be read on.
struct Bad {
    file: PathBuf,
    offset: u64,
    reason: FormatError,
    /// Valid frames behind it that did not prove it durable.
    frames_valid: u64,
}

struct Scan<'s> {
    files: Vec<Entry>,
    limits: Vec<Lsn>,
    after: Lsn,
    salvage: bool,
    sink: Sink<'s>,
    /// The op that should come next.
    lsn: Lsn,
    /// The open question at `lsn`: torn, in flight or lost?
    bad: Option<Bad>,
    report: WalRecovered,
}

impl Scan<'_> {
    fn run(&mut self) -> Result<(), RecoverError> {
        for index in self.first_needed()..self.files.len() {
            let limit = self.limits[index];
            match std::mem::replace(&mut self.files[index], Entry::Unused) {
                Entry::Log(mut file) => {
                    let scanned = self.file(&mut file, limit);
                    self.files[index] = Entry::Log(file);
                    scanned?;
                }
                Entry::Unused => {}
                Entry::Unreadable(path, reason) => self.note_bad(&path, 0, reason),
            }
        }
        if let Some(bad) = self.bad.take() {
            tracing::error!(
                file = %bad.file.display(),
                offset = bad.offset,
                lsn = self.lsn.0,
                reason = %bad.reason,
                "the log was cut: a frame that was never acknowledged, or the very last one"
            );
            self.report.cut = Some(Cut {
                file: bad.file,
                offset: bad.offset,
                lsn: self.lsn,
                frames_valid: bad.frames_valid,
                reason: bad.reason,
            });
        }
        Ok(())
    }

    /// The last file that starts at or before the first needed op: everything in older files is
    /// covered by the checkpoint.
    fn first_needed(&self) -> usize {
        let needed = self.needed();
        self.files
            .iter()
            .rposition(|file| matches!(file, Entry::Log(log) if Lsn(log.header.base) <= needed))
            .unwrap_or(0)
    }

    /// The first op that the caller does not have.
    fn needed(&self) -> Lsn {
        Lsn(self.after.0.saturating_add(1))
    }

    fn file(&mut self, file: &mut LogFile, limit: Lsn) -> Result<(), RecoverError> {
        let base = Lsn(file.header.base);
        self.report.last_durable_hint = self.report.last_durable_hint.max(Lsn(base.0.max(1) - 1));
        if base <= self.lsn {
            // No op is missing between the files.
            self.settle_harmless();
            if base.0 <= self.after.0 {
                self.lsn = base;
            }
        } else {
            if self.bad.is_none() {
                let reason = FormatError::OutOfRange {
                    what: "first lsn of the file",
                };
                self.note_bad(&file.path.clone(), 0, reason);
            }
            self.lose_until(base)?;
        }
        let mut offset = FRAMES_OFFSET;
        // The digest of the frame before, where it is known.
        let mut chain = None;
        loop {
            if self.lsn >= limit {
                return Ok(());
            }
            let reason = match self.expect_frame(file, offset, chain, limit)? {
                Ok(head) => {
                    offset += head.frame_bytes();
                    chain = Some(head.digest(file.header.epoch));
                    continue;
                }
                Err(reason) => reason,
            };
            let Some((next, head)) = self.search(file, offset, reason, limit)? else {
                return Ok(());
            };
            offset = next;
            chain = Some(head.prev_digest);
        }
    }

    /// Takes the frame at `offset` if it is the next one. The inner error says why it is not.
    fn expect_frame(
        &mut self,
        file: &mut LogFile,
        offset: u64,
        chain: Option<u64>,
        limit: Lsn,
    ) -> Result<Result<FrameHead, Option<FormatError>>, RecoverError> {
        let path = file.path.clone();
        let head = match file.frame_at(offset).map_err(io_error(&path))? {
            Found::Frame(head) => head,
            Found::End => return Ok(Err(None)),
            Found::Bad(source @ FormatError::NewerVersion { .. }) => {
                return Err(RecoverError::NewerVersion { file: path, source });
            }
            Found::Bad(reason) => return Ok(Err(Some(reason))),
        };
        if head.kind == FrameKind::Meta {
            return Ok(Err(Some(FormatError::OutOfRange { what: "frame kind" })));
        }
        if head.lsn != self.lsn || head.next_lsn() > limit {
            return Ok(Err(Some(FormatError::OutOfRange { what: "frame lsn" })));
        }
        if chain.is_some_and(|digest| digest != head.prev_digest) {
            return Ok(Err(Some(FormatError::OutOfRange {
                what: "frame chain",
            })));
        }
        let checked = file.check_payload(offset, &head);
        if let Err(reason) = checked.map_err(io_error(&path))? {
            return Ok(Err(Some(reason)));
        }
        self.report.last_durable_hint = self.report.last_durable_hint.max(head.durable_lsn);
        if head.next_lsn() > self.needed() {
            self.deliver(file, offset, &head)?;
        }
        self.lsn = head.next_lsn();
        Ok(Ok(head))
    }

    fn deliver(
        &mut self,
        file: &mut LogFile,
        offset: u64,
        head: &FrameHead,
    ) -> Result<(), RecoverError> {
        let last_lsn = Lsn(head.next_lsn().0 - 1);
        let (path, key) = (file.path.clone(), file.header.key);
        let needed = self.needed();
        let mut rest = match file.payload(offset, head).map_err(io_error(&path))? {
            Ok(payload) => payload,
            Err(FormatError::KeyMissing { .. }) => {
                return Err(RecoverError::KeyMissing { file: path, key });
            }
            // The digest was checked before.
            Err(reason) => {
                let lost = LostRange {
                    file: path,
                    offset,
                    first_lsn: head.lsn.max(needed),
                    last_lsn,
                };
                if !self.salvage {
                    return Err(RecoverError::NotAuthentic(lost));
                }
                tracing::error!(?lost, %reason, "acknowledged operations are lost");
                self.report.lost.push(lost);
                return Ok(());
            }
        };
        for lsn in (head.lsn.0..head.next_lsn().0).map(Lsn) {
            let handed = Op::decode(rest).and_then(|(op, behind)| {
                rest = behind;
                if lsn <= self.after {
                    return Ok(());
                }
                self.report.ops += 1;
                self.report.ops_plain += u64::from(key.is_none());
                (self.sink)(lsn, op)
            });
            let surplus = lsn == last_lsn && !rest.is_empty();
            let source = match handed {
                Ok(()) if surplus => FormatError::OutOfRange {
                    what: "op count of the frame",
                },
                Ok(()) => continue,
                Err(source) => source,
            };
            if !self.salvage {
                return Err(RecoverError::Op {
                    file: path,
                    offset,
                    lsn,
                    source,
                });
            }
            self.report.lost.push(LostRange {
                file: path,
                offset,
                first_lsn: lsn,
                last_lsn,
            });
            return Ok(());
        }
        Ok(())
    }

    /// Behind a place that does not hold the next frame, looks for frames of this file that do
    /// belong to the log. Returns where to go on, or `None` if this file has no more.
    fn search(
        &mut self,
        file: &mut LogFile,
        offset: u64,
        reason: Option<FormatError>,
        limit: Lsn,
    ) -> Result<Option<(u64, FrameHead)>, RecoverError> {
        let path = file.path.clone();
        let broken_chain = reason
            == Some(FormatError::OutOfRange {
                what: "frame chain",
            });
        let mut from = if broken_chain { offset + 1 } else { offset };
        let mut valid = 0;
        let mut first = None;
        while let Some((at, head)) = file.find_frame(from, self.lsn).map_err(io_error(&path))? {
            from = at + head.frame_bytes();
            if head.kind == FrameKind::Meta || head.next_lsn() > limit {
                continue;
            }
            valid += 1;
            let first = *first.get_or_insert((at, head));
            let first_missing = self.lsn.max(self.needed());
            if first.1.lsn <= first_missing {
                // What is damaged in between held a mark, or ops that a checkpoint covers.
                self.report.harmless_damage += 1;
                self.lsn = first.1.lsn;
                return Ok(Some(first));
            }
            self.report.last_durable_hint = self.report.last_durable_hint.max(head.durable_lsn);
            if head.durable_lsn >= first_missing {
                self.note_bad(&path, offset, reason.unwrap_or(NOTHING_WRITTEN));
                self.lose_until(first.1.lsn)?;
                return Ok(Some(first));
            }
        }
        match reason {
            Some(reason) => self.note_bad(&path, offset, reason),
            None if valid > 0 => self.note_bad(&path, offset, NOTHING_WRITTEN),
            None => {}
        }
        if let Some(bad) = &mut self.bad {
            bad.frames_valid += valid;
        }
        Ok(None)
    }

    /// Remembers the first place where the log could not be read on.
    fn note_bad(&mut self, file: &Path, offset: u64, reason: FormatError) {
        self.bad.get_or_insert(Bad {
            file: file.to_owned(),
            offset,
            reason,
            frames_valid: 0,
        });
    }

    /// The log goes on without a missing op.
    fn settle_harmless(&mut self) {
        if self.bad.take().is_some() {
            self.report.harmless_damage += 1;
        }
    }

    /// The ops from the next one up to before `lsn` are missing, and there is proof that they were
    /// durable.
    fn lose_until(&mut self, lsn: Lsn) -> Result<(), RecoverError> {
        let bad = self.bad.take();
        let first_lsn = self.lsn.max(self.needed());
        self.lsn = lsn;
        let (Some(bad), true) = (bad, first_lsn < lsn) else {
            self.report.harmless_damage += 1;
            return Ok(());
        };
        let last_lsn = Lsn(lsn.0 - 1);
        let lost = LostRange {
            file: bad.file,
            offset: bad.offset,
            first_lsn,
            last_lsn,
        };
        if !self.salvage {
            return Err(RecoverError::AckedDataDamaged(lost));
        }
        tracing::error!(?lost, reason = %bad.reason, "acknowledged operations are lost");
        self.report.lost.push(lost);
        Ok(())
    }
}
