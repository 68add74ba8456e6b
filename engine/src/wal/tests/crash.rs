//! Power cuts at every change of the disk: what was acknowledged is there, in order, once; what was
//! never enqueued is not.

use super::*;
use crate::io::sim::{CrashMatrix, Fault, Persist, Trigger};

/// What the script knows when the power goes.
#[derive(Debug, Default)]
struct Outcome {
    /// The highest lsn whose ticket resolved.
    acked: u64,
    /// The highest lsn ever enqueued.
    enqueued: u64,
    /// The checkpoint: ops up to here are durable elsewhere.
    checkpoint: u64,
}

/// Commits groups of different sizes, with checkpoints that recycle files, through several files.
fn script(disk: &SimDisk, publish_before_sync: bool) -> Outcome {
    let mut outcome = Outcome::default();
    let Ok((queue, mut committer)) = queue_and_committer(disk, 3, small(), 1, Vec::new()) else {
        return outcome;
    };
    committer.publish_before_sync = publish_before_sync;
    for round in 0..24_u32 {
        let units = 1 + round % 3;
        for unit in 0..units {
            let Ok(lsn) = enqueue(&queue, Class::Append, 1 + (round + unit) % 3) else {
                break;
            };
            outcome.enqueued = lsn.0;
        }
        let ticket = queue.ticket(Lsn(outcome.enqueued));
        committer.step();
        if ticket.is_durable() {
            outcome.acked = outcome.enqueued;
        }
        if round % 4 == 0 {
            // Idle: the mark is written.
            committer.step();
        }
        if round % 7 == 6 && outcome.acked > 0 {
            outcome.checkpoint = outcome.acked;
            queue.release_through(Lsn(outcome.checkpoint));
        }
    }
    outcome
}

fn check(survivor: &SimDisk, outcome: &Outcome) -> Result<(), String> {
    let after = outcome.checkpoint;
    let first = recover_with(survivor, after, false).map_err(|e| e.to_string())?;
    let expected = first.lsns.len() as u64;
    if first.lsns != (after + 1..=after + expected).collect::<Vec<_>>() {
        return Err(format!("not each op once and in order: {:?}", first.lsns));
    }
    let last = after + expected;
    if last < outcome.acked || last > outcome.enqueued {
        return Err(format!("recovered up to {last}: {outcome:?}"));
    }
    if first.report.next_lsn != Lsn(last + 1) {
        return Err(format!("next lsn {} after {last}", first.report.next_lsn));
    }
    // The store goes on in a new file, and the old ones still count until it has a checkpoint.
    let old_files = first.report.old_files;
    let (queue, mut committer) = queue_and_committer(survivor, 4, small(), last + 1, old_files)
        .map_err(|e| e.to_string())?;
    enqueue(&queue, Class::Append, 3).map_err(|e| e.to_string())?;
    if committer.step() != Step::Committed(3) {
        return Err("the new log does not commit".to_owned());
    }
    let second = recover_with(survivor, after, false).map_err(|e| e.to_string())?;
    if second.lsns != (after + 1..=last + 3).collect::<Vec<_>>() {
        return Err(format!("after going on: {:?}", second.lsns));
    }
    queue.release_through(Lsn(last));
    committer.step();
    let third = recover_with(survivor, last, false).map_err(|e| e.to_string())?;
    if third.lsns != (last + 1..=last + 3).collect::<Vec<_>>() {
        return Err(format!("after the checkpoint: {:?}", third.lsns));
    }
    Ok(())
}

#[test]
fn acked_ops_survive_a_power_cut_at_every_change() {
    let whole = script(&SimDisk::new(1), false);
    assert!(
        whole.acked > 80 && whole.checkpoint > 60,
        "the script gets far: {whole:?}"
    );
    let report = CrashMatrix::new(11)
        .random_outcomes(8)
        .run(
            |disk| script(disk, false),
            |survivor, outcome, _| check(&survivor, outcome),
        )
        .unwrap_or_else(|failure| panic!("{failure}"));
    assert!(report.points > 60, "{report:?}");
}

#[test]
fn an_ack_before_the_sync_is_caught() {
    let caught = CrashMatrix::new(11).run(
        |disk| script(disk, true),
        |survivor, outcome, _| check(&survivor, outcome),
    );
    assert!(
        caught.is_err(),
        "the crash test would not notice a lost acknowledgement"
    );
}

#[test]
fn a_power_cut_during_the_start_after_a_power_cut_loses_nothing() {
    let disk = SimDisk::new(1);
    let outcome = script(&disk, false);
    let crashed = disk.crash(crate::io::sim::Persist::LastWriteFirstHalf);
    CrashMatrix::new(5)
        .starting_from(&crashed)
        .run(
            |disk| {
                let Ok(found) = recover_with(disk, outcome.checkpoint, false) else {
                    return 0;
                };
                let next = found.report.next_lsn.0;
                let old_files = found.report.old_files;
                let Ok((queue, mut committer)) =
                    queue_and_committer(disk, 9, small(), next, old_files)
                else {
                    return 0;
                };
                let Ok(lsn) = enqueue(&queue, Class::Append, 2) else {
                    return 0;
                };
                committer.step();
                if queue.ticket(lsn).is_durable() {
                    lsn.0
                } else {
                    0
                }
            },
            |survivor, acked, _| {
                let found = recover_with(&survivor, outcome.checkpoint, false)
                    .map_err(|e| e.to_string())?;
                let last = found.lsns.last().copied().unwrap_or(outcome.checkpoint);
                let all = (outcome.checkpoint + 1..=last).collect::<Vec<_>>();
                if found.lsns != all || last < outcome.acked.max(*acked) {
                    return Err(format!("{:?}, acked {acked}, {outcome:?}", found.lsns));
                }
                Ok(())
            },
        )
        .unwrap_or_else(|failure: crate::io::sim::CrashFailure<String>| panic!("{failure}"));
}

#[test]
fn acked_ops_survive_a_fault_at_every_operation() {
    for fault in [
        Fault::WriteError,
        Fault::SyncError,
        Fault::NoSpace,
        Fault::NameError,
    ] {
        for at in 0.. {
            let disk = SimDisk::new(at);
            disk.inject(fault, Trigger::After(at));
            let outcome = script(&disk, false);
            let happened = disk.faults() > 0;
            let survivor = disk.crash(Persist::Random { seed: at });
            check(&survivor, &outcome).unwrap_or_else(|e| panic!("{fault:?} at {at}: {e}"));
            if !happened {
                assert!(at > 10, "{fault:?} hit {at} operations");
                break;
            }
        }
    }
}

/// A device that loses or misplaces a write that it was told to sync: what the last mark vouches
/// for is recovered or missed loudly.
#[test]
fn a_lost_or_misdirected_write_is_never_silent() {
    for fault in [Fault::LostWrite, Fault::MisdirectedWrite] {
        let mut refused = 0;
        for at in 0.. {
            let disk = SimDisk::new(at);
            disk.inject(fault, Trigger::After(at));
            let (queue, mut committer) =
                queue_and_committer(&disk, 3, small(), 1, Vec::new()).expect("created");
            let mut acked = 0;
            for round in 0..12 {
                acked = enqueue(&queue, Class::Append, 1 + round % 3)
                    .expect("room")
                    .0;
                assert!(matches!(committer.step(), Step::Committed(_)));
                committer.step();
            }
            let happened = disk.faults() > 0;
            match recover_with(&disk.kill_process(), 0, false) {
                Ok(found) => {
                    assert_eq!(found.lsns.last(), Some(&acked), "{fault:?} at {at}");
                }
                Err(RecoverError::AckedDataDamaged(_)) => refused += 1,
                Err(other) => panic!("{fault:?} at {at}: {other}"),
            }
            if !happened {
                break;
            }
        }
        assert!(refused > 0, "{fault:?} was not noticed");
    }
}
