//! Reads of sealed data: `cargo bench -p riverlog-benches --bench segment`.
//!
//! "cold" means that the engine's cache is empty; the file may still be in the kernel's.

use std::hint::black_box;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use riverlog_engine::cache::Cache;
use riverlog_engine::format::record::{Record, record_crc};
use riverlog_engine::ids::SegmentId;
use riverlog_engine::index::{Run, RunIdentity, SubjectKey, rebuild_run};
use riverlog_engine::io::Env;
use riverlog_engine::segment::{Codec, ScanItem, Segment, SegmentManifest, SegmentWriter};
use riverlog_engine::{Filter, Seq, StreamId, TimestampNs};

const UUID: u128 = 1;
const ID: SegmentId = SegmentId(1);
const STREAM: StreamId = StreamId(1);
/// Messages of a segment; with the payload below about 64 MiB.
const MSGS: u64 = 230_000;
/// Distinct subjects.
const SUBJECTS: u64 = 50_000;

fn subject(seq: u64) -> String {
    format!("orders.{:05}.created", seq * 7919 % SUBJECTS)
}

fn write(env: &Env, path: &Path, codec: Codec) -> SegmentManifest {
    let mut writer = SegmentWriter::new(env, path, UUID, ID).unwrap();
    writer.begin_extent(STREAM, codec).unwrap();
    for n in 1..=MSGS {
        let (seq, ts) = (Seq(n), TimestampNs(1_000_000 * n as i64));
        let subject = subject(n);
        let payload = format!(
            "{{\"order\":{n},\"customer\":\"c-{:08x}\",\"items\":[{{\"sku\":\"{:06}\",\"price\":{}}}],\
             \"note\":\"{:0>140}\"}}",
            n.wrapping_mul(2_654_435_761) % (1 << 32),
            n * 31 % 1_000_000,
            n * 17 % 10_000,
            n * n
        );
        let (subject, payload) = (subject.as_bytes(), payload.as_bytes());
        let crc = record_crc(STREAM, seq, ts, 0, subject, b"", payload, b"");
        let record = Record {
            seq,
            ts,
            subject,
            headers: b"",
            payload,
            msg_id: b"",
            crc,
            ..Record::default()
        };
        writer.push(&record).unwrap();
    }
    writer.finish().unwrap().manifest
}

/// A sequence of pseudo-random numbers up to `max`, the same in every run.
fn numbers(max: u64) -> impl FnMut() -> u64 {
    let mut state = 88_172_645_463_325_252_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        1 + state % max
    }
}

fn segments(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::real();
    let cache = || Arc::new(Cache::new(256 << 20, 16));
    for (name, codec) in [("none", Codec::None), ("s2", Codec::S2)] {
        let path = dir.path().join(format!("{name}.seg"));
        let manifest = write(&env, &path, codec);
        let open = |cache| Segment::open(&env, &path, UUID, manifest, cache);
        let warm = open(cache());
        let mut group = c.benchmark_group(format!("segment/{name}"));
        let mut next = numbers(MSGS);
        group.bench_function("get warm", |b| {
            b.iter(|| black_box(warm.get(STREAM, Seq(next())).unwrap().unwrap()))
        });
        let all = cache();
        let cold = open(all.clone());
        group.bench_function("get cold", |b| {
            b.iter(|| {
                all.clear();
                black_box(cold.get(STREAM, Seq(next())).unwrap().unwrap())
            })
        });
        group.sample_size(10);
        group.throughput(Throughput::Elements(MSGS));
        group.bench_function("scan", |b| {
            b.iter(|| {
                let mut bytes = 0;
                warm.scan(&mut |item| {
                    if let ScanItem::Block(block) = item {
                        bytes += block.iter().map(|m| m.payload().len()).sum::<usize>();
                    }
                    ControlFlow::Continue(())
                })
                .unwrap();
                black_box(bytes)
            })
        });
        group.finish();
    }
}

fn runs(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::real();
    let (data, index) = (dir.path().join("1.seg"), dir.path().join("1.idx"));
    let manifest = write(&env, &data, Codec::S2);
    let cache = Arc::new(Cache::new(256 << 20, 16));
    let segment = Segment::open(&env, &data, UUID, manifest, cache.clone());
    let size_of =
        |layout: &riverlog_engine::BodyLayout| layout.subject + layout.headers + layout.payload;
    let rebuild = || rebuild_run(&env, &index, UUID, &segment, &size_of, &cache).unwrap();
    println!(
        "segment {} bytes, run {} bytes",
        manifest.file_bytes,
        rebuild().sealed.file_bytes
    );
    let wanted = RunIdentity::OfSegment(manifest);
    let run = Run::open(&env, &index, UUID, &wanted, cache.clone()).unwrap();
    let lookup = |subject: &[u8]| run.lookup(&SubjectKey::new(STREAM, subject)).unwrap();
    let mut next = numbers(SUBJECTS);
    let mut group = c.benchmark_group("run");
    group.bench_function("lookup warm", |b| {
        b.iter(|| black_box(lookup(subject(next()).as_bytes()).unwrap()))
    });
    group.bench_function("lookup absent", |b| {
        b.iter(|| black_box(lookup(format!("orders.{:05}", next()).as_bytes())))
    });
    group.bench_function("lookup cold", |b| {
        b.iter(|| {
            cache.clear();
            black_box(lookup(subject(next()).as_bytes()).unwrap())
        })
    });
    group.sample_size(10);
    group.throughput(Throughput::Elements(SUBJECTS));
    group.bench_function("wildcard over all", |b| {
        let filter = Filter::new(b"orders.*.created").unwrap();
        b.iter(|| {
            let mut count = 0;
            run.matching(STREAM, &filter, &mut |_, entry| {
                count += entry.count;
                ControlFlow::Continue(())
            })
            .unwrap();
            black_box(count)
        })
    });
    group.throughput(Throughput::Elements(MSGS));
    group.bench_function("rebuild", |b| b.iter(|| black_box(rebuild())));
    group.finish();
}

criterion_group!(benches, segments, runs);
criterion_main!(benches);
