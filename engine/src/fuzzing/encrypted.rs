//! What somebody writes who has the disk, but not the key.

use super::{UUID, keys};
use crate::format::block::{self, BlockHead, Codec, content_digest};
use crate::format::cipher::{Opener, Sealer, TRAILER_BYTES};
use crate::format::file_header::FileKind;
use crate::format::frame::{FrameHead, FrameKind, payload_digest};
use crate::format::page::{self, HEAD_BYTES, PAGE_BYTES, PageKind};
use crate::ids::{Lsn, Seq, StreamId, TimestampNs};

const FILE_NO: u64 = 3;

/// Pages, blocks and frames whose checksums fit and whose content is the input, or a valid one
/// changed by it, in an encrypted file: none is taken, unless it is the valid one.
pub fn fuzz_encrypted(data: &[u8]) {
    let keys = keys();
    let opener = Opener::new(Some(keys.clone()), FileKind::Segment, UUID, FILE_NO);
    let opener = opener.of_key(Some(keys.current().id()));
    let sealer = Sealer::new(Some(&keys), 1, FileKind::Segment, UUID, FILE_NO);
    forge_page(data, &opener, &sealer);
    forge_block(data, &opener, sealer.mark());
    forge_frame(data, &opener);
}

fn forge_page(data: &[u8], opener: &Opener, sealer: &Sealer) {
    let mut valid = Vec::new();
    page::encode(
        sealer,
        PageKind::Keys,
        2,
        b"a payload of some bytes",
        &mut valid,
    );
    let mut written = vec![0; PAGE_BYTES];
    let len = data.len().min(PAGE_BYTES - 12);
    written[8] = PageKind::Keys as u8;
    written[9] = sealer.mark();
    written[12] = 2;
    written[10..12].copy_from_slice(&(len as u16).to_le_bytes());
    written[HEAD_BYTES..][..len.min(PAGE_BYTES - HEAD_BYTES)]
        .copy_from_slice(&data[..len.min(PAGE_BYTES - HEAD_BYTES)]);
    let mut changed = valid.clone();
    for change in data.chunks_exact(3) {
        let at = 8 + usize::from(u16::from_le_bytes([change[0], change[1]])) % (PAGE_BYTES - 8);
        changed[at] ^= change[2];
    }
    for mut forged in [written, changed] {
        let digest = opener.identity().digest(2, &forged[8..]);
        forged[..8].copy_from_slice(&digest.to_le_bytes());
        // Padding is no part of what is authenticated.
        let end = HEAD_BYTES + 23;
        let same = forged[8..end] == valid[8..end]
            && forged[PAGE_BYTES - TRAILER_BYTES..] == valid[PAGE_BYTES - TRAILER_BYTES..];
        if let Ok((_, payload)) = page::decode_any(opener, 2, &mut forged) {
            assert!(same && payload == b"a payload of some bytes");
        }
    }
}

fn forge_block(data: &[u8], opener: &Opener, mark: u8) {
    for key in [mark, 0] {
        let head = BlockHead {
            codec: Codec::None,
            key,
            stream: StreamId(1),
            first_seq: Seq(1),
            last_seq: Seq(1),
            first_ts: TimestampNs(0),
            max_ts: TimestampNs(0),
            count: 1,
            raw_len: data.len().saturating_sub(TRAILER_BYTES) as u32,
            disk_len: data.len() as u32,
            content_digest: content_digest(data),
            disk_digest: content_digest(data),
        };
        let opened = block::open(opener, 64, &head, &mut data.to_vec());
        assert!(opened.is_err(), "nobody encrypted this");
    }
}

fn forge_frame(data: &[u8], opener: &Opener) {
    let head = FrameHead {
        kind: FrameKind::Data,
        flags: 0,
        payload_len: data.len() as u32,
        op_count: 1,
        lsn: Lsn(5),
        durable_lsn: Lsn(4),
        prev_digest: 0,
        payload_digest: payload_digest(7, data),
    };
    let key = keys().current().id();
    let opened = head.open_payload(7, opener, key, &mut data.to_vec());
    assert!(opened.is_err(), "nobody encrypted this");
}
