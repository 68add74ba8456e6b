//! Writes an index run, once and in one pass.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::cipher::Sealer;
use crate::format::file_header::{self, FileKind};
use crate::format::footer::{self, Footer};
use crate::format::key_page::{
    INLINE_POSTINGS_BYTES_MAX, KeyPageBuilder, PAGED_SUBJECT_BYTES_MAX, Place, Value, encode_chunk,
    encode_key, encode_long, encode_postings,
};
use crate::format::page::{self, PAGE_BYTES, PAYLOAD_BYTES_MAX, PageKind};
use crate::format::varint;
use crate::ids::{Seq, StreamId};
use crate::io::{Env, IoFile, OpenMode};
use crate::segment::SegmentManifest;

/// A finished run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedRun {
    /// Length of the file.
    pub file_bytes: u64,
    /// Digest of the footer.
    pub footer_digest: u64,
    /// Number of subjects.
    pub keys: u64,
    /// Number of messages.
    pub postings: u64,
}

/// A page that is being filled. Its number is taken when it is begun, because values refer to it.
#[derive(Debug)]
struct OpenPage {
    page_no: u32,
    payload: Vec<u8>,
}

/// A run being written. Dropping it unfinished leaves a file that nothing names.
pub struct RunWriter {
    file: Arc<dyn IoFile>,
    path: PathBuf,
    store_uuid: u128,
    source: SegmentManifest,
    sealer: Sealer,
    next_page: u32,
    keys: KeyPageBuilder,
    keys_page_no: u32,
    postings: Option<OpenPage>,
    separators: Vec<(u32, Vec<u8>)>,
    /// Keys too long for a page, with their values.
    long: Vec<u8>,
    last_key: Vec<u8>,
    key_count: u64,
    posting_count: u64,
    key: Vec<u8>,
    value: Vec<u8>,
    page: Vec<u8>,
}

impl RunWriter {
    /// Creates the file, which must not exist, for the run of a segment.
    pub fn new(
        env: &Env,
        path: &Path,
        store_uuid: u128,
        source: &SegmentManifest,
    ) -> io::Result<RunWriter> {
        let file = env.io.open(path, OpenMode::CreateNew)?;
        let sealer = env.sealer(FileKind::Index, store_uuid, source.id.0);
        file.write_at(&sealer.header().encode(), 0)?;
        Ok(RunWriter {
            file,
            path: path.to_owned(),
            store_uuid,
            source: *source,
            sealer,
            next_page: 0,
            keys: KeyPageBuilder::default(),
            keys_page_no: 0,
            postings: None,
            separators: Vec::new(),
            long: Vec::new(),
            last_key: Vec::new(),
            key_count: 0,
            posting_count: 0,
            key: Vec::new(),
            value: Vec::new(),
            page: Vec::with_capacity(PAGE_BYTES),
        })
    }

    /// Adds a subject with its sequences, ascending, and the accounted size of each message.
    /// Streams must ascend, and in a stream subjects by
    /// [`compare_subjects`](super::compare_subjects).
    ///
    /// # Errors
    ///
    /// `InvalidInput` if an order is not kept or there is no sequence.
    pub fn push(
        &mut self,
        stream: StreamId,
        subject: &[u8],
        postings: &[(Seq, u32)],
    ) -> io::Result<()> {
        let (Some((first, size)), Some((last, _))) = (postings.first(), postings.last()) else {
            return Err(invalid_input("a subject without a sequence"));
        };
        if !postings.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(invalid_input("sequences do not ascend"));
        }
        let mut key = std::mem::take(&mut self.key);
        key.clear();
        encode_key(stream, subject, &mut key);
        if self.key_count > 0 && key <= self.last_key {
            return Err(invalid_input("subjects do not ascend"));
        }
        let mut inline = Vec::new();
        let place = match postings {
            [_] => Place::One(*size),
            _ => self.place(*first, postings, &mut inline)?,
        };
        let value = Value {
            count: postings.len() as u64,
            first: *first,
            last: *last,
            bytes: postings.iter().map(|(_, size)| u64::from(*size)).sum(),
            place,
        };
        let mut encoded = std::mem::take(&mut self.value);
        encoded.clear();
        value.encode(&mut encoded);
        if subject.len() > PAGED_SUBJECT_BYTES_MAX {
            encode_long(&key, &encoded, &mut self.long);
        } else {
            self.push_entry(&key, &encoded)?;
        }
        self.key_count += 1;
        self.posting_count += postings.len() as u64;
        self.key = std::mem::replace(&mut self.last_key, key);
        self.value = encoded;
        Ok(())
    }

    /// Decides where postings go, and writes them if that is a posting page.
    fn place<'a>(
        &mut self,
        first: Seq,
        postings: &[(Seq, u32)],
        inline: &'a mut Vec<u8>,
    ) -> io::Result<Place<'a>> {
        // A posting takes at least two bytes, so a longer list is not worth trying.
        if postings.len() <= INLINE_POSTINGS_BYTES_MAX / 2 {
            encode_postings(first, postings, inline);
            if inline.len() <= INLINE_POSTINGS_BYTES_MAX {
                return Ok(Place::Inline(inline));
            }
        }
        let mut chunk = Vec::new();
        if let Some(open) = &mut self.postings {
            let space = PAYLOAD_BYTES_MAX - open.payload.len();
            if encode_chunk(postings, space, &mut chunk) == postings.len() {
                let offset = open.payload.len() as u32;
                open.payload.extend_from_slice(&chunk);
                return Ok(Place::Pages {
                    page_no: open.page_no,
                    offset,
                    further: 0,
                });
            }
        }
        self.end_postings_page()?;
        // No other page takes a number before the last of these, so they are neighbours.
        let page_no = self.next_page;
        let mut rest = postings;
        loop {
            chunk.clear();
            let count = encode_chunk(rest, PAYLOAD_BYTES_MAX, &mut chunk);
            rest = &rest[count..];
            let this = self.take_page_no()?;
            self.postings = Some(OpenPage {
                page_no: this,
                payload: chunk.clone(),
            });
            if rest.is_empty() {
                return Ok(Place::Pages {
                    page_no,
                    offset: 0,
                    further: this - page_no,
                });
            }
            self.end_postings_page()?;
        }
    }

    /// Adds an entry to the open key page, or to a new one. `last_key` may be a long one: as a
    /// lower border it serves as well.
    fn push_entry(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if !self.keys.is_empty() && self.keys.push(key, value) {
            return Ok(());
        }
        self.end_keys_page()?;
        self.keys_page_no = self.take_page_no()?;
        self.separators
            .push((self.keys_page_no, shortest_separator(&self.last_key, key)));
        if !self.keys.push(key, value) {
            return Err(invalid_input("the entry is larger than a page"));
        }
        Ok(())
    }

    /// Writes the rest and syncs the file. The directory is the caller's to sync. `lost_ranges`
    /// is the number of damaged ranges of the segment whose messages are missing here; 0 unless
    /// the run is rebuilt.
    pub fn finish(mut self, lost_ranges: u64) -> io::Result<SealedRun> {
        self.end_keys_page()?;
        self.end_postings_page()?;
        let data_pages = self.next_page;
        let mut payload = Vec::new();
        for (page_no, key) in std::mem::take(&mut self.separators) {
            let mut entry = Vec::with_capacity(key.len() + 8);
            varint::encode(u64::from(page_no), &mut entry);
            varint::encode(key.len() as u64, &mut entry);
            entry.extend_from_slice(&key);
            if payload.len() + entry.len() > PAYLOAD_BYTES_MAX {
                let page_no = self.take_page_no()?;
                self.write_page(PageKind::KeySeparators, page_no, &payload)?;
                payload.clear();
            }
            payload.extend_from_slice(&entry);
        }
        if !payload.is_empty() {
            let page_no = self.take_page_no()?;
            self.write_page(PageKind::KeySeparators, page_no, &payload)?;
        }
        let separator_pages = self.next_page - data_pages;
        let long = std::mem::take(&mut self.long);
        for chunk in long.chunks(PAYLOAD_BYTES_MAX) {
            let page_no = self.take_page_no()?;
            self.write_page(PageKind::LongKeys, page_no, chunk)?;
        }
        let long_pages = self.next_page - data_pages - separator_pages;
        let footer_offset = page_offset(self.next_page);
        let footer = Footer {
            kind: FileKind::Index,
            store_uuid: self.store_uuid,
            file_no: self.source.id.0,
            pages_offset: page_offset(0),
            section_pages: [data_pages, separator_pages, long_pages, 0],
            items: [self.key_count, self.posting_count, lost_ranges],
            source_digest: self.source.footer_digest,
            file_bytes: footer_offset + footer::BYTES as u64,
        };
        let encoded = footer.encode();
        self.file.write_at(&encoded, footer_offset)?;
        self.file.sync_data()?;
        self.file.drop_cache();
        Ok(SealedRun {
            file_bytes: footer.file_bytes,
            footer_digest: Footer::digest_of(&encoded),
            keys: self.key_count,
            postings: self.posting_count,
        })
    }

    fn take_page_no(&mut self) -> io::Result<u32> {
        let page_no = self.next_page;
        self.next_page = page_no
            .checked_add(1)
            .ok_or_else(|| invalid_input("too many index pages"))?;
        Ok(page_no)
    }

    fn end_keys_page(&mut self) -> io::Result<()> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let payload = self.keys.finish();
        self.write_page(PageKind::Keys, self.keys_page_no, &payload)
    }

    fn end_postings_page(&mut self) -> io::Result<()> {
        match self.postings.take() {
            Some(open) => self.write_page(PageKind::Postings, open.page_no, &open.payload),
            None => Ok(()),
        }
    }

    fn write_page(&mut self, kind: PageKind, page_no: u32, payload: &[u8]) -> io::Result<()> {
        self.page.clear();
        page::encode(&self.sealer, kind, page_no, payload, &mut self.page);
        self.file.write_at(&self.page, page_offset(page_no))
    }
}

impl std::fmt::Debug for RunWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunWriter")
            .field("path", &self.path)
            .field("keys", &self.key_count)
            .finish_non_exhaustive()
    }
}

fn page_offset(page_no: u32) -> u64 {
    file_header::BYTES as u64 + u64::from(page_no) * PAGE_BYTES as u64
}

/// The shortest start of `key` that is above `before`.
fn shortest_separator(before: &[u8], key: &[u8]) -> Vec<u8> {
    let same = key.iter().zip(before).take_while(|(a, b)| a == b).count();
    key[..key.len().min(same + 1)].to_vec()
}

fn invalid_input(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, what.to_owned())
}
