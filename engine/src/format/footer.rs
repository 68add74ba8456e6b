//! The last 128 bytes of a sealed file: where its pages are and what it was made of.
//!
//! `magic8 version2 kind1 reserved5 | store_uuid16 | file_no8 | pages_offset8 | section_pages4 x 4 |
//! items8 x 3 | source_digest8 | file_bytes8 | key8 reserved8 | digest8`. The digest is also kept
//! outside the file, so that a stale or swapped file is noticed.

use super::FormatError;
use super::cursor::Cursor;
use super::file_header::FileKind;
use super::identity::FileIdentity;
use super::key_ring::KeyId;
use super::page::PAGE_BYTES;

/// First bytes of a footer.
pub const MAGIC: [u8; 8] = *b"RLFooter";
/// Version of the sealed formats that this build writes; it reads this one and older ones.
pub const VERSION: u16 = 1;
/// Bytes of a footer.
pub const BYTES: usize = 128;
/// Bytes that the digest covers.
const CHECKED_BYTES: usize = BYTES - 8;

/// A footer's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Segment or index run.
    pub kind: FileKind,
    /// The store the file belongs to.
    pub store_uuid: u128,
    /// Which file of its kind.
    pub file_no: u64,
    /// Where page 0 starts, in bytes from the start of the file.
    pub pages_offset: u64,
    /// Number of pages of each section, one section behind the other. Segment: table, table
    /// separators, extents, timers with their separators. Run: keys and postings, key separators,
    /// long keys.
    pub section_pages: [u32; 4],
    /// Segment: blocks, extents, records. Run: keys, postings, lost ranges.
    pub items: [u64; 3],
    /// Run: digest of the footer of the segment it was made from. Else 0.
    pub source_digest: u64,
    /// Length of the whole file, footer included.
    pub file_bytes: u64,
    /// The key that blocks and pages are encrypted with.
    pub key: Option<KeyId>,
}

impl Footer {
    fn identity(&self) -> FileIdentity {
        FileIdentity::new(self.kind, self.store_uuid, self.file_no)
    }

    /// The footer's bytes; the last eight are its digest.
    pub fn encode(&self) -> [u8; BYTES] {
        let mut out = [0_u8; BYTES];
        out[0..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10] = self.kind as u8;
        out[16..32].copy_from_slice(&self.store_uuid.to_le_bytes());
        out[32..40].copy_from_slice(&self.file_no.to_le_bytes());
        out[40..48].copy_from_slice(&self.pages_offset.to_le_bytes());
        for (i, pages) in self.section_pages.iter().enumerate() {
            out[48 + 4 * i..52 + 4 * i].copy_from_slice(&pages.to_le_bytes());
        }
        for (i, items) in self.items.iter().enumerate() {
            out[64 + 8 * i..72 + 8 * i].copy_from_slice(&items.to_le_bytes());
        }
        out[88..96].copy_from_slice(&self.source_digest.to_le_bytes());
        out[96..104].copy_from_slice(&self.file_bytes.to_le_bytes());
        let key = self.key.map_or(0, KeyId::number);
        out[104..112].copy_from_slice(&key.to_le_bytes());
        let digest = self
            .identity()
            .digest(self.file_bytes, &out[..CHECKED_BYTES]);
        out[CHECKED_BYTES..].copy_from_slice(&digest.to_le_bytes());
        out
    }

    /// The digest at the end of an encoded footer.
    pub fn digest_of(encoded: &[u8; BYTES]) -> u64 {
        let (_, digest) = encoded.split_at(CHECKED_BYTES);
        let mut bytes = [0_u8; 8];
        bytes.copy_from_slice(digest);
        u64::from_le_bytes(bytes)
    }

    /// Decodes the footer of file `file_no` of `kind`, which must be `file_bytes` long, and checks
    /// that its sections fill exactly the space between data and footer.
    pub fn decode(
        kind: FileKind,
        store_uuid: u128,
        file_no: u64,
        file_bytes: u64,
        input: &[u8],
    ) -> Result<Footer, FormatError> {
        let mut cursor = Cursor::new(input);
        let bytes: [u8; BYTES] = cursor.array()?;
        let mut cursor = Cursor::new(&bytes);
        if cursor.array()? != MAGIC {
            return Err(FormatError::MagicMismatch { what: "footer" });
        }
        let version = cursor.u16()?;
        let found = cursor.u8()?;
        let _reserved: [u8; 5] = cursor.array()?;
        let stored = Footer::digest_of(&bytes);
        let identity = FileIdentity::new(kind, store_uuid, file_no);
        let computed = identity.digest(file_bytes, &bytes[..CHECKED_BYTES]);
        if stored != computed {
            return Err(FormatError::ChecksumMismatch {
                what: "footer",
                stored,
                computed,
            });
        }
        if version > VERSION {
            return Err(FormatError::NewerVersion {
                what: "footer",
                found: version,
                supported: VERSION,
            });
        }
        let footer = Footer {
            kind,
            store_uuid: u128::from_le_bytes(cursor.array()?),
            file_no: cursor.u64()?,
            pages_offset: cursor.u64()?,
            section_pages: [cursor.u32()?, cursor.u32()?, cursor.u32()?, cursor.u32()?],
            items: [cursor.u64()?, cursor.u64()?, cursor.u64()?],
            source_digest: cursor.u64()?,
            file_bytes: cursor.u64()?,
            key: KeyId::from_number(cursor.u64()?),
        };
        let same_file = found == kind as u8
            && footer.store_uuid == store_uuid
            && footer.file_no == file_no
            && footer.file_bytes == file_bytes;
        if !same_file {
            return Err(FormatError::OutOfRange {
                what: "file named by the footer",
            });
        }
        let end = footer.pages().and_then(|pages| {
            (pages * PAGE_BYTES as u64 + BYTES as u64).checked_add(footer.pages_offset)
        });
        if end != Some(file_bytes) {
            return Err(FormatError::OutOfRange {
                what: "page sections",
            });
        }
        Ok(footer)
    }

    /// Number of pages of all sections; `None` if page numbers would not fit 32 bits.
    fn pages(&self) -> Option<u64> {
        let pages: u64 = self.section_pages.iter().map(|n| u64::from(*n)).sum();
        (pages <= u64::from(u32::MAX)).then_some(pages)
    }

    /// Number of the first page of a section.
    pub fn section_start(&self, section: usize) -> u32 {
        self.section_pages[..section].iter().sum()
    }

    /// Offset of a page in the file.
    pub fn page_offset(&self, page_no: u32) -> u64 {
        self.pages_offset + u64::from(page_no) * PAGE_BYTES as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Footer {
        Footer {
            kind: FileKind::Segment,
            store_uuid: 11 << 90,
            file_no: 4,
            pages_offset: 1000,
            section_pages: [3, 1, 1, 0],
            items: [200, 10, 4000],
            source_digest: 0,
            file_bytes: 1000 + 5 * PAGE_BYTES as u64 + BYTES as u64,
            key: KeyId::from_number(3 << 50),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Footer, FormatError> {
        let f = sample();
        Footer::decode(f.kind, f.store_uuid, f.file_no, f.file_bytes, bytes)
    }

    #[test]
    fn round_trip_and_every_bit_flip() {
        let mut bytes = sample().encode();
        assert_eq!(decode(&bytes), Ok(sample()));
        for bit in 0..BYTES * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes).is_err(), "bit {bit} went unnoticed");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for len in 0..BYTES {
            assert_eq!(decode(&bytes[..len]), Err(FormatError::Truncated));
        }
    }

    #[test]
    fn the_footer_of_another_file_is_an_error() {
        let bytes = sample().encode();
        let f = sample();
        let other = |kind, uuid, no, len| Footer::decode(kind, uuid, no, len, &bytes).is_err();
        assert!(other(
            FileKind::Index,
            f.store_uuid,
            f.file_no,
            f.file_bytes
        ));
        assert!(other(f.kind, 1, f.file_no, f.file_bytes));
        assert!(other(f.kind, f.store_uuid, 5, f.file_bytes));
        assert!(other(f.kind, f.store_uuid, f.file_no, f.file_bytes + 1));
    }

    #[test]
    fn sections_that_do_not_fill_the_file_are_an_error() {
        for bad in [
            Footer {
                pages_offset: 999,
                ..sample()
            },
            Footer {
                pages_offset: u64::MAX,
                ..sample()
            },
            Footer {
                section_pages: [u32::MAX; 4],
                ..sample()
            },
        ] {
            assert_eq!(
                decode(&bad.encode()),
                Err(FormatError::OutOfRange {
                    what: "page sections"
                })
            );
        }
    }

    #[test]
    fn sections_are_addressed_one_behind_the_other() {
        let f = sample();
        assert_eq!((f.section_start(0), f.section_start(2)), (0, 4));
        assert_eq!(f.page_offset(4), 1000 + 4 * 4096);
    }
}
