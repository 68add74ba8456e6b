//! Promise A9 on a disk without room: an append is refused before it has a sequence; reads, deletes,
//! purges and acknowledgements go on; with space back, appends go on without a restart. Nothing that
//! was acknowledged is lost, however little room there is.

mod support;

use std::path::Path;

use riverlog_engine::io::Env;
use riverlog_engine::io::sim::{SimClock, SimDisk};
use riverlog_engine::{Append, AppendError, OpenError, Store};
use support::{Action, DIR, Halt, Pair, config, reopen};

const START_NS: i64 = 1_700_000_000_000_000_000;
const PLENTY: u64 = 1 << 40;

fn append(n: u64) -> Action {
    Action::Append {
        subject: n as u8,
        len: 500 + (n % 7) as u16 * 700,
        id: None,
    }
}

/// Does what can be done; a refusal is an answer too. Panics on anything else.
fn act(pair: &mut Pair, action: &Action, what: &str) -> bool {
    match pair.act(action) {
        Ok(()) => true,
        Err(Halt::Refused(_)) => false,
        Err(halt) => panic!("{what}: {action:?}: {halt:?}"),
    }
}

/// Appends until nothing is accepted any more.
fn fill(pair: &mut Pair, what: &str) {
    let mut refused = 0;
    for n in 0..5_000 {
        if act(pair, &append(n), what) {
            refused = 0;
        } else {
            refused += 1;
        }
        if n % 5 == 0 {
            act(pair, &Action::Upkeep, what);
        }
        if refused == 20 {
            return;
        }
    }
    panic!("{what}: the disk never fills up");
}

/// Appends until one is accepted again.
fn resumes(pair: &mut Pair, what: &str) {
    for n in 0..400 {
        if act(pair, &append(n), what) {
            return;
        }
        act(pair, &Action::Upkeep, what);
    }
    panic!("{what}: appends do not resume");
}

fn capacities() -> impl Iterator<Item = u64> {
    // From a store that has just room for its log to one with several sealed files.
    (0..12).map(|n| (480 + n * 52) * 1024)
}

fn filled(capacity: u64, what: &str) -> Option<(SimDisk, Pair)> {
    let disk = SimDisk::new(capacity);
    disk.set_capacity(capacity);
    let env = Env::simulated(&disk, &SimClock::new(START_NS), 1);
    let Ok(mut pair) = Pair::create(&env, config(0)) else {
        return None;
    };
    fill(&mut pair, what);
    Some((disk, pair))
}

fn compare(pair: &mut Pair, what: &str) {
    if let Err(halt) = pair.compare() {
        panic!("{what}: {halt:?}");
    }
}

#[test]
fn everything_but_appends_goes_on() {
    let mut filled_up = 0;
    for capacity in capacities() {
        let what = format!("{capacity} bytes");
        let Some((_disk, mut pair)) = filled(capacity, &what) else {
            continue;
        };
        filled_up += 1;
        compare(&mut pair, &what);
        for n in 0..20 {
            for action in [
                Action::Deliver(2),
                Action::Ack(0),
                Action::Delete(n * 3),
                Action::Commit,
            ] {
                assert!(
                    act(&mut pair, &action, &what),
                    "{what}: {action:?} is refused"
                );
            }
        }
        compare(&mut pair, &what);
        assert!(pair.store.stopped().is_none());
    }
    assert!(filled_up > 5, "{filled_up} sizes hold a store");
}

#[test]
fn a_refused_append_says_why_and_leaves_no_trace() {
    let mut no_space = 0;
    for capacity in capacities() {
        let what = format!("{capacity} bytes");
        let Some((_disk, pair)) = filled(capacity, &what) else {
            continue;
        };
        let before = pair.stream.state();
        let refused = pair.stream.append_nosync(&Append {
            subject: b"s.0",
            payload: &[7; 3_000],
            ..Append::default()
        });
        match refused {
            Err(AppendError::NoSpace) => no_space += 1,
            Err(AppendError::Busy) => {}
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!(pair.stream.state(), before, "{what}");
    }
    assert!(no_space > 3, "{no_space} full disks were called so");
}

#[test]
fn appends_resume_when_space_comes_from_outside() {
    for capacity in capacities() {
        let what = format!("{capacity} bytes");
        let Some((disk, mut pair)) = filled(capacity, &what) else {
            continue;
        };
        disk.set_capacity(PLENTY);
        resumes(&mut pair, &what);
        compare(&mut pair, &what);
    }
}

#[test]
fn appends_resume_when_a_purge_makes_space() {
    for capacity in capacities() {
        let what = format!("{capacity} bytes");
        let Some((_disk, mut pair)) = filled(capacity, &what) else {
            continue;
        };
        let purge = Action::PurgeKeep(0);
        assert!(
            act(&mut pair, &purge, &what),
            "{what}: the purge is refused"
        );
        resumes(&mut pair, &what);
        compare(&mut pair, &what);
    }
}

#[test]
fn a_full_store_opens_or_says_that_it_needs_space() {
    for capacity in capacities() {
        for closed in [false, true] {
            let what = format!("{capacity} bytes, closed: {closed}");
            let Some((disk, mut pair)) = filled(capacity, &what) else {
                continue;
            };
            act(&mut pair, &Action::Commit, &what);
            let acknowledged = pair.acknowledged();
            let history = std::mem::take(&mut pair.history);
            if !closed {
                disk.cut_power_now();
            }
            drop(pair);
            let disk = disk.kill_process();
            for attempt in 0..3 {
                let env = Env::simulated(&disk, &SimClock::new(START_NS + 1), 2 + attempt);
                match Store::open_in(env, Path::new(DIR), support::options()) {
                    Ok(_) | Err(OpenError::NoSpace { .. }) => {}
                    Err(error) => panic!("{what}: {error}"),
                }
            }
            disk.set_capacity(PLENTY);
            let env = Env::simulated(&disk, &SimClock::new(START_NS + 2), 9);
            if let Err(difference) = reopen(&env, &history, acknowledged) {
                panic!("{what}: {difference}");
            }
        }
    }
}
