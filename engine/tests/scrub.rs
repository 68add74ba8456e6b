//! The background check reads every sealed byte once in a period, names what is damaged, mends what is
//! derived, and writes nothing to an idle store.

mod support;

use std::path::Path;
use std::time::Duration;

use riverlog_engine::io::sim::{SimClock, SimDisk};
use riverlog_engine::{
    Append, Damage, FoundBy, ReadError, ScrubStatus, Seq, Store, StoreOptions, VerifyReport,
};
use support::DIR;
use support::sample::{End, START_NS, Sample, content, places, sample};

const PERIOD: Duration = Duration::from_secs(3_600);
const MINUTE_NS: i64 = 60_000_000_000;

fn options() -> StoreOptions {
    scrub_every(PERIOD)
}

fn scrub_every(period: Duration) -> StoreOptions {
    let mut options = support::options();
    options.scrub_period = period;
    // Which files there are must not change.
    options.index_merge_parts = u32::MAX;
    options
}

struct Running {
    store: Store,
    clock: SimClock,
}

fn open_with(disk: &SimDisk, at_ns: i64, options: StoreOptions) -> Running {
    let clock = SimClock::new(at_ns);
    let env = support::suite_env(disk, &clock, 2);
    let opened = Store::open_in(env, Path::new(DIR), options);
    let (store, _) = opened.unwrap_or_else(|error| panic!("{error}"));
    Running { store, clock }
}

fn open(disk: &SimDisk) -> Running {
    open_with(disk, START_NS + 1_000_000, options())
}

impl Running {
    fn minutes(&self, minutes: u32) {
        for _ in 0..minutes * 4 {
            self.clock.advance_ns(MINUTE_NS / 4);
            self.store.step().expect("upkeep");
        }
    }

    fn status(&self) -> ScrubStatus {
        self.store.scrub_status()
    }

    fn damage(&self) -> Vec<Damage> {
        self.store.damage().0
    }
}

fn verify(disk: &SimDisk) -> VerifyReport {
    let env = support::suite_env(disk, &SimClock::new(START_NS), 2);
    let report = Store::verify_in(&env, Path::new(DIR), &support::options());
    report.unwrap_or_else(|error| panic!("{error}"))
}

/// Sealed files, an index run counted with its segment, and bytes of all.
fn sealed(sample: &Sample) -> (u64, u64) {
    let data = sample.files("seg/");
    let index = sample.files("idx/");
    let bytes = data.iter().chain(&index).map(|(_, b)| b.len() as u64);
    let number = |path: &str| path[path.len() - 20..path.len() - 4].to_owned();
    let data: Vec<String> = data.iter().map(|(path, _)| number(path)).collect();
    let merged = index
        .iter()
        .filter(|(path, _)| !data.contains(&number(path)));
    ((data.len() + merged.count()) as u64, bytes.sum())
}

#[test]
fn a_pass_reads_everything_and_writes_nothing() {
    let sample = sample(1, End::Close);
    let running = open(&sample.disk);
    // Until the message ids of the sample have expired: their file is removed then.
    running.minutes(3);
    let changes = sample.disk.changes();
    let before = content(&sample.disk);
    running.minutes(56);
    let status = running.status();
    assert!(
        status.finished.is_some() && status.started.is_none(),
        "{status:?}"
    );
    let (files, bytes) = sealed(&sample);
    assert_eq!(
        (status.files_done, status.files_left),
        (files, 0),
        "{status:?}"
    );
    assert_eq!(
        status.bytes_done, bytes,
        "every byte of segments and index runs"
    );
    assert_eq!(
        sample.disk.changes(),
        changes,
        "an idle store writes nothing"
    );
    assert!(content(&sample.disk) == before);
    let first = status.finished;
    running.minutes(30);
    assert_eq!(running.status().finished, first, "one pass a period");
    running.minutes(60);
    assert!(running.status().finished > first, "and then the next");
    assert!(running.damage().is_empty());
}

/// The bytes that were read keep pace with the time.
#[test]
fn a_pass_is_spread_over_the_period() {
    let sample = sample(0, End::Close);
    let running = open(&sample.disk);
    let (_, bytes) = sealed(&sample);
    let mut seen = Vec::new();
    for minute in 1..=60_u64 {
        running.minutes(1);
        let done = running.status().bytes_done;
        // A step reads up to a block more than 256 KiB, here a whole file.
        let step = sample
            .files("seg/")
            .iter()
            .map(|(_, b)| b.len() as u64)
            .max();
        let allowed = bytes * minute * 10 / 9 / 60 + 2 * step.expect("a file");
        assert!(done <= allowed, "{done} of {bytes} after {minute} minutes");
        seen.push(done);
    }
    assert!(seen.is_sorted());
    assert_eq!(seen.last(), Some(&bytes));
    let steps = seen.windows(2).filter(|pair| pair[0] < pair[1]).count();
    assert!(steps >= 3, "in steps: {seen:?}");
}

#[test]
fn damage_is_found_with_its_exact_range() {
    let sample = sample(0, End::Close);
    let mut with_loss = 0;
    for (path, bytes) in sample.files("seg/") {
        for at in places(&bytes).into_iter().step_by(7) {
            let disk = sample.disk.fork();
            disk.corrupt(&path, at, 1).expect("inside the file");
            let report = verify(&disk);
            let ranges = |found: &mut dyn Iterator<Item = (Seq, Seq)>| found.collect::<Vec<_>>();
            let expected = ranges(&mut report.lost().map(|lost| (lost.first, lost.last)));
            let running = open(&disk);
            assert!(running.damage().is_empty(), "nobody looked yet");
            running.minutes(60);
            let damage = running.damage();
            let found = ranges(&mut damage.iter().map(|d| (d.range.first, d.range.last)));
            assert_eq!(found, expected, "byte {at} of {path}");
            for damage in &damage {
                assert_eq!((&*damage.stream, damage.found_by), ("S", FoundBy::Scrub));
                assert!(damage.range.file.to_string_lossy().contains(&path));
            }
            let status = running.status();
            assert_eq!(status.ranges_damaged, expected.len() as u64);
            assert_eq!(status.files_harmed, u64::from(expected.is_empty()));
            with_loss += expected.len();
            // Found again, and not listed again.
            running.minutes(70);
            assert_eq!(running.damage(), damage);
        }
    }
    assert!(with_loss > 2);
}

#[test]
fn a_damaged_index_is_made_anew() {
    let sample = sample(0, End::Close);
    let files = sample.files("idx/");
    for (path, bytes) in &files {
        let disk = sample.disk.fork();
        disk.corrupt(path, bytes.len() as u64 / 2, 1)
            .expect("inside the file");
        assert!(!verify(&disk).is_intact());
        let running = open(&disk);
        running.minutes(60);
        assert_eq!(running.status().indexes_rebuilt, 1);
        assert!(running.damage().is_empty());
        drop(running);
        let report = verify(&disk);
        assert!(report.is_intact(), "{report}");
    }
}

/// A merged run is derived like the others: a damaged one is dropped.
#[test]
fn a_damaged_merged_run_is_dropped() {
    let sample = sample(0, End::Close);
    let mut merging = scrub_every(Duration::ZERO);
    merging.index_merge_parts = 2;
    let running = open_with(&sample.disk, START_NS + 1_000_000, merging.clone());
    running.minutes(2);
    drop(running);
    let data = sample.files("seg/");
    let number = |path: &str| path[path.len() - 20..path.len() - 4].to_owned();
    let index = sample.files("idx/").into_iter();
    let mut merged = index.filter(|(path, _)| data.iter().all(|(d, _)| number(d) != number(path)));
    let (path, bytes) = merged.next().expect("a merged run");
    sample
        .disk
        .corrupt(&path, bytes.len() as u64 / 2, 1)
        .expect("inside the file");
    assert!(!verify(&sample.disk).is_intact());
    let running = open(&sample.disk);
    running.minutes(60);
    assert_eq!(
        running.status().indexes_rebuilt,
        1,
        "{:?}",
        running.status()
    );
    let stream = running.store.stream("S").expect("the stream");
    if let Err(difference) = support::differences(&stream, sample.newest()) {
        panic!("{difference}");
    }
    drop(stream);
    drop(running);
    let report = verify(&sample.disk);
    assert!(report.is_intact(), "{report}");
}

/// A restart goes on behind the last file whose check a checkpoint has seen.
#[test]
fn the_place_survives_a_restart() {
    let sample = sample(0, End::Close);
    let running = open(&sample.disk);
    let mut minutes = 0;
    while running.status().files_done == 0 {
        running.minutes(1);
        minutes += 1;
        assert!(minutes < 60);
    }
    let before = running.status();
    assert!(before.files_left > 0, "{before:?}");
    let stream = running.store.stream("S").expect("the stream");
    let append = Append {
        subject: b"s.1",
        ..Append::default()
    };
    stream.append_nosync(&append).expect("appended");
    running.store.commit();
    running.store.checkpoint().expect("a checkpoint");
    let now = START_NS + 1_000_000 + i64::from(minutes) * MINUTE_NS;
    drop(stream);
    drop(running);
    let running = open_with(&sample.disk, now, options());
    running.minutes(1);
    let after = running.status();
    assert_eq!(after.started, before.started, "the same pass");
    assert!(after.files_done >= before.files_done, "{after:?}");
    running.minutes(60 - minutes);
    let status = running.status();
    assert!(
        status.finished.is_some(),
        "in the time of the first pass: {status:?}"
    );
}

#[test]
fn it_can_be_paused_and_turned_off() {
    let sample = sample(0, End::Close);
    let running = open(&sample.disk);
    running.store.pause_scrub(true);
    running.minutes(70);
    assert!(running.status().paused);
    assert_eq!(running.status().bytes_done, 0);
    running.store.pause_scrub(false);
    running.minutes(20);
    running.store.pause_scrub(true);
    let paused = running.status();
    assert!(
        paused.bytes_done > 0 && paused.finished.is_none(),
        "{paused:?}"
    );
    running.minutes(30);
    assert_eq!(running.status(), paused);
    running.store.pause_scrub(false);
    running.minutes(9);
    assert!(running.status().finished.is_some(), "it catches up");
    drop(running);
    let off = scrub_every(Duration::ZERO);
    let running = open_with(&sample.disk, START_NS + 1_000_000, off);
    running.minutes(200);
    assert_eq!(running.status(), ScrubStatus::default());
}

/// The same store and the same times: the same operations.
#[test]
fn it_is_deterministic() {
    let run = || {
        let sample = sample(0, End::Close);
        let running = open(&sample.disk);
        running.minutes(45);
        sample.disk.log()
    };
    let (first, second) = (run(), run());
    let text = |log: &[riverlog_engine::io::sim::Op]| -> Vec<String> {
        log.iter().map(ToString::to_string).collect()
    };
    assert_eq!(text(&first), text(&second));
}

/// What a read comes across is listed, until nothing damaged is live any more.
#[test]
fn reads_find_damage() {
    let sample = sample(0, End::Close);
    let (path, _) = &sample.files("seg/")[1];
    sample
        .disk
        .corrupt(path, 8_000, 1)
        .expect("inside the file");
    let off = scrub_every(Duration::ZERO);
    let running = open_with(&sample.disk, START_NS + 1_000_000, off);
    let stream = running.store.stream("S").expect("the stream");
    assert!(running.damage().is_empty());
    let mut unread = Vec::new();
    for seq in 1..=stream.state().last_seq.0 {
        match stream.get(Seq(seq)) {
            Ok(_) => {}
            Err(ReadError::Corrupt(_)) => unread.push(seq),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(unread.len(), 1, "{unread:?}");
    let damage = running.damage();
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert_eq!(
        (&*damage[0].stream, damage[0].found_by),
        ("S", FoundBy::Read)
    );
    assert_eq!(
        (damage[0].range.first, damage[0].range.last),
        (Seq(unread[0]), Seq(unread[0]))
    );
    let again = stream.get(Seq(unread[0]));
    assert!(again.is_err());
    assert_eq!(running.damage().len(), 1, "listed once");
    stream.delete(Seq(unread[0])).expect("deleted");
    assert!(running.damage().is_empty());
}

#[test]
fn what_a_salvage_gave_up_is_listed() {
    let sample = sample(0, End::Kill);
    let mut listed = 0;
    let logs = sample.files("wal/").into_iter();
    let all = logs.flat_map(|(path, bytes)| {
        let written = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64;
        (8_192..written)
            .step_by(61)
            .map(move |at| (path.clone(), at))
    });
    for (path, at) in all {
        let disk = sample.disk.fork();
        disk.corrupt(&path, at, 1).expect("inside the file");
        let report = verify(&disk);
        if report.opens() {
            continue;
        }
        let mut salvage = options();
        salvage.salvage = true;
        let running = open_with(&disk, START_NS + 1_000_000, salvage);
        let damage = running.damage();
        assert!(
            damage.iter().all(|d| d.found_by == FoundBy::Recovery),
            "{damage:?}"
        );
        let ranges: Vec<_> = damage
            .iter()
            .map(|d| (d.range.first, d.range.last))
            .collect();
        let expected: Vec<_> = report.lost().map(|lost| (lost.first, lost.last)).collect();
        assert_eq!(ranges, expected, "{report}");
        listed += ranges.len();
    }
    assert!(listed > 0, "some operation stored a message");
}
