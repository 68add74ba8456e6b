//! Checks every byte of a segment, past the cache.

use super::reader::{LoadError, Segment};
use super::table::Pages;
use crate::error::{Corrupt, ReadError};
use crate::format::block::HEAD_BYTES;
use crate::format::block_table::BlockRef;
use crate::format::file_header::{self, FileHeader, FileKind};
use crate::format::footer;
use crate::format::page::{self, PAGE_BYTES};
use crate::ids::Seq;
use crate::io::IoFile;

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
    /// Damage that costs no message: offset and what was found. A copy of the segment is due.
    pub harmless: Vec<(u64, String)>,
}

impl VerifyReport {
    /// True if nothing at all is damaged.
    pub fn is_intact(&self) -> bool {
        self.lost.is_empty() && self.harmless.is_empty()
    }
}

impl Segment {
    /// Reads and checks the whole file. `paced` is called with the bytes read after each step and
    /// may wait, to keep the load low.
    ///
    /// # Errors
    ///
    /// Only [`ReadError::Io`]; damage is in the report.
    pub fn verify(&self, paced: &mut dyn FnMut(u64)) -> Result<VerifyReport, ReadError> {
        let mut report = VerifyReport::default();
        let file = self.file()?;
        let read = |bytes: &mut [u8], offset: u64| {
            file.read_at(bytes, offset)
                .map_err(|error| ReadError::io(&self.path, error))
        };
        let mut header = [0_u8; file_header::BYTES];
        let len = read(&mut header, 0)?;
        match FileHeader::decode(&header[..len]) {
            Ok(h) if h.kind == FileKind::Segment && h.file_no == self.manifest.id.0 => {}
            Ok(_) => report.harm(0, "the header names another file"),
            Err(error) => report.harm(0, error),
        }
        report.bytes += len as u64;
        self.verify_pages(&*file, &mut report, paced)?;

        let (table, blocks) = self.all_blocks()?;
        for hole in &table.holes {
            report.lost.push(self.hole_report(hole));
        }
        if let Some((offset, reason)) = &table.unknown {
            let stream = crate::ids::StreamId(0);
            report
                .lost
                .push(self.unknown_report(stream, *offset, reason));
        }
        if let Pages::Memory(_) = table.pages {
            report.harm(self.manifest.file_bytes, "the block table was unreadable");
        }
        for block in &blocks {
            self.verify_block(block, &mut report)?;
            paced(HEAD_BYTES as u64 + u64::from(block.disk_len));
        }
        Ok(report)
    }

    fn verify_block(&self, block: &BlockRef, report: &mut VerifyReport) -> Result<(), ReadError> {
        report.blocks += 1;
        report.bytes += HEAD_BYTES as u64 + u64::from(block.disk_len);
        let lost = |first: Seq, last: Seq, reason: String| {
            self.report(block.stream, first, last, block.offset, reason)
        };
        match self.read_block(block) {
            Err(LoadError::Io(error)) => return Err(error),
            Err(LoadError::Damaged(reason)) => {
                report
                    .lost
                    .push(lost(block.first_seq, block.last_seq, reason));
            }
            Ok(loaded) => {
                let lost_before = report.lost.len();
                for stretch in loaded.stretches() {
                    match stretch {
                        super::Stretch::Good(block) => report.msgs += u64::from(block.count()),
                        super::Stretch::Lost {
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
            }
        }
        Ok(())
    }

    fn verify_pages(
        &self,
        file: &dyn IoFile,
        report: &mut VerifyReport,
        paced: &mut dyn FnMut(u64),
    ) -> Result<(), ReadError> {
        let read = |bytes: &mut [u8], offset: u64| {
            file.read_at(bytes, offset)
                .map_err(|error| ReadError::io(&self.path, error))
        };
        let offset = self
            .manifest
            .file_bytes
            .saturating_sub(footer::BYTES as u64);
        let mut bytes = [0_u8; footer::BYTES];
        let len = read(&mut bytes, offset)?;
        report.bytes += len as u64;
        let footer = match self.decode_footer(&bytes[..len]) {
            Ok(footer) => footer,
            Err(error) => {
                report.harm(offset, error);
                return Ok(());
            }
        };
        let pages = footer.section_start(footer.section_pages.len());
        let mut bytes = vec![0_u8; PAGE_BYTES];
        for page_no in 0..pages {
            let offset = footer.page_offset(page_no);
            let len = read(&mut bytes, offset)?;
            report.bytes += len as u64;
            if let Err(error) = page::decode_any(&self.opener, page_no, &mut bytes[..len]) {
                report.harm(offset, error);
            }
            paced(len as u64);
        }
        Ok(())
    }
}

impl VerifyReport {
    fn harm(&mut self, offset: u64, what: impl ToString) {
        self.harmless.push((offset, what.to_string()));
    }
}
