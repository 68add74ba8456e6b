//! What encryption costs: `cargo bench -p riverlog-benches --bench encryption`.
//!
//! Durable appends, sealing and cold reads, each with and without a key. The files are below the
//! current directory, so that the figures are those of its file system.

use std::hint::black_box;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use riverlog_engine::cache::Cache;
use riverlog_engine::format::record::Record;
use riverlog_engine::ids::SegmentId;
use riverlog_engine::io::Env;
use riverlog_engine::segment::{Codec, ScanItem, Segment, SegmentManifest, SegmentWriter};
use riverlog_engine::{
    Append, Key, KeyRing, Seq, Store, StoreOptions, StreamConfig, StreamId, TimestampNs,
};

const UUID: u128 = 1;
const ID: SegmentId = SegmentId(1);
const STREAM: StreamId = StreamId(1);
/// Messages of a segment of about 60 MiB.
const MSGS: u64 = 200_000;

fn keys(is_encrypted: bool) -> Option<KeyRing> {
    is_encrypted.then(|| KeyRing::new(Key::new(&[7; 32])))
}

fn name(is_encrypted: bool) -> &'static str {
    match is_encrypted {
        true => "encrypted",
        false => "plain",
    }
}

/// JSON with numbers that differ: S2 makes it about half as long.
fn payload(n: u64) -> String {
    let hash = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!(
        "{{\"order\":{n},\"customer\":\"c-{:016x}\",\"sku\":\"{:016x}\",\"price\":{},\"state\":\
         \"created\",\"currency\":\"EUR\",\"note\":\"{:032x}{:032x}\",\"channel\":\"web\"}}",
        hash,
        hash.rotate_left(17),
        hash % 10_000,
        u128::from(hash) * u128::from(!hash),
        u128::from(hash.swap_bytes()) * u128::from(!n),
    )
}

fn appends(c: &mut Criterion) {
    const BATCH: u64 = 4_000;
    let payloads: Vec<String> = (0..BATCH).map(payload).collect();
    let batch: Vec<Append> = payloads
        .iter()
        .map(|payload| Append {
            subject: b"orders.created",
            payload: payload.as_bytes(),
            ..Append::default()
        })
        .collect();
    let bytes: usize = payloads.iter().map(String::len).sum();
    let mut group = c.benchmark_group("append_batch_durable");
    group.throughput(Throughput::Bytes(bytes as u64));
    for is_encrypted in [false, true] {
        let dir = tempfile::tempdir_in(".").expect("a directory");
        let mut options = StoreOptions::default();
        options.encryption = keys(is_encrypted);
        let (store, _) = Store::open(dir.path(), options).expect("a store");
        let config = StreamConfig {
            name: "S".into(),
            msgs_max: Some(100_000),
            ..StreamConfig::default()
        };
        let (stream, _) = store.create_stream(config).expect("a stream");
        group.bench_function(BenchmarkId::from_parameter(name(is_encrypted)), |b| {
            b.iter(|| stream.append_batch(black_box(&batch)).expect("durable"));
        });
    }
    group.finish();
}

fn write(env: &Env, path: &Path, codec: Codec, payloads: &[String]) -> SegmentManifest {
    let mut writer = SegmentWriter::new(env, path, UUID, ID).expect("a file");
    writer.begin_extent(STREAM, codec).expect("begun");
    for (n, payload) in (1..).zip(payloads) {
        let mut record = Record {
            seq: Seq(n),
            ts: TimestampNs(n as i64),
            subject: b"orders.created",
            payload: payload.as_bytes(),
            ..Record::default()
        };
        record.crc = record.computed_crc(STREAM);
        writer.push(&record).expect("taken");
    }
    writer.finish().expect("sealed").manifest
}

fn sealed(c: &mut Criterion) {
    let payloads: Vec<String> = (0..MSGS).map(payload).collect();
    let bytes: usize = payloads.iter().map(String::len).sum();
    let dir = tempfile::tempdir_in(".").expect("a directory");
    let path = dir.path().join("1.seg");
    for (codec, codec_name) in [(Codec::None, "none"), (Codec::S2, "s2")] {
        let mut group = c.benchmark_group(format!("sealed_{codec_name}"));
        group.sample_size(10);
        group.throughput(Throughput::Bytes(bytes as u64));
        for is_encrypted in [false, true] {
            let mut env = Env::real();
            env.keys = keys(is_encrypted).map(Arc::new);
            let mut manifest = None;
            group.bench_function(BenchmarkId::new("write", name(is_encrypted)), |b| {
                b.iter(|| {
                    let _ = env.io.remove(&path);
                    manifest = Some(write(&env, &path, codec, &payloads));
                });
            });
            let Some(manifest) = manifest else { continue };
            let cache = Arc::new(Cache::new(0, 8));
            let segment = Segment::open(&env, &path, UUID, manifest, cache);
            group.bench_function(BenchmarkId::new("read", name(is_encrypted)), |b| {
                b.iter(|| {
                    let mut msgs = 0;
                    let scanned = segment.scan(&mut |item| {
                        if let ScanItem::Block(block) = item {
                            msgs += u64::from(block.count());
                        }
                        ControlFlow::Continue(())
                    });
                    scanned.expect("readable");
                    assert_eq!(msgs, MSGS);
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, appends, sealed);
criterion_main!(benches);
