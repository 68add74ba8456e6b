//! The bodies of the fuzz targets survive seeded input on the stable toolchain.
//!
//! `cargo +nightly fuzz` finds more, since it sees the coverage; this runs everywhere. Inputs are random
//! bytes, texts of protocol words, and mutations of earlier inputs. `RIVERLOG_FUZZ_SECONDS` (default 0)
//! goes on after the fixed number of inputs for that long.

#[path = "../../engine/tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use riverlog_engine::fuzzing as engine;
use riverlog_server::fuzzing as server;

/// Inputs every run feeds to each body.
const INPUTS: u32 = 300;
const INPUT_BYTES_MAX: usize = 2048;
/// Earlier inputs that may be mutated.
const POOL: usize = 64;

const WORDS: [&[u8]; 24] = [
    b"PUB ",
    b"HPUB ",
    b"SUB ",
    b"UNSUB ",
    b"CONNECT {",
    b"PING\r\n",
    b"\r\n",
    b" ",
    b"foo.bar",
    b"*",
    b">",
    b"NATS/1.0\r\n",
    b"Key: Value\r\n",
    b"5\r\nhello",
    b"12 17\r\n",
    b"{",
    b"}",
    b"port: 4222\n",
    b"\"",
    b"#",
    b"include ",
    b"jetstream",
    b"$VAR",
    b"\0\0\0\0",
];

/// A small generator of its own: a failing seed means the same input on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn input(&mut self, pool: &[Vec<u8>]) -> Vec<u8> {
        match self.below(4) {
            0 => (0..self.below(INPUT_BYTES_MAX))
                .map(|_| self.next() as u8)
                .collect(),
            1 => {
                let words = self.below(40);
                (0..words)
                    .flat_map(|_| WORDS[self.below(WORDS.len())].to_vec())
                    .collect()
            }
            // Mostly zeros and small numbers: lengths and counts that pass first checks.
            2 => (0..self.below(200))
                .map(|_| self.next() as u8 & self.next() as u8 & 7)
                .collect(),
            _ => self.mutated(pool),
        }
    }

    fn mutated(&mut self, pool: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = match pool.len() {
            0 => Vec::new(),
            length => pool[self.below(length)].clone(),
        };
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(4) {
                0 => bytes.truncate(at),
                1 => drop(bytes.splice(at..at, WORDS[self.below(WORDS.len())].to_vec())),
                _ => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << self.below(8);
                    }
                }
            }
        }
        bytes.truncate(INPUT_BYTES_MAX);
        bytes
    }
}

fn feed(name: &str, body: fn(&[u8])) {
    let more: u64 = match std::env::var("RIVERLOG_FUZZ_SECONDS") {
        Ok(text) => text.parse().expect("RIVERLOG_FUZZ_SECONDS is a number"),
        Err(_) => 0,
    };
    let end = Instant::now() + Duration::from_secs(more);
    let mut random = Random(name.bytes().map(u64::from).sum());
    let mut pool: Vec<Vec<u8>> = Vec::new();
    let mut number = 0;
    while number < INPUTS || Instant::now() < end {
        let input = random.input(&pool);
        if std::panic::catch_unwind(|| body(&input)).is_err() {
            panic!("{name} fails on input {number}: {input:?}");
        }
        if pool.len() < POOL {
            pool.push(input);
        } else {
            let slot = random.below(POOL);
            pool[slot] = input;
        }
        number += 1;
    }
}

macro_rules! bodies {
    ($($name:ident: $body:path;)*) => {
        $(#[test]
        fn $name() {
            feed(stringify!($name), $body);
        })*

        /// Each target of the fuzz crate has its test here.
        #[test]
        fn every_fuzz_target_is_covered() {
            let targets = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/fuzz_targets");
            let mut found: Vec<String> = std::fs::read_dir(targets)
                .expect("the fuzz targets")
                .filter_map(|entry| {
                    let path = entry.expect("entry").path();
                    path.file_stem().map(|name| name.to_string_lossy().into_owned())
                })
                .collect();
            found.sort();
            let mut covered = vec![$(stringify!($name).to_string()),*];
            covered.sort();
            assert_eq!(found, covered);
        }
    };
}

bodies! {
    engine: support::script::run;
    op: engine::fuzz_op;
    frame: engine::fuzz_frame;
    consumer: engine::fuzz_consumer;
    wal_recovery: engine::fuzz_wal_recovery;
    wal_file: engine::fuzz_wal_file;
    meta_recovery: engine::fuzz_meta_recovery;
    block: engine::fuzz_block;
    backup: engine::fuzz_backup;
    segment: engine::fuzz_segment;
    run: engine::fuzz_run;
    encrypted: engine::fuzz_encrypted;
    timers: engine::fuzz_timers;
    ids: engine::fuzz_ids;
    protocol: server::fuzz_protocol;
    headers: server::fuzz_headers;
    config: server::fuzz_config;
    jetstream_requests: riverlog_server::jetstream::fuzzing::fuzz_jetstream_requests;
}
