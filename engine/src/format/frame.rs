//! Frames: one commit batch of the write-ahead log or one commit of the metadata log.
//!
//! `magic4 version1 kind1 flags2 | payload_len4 op_count4 | lsn8 | durable_lsn8 | prev_digest8 |
//! payload_digest8 | head_crc4`, then the payload. The epoch of the file is part of both checksums
//! and not stored: a frame that an earlier use of the file left behind never passes. `prev_digest`
//! chains a frame to the one before it, `lsn` must continue the count, so a frame that a disk wrote
//! to the wrong place does not pass either. In a file whose header names a key, every payload that is
//! not empty is encrypted; `payload_len` and `payload_digest` are those of the ciphertext and what
//! follows it.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::FormatError;
use super::cipher::{Opener, Sealer, TRAILER_BYTES, Unit};
use super::cursor::Cursor;
use super::key_ring::KeyId;
use crate::ids::Lsn;

/// First bytes of a frame.
pub const MAGIC: [u8; 4] = *b"RLFr";
/// Version of the frame format that this build writes; it reads this one and older ones.
pub const VERSION: u8 = 1;
/// Bytes of a frame's head.
pub const HEAD_BYTES: usize = 52;
/// Bytes of the head that `head_crc` covers, together with the epoch.
const CHECKED_BYTES: usize = HEAD_BYTES - 4;
/// Bytes of the head, up to the payload's digest, that an encrypted payload authenticates.
const AUTHENTICATED_BYTES: usize = 40;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// Ops.
    Data = 1,
    /// Nothing: it says that everything before it is durable.
    Mark = 2,
    /// One metadata commit.
    Meta = 3,
}

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// What the payload is.
    pub kind: FrameKind,
    /// Bits that the log defines.
    pub flags: u16,
    /// Bytes of payload that follow the head.
    pub payload_len: u32,
    /// Ops in the payload.
    pub op_count: u32,
    /// Lsn of the first op; of the next op if there is none in this frame.
    pub lsn: Lsn,
    /// Everything up to this lsn was durable when the frame was written; always below `lsn`.
    pub durable_lsn: Lsn,
    /// [`FrameHead::digest`] of the frame before; 0 for the first one of a log.
    pub prev_digest: u64,
    /// Digest of the payload, seeded by the epoch of the file.
    pub payload_digest: u64,
}

/// The digest of a payload in a file of this epoch (XXH3-64).
pub fn payload_digest(epoch: u64, payload: &[u8]) -> u64 {
    xxh3_64_with_seed(payload, epoch)
}

fn head_crc(epoch: u64, checked: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(checked);
    hasher.update(&epoch.to_le_bytes());
    hasher.finalize()
}

impl FrameHead {
    /// The head's bytes in a file of this epoch.
    pub fn encode(&self, epoch: u64) -> [u8; HEAD_BYTES] {
        let mut out = [0_u8; HEAD_BYTES];
        out[0..4].copy_from_slice(&MAGIC);
        out[4] = VERSION;
        out[5] = self.kind as u8;
        out[6..8].copy_from_slice(&self.flags.to_le_bytes());
        out[8..12].copy_from_slice(&self.payload_len.to_le_bytes());
        out[12..16].copy_from_slice(&self.op_count.to_le_bytes());
        out[16..24].copy_from_slice(&self.lsn.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.durable_lsn.0.to_le_bytes());
        out[32..40].copy_from_slice(&self.prev_digest.to_le_bytes());
        out[40..48].copy_from_slice(&self.payload_digest.to_le_bytes());
        let crc = head_crc(epoch, &out[..CHECKED_BYTES]);
        out[48..52].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Decodes the head at the front of `input` and checks everything but the payload.
    pub fn decode(epoch: u64, input: &[u8]) -> Result<FrameHead, FormatError> {
        let bytes: [u8; HEAD_BYTES] = Cursor::new(input).array()?;
        let mut cursor = Cursor::new(&bytes);
        if cursor.array()? != MAGIC {
            return Err(FormatError::MagicMismatch { what: "frame" });
        }
        let version = cursor.u8()?;
        let kind = cursor.u8()?;
        let flags = cursor.u16()?;
        let payload_len = cursor.u32()?;
        let op_count = cursor.u32()?;
        let lsn = Lsn(cursor.u64()?);
        let durable_lsn = Lsn(cursor.u64()?);
        let prev_digest = cursor.u64()?;
        let payload_digest = cursor.u64()?;
        let stored = cursor.u32()?;
        let computed = head_crc(epoch, &bytes[..CHECKED_BYTES]);
        if stored != computed {
            return Err(FormatError::ChecksumMismatch {
                what: "frame head",
                stored: u64::from(stored),
                computed: u64::from(computed),
            });
        }
        if version > VERSION {
            return Err(FormatError::NewerVersion {
                what: "frame",
                found: u16::from(version),
                supported: u16::from(VERSION),
            });
        }
        let kind = match kind {
            1 => FrameKind::Data,
            2 => FrameKind::Mark,
            3 => FrameKind::Meta,
            found => {
                return Err(FormatError::UnknownKind {
                    what: "frame",
                    found,
                });
            }
        };
        if lsn.0.checked_add(u64::from(op_count)).is_none() || durable_lsn >= lsn {
            return Err(FormatError::OutOfRange { what: "frame lsn" });
        }
        Ok(FrameHead {
            kind,
            flags,
            payload_len,
            op_count,
            lsn,
            durable_lsn,
            prev_digest,
            payload_digest,
        })
    }

    /// Compares the payload with its digest.
    pub fn verify_payload(&self, epoch: u64, payload: &[u8]) -> Result<(), FormatError> {
        let computed = payload_digest(epoch, payload);
        if computed == self.payload_digest && payload.len() as u64 == u64::from(self.payload_len) {
            return Ok(());
        }
        Err(FormatError::ChecksumMismatch {
            what: "frame payload",
            stored: self.payload_digest,
            computed,
        })
    }

    /// Decrypts a payload in place that [`FrameHead::verify_payload`] has checked; returns its length
    /// without what encryption adds. `key` is that of the file.
    ///
    /// # Errors
    ///
    /// The key is missing, or the payload is not what was encrypted.
    pub fn open_payload(
        &self,
        epoch: u64,
        opener: &Opener,
        key: KeyId,
        payload: &mut [u8],
    ) -> Result<usize, FormatError> {
        if !opener.holds(key) {
            return Err(FormatError::KeyMissing { what: "frame" });
        }
        let (body, trailer) = payload
            .split_last_chunk_mut::<TRAILER_BYTES>()
            .ok_or(FormatError::NotAuthentic { what: "frame" })?;
        let encoded = self.encode(epoch);
        let authenticated = &encoded[..AUTHENTICATED_BYTES];
        opener.open(
            key.mark(),
            Unit::Frame(self.lsn),
            authenticated,
            body,
            trailer,
        )?;
        Ok(body.len())
    }

    /// The digest that the next frame carries as its `prev_digest`: of the head's checked bytes,
    /// which contain the payload's digest.
    pub fn digest(&self, epoch: u64) -> u64 {
        xxh3_64_with_seed(&self.encode(epoch)[..CHECKED_BYTES], epoch)
    }

    /// The lsn after the frame's last op.
    pub fn next_lsn(&self) -> Lsn {
        Lsn(self.lsn.0.saturating_add(u64::from(self.op_count)))
    }

    /// Bytes of head and payload.
    pub fn frame_bytes(&self) -> u64 {
        HEAD_BYTES as u64 + u64::from(self.payload_len)
    }
}

/// Completes a frame in place: `frame` holds room for the head, then the payload, which is encrypted
/// if the file has a key. `head`'s payload fields are set here.
///
/// # Panics
///
/// If the payload is longer than 4 GiB.
pub fn seal(frame: &mut Vec<u8>, epoch: u64, sealer: &Sealer, mut head: FrameHead) -> FrameHead {
    let length =
        |frame: &[u8]| u32::try_from(frame.len() - HEAD_BYTES).expect("payloads are short");
    head.payload_len = length(frame);
    if head.payload_len > 0 && sealer.key().is_some() {
        head.payload_len += TRAILER_BYTES as u32;
        head.payload_digest = 0;
        let encoded = head.encode(epoch);
        let authenticated = &encoded[..AUTHENTICATED_BYTES];
        let unit = Unit::Frame(head.lsn);
        if let Some(trailer) = sealer.seal(unit, authenticated, &mut frame[HEAD_BYTES..]) {
            frame.extend_from_slice(&trailer);
        }
    }
    debug_assert_eq!(head.payload_len, length(frame));
    head.payload_digest = payload_digest(epoch, &frame[HEAD_BYTES..]);
    frame[..HEAD_BYTES].copy_from_slice(&head.encode(epoch));
    head
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::file_header::FileKind;
    use super::super::key_ring::{Key, KeyRing};
    use super::*;

    const EPOCH: u64 = 0x1234_5678_9abc_def0;

    fn encoded(payload: &[u8]) -> (FrameHead, Vec<u8>) {
        let head = FrameHead {
            kind: FrameKind::Data,
            flags: 0,
            payload_len: payload.len() as u32,
            op_count: 3,
            lsn: Lsn(10),
            durable_lsn: Lsn(9),
            prev_digest: 77,
            payload_digest: payload_digest(EPOCH, payload),
        };
        let mut bytes = head.encode(EPOCH).to_vec();
        bytes.extend_from_slice(payload);
        (head, bytes)
    }

    fn check(epoch: u64, bytes: &[u8]) -> Result<FrameHead, FormatError> {
        let head = FrameHead::decode(epoch, bytes)?;
        let payload = Cursor::new(&bytes[HEAD_BYTES..]).bytes(u64::from(head.payload_len))?;
        head.verify_payload(epoch, payload)?;
        Ok(head)
    }

    #[test]
    fn round_trip() {
        let (head, bytes) = encoded(b"three ops");
        assert_eq!(check(EPOCH, &bytes), Ok(head));
        assert_eq!(head.next_lsn(), Lsn(13));
        assert_eq!(head.frame_bytes(), bytes.len() as u64);
    }

    #[test]
    fn every_bit_flip_and_truncation_is_an_error() {
        let (_, bytes) = encoded(b"some payload of a frame");
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(check(EPOCH, &bad).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(check(EPOCH, &bytes[..len]).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn a_frame_of_another_epoch_does_not_pass() {
        for payload in [&b""[..], b"bytes"] {
            let (_, bytes) = encoded(payload);
            assert!(FrameHead::decode(EPOCH + 1, &bytes).is_err());
        }
    }

    #[test]
    fn a_frame_that_claims_its_own_durability_does_not_pass() {
        let (head, _) = encoded(b"");
        let bytes = FrameHead {
            durable_lsn: head.lsn,
            ..head
        }
        .encode(EPOCH);
        assert_eq!(
            FrameHead::decode(EPOCH, &bytes),
            Err(FormatError::OutOfRange { what: "frame lsn" })
        );
    }

    fn ring(byte: u8) -> std::sync::Arc<KeyRing> {
        std::sync::Arc::new(KeyRing::new(Key::new(&[byte; 32])))
    }

    #[test]
    fn an_encrypted_payload_needs_its_key_and_every_bit() {
        let keys = ring(1);
        let key = keys.current().id();
        let sealer = Sealer::new(Some(&keys), 3, FileKind::Wal, 5, 6);
        let (head, _) = encoded(b"");
        let mut frame = vec![0; HEAD_BYTES];
        frame.extend_from_slice(b"three ops");
        let head = seal(&mut frame, EPOCH, &sealer, head);
        assert_eq!(check(EPOCH, &frame), Ok(head));
        let payload = frame.split_off(HEAD_BYTES);
        assert!(!payload.windows(3).any(|bytes| bytes == b"ops"));
        let open = |keys: Option<std::sync::Arc<KeyRing>>, payload: &[u8]| {
            let opener = Opener::new(keys, FileKind::Wal, 5, 6);
            let mut payload = payload.to_vec();
            let len = head.open_payload(EPOCH, &opener, key, &mut payload)?;
            payload.truncate(len);
            Ok(payload)
        };
        assert_eq!(
            open(Some(keys.clone()), &payload),
            Ok(b"three ops".to_vec())
        );
        let missing = Err(FormatError::KeyMissing { what: "frame" });
        assert_eq!(open(None, &payload), missing);
        assert_eq!(open(Some(ring(2)), &payload), missing);
        let changed = Err(FormatError::NotAuthentic { what: "frame" });
        for bit in 0..payload.len() * 8 {
            let mut bad = payload.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(Some(keys.clone()), &bad), changed, "bit {bit}");
        }
        for len in 0..payload.len() {
            assert_eq!(open(Some(keys.clone()), &payload[..len]), changed);
        }
    }

    #[test]
    fn the_head_of_an_encrypted_payload_is_authenticated() {
        let keys = ring(1);
        let sealer = Sealer::new(Some(&keys), 3, FileKind::Wal, 5, 6);
        let opener = Opener::new(Some(keys.clone()), FileKind::Wal, 5, 6);
        let mut frame = vec![0; HEAD_BYTES];
        frame.extend_from_slice(b"three ops");
        let head = seal(&mut frame, EPOCH, &sealer, encoded(b"").0);
        let open = |head: &FrameHead| {
            let mut payload = frame[HEAD_BYTES..].to_vec();
            head.open_payload(EPOCH, &opener, keys.current().id(), &mut payload)
        };
        assert_eq!(open(&head), Ok(9));
        let FrameHead {
            op_count,
            lsn,
            durable_lsn,
            prev_digest,
            ..
        } = head;
        let next = |lsn: Lsn| Lsn(lsn.0 - 1);
        for changed in [
            FrameHead { flags: 1, ..head },
            FrameHead {
                op_count: op_count + 1,
                ..head
            },
            FrameHead {
                lsn: Lsn(lsn.0 + 1),
                ..head
            },
            FrameHead {
                durable_lsn: next(durable_lsn),
                ..head
            },
            FrameHead {
                prev_digest: prev_digest + 1,
                ..head
            },
            FrameHead {
                kind: FrameKind::Meta,
                ..head
            },
        ] {
            assert_eq!(
                open(&changed),
                Err(FormatError::NotAuthentic { what: "frame" })
            );
        }
    }

    #[test]
    fn an_empty_payload_stays_empty() {
        let keys = ring(1);
        let sealer = Sealer::new(Some(&keys), 3, FileKind::Wal, 5, 6);
        let mut frame = vec![0; HEAD_BYTES];
        let head = seal(&mut frame, EPOCH, &sealer, encoded(b"").0);
        assert_eq!((head.payload_len, frame.len()), (0, HEAD_BYTES));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(epoch: u64, bytes: Vec<u8>) {
            let _ = FrameHead::decode(epoch, &bytes);
            let mut with_magic = MAGIC.to_vec();
            with_magic.extend_from_slice(&bytes);
            let _ = FrameHead::decode(epoch, &with_magic);
        }
    }
}
