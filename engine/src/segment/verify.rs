//! Checks every byte of a segment, past the cache and in steps.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::Stretch;
use super::decoded::DecodedBlock;
use super::reader::{LoadError, Segment};
use super::table::{Pages, Table};
use crate::error::{Corrupt, ReadError};
use crate::format::FormatError;
use crate::format::block::HEAD_BYTES;
use crate::format::block_table::{BlockRef, Entry};
use crate::format::file_header::{self, FileHeader, FileKind};
use crate::format::footer::{self, Footer};
use crate::format::page::{self, PAGE_BYTES};
use crate::ids::{Seq, StreamId};

/// A step reads about this many bytes, and at least one page or block.
pub(crate) const STEP_BYTES: u64 = 256 * 1024;

/// Result of [`Segment::verify`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Bytes that were read and checked.
    pub bytes: u64,
    /// Blocks that were read.
    pub blocks: u64,
    /// Messages that are readable.
    pub msgs: u64,
    /// Messages that are lost, by range.
    pub lost: Vec<Corrupt>,
    /// Messages that the device refused to read just now, by range.
    pub unreadable: Vec<Corrupt>,
    /// Damage that costs no message: offset and what was found. A copy of the segment is due.
    pub harmless: Vec<(u64, String)>,
}

impl VerifyReport {
    /// True if nothing at all is damaged.
    pub fn is_intact(&self) -> bool {
        self.lost.is_empty() && self.unreadable.is_empty() && self.harmless.is_empty()
    }

    fn harm(&mut self, offset: u64, what: impl ToString) {
        self.harmless.push((offset, what.to_string()));
    }
}

/// A check of a segment under way.
#[derive(Debug, Default)]
pub(crate) struct SegmentCheck {
    /// What was found so far.
    pub report: VerifyReport,
    place: Place,
    /// Set when a page of the block table is unreadable.
    table_damage: Option<FormatError>,
    /// The page of the block table that is being walked.
    entries: Option<(usize, Bytes)>,
}

#[derive(Debug, Default)]
enum Place {
    #[default]
    Start,
    /// The number of the next page.
    Page(Box<Footer>, u32),
    /// The next entry of the block table, by page and position.
    Block(Arc<Table>, usize, usize),
    End,
}

impl Segment {
    /// Reads and checks the whole file. `paced` is called with the bytes read after each step and
    /// may wait, to keep the load low.
    ///
    /// # Errors
    ///
    /// Only [`ReadError::Io`]; damage is in the report.
    pub fn verify(&self, paced: &mut dyn FnMut(u64)) -> Result<VerifyReport, ReadError> {
        let mut check = SegmentCheck::default();
        loop {
            let before = check.report.bytes;
            let done = check.step(self, &mut |_| {})?;
            paced(check.report.bytes - before);
            if done {
                return Ok(check.report);
            }
        }
    }
}

impl SegmentCheck {
    /// Checks the next part; `visit` sees all readable messages, ascending by stream and sequence.
    /// True when everything was checked.
    ///
    /// # Errors
    ///
    /// Only [`ReadError::Io`]. The step can be tried again.
    pub fn step(
        &mut self,
        segment: &Segment,
        visit: &mut dyn FnMut(&DecodedBlock),
    ) -> Result<bool, ReadError> {
        let until = self.report.bytes.saturating_add(STEP_BYTES);
        loop {
            self.place = match std::mem::take(&mut self.place) {
                Place::Start => self.ends(segment)?,
                Place::Page(footer, page_no) => self.page(segment, footer, page_no)?,
                Place::Block(table, page, entry) => {
                    match self.block(segment, &table, page, entry, visit) {
                        Ok(Some((page, entry))) => Place::Block(table, page, entry),
                        Ok(None) => Place::End,
                        Err(error) => {
                            self.place = Place::Block(table, page, entry);
                            return Err(error);
                        }
                    }
                }
                Place::End => Place::End,
            };
            if let Place::End = self.place {
                return Ok(true);
            }
            if self.report.bytes >= until {
                return Ok(false);
            }
        }
    }

    /// Header and footer.
    fn ends(&mut self, segment: &Segment) -> Result<Place, ReadError> {
        let mut report = VerifyReport::default();
        let file = segment.file()?;
        let mut header = [0_u8; file_header::BYTES];
        match file.read_at(&mut header, 0).map(|len| {
            report.bytes += len as u64;
            FileHeader::decode(&header[..len])
        }) {
            Ok(Ok(h)) if h.kind == FileKind::Segment && h.file_no == segment.manifest.id.0 => {}
            Ok(Ok(_)) => report.harm(0, "the header names another file"),
            Ok(Err(error)) => report.harm(0, error),
            Err(error) => report.harm(0, error),
        }
        let offset = segment
            .manifest
            .file_bytes
            .saturating_sub(footer::BYTES as u64);
        let mut bytes = [0_u8; footer::BYTES];
        let len = match file.read_at(&mut bytes, offset) {
            Ok(len) => len,
            Err(error) => {
                report.harm(offset, error);
                0
            }
        };
        report.bytes += len as u64;
        let place = match segment.decode_footer(&bytes[..len]) {
            Ok(footer) => Place::Page(Box::new(footer), 0),
            Err(error) => {
                report.harm(offset, error);
                let table = segment.table()?;
                report_holes(segment, &table, &mut report);
                Place::Block(table, 0, 0)
            }
        };
        self.report = report;
        Ok(place)
    }

    fn page(
        &mut self,
        segment: &Segment,
        footer: Box<Footer>,
        page_no: u32,
    ) -> Result<Place, ReadError> {
        if page_no >= footer.section_start(footer.section_pages.len()) {
            return self.begin_blocks(segment, &footer);
        }
        match read_page(segment, &footer, page_no) {
            Err(error) => {
                self.report.harm(footer.page_offset(page_no), error);
                if page_no < footer.section_start(2) {
                    self.table_damage.get_or_insert(FormatError::Truncated);
                }
            }
            Ok((len, Err(error))) => {
                self.report.bytes += len;
                self.report.harm(footer.page_offset(page_no), error.clone());
                if page_no < footer.section_start(2) {
                    self.table_damage.get_or_insert(error);
                }
            }
            Ok((len, Ok(_))) => self.report.bytes += len,
        }
        Ok(Place::Page(footer, page_no + 1))
    }

    fn begin_blocks(&mut self, segment: &Segment, footer: &Footer) -> Result<Place, ReadError> {
        let table = match &self.table_damage {
            Some(reason) => segment.rebuild(reason)?,
            None => segment.table()?,
        };
        if let Pages::Memory(_) = table.pages
            && self.table_damage.is_none()
        {
            let offset = footer.page_offset(0);
            self.report.harm(offset, "the block table was unreadable");
        }
        report_holes(segment, &table, &mut self.report);
        Ok(Place::Block(table, 0, 0))
    }

    /// Checks the block of a table entry; returns the next entry.
    fn block(
        &mut self,
        segment: &Segment,
        table: &Arc<Table>,
        page: usize,
        entry: usize,
        visit: &mut dyn FnMut(&DecodedBlock),
    ) -> Result<Option<(usize, usize)>, ReadError> {
        if page >= table.separators.len() {
            return Ok(None);
        }
        let payload = match self.entries.take() {
            Some((number, payload)) if number == page => payload,
            _ => table_page(segment, table, page)?,
        };
        self.entries = Some((page, payload.clone()));
        let Some(found) = BlockRef::at(&payload, entry) else {
            return Ok(Some((page + 1, 0)));
        };
        self.check_block(segment, &found, visit)?;
        Ok(Some((page, entry + 1)))
    }

    fn check_block(
        &mut self,
        segment: &Segment,
        block: &BlockRef,
        visit: &mut dyn FnMut(&DecodedBlock),
    ) -> Result<(), ReadError> {
        let report = &mut self.report;
        let lost = |first: Seq, last: Seq, reason: String| {
            segment.report(block.stream, first, last, block.offset, reason)
        };
        let loaded = match segment.read_block(block) {
            Err(LoadError::Io(error)) => {
                // If it is there at all, the failure is that of these sectors.
                segment.file()?;
                let refused = lost(block.first_seq, block.last_seq, error.to_string());
                report.unreadable.push(refused);
                None
            }
            Err(LoadError::Damaged(reason)) => {
                let damage = lost(block.first_seq, block.last_seq, reason);
                report.lost.push(damage);
                None
            }
            Ok(loaded) => Some(loaded),
        };
        report.blocks += 1;
        report.bytes += HEAD_BYTES as u64 + u64::from(block.disk_len);
        let Some(loaded) = loaded else {
            return Ok(());
        };
        let lost_before = report.lost.len();
        for stretch in loaded.stretches() {
            match stretch {
                Stretch::Good(block) => {
                    report.msgs += u64::from(block.count());
                    visit(&block);
                }
                Stretch::Lost {
                    first,
                    last,
                    reason,
                } => report.lost.push(lost(first, last, reason.to_string())),
            }
        }
        if let Some(damage) = loaded.damage()
            && report.lost.len() == lost_before
        {
            report.harm(block.offset, damage);
        }
        Ok(())
    }
}

/// A page of the block table, past the cache.
fn table_page(segment: &Segment, table: &Table, page: usize) -> Result<Bytes, ReadError> {
    match &table.pages {
        Pages::Memory(pages) => Ok(pages.get(page).cloned().unwrap_or_default()),
        Pages::File(footer) => {
            let page_no = footer.section_start(0) + page as u32;
            // It was readable a moment ago: the device says now this, now that.
            read_page(segment, footer, page_no)?.1.map_err(|error| {
                let error = io::Error::new(io::ErrorKind::InvalidData, error.to_string());
                ReadError::io(&segment.path, error)
            })
        }
    }
}

fn report_holes(segment: &Segment, table: &Table, report: &mut VerifyReport) {
    for hole in &table.holes {
        report.lost.push(segment.hole_report(hole));
    }
    if let Some((offset, reason)) = &table.unknown {
        let unknown = segment.unknown_report(StreamId(0), *offset, reason);
        report.lost.push(unknown);
    }
}

/// Reads a page past the cache: bytes read, then its payload or what is wrong with it.
fn read_page(
    segment: &Segment,
    footer: &Footer,
    page_no: u32,
) -> Result<(u64, Result<Bytes, FormatError>), ReadError> {
    let mut bytes = vec![0_u8; PAGE_BYTES];
    let len = segment
        .file()?
        .read_at(&mut bytes, footer.page_offset(page_no))
        .map_err(|error| ReadError::io(&segment.path, error))?;
    bytes.truncate(len);
    let payload = page::decode_any(&segment.opener, page_no, &mut bytes);
    let payload_len = payload.map(|(_, payload)| payload.len());
    let payload =
        payload_len.map(|len| Bytes::from(bytes).slice(page::HEAD_BYTES..page::HEAD_BYTES + len));
    Ok((len as u64, payload))
}
