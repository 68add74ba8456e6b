//! Promise A3 with merged runs: whatever happens to files of the index, single or merged, and
//! wherever the power is cut while they are merged, the answers stay the same.
//!
//! `RIVERLOG_DAMAGE_STRIDE` is the distance of the bits that are flipped (default 499; 1 tries all).

mod support;

use std::path::Path;

use riverlog_engine::io::Env;
use riverlog_engine::io::sim::{CrashMatrix, Fault, OpKind, SimClock, SimDisk, Trigger};
use riverlog_engine::{Append, Filter, Lsn, Seq, Store, Stream};
use support::model::ModelStream;
use support::{Action, DIR, Halt, Pair, config, differences, options, reopen};

const START_NS: i64 = 1_700_000_000_000_000_000;

fn append(subject: u8) -> Action {
    Action::Append {
        subject,
        len: 20,
        id: None,
    }
}

/// Several levels of merges, with removals before, between and behind them.
fn script() -> Vec<Action> {
    let mut script = Vec::new();
    for round in 0..9_u8 {
        script.extend([append(round), append(round + 1), append(round)]);
        if round % 3 == 1 {
            script.push(Action::Delete(u16::from(round)));
        }
        if round == 4 {
            script.push(Action::PurgeSubject(2));
        }
        script.extend([Action::Commit, Action::Checkpoint]);
        if round % 2 == 1 {
            script.push(Action::Upkeep);
        }
    }
    script.extend([Action::Delete(0), Action::Upkeep, append(7), Action::Commit]);
    script
}

type Outcome = Option<(Vec<(Lsn, ModelStream)>, usize)>;

fn run(disk: &SimDisk) -> Outcome {
    let env = Env::simulated(disk, &SimClock::new(START_NS), 1);
    let mut pair = Pair::create(&env, config(0)).ok()?;
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

#[test]
fn power_cuts_while_runs_are_merged() {
    let report =
        CrashMatrix::new(3)
            .random_outcomes(1)
            .stride(3)
            .run(run, |survivor, outcome, _| {
                let Some((history, acknowledged)) = outcome else {
                    return Ok(());
                };
                let env = Env::simulated(&survivor, &SimClock::new(START_NS + 1_000_000), 2);
                let (store, at) = reopen(&env, history, *acknowledged)?;
                let stream = store.stream("S").ok_or("the stream is gone")?;
                subjects_differ(&stream, &history[at].1)?;
                // And it goes on merging.
                store.checkpoint().map_err(|error| error.to_string())?;
                store.step().map_err(|error| error.to_string())?;
                subjects_differ(&stream, &history[at].1)
            });
    let report = report.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(
        report.points > 50,
        "the script changes the disk: {report:?}"
    );
}

/// Counts and filtered reads against the model.
fn subjects_differ(stream: &Stream, model: &ModelStream) -> Result<(), String> {
    let live: Vec<_> = model.msgs.iter().collect();
    let subjects = stream.num_subjects().map_err(|error| error.to_string())?;
    if subjects != model.subjects().len() as u64 {
        return Err(format!("{subjects} subjects, model {:?}", model.subjects()));
    }
    for texts in [
        &["s.1"][..],
        &["s.*"],
        &["s.0", "s.3"],
        &["s.4", "s.*", "s.>"],
        &["x.>"],
    ] {
        let filters: Vec<_> = texts
            .iter()
            .filter_map(|t| Filter::new(t.as_bytes()).ok())
            .collect();
        let matches = |subject: &str| filters.iter().any(|f| f.matches(subject.as_bytes()));
        for from in [0, model.last_seq / 3, model.last_seq / 2, model.last_seq] {
            let expected: Vec<u64> = live
                .iter()
                .filter(|(seq, message)| **seq >= from && matches(&message.subject))
                .map(|(seq, _)| **seq)
                .collect();
            let count = stream
                .num_pending(&filters, Seq(from))
                .map_err(|error| error.to_string())?;
            if count != expected.len() as u64 {
                return Err(format!(
                    "{texts:?} from {from}: {count} pending, model {expected:?}"
                ));
            }
            let found: Result<Vec<u64>, _> = stream
                .messages(&filters, Seq(from)..=Seq(u64::MAX))
                .map(|message| message.map(|message| message.seq.0))
                .collect();
            if found.as_ref().ok() != Some(&expected) {
                return Err(format!(
                    "{texts:?} from {from}: {found:?}, model {expected:?}"
                ));
            }
        }
    }
    differences(stream, model)
}

struct Sample {
    disk: SimDisk,
    model: ModelStream,
}

/// What the script leaves behind.
fn sample() -> Sample {
    let disk = SimDisk::new(1);
    let (history, _) = run(&disk).expect("no fault was injected");
    Sample {
        disk: disk.kill_process(),
        model: history.last().expect("a state").1.clone(),
    }
}

fn index_files(disk: &SimDisk) -> Vec<(String, u64)> {
    let files = disk.files().into_iter();
    files.filter(|(path, _)| path.ends_with(".idx")).collect()
}

fn open(disk: &SimDisk) -> Store {
    let env = Env::simulated(disk, &SimClock::new(START_NS + 1_000_000), 2);
    let opened = Store::open_in(env, Path::new(DIR), options());
    opened.expect("an index is no reason to refuse").0
}

fn check(disk: &SimDisk, model: &ModelStream, what: &str) {
    let store = open(disk);
    let stream = store.stream("S").expect("the stream");
    if let Err(difference) = subjects_differ(&stream, model) {
        panic!("{what}: {difference}");
    }
    store.checkpoint().expect("a checkpoint");
    store.step().expect("merges go on");
    if let Err(difference) = subjects_differ(&stream, model) {
        panic!("{what}, after upkeep: {difference}");
    }
}

#[test]
fn merged_runs_replace_those_they_are_made_from() {
    let sample = sample();
    let files = sample.disk.files();
    let has_segment = |run: &str| {
        let segment = run.replace("idx", "seg");
        files.iter().any(|(path, _)| *path == segment)
    };
    let runs = index_files(&sample.disk);
    let merged = runs.iter().filter(|(path, _)| !has_segment(path)).count();
    assert!(merged > 0, "none of {runs:?} is merged");
    assert!(runs.len() <= 4, "what was merged is left: {runs:?}");
    check(&sample.disk, &sample.model, "nothing happened");
}

#[test]
fn any_and_all_index_files_may_be_gone_cut_or_garbled() {
    let sample = sample();
    let files = index_files(&sample.disk);
    for case in 0..1_u32 << files.len() {
        let chosen = files.iter().enumerate().filter(|(n, _)| case >> n & 1 == 1);
        let chosen: Vec<_> = chosen.map(|(_, file)| file).collect();
        for how in ["cut to nothing", "cut", "garbled", "zeroed"] {
            let disk = sample.disk.fork();
            for (path, len) in &chosen {
                let done = match how {
                    "cut to nothing" => disk.truncate(path, 0),
                    "cut" => disk.truncate(path, len / 2),
                    "garbled" => disk.overwrite(path, 64, &vec![0xa5; *len as usize - 64]),
                    _ => disk.overwrite(path, 0, &vec![0; *len as usize]),
                };
                done.expect("a listed file");
            }
            check(&disk, &sample.model, &format!("{chosen:?} {how}"));
        }
    }
}

/// The files change under a store that has them open.
#[test]
fn index_files_may_be_removed_while_the_store_is_open() {
    let sample = sample();
    let env = Env::simulated(&sample.disk, &SimClock::new(START_NS + 1_000_000), 2);
    let mut few_pages = options();
    few_pages.cache_bytes_max = 0;
    few_pages.open_files_max = 1;
    let (store, _) = Store::open_in(env.clone(), Path::new(DIR), few_pages).expect("opened");
    let stream = store.stream("S").expect("the stream");
    subjects_differ(&stream, &sample.model).expect("the same answers");
    for (path, _) in index_files(&sample.disk) {
        env.io.remove(Path::new(&path)).expect("removed");
    }
    subjects_differ(&stream, &sample.model).expect("the same answers without files");
    store.step().expect("upkeep");
    subjects_differ(&stream, &sample.model).expect("the same answers after upkeep");
}

#[test]
fn a_flipped_bit_in_any_run_loses_nothing() {
    let stride = std::env::var("RIVERLOG_DAMAGE_STRIDE").ok();
    let stride = stride.and_then(|n| n.parse().ok()).unwrap_or(499);
    let sample = sample();
    for (path, len) in index_files(&sample.disk) {
        for bit in (0..len * 8).step_by(stride) {
            let disk = sample.disk.fork();
            disk.corrupt(&path, bit / 8, 1 << (bit % 8))
                .expect("inside the file");
            let store = open(&disk);
            let stream = store.stream("S").expect("the stream");
            if let Err(difference) = subjects_differ(&stream, &sample.model) {
                panic!("bit {bit} of {path}: {difference}");
            }
        }
    }
}

/// A merge is no promise: where it fails, everything goes on without it.
#[test]
fn a_merge_that_fails_changes_no_answer() {
    for fault in [
        Fault::NoSpace,
        Fault::WriteError,
        Fault::SyncError,
        Fault::ReadError,
    ] {
        for trigger in [
            Trigger::After(9),
            Trigger::EachAfter(4),
            Trigger::EachAfter(30),
        ] {
            let disk = SimDisk::new(1);
            disk.inject_on(".idx", fault, trigger);
            let Some((history, _)) = run(&disk) else {
                continue;
            };
            disk.clear_faults();
            let model = &history.last().expect("a state").1;
            check(
                &disk.kill_process(),
                model,
                &format!("{fault:?} {trigger:?}"),
            );
        }
    }
}

#[test]
fn merges_on_a_real_disk_survive_the_loss_of_all_index_files() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = || Store::open(dir.path(), options()).expect("opened").0;
    let store = open();
    let (stream, _) = store.create_stream(config(1)).expect("a stream");
    for n in 0..400_u32 {
        let subject = format!("s.{}.{}", n % 7, n % 50);
        let append = Append {
            subject: subject.as_bytes(),
            payload: b"payload",
            ..Append::default()
        };
        stream.append_nosync(&append).expect("accepted");
        if n % 40 == 39 {
            store.checkpoint().expect("a checkpoint");
            store.step().expect("merged");
        }
    }
    let answers = |stream: &Stream| {
        let filter = Filter::new(b"s.3.>").expect("a filter");
        let last = stream.last_by_subject(&filter).expect("readable");
        (
            stream.num_subjects().expect("counted"),
            stream.subjects(&Filter::all()).expect("counted"),
            stream
                .num_pending(std::slice::from_ref(&filter), Seq(99))
                .expect("counted"),
            last.map(|message| message.seq),
        )
    };
    let before = answers(&stream);
    assert_eq!((before.0, before.2), (350, 43));
    drop((stream, store));
    let files = || std::fs::read_dir(dir.path().join("idx")).expect("a directory");
    assert!(files().count() <= 4, "ten sealed files have few runs");
    for file in files() {
        std::fs::remove_file(file.expect("a file").path()).expect("removed");
    }
    let store = open();
    let stream = store.stream("S").expect("the stream");
    assert_eq!(answers(&stream), before);
}

/// The number of subjects is asked for again and again while a stream grows: only what was appended
/// since is looked at.
#[test]
fn the_number_of_subjects_costs_what_was_appended() {
    let (disk, clock) = (SimDisk::new(1), SimClock::new(START_NS));
    let env = Env::simulated(&disk, &clock, 1);
    let mut options = options();
    options.wal.file_bytes = 4 << 20;
    options.tail_bytes_max = 4 << 20;
    let (store, _) = Store::open_in(env, Path::new(DIR), options).expect("a store");
    let (stream, _) = store.create_stream(config(0)).expect("a stream");
    let append = |n: u32| {
        let subject = format!("s.{n:020}.{}", "x".repeat(60));
        let append = Append {
            subject: subject.as_bytes(),
            ..Append::default()
        };
        stream.append_nosync(&append).expect("accepted");
    };
    let number = || stream.num_subjects().expect("counted");
    (0..3_000).for_each(append);
    store.checkpoint().expect("sealed");
    assert_eq!(number(), 3_000);
    let reads_of = |work: &dyn Fn()| {
        let before = disk.ops();
        work();
        let log = disk.log();
        let reads = log.iter().filter(|op| {
            op.number > before && op.kind == OpKind::Read && op.path.contains("/idx/")
        });
        reads.count()
    };
    // One subject that is known, and one that is not.
    append(7);
    append(3_000);
    let reads = reads_of(&|| assert_eq!(number(), 3_001));
    assert!(reads < 10, "{reads} pages read");
    assert_eq!(reads_of(&|| assert_eq!(number(), 3_001)), 0);
    // What was appended is sealed meanwhile, in a file of its own.
    append(8);
    append(3_001);
    store.checkpoint().expect("sealed");
    append(3_002);
    append(3_001);
    let reads = reads_of(&|| assert_eq!(number(), 3_003));
    assert!(reads < 20, "{reads} pages read");
    // Removals are seen.
    stream.delete(Seq(1)).expect("deleted");
    assert_eq!(number(), 3_002);
    append(0);
    assert_eq!(number(), 3_003);
    stream.delete(Seq(8)).expect("deleted");
    assert_eq!(number(), 3_003, "it has another message");
}
