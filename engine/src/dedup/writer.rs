//! Writes a file of message ids, once and in one pass.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::IdManifest;
use crate::format::bloom::Bloom;
use crate::format::cipher::Sealer;
use crate::format::file_header::{self, FileKind};
use crate::format::footer::{self, Footer};
use crate::format::id_page::{IdEntry, PAGE_ENTRIES};
use crate::format::page::{self, PAGE_BYTES, PageKind};
use crate::ids::{IdFileId, TimestampNs};
use crate::io::{Env, IoFile, OpenMode};

/// Pages are written together up to this many bytes.
const WRITE_BYTES: usize = 64 * PAGE_BYTES;
/// What was written is synced in steps of this many bytes, so that no single sync takes long.
const SYNC_BYTES: u64 = 8 << 20;

/// A file being written. Dropping it unfinished leaves a file that nothing names.
pub(crate) struct IdFileWriter {
    file: Arc<dyn IoFile>,
    path: PathBuf,
    store_uuid: u128,
    id: IdFileId,
    sealer: Sealer,
    payload: Vec<u8>,
    next_page: u32,
    /// Pages that were not written yet; they end where the file is to end.
    pages: Vec<u8>,
    written: u64,
    synced: u64,
    filter: Bloom,
    entries: u64,
    oldest: TimestampNs,
    youngest: TimestampNs,
    last: Option<u128>,
}

impl IdFileWriter {
    /// Creates the file, which must not exist, for at most about `entries_max` ids.
    pub fn new(
        env: &Env,
        path: &Path,
        store_uuid: u128,
        id: IdFileId,
        entries_max: u64,
    ) -> io::Result<IdFileWriter> {
        let file = env.io.open(path, OpenMode::CreateNew)?;
        let sealer = env.sealer(FileKind::Ids, store_uuid, id.0);
        file.write_at(&sealer.header().encode(), 0)?;
        Ok(IdFileWriter {
            file,
            path: path.to_owned(),
            store_uuid,
            id,
            sealer,
            payload: Vec::new(),
            next_page: 0,
            pages: Vec::new(),
            written: file_header::BYTES as u64,
            synced: 0,
            filter: Bloom::with_capacity(entries_max),
            entries: 0,
            oldest: TimestampNs(i64::MAX),
            youngest: TimestampNs(i64::MIN),
            last: None,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Adds an id. Hashes must ascend.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if they do not, or what the system says.
    pub fn push(&mut self, entry: &IdEntry) -> io::Result<()> {
        if self.last.is_some_and(|last| last >= entry.hash) {
            return Err(invalid_input("hashes do not ascend"));
        }
        self.last = Some(entry.hash);
        self.entries += 1;
        self.oldest = self.oldest.min(entry.ts);
        self.youngest = self.youngest.max(entry.ts);
        self.filter.insert(filter_key(entry.hash));
        entry.encode(&mut self.payload);
        if self.entries.is_multiple_of(PAGE_ENTRIES as u64) {
            self.end_page(PageKind::Ids)?;
        }
        Ok(())
    }

    /// Writes the rest and syncs the file. The directory is the caller's to sync. `expires` is when
    /// the last of the ids does.
    pub fn finish(mut self, expires: TimestampNs) -> io::Result<(IdManifest, Bloom)> {
        if !self.payload.is_empty() {
            self.end_page(PageKind::Ids)?;
        }
        let id_pages = self.next_page;
        let mut filter = std::mem::take(&mut self.filter);
        filter.shrink_to(self.entries);
        for payload in filter.pages() {
            self.payload = payload;
            self.end_page(PageKind::Filter)?;
        }
        let footer = Footer {
            kind: FileKind::Ids,
            store_uuid: self.store_uuid,
            file_no: self.id.0,
            pages_offset: file_header::BYTES as u64,
            section_pages: [id_pages, 0, 0, self.next_page - id_pages],
            items: [self.entries, self.oldest.0 as u64, self.youngest.0 as u64],
            source_digest: 0,
            key: self.sealer.key(),
            file_bytes: page_offset(self.next_page) + footer::BYTES as u64,
        };
        let encoded = footer.encode();
        self.pages.extend_from_slice(&encoded);
        self.write_pages()?;
        self.file.sync_data()?;
        self.file.drop_cache();
        let manifest = IdManifest {
            id: self.id,
            file_bytes: footer.file_bytes,
            footer_digest: Footer::digest_of(&encoded),
            key: self.sealer.key(),
            entries: self.entries,
            oldest: self.oldest,
            youngest: self.youngest,
            expires,
        };
        Ok((manifest, filter))
    }

    fn end_page(&mut self, kind: PageKind) -> io::Result<()> {
        let page_no = self.next_page;
        self.next_page = page_no
            .checked_add(1)
            .ok_or_else(|| invalid_input("too many pages"))?;
        page::encode(&self.sealer, kind, page_no, &self.payload, &mut self.pages);
        self.payload.clear();
        if self.pages.len() >= WRITE_BYTES {
            self.write_pages()?;
        }
        Ok(())
    }

    fn write_pages(&mut self) -> io::Result<()> {
        self.file.write_at(&self.pages, self.written)?;
        self.written += self.pages.len() as u64;
        self.pages.clear();
        if self.written - self.synced >= SYNC_BYTES {
            self.file.sync_data()?;
            self.synced = self.written;
        }
        Ok(())
    }
}

/// The part of a hash that the filter is asked for.
pub(super) fn filter_key(hash: u128) -> u64 {
    hash as u64
}

/// Offset of a page in a file of ids.
pub(super) fn page_offset(page_no: u32) -> u64 {
    file_header::BYTES as u64 + u64::from(page_no) * PAGE_BYTES as u64
}

fn invalid_input(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, what.to_owned())
}
