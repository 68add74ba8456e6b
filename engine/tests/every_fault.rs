//! Promise A9: every operation of a script can go wrong, one at a time, with every kind of fault.
//!
//! A failed write or sync of the log stops the store: nothing is acknowledged afterwards (I15). Any
//! other fault refuses at most the action it hits, changes nothing in RAM, and the store goes on
//! acknowledging. Whatever happened, what was acknowledged is there after a restart.

mod support;

use riverlog_engine::io::sim::{Fault, FaultMatrix, SimClock, SimDisk};
use riverlog_engine::{Append, AppendError, Lsn, ReadError, Store};
use std::path::Path;
use support::model::ModelStream;
use support::{
    Action, DIR, ENCRYPTED, Halt, Pair, config, differences, env, readable_or_reported, reopen,
};

const START_NS: i64 = 1_700_000_000_000_000_000;

/// Faults after which no acknowledged byte may be missing or reported damaged.
const HONEST: [Fault; 7] = [
    Fault::ReadError,
    Fault::ShortRead,
    Fault::StaleRead,
    Fault::WriteError,
    Fault::NoSpace,
    Fault::SyncError,
    Fault::NameError,
];

/// Faults that damage sealed data behind the engine's back: reported, never passed on.
const DAMAGING: [Fault; 3] = [Fault::BitFlip, Fault::LostWrite, Fault::MisdirectedWrite];

fn append(subject: u8, len: u16) -> Action {
    Action::Append {
        subject,
        len,
        id: None,
    }
}

fn script() -> Vec<Action> {
    vec![
        append(0, 40),
        Action::Append {
            subject: 1,
            len: 10,
            id: Some(1),
        },
        append(2, 700),
        Action::Commit,
        Action::Delete(1),
        Action::Deliver(2),
        Action::Ack(0),
        Action::Commit,
        Action::Checkpoint,
        append(0, 5000),
        Action::Append {
            subject: 1,
            len: 10,
            id: Some(1),
        },
        Action::Commit,
        Action::Delete(0),
        Action::Deliver(2),
        Action::Ack(1),
        Action::Checkpoint,
        append(3, 30),
        Action::PurgeSubject(0),
        Action::Commit,
        append(2, 30),
        Action::Commit,
        Action::Checkpoint,
        append(4, 30),
        Action::Commit,
    ]
}

/// What a run was told, and what it found wrong while it ran.
struct Outcome {
    history: Vec<(Lsn, ModelStream)>,
    acknowledged: usize,
    verdict: Result<(), String>,
}

#[derive(Clone, Copy)]
enum End {
    /// The store is closed.
    Close,
    /// The process dies.
    Kill,
}

fn run(disk: &SimDisk, kind: u8, end: End) -> Option<Outcome> {
    let env = env(disk, &SimClock::new(START_NS), 1, kind);
    let mut pair = match Pair::create(&env, config(kind)) {
        Ok(pair) => pair,
        Err(Halt::Differs(what)) => panic!("{what}"),
        Err(_) => return None,
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
    let acknowledged = pair.acknowledged();
    let verdict = verdict.and_then(|()| after_the_script(disk, &mut pair));
    let outcome = Outcome {
        acknowledged: pair.acknowledged().max(acknowledged),
        history: std::mem::take(&mut pair.history),
        verdict,
    };
    if matches!(end, End::Kill) {
        disk.cut_power_now();
    }
    Some(outcome)
}

/// A stopped store acknowledges nothing; one that goes on has everything.
fn after_the_script(disk: &SimDisk, pair: &mut Pair) -> Result<(), String> {
    let log_failed = disk
        .log()
        .iter()
        .any(|op| op.fault.is_some() && op.path.contains("wal") && op.kind.changes_disk());
    if pair.store.stopped().is_none() {
        disk.clear_faults();
        let compared = pair.compare();
        compared.map_err(|halt| format!("afterwards: {halt:?}"))?;
        return nothing_is_left_behind(disk, pair);
    }
    if !log_failed {
        return Err("the store stopped although its log works".into());
    }
    let durable = pair.store.durable_lsn();
    let refused = pair.stream.append_nosync(&Append {
        subject: b"s.0",
        ..Append::default()
    });
    if !matches!(refused, Err(AppendError::Stopped(_))) {
        return Err(format!("a stopped store answered {refused:?}"));
    }
    pair.store.commit();
    let barrier = pair.store.barrier();
    let beyond = barrier.lsn() > durable && barrier.wait().is_ok();
    if pair.store.durable_lsn() != durable || beyond {
        return Err("a stopped store acknowledged something (I15)".into());
    }
    Ok(())
}

/// Failed attempts leave no files: once all messages are gone, so are all sealed files.
fn nothing_is_left_behind(disk: &SimDisk, pair: &mut Pair) -> Result<(), String> {
    for action in [Action::PurgeKeep(0), Action::Checkpoint, Action::Checkpoint] {
        let done = pair.act(&action);
        done.map_err(|halt| format!("{action:?} afterwards: {halt:?}"))?;
    }
    let files = disk.files().into_iter().map(|(path, _)| path);
    let left: Vec<String> = files
        .filter(|path| path.contains("seg/") || path.contains("idx/"))
        .collect();
    match left.is_empty() {
        true => Ok(()),
        false => Err(format!("files nobody needs: {left:?}")),
    }
}

fn after_restart(disk: SimDisk, outcome: &Option<Outcome>, kind: u8) -> Result<(), String> {
    let env = env(&disk, &SimClock::new(START_NS + 1_000_000), 2, kind);
    match outcome {
        Some(outcome) => {
            outcome.verdict.clone()?;
            reopen(&env, &outcome.history, outcome.acknowledged).map(|_| ())
        }
        // Nothing was acknowledged, but the directory must be usable.
        None => Store::open_in(env, Path::new(DIR), support::options())
            .map(|_| ())
            .map_err(|error| format!("an interrupted creation blocks the directory: {error}")),
    }
}

fn honest(kind: u8, end: End) {
    let runs = FaultMatrix::new(3)
        .run(
            &HONEST,
            |disk| run(disk, kind, end),
            |disk, outcome, _| after_restart(disk, outcome, kind),
        )
        .unwrap_or_else(|failure| panic!("{failure}"));
    assert!(runs > 100, "the script has operations to hit: {runs}");
}

#[test]
fn any_fault_then_a_kill() {
    honest(0, End::Kill);
}

#[test]
fn any_fault_then_a_close_encrypted() {
    honest(ENCRYPTED, End::Close);
}

#[test]
fn any_fault_with_a_limit_per_subject_and_compression() {
    honest(7, End::Kill);
}

/// Sealed data that the device damaged is reported with its sequence; nothing else is affected.
#[test]
fn damage_to_sealed_data_is_reported() {
    let runs = FaultMatrix::new(4)
        .on_paths("seg/")
        .run(
            &DAMAGING,
            |disk| {
                run(disk, ENCRYPTED, End::Kill)
                    .map(|outcome| (outcome.history, outcome.acknowledged))
            },
            |disk, outcome, _| {
                let Some((history, acknowledged)) = outcome else {
                    return Ok(());
                };
                let env = env(&disk, &SimClock::new(START_NS + 1_000_000), 2, ENCRYPTED);
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
    assert!(runs > 10, "the script has operations to hit: {runs}");
}

/// Damaged ids are refused with the file that holds them; no duplicate is stored a second time.
#[test]
fn damage_to_message_ids_is_reported() {
    let runs = FaultMatrix::new(8)
        .on_paths("ids/")
        .run(
            &DAMAGING,
            |disk| run(disk, 0, End::Kill).map(|outcome| (outcome.history, outcome.acknowledged)),
            |disk, outcome, _| {
                let Some((history, acknowledged)) = outcome else {
                    return Ok(());
                };
                let env = env(&disk, &SimClock::new(START_NS + 1_000_000), 2, 0);
                let (store, _) = Store::open_in(env, Path::new(DIR), support::options())
                    .map_err(|error| error.to_string())?;
                let stream = store.stream("S").ok_or("the stream is gone")?;
                for (id, (seq, _)) in &history[*acknowledged].1.ids {
                    let answer = stream.append_nosync(&Append {
                        subject: b"s.0",
                        msg_id: Some(id.as_bytes()),
                        ..Append::default()
                    });
                    match &answer {
                        Ok(done) if done.duplicate && done.seq.0 == *seq => {}
                        Err(AppendError::Read(ReadError::DamagedIds(damage)))
                            if damage.file.starts_with(DIR) => {}
                        _ => return Err(format!("{id} of sequence {seq}: {answer:?}")),
                    }
                }
                Ok(())
            },
        )
        .unwrap_or_else(|failure| panic!("{failure}"));
    assert!(runs > 5, "the script has operations to hit: {runs}");
}

/// A store that could not be opened is whole at the next attempt, and one that opened is whole now.
#[test]
fn any_fault_while_opening() {
    for (end, kind) in [(End::Kill, ENCRYPTED), (End::Close, 0)] {
        let disk = SimDisk::new(5);
        let Some(outcome) = run(&disk, kind, end) else {
            panic!("no fault was injected")
        };
        outcome.verdict.unwrap_or_else(|what| panic!("{what}"));
        let newest = outcome.history.len() - 1;
        let faults: Vec<Fault> = HONEST
            .into_iter()
            .filter(|fault| *fault != Fault::StaleRead)
            .collect();
        let runs = FaultMatrix::new(6)
            .starting_from(&disk.kill_process())
            .run(
                &faults,
                |disk| {
                    let env = env(disk, &SimClock::new(START_NS + 1_000_000), 2, kind);
                    let opened = Store::open_in(env, Path::new(DIR), support::options());
                    let Ok((store, _)) = opened else {
                        return Ok(());
                    };
                    disk.clear_faults();
                    let Some(stream) = store.stream("S") else {
                        return Err("the stream is gone".to_owned());
                    };
                    let compared = differences(&stream, &outcome.history[newest].1);
                    disk.cut_power_now();
                    compared
                },
                |disk, verdict, _| {
                    verdict.clone()?;
                    let env = env(&disk, &SimClock::new(START_NS + 2_000_000), 3, kind);
                    reopen(&env, &outcome.history, newest).map(|_| ())
                },
            )
            .unwrap_or_else(|failure| panic!("{failure}"));
        assert!(runs > 30, "opening has operations to hit: {runs}");
    }
}
