//! What was sealed is read back, in few reads and without copies.

use proptest::prelude::*;

use super::*;
use crate::error::ReadError;
use crate::format::record::flag;
use crate::segment::BlockCursor;

/// Reads everything by sequence and by block and compares it with the samples.
#[track_caller]
fn check_all(sealed: &Sealed) {
    let segment = sealed.open();
    for sample in &sealed.samples {
        let found = segment.get(sample.stream, sample.seq).unwrap();
        sample.check(&found.expect("a sealed message is there"));
    }
    for stream in sealed.streams() {
        let expect: Vec<&Sample> = sealed
            .samples
            .iter()
            .filter(|s| s.stream == stream)
            .collect();
        let mut seq = Seq(0);
        let mut found = Vec::new();
        while let Some(block) = segment.block(stream, seq).unwrap() {
            assert!(block.last_seq() >= seq);
            found.extend(block.iter());
            seq = block.last_seq().next();
        }
        assert_eq!(found.len(), expect.len());
        for (sample, message) in expect.iter().zip(&found) {
            sample.check(message);
        }
        for pair in expect.windows(2) {
            if pair[0].seq.next() < pair[1].seq {
                assert_eq!(segment.get(stream, pair[0].seq.next()).unwrap(), None);
                let block = segment.block(stream, pair[0].seq.next()).unwrap().unwrap();
                let next = block.iter_from(pair[0].seq.next()).next().unwrap();
                assert_eq!(next.seq, pair[1].seq);
            }
        }
    }
    assert!(segment.verify(&mut |_| {}).unwrap().is_intact());
    assert_eq!(segment.extents().unwrap(), sealed.sealed.extents);
}

fn arb_form() -> impl Strategy<Value = Form> {
    prop::sample::select(FORMS.to_vec())
}

prop_compose! {
    fn arb_body()(
        subject in "[a-c.]{1,20}",
        headers in prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec(any::<u8>(), 0..300)],
        payload in prop_oneof![
            1 => Just(vec![]),
            6 => prop::collection::vec(any::<u8>(), 0..100),
            2 => (any::<u8>(), 0..50_000_usize).prop_map(|(byte, len)| vec![byte; len]),
        ],
        msg_id in prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec(any::<u8>(), 1..40)],
        flags in prop_oneof![3 => Just(0_u8), 1 => (0..32_u8).prop_filter("valid", |f| flag::are_valid(*f))],
    ) -> (String, Vec<u8>, Vec<u8>, Vec<u8>, u8) {
        (subject, headers, payload, msg_id, flags)
    }
}

prop_compose! {
    fn arb_stream()(
        first in prop_oneof![0..100_u64, Just(u64::MAX / 2)],
        steps in prop::collection::vec(
            (prop_oneof![4 => Just(1_u64), 1 => 2..1000_u64], any::<i64>(), arb_body()),
            1..60,
        ),
    ) -> Vec<(u64, i64, (String, Vec<u8>, Vec<u8>, Vec<u8>, u8))> {
        let mut seq = first;
        steps
            .into_iter()
            .map(|(step, ts, body)| {
                seq += step;
                (seq, ts, body)
            })
            .collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_messages_read_back(
        streams in prop::collection::btree_map(any::<u64>(), arb_stream(), 1..6),
        form in arb_form(),
    ) {
        let samples = streams
            .into_iter()
            .flat_map(|(stream, messages)| {
                messages.into_iter().map(move |(seq, ts, body)| {
                    let (subject, headers, payload, msg_id, flags) = body;
                    Sample {
                        stream: StreamId(stream),
                        seq: Seq(seq),
                        ts: TimestampNs(ts),
                        flags,
                        subject: subject.into_bytes(),
                        headers,
                        payload,
                        msg_id,
                    }
                })
            })
            .collect();
        check_all(&Sealed::of_form(samples, form));
    }

    #[test]
    fn time_search_equals_a_scan(
        times in prop::collection::vec(-50..50_i64, 1..700),
        probe in -60..60_i64,
    ) {
        let samples: Vec<Sample> = times
            .iter()
            .enumerate()
            .map(|(i, ts)| Sample {
                ts: TimestampNs(*ts),
                payload: vec![0; 3000],
                ..Sample::new(4, 10 + 2 * i as u64)
            })
            .collect();
        let expect = samples.iter().find(|s| s.ts.0 >= probe).map(|s| s.seq);
        let sealed = Sealed::new(samples, Codec::S2);
        let segment = sealed.open();
        let search = |stream| segment.first_seq_at_or_after(stream, TimestampNs(probe)).unwrap();
        prop_assert_eq!(search(StreamId(4)), expect);
        prop_assert_eq!(search(StreamId(3)), None);
        prop_assert_eq!(search(StreamId(5)), None);
    }
}

#[test]
fn large_parts_read_back() {
    for form in FORMS {
        let mut samples: Vec<Sample> = (1..40).map(|seq| Sample::new(1, seq)).collect();
        samples[3].payload = (0..1 << 20).map(|i| (i % 251) as u8).collect();
        samples[4].headers = vec![b'h'; 64 * 1024];
        samples[5].payload = Vec::new();
        samples[5].subject = Vec::new();
        samples[6].msg_id = vec![b'i'; 5000];
        samples[7].payload = vec![9; 32 * 1024];
        check_all(&Sealed::of_form(samples, form));
    }
}

#[test]
fn a_pack_of_ten_thousand_streams_reads_back() {
    let mut samples = Vec::new();
    // Not in the order of stream ids.
    for n in 0..10_000_u64 {
        let stream = n * 7919 % 10_007;
        samples.extend((1..=1 + n % 3).map(|seq| Sample::new(stream, seq)));
    }
    let sealed = Sealed::new(samples, Codec::S2);
    assert_eq!(sealed.sealed.extents.len(), 10_000);
    let segment = sealed.open();
    for sample in sealed.samples.iter().step_by(17) {
        let found = segment.get(sample.stream, sample.seq).unwrap().unwrap();
        sample.check(&found);
        assert_eq!(segment.get(sample.stream, Seq(4)).unwrap(), None);
    }
    assert_eq!(segment.get(StreamId(10_008), Seq(1)).unwrap(), None);
    let report = segment.verify(&mut |_| {}).unwrap();
    assert!(report.is_intact());
    assert_eq!(report.blocks, 10_000);
    assert_eq!(report.msgs, sealed.samples.len() as u64);
    // Nothing between the parts of the file is left unread.
    assert_eq!(report.bytes, sealed.bytes().len() as u64);
}

fn many_blocks() -> Sealed {
    let samples = (1..2000).map(|seq| Sample {
        payload: vec![seq as u8; 4000],
        ..Sample::new(1, seq)
    });
    Sealed::new(samples.collect(), Codec::None)
}

#[test]
fn a_cold_read_is_one_table_page_and_one_block() {
    let sealed = many_blocks();
    let segment = sealed.open();
    segment.get(StreamId(1), Seq(1)).unwrap();
    for seq in [500, 1000, 1999] {
        let before = sealed.io.reads();
        assert!(segment.get(StreamId(1), Seq(seq)).unwrap().is_some());
        assert!(sealed.io.reads() - before <= 2);
        let before = sealed.io.reads();
        assert!(segment.get(StreamId(1), Seq(seq)).unwrap().is_some());
        assert_eq!(sealed.io.reads(), before, "the second read is cached");
    }
}

#[test]
fn reads_share_the_cached_bytes() {
    let sealed = many_blocks();
    let segment = sealed.open();
    let read = || segment.get(StreamId(1), Seq(7)).unwrap().unwrap();
    let (a, b) = (read(), read());
    assert_eq!(a.payload().as_ptr(), b.payload().as_ptr());
    let block = segment.block(StreamId(1), Seq(7)).unwrap().unwrap();
    let c = block.get(Seq(7)).unwrap();
    assert_eq!(a.payload().as_ptr(), c.payload().as_ptr());
}

#[test]
fn the_cache_stays_within_its_budget() {
    let sealed = many_blocks();
    let budget = 1 << 20;
    let cache = Arc::new(Cache::new(budget, 8));
    let segment = sealed.open_with(cache.clone());
    for seq in (1..2000).chain(1..2000) {
        segment.get(StreamId(1), Seq(seq)).unwrap().unwrap();
        assert!(cache.bytes() <= budget, "{} bytes", cache.bytes());
    }
    assert!(cache.bytes() > budget / 4);
}

#[test]
fn threads_read_side_by_side() {
    let sealed = many_blocks();
    let segment = sealed.open_with(Arc::new(Cache::new(200_000, 2)));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (segment, samples) = (&segment, &sealed.samples);
            scope.spawn(move || {
                for sample in samples.iter().skip(thread).step_by(7) {
                    let found = segment.get(sample.stream, sample.seq).unwrap();
                    sample.check(&found.unwrap());
                }
            });
        }
    });
}

#[test]
fn a_missing_file_is_a_system_error_not_an_absent_message() {
    let sealed = many_blocks();
    let segment = Segment::open(
        &sealed.env,
        Path::new("/elsewhere.seg"),
        UUID,
        sealed.sealed.manifest,
        Arc::new(Cache::new(1 << 20, 8)),
    );
    assert!(matches!(
        segment.get(StreamId(1), Seq(1)),
        Err(ReadError::Io { .. })
    ));
}

#[test]
fn a_cursor_finds_what_a_lookup_finds() {
    for step in [1, 3, 40] {
        let samples = (1..=500).map(|n| Sample::new(1, n * step)).collect();
        let sealed = Sealed::new(samples, Codec::None);
        let block = sealed.open().block(StreamId(1), Seq(0)).unwrap().unwrap();
        let mut cursor = BlockCursor::new(block.clone());
        let last = block.last_seq().0;
        let jumps = (0..3_000_u64).map(|n| n * n * 7_919 % (last + 3));
        for seq in (0..=last + 1).chain(jumps).chain((0..=last).rev()) {
            let found = cursor.find(Seq(seq));
            let found = found.map(|span| {
                let message = block.message(&span).unwrap();
                assert_eq!(block.subject(&span), message.subject());
                message
            });
            assert_eq!(found, block.get(Seq(seq)), "{seq}, one in {step}");
        }
    }
}

#[test]
fn a_weak_cursor_goes_on_where_it_was_and_keeps_no_block() {
    let samples = (1..=100).map(|n| Sample::new(1, n)).collect();
    let sealed = Sealed::new(samples, Codec::None);
    let block = sealed.open().block(StreamId(1), Seq(1)).unwrap().unwrap();
    let mut cursor = BlockCursor::new(block.clone());
    assert!(cursor.find(Seq(20)).is_some());
    let weak = cursor.downgrade();
    drop(cursor);
    let found = weak.upgrade().unwrap().find(Seq(21));
    assert_eq!(found.map(|span| span.seq), Some(Seq(21)));
    drop(block);
    assert!(weak.upgrade().is_none());
}
