//! The tables of sealed files.

use super::encryption::{encrypt, file_key};
use super::{UUID, check_layout, check_numbers};
use crate::dedup::IdKey;
use crate::format::block::{self, BlockBuilder, BlockHead, Codec, EncodedBlock};
use crate::format::block_table::{BlockRef, Entry, ExtentInfo, Separator};
use crate::format::bloom::Bloom;
use crate::format::cipher::Sealer;
use crate::format::file_header::FileKind;
use crate::format::footer::{self, Footer};
use crate::format::id_page::IdEntry;
use crate::format::key_page::{
    self, KeyPageBuilder, Place, Value, encode_chunk, encode_key, key_hash,
};
use crate::format::key_ring::{Key, KeyId, KeyRing};
use crate::format::page::{self, PageKind};
use crate::format::record::Record;
use crate::format::timers::{Timer, TimerKind, TimerPageBuilder, TimerSeparator};
use crate::ids::{Seq, StreamId, TimestampNs};
use crate::store::shared::StoreShared;

/// The digest of sealed files as FORMAT.md describes it.
fn sealed_digest(kind: FileKind, file_no: u64, position: u64, bytes: &[u8]) -> u64 {
    let identity = [
        &[kind as u8][..],
        &UUID.to_le_bytes(),
        &file_no.to_le_bytes(),
    ];
    let identity = xxhash_rust::xxh3::xxh3_64(&identity.concat());
    let seed = identity ^ position.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    xxhash_rust::xxh3::xxh3_64_with_seed(bytes, seed)
}

#[test]
fn format_document_footer() {
    let footer = Footer {
        kind: FileKind::Index,
        store_uuid: UUID,
        file_no: 0x0102_0304_0506_0708,
        pages_offset: 0x1112_1314_1516_1718,
        section_pages: [0x2122_2324, 0x3132_3334, 0x4142_4344, 0x5152_5354],
        items: [0x61, 0x7172, 0x8182_8384_8586_8788],
        source_digest: 0x9192_9394_9596_9798,
        file_bytes: 0xa1a2_a3a4_a5a6_a7a8,
        key: KeyId::from_number(0xb1b2),
    };
    let bytes = footer.encode();
    let digest = sealed_digest(
        FileKind::Index,
        footer.file_no,
        footer.file_bytes,
        &bytes[..120],
    );
    let pages = footer.section_pages.map(|n| n.to_le_bytes().to_vec());
    let items = footer.items.map(|n| n.to_le_bytes().to_vec());
    let ([p0, p1, p2, p3], [i0, i1, i2]) = (pages, items);
    check_layout(
        "footer",
        &bytes,
        &[
            ("magic", footer::MAGIC.to_vec()),
            ("version", footer::VERSION.to_le_bytes().to_vec()),
            ("kind", vec![FileKind::Index as u8]),
            ("reserved", vec![0; 5]),
            ("store_uuid", UUID.to_le_bytes().to_vec()),
            ("file_no", footer.file_no.to_le_bytes().to_vec()),
            ("pages_offset", footer.pages_offset.to_le_bytes().to_vec()),
            ("section_pages_0", p0),
            ("section_pages_1", p1),
            ("section_pages_2", p2),
            ("section_pages_3", p3),
            ("items_0", i0),
            ("items_1", i1),
            ("items_2", i2),
            ("source_digest", footer.source_digest.to_le_bytes().to_vec()),
            ("file_bytes", footer.file_bytes.to_le_bytes().to_vec()),
            ("key", 0xb1b2_u64.to_le_bytes().to_vec()),
            ("reserved", vec![0; 8]),
            ("digest", digest.to_le_bytes().to_vec()),
        ],
    );
}

#[test]
fn format_document_page() {
    let (payload, page_no) = (b"payload", 0x0102_0304);
    let mut padded = payload.to_vec();
    padded.resize(page::PAYLOAD_BYTES_MAX, 0);
    let keys = KeyRing::new(Key::new(&[5; 32]));
    let salt = 0x1112_1314_1516_1718;
    for keys in [None, Some(&keys)] {
        let sealer = Sealer::new(keys, salt, FileKind::Segment, UUID, 9);
        let mut bytes = Vec::new();
        page::encode(&sealer, PageKind::Extents, page_no, payload, &mut bytes);
        let digest = sealed_digest(FileKind::Segment, 9, u64::from(page_no), &bytes[8..]);
        let (mut body, mut trailer) = (padded.clone(), vec![0; 24]);
        if let Some(keys) = keys {
            let key = file_key(keys.current(), FileKind::Segment, 9, salt);
            let nonce = [2_u64, 0, 0, 0].map(|n| n as u8);
            let nonce = [&nonce[..], &u64::from(page_no).to_le_bytes()].concat();
            let tag = encrypt(&key, &nonce, &bytes[8..16], &mut body[..payload.len()]);
            trailer[..16].copy_from_slice(&tag);
            trailer[16..].copy_from_slice(&salt.to_le_bytes());
        }
        let mark = keys.map_or(0, |keys| (keys.current().id().number() % 255) as u8 + 1);
        check_layout(
            "page",
            &bytes,
            &[
                ("digest", digest.to_le_bytes().to_vec()),
                ("kind", vec![PageKind::Extents as u8]),
                ("key", vec![mark]),
                ("payload_len", vec![7, 0]),
                ("page_no", vec![4, 3, 2, 1]),
                ("payload", body),
                ("tag", trailer[..16].to_vec()),
                ("salt", trailer[16..].to_vec()),
            ],
        );
    }
    use PageKind::*;
    let kinds = [
        ("table", Table),
        ("table_separators", TableSeparators),
        ("extents", Extents),
        ("keys", Keys),
        ("postings", Postings),
        ("key_separators", KeySeparators),
        ("long_keys", LongKeys),
        ("filter", Filter),
        ("timers", Timers),
        ("timer_separators", TimerSeparators),
        ("ids", Ids),
        ("manifest", Manifest),
    ];
    check_numbers("page_kind", &kinds.map(|(name, kind)| (name, kind as u64)));
}

#[test]
fn format_document_block() {
    let head = BlockHead {
        codec: Codec::S2,
        key: 0,
        stream: StreamId(0x0102_0304_0506_0708),
        first_seq: Seq(0x1112_1314_1516_1718),
        last_seq: Seq(0x2122_2324_2526_2728),
        first_ts: TimestampNs(-3),
        max_ts: TimestampNs(0x3132_3334_3536_3738),
        count: 0x4142_4344,
        raw_len: 0x0052_5354,
        disk_len: 4,
        content_digest: 0x7172_7374_7576_7778,
        disk_digest: 0x8182_8384_8586_8788,
    };
    let offset = 0x9192_u64;
    let keys = KeyRing::new(Key::new(&[5; 32]));
    let salt = 0xa1a2_a3a4_a5a6_a7a8_u64;
    for keys in [None, Some(&keys)] {
        let sealer = Sealer::new(keys, salt, FileKind::Segment, UUID, 9);
        let mut block = Vec::new();
        let disk = b"disk"[..].into();
        let sealed = EncodedBlock { head, disk }.seal(&sealer, offset, &mut block);
        let (bytes, body) = block.split_at(block::HEAD_BYTES);
        assert_eq!(sealed.encode(sealer.identity(), offset), bytes);
        let mut expected = head;
        let mut stored = b"disk".to_vec();
        if let Some(keys) = keys {
            let key = file_key(keys.current(), FileKind::Segment, 9, salt);
            let nonce = [&[1, 0, 0, 0][..], &offset.to_le_bytes()].concat();
            let tag = encrypt(&key, &nonce, &bytes[..60], &mut stored);
            stored.extend_from_slice(&tag);
            stored.extend_from_slice(&salt.to_le_bytes());
            expected.key = (keys.current().id().number() % 255) as u8 + 1;
            expected.disk_len = 28;
            expected.disk_digest = xxhash_rust::xxh3::xxh3_64(&stored);
            expected.content_digest = expected.disk_digest;
        }
        assert_eq!(body, stored);
        check_block_head(bytes, &expected, offset);
    }
}

fn check_block_head(bytes: &[u8], head: &BlockHead, offset: u64) {
    let mut checked = sealed_digest(FileKind::Segment, 9, offset, b"")
        .to_le_bytes()
        .to_vec();
    checked.extend_from_slice(&bytes[..76]);
    check_layout(
        "block",
        bytes,
        &[
            ("magic", block::MAGIC.to_vec()),
            ("codec", vec![1]),
            ("key", vec![head.key]),
            ("reserved", vec![0; 2]),
            ("stream", head.stream.0.to_le_bytes().to_vec()),
            ("first_seq", head.first_seq.0.to_le_bytes().to_vec()),
            ("last_seq", head.last_seq.0.to_le_bytes().to_vec()),
            ("first_ts", head.first_ts.0.to_le_bytes().to_vec()),
            ("max_ts", head.max_ts.0.to_le_bytes().to_vec()),
            ("count", head.count.to_le_bytes().to_vec()),
            ("raw_len", head.raw_len.to_le_bytes().to_vec()),
            ("disk_len", head.disk_len.to_le_bytes().to_vec()),
            ("content_digest", head.content_digest.to_le_bytes().to_vec()),
            ("disk_digest", head.disk_digest.to_le_bytes().to_vec()),
            ("head_crc", crc32fast::hash(&checked).to_le_bytes().to_vec()),
        ],
    );
}

#[test]
fn format_document_block_records() {
    let record = |seq, ts, flags, headers, msg_id| Record {
        seq: Seq(seq),
        ts: TimestampNs(ts),
        subject: b"s",
        headers,
        payload: b"pp",
        msg_id,
        flags,
        ttl_ns: 5,
        notify_at: TimestampNs(-1),
        crc: 0x0403_0201,
    };
    let mut builder = BlockBuilder::new(StreamId(1));
    for record in [
        record(10, 100, 0, b"", b""),
        record(11, 101, 0, b"", b""),
        record(14, 100, 5, b"hh", b"id"),
    ] {
        builder.push(&record).expect("it fits");
    }
    let expected = [
        // The first counts from itself, so its step is 0 and written.
        &[8, 0, 0, 1, 2, 1, 2, 3, 4][..],
        b"spp",
        &[0, 2, 1, 2, 1, 2, 3, 4],
        b"spp",
        &[15, 3, 1, 5, 5, 1, 1, 2, 2, 2, 1, 2, 3, 4],
        b"shhppid",
        &[0, 0, 0, 0, 1, 0, 0, 0],
    ]
    .concat();
    assert_eq!(&builder.finish(Codec::None).disk[..], &expected);
    let bits = [("headers", 1), ("msg_id", 2), ("flags", 4), ("seq_step", 8)];
    check_numbers("record_shape", &bits);
}

#[test]
fn format_document_table_entries() {
    let encoded = |entry: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        entry(&mut out);
        out
    };
    let block = BlockRef {
        stream: StreamId(0x0102_0304_0506_0708),
        first_seq: Seq(0x1112_1314_1516_1718),
        last_seq: Seq(0x2122_2324_2526_2728),
        max_ts: TimestampNs(-3),
        offset: 0x3132_3334_3536_3738,
        disk_len: 0x4142_4344,
        content_digest: 0x5152_5354_5556_5758,
    };
    let (stream, first_seq) = (
        block.stream.0.to_le_bytes(),
        block.first_seq.0.to_le_bytes(),
    );
    let last_seq = block.last_seq.0.to_le_bytes();
    let max_ts = block.max_ts.0.to_le_bytes();
    check_layout(
        "table_entry",
        &encoded(&|out| block.encode(out)),
        &[
            ("stream", stream.to_vec()),
            ("first_seq", first_seq.to_vec()),
            ("last_seq", last_seq.to_vec()),
            ("max_ts", max_ts.to_vec()),
            ("offset", block.offset.to_le_bytes().to_vec()),
            ("disk_len", block.disk_len.to_le_bytes().to_vec()),
            (
                "content_digest",
                block.content_digest.to_le_bytes().to_vec(),
            ),
        ],
    );
    check_layout(
        "separator",
        &encoded(&|out| Separator::from(&block).encode(out)),
        &[
            ("stream", stream.to_vec()),
            ("first_seq", first_seq.to_vec()),
            ("max_ts", max_ts.to_vec()),
        ],
    );
    let extent = ExtentInfo {
        stream: block.stream,
        first_seq: block.first_seq,
        last_seq: block.last_seq,
        first_ts: TimestampNs(0x61),
        last_ts: TimestampNs(0x71),
        msgs: 0x81,
        bytes: 0x91,
        block_first: 0xa1,
        blocks: 0xb1,
        first_expiry: TimestampNs(0xc1),
        first_notice: TimestampNs::FAR,
    };
    check_layout(
        "extent",
        &encoded(&|out| extent.encode(out)),
        &[
            ("stream", stream.to_vec()),
            ("first_seq", first_seq.to_vec()),
            ("last_seq", last_seq.to_vec()),
            ("first_ts", 0x61_i64.to_le_bytes().to_vec()),
            ("last_ts", 0x71_i64.to_le_bytes().to_vec()),
            ("msgs", 0x81_u64.to_le_bytes().to_vec()),
            ("bytes", 0x91_u64.to_le_bytes().to_vec()),
            ("block_first", 0xa1_u32.to_le_bytes().to_vec()),
            ("blocks", 0xb1_u32.to_le_bytes().to_vec()),
            ("first_expiry", 0xc1_i64.to_le_bytes().to_vec()),
            ("first_notice", i64::MAX.to_le_bytes().to_vec()),
        ],
    );
    let key = (
        block.stream,
        TimerKind::Notice,
        TimestampNs(-3),
        block.first_seq,
    );
    check_layout(
        "timer_separator",
        &encoded(&|out| TimerSeparator(key).encode(out)),
        &[
            ("stream", stream.to_vec()),
            ("kind", vec![2]),
            ("due", (-3_i64).to_le_bytes().to_vec()),
            ("seq", first_seq.to_vec()),
        ],
    );
}

#[test]
fn format_document_timers() {
    let timer = |kind, due, seq| Timer {
        stream: StreamId(1),
        kind,
        due: TimestampNs(due),
        seq: Seq(seq),
        size: 9,
    };
    let mut builder = TimerPageBuilder::default();
    for timer in [
        timer(TimerKind::Expiry, 4, 7),
        timer(TimerKind::Expiry, 6, 5),
        timer(TimerKind::Notice, 3, 8),
    ] {
        assert!(builder.push(&timer));
    }
    let (payload, _) = builder.finish().expect("a page");
    let expected = [
        &[1, 1, 2][..],
        &4_i64.to_le_bytes(),
        &[7, 9, 2, 3, 9],
        &[1, 2, 1],
        &3_i64.to_le_bytes(),
        &[8, 9],
    ];
    assert_eq!(payload, expected.concat());
    let kinds = [
        ("expiry", TimerKind::Expiry as u64),
        ("notice", TimerKind::Notice as u64),
    ];
    check_numbers("timer_kind", &kinds);
}

#[test]
fn format_document_index() {
    let mut key = Vec::new();
    encode_key(StreamId(0x0102), b"a.!z", &mut key);
    assert_eq!(key, [0, 0, 0, 0, 0, 0, 1, 2, b'a', 0, b'!' + 1, b'z']);

    let value = |count, last, bytes, place| {
        let mut out = Vec::new();
        Value {
            count,
            first: Seq(4),
            last: Seq(last),
            bytes,
            place,
        }
        .encode(&mut out);
        out
    };
    assert_eq!(value(1, 4, 9, Place::One(9)), [1, 4, 9]);
    let inline = Place::Inline(&[0, 5, 3, 6]);
    assert_eq!(value(2, 7, 11, inline), [2, 4, 3, 11, 0, 0, 5, 3, 6]);
    let pages = Place::Pages {
        page_no: 6,
        offset: 1,
        further: 2,
    };
    assert_eq!(value(2, 7, 11, pages), [2, 4, 3, 11, 7, 1, 2]);

    let mut chunk = Vec::new();
    encode_chunk(9, &[(Seq(4), 5), (Seq(7), 6)], &mut chunk);
    assert_eq!(chunk, [2, 9, 4, 5, 3, 6]);
    assert_eq!(key_hash(&key), xxhash_rust::xxh3::xxh3_64(&key));

    let mut page = KeyPageBuilder::default();
    assert!(page.push(b"abc", b"1") && page.push(b"abd", b"22"));
    let expected = [&[0, 3, 1][..], b"abc1", &[2, 1, 2], b"d22", &[0, 0, 1, 0]];
    assert_eq!(page.finish(), expected.concat());

    let mut long = Vec::new();
    key_page::encode_long(b"key", b"v", &mut long);
    assert_eq!(long, b"\x03\x01keyv");
}

/// The filter as FORMAT.md describes it, next to what the code writes.
#[test]
fn format_document_filter() {
    let hashes: Vec<u64> = (1..=2_000_u64)
        .map(|n| n.wrapping_mul(0x0123_4567_89ab_cdef))
        .collect();
    let mut filter = Bloom::with_capacity(hashes.len() as u64);
    hashes.iter().for_each(|hash| filter.insert(*hash));
    let lines = filter.ram_bytes() / 64;
    let mut expected = vec![0_u8; 64 * lines as usize];
    for hash in hashes {
        let line = ((hash >> 32) * lines) >> 32;
        for i in 0..6 {
            let bit = (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (10 + 9 * i)) % 512;
            expected[(64 * line + bit / 8) as usize] |= 1 << (bit % 8);
        }
    }
    let pages: Vec<_> = filter.pages().collect();
    let expected: Vec<_> = expected.chunks(63 * 64).map(<[u8]>::to_vec).collect();
    assert_eq!(pages, expected);
}

#[test]
fn format_document_ids() {
    let entry = IdEntry {
        hash: 0x0102_0304_0506_0708_1112_1314_1516_1718,
        stream: StreamId(0x2122_2324_2526_2728),
        seq: Seq(0x3132_3334_3536_3738),
        ts: TimestampNs(-0x4142_4344_4546_4748),
    };
    let mut bytes = Vec::new();
    entry.encode(&mut bytes);
    check_layout(
        "id_entry",
        &bytes,
        &[
            ("hash", entry.hash.to_le_bytes().to_vec()),
            ("stream", entry.stream.0.to_le_bytes().to_vec()),
            ("seq", entry.seq.0.to_le_bytes().to_vec()),
            ("ts", entry.ts.0.to_le_bytes().to_vec()),
        ],
    );
}

/// The hash as FORMAT.md describes it.
#[test]
fn format_document_id_hash() {
    use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};
    let (high, low) = ((UUID >> 64) as u64, UUID as u64);
    let store_seed = high ^ low;
    let stream = StreamId(9);
    let seed = xxh3_64_with_seed(&stream.0.to_le_bytes(), store_seed);
    let mask = xxh3_128_with_seed(&stream.0.to_le_bytes(), store_seed);
    let key = IdKey::new(store_seed, stream, IdKey::default_seed(store_seed, stream));
    let expected = xxh3_128_with_seed(b"order-1", seed) ^ mask;
    assert_eq!(key.hash(b"order-1").0, expected);
    assert_eq!(StoreShared::dedup_seed_of(UUID), store_seed);
}
