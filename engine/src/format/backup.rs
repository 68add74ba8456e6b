//! The manifest of a backup: what its data files are, and everything of the stream that is no message.
//!
//! The file is a file header and pages. The pages' payloads, one behind the other, are `len8 digest8`
//! and the body, whose XXH3-64 the digest is.

use super::FormatError;
use super::cipher::{Opener, Sealer};
use super::cursor::Cursor;
use super::file_header;
use super::key_ring::KeyId;
use super::page::{self, PAGE_BYTES, PAYLOAD_BYTES_MAX, PageKind};
use super::varint;
use crate::ids::{Lsn, SegmentId, Seq, StreamId, TimestampNs};

/// Version of the body.
pub const VERSION: u8 = 1;
/// A backup with more lost sequences than this is not one: who restores it has to note them all.
const LOST_SEQS_MAX: u64 = 1 << 32;
/// Bytes in front of the body.
const HEAD_BYTES: usize = 16;

/// Keys and their values.
pub type Values = Vec<(Vec<u8>, Vec<u8>)>;

/// See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The store that the stream was in.
    pub store_uuid: u128,
    /// The stream: the checksums of records bind it.
    pub stream: StreamId,
    /// When the backup was made.
    pub taken_at: TimestampNs,
    /// Operations of the source's log up to here are contained.
    pub lsn: Lsn,
    /// Number of the next data file.
    pub next_file: u64,
    /// What the source's metadata held of the stream, without the list of its files: the keys behind
    /// the stream's prefix, ascending, and their values.
    pub values: Values,
    /// Data files, ascending by sequence.
    pub files: Vec<DataFile>,
    /// Ranges of which live messages could not be read, ascending.
    pub lost: Vec<(Seq, Seq)>,
}

/// One data file of a backup: a segment with messages of the one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// Its number, which is in its name.
    pub no: u64,
    /// Its length in bytes.
    pub file_bytes: u64,
    /// Digest of its footer.
    pub footer_digest: u64,
    /// The key that it is encrypted with.
    pub key: Option<KeyId>,
    /// The sealed file that its messages came from.
    pub source: SegmentId,
    /// Digest of that file's footer.
    pub source_digest: u64,
    /// First sequence of the stream in it.
    pub first: Seq,
    /// Last sequence of the stream in it.
    pub last: Seq,
    /// Every message that was live could be read.
    pub is_whole: bool,
}

impl Manifest {
    /// Appends the body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.extend_from_slice(&self.store_uuid.to_le_bytes());
        out.extend_from_slice(&self.taken_at.0.to_le_bytes());
        for number in [self.stream.0, self.lsn.0, self.next_file] {
            varint::encode(number, out);
        }
        varint::encode(self.values.len() as u64, out);
        for (key, value) in &self.values {
            for bytes in [key, value] {
                varint::encode(bytes.len() as u64, out);
                out.extend_from_slice(bytes);
            }
        }
        varint::encode(self.files.len() as u64, out);
        for file in &self.files {
            out.extend_from_slice(&file.footer_digest.to_le_bytes());
            out.extend_from_slice(&file.source_digest.to_le_bytes());
            let key = file.key.map_or(0, KeyId::number);
            out.extend_from_slice(&key.to_le_bytes());
            let span = file.last.0.saturating_sub(file.first.0);
            for number in [file.no, file.file_bytes, file.source.0, file.first.0, span] {
                varint::encode(number, out);
            }
            out.push(u8::from(file.is_whole));
        }
        varint::encode(self.lost.len() as u64, out);
        for (first, last) in &self.lost {
            varint::encode(first.0, out);
            varint::encode(last.0.saturating_sub(first.0), out);
        }
    }

    /// Reads a body.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, FormatError> {
        let mut input = Cursor::new(bytes);
        let version = input.u8()?;
        if version != VERSION {
            return Err(FormatError::NewerVersion {
                what: "backup manifest",
                found: u16::from(version),
                supported: u16::from(VERSION),
            });
        }
        let store_uuid = u128::from_le_bytes(input.array()?);
        let taken_at = TimestampNs(input.i64()?);
        let stream = StreamId(input.varint()?);
        let lsn = Lsn(input.varint()?);
        let next_file = input.varint()?;
        let mut values: Values = Vec::new();
        for _ in 0..input.varint()? {
            let key = input.sized_bytes()?.to_vec();
            let ascends = values.last().is_none_or(|(last, _)| *last < key);
            check(ascends, "order of values")?;
            values.push((key, input.sized_bytes()?.to_vec()));
        }
        let mut files: Vec<DataFile> = Vec::new();
        for _ in 0..input.varint()? {
            let file = DataFile::decode(&mut input)?;
            let ascends = files.last().is_none_or(|before| before.last < file.first);
            check(ascends && file.no < next_file, "data file")?;
            files.push(file);
        }
        let mut lost: Vec<(Seq, Seq)> = Vec::new();
        let mut lost_seqs = 0_u64;
        for _ in 0..input.varint()? {
            let range = decode_range(&mut input)?;
            let ascends = lost.last().is_none_or(|before| before.1 < range.0);
            lost_seqs = lost_seqs.saturating_add(range.1.0 - range.0.0);
            check(ascends && lost_seqs < LOST_SEQS_MAX, "lost range")?;
            lost.push(range);
        }
        check(input.rest().is_empty(), "length of the manifest")?;
        Ok(Manifest {
            store_uuid,
            stream,
            taken_at,
            lsn,
            next_file,
            values,
            files,
            lost,
        })
    }

    /// The whole file.
    pub fn seal(&self, sealer: &Sealer) -> Vec<u8> {
        let mut content = vec![0; HEAD_BYTES];
        self.encode(&mut content);
        let body = &content[HEAD_BYTES..];
        let (len, digest) = (body.len() as u64, xxhash_rust::xxh3::xxh3_64(body));
        content[..8].copy_from_slice(&len.to_le_bytes());
        content[8..HEAD_BYTES].copy_from_slice(&digest.to_le_bytes());
        let mut out = sealer.header().encode().to_vec();
        for (page_no, payload) in content.chunks(PAYLOAD_BYTES_MAX).enumerate() {
            let page_no = u32::try_from(page_no).unwrap_or(u32::MAX);
            page::encode(sealer, PageKind::Manifest, page_no, payload, &mut out);
        }
        out
    }

    /// Checks and reads a whole file; its header was read already.
    pub fn open(opener: &Opener, file: &[u8]) -> Result<Manifest, FormatError> {
        let pages = file.get(file_header::BYTES..).unwrap_or_default();
        let mut content = Vec::with_capacity(pages.len());
        for (page_no, bytes) in pages.chunks(PAGE_BYTES).enumerate() {
            let page_no = u32::try_from(page_no).map_err(|_| FormatError::Truncated)?;
            let mut bytes = bytes.to_vec();
            let payload = page::decode(opener, PageKind::Manifest, page_no, &mut bytes)?;
            content.extend_from_slice(payload);
        }
        let mut input = Cursor::new(&content);
        let (len, stored) = (input.u64()?, input.u64()?);
        let body = input.bytes(len)?;
        check(input.rest().is_empty(), "length of the manifest")?;
        let computed = xxhash_rust::xxh3::xxh3_64(body);
        if stored != computed {
            return Err(FormatError::ChecksumMismatch {
                what: "backup manifest",
                stored,
                computed,
            });
        }
        Manifest::decode(body)
    }
}

impl DataFile {
    fn decode(input: &mut Cursor<'_>) -> Result<DataFile, FormatError> {
        let (footer_digest, source_digest) = (input.u64()?, input.u64()?);
        let key = KeyId::from_number(input.u64()?);
        let (no, file_bytes) = (input.varint()?, input.varint()?);
        let source = SegmentId(input.varint()?);
        let (first, last) = decode_range(input)?;
        let is_whole = match input.u8()? {
            0 => false,
            1 => true,
            found => {
                return Err(FormatError::UnknownKind {
                    what: "data file",
                    found,
                });
            }
        };
        Ok(DataFile {
            no,
            file_bytes,
            footer_digest,
            key,
            source,
            source_digest,
            first,
            last,
            is_whole,
        })
    }
}

fn decode_range(input: &mut Cursor<'_>) -> Result<(Seq, Seq), FormatError> {
    let first = input.varint()?;
    let last = first.checked_add(input.varint()?);
    let last = last.filter(|last| *last < u64::MAX);
    let what = "sequence range";
    Ok((
        Seq(first),
        Seq(last.ok_or(FormatError::OutOfRange { what })?),
    ))
}

fn check(holds: bool, what: &'static str) -> Result<(), FormatError> {
    match holds {
        true => Ok(()),
        false => Err(FormatError::OutOfRange { what }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::file_header::FileKind;
    use super::*;

    pub(crate) fn sample() -> Manifest {
        Manifest {
            store_uuid: 7,
            stream: StreamId(3),
            taken_at: TimestampNs(-5),
            lsn: Lsn(99),
            next_file: 12,
            values: vec![
                (b"a".to_vec(), b"config".to_vec()),
                (b"d\0\0".to_vec(), vec![9; 10_000]),
            ],
            files: vec![
                DataFile {
                    no: 2,
                    file_bytes: 1000,
                    footer_digest: 1 << 60,
                    key: None,
                    source: SegmentId(40),
                    source_digest: 5,
                    first: Seq(1),
                    last: Seq(10),
                    is_whole: false,
                },
                DataFile {
                    no: 11,
                    file_bytes: 2000,
                    footer_digest: 4,
                    key: KeyId::from_number(77),
                    source: SegmentId(41),
                    source_digest: 6,
                    first: Seq(11),
                    last: Seq(11),
                    is_whole: true,
                },
            ],
            lost: vec![(Seq(3), Seq(4)), (Seq(6), Seq(6))],
        }
    }

    fn sealed() -> (Vec<u8>, Opener) {
        let sealer = Sealer::new(None, 0, FileKind::Backup, 5, 0);
        let opener = Opener::new(None, FileKind::Backup, 5, 0);
        (sample().seal(&sealer), opener)
    }

    #[test]
    fn it_comes_back() {
        let (file, opener) = sealed();
        assert_eq!(Manifest::open(&opener, &file), Ok(sample()));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_an_error() {
        let (file, opener) = sealed();
        for at in file_header::BYTES..file.len() {
            let mut bad = file.clone();
            bad[at] ^= 1 << (at % 8);
            assert!(Manifest::open(&opener, &bad).is_err(), "byte {at}");
        }
        for len in 0..file.len() {
            assert!(Manifest::open(&opener, &file[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn a_body_that_is_cut_or_out_of_order_is_an_error() {
        let mut body = Vec::new();
        sample().encode(&mut body);
        for len in 0..body.len() {
            assert!(Manifest::decode(&body[..len]).is_err());
        }
        let refused = |change: &dyn Fn(&mut Manifest)| {
            let mut manifest = sample();
            change(&mut manifest);
            let mut body = Vec::new();
            manifest.encode(&mut body);
            Manifest::decode(&body).is_err()
        };
        assert!(refused(&|m| m.values.swap(0, 1)));
        assert!(refused(&|m| m.files.swap(0, 1)));
        assert!(refused(&|m| m.lost.swap(0, 1)));
        assert!(refused(&|m| m.next_file = 11));
        assert!(!refused(&|_| {}));
    }
}
