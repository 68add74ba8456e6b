//! Damage costs what it hit, is always reported, and never more.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use proptest::prelude::*;

use super::*;
use crate::error::{Corrupt, ReadError};
use crate::segment::ScanItem;

/// Three streams; the middle one has several blocks and gaps.
fn small(form: Form) -> Sealed {
    let mut samples: Vec<Sample> = (1..4).map(|seq| Sample::new(1, seq)).collect();
    samples.extend((1..45).map(|n| Sample {
        flags: (n % 5 == 0) as u8,
        headers: vec![b'h'; (n % 3) as usize],
        ..Sample::new(2, 2 * n)
    }));
    for large in [10, 20, 30] {
        samples[large].payload = vec![b'x'; 32 * 1024];
    }
    samples.extend((7..10).map(|seq| Sample::new(5, seq)));
    Sealed::of_form(samples, form)
}

/// Few and short blocks, so that every bit can be tried.
fn tiny(form: Form) -> Sealed {
    let mut samples: Vec<Sample> = (1..4).map(|seq| Sample::new(1, seq)).collect();
    samples.extend((1..19).map(|n| Sample::new(2, 2 * n)));
    samples.extend((7..10).map(|seq| Sample::new(5, seq)));
    Sealed::of_form(samples, form)
}

/// Which samples are lost; panics if any other answer than the message or a report covering it
/// comes, or if a report covers a message that another read returns.
fn lost(sealed: &Sealed, what: &str) -> Vec<usize> {
    let segment = sealed.open();
    let mut lost = Vec::new();
    let mut reports: Vec<Corrupt> = Vec::new();
    for (i, sample) in sealed.samples.iter().enumerate() {
        match segment.get(sample.stream, sample.seq) {
            Ok(Some(found)) => sample.check(&found),
            Ok(None) => panic!("{what}: message {i} is silently absent"),
            Err(ReadError::Corrupt(report)) => {
                assert_eq!(report.stream, sample.stream, "{what}");
                assert!(
                    report.first <= sample.seq && sample.seq <= report.last,
                    "{what}"
                );
                lost.push(i);
                reports.push(*report);
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }
    for (i, sample) in sealed.samples.iter().enumerate() {
        let covered = reports
            .iter()
            .any(|r| r.stream == sample.stream && r.first <= sample.seq && sample.seq <= r.last);
        assert_eq!(
            covered,
            lost.contains(&i),
            "{what}: a report is too wide at {i}"
        );
    }
    lost
}

/// [`lost`], and the same by walking.
fn lost_both_ways(sealed: &Sealed, what: &str) -> Vec<usize> {
    let lost = lost(sealed, what);
    check_walk(sealed, &sealed.open(), &lost, what);
    lost
}

/// Walking block by block meets the same messages and the same losses.
fn check_walk(sealed: &Sealed, segment: &Segment, lost: &[usize], what: &str) {
    for stream in sealed.streams() {
        let mut seq = Seq(0);
        let mut found = Vec::new();
        let mut steps = 0;
        loop {
            match segment.block(stream, seq) {
                Ok(Some(block)) => {
                    found.extend(block.iter_from(seq).map(|message| message.seq));
                    seq = block.last_seq().next();
                }
                Ok(None) => break,
                Err(ReadError::Corrupt(report)) => {
                    assert!(report.last >= seq, "{what}: the walk does not advance");
                    seq = report.last.next();
                }
                Err(error) => panic!("{what}: {error}"),
            }
            steps += 1;
            assert!(steps < 1000, "{what}: the walk does not end");
        }
        let expect: Vec<Seq> = sealed
            .samples
            .iter()
            .enumerate()
            .filter(|(i, sample)| sample.stream == stream && !lost.contains(i))
            .map(|(_, sample)| sample.seq)
            .collect();
        assert_eq!(found, expect, "{what}");
    }
}

/// Sample indexes by the offset of their block.
fn by_block(sealed: &Sealed) -> BTreeMap<u64, Vec<usize>> {
    let (_, blocks) = sealed.open().all_blocks().unwrap();
    let mut by_block: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (i, sample) in sealed.samples.iter().enumerate() {
        let block = blocks.iter().find(|b| {
            b.stream == sample.stream && b.first_seq <= sample.seq && sample.seq <= b.last_seq
        });
        by_block.entry(block.unwrap().offset).or_default().push(i);
    }
    by_block
}

fn check_flip(sealed: &Sealed, blocks: &BTreeMap<u64, Vec<usize>>, at: usize, bit: u8) {
    let what = format!("byte {at} bit {bit}");
    let lost = lost(sealed, &what);
    let touched = blocks.range(..=at as u64).next_back();
    if let Some(first) = lost.first() {
        let (_, members) = touched.expect("damage before the first block costs nothing");
        assert!(members.contains(first), "{what}: a neighbour is lost");
        assert!(lost.iter().all(|i| members.contains(i)), "{what}");
    }
    // These read the same bytes once more; one bit of each byte is enough to try them.
    if usize::from(bit) == at % 8 {
        check_walk(sealed, &sealed.open(), &lost, &what);
        let report = sealed.open().verify(&mut |_| {}).unwrap();
        assert!(!report.is_intact(), "{what}: the check saw nothing");
    }
}

#[test]
fn any_flipped_bit_costs_at_most_its_block() {
    for form in FORMS {
        let sealed = tiny(form);
        let blocks = by_block(&sealed);
        let mut bytes = sealed.bytes();
        let pages = bytes.len() - 128 - 3 * 4096;
        for at in 0..bytes.len() {
            // Every bit of blocks and footer; of what is digested whole, one a byte here and there.
            let is_digested_whole = (pages..bytes.len() - 128).contains(&at) || form.encrypted;
            let bits = if !is_digested_whole {
                0..8
            } else if at % 61 == 0 || (at < pages && at % 5 == 0) {
                let bit = (at % 8) as u8;
                bit..bit + 1
            } else {
                0..0
            };
            for bit in bits {
                bytes[at] ^= 1 << bit;
                sealed.set_bytes(bytes.clone());
                check_flip(&sealed, &blocks, at, bit);
                bytes[at] ^= 1 << bit;
            }
        }
    }
}

#[test]
fn flips_in_a_larger_segment_cost_at_most_their_block() {
    for form in FORMS {
        let sealed = small(form);
        let blocks = by_block(&sealed);
        let mut bytes = sealed.bytes();
        assert!(blocks.len() > 5);
        for at in (0..bytes.len()).step_by(1997) {
            bytes[at] ^= 1 << (at % 8);
            sealed.set_bytes(bytes.clone());
            check_flip(&sealed, &blocks, at, (at % 8) as u8);
            bytes[at] ^= 1 << (at % 8);
        }
    }
}

#[test]
fn damage_to_stored_payload_bytes_costs_one_message() {
    let sealed = tiny(Form::plain(Codec::None));
    let mut bytes = sealed.bytes();
    let needle = b"payload of 20 in 2";
    let at = bytes
        .windows(needle.len())
        .position(|w| w == needle)
        .unwrap();
    bytes[at] ^= 1;
    sealed.set_bytes(bytes);
    let lost = lost_both_ways(&sealed, "payload");
    assert_eq!(lost.len(), 1);
    assert_eq!(sealed.samples[lost[0]].seq, Seq(20));
    let report = sealed.open().get(StreamId(2), Seq(20)).unwrap_err();
    let ReadError::Corrupt(report) = report else {
        panic!("not damage: {report}")
    };
    // The range reaches over the neighbouring sequences that never existed, not over messages.
    assert_eq!((report.first, report.last), (Seq(19), Seq(21)));
}

#[test]
fn a_cut_file_keeps_every_block_before_the_cut() {
    for form in FORMS {
        let sealed = tiny(form);
        let blocks = by_block(&sealed);
        let bytes = sealed.bytes();
        let ends: Vec<u64> = {
            let (_, blocks) = sealed.open().all_blocks().unwrap();
            let mut ends: Vec<u64> = blocks
                .iter()
                .map(|b| b.offset + 80 + u64::from(b.disk_len))
                .collect();
            ends.sort();
            ends
        };
        for len in 0..bytes.len() {
            if len as u64 > ends[ends.len() - 1] && len % 13 != 0 {
                continue;
            }
            sealed.set_bytes(bytes[..len].to_vec());
            let lost = lost_both_ways(&sealed, &format!("cut to {len}"));
            let mut expect: Vec<usize> = Vec::new();
            for (members, end) in blocks.values().zip(&ends) {
                if *end > len as u64 {
                    expect.extend(members);
                }
            }
            assert_eq!(lost, expect, "cut to {len}");
        }
    }
}

#[test]
fn damaged_table_and_footer_lose_nothing() {
    for form in FORMS {
        let sealed = small(form);
        let bytes = sealed.bytes();
        let data_end = bytes.len() - 128 - 3 * 4096;
        for (from, to) in [
            (bytes.len() - 128, bytes.len()),
            (data_end, data_end + 4096),
            (data_end + 4096, data_end + 8192),
            (data_end, data_end + 8192),
            (data_end + 8192, bytes.len()),
            (0, 64),
        ] {
            let mut bad = bytes.clone();
            bad[from..to].fill(0x5a);
            sealed.set_bytes(bad);
            let what = format!("bytes {from} to {to}");
            assert_eq!(lost_both_ways(&sealed, &what), Vec::<usize>::new());
            assert_eq!(
                sealed.open().extents().unwrap(),
                sealed.sealed.extents,
                "{what}"
            );
            let segment = sealed.open();
            for sample in &sealed.samples {
                let found = segment.first_seq_at_or_after(sample.stream, sample.ts);
                assert_eq!(found.unwrap(), Some(sample.seq), "{what}");
            }
        }
    }
}

#[test]
fn block_head_and_table_damaged_together_are_reported() {
    let sealed = small(Form::plain(Codec::S2));
    let blocks = by_block(&sealed);
    let bytes = sealed.bytes();
    let pages = bytes.len() - 128 - 3 * 4096;
    for (offset, members) in &blocks {
        // With the extents intact the ranges are exact; without them they may have no end.
        for end in [pages + 4096, bytes.len()] {
            let mut bad = bytes.clone();
            bad[*offset as usize + 20] ^= 1;
            bad[pages..end].fill(0);
            sealed.set_bytes(bad);
            assert_eq!(
                lost_both_ways(&sealed, &format!("block at {offset}")),
                *members
            );
        }
    }
}

#[test]
fn another_file_under_this_name_answers_nothing() {
    let sealed = tiny(Form::plain(Codec::S2));
    let other = {
        let mut samples = sealed.samples.clone();
        samples.pop();
        Sealed::new(samples, Codec::S2)
    };
    // The same segment number, sealed with other content.
    let mut manifest = sealed.sealed.manifest;
    manifest.file_bytes = other.sealed.manifest.file_bytes;
    let cache = || Arc::new(Cache::new(1 << 20, 8));
    let segment = Segment::open(&other.env, &other.path, UUID, manifest, cache());
    for sample in &sealed.samples {
        let read = segment.get(sample.stream, sample.seq);
        assert!(matches!(read, Err(ReadError::Corrupt(_))), "{read:?}");
    }
    assert!(segment.extents().is_err());
    // A file of another store: nothing in it is ours.
    let segment = Segment::open(
        &sealed.env,
        &sealed.path,
        1,
        sealed.sealed.manifest,
        cache(),
    );
    for sample in &sealed.samples {
        let read = segment.get(sample.stream, sample.seq);
        assert!(matches!(read, Err(ReadError::Corrupt(_))), "{read:?}");
    }
}

#[test]
fn a_scan_meets_every_message_or_its_loss() {
    let sealed = small(Form::plain(Codec::None));
    let mut bytes = sealed.bytes();
    let needle = b"payload of 30 in 2";
    let at = bytes
        .windows(needle.len())
        .position(|w| w == needle)
        .unwrap();
    bytes[at] ^= 1;
    sealed.set_bytes(bytes);
    let (mut found, mut reports) = (0, Vec::new());
    sealed
        .open()
        .scan(&mut |item| {
            match item {
                ScanItem::Block(block) => found += block.count() as usize,
                ScanItem::Lost(report) => reports.push((report.first, report.last)),
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(found, sealed.samples.len() - 1);
    assert_eq!(reports, vec![(Seq(29), Seq(31))]);
}

proptest! {
    #[test]
    fn garbage_is_damage(bytes in prop::collection::vec(any::<u8>(), 0..2000), seq: u64) {
        let sealed = tiny(Form::plain(Codec::None));
        sealed.set_bytes(bytes);
        let segment = sealed.open();
        prop_assert!(segment.get(StreamId(1), Seq(seq)).is_err());
        prop_assert!(segment.block(StreamId(1), Seq(seq)).is_err());
        prop_assert!(segment.first_seq_at_or_after(StreamId(1), TimestampNs(0)).is_err());
        let report = segment.verify(&mut |_| {}).unwrap();
        prop_assert!(!report.is_intact());
    }

    #[test]
    fn many_faults_at_once_never_invent_or_hide(
        faults in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        form in 0..FORMS.len(),
    ) {
        let sealed = tiny(FORMS[form]);
        let mut bytes = sealed.bytes();
        for (at, value) in &faults {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        sealed.set_bytes(bytes);
        let segment = sealed.open();
        for sample in &sealed.samples {
            match segment.get(sample.stream, sample.seq) {
                Ok(Some(found)) => sample.check(&found),
                Ok(None) => prop_assert!(false, "silently absent"),
                Err(_) => {}
            }
        }
    }
}
