//! Scripts made of bytes: the whole engine against the model, for fuzzing.

use std::path::Path;

use riverlog_engine::Store;
use riverlog_engine::io::Env;
use riverlog_engine::io::sim::{Persist, SimClock, SimDisk};

use super::{Action, DIR, Halt, Pair, config, options, state_after_restart};

const START_NS: i64 = 1_700_000_000_000_000_000;
/// Longest script: a fuzzer gains nothing from longer ones.
const STEPS_MAX: usize = 300;

/// What a step does besides actions.
enum Step {
    Act(Action),
    Wait(i64),
    Compare,
    Kill,
    CutPower,
    Close,
}

fn step(bytes: &mut impl Iterator<Item = u8>) -> Option<Step> {
    let code = bytes.next()?;
    let mut next = || bytes.next().unwrap_or(0);
    Some(match code % 24 {
        0..=7 => Step::Act(Action::Append {
            subject: next(),
            len: u16::from(next()) * if code > 250 { 150 } else { 1 },
            id: (code & 0x40 != 0).then_some(code % 11),
        }),
        8 => Step::Act(Action::Delete(u16::from(next()))),
        9 => Step::Act(Action::PurgeSubject(next())),
        10 => Step::Act(Action::PurgeBelow(u16::from(next() % 16))),
        11 => Step::Act(Action::PurgeKeep(u16::from(next() % 8) + 1)),
        12 | 13 => Step::Act(Action::Deliver(next() % 4 + 1)),
        14 => Step::Act(Action::Ack(next())),
        15 => Step::Act(Action::Nak(next(), u16::from(next()))),
        16 => Step::Act(Action::Term(next())),
        17 => Step::Act(Action::InProgress(next())),
        18 => Step::Act(Action::Commit),
        19 => Step::Act(Action::Checkpoint),
        20 => Step::Act(Action::Upkeep),
        21 => Step::Wait(i64::from(next()) * 20_000_000),
        22 => Step::Compare,
        _ => match next() % 3 {
            0 => Step::Kill,
            1 => Step::CutPower,
            _ => Step::Close,
        },
    })
}

/// Runs a script; panics where store and model differ.
pub fn run(data: &[u8]) {
    let mut bytes = data.iter().copied();
    let kind = bytes.next().unwrap_or(0) % 16;
    let clock = SimClock::new(START_NS);
    let mut disk = SimDisk::new(1);
    let mut env = Env::simulated(&disk, &clock, 1);
    let mut pair = Pair::create(&env, config(kind)).expect("no fault was injected");
    for number in 0..STEPS_MAX {
        let Some(step) = step(&mut bytes) else { break };
        let ends = matches!(step, Step::Kill | Step::CutPower | Step::Close);
        match step {
            Step::Act(action) => match pair.act(&action) {
                Ok(()) | Err(Halt::Refused(_)) => {}
                Err(halt) => panic!("step {number}, {action:?}: {halt:?}"),
            },
            Step::Wait(ns) => clock.advance_ns(ns),
            Step::Compare => pair.compare().expect("as the model says"),
            Step::Kill | Step::CutPower | Step::Close => {
                let closes = matches!(step, Step::Close);
                if !closes {
                    disk.cut_power_now();
                }
                pair.catch_up();
                let acknowledged = pair.acknowledged();
                let history = std::mem::take(&mut pair.history);
                drop(pair);
                disk = match step {
                    Step::CutPower => disk.crash(Persist::Random { seed: 7 }),
                    _ => disk.kill_process(),
                };
                env = Env::simulated(&disk, &clock, number as u64 + 2);
                let opened = Store::open_in(env.clone(), Path::new(DIR), options());
                let (store, _) = opened.expect("it opens again");
                let newest = history.last().expect("a first state").1.clone();
                pair = if closes {
                    Pair::after_close(&store, &env, config(kind), newest)
                } else {
                    let at = state_after_restart(&store, "S", &history, acknowledged);
                    let model = history[at.expect("a state it went through")].1.clone();
                    Pair::again(&store, &env, config(kind), model)
                }
                .expect("the stream is there");
            }
        }
        if ends {
            pair.compare().expect("as the model says");
        }
    }
    pair.compare().expect("as the model says");
}
