//! Promise A1 and invariants I5, I6 across compaction, exhaustively: the power is cut after every change
//! of the disk during a script that rewrites, merges and removes sealed files. What was acknowledged
//! is there, what was removed stays away, and what came back is one state the stream went through.
//! Every operation of the same script also fails once, with every kind of fault.

mod support;

use std::path::Path;

use riverlog_engine::io::Env;
use riverlog_engine::io::sim::{
    CrashFailure, CrashMatrix, CrashReport, Fault, FaultMatrix, OpKind, SimClock, SimDisk, Trigger,
};
use riverlog_engine::{Lsn, Store};
use support::model::ModelStream;
use support::{Action, DIR, Halt, Pair, config, readable_or_reported, reopen};

const START_NS: i64 = 1_700_000_000_000_000_000;

fn append(subject: u8, len: u16) -> Action {
    Action::Append {
        subject,
        len,
        id: None,
    }
}

/// A file that is rewritten, eight that are merged, one that dies; deletes before, between and after,
/// acknowledged and not.
fn script() -> Vec<Action> {
    let mut script = vec![
        append(0, 900),
        append(1, 700),
        append(2, 300),
        append(3, 300),
        Action::Commit,
        Action::Checkpoint,
        Action::Delete(0),
        Action::Delete(0),
        Action::Commit,
        append(3, 20),
        Action::Compact,
        Action::Ack(0),
        Action::Delete(0),
        Action::Compact,
        Action::Commit,
    ];
    for n in 0..7 {
        script.push(append(n % 3, 30));
        script.push(append(4, 60));
        script.push(Action::Checkpoint);
    }
    script.extend([
        Action::Delete(2),
        Action::Compact,
        append(4, 12),
        Action::Commit,
        Action::PurgeSubject(4),
        Action::Compact,
        append(1, 9),
        Action::PurgeKeep(1),
        Action::Compact,
        Action::Checkpoint,
        append(2, 9),
        Action::Commit,
    ]);
    script
}

type Outcome = Option<(Vec<(Lsn, ModelStream)>, usize)>;

fn run(disk: &SimDisk, kind: u8) -> Outcome {
    let env = Env::simulated(disk, &SimClock::new(START_NS), 1);
    let mut pair = match Pair::create(&env, config(kind)) {
        Ok(pair) => pair,
        Err(Halt::Stopped | Halt::Refused(_)) => return None,
        Err(Halt::Differs(what)) => panic!("before any crash: {what}"),
    };
    for action in script() {
        match pair.act(&action) {
            Ok(()) => {}
            Err(Halt::Stopped | Halt::Refused(_)) => break,
            Err(Halt::Differs(what)) => panic!("{action:?}: {what}"),
        }
    }
    let acknowledged = pair.acknowledged();
    Some((std::mem::take(&mut pair.history), acknowledged))
}

fn matrix(kind: u8, broken: impl Fn(&SimDisk)) -> Result<CrashReport, CrashFailure<String>> {
    CrashMatrix::new(11).random_outcomes(2).run(
        |disk| {
            broken(disk);
            run(disk, kind)
        },
        |survivor, acknowledged, _| {
            let Some((history, acknowledged)) = acknowledged else {
                return Ok(());
            };
            let env = Env::simulated(&survivor, &SimClock::new(START_NS + 1_000_000), 2);
            let (store, at) = reopen(&env, history, *acknowledged)?;
            // Nothing is left over: what a compaction did not complete is not in its way.
            store.compact().map_err(|error| error.to_string())?;
            nothing_unnamed(&survivor, &store)?;
            let stream = store.stream("S").ok_or("the stream is gone")?;
            support::differences(&stream, &history[at].1)
        },
    )
}

/// Every sealed file is one that the store counts.
fn nothing_unnamed(disk: &SimDisk, store: &Store) -> Result<(), String> {
    let files = disk.files();
    let sealed = files.iter().filter(|(path, _)| path.ends_with(".seg"));
    let (found, known) = (sealed.count() as u64, store.space().files);
    if found == known {
        return Ok(());
    }
    Err(format!("{found} sealed files, {known} are known"))
}

fn crash_everywhere(kind: u8) {
    let report = matrix(kind, |_| {}).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(
        report.points > 150,
        "the script changes the disk: {report:?}"
    );
}

#[test]
fn the_script_rewrites_merges_and_removes() {
    let disk = SimDisk::new(1);
    let env = Env::simulated(&disk, &SimClock::new(START_NS), 1);
    let mut pair = Pair::create(&env, config(0)).expect("a store");
    for action in script() {
        pair.act(&action).expect("no fault was injected");
    }
    let space = pair.store.space();
    assert!(space.compactions >= 3, "{space:?}");
    assert!(space.files_replaced > space.compactions + 6, "{space:?}");
    assert!(space.files_dead >= 1, "{space:?}");
}

#[test]
fn without_limits() {
    crash_everywhere(0);
}

#[test]
fn with_a_limit_per_subject_compressed() {
    crash_everywhere(7);
}

/// The canary: if the directory of sealed files is never synced, a compaction that removes its inputs
/// loses acknowledged messages, and the same harness must see it.
#[test]
fn outputs_that_are_not_durable_are_caught() {
    let result = matrix(0, |disk| {
        disk.inject_on("seg", Fault::LyingSync, Trigger::Always)
    });
    assert!(
        matches!(result, Err(CrashFailure::Check { .. })),
        "unsynced outputs went unnoticed: {result:?}"
    );
}

/// Any fault during compaction costs at most the action it hits; nothing acknowledged is lost.
#[test]
fn any_fault_then_a_kill() {
    let faults = [
        Fault::ReadError,
        Fault::ShortRead,
        Fault::WriteError,
        Fault::NoSpace,
        Fault::SyncError,
        Fault::NameError,
    ];
    let runs = FaultMatrix::new(3)
        .run(
            &faults,
            |disk| {
                let env = Env::simulated(disk, &SimClock::new(START_NS), 1);
                let Ok(mut pair) = Pair::create(&env, config(0)) else {
                    return None;
                };
                let mut verdict = Ok(());
                for action in script() {
                    match pair.act(&action) {
                        Ok(()) | Err(Halt::Refused(_)) => {}
                        Err(Halt::Stopped) => break,
                        Err(Halt::Differs(what)) => {
                            verdict = Err(format!("{action:?}: {what}"));
                            break;
                        }
                    }
                }
                let log_failed = disk.log().iter().any(|op| {
                    op.fault.is_some() && op.path.contains("wal") && op.kind.changes_disk()
                });
                if pair.store.stopped().is_some() && !log_failed {
                    verdict = Err("the store stopped although its log works".into());
                }
                if pair.store.stopped().is_none() && verdict.is_ok() {
                    disk.clear_faults();
                    verdict = settle(disk, &mut pair);
                }
                let acknowledged = pair.acknowledged();
                let history = std::mem::take(&mut pair.history);
                disk.cut_power_now();
                Some((history, acknowledged, verdict))
            },
            |disk, outcome, _| {
                let Some((history, acknowledged, verdict)) = outcome else {
                    return Ok(());
                };
                verdict.clone()?;
                let env = Env::simulated(&disk, &SimClock::new(START_NS + 1_000_000), 2);
                reopen(&env, history, *acknowledged).map(|_| ())
            },
        )
        .unwrap_or_else(|failure| panic!("{failure}"));
    assert!(runs > 300, "the script has operations to hit: {runs}");
}

/// A store that goes on has everything, and no file that nobody needs.
fn settle(disk: &SimDisk, pair: &mut Pair) -> Result<(), String> {
    pair.compare().map_err(|halt| format!("{halt:?}"))?;
    pair.store.checkpoint().map_err(|error| error.to_string())?;
    pair.store.compact().map_err(|error| error.to_string())?;
    pair.compare().map_err(|halt| format!("{halt:?}"))?;
    nothing_unnamed(disk, &pair.store)
}

/// Damage to files that a compaction reads or writes is reported, never passed on and never made to
/// look like absence.
#[test]
fn damage_is_reported_and_not_copied() {
    let faults = [Fault::BitFlip, Fault::LostWrite, Fault::MisdirectedWrite];
    let runs = FaultMatrix::new(4)
        .on_paths("seg/")
        .run(
            &faults,
            |disk| run(disk, 0),
            |disk, outcome, _| {
                let Some((history, acknowledged)) = outcome else {
                    return Ok(());
                };
                let env = Env::simulated(&disk, &SimClock::new(START_NS + 1_000_000), 2);
                let (store, _) = Store::open_in(env, Path::new(DIR), support::options())
                    .map_err(|error| error.to_string())?;
                let stream = store.stream("S").ok_or("the stream is gone")?;
                let mut difference = String::new();
                for (_, model) in history[*acknowledged..].iter().rev() {
                    match readable_or_reported(&stream, model) {
                        Ok(_) => return Ok(()),
                        Err(what) => difference = what,
                    }
                }
                Err(difference)
            },
        )
        .unwrap_or_else(|failure| panic!("{failure}"));
    assert!(runs > 30, "the script has operations to hit: {runs}");
}

/// Sealed files are written once: no compaction touches a byte of a file that a commit has named (I5).
#[test]
fn sealed_files_never_change() {
    let disk = SimDisk::new(1);
    run(&disk, 0).expect("no fault was injected");
    let mut synced = std::collections::BTreeSet::new();
    for op in disk.log().iter().filter(|op| op.path.ends_with(".seg")) {
        match op.kind {
            OpKind::Sync => {
                synced.insert(op.path.clone());
            }
            OpKind::Write | OpKind::SetLen | OpKind::Allocate => {
                assert!(!synced.contains(&op.path), "{op} after its sync");
            }
            _ => {}
        }
    }
    assert!(synced.len() > 8);
}
