//! Pages: the 4 KiB units of block tables, index runs and files of message ids.
//!
//! `digest8 | kind1 key1 payload_len2 page_no4 | payload, padded with zeros | tag16 salt8`, 4,096
//! bytes. The digest covers everything behind it, padding included, and is seeded with the file's
//! identity and the page's number: a page of another file or another place in this file never
//! passes. In an encrypted page `key` is the key's mark and the payload ciphertext; otherwise it, tag and
//! salt are zeros.

use super::FormatError;
use super::cipher::{Opener, Sealer, TRAILER_BYTES, Unit};
use super::cursor::Cursor;

/// Bytes of a page on disk.
pub const PAGE_BYTES: usize = 4096;
/// Bytes of a page's head.
pub const HEAD_BYTES: usize = 16;
/// Most bytes a page can carry, encrypted or not.
pub const PAYLOAD_BYTES_MAX: usize = PAGE_BYTES - HEAD_BYTES - TRAILER_BYTES;
const TRAILER_AT: usize = PAGE_BYTES - TRAILER_BYTES;

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
    /// Timers of a segment's messages.
    Timers = 9,
    /// First timer of each timer page.
    TimerSeparators = 10,
    /// Message ids.
    Ids = 11,
    /// The manifest of a backup, as one stream of bytes over all its pages.
    Manifest = 16,
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
            Timers,
            TimerSeparators,
            Ids,
            Manifest,
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
pub fn encode(sealer: &Sealer, kind: PageKind, page_no: u32, payload: &[u8], out: &mut Vec<u8>) {
    assert!(payload.len() <= PAYLOAD_BYTES_MAX, "page overflow");
    let start = out.len();
    out.resize(start + PAGE_BYTES, 0);
    let page = &mut out[start..];
    page[8] = kind as u8;
    page[9] = sealer.mark();
    page[10..12].copy_from_slice(&(payload.len() as u16).to_le_bytes());
    page[12..16].copy_from_slice(&page_no.to_le_bytes());
    let (head, rest) = page.split_at_mut(HEAD_BYTES);
    let body = &mut rest[..payload.len()];
    body.copy_from_slice(payload);
    if let Some(trailer) = sealer.seal(Unit::Page(page_no), &head[8..], body) {
        page[TRAILER_AT..].copy_from_slice(&trailer);
    }
    let digest = sealer.identity().digest(u64::from(page_no), &page[8..]);
    page[0..8].copy_from_slice(&digest.to_le_bytes());
}

/// Checks a page, decrypts it in place and returns its kind and payload, which starts at
/// [`HEAD_BYTES`]. `page` must be the whole page.
pub fn decode_any<'p>(
    opener: &Opener,
    page_no: u32,
    page: &'p mut [u8],
) -> Result<(PageKind, &'p [u8]), FormatError> {
    if page.len() != PAGE_BYTES {
        return Err(FormatError::Truncated);
    }
    let mut cursor = Cursor::new(page);
    let stored = cursor.u64()?;
    let computed = opener.identity().digest(u64::from(page_no), cursor.rest());
    if stored != computed {
        return Err(FormatError::ChecksumMismatch {
            what: "page",
            stored,
            computed,
        });
    }
    let found = cursor.u8()?;
    let mark = cursor.u8()?;
    let len = usize::from(cursor.u16()?);
    if cursor.u32()? != page_no {
        return Err(FormatError::OutOfRange {
            what: "page number",
        });
    }
    let kind = PageKind::from_byte(found).ok_or(FormatError::UnknownKind {
        what: "page",
        found,
    })?;
    let (head, rest) = page.split_at_mut(HEAD_BYTES);
    let (body, trailer) = rest
        .split_last_chunk_mut::<TRAILER_BYTES>()
        .ok_or(FormatError::Truncated)?;
    let body = body.get_mut(..len).ok_or(FormatError::Truncated)?;
    let unit = Unit::Page(page_no);
    match mark {
        0 => opener.take_plain(unit)?,
        mark => opener.open(mark, unit, &head[8..], body, trailer)?,
    }
    Ok((kind, body))
}

/// The number that the head of a page claims, unchecked: only good for deciding where to look.
pub fn claimed_number(head: &[u8; HEAD_BYTES]) -> u32 {
    u32::from_le_bytes([head[12], head[13], head[14], head[15]])
}

/// As [`decode_any`] for a page that must be of `kind`.
pub fn decode<'p>(
    opener: &Opener,
    kind: PageKind,
    page_no: u32,
    page: &'p mut [u8],
) -> Result<&'p [u8], FormatError> {
    let (found, payload) = decode_any(opener, page_no, page)?;
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
    use std::sync::Arc;

    use super::super::file_header::FileKind;
    use super::super::key_ring::{Key, KeyRing};
    use super::*;

    fn ring(byte: u8) -> Arc<KeyRing> {
        Arc::new(KeyRing::new(Key::new(&[byte; 32])))
    }

    fn page_of(keys: Option<&KeyRing>, kind: PageKind, page_no: u32, payload: &[u8]) -> Vec<u8> {
        let sealer = Sealer::new(keys, 8, FileKind::Index, 5, 6);
        let mut out = vec![1, 2, 3];
        encode(&sealer, kind, page_no, payload, &mut out);
        assert_eq!(out.len(), 3 + PAGE_BYTES);
        out.split_off(3)
    }

    fn opener(keys: Option<&Arc<KeyRing>>) -> Opener {
        Opener::new(keys.cloned(), FileKind::Index, 5, 6)
    }

    #[test]
    fn round_trip_at_every_interesting_length() {
        for keys in [None, Some(ring(1))] {
            let opener = opener(keys.as_ref());
            for len in [0, 1, 100, PAYLOAD_BYTES_MAX] {
                let payload = vec![7_u8; len];
                let mut page = page_of(keys.as_deref(), PageKind::Keys, 9, &payload);
                let found = decode(&opener, PageKind::Keys, 9, &mut page);
                assert_eq!(found, Ok(&payload[..]));
                assert_eq!(page[HEAD_BYTES..HEAD_BYTES + len], payload);
            }
        }
    }

    #[test]
    fn every_bit_flip_is_a_checksum_error() {
        for keys in [None, Some(ring(1))] {
            let opener = opener(keys.as_ref());
            let page = page_of(keys.as_deref(), PageKind::Table, 3, b"payload");
            for bit in 0..PAGE_BYTES * 8 {
                let mut bad = page.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                let found = decode_any(&opener, 3, &mut bad);
                assert!(
                    matches!(found, Err(FormatError::ChecksumMismatch { .. })),
                    "bit {bit}: {found:?}"
                );
            }
            assert!(decode_any(&opener, 3, &mut page.clone()).is_ok());
        }
    }

    #[test]
    fn a_page_of_another_place_file_or_kind_is_an_error() {
        let page = page_of(None, PageKind::Table, 3, b"payload");
        let check = |opener: &Opener, kind, page_no| {
            decode(opener, kind, page_no, &mut page.clone()).is_err()
        };
        assert!(check(&opener(None), PageKind::Table, 4));
        assert!(check(&opener(None), PageKind::Keys, 3));
        for (kind, uuid, no) in [
            (FileKind::Index, 5, 7),
            (FileKind::Index, 4, 6),
            (FileKind::Segment, 5, 6),
        ] {
            let other = Opener::new(None, kind, uuid, no);
            assert!(check(&other, PageKind::Table, 3));
        }
        assert_eq!(
            decode(&opener(None), PageKind::Table, 3, &mut page.clone()[..100]),
            Err(FormatError::Truncated)
        );
    }

    #[test]
    fn an_encrypted_page_needs_its_key() {
        let (right, wrong) = (ring(1), ring(2));
        let page = page_of(Some(&right), PageKind::Keys, 3, b"the subject");
        assert!(!page.windows(7).any(|bytes| bytes == b"subject"));
        let missing = Err(FormatError::KeyMissing { what: "page" });
        for keys in [None, Some(&wrong)] {
            let found = decode_any(&opener(keys), 3, &mut page.clone()).map(|_| ());
            assert_eq!(found, missing);
        }
        let both = KeyRing::new(wrong.current().clone()).with_previous(right.current().clone());
        let opener = opener(Some(&Arc::new(both)));
        let found = decode(&opener, PageKind::Keys, 3, &mut page.clone()).map(<[u8]>::to_vec);
        assert_eq!(found, Ok(b"the subject".to_vec()));
    }

    /// What a checksum cannot notice, because whoever changed the page made it fit.
    #[test]
    fn a_page_changed_on_purpose_is_not_authentic() {
        let keys = ring(1);
        let page = page_of(Some(&keys), PageKind::Keys, 3, b"payload");
        let opener = opener(Some(&keys));
        for at in (8..12).chain(16..23).chain(TRAILER_AT..PAGE_BYTES) {
            let mut bad = page.clone();
            bad[at] ^= 1;
            let digest = opener.identity().digest(3, &bad[8..]);
            bad[..8].copy_from_slice(&digest.to_le_bytes());
            let found = decode_any(&opener, 3, &mut bad).map(|_| ());
            // The mark of a key that does not exist.
            let expected = match at {
                9 => FormatError::KeyMissing { what: "page" },
                _ => FormatError::NotAuthentic { what: "page" },
            };
            assert_eq!(found, Err(expected), "byte {at}");
        }
    }
}
