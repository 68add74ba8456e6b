//! `Store::verify` finds every damaged byte of sealed data, names each message that is lost and no
//! other, says beforehand whether the store opens, and changes nothing.
//!
//! `RIVERLOG_DAMAGE_STRIDE` is the distance of the bytes that are tried (default 97; 1 tries all).

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use riverlog_engine::io::Env;
use riverlog_engine::io::sim::{Fault, SimClock, SimDisk, Trigger};
use riverlog_engine::{FindingKind, OpenError, Seq, Store, VerifyReport};
use support::model::ModelStream;
use support::sample::{End, START_NS, Sample, content, places, sample, without};
use support::{DIR, readable_or_reported};

fn env(disk: &SimDisk) -> Env {
    support::env_of(disk, &SimClock::new(START_NS + 1_000_000), 2)
}

fn verify(disk: &SimDisk) -> VerifyReport {
    let before = content(disk);
    let names = disk.files().len();
    let report = Store::verify_in(&env(disk), Path::new(DIR), &support::options());
    let report = report.unwrap_or_else(|error| panic!("{error}"));
    assert!(content(disk) == before, "a check changes nothing");
    assert_eq!(disk.files().len(), names, "a check creates nothing");
    report
}

fn open(disk: &SimDisk) -> Result<Store, OpenError> {
    Store::open_in(env(disk), Path::new(DIR), support::options()).map(|(store, _)| store)
}

/// Live sequences in the report's ranges.
fn lost(report: &VerifyReport, model: &ModelStream) -> Vec<u64> {
    let mut seqs = BTreeSet::new();
    for lost in report.lost() {
        let live: Vec<u64> = model
            .msgs
            .range(lost.first.0..=lost.last.0)
            .map(|(seq, _)| *seq)
            .collect();
        assert_eq!(live.first(), Some(&lost.first.0), "starts at a lost one");
        assert_eq!(live.last(), Some(&lost.last.0), "ends at a lost one");
        assert!(!lost.file.as_os_str().is_empty() && !lost.reason.is_empty());
        for seq in live {
            assert!(seqs.insert(seq), "{seq} is reported twice");
        }
    }
    seqs.into_iter().collect()
}

/// As [`places`], closer together in small files.
fn some_places(bytes: &[u8]) -> Vec<u64> {
    let step = (bytes.len() / 24).clamp(1, 1_009);
    let mut places = places(bytes);
    places.extend((0..bytes.len() as u64).step_by(step));
    places.sort_unstable();
    places.dedup();
    places
}

/// Damages every place of the files whose path contains `part` and judges the report.
fn flip_everywhere(sample: &Sample, part: &str, judge: impl Fn(&str, &SimDisk, &VerifyReport)) {
    let mut tried = 0;
    for (path, bytes) in sample.files(part) {
        for (n, at) in some_places(&bytes).into_iter().enumerate() {
            let disk = sample.disk.fork();
            let bit = n % 8;
            disk.corrupt(&path, at, 1 << bit).expect("inside the file");
            let report = verify(&disk);
            judge(&format!("bit {bit} of byte {at} of {path}"), &disk, &report);
            tried += 1;
        }
    }
    assert!(tried > 10, "{part}: {tried} places");
}

/// The store reads what the report calls readable, and reports what it calls lost.
fn agrees_with_reads(what: &str, disk: &SimDisk, report: &VerifyReport, model: &ModelStream) {
    let store = open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    let stream = store.stream("S").expect("the stream");
    let unread = readable_or_reported(&stream, model);
    let unread = unread.unwrap_or_else(|difference| panic!("{what}: {difference}"));
    assert_eq!(lost(report, model), unread, "{what}");
}

#[test]
fn an_intact_store_is_intact() {
    for kind in [0, 1] {
        for end in [End::Kill, End::Close] {
            let sample = sample(kind, end);
            let report = verify(&sample.disk);
            assert!(report.is_intact() && report.opens(), "{report}");
            let stream = report.stream("S").expect("the stream");
            let model = sample.newest();
            assert_eq!(stream.msgs, model.msgs.len() as u64);
            assert_eq!(stream.msgs_readable, stream.msgs);
            assert_eq!(stream.first_seq, Seq(model.first_seq()));
            assert_eq!(stream.last_seq, Seq(model.last_seq));
            let sealed: u64 = sample
                .files("seg/")
                .iter()
                .map(|(_, b)| b.len() as u64)
                .sum();
            assert!(report.bytes >= sealed, "{report}");
            open(&sample.disk).expect("the lock was let go");
        }
    }
}

#[test]
fn an_open_store_is_not_checked() {
    let sample = sample(0, End::Close);
    let store = open(&sample.disk).expect("it opens");
    let options = support::options();
    let refused = Store::verify_in(&env(&sample.disk), Path::new(DIR), &options);
    assert!(matches!(refused, Err(OpenError::Locked { .. })));
    drop(store);
    verify(&sample.disk);
}

#[test]
fn no_store_is_an_error() {
    let disk = SimDisk::new(1);
    let options = support::options();
    let missing = Store::verify_in(&env(&disk), Path::new(DIR), &options);
    assert!(missing.is_err());
    use riverlog_engine::io::Io;
    disk.create_dir_all(Path::new(DIR)).expect("a directory");
    let empty = Store::verify_in(&env(&disk), Path::new(DIR), &options);
    assert!(matches!(empty, Err(OpenError::NotAStore { .. })));
    assert_eq!(disk.files(), vec![]);
}

fn a_flipped_bit_in_sealed_data(kind: u8) {
    let sample = sample(kind, End::Kill);
    let model = sample.newest();
    flip_everywhere(&sample, "seg/", |what, disk, report| {
        assert!(!report.is_intact(), "{what} is not found");
        assert!(report.opens(), "{what}: {report}");
        let lost = lost(report, model);
        assert!(lost.len() <= 4, "{what}: lost {lost:?}");
        let stream = report.stream("S").expect("the stream");
        assert_eq!(stream.msgs_lost(), lost.len() as u64, "{what}");
        agrees_with_reads(what, disk, report, model);
    });
}

#[test]
fn a_flipped_bit_in_a_sealed_file_is_found() {
    a_flipped_bit_in_sealed_data(0);
}

#[test]
fn a_flipped_bit_in_a_compressed_sealed_file_is_found() {
    a_flipped_bit_in_sealed_data(1);
}

#[test]
fn a_flipped_bit_in_the_index_is_found_and_loses_nothing() {
    let sample = sample(0, End::Kill);
    flip_everywhere(&sample, "idx/", |what, _, report| {
        assert!(report.has(FindingKind::Derived), "{what} is not found");
        assert_eq!(report.lost().count(), 0, "{what}: {report}");
    });
}

/// Whether the store opens, and with which messages, is known beforehand.
fn a_flipped_bit_in_a_log(part: &str, end: End) {
    let sample = sample(0, end);
    flip_everywhere(&sample, part, |what, disk, report| match open(disk) {
        Ok(store) => {
            assert!(report.opens(), "{what}: {report}");
            let stream = store.stream("S").expect("the stream");
            let found = report.stream("S").expect("the stream");
            assert_eq!(stream.state().msgs, found.msgs, "{what}");
            assert_eq!(stream.state().last_seq, found.last_seq, "{what}");
            assert_eq!(found.msgs_lost(), 0, "{what}: {report}");
        }
        Err(error) => assert!(!report.opens(), "{what}: {report}, but {error}"),
    });
}

#[test]
fn a_flipped_bit_in_the_log_of_a_killed_store() {
    a_flipped_bit_in_a_log("wal/", End::Kill);
}

#[test]
fn a_flipped_bit_in_the_metadata() {
    a_flipped_bit_in_a_log("meta/", End::Kill);
    a_flipped_bit_in_a_log("meta/", End::Close);
}

#[test]
fn a_flipped_bit_in_the_identity() {
    let sample = sample(0, End::Close);
    flip_everywhere(&sample, "FORMAT", |what, disk, report| {
        assert_eq!(report.opens(), open(disk).is_ok(), "{what}: {report}");
        // The rest of the store is checked all the same.
        assert_eq!(report.stream("S").map(|s| s.msgs_lost()), Some(0), "{what}");
    });
}

#[test]
fn files_cut_short() {
    for end in [End::Kill, End::Close] {
        let sample = sample(1, end);
        for (path, bytes) in sample.files("/") {
            let len = bytes.len() as u64;
            let step = usize::try_from(len / 24).expect("small").max(1);
            let mut cuts: Vec<u64> = (0..len).step_by(step).collect();
            cuts.extend([1, 63, 64, 4096, 8192, len - 1]);
            for cut in cuts.into_iter().filter(|cut| *cut < len) {
                let disk = sample.disk.fork();
                disk.truncate(&path, cut).expect("a file");
                let what = format!("{path} cut to {cut} bytes");
                let report = verify(&disk);
                if path.contains("seg/") {
                    assert!(!report.is_intact(), "{what}");
                    agrees_with_reads(&what, &disk, &report, sample.newest());
                } else if path.contains("idx/") {
                    assert!(report.has(FindingKind::Derived), "{what}");
                    assert_eq!(report.lost().count(), 0, "{what}");
                } else {
                    let opened = open(&disk);
                    assert_eq!(report.opens(), opened.is_ok(), "{what}: {report}");
                }
            }
        }
    }
}

#[test]
fn missing_files_are_named() {
    let sample = sample(0, End::Close);
    for part in ["seg/", "idx/", "ids/", "meta/", "FORMAT"] {
        for (path, _) in sample.files(part) {
            let report = verify(&without(&sample.disk, &path));
            assert!(
                report.to_string().contains(&path) || part == "meta/",
                "{report}"
            );
            match part {
                "seg/" => {
                    assert!(!lost(&report, sample.newest()).is_empty(), "{report}");
                    assert!(report.has(FindingKind::Lost));
                }
                "idx/" => assert!(report.has(FindingKind::Derived) && report.opens()),
                "ids/" => assert!(report.has(FindingKind::Lost) && report.opens()),
                _ => assert!(!report.opens(), "{report}"),
            }
        }
    }
}

/// An index run that belongs to its segment, passes every checksum, and lacks a message.
#[test]
fn an_index_that_disagrees_with_its_segment_is_found() {
    use riverlog_engine::format::file_header::FileHeader;
    use riverlog_engine::ids::{SegmentId, StreamId};
    use riverlog_engine::index::{RunSource, RunWriter, run_path};
    use riverlog_engine::io::Io;
    use riverlog_engine::segment::SegmentManifest;
    let sample = sample(0, End::Close);
    let header = FileHeader::decode(&sample.files("FORMAT")[0].1).expect("an identity");
    let (path, sealed) = &sample.files("seg/")[0];
    let name = path.rsplit('/').next().expect("a name");
    let number = name.strip_suffix(".seg").expect("a sealed file");
    let id = SegmentId(u64::from_str_radix(number, 16).expect("a number"));
    let (_, digest) = sealed.split_last_chunk::<8>().expect("a footer");
    let manifest = SegmentManifest {
        id,
        file_bytes: sealed.len() as u64,
        bytes: 0,
        footer_digest: u64::from_le_bytes(*digest),
        key: None,
    };
    let run = run_path(&Path::new(DIR).join("idx"), id);
    for postings in [vec![(Seq(1), 9_035)], vec![(Seq(1), 1), (Seq(2), 1)]] {
        let disk = sample.disk.fork();
        disk.remove(&run).expect("a run");
        let mut writer = RunWriter::new(
            &env(&disk),
            &run,
            header.store_uuid,
            RunSource::Segment(manifest),
            8,
        )
        .expect("a new file");
        writer
            .push(StreamId(1), b"s.0", &postings)
            .expect("ascending");
        writer.finish(0).expect("written");
        let report = verify(&disk);
        assert!(report.has(FindingKind::Derived), "{report}");
    }
}

#[test]
fn files_that_nothing_names_are_no_damage() {
    use riverlog_engine::io::{Io, OpenMode};
    let sample = sample(0, End::Close);
    for name in [
        "seg/00000000000000ff.seg",
        "idx/00000000000000ff.idx",
        "seg/notes",
    ] {
        let path = Path::new(DIR).join(name);
        sample
            .disk
            .open(&path, OpenMode::CreateNew)
            .expect("a file");
    }
    let report = verify(&sample.disk);
    assert!(report.is_intact(), "{report}");
    let orphans = report.findings.iter();
    assert_eq!(orphans.filter(|f| f.kind == FindingKind::Orphan).count(), 3);
}

/// Sectors that the device refuses to read cost the messages in them, for now.
#[test]
fn a_refused_read_is_named_with_its_messages() {
    let sample = sample(0, End::Close);
    let (path, _) = &sample.files("seg/")[0];
    let name = path.rsplit('/').next().expect("a name").to_owned();
    let (mut reads, mut with_loss) = (0, 0);
    loop {
        let disk = sample.disk.fork();
        disk.inject_on(&name, Fault::ReadError, Trigger::After(reads));
        let report = Store::verify_in(&env(&disk), Path::new(DIR), &support::options());
        let report = report.unwrap_or_else(|error| panic!("{error}"));
        if disk.faults() == 0 {
            assert!(report.is_intact(), "{report}");
            break;
        }
        assert!(!report.is_intact(), "{report}");
        let lost = lost(&report, sample.newest());
        assert!(lost.len() <= 4, "{report}");
        with_loss += u32::from(!lost.is_empty());
        disk.clear_faults();
        assert!(verify(&disk).is_intact());
        reads += 1;
    }
    assert!(
        reads > 5 && with_loss >= 2,
        "{reads} reads, {with_loss} of blocks"
    );
}

#[test]
fn a_flipped_bit_in_message_ids_is_found() {
    let sample = sample(0, End::Close);
    flip_everywhere(&sample, "ids/", |what, disk, report| {
        assert!(!report.is_intact() && report.opens(), "{what}: {report}");
        assert!(report.lost().next().is_none(), "{what}: no message is lost");
        agrees_with_reads(what, disk, report, sample.newest());
    });
}
