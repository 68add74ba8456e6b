//! Pages: the 4 KiB units of block tables and index runs.
//!
//! `digest8 | kind1 reserved1 payload_len2 page_no4 | payload`, padded with zeros to 4,096 bytes.
//! The digest covers everything behind it, padding included, and is seeded with the file's identity
//! and the page's number: a page of another file or another place in this file never passes.

use super::FormatError;
use super::cursor::Cursor;
use super::identity::FileIdentity;

/// Bytes of a page on disk.
pub const PAGE_BYTES: usize = 4096;
/// Bytes of a page's head.
pub const HEAD_BYTES: usize = 16;
/// Most bytes a page can carry.
pub const PAYLOAD_BYTES_MAX: usize = PAGE_BYTES - HEAD_BYTES;

/// What a page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PageKind {
    /// Entries of a segment's block table.
    Table = 1,
    /// First entry of each table page.
    TableSeparators = 2,
    /// A segment's extents.
    Extents = 3,
    /// Keys of an index run, with short posting lists.
    Keys = 4,
    /// Long posting lists of an index run.
    Postings = 5,
    /// First key of each key page.
    KeySeparators = 6,
    /// Keys too long for a key page, as one stream of bytes over all these pages.
    LongKeys = 7,
    /// Lines of a filter over the keys.
    Filter = 8,
}

impl PageKind {
    fn from_byte(byte: u8) -> Option<PageKind> {
        use PageKind::*;
        [
            Table,
            TableSeparators,
            Extents,
            Keys,
            Postings,
            KeySeparators,
            LongKeys,
            Filter,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// Appends a page to `out`.
///
/// # Panics
///
/// If `payload` is longer than [`PAYLOAD_BYTES_MAX`].
pub fn encode(
    identity: FileIdentity,
    kind: PageKind,
    page_no: u32,
    payload: &[u8],
    out: &mut Vec<u8>,
) {
    assert!(payload.len() <= PAYLOAD_BYTES_MAX, "page overflow");
    let start = out.len();
    out.resize(start + PAGE_BYTES, 0);
    let page = &mut out[start..];
    page[8] = kind as u8;
    page[10..12].copy_from_slice(&(payload.len() as u16).to_le_bytes());
    page[12..16].copy_from_slice(&page_no.to_le_bytes());
    page[HEAD_BYTES..HEAD_BYTES + payload.len()].copy_from_slice(payload);
    let digest = identity.digest(u64::from(page_no), &page[8..]);
    page[0..8].copy_from_slice(&digest.to_le_bytes());
}

/// Checks a page and returns its kind and payload. `page` must be the whole page.
pub fn decode_any(
    identity: FileIdentity,
    page_no: u32,
    page: &[u8],
) -> Result<(PageKind, &[u8]), FormatError> {
    if page.len() != PAGE_BYTES {
        return Err(FormatError::Truncated);
    }
    let mut cursor = Cursor::new(page);
    let stored = cursor.u64()?;
    let computed = identity.digest(u64::from(page_no), cursor.rest());
    if stored != computed {
        return Err(FormatError::ChecksumMismatch {
            what: "page",
            stored,
            computed,
        });
    }
    let found = cursor.u8()?;
    let _reserved = cursor.u8()?;
    let len = cursor.u16()?;
    if cursor.u32()? != page_no {
        return Err(FormatError::OutOfRange {
            what: "page number",
        });
    }
    let payload = cursor.bytes(u64::from(len))?;
    let kind = PageKind::from_byte(found).ok_or(FormatError::UnknownKind {
        what: "page",
        found,
    })?;
    Ok((kind, payload))
}

/// The number that the head of a page claims, unchecked: only good for deciding where to look.
pub fn claimed_number(head: &[u8; HEAD_BYTES]) -> u32 {
    u32::from_le_bytes([head[12], head[13], head[14], head[15]])
}

/// Checks a page that must be of `kind` and returns its payload.
pub fn decode(
    identity: FileIdentity,
    kind: PageKind,
    page_no: u32,
    page: &[u8],
) -> Result<&[u8], FormatError> {
    let (found, payload) = decode_any(identity, page_no, page)?;
    if found != kind {
        return Err(FormatError::UnknownKind {
            what: "page",
            found: found as u8,
        });
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::super::file_header::FileKind;
    use super::*;

    fn identity() -> FileIdentity {
        FileIdentity::new(FileKind::Index, 5, 6)
    }

    #[test]
    fn round_trip_at_every_interesting_length() {
        for len in [0, 1, 100, PAYLOAD_BYTES_MAX] {
            let payload = vec![7_u8; len];
            let mut out = vec![1, 2, 3];
            encode(identity(), PageKind::Keys, 9, &payload, &mut out);
            assert_eq!(out.len(), 3 + PAGE_BYTES);
            assert_eq!(
                decode(identity(), PageKind::Keys, 9, &out[3..]),
                Ok(&payload[..])
            );
        }
    }

    #[test]
    fn every_bit_flip_is_an_error() {
        let mut page = Vec::new();
        encode(identity(), PageKind::Table, 3, b"payload", &mut page);
        for bit in 0..PAGE_BYTES * 8 {
            page[bit / 8] ^= 1 << (bit % 8);
            assert!(
                decode_any(identity(), 3, &page).is_err(),
                "bit {bit} went unnoticed"
            );
            page[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(decode_any(identity(), 3, &page).is_ok());
    }

    #[test]
    fn a_page_of_another_place_file_or_kind_is_an_error() {
        let mut page = Vec::new();
        encode(identity(), PageKind::Table, 3, b"payload", &mut page);
        assert!(decode(identity(), PageKind::Table, 4, &page).is_err());
        assert!(decode(identity(), PageKind::Keys, 3, &page).is_err());
        for other in [
            FileIdentity::new(FileKind::Index, 5, 7),
            FileIdentity::new(FileKind::Index, 4, 6),
            FileIdentity::new(FileKind::Segment, 5, 6),
        ] {
            assert!(decode(other, PageKind::Table, 3, &page).is_err());
        }
        assert_eq!(
            decode(identity(), PageKind::Table, 3, &page[..100]),
            Err(FormatError::Truncated)
        );
    }
}
