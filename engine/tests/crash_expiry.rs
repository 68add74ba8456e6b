//! The power is cut after every change of the disk during a script in which messages expire by
//! their own life time and by age, from tails and sealed files. No message leaves early, every one
//! leaves, and a subject never loses its last message without a marker in its place.

use std::path::Path;

use riverlog_engine::io::Env;
use riverlog_engine::io::sim::{CrashMatrix, SimClock, SimDisk};
use riverlog_engine::{
    Append, DeleteMarker, Filter, Seq, Store, StoreOptions, Stream, StreamConfig, Threads, Ttl,
};

const START: i64 = 1_700_000_000_000_000_000;
const SECOND: i64 = 1_000_000_000;
const AGE_MAX: i64 = 100;
const MARKER_TTL: i64 = 50;

/// One step of the script; times are in seconds after the start.
enum Action {
    /// Subject and life time: none, or for ever.
    Append(&'static str, Option<Option<i64>>),
    /// As above, and leaves no marker.
    AppendUnmarked(&'static str, i64),
    Commit,
    Checkpoint,
    /// Sets the time and does what is due.
    At(i64),
}

fn script() -> Vec<Action> {
    use Action::*;
    vec![
        Append("a", Some(Some(10))),
        Append("b", Some(None)),
        Append("c", None),
        AppendUnmarked("d", 10),
        Append("e", Some(Some(40))),
        Commit,
        Checkpoint,
        Append("f", Some(Some(10))),
        Append("a", Some(Some(8))),
        Commit,
        At(10),
        Append("g", Some(Some(20))),
        Commit,
        Checkpoint,
        At(41),
        Append("b", None),
        Commit,
        At(60),
        Checkpoint,
        At(100),
        Commit,
        At(141),
        Checkpoint,
        At(160),
    ]
}

/// A message that was acknowledged.
#[derive(Clone, Debug)]
struct Acked {
    seq: Seq,
    subject: &'static str,
    /// Seconds after the start.
    due: i64,
    is_marked: bool,
}

#[derive(Default)]
struct Progress {
    acked: Vec<Acked>,
    now: i64,
}

fn open(disk: &SimDisk, clock: &SimClock) -> Option<Store> {
    let mut options = StoreOptions::default();
    options.threads = Threads::Manual;
    options.wal.file_bytes = 64 * 1024;
    options.wal.files_max = 4;
    // Rounds of maintenance rewrite files as well.
    options.compaction.slack_bytes = 0;
    let env = Env::simulated(disk, clock, 1);
    Store::open_in(env, Path::new("/data"), options)
        .ok()
        .map(|(store, _)| store)
}

fn config() -> StreamConfig {
    StreamConfig {
        name: "S".into(),
        age_max_ns: Some((AGE_MAX * SECOND) as u64),
        delete_marker: Some(DeleteMarker {
            headers: b"h".to_vec(),
            ttl_ns: (MARKER_TTL * SECOND) as u64,
        }),
        ..StreamConfig::default()
    }
}

/// Carries out the script until the power is gone.
fn run(disk: &SimDisk) -> Option<Progress> {
    let clock = SimClock::new(START);
    let store = open(disk, &clock)?;
    let (stream, _) = store.create_stream(config()).ok()?;
    let mut progress = Progress::default();
    let mut pending = Vec::new();
    for action in script() {
        let (subject, ttl, leaves_no_marker) = match action {
            Action::Append(subject, ttl) => (subject, ttl, false),
            Action::AppendUnmarked(subject, ttl) => (subject, Some(Some(ttl)), true),
            Action::At(now) => {
                clock.set_ns(START + now * SECOND);
                progress.now = now;
                if store.step().is_err() || store.stopped().is_some() {
                    break;
                }
                continue;
            }
            Action::Checkpoint => {
                if store.checkpoint().is_err() || store.stopped().is_some() {
                    break;
                }
                progress.acked.append(&mut pending);
                continue;
            }
            Action::Commit => {
                store.commit();
                if store.stopped().is_some() {
                    break;
                }
                progress.acked.append(&mut pending);
                continue;
            }
        };
        let append = Append {
            subject: subject.as_bytes(),
            ttl: ttl.map(|ttl| match ttl {
                None => Ttl::Never,
                Some(seconds) => Ttl::For {
                    ttl_ns: (seconds * SECOND) as u64,
                },
            }),
            leaves_no_marker,
            ..Append::default()
        };
        let Ok(appended) = stream.append_nosync(&append) else {
            break;
        };
        let life = ttl.map_or(AGE_MAX, |ttl| {
            ttl.map_or(i64::MAX / 2, |ttl| ttl.min(AGE_MAX))
        });
        pending.push(Acked {
            seq: appended.seq,
            subject,
            due: progress.now + life,
            is_marked: !leaves_no_marker,
        });
    }
    Some(progress)
}

fn check(survivor: SimDisk, progress: &Progress) -> Result<(), String> {
    let clock = SimClock::new(START + progress.now * SECOND);
    let store = open(&survivor, &clock).ok_or("cannot reopen")?;
    let Some(stream) = store.stream("S") else {
        return match progress.acked.is_empty() {
            true => Ok(()),
            false => Err("the stream is gone".into()),
        };
    };
    check_at(&stream, progress, progress.now, false)?;
    for now in [progress.now, progress.now + 1, 10_000, 20_000] {
        clock.set_ns(START + now * SECOND);
        store.step().map_err(|error| error.to_string())?;
        store.commit();
        check_at(&stream, progress, now, true)?;
    }
    for seq in 0..=stream.state().last_seq.0 {
        let message = stream.get(Seq(seq)).map_err(|error| error.to_string())?;
        if let Some(message) = message
            && message.ttl() != Some(Ttl::Never)
        {
            return Err(format!("message {seq} never leaves"));
        }
    }
    Ok(())
}

/// What must be there is, and if `expired` nothing else of what was acknowledged.
fn check_at(stream: &Stream, progress: &Progress, now: i64, expired: bool) -> Result<(), String> {
    for acked in &progress.acked {
        let found = stream.get(acked.seq).map_err(|error| error.to_string())?;
        let found = found.map(|message| message.subject().to_vec());
        if acked.due > now && found.as_deref() != Some(acked.subject.as_bytes()) {
            return Err(format!("at {now} {acked:?} left early: {found:?}"));
        }
        if acked.due <= now && expired && found.is_some() {
            return Err(format!("at {now} {acked:?} is still there"));
        }
        let filter = Filter::new(acked.subject.as_bytes()).map_err(|error| error.to_string())?;
        let last = stream
            .last_by_subject(&filter)
            .map_err(|error| error.to_string())?;
        // A marker is not older than the end of what it replaces.
        if acked.is_marked && acked.due + MARKER_TTL > now && last.is_none() {
            return Err(format!("at {now} {acked:?} left without a marker"));
        }
    }
    Ok(())
}

#[test]
fn expiry_survives_a_power_cut_at_every_change_of_the_disk() {
    let report = CrashMatrix::new(11)
        .random_outcomes(2)
        .run(run, |survivor, progress, _| match progress {
            Some(progress) => check(survivor, progress),
            None => Ok(()),
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
    assert!(
        report.points > 20,
        "the script changes the disk: {report:?}"
    );
}

/// The canary: the checks above see a script whose markers are missing.
#[test]
fn a_missing_marker_is_noticed() {
    let disk = SimDisk::new(1);
    let mut progress = run(&disk).expect("no power cut");
    let survivor = disk.kill_process();
    assert_eq!(check(survivor.fork(), &progress), Ok(()));
    progress.acked.push(Acked {
        seq: Seq(1_000),
        subject: "no.such.subject",
        due: progress.now - 1,
        is_marked: true,
    });
    let result = check(survivor, &progress);
    assert!(result.is_err_and(|what| what.contains("without a marker")));
}
