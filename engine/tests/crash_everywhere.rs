//! Promise A1, exhaustively: the power is cut after every change of the disk during a short script,
//! with every kind of outcome for what was not synced. What was acknowledged is there; what came
//! back is one state the stream went through.

mod support;

use riverlog_engine::Lsn;
use riverlog_engine::io::sim::{
    CrashFailure, CrashMatrix, CrashReport, Fault, SimClock, SimDisk, Trigger,
};
use support::model::ModelStream;
use support::{Action, ENCRYPTED, Halt, Pair, config, env, reopen};

const START_NS: i64 = 1_700_000_000_000_000_000;

fn append(subject: u8, len: u16) -> Action {
    Action::Append {
        subject,
        len,
        id: None,
    }
}

/// Covers append, commit, checkpoint, delete, purge, dedup, delivery, ack, and a second checkpoint
/// that drops the first one's file.
fn script() -> Vec<Action> {
    vec![
        append(0, 40),
        append(1, 700),
        Action::Commit,
        Action::Append {
            subject: 2,
            len: 10,
            id: Some(1),
        },
        Action::Commit,
        Action::Deliver(2),
        Action::Ack(0),
        Action::Commit,
        Action::Checkpoint,
        append(0, 5000),
        Action::Delete(1),
        Action::Commit,
        Action::Append {
            subject: 2,
            len: 10,
            id: Some(1),
        },
        append(3, 20),
        Action::Commit,
        Action::PurgeSubject(0),
        append(0, 33),
        Action::Checkpoint,
        Action::Deliver(3),
        Action::Ack(1),
        append(4, 12),
        Action::Commit,
        Action::PurgeKeep(1),
        Action::Commit,
        Action::Checkpoint,
        append(1, 9),
        Action::Commit,
    ]
}

/// Checkpoints with an id each, until their files are merged, and what is known then.
fn ids_script() -> Vec<Action> {
    let with_id = |id| Action::Append {
        subject: id % 5,
        len: 10,
        id: Some(id),
    };
    let mut script = Vec::new();
    for id in 0..8 {
        script.extend([with_id(id), Action::Checkpoint]);
    }
    script.extend([Action::PurgeKeep(1), with_id(0), Action::Upkeep, with_id(8)]);
    script.extend([Action::Checkpoint, with_id(3), with_id(8), Action::Commit]);
    script
}

fn run(disk: &SimDisk, kind: u8, script: Vec<Action>) -> Outcome {
    let env = env(disk, &SimClock::new(START_NS), 1, kind);
    let mut pair = match Pair::create(&env, config(kind)) {
        Ok(pair) => pair,
        Err(Halt::Stopped | Halt::Refused(_)) => return None,
        Err(Halt::Differs(what)) => panic!("before any crash: {what}"),
    };
    for action in script {
        match pair.act(&action) {
            Ok(()) => {}
            Err(Halt::Stopped | Halt::Refused(_)) => break,
            Err(Halt::Differs(what)) => panic!("{action:?}: {what}"),
        }
    }
    let acknowledged = pair.acknowledged();
    Some((std::mem::take(&mut pair.history), acknowledged))
}

type Outcome = Option<(Vec<(Lsn, ModelStream)>, usize)>;

fn matrix(
    kind: u8,
    script: fn() -> Vec<Action>,
    random_outcomes: u64,
    broken: impl Fn(&SimDisk),
) -> Result<CrashReport, CrashFailure<String>> {
    CrashMatrix::new(7).random_outcomes(random_outcomes).run(
        |disk| {
            broken(disk);
            run(disk, kind, script())
        },
        |survivor, acknowledged, _| {
            let Some((history, acknowledged)) = acknowledged else {
                return Ok(());
            };
            let env = env(&survivor, &SimClock::new(START_NS + 1_000_000), 2, kind);
            reopen(&env, history, *acknowledged).map(|_| ())
        },
    )
}

fn crash_everywhere(kind: u8, script: fn() -> Vec<Action>, random_outcomes: u64) {
    let report =
        matrix(kind, script, random_outcomes, |_| {}).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(
        report.points > 20,
        "the script changes the disk: {report:?}"
    );
}

#[test]
fn while_message_ids_are_written_and_merged() {
    // A long script: the fixed outcomes are enough.
    crash_everywhere(ENCRYPTED, ids_script, 0);
    // The canary: the script gets as far as a merge.
    let disk = SimDisk::new(7);
    run(&disk, 0, ids_script()).expect("a run");
    let files = disk.files().into_iter().map(|(path, _)| path);
    let ids = files.filter(|path| path.contains("ids/")).count();
    assert_eq!(ids, 2, "the merged file and the one after it");
}

#[test]
fn without_limits() {
    crash_everywhere(0, script, 2);
}

#[test]
fn compressed_and_encrypted() {
    crash_everywhere(1 | ENCRYPTED, script, 2);
}

#[test]
fn with_a_message_limit_encrypted() {
    crash_everywhere(2 | ENCRYPTED, script, 2);
}

#[test]
fn with_a_limit_per_subject_compressed() {
    crash_everywhere(7, script, 2);
}

/// The canary: acknowledging before the sync, which is what a sync that does nothing amounts to,
/// must be caught by the same harness.
#[test]
fn an_acknowledgement_before_the_sync_is_caught() {
    let result = matrix(0, script, 2, |disk| {
        disk.inject_on("wal", Fault::LyingSync, Trigger::Always)
    });
    assert!(
        matches!(result, Err(CrashFailure::Check { .. })),
        "a log that does not sync went unnoticed: {result:?}"
    );
}
