//! Random scripts against the reference model: several streams of both storages, filtered consumers,
//! disk faults, power cuts, kills and clean stops, and several lives of one store.
//!
//! `RIVERLOG_SEEDS` sets the number of seeds (default 60), `RIVERLOG_SEED` runs a single one and prints
//! its steps. A failure names its seed; the same seed runs the same script.

mod support;

use std::path::Path;

use riverlog_engine::consumer::ConsumerConfig;
use riverlog_engine::io::Env;
use riverlog_engine::io::sim::oracle;
use riverlog_engine::io::sim::{Fault, OpKind, Persist, SimClock, SimDisk, Trigger};
use riverlog_engine::{Lsn, Storage, Store, StreamConfig};
use support::model::ModelStream;
use support::{Action, DIR, Halt, Pair, config, env, state_after_restart, subject_name};

const START_NS: i64 = 1_700_000_000_000_000_000;
const LIVES: u64 = 3;

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn persist(&mut self) -> Persist {
        match self.below(3) {
            0 => Persist::FIXED[self.below(Persist::FIXED.len() as u64) as usize],
            _ => Persist::Random { seed: self.next() },
        }
    }
}

fn action(rng: &mut Rng, ttl: bool) -> Action {
    if ttl && rng.below(6) == 0 {
        return Action::AppendTtl(rng.below(5) as u8, rng.below(9) as u8);
    }
    match rng.below(100) {
        0..=54 => Action::Append {
            subject: rng.below(5) as u8,
            len: if rng.below(40) == 0 {
                40_000
            } else {
                rng.below(200) as u16
            },
            id: (rng.below(4) == 0).then(|| rng.below(40) as u8),
        },
        55..=62 => Action::Delete(rng.next() as u16),
        63..=64 => Action::PurgeSubject(rng.below(5) as u8),
        65 => Action::PurgeBelow(rng.below(12) as u16),
        66 => Action::PurgeKeep(rng.below(6) as u16 + 1),
        67..=74 => Action::Deliver(rng.below(4) as u8 + 1),
        75..=78 => Action::Ack(rng.next() as u8),
        79 => Action::Term(rng.next() as u8),
        80..=81 => Action::Nak(rng.next() as u8, [0, 0, 700][rng.below(3) as usize]),
        82 => Action::InProgress(rng.next() as u8),
        83..=90 => Action::Commit,
        91..=94 => Action::Upkeep,
        95..=96 => Action::Compact,
        _ => Action::Checkpoint,
    }
}

/// A consumer of the matrix.
fn consumer(rng: &mut Rng) -> ConsumerConfig {
    ConsumerConfig {
        filters: match rng.below(2) {
            0 => Vec::new(),
            _ => vec![subject_name(rng.below(5) as u8)],
        },
        ack_wait_ns: [2_000_000_000, 3_600_000_000_000][rng.below(2) as usize],
        backoff_ns: match rng.below(4) {
            0 => vec![500_000_000, 2_500_000_000],
            _ => Vec::new(),
        },
        max_deliver: (rng.below(3) == 0).then(|| 2 + rng.below(3)),
        max_ack_pending: (rng.below(3) == 0).then(|| 2 + rng.below(4)),
        ..support::consumer_config()
    }
}

/// What is known of one stream.
struct Known {
    config: StreamConfig,
    consumer: ConsumerConfig,
    history: Vec<(Lsn, ModelStream)>,
    acknowledged: usize,
    created: bool,
    /// The last life ended with a clean stop.
    closed: bool,
}

struct World {
    seed: u64,
    rng: Rng,
    clock: SimClock,
    streams: Vec<Known>,
    /// Every step is printed.
    traces: bool,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = Rng(seed);
        let streams = 1 + rng.below(3);
        let streams = (0..streams)
            .map(|n| Known {
                config: StreamConfig {
                    name: format!("S{n}"),
                    storage: if rng.below(4) == 0 {
                        Storage::Memory
                    } else {
                        Storage::File
                    },
                    ..config(rng.below(16) as u8)
                },
                consumer: consumer(&mut rng),
                history: Vec::new(),
                acknowledged: 0,
                created: false,
                closed: false,
            })
            .collect();
        World {
            seed,
            rng,
            clock: SimClock::new(START_NS),
            streams,
            traces: std::env::var_os("RIVERLOG_SEED").is_some(),
        }
    }

    /// Every other world is encrypted.
    fn kind(&self) -> u8 {
        (self.seed % 2) as u8 * support::ENCRYPTED
    }

    /// In some worlds messages have a life time of their own. No call fails in these: what is due may
    /// stay then, and the model knows of the beginning of a stream only how far that went.
    fn has_ttl(&self) -> bool {
        self.seed % 8 > 4
    }

    fn fail(&self, life: u64, what: &str) -> ! {
        panic!("seed {}, life {life}: {what}", self.seed)
    }

    /// Opens the store and finds every stream in a state it may be in; starts those that are new.
    fn open(&mut self, disk: &SimDisk, life: u64) -> Vec<Pair> {
        let seed = self.seed ^ (life << 32);
        let env = env(disk, &self.clock, seed, self.kind());
        let store = self.open_store(disk, &env, life);
        let mut pairs = Vec::new();
        for n in 0..self.streams.len() {
            let known = &self.streams[n];
            let config = known.config.clone();
            let brought_back = known.created && config.storage == Storage::File;
            let pair = if brought_back && known.closed {
                match known.history.last() {
                    Some((_, model)) => Pair::after_close(&store, &env, config, model.clone()),
                    None => self.fail(life, "a stream has a first state"),
                }
            } else if brought_back {
                let (history, acknowledged) = (&known.history, known.acknowledged);
                match state_after_restart(&store, &config.name, history, acknowledged) {
                    Ok(at) => Pair::again(&store, &env, config, history[at].1.clone()),
                    Err(what) => self.fail(life, &what),
                }
            } else {
                Pair::in_store(&store, &env, config, known.consumer.clone())
            };
            match pair {
                Ok(mut pair) => {
                    if let Some(first) = pairs.first() {
                        pair.in_store_of(first);
                    }
                    pairs.push(pair);
                }
                Err(halt) => self.fail(life, &format!("{halt:?}")),
            }
            self.streams[n].created = true;
        }
        store.commit();
        pairs
    }

    /// Opens and checks that only the log and the metadata were read, each byte once (I14).
    fn open_store(&self, disk: &SimDisk, env: &Env, life: u64) -> Store {
        let start_up: u64 = disk
            .files()
            .iter()
            .filter(|(path, _)| path.contains("wal/") || path.contains("meta/"))
            .map(|(_, len)| *len)
            .sum();
        let before = disk.ops();
        let store = match Store::open_in(env.clone(), Path::new(DIR), support::options()) {
            Ok((store, _)) => store,
            Err(error) => self.fail(life, &error.to_string()),
        };
        let mut read = 0;
        for op in disk.log().iter().filter(|op| op.number > before) {
            if op.kind == OpKind::Read {
                read += op.len;
                if op.path.contains("seg/") || op.path.contains("idx/") {
                    self.fail(life, &format!("opening reads sealed data: {op}"));
                }
            }
        }
        // The identity and the second header copies come on top.
        if start_up > 0 && read > start_up + 4096 {
            self.fail(life, &format!("opening read {read} bytes of {start_up}"));
        }
        store
    }

    /// Makes the disk misbehave, sometimes; says whether.
    fn break_something(&mut self, disk: &SimDisk) -> bool {
        let faults = [
            Fault::ReadError,
            Fault::WriteError,
            Fault::NoSpace,
            Fault::SyncError,
            Fault::NameError,
        ];
        if self.rng.below(3) > 0 {
            return false;
        }
        for _ in 0..=self.rng.below(2) {
            let fault = faults[self.rng.below(faults.len() as u64) as usize];
            let place = ["", "seg/", "idx/", "meta/", "seg/"][self.rng.below(5) as usize];
            let chance = [5_000, 50_000, 400_000][self.rng.below(3) as usize];
            disk.inject_on(place, fault, Trigger::PerMillion(chance));
        }
        true
    }

    /// One life: actions until the power goes, the log fails or the script ends.
    fn live(&mut self, disk: &SimDisk, life: u64, pairs: &mut [Pair]) {
        let faulty = !self.has_ttl() && self.break_something(disk);
        for pair in &mut *pairs {
            pair.faulty = faulty;
        }
        if !faulty && self.rng.below(4) > 0 {
            disk.cut_power_after(4 + self.rng.below(400));
        }
        let steps = 20 + self.rng.below(120);
        for step in 0..steps {
            let has_ttl = self.has_ttl();
            let action = action(&mut self.rng, has_ttl);
            let at = self.rng.below(pairs.len() as u64) as usize;
            let pause_ns = match self.rng.below(10) {
                0 => 1_300_000_000,
                _ => 1_000,
            };
            self.clock.advance_ns(pause_ns);
            let done = pairs[at].act(&action);
            if self.traces {
                eprintln!("life {life}, step {step}: {action:?} of S{at}: {done:?}");
            }
            match done {
                Ok(()) | Err(Halt::Refused(_)) if disk.is_powered() => {}
                Ok(()) | Err(Halt::Refused(_) | Halt::Stopped) => break,
                Err(Halt::Differs(_)) if !disk.is_powered() => break,
                Err(Halt::Differs(what)) => {
                    self.fail(life, &format!("step {step}, {action:?}: {what}"))
                }
            }
            if !faulty && self.rng.below(25) == 0 {
                self.compare(disk, life, &mut pairs[at], step);
            }
        }
        disk.clear_faults();
        if disk.is_powered() && pairs[0].store.stopped().is_none() {
            for pair in pairs {
                self.compare(disk, life, pair, steps);
            }
        }
    }

    fn compare(&self, disk: &SimDisk, life: u64, pair: &mut Pair, step: u64) {
        match pair.compare() {
            Ok(()) | Err(Halt::Stopped | Halt::Refused(_)) => {}
            // Reads fail as well once the power is off.
            Err(Halt::Differs(_)) if !disk.is_powered() => {}
            Err(Halt::Differs(what)) => self.fail(life, &format!("after step {step}: {what}")),
        }
    }

    /// Ends a life one way or another; returns the disk of the next one.
    fn end(&mut self, disk: &SimDisk, mut pairs: Vec<Pair>) -> SimDisk {
        let closes = disk.is_powered() && self.rng.below(3) == 0;
        let kills = self.rng.below(2) == 0;
        if !closes {
            disk.cut_power_now();
        }
        if let Some(op) = oracle::changed_after_sync(&disk.log(), &["seg/", "idx/", "ids/"]) {
            panic!("seed {}: a sealed file was changed: {op}", self.seed);
        }
        let stopped = pairs[0].store.stopped().is_some();
        for (known, pair) in self.streams.iter_mut().zip(&mut pairs) {
            pair.catch_up();
            known.acknowledged = pair.acknowledged();
            known.history = std::mem::take(&mut pair.history);
            known.closed = closes && !stopped && !pair.consumer_unknown;
        }
        drop(pairs);
        let power_lasted = disk.is_powered();
        for known in &mut self.streams {
            known.closed &= power_lasted;
        }
        let disk = match kills {
            true => disk.kill_process(),
            false => disk.crash(self.rng.persist()),
        };
        // Recovery itself is cut short sometimes; what it left must serve the next one.
        if self.rng.below(2) == 0 {
            return disk;
        }
        disk.cut_power_after(self.rng.below(40));
        let env = env(&disk, &self.clock, self.seed ^ 0xff, self.kind());
        drop(Store::open_in(env, Path::new(DIR), support::options()));
        disk.crash(self.rng.persist())
    }
}

fn run_seed(seed: u64) {
    let mut world = World::new(seed);
    let mut disk = SimDisk::new(seed);
    for life in 0..LIVES {
        let mut pairs = world.open(&disk, life);
        world.live(&disk, life, &mut pairs);
        disk = world.end(&disk, pairs);
    }
    drop(world.open(&disk, LIVES));
}

#[test]
fn random_scripts_survive_faults_and_restarts() {
    if let Ok(seed) = std::env::var("RIVERLOG_SEED") {
        return run_seed(seed.parse().expect("RIVERLOG_SEED is a number"));
    }
    let seeds = std::env::var("RIVERLOG_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(60);
    for seed in 0..seeds {
        run_seed(seed);
    }
}
