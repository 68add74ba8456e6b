//! The crash test helper passes what is safe and, as its canaries, fails what is not.

use std::io::Result;
use std::path::Path;

use crate::io::sim::{
    CrashFailure, CrashMatrix, CrashPoint, CrashReport, Fault, FaultFailure, FaultMatrix, Persist,
    SimDisk, Trigger,
};
use crate::io::{Io, OpenMode};

type Outcome = std::result::Result<CrashReport, CrashFailure<String>>;

/// Replaces the content of a file ten times; `safe` steps may be left out.
struct Replace {
    syncs_content: bool,
    syncs_dir: bool,
}

impl Replace {
    /// Returns the last acknowledged version.
    fn run(&self, disk: &SimDisk) -> u8 {
        let mut acked = 0;
        _ = self.replace_all(disk, &mut acked);
        acked
    }

    fn replace_all(&self, disk: &SimDisk, acked: &mut u8) -> Result<()> {
        for version in 1..=10 {
            let tmp = disk.open(Path::new("tmp"), OpenMode::CreateNew)?;
            tmp.write_at(&[version; 1000], 0)?;
            if self.syncs_content {
                tmp.sync_data()?;
            }
            disk.rename(Path::new("tmp"), Path::new("f"))?;
            if self.syncs_dir {
                disk.sync_dir(Path::new(""))?;
            }
            *acked = version;
        }
        Ok(())
    }

    fn crash_everywhere(&self) -> Outcome {
        CrashMatrix::new(5).run(|disk| self.run(disk), check)
    }
}

fn check(survivor: SimDisk, acked: &u8, _: CrashPoint) -> std::result::Result<(), String> {
    let found = survivor.read_file("f").unwrap_or_default();
    let version = found.first().copied().unwrap_or(0);
    if version < *acked {
        return Err(format!("version {version}, acknowledged {acked}"));
    }
    if found.iter().any(|byte| *byte != version) || !matches!(found.len(), 0 | 1000) {
        return Err(format!("mixed content of length {}", found.len()));
    }
    Ok(())
}

#[test]
fn a_safe_replacement_passes() {
    let safe = Replace {
        syncs_content: true,
        syncs_dir: true,
    };
    let report = safe.crash_everywhere().unwrap();
    // Five changes for each version, and the end.
    assert_eq!(
        report,
        CrashReport {
            points: 51,
            outcomes: 51 * 12
        }
    );
}

#[test]
fn canary_content_without_a_sync_is_caught() {
    let unsafe_replacement = Replace {
        syncs_content: false,
        syncs_dir: true,
    };
    unsafe_replacement.crash_everywhere().unwrap_err();
}

#[test]
fn canary_a_rename_without_a_sync_of_the_directory_is_caught() {
    let unsafe_replacement = Replace {
        syncs_content: true,
        syncs_dir: false,
    };
    let failure = unsafe_replacement.crash_everywhere().unwrap_err();
    let CrashFailure::Check { point, log, .. } = &failure else {
        panic!("{failure}");
    };
    assert_eq!(
        *point,
        CrashPoint {
            changes: 4,
            persist: Persist::Nothing
        }
    );
    assert_eq!(log.len(), 4);
    assert!(failure.to_string().contains("Rename tmp"), "{failure}");
}

#[test]
fn canary_a_device_that_lies_about_syncs_is_caught() {
    let safe = Replace {
        syncs_content: true,
        syncs_dir: true,
    };
    let script = |disk: &SimDisk| {
        disk.inject(Fault::LyingSync, Trigger::Always);
        safe.run(disk)
    };
    CrashMatrix::new(5).run(script, check).unwrap_err();
}

/// A log that acknowledges before it syncs.
#[test]
fn canary_a_log_without_syncs_is_caught() {
    let script = |disk: &SimDisk| -> u64 {
        let mut acked = 0;
        let append = |acked: &mut u64| -> Result<()> {
            let file = disk.open(Path::new("log"), OpenMode::CreateNew)?;
            file.sync_data()?;
            disk.sync_dir(Path::new(""))?;
            for n in 0..5 {
                file.write_at(&[1; 700], n * 700)?;
                *acked += 700;
            }
            Ok(())
        };
        _ = append(&mut acked);
        acked
    };
    let outcome = CrashMatrix::new(5)
        .random_outcomes(0)
        .run(script, |survivor, acked, _| {
            let found = survivor.read_file("log").unwrap_or_default();
            let kept = found.iter().filter(|byte| **byte == 1).count() as u64;
            if kept < *acked { Err("lost") } else { Ok(()) }
        });
    let Err(CrashFailure::Check { point, .. }) = outcome else {
        panic!("not caught");
    };
    assert_eq!(
        point,
        CrashPoint {
            changes: 4,
            persist: Persist::Nothing
        }
    );
}

#[test]
fn runs_start_from_the_given_disk() {
    let disk = SimDisk::new(1);
    super::create_durable(&disk, "f", b"here");
    let report = CrashMatrix::new(1).starting_from(&disk).stride(3).run(
        |disk| {
            let file = disk.open(Path::new("g"), OpenMode::CreateNew);
            file.and_then(|file| file.write_at(b"x", 0)).is_ok()
        },
        |survivor, _, _| match survivor.read_file("f") {
            Ok(content) if content == b"here" => Ok(()),
            found => Err(format!("{found:?}")),
        },
    );
    // The power goes after 0 and after 3 changes; the script makes only two.
    assert!(disk.is_powered());
    assert_eq!(
        report.unwrap_or_else(|failure| panic!("{failure}")).points,
        2
    );
}

#[test]
fn an_endless_script_is_a_failure() {
    let script = |disk: &SimDisk| while disk.sync_dir(Path::new("")).is_ok() {};
    let outcome = CrashMatrix::new(1)
        .points_max(20)
        .run(script, |_, _, _| Ok::<(), String>(()));
    assert!(
        matches!(outcome, Err(CrashFailure::TooLong { points_max: 20 })),
        "{outcome:?}"
    );
}

/// The script ignores errors of its syncs.
#[test]
fn canary_an_ignored_sync_error_is_caught() {
    let script = |disk: &SimDisk| -> bool {
        let write = || -> Result<()> {
            let file = disk.open(Path::new("f"), OpenMode::CreateNew)?;
            file.write_at(&[1; 4096], 0)?;
            _ = file.sync_data();
            disk.sync_dir(Path::new(""))
        };
        write().is_ok()
    };
    let outcome = FaultMatrix::new(1).run(&Fault::ALL, script, |restarted, acked, _| {
        let is_there = restarted
            .read_file("f")
            .is_ok_and(|content| content == [1; 4096]);
        if *acked && !is_there {
            Err("lost")
        } else {
            Ok(())
        }
    });
    let Err(failure) = outcome else {
        panic!("not caught");
    };
    let text = failure.to_string();
    let FaultFailure::Check { point, .. } = failure else {
        panic!("{text}");
    };
    // Lost and misdirected writes come before it in the list of faults, and no script without
    // checksums and copies survives them.
    assert_eq!(point.fault, Fault::LostWrite);
    let outcome = FaultMatrix::new(1).on_paths("f").run(
        &[Fault::WriteError, Fault::SyncError],
        script,
        |restarted, acked, _| match restarted.read_file("f") {
            Ok(content) if *acked && content != [1; 4096] => Err("lost"),
            _ => Ok(()),
        },
    );
    let Err(FaultFailure::Check { point, .. }) = outcome else {
        panic!("not caught");
    };
    assert_eq!((point.fault, point.after), (Fault::SyncError, 0));
}

#[test]
fn a_fault_test_of_an_endless_script_is_a_failure() {
    let script = |disk: &SimDisk| while disk.sync_dir(Path::new("")).is_ok() {};
    let faults = [Fault::SyncError];
    let outcome = FaultMatrix::new(1)
        .runs_max(20)
        .run(&faults, script, |_, _, _| Ok::<(), String>(()));
    assert!(
        matches!(outcome, Err(FaultFailure::TooLong { runs_max: 20 })),
        "{outcome:?}"
    );
}
