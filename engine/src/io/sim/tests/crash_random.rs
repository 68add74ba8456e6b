//! After random operations and any power cut: what was synced is there, and nothing else than what
//! was written.

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;

use super::create_durable;
use crate::io::Io;
use crate::io::sim::{Persist, SimDisk};

#[derive(Clone, Debug)]
enum Step {
    Write {
        file: usize,
        offset: u64,
        len: usize,
    },
    SetLen {
        file: usize,
        len: u64,
    },
    Allocate {
        file: usize,
        len: u64,
    },
    Sync {
        file: usize,
    },
}

const FILES: [&str; 2] = ["a", "b"];

fn step() -> impl Strategy<Value = Step> {
    let file = 0..FILES.len();
    prop_oneof![
        6 => (file.clone(), 0..12_000_u64, 1..6_000_usize)
            .prop_map(|(file, offset, len)| Step::Write { file, offset, len }),
        1 => (file.clone(), 0..12_000_u64).prop_map(|(file, len)| Step::SetLen { file, len }),
        1 => (file.clone(), 0..12_000_u64).prop_map(|(file, len)| Step::Allocate { file, len }),
        2 => file.prop_map(|file| Step::Sync { file }),
    ]
}

fn persist() -> impl Strategy<Value = Persist> {
    prop_oneof![
        2 => prop::sample::select(Persist::FIXED.as_slice()),
        2 => any::<u64>().prop_map(|seed| Persist::Random { seed }),
    ]
}

/// Runs the steps; returns the disk and, per file, its content after the last sync and after each
/// change since then.
fn run(steps: &[Step]) -> (SimDisk, [Vec<Vec<u8>>; 2]) {
    let disk = SimDisk::new(1);
    let files = FILES.map(|name| create_durable(&disk, name, b""));
    let mut versions = [vec![Vec::new()], vec![Vec::new()]];
    for (number, step) in steps.iter().enumerate() {
        let byte = number as u8 + 1;
        let file = match *step {
            Step::Write { file, offset, len } => {
                files[file].write_at(&vec![byte; len], offset).unwrap();
                file
            }
            Step::SetLen { file, len } => {
                files[file].set_len(len).unwrap();
                file
            }
            Step::Allocate { file, len } => {
                files[file].allocate(len).unwrap();
                file
            }
            Step::Sync { file } => {
                files[file].sync_data().unwrap();
                versions[file].clear();
                file
            }
        };
        versions[file].push(disk.read_file(FILES[file]).unwrap());
    }
    (disk, versions)
}

/// A sector of a file that reads as zeros beyond its end.
fn sector(content: &[u8], start: usize) -> [u8; 512] {
    let mut sector = [0; 512];
    let inside = content
        .get(start..content.len().min(start + 512))
        .unwrap_or_default();
    sector[..inside.len()].copy_from_slice(inside);
    sector
}

/// Every sector is one version of itself, perhaps with zeros from where a version ended: a cut may
/// survive without the write before it. The length is between the shortest and the longest. Where
/// one version is the only one, it was synced, and this says that it is there.
fn check(found: &[u8], versions: &[Vec<u8>]) -> Result<(), TestCaseError> {
    let lens: BTreeSet<usize> = versions.iter().map(Vec::len).collect();
    let (min, max) = (
        lens.first().copied().unwrap_or(0),
        lens.last().copied().unwrap_or(0),
    );
    prop_assert!(
        (min..=max).contains(&found.len()),
        "length {} of {min}..={max}",
        found.len()
    );
    for start in (0..found.len()).step_by(512) {
        let found_sector = sector(found, start);
        let is_version = versions.iter().any(|version| {
            lens.iter().chain([&found.len()]).any(|cut| {
                let end = version.len().min(found.len()).min(*cut);
                sector(&version[..end], start) == found_sector
            })
        });
        prop_assert!(is_version, "sector at {start} was never written so");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn synced_content_survives_and_nothing_foreign_appears(
        steps in prop::collection::vec(step(), 1..24),
        persist in persist(),
    ) {
        let (disk, versions) = run(&steps);
        let survivor = disk.crash(persist);
        for (name, versions) in FILES.iter().zip(&versions) {
            check(&survivor.read_file(name).unwrap(), versions)?;
        }
        // What a machine finds after a power cut is on the device: a second cut changes nothing.
        let again = survivor.crash(Persist::Nothing);
        for name in FILES {
            prop_assert_eq!(survivor.read_file(name).unwrap(), again.read_file(name).unwrap());
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_survivor(
        steps in prop::collection::vec(step(), 1..24),
        seed in any::<u64>(),
    ) {
        let ((one, _), (two, _)) = (run(&steps), run(&steps));
        prop_assert_eq!(one.log(), two.log());
        let persist = Persist::Random { seed };
        let (one, two) = (one.crash(persist), two.crash(persist));
        prop_assert_eq!(one.files(), two.files());
        for name in FILES {
            prop_assert_eq!(one.read_file(name).unwrap(), two.read_file(name).unwrap());
        }
    }

    #[test]
    fn dropping_caches_of_a_healthy_disk_changes_nothing(
        steps in prop::collection::vec(step(), 1..24),
    ) {
        let (disk, _) = run(&steps);
        for name in FILES {
            let before = disk.read_file(name).unwrap();
            disk.open(Path::new(name), crate::io::OpenMode::Read).unwrap().drop_cache();
            prop_assert_eq!(before, disk.read_file(name).unwrap());
        }
    }
}
