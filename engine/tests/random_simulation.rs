//! Random scripts against the reference model, with power cuts and restarts at random places.
//!
//! `RIVERLOG_SEEDS` sets the number of seeds (default 60), `RIVERLOG_SEED` runs a single one. A
//! failure names its seed; the same seed runs the same script.

mod support;

use riverlog_engine::io::Env;
use riverlog_engine::io::sim::{Persist, SimClock, SimDisk};
use riverlog_engine::{Store, Threads};
use support::{Action, Halt, Pair, config, reopen};

const START_NS: i64 = 1_700_000_000_000_000_000;

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
}

fn action(rng: &mut Rng) -> Action {
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
        75..=82 => Action::Ack(rng.next() as u8),
        83..=92 => Action::Commit,
        93..=96 => Action::Upkeep,
        _ => Action::Checkpoint,
    }
}

fn run_seed(seed: u64) {
    let mut rng = Rng(seed);
    let disk = SimDisk::new(seed);
    let clock = SimClock::new(START_NS);
    let config = config(rng.below(10) as u8);
    let env = Env::simulated(&disk, &clock, seed);
    let cut_after = 4 + rng.below(400);
    let mut pair = match Pair::create(&env, config) {
        Ok(pair) => pair,
        Err(halt) => panic!("seed {seed}: {halt:?}"),
    };
    disk.cut_power_after(cut_after);
    let steps = 20 + rng.below(150);
    for step in 0..steps {
        let action = action(&mut rng);
        clock.advance_ns(1_000);
        match pair.act(&action) {
            Ok(()) => {}
            Err(Halt::Stopped | Halt::Refused(_)) => break,
            Err(Halt::Differs(_)) if !disk.is_powered() => break,
            Err(Halt::Differs(what)) => panic!("seed {seed}, step {step}, {action:?}: {what}"),
        }
        if rng.below(25) == 0 {
            match pair.compare() {
                Ok(()) | Err(Halt::Stopped | Halt::Refused(_)) => {}
                // Reads fail as well once the power is off.
                Err(Halt::Differs(_)) if !disk.is_powered() => {}
                Err(Halt::Differs(what)) => panic!("seed {seed}, after step {step}: {what}"),
            }
        }
    }
    let acknowledged = pair.acknowledged();
    let history = std::mem::take(&mut pair.history);
    let persist = match rng.below(3) {
        0 => Persist::FIXED[rng.below(Persist::FIXED.len() as u64) as usize],
        _ => Persist::Random { seed: rng.next() },
    };
    let survivor = disk.crash(persist);
    drop(pair);
    // Twice: recovery itself is cut as well, and what it left must serve the next one.
    let second = survivor.fork();
    second.cut_power_after(rng.below(40));
    let interrupted = Env::simulated(&second, &clock, seed ^ 0xff);
    let mut options = support::options();
    options.threads = Threads::Manual;
    drop(Store::open_in(
        interrupted,
        std::path::Path::new(support::DIR),
        options,
    ));
    for disk in [survivor, second.crash(Persist::Random { seed: rng.next() })] {
        let env = Env::simulated(&disk, &clock, seed ^ 0xffff);
        if let Err(what) = reopen(&env, &history, acknowledged) {
            panic!("seed {seed}, after a power cut ({persist:?}): {what}");
        }
    }
}

#[test]
fn random_scripts_survive_power_cuts() {
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
