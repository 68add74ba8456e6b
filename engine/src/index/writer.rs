//! Writes an index run, once and in one pass.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::bloom::Bloom;
use crate::format::cipher::Sealer;
use crate::format::file_header::{self, FileKind};
use crate::format::footer::{self, Footer};
use crate::format::key_page::{
    ChunkSize, INLINE_POSTINGS_BYTES_MAX, KeyPageBuilder, PAGED_SUBJECT_BYTES_MAX, Place, Value,
    encode_chunk, encode_key, encode_long, encode_postings, key_hash,
};
use crate::format::page::{self, PAGE_BYTES, PAYLOAD_BYTES_MAX, PageKind};
use crate::format::varint;
use crate::ids::{SegmentId, Seq, StreamId};
use crate::io::{Env, IoFile, OpenMode};
use crate::segment::SegmentManifest;

/// Fewest keys of a run with a filter.
pub const FILTER_KEYS_MIN: u64 = 32;

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

/// What a run is made from: ties the file to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunSource {
    /// All messages of a segment; the run has its number.
    Segment(SegmentManifest),
    /// Messages of several segments; the run has a number of its own.
    Merged(SegmentId),
}

impl RunSource {
    /// Number of the run's file.
    pub fn file_no(&self) -> SegmentId {
        match self {
            RunSource::Segment(manifest) => manifest.id,
            RunSource::Merged(id) => *id,
        }
    }

    pub(super) fn digest(&self) -> u64 {
        match self {
            RunSource::Segment(manifest) => manifest.footer_digest,
            RunSource::Merged(_) => 0,
        }
    }
}

/// A run being written. Dropping it unfinished leaves a file that nothing names.
///
/// Holds one key page, one posting page, the keys' filter and the separators.
pub struct RunWriter {
    file: Arc<dyn IoFile>,
    path: PathBuf,
    store_uuid: u128,
    source: RunSource,
    sealer: Sealer,
    next_page: u32,
    keys: KeyPageBuilder,
    keys_page_no: u32,
    postings: Option<OpenPage>,
    separators: Vec<(u32, Vec<u8>)>,
    filter: Bloom,
    /// Keys too long for a page, with their values.
    long: Vec<u8>,
    last_key: Vec<u8>,
    last_long_key: Vec<u8>,
    key_count: u64,
    posting_count: u64,
    subject: OpenSubject,
    value: Vec<u8>,
    page: Vec<u8>,
}

/// The subject that postings are being added to.
#[derive(Debug, Default)]
struct OpenSubject {
    key: Vec<u8>,
    is_long: bool,
    /// Postings that are on no page yet, at most a page of them.
    waiting: Vec<(Seq, u32)>,
    chunk: ChunkSize,
    /// Number of the first and of the last page, once one is full.
    pages: Option<(u32, u32)>,
    count: u64,
    first: Seq,
    last: Seq,
    bytes: u64,
}

impl RunWriter {
    /// Creates the file, which must not exist. `keys_max` is the number of keys that the filter has
    /// room for; with more it becomes less selective.
    pub fn new(
        env: &Env,
        path: &Path,
        store_uuid: u128,
        source: RunSource,
        keys_max: u64,
    ) -> io::Result<RunWriter> {
        let file = env.io.open(path, OpenMode::CreateNew)?;
        let file_no = source.file_no().0;
        let sealer = env.sealer(FileKind::Index, store_uuid, file_no);
        file.write_at(&sealer.header().encode(), 0)?;
        Ok(RunWriter {
            file,
            path: path.to_owned(),
            store_uuid,
            source,
            sealer,
            next_page: 0,
            keys: KeyPageBuilder::default(),
            keys_page_no: 0,
            postings: None,
            separators: Vec::new(),
            filter: Bloom::with_capacity(keys_max),
            long: Vec::new(),
            last_key: Vec::new(),
            last_long_key: Vec::new(),
            key_count: 0,
            posting_count: 0,
            subject: OpenSubject::default(),
            value: Vec::new(),
            page: Vec::with_capacity(PAGE_BYTES),
        })
    }

    /// Adds a subject with its sequences, ascending, and the accounted size of each message. As
    /// [`RunWriter::begin_subject`], [`RunWriter::push_posting`] and [`RunWriter::end_subject`].
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
        if postings.is_empty() {
            return Err(invalid_input("a subject without a sequence"));
        }
        self.begin_subject(stream, subject)?;
        for (seq, size) in postings {
            self.push_posting(*seq, *size)?;
        }
        self.end_subject()
    }

    /// Begins a subject. Streams must ascend, and in a stream subjects by
    /// [`compare_subjects`](super::compare_subjects); those that are too long for key pages may
    /// come in between or behind the others, ascending among themselves.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the order is not kept.
    pub fn begin_subject(&mut self, stream: StreamId, subject: &[u8]) -> io::Result<()> {
        let mut key = std::mem::take(&mut self.subject.key);
        key.clear();
        encode_key(stream, subject, &mut key);
        self.begin(key, subject.len() > PAGED_SUBJECT_BYTES_MAX)
    }

    /// As [`RunWriter::begin_subject`], with the subject's key.
    pub(super) fn begin_key(&mut self, encoded: &[u8], is_long: bool) -> io::Result<()> {
        let mut key = std::mem::take(&mut self.subject.key);
        key.clear();
        key.extend_from_slice(encoded);
        self.begin(key, is_long)
    }

    fn begin(&mut self, key: Vec<u8>, is_long: bool) -> io::Result<()> {
        let mut waiting = std::mem::take(&mut self.subject.waiting);
        waiting.clear();
        let last = match is_long {
            true => &self.last_long_key,
            false => &self.last_key,
        };
        // A key has at least the stream's bytes, so an empty one is none.
        if key <= *last {
            return Err(invalid_input("subjects do not ascend"));
        }
        self.subject = OpenSubject {
            key,
            is_long,
            waiting,
            ..OpenSubject::default()
        };
        Ok(())
    }

    /// Adds a message to the subject that was begun.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if sequences do not ascend.
    pub fn push_posting(&mut self, seq: Seq, size: u32) -> io::Result<()> {
        let subject = &mut self.subject;
        if subject.count == 0 {
            subject.first = seq;
        } else if seq <= subject.last {
            return Err(invalid_input("sequences do not ascend"));
        }
        let before = subject.count - subject.waiting.len() as u64;
        if !subject.chunk.add(before, (seq, size), PAYLOAD_BYTES_MAX) {
            self.end_full_chunk()?;
            // What did not fit is the first of the next chunk; a page holds it.
            let subject = &mut self.subject;
            subject
                .chunk
                .add(subject.count, (seq, size), PAYLOAD_BYTES_MAX);
        }
        let subject = &mut self.subject;
        subject.waiting.push((seq, size));
        subject.count += 1;
        subject.last = seq;
        subject.bytes += u64::from(size);
        Ok(())
    }

    /// Writes the waiting postings, which fill a page. No other page takes a number between two
    /// pages of a list, so they are neighbours.
    fn end_full_chunk(&mut self) -> io::Result<()> {
        if self.subject.pages.is_none() {
            self.end_postings_page()?;
        }
        let page_no = self.take_page_no()?;
        let subject = &mut self.subject;
        let before = subject.count - subject.waiting.len() as u64;
        let mut payload = Vec::with_capacity(PAYLOAD_BYTES_MAX);
        encode_chunk(before, &subject.waiting, &mut payload);
        let (first, _) = subject.pages.unwrap_or((page_no, page_no));
        subject.pages = Some((first, page_no));
        subject.waiting.clear();
        subject.chunk = ChunkSize::default();
        self.write_page(PageKind::Postings, page_no, &payload)
    }

    /// Completes the subject; one without messages is left out.
    pub fn end_subject(&mut self) -> io::Result<()> {
        let subject = std::mem::take(&mut self.subject);
        if subject.count > 0 {
            self.place_subject(&subject)?;
            self.filter.insert(key_hash(&subject.key));
            self.key_count += 1;
            self.posting_count += subject.count;
            let last = match subject.is_long {
                true => &mut self.last_long_key,
                false => &mut self.last_key,
            };
            last.clear();
            last.extend_from_slice(&subject.key);
        }
        self.subject = subject;
        Ok(())
    }

    fn place_subject(&mut self, subject: &OpenSubject) -> io::Result<()> {
        let mut inline = Vec::new();
        let place = match subject.waiting[..] {
            [(_, size)] if subject.count == 1 => Place::One(size),
            _ => self.place(subject, &mut inline)?,
        };
        let value = Value {
            count: subject.count,
            first: subject.first,
            last: subject.last,
            bytes: subject.bytes,
            place,
        };
        let mut encoded = std::mem::take(&mut self.value);
        encoded.clear();
        value.encode(&mut encoded);
        if subject.is_long {
            encode_long(&subject.key, &encoded, &mut self.long);
        } else {
            self.push_entry(&subject.key, &encoded)?;
        }
        self.value = encoded;
        Ok(())
    }

    /// Decides where the waiting postings go, and puts them there if that is a posting page.
    fn place<'a>(
        &mut self,
        subject: &OpenSubject,
        inline: &'a mut Vec<u8>,
    ) -> io::Result<Place<'a>> {
        let waiting = &subject.waiting[..];
        // A posting takes at least two bytes, so a longer list is not worth trying.
        if subject.pages.is_none() && waiting.len() <= INLINE_POSTINGS_BYTES_MAX / 2 {
            encode_postings(subject.first, waiting, inline);
            if inline.len() <= INLINE_POSTINGS_BYTES_MAX {
                return Ok(Place::Inline(inline));
            }
        }
        let before = subject.count - waiting.len() as u64;
        let mut chunk = Vec::new();
        encode_chunk(before, waiting, &mut chunk);
        if let Some((page_no, last)) = subject.pages {
            // A posting that does not fit opens the next chunk, so one is waiting.
            self.begin_postings_page(chunk)?;
            return Ok(Place::Pages {
                page_no,
                offset: 0,
                further: last - page_no + 1,
            });
        }
        if let Some(open) = &mut self.postings
            && open.payload.len() + chunk.len() <= PAYLOAD_BYTES_MAX
        {
            let offset = open.payload.len() as u32;
            open.payload.extend_from_slice(&chunk);
            return Ok(Place::Pages {
                page_no: open.page_no,
                offset,
                further: 0,
            });
        }
        self.end_postings_page()?;
        let page_no = self.begin_postings_page(chunk)?;
        Ok(Place::Pages {
            page_no,
            offset: 0,
            further: 0,
        })
    }

    /// Begins a page with the end of a list; shorter lists may follow on it.
    fn begin_postings_page(&mut self, payload: Vec<u8>) -> io::Result<u32> {
        let page_no = self.take_page_no()?;
        self.postings = Some(OpenPage { page_no, payload });
        Ok(page_no)
    }

    /// Adds an entry to the open key page, or to a new one.
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
        let sealed = self.complete(lost_ranges)?;
        self.file.sync_data()?;
        self.file.drop_cache();
        Ok(sealed)
    }

    /// As [`RunWriter::finish`] for a file that is read soon and not kept.
    pub(super) fn finish_temporary(mut self) -> io::Result<SealedRun> {
        self.complete(0)
    }

    fn complete(&mut self, lost_ranges: u64) -> io::Result<SealedRun> {
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
        let filter_pages = self.write_filter()?;
        let footer_offset = page_offset(self.next_page);
        let footer = Footer {
            kind: FileKind::Index,
            store_uuid: self.store_uuid,
            file_no: self.source.file_no().0,
            pages_offset: page_offset(0),
            section_pages: [data_pages, separator_pages, long_pages, filter_pages],
            items: [self.key_count, self.posting_count, lost_ranges],
            source_digest: self.source.digest(),
            file_bytes: footer_offset + footer::BYTES as u64,
            key: self.sealer.key(),
        };
        let encoded = footer.encode();
        self.file.write_at(&encoded, footer_offset)?;
        Ok(SealedRun {
            file_bytes: footer.file_bytes,
            footer_digest: Footer::digest_of(&encoded),
            keys: self.key_count,
            postings: self.posting_count,
        })
    }

    /// A filter over few keys would take more room than the page it saves reading.
    fn write_filter(&mut self) -> io::Result<u32> {
        if self.key_count < FILTER_KEYS_MIN {
            return Ok(0);
        }
        let mut filter = std::mem::take(&mut self.filter);
        filter.shrink_to(self.key_count);
        let mut pages = 0;
        for payload in filter.pages() {
            let page_no = self.take_page_no()?;
            self.write_page(PageKind::Filter, page_no, &payload)?;
            pages += 1;
        }
        Ok(pages)
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
