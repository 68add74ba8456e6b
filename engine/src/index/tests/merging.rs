//! A merged run answers like the union of its inputs.

use super::*;

/// Splits a model at a sequence; where a subject is only on one side the other does not know it.
fn split(model: &Model, at: u64) -> (Model, Model) {
    let side = |below: bool| {
        let kept = model.iter().filter_map(|(key, postings)| {
            let kept = postings.iter().filter(|(seq, _)| (seq.0 < at) == below);
            let kept: Vec<_> = kept.copied().collect();
            (!kept.is_empty()).then(|| (key.clone(), kept))
        });
        kept.collect()
    };
    (side(true), side(false))
}

fn input(model: Model) -> MergeInput {
    MergeInput {
        run: Arc::new(Written::new(model).open().unwrap()),
        scope: None,
    }
}

const MERGED: SegmentId = SegmentId(70);

struct Merged {
    io: Arc<MemoryIo>,
    env: Env,
    run: Run,
}

fn try_merge(
    inputs: Vec<MergeInput>,
    budget: usize,
    keep: impl Fn(StreamId, u64) -> bool,
) -> Result<Merged, MergeError> {
    let (io, env) = MemoryIo::env();
    let path = Path::new("/70.idx");
    let keys = inputs.iter().map(|input| input.run.keys()).sum();
    let writer = RunWriter::new(&env, path, UUID, RunSource::Merged(MERGED), keys)?;
    let mut merge = Merge::new(inputs, writer)?;
    let retain = &mut |stream, postings: &mut Vec<(Seq, u32)>| {
        postings.retain(|(seq, _)| keep(stream, seq.0));
    };
    while !merge.advance(budget, retain)? {}
    let sealed = merge.finish()?;
    let manifest = RunManifest {
        id: MERGED,
        file_bytes: sealed.file_bytes,
        footer_digest: sealed.footer_digest,
    };
    let cache = Arc::new(Cache::new(1 << 20, 8));
    let wanted = RunIdentity::Exactly(manifest);
    let run = Run::open(&env, path, UUID, &wanted, cache).unwrap();
    Ok(Merged { io, env, run })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn merged_runs_answer_like_one(
        model in prop::collection::btree_map(
            (0..3_u64, "[abc](\\.[abc]){0,3}|[a-z!-]{1,30}"),
            arb_postings(),
            1..60,
        ),
        cuts in (0..2_000_u64, 0..2_000_u64),
        budget in 1..5_000_usize,
        dead in 1..9_u64,
    ) {
        let model: Model = model
            .into_iter()
            .map(|((stream, subject), p)| ((StreamId(stream), subject.into_bytes()), p))
            .collect();
        let (a, rest) = split(&model, cuts.0.min(cuts.1));
        let (b, c) = split(&rest, cuts.0.max(cuts.1));
        // The order of the inputs does not matter.
        let inputs = vec![input(b), input(c), input(a)];
        let keep = |stream: StreamId, seq: u64| !(seq + stream.0).is_multiple_of(dead);
        let merged = try_merge(inputs, budget, keep).unwrap();
        let mut expect = model;
        expect.retain(|(stream, _), postings| {
            postings.retain(|(seq, _)| keep(*stream, seq.0));
            !postings.is_empty()
        });
        prop_assert_eq!(merged.run.keys(), expect.len() as u64);
        check_all(&merged.run, &expect, &FILTERS).unwrap();
    }
}

#[test]
fn a_merge_takes_the_part_of_one_stream_that_it_is_told_to() {
    let mut model = small();
    let other = |seqs: std::ops::Range<u64>| seqs.map(|seq| (Seq(seq), 1)).collect();
    model.insert((StreamId(2), b"a".to_vec()), other(1..9));
    model.insert((StreamId(4), b"a".to_vec()), other(1..9));
    let scoped = |first, last| MergeInput {
        run: Arc::new(Written::new(model.clone()).open().unwrap()),
        scope: Some(MergeScope {
            stream: StreamId(3),
            first: Seq(first),
            last: Seq(last),
        }),
    };
    let merged = try_merge(vec![scoped(301, 5_000), scoped(7, 300)], 64, |_, _| true).unwrap();
    let mut expect = small();
    expect.retain(|_, postings| {
        postings.retain(|(seq, _)| (7..=5_000).contains(&seq.0));
        !postings.is_empty()
    });
    check_all(&merged.run, &expect, &FILTERS).unwrap();
}

#[test]
fn long_subjects_and_long_lists_are_merged() {
    let mut model = small();
    for (subject, len) in [(b'x', 3_600), (b'y', 3_601), (b'z', 70_000)] {
        let postings = (1..9_000).map(|n| (Seq(n * 31), n as u32 * 7)).collect();
        model.insert((StreamId(3), vec![subject; len]), postings);
    }
    let (a, b) = split(&model, 77_000);
    let merged = try_merge(vec![input(a), input(b)], 1_000, |_, _| true).unwrap();
    check_all_unordered(&merged.run, &model, &FILTERS).unwrap();
    // What a reader pulls out of it key by key is the same again.
    let again = vec![MergeInput {
        run: Arc::new(merged.run),
        scope: None,
    }];
    let copy = try_merge(again, usize::MAX, |_, _| true).unwrap();
    check_all_unordered(&copy.run, &model, &FILTERS).unwrap();
    assert!(copy.io.content(Path::new("/70.idx")) == merged.io.content(Path::new("/70.idx")));
}

#[test]
fn inputs_that_overlap_are_refused() {
    let merged = try_merge(vec![input(small()), input(small())], 100, |_, _| true);
    assert!(matches!(merged, Err(MergeError::Overlap)));
}

#[test]
fn a_damaged_input_is_named() {
    let written = Written::new(small());
    let mut bytes = written.io.content(&written.path);
    bytes[64 + 4096 + 700] ^= 1;
    written.io.set(&written.path, bytes);
    let bad = MergeInput {
        run: Arc::new(written.open().unwrap()),
        scope: None,
    };
    let good = Model::from([((StreamId(9), b"z".to_vec()), vec![(Seq(1), 1)])]);
    let merged = try_merge(vec![input(good), bad], 100, |_, _| true);
    let named = matches!(&merged, Err(MergeError::Input(1, RunError::Damaged { .. })));
    assert!(named, "{:?}", merged.err());
}

#[test]
fn a_merged_run_is_exactly_the_file_that_was_made() {
    let merged = try_merge(vec![input(small())], 100, |_, _| true).unwrap();
    let len = merged.io.content(Path::new("/70.idx")).len() as u64;
    let cache = Arc::new(Cache::new(1 << 20, 8));
    let wanted = RunIdentity::Exactly(RunManifest {
        id: MERGED,
        file_bytes: len,
        footer_digest: 1,
    });
    let opened = Run::open(&merged.env, Path::new("/70.idx"), UUID, &wanted, cache);
    assert!(matches!(opened, Err(RunError::Damaged { .. })));
}

#[test]
fn absent_subjects_cost_no_page() {
    let mut model = Model::new();
    for n in 0..5_000_u64 {
        let subject = format!("sensor.{n}");
        model.insert((StreamId(1), subject.into_bytes()), vec![(Seq(n + 1), 7)]);
    }
    let written = Written::new(model);
    let run = written.open().unwrap();
    let before = written.io.reads();
    for n in 0..1_000 {
        let subject = format!("sensor.{n}x");
        assert_eq!(lookup(&run, StreamId(1), subject.as_bytes()).unwrap(), None);
    }
    let reads = written.io.reads() - before;
    assert!(reads < 30, "{reads} of 1000 absent subjects read a page");
}

#[test]
fn counting_reads_few_pages_of_a_long_list() {
    let postings: Vec<_> = (1..400_000).map(|n| (Seq(n * 3), 5)).collect();
    let written = Written::new(Model::from([((StreamId(1), b"a".to_vec()), postings)]));
    let run = written.open().unwrap();
    let entry = lookup(&run, StreamId(1), b"a").unwrap().unwrap();
    for from in [4, 300_000, 600_001, 1_199_990] {
        let before = written.io.reads();
        let earlier = (from - 1) / 3;
        assert_eq!(
            run.count_from(&entry, Seq(from)).unwrap(),
            399_999 - earlier
        );
        let reads = written.io.reads() - before;
        assert!(reads <= 4, "{reads} of 200 pages");
    }
}
