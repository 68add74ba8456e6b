//! A file of frames, as both logs use it: two copies of the file header (4 KiB apart, so that one
//! damaged sector does not hide the frames), then frames one after the other. Behind the last
//! frame come zeros for at least a head's length: what else stands there was a torn write.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::FormatError;
use crate::format::cipher::{Opener, Sealer, TRAILER_BYTES};
use crate::format::file_header::{self, FileHeader, FileKind};
use crate::format::frame::{self, FrameHead, FrameKind, HEAD_BYTES, MAGIC};
use crate::ids::Lsn;
use crate::io::{Env, IoFile, OpenMode};

/// Offset of the second copy of the header.
pub(crate) const HEADER_COPY_OFFSET: u64 = 4096;
/// Offset of the first frame.
pub(crate) const FRAMES_OFFSET: u64 = 8192;
/// Zeros behind the last frame.
pub(crate) const END_BYTES: usize = HEAD_BYTES;
/// Bytes read at once.
const WINDOW_BYTES: u64 = 1 << 20;

/// Bytes that are searched for a frame's first byte at once.
const MAGIC_CHUNK_BYTES: usize = 256;

/// The number in a log file's name.
pub(crate) fn file_no(name: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_suffix(suffix)?;
    let canonical = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    canonical.then(|| digits.parse().ok()).flatten()
}

/// The name of a log file; sorting names sorts numbers.
pub(crate) fn file_name(no: u64, suffix: &str) -> String {
    format!("{no:020}{suffix}")
}

/// The log files of a directory in ascending order; an absent directory has none.
pub(crate) fn list(env: &Env, dir: &Path, suffix: &str) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = match env.io.list(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut files: Vec<_> = entries
        .iter()
        .filter(|entry| !entry.is_dir)
        .filter_map(|entry| Some((file_no(&entry.name, suffix)?, dir.join(&entry.name))))
        .collect();
    files.sort();
    Ok(files)
}

/// Writes both copies of a new file's header, and the zeros that end it while it has no frame. Two
/// writes: a device that drops or misplaces one of them does not take both copies.
pub(crate) fn write_header(file: &dyn IoFile, header: &FileHeader) -> io::Result<()> {
    let mut first = vec![0; HEADER_COPY_OFFSET as usize];
    first[..file_header::BYTES].copy_from_slice(&header.encode());
    file.write_at(&first, 0)?;
    let mut second = first;
    second.resize((FRAMES_OFFSET - HEADER_COPY_OFFSET) as usize + END_BYTES, 0);
    file.write_at(&second, HEADER_COPY_OFFSET)
}

/// As [`frame::seal`], and appends the zeros that end the file.
pub(crate) fn seal_frame(
    frame: &mut Vec<u8>,
    epoch: u64,
    sealer: &Sealer,
    head: FrameHead,
) -> FrameHead {
    let head = frame::seal(frame, epoch, sealer, head);
    frame.resize(frame.len() + END_BYTES, 0);
    head
}

/// Bytes that a frame with this payload takes.
pub(crate) fn frame_bytes(sealer: &Sealer, payload_bytes: u64) -> u64 {
    let trailer = sealer.key().map_or(0, |_| TRAILER_BYTES as u64);
    HEAD_BYTES as u64 + payload_bytes + trailer
}

/// What the front of a log file says.
pub(crate) enum Opened {
    /// A log file.
    Log(LogFile),
    /// Nothing yet, or the header of the file it was recycled from: it holds no frame of the log.
    Unused,
    /// The header copies are neither: no frame can be checked.
    Unreadable(FormatError),
}

/// What stands at an offset.
pub(crate) enum Found {
    /// A frame whose head is valid.
    Frame(FrameHead),
    /// Zeros, or the end of the file: nothing was written here.
    End,
    /// Something else.
    Bad(FormatError),
}

/// A log file that is read.
pub(crate) struct LogFile {
    pub path: PathBuf,
    pub header: FileHeader,
    len: u64,
    window: Window,
    opener: Opener,
    /// A decrypted payload.
    plain: Vec<u8>,
}

impl LogFile {
    /// Opens a file and reads its header. What the file holds is durable and read from the device
    /// afterwards: pages that only the cache has are written first, clean ones are dropped.
    pub fn open(env: &Env, path: &Path, kind: FileKind, no: u64) -> io::Result<Opened> {
        let file = env.io.open(path, OpenMode::Read)?;
        file.sync_data()?;
        file.drop_cache();
        let len = file.len()?;
        let mut window = Window {
            file,
            bytes: Vec::new(),
            start: 0,
            bytes_read: 0,
        };
        let mut worst = None;
        let mut blank = true;
        let mut recycled = false;
        for offset in [0, HEADER_COPY_OFFSET] {
            let room = len.saturating_sub(offset).min(file_header::BYTES as u64);
            let bytes = window.at(offset, room, len)?;
            blank &= bytes.iter().all(|&b| b == 0);
            match FileHeader::decode(bytes) {
                Ok(header) if header.kind == kind && header.file_no == no => {
                    return Ok(Opened::Log(LogFile {
                        path: path.to_owned(),
                        opener: env.opener(kind, header.store_uuid, no),
                        header,
                        len,
                        window,
                        plain: Vec::new(),
                    }));
                }
                // Valid, of an earlier use of the file.
                Ok(header) if header.kind == kind => recycled = true,
                Ok(_) => worst = Some(FormatError::OutOfRange { what: "file kind" }),
                Err(newer @ FormatError::NewerVersion { .. }) => {
                    return Ok(Opened::Unreadable(newer));
                }
                Err(error) => worst = Some(error),
            }
        }
        match worst {
            Some(error) if !blank && !recycled => Ok(Opened::Unreadable(error)),
            _ => Ok(Opened::Unused),
        }
    }

    /// What stands at `offset`.
    pub fn frame_at(&mut self, offset: u64) -> io::Result<Found> {
        let room = self.len.saturating_sub(offset).min(HEAD_BYTES as u64);
        let epoch = self.header.epoch;
        let bytes = self.window.at(offset, room, self.len)?;
        if bytes.iter().all(|&b| b == 0) {
            return Ok(Found::End);
        }
        match FrameHead::decode(epoch, bytes) {
            Ok(head) if offset + head.frame_bytes() > self.len => {
                Ok(Found::Bad(FormatError::Truncated))
            }
            Ok(head) => Ok(Found::Frame(head)),
            Err(error) => Ok(Found::Bad(error)),
        }
    }

    /// The payload of the frame at `offset`, checked and decrypted; the inner error says what is
    /// wrong with it. [`FormatError::KeyMissing`] and [`FormatError::NotAuthentic`] are not damage:
    /// such a frame was never torn.
    pub fn payload(
        &mut self,
        offset: u64,
        head: &FrameHead,
    ) -> io::Result<Result<&[u8], FormatError>> {
        let epoch = self.header.epoch;
        let payload = self.window.payload(offset, head, self.len)?;
        if let Err(error) = head.verify_payload(epoch, payload) {
            return Ok(Err(error));
        }
        let Some(key) = self.header.key.filter(|_| !payload.is_empty()) else {
            return Ok(Ok(payload));
        };
        self.plain.clear();
        self.plain.extend_from_slice(payload);
        let opened = head.open_payload(epoch, &self.opener, key, &mut self.plain);
        Ok(opened.map(|len| &self.plain[..len]))
    }

    /// As [`LogFile::payload`] where its content does not matter: no key is needed.
    pub fn check_payload(
        &mut self,
        offset: u64,
        head: &FrameHead,
    ) -> io::Result<Result<(), FormatError>> {
        let payload = self.window.payload(offset, head, self.len)?;
        Ok(head.verify_payload(self.header.epoch, payload))
    }

    /// The first valid frame at `from` or later whose lsn is at least `lsn_min`, at any offset.
    pub fn find_frame(
        &mut self,
        mut from: u64,
        lsn_min: Lsn,
    ) -> io::Result<Option<(u64, FrameHead)>> {
        while from + HEAD_BYTES as u64 <= self.len {
            let bytes = self.window.from(from, HEAD_BYTES as u64, self.len)?;
            let Some(position) = find_magic(bytes) else {
                // The magic may straddle the end of these bytes.
                from += bytes.len() as u64 - (MAGIC.len() as u64 - 1);
                continue;
            };
            let offset = from + position as u64;
            if let Found::Frame(head) = self.frame_at(offset)?
                && head.lsn >= lsn_min
                && self.check_payload(offset, &head)?.is_ok()
            {
                return Ok(Some((offset, head)));
            }
            from = offset + 1;
        }
        Ok(None)
    }

    /// Bytes read so far.
    pub fn bytes_read(&self) -> u64 {
        self.window.bytes_read
    }
}

fn find_magic(bytes: &[u8]) -> Option<usize> {
    // `contains` searches bytes many times faster than an iterator, and most chunks are zeros.
    for (chunk_no, chunk) in bytes.chunks(MAGIC_CHUNK_BYTES).enumerate() {
        if !chunk.contains(&MAGIC[0]) {
            continue;
        }
        let start = chunk_no * MAGIC_CHUNK_BYTES;
        let found = (start..start + chunk.len()).find(|&at| bytes[at..].starts_with(&MAGIC));
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Part of a file in memory.
struct Window {
    file: Arc<dyn IoFile>,
    bytes: Vec<u8>,
    start: u64,
    bytes_read: u64,
}

impl Window {
    /// The payload of a frame at `offset` that lies inside the file.
    fn payload(&mut self, offset: u64, head: &FrameHead, file_len: u64) -> io::Result<&[u8]> {
        self.at(
            offset + HEAD_BYTES as u64,
            u64::from(head.payload_len),
            file_len,
        )
    }

    /// The bytes at `offset`, which the caller knows to lie inside a file of `file_len`.
    fn at(&mut self, offset: u64, len: u64, file_len: u64) -> io::Result<&[u8]> {
        Ok(&self.from(offset, len, file_len)?[..len as usize])
    }

    /// At least `len` bytes at `offset`, and what else is in memory behind them.
    fn from(&mut self, offset: u64, len: u64, file_len: u64) -> io::Result<&[u8]> {
        let end = self.start + self.bytes.len() as u64;
        if offset < self.start || offset + len > end {
            // What is in memory already is kept, so that no byte of a scan is read twice.
            let kept = if (self.start..end).contains(&offset) {
                end - offset
            } else {
                0
            };
            self.bytes.drain(..self.bytes.len() - kept as usize);
            self.start = offset;
            let want = len.max(WINDOW_BYTES).min(file_len.saturating_sub(offset));
            self.bytes.resize(want.max(kept) as usize, 0);
            let missing = &mut self.bytes[kept as usize..];
            let got = match self.file.read_at(missing, offset + kept) {
                Ok(got) => got,
                Err(error) => {
                    self.bytes.truncate(kept as usize);
                    return Err(error);
                }
            };
            self.bytes.truncate(kept as usize + got);
            self.bytes_read += got as u64;
            if (self.bytes.len() as u64) < len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(&self.bytes[(offset - self.start) as usize..])
    }
}

/// A log frame's head before [`seal_frame`] fills in the payload fields.
pub(crate) fn frame_head(
    kind: FrameKind,
    lsn: Lsn,
    op_count: u32,
    durable_lsn: Lsn,
    prev_digest: u64,
) -> FrameHead {
    FrameHead {
        kind,
        flags: 0,
        payload_len: 0,
        op_count,
        lsn,
        durable_lsn,
        prev_digest,
        payload_digest: 0,
    }
}
