//! Reading a metadata log.
//!
//! | finding | answer |
//! |---|---|
//! | header unreadable | damaged |
//! | bad frame, a valid one behind it | damaged: every commit is synced before the next is written |
//! | the same, but only a mark is bad | go on |
//! | bad frame, nothing valid behind it | torn commit: cut, reported |
//! | the same within the snapshot that the file starts with | damaged: it was synced before the file got its name |
//! | an encrypted frame whose digest fits and whose key is missing | refused, naming the key |
//! | the same with the key at hand, but not authentic | damaged: somebody changed it |

use std::collections::BTreeMap;
use std::path::Path;

use super::batch::{self, Entry};
use super::{MetaCut, MetaError, SNAPSHOT_END};
use crate::format::FormatError;
use crate::format::cursor::Cursor;
use crate::format::file_header::FileKind;
use crate::format::frame::{FrameHead, FrameKind};
use crate::format::key_ring::KeyId;
use crate::ids::Lsn;
use crate::io::Env;
use crate::wal::log_file::{FRAMES_OFFSET, Found, LogFile, Opened};

/// The state that a file holds.
pub(super) struct State {
    pub map: BTreeMap<Vec<u8>, Vec<u8>>,
    pub epoch: u64,
    pub key: Option<KeyId>,
    /// Offset behind the last frame.
    pub end: u64,
    pub next_lsn: Lsn,
    pub digest: u64,
    pub cut: Option<MetaCut>,
}

/// Applies the entries of one frame and keeps `live_bytes`.
pub(super) fn apply(
    payload: &[u8],
    map: &mut BTreeMap<Vec<u8>, Vec<u8>>,
    live_bytes: &mut u64,
) -> Result<(), FormatError> {
    let mut cursor = Cursor::new(payload);
    while !cursor.rest().is_empty() {
        let (key, old) = match batch::decode(&mut cursor)? {
            Entry::Put(key, value) => {
                *live_bytes += batch::put_bytes(key, value);
                (key, map.insert(key.to_vec(), value.to_vec()))
            }
            Entry::Delete(key) => (key, map.remove(key)),
        };
        if let Some(old) = old {
            *live_bytes -= batch::put_bytes(key, &old);
        }
    }
    Ok(())
}

pub(super) fn read(env: &Env, path: &Path, no: u64, store_uuid: u128) -> Result<State, MetaError> {
    let damaged = |offset, reason| MetaError::Damaged {
        file: path.to_owned(),
        offset,
        reason,
    };
    let opened = LogFile::open(env, path, FileKind::Meta, no).map_err(MetaError::io(path))?;
    let file = match opened {
        Opened::Log(file) => file,
        Opened::Unused => return Err(damaged(0, FormatError::Truncated)),
        Opened::Unreadable(source @ FormatError::NewerVersion { .. }) => {
            return Err(MetaError::NewerVersion {
                file: path.to_owned(),
                source,
            });
        }
        Opened::Unreadable(reason) => return Err(damaged(0, reason)),
    };
    if file.header.store_uuid != store_uuid {
        return Err(MetaError::WrongStore {
            file: path.to_owned(),
        });
    }
    let mut reader = Reader {
        state: State {
            map: BTreeMap::new(),
            epoch: file.header.epoch,
            key: file.header.key,
            end: FRAMES_OFFSET,
            next_lsn: Lsn(file.header.base),
            digest: 0,
            cut: None,
        },
        live_bytes: 0,
        snapshot_complete: false,
        chain_known: true,
        file,
    };
    reader.run()?;
    Ok(reader.state)
}

struct Reader {
    file: LogFile,
    state: State,
    live_bytes: u64,
    snapshot_complete: bool,
    /// Cleared behind a damaged mark: the next frame follows one that is not known.
    chain_known: bool,
}

impl Reader {
    fn run(&mut self) -> Result<(), MetaError> {
        loop {
            let offset = self.state.end;
            let reason = match self.take(offset)? {
                Ok(()) => continue,
                Err(reason) => reason,
            };
            let next = self
                .file
                .find_frame(offset, self.state.next_lsn)
                .map_err(MetaError::io(&self.file.path))?;
            match next {
                Some((at, head)) if head.lsn == self.state.next_lsn && at > offset => {
                    self.state.end = at;
                    self.chain_known = false;
                }
                Some(_) => return Err(self.damaged(offset, reason)),
                None => return self.finish(offset, reason),
            }
        }
    }

    /// Takes the frame at `offset`; the inner error says why it is not the next one, `None` that
    /// nothing is there.
    fn take(&mut self, offset: u64) -> Result<Result<(), Option<FormatError>>, MetaError> {
        let path = self.file.path.clone();
        let head = match self.file.frame_at(offset).map_err(MetaError::io(&path))? {
            Found::Frame(head) => head,
            Found::End => return Ok(Err(None)),
            Found::Bad(source @ FormatError::NewerVersion { .. }) => {
                return Err(MetaError::NewerVersion { file: path, source });
            }
            Found::Bad(reason) => return Ok(Err(Some(reason))),
        };
        if let Err(reason) = self.check(&head) {
            return Ok(Err(Some(reason)));
        }
        let payload = match self
            .file
            .payload(offset, &head)
            .map_err(MetaError::io(&path))?
        {
            Ok(payload) => payload,
            Err(FormatError::KeyMissing { .. }) => {
                return Err(MetaError::KeyMissing {
                    file: path,
                    key: self.state.key,
                });
            }
            Err(reason @ FormatError::NotAuthentic { .. }) => {
                return Err(self.damaged(offset, Some(reason)));
            }
            Err(reason) => return Ok(Err(Some(reason))),
        };
        // The digest fits, so what does not decode was written that way: by a newer version.
        if let Err(reason) = apply(payload, &mut self.state.map, &mut self.live_bytes) {
            return Err(MetaError::Damaged {
                file: path,
                offset,
                reason,
            });
        }
        self.snapshot_complete |= head.flags & SNAPSHOT_END != 0;
        self.chain_known = true;
        self.state.end = offset + head.frame_bytes();
        self.state.next_lsn = head.next_lsn();
        self.state.digest = head.digest(self.state.epoch);
        Ok(Ok(()))
    }

    fn check(&self, head: &FrameHead) -> Result<(), FormatError> {
        let counts = match head.kind {
            FrameKind::Meta => head.op_count == 1,
            FrameKind::Mark => head.op_count == 0 && head.payload_len == 0,
            FrameKind::Data => false,
        };
        if !counts {
            return Err(FormatError::OutOfRange { what: "frame kind" });
        }
        if head.lsn != self.state.next_lsn {
            return Err(FormatError::OutOfRange { what: "frame lsn" });
        }
        if self.chain_known && head.prev_digest != self.state.digest {
            return Err(FormatError::OutOfRange {
                what: "frame chain",
            });
        }
        Ok(())
    }

    fn finish(&mut self, offset: u64, reason: Option<FormatError>) -> Result<(), MetaError> {
        if !self.snapshot_complete {
            return Err(self.damaged(offset, reason));
        }
        let file = self.file.path.clone();
        self.state.cut = reason.map(|reason| {
            tracing::error!(file = %file.display(), offset, %reason, "a torn metadata commit was cut");
            MetaCut { file, offset, reason }
        });
        Ok(())
    }

    fn damaged(&self, offset: u64, reason: Option<FormatError>) -> MetaError {
        let file = self.file.path.clone();
        MetaError::Damaged {
            file,
            offset,
            reason: reason.unwrap_or(FormatError::Truncated),
        }
    }
}
