//! The header that every file of a store starts with: what it is, whose it is, which one it is.

use super::FormatError;
use super::cursor::Cursor;
use super::key_ring::KeyId;

/// First bytes of every file.
pub const MAGIC: [u8; 8] = *b"RIVERLOG";
/// Version of the on-disk formats that this build writes; it reads this one and older ones.
pub const VERSION: u16 = 1;
/// Bytes of an encoded header.
pub const BYTES: usize = 64;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FileKind {
    /// Write-ahead log.
    Wal = 1,
    /// Metadata log.
    Meta = 2,
    /// Sealed data.
    Segment = 3,
    /// Subject index run.
    Index = 4,
    /// Store identity.
    Store = 5,
    /// Message ids.
    Ids = 6,
    /// Manifest of a backup.
    Backup = 8,
}

impl FileKind {
    fn from_byte(byte: u8) -> Result<FileKind, FormatError> {
        Ok(match byte {
            1 => FileKind::Wal,
            2 => FileKind::Meta,
            3 => FileKind::Segment,
            4 => FileKind::Index,
            5 => FileKind::Store,
            6 => FileKind::Ids,
            8 => FileKind::Backup,
            found => {
                return Err(FormatError::UnknownKind {
                    what: "file header",
                    found,
                });
            }
        })
    }
}

/// The header's content: `magic8 version2 kind1 reserved1 | store_uuid16 | file_no8 epoch8 base8 |
/// key8 crc4`. Its layout and checksum stay the same in every later version, so that a
/// newer file is recognised as such and not as damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// What the file holds.
    pub kind: FileKind,
    /// The store it belongs to.
    pub store_uuid: u128,
    /// Which file of its kind; also in its name, so a file under a wrong name is noticed.
    pub file_no: u64,
    /// Random number drawn whenever the file is written from its start: seeds the checksums of
    /// its frames, so that bytes of an earlier use of the same disk space never pass. In a sealed
    /// file the salt of its encryption. 0 where a kind has no use for it.
    pub epoch: u64,
    /// A number that the kind defines: the first lsn of a WAL file, else 0.
    pub base: u64,
    /// The key that the file is encrypted with.
    pub key: Option<KeyId>,
}

impl FileHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; BYTES] {
        let mut out = [0_u8; BYTES];
        out[0..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10] = self.kind as u8;
        out[12..28].copy_from_slice(&self.store_uuid.to_le_bytes());
        out[28..36].copy_from_slice(&self.file_no.to_le_bytes());
        out[36..44].copy_from_slice(&self.epoch.to_le_bytes());
        out[44..52].copy_from_slice(&self.base.to_le_bytes());
        let key = self.key.map_or(0, KeyId::number);
        out[52..60].copy_from_slice(&key.to_le_bytes());
        let crc = crc32fast::hash(&out[..60]);
        out[60..64].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Decodes the header at the front of `input` and checks magic, checksum and version.
    pub fn decode(input: &[u8]) -> Result<FileHeader, FormatError> {
        let mut cursor = Cursor::new(input);
        let bytes: [u8; BYTES] = cursor.array()?;
        let mut cursor = Cursor::new(&bytes);
        if cursor.array()? != MAGIC {
            return Err(FormatError::MagicMismatch {
                what: "file header",
            });
        }
        let version = cursor.u16()?;
        let kind = cursor.u8()?;
        let _reserved = cursor.u8()?;
        let store_uuid = u128::from_le_bytes(cursor.array()?);
        let file_no = cursor.u64()?;
        let epoch = cursor.u64()?;
        let base = cursor.u64()?;
        let key = KeyId::from_number(cursor.u64()?);
        let stored = cursor.u32()?;
        let computed = crc32fast::hash(&bytes[..60]);
        if stored != computed {
            return Err(FormatError::ChecksumMismatch {
                what: "file header",
                stored: u64::from(stored),
                computed: u64::from(computed),
            });
        }
        if version > VERSION {
            return Err(FormatError::NewerVersion {
                what: "file",
                found: version,
                supported: VERSION,
            });
        }
        Ok(FileHeader {
            kind: FileKind::from_byte(kind)?,
            store_uuid,
            file_no,
            epoch,
            base,
            key,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> FileHeader {
        FileHeader {
            kind: FileKind::Wal,
            store_uuid: 7 << 100,
            file_no: 3,
            epoch: 99,
            base: 12,
            key: KeyId::from_number(5 << 60),
        }
    }

    #[test]
    fn round_trip_of_every_kind() {
        use FileKind::*;
        for kind in [Wal, Meta, Segment, Index, Store] {
            let header = FileHeader { kind, ..sample() };
            assert_eq!(FileHeader::decode(&header.encode()), Ok(header));
        }
    }

    #[test]
    fn every_bit_flip_and_truncation_is_an_error() {
        let bytes = sample().encode();
        for bit in 0..BYTES * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(FileHeader::decode(&bad).is_err(), "bit {bit}");
        }
        for len in 0..BYTES {
            assert_eq!(
                FileHeader::decode(&bytes[..len]),
                Err(FormatError::Truncated)
            );
        }
    }

    #[test]
    fn a_newer_version_is_not_called_damage() {
        let mut bytes = sample().encode();
        bytes[8..10].copy_from_slice(&(VERSION + 1).to_le_bytes());
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(
            FileHeader::decode(&bytes),
            Err(FormatError::NewerVersion {
                what: "file",
                found: VERSION + 1,
                supported: VERSION
            })
        );
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            let _ = FileHeader::decode(&bytes);
            let mut with_magic = MAGIC.to_vec();
            with_magic.extend_from_slice(&bytes);
            let _ = FileHeader::decode(&with_magic);
        }
    }
}
