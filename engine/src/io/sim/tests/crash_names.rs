//! After random changes of names and any power cut, every file is where it was or where it went.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proptest::prelude::*;

use super::create_durable;
use crate::io::sim::{Persist, SimDisk};
use crate::io::{Io, OpenMode};

#[derive(Clone, Debug)]
enum Step {
    Create(&'static str),
    Rename(&'static str, &'static str),
    Remove(&'static str),
    SyncDir(&'static str),
}

/// Directories move too: `a` and `b` are both, depending on what came before.
const PATHS: [&str; 8] = ["a", "b", "x", "y", "a/x", "a/y", "b/x", "b/y"];
const DIRS: [&str; 3] = ["", "a", "b"];

fn step() -> impl Strategy<Value = Step> {
    let path = || prop::sample::select(PATHS.as_slice());
    prop_oneof![
        3 => path().prop_map(Step::Create),
        4 => (path(), path()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => path().prop_map(Step::Remove),
        2 => prop::sample::select(DIRS.as_slice()).prop_map(Step::SyncDir),
    ]
}

/// Files that exist durably before the first step; their content is their number.
const FIRST_FILES: [(&str, u8); 3] = [("x", 200), ("a/x", 201), ("b/x", 202)];

/// Where each file, told apart by its content, ever was; and the files that something removed or
/// replaced.
#[derive(Default)]
struct Model {
    places: BTreeMap<u8, BTreeSet<String>>,
    removed: BTreeSet<u8>,
}

impl Model {
    fn note_places(&mut self, disk: &SimDisk) {
        for (path, _) in disk.files() {
            if let Some(file) = id(disk, &path) {
                self.places.entry(file).or_default().insert(path);
            }
        }
    }
}

fn id(disk: &SimDisk, path: &str) -> Option<u8> {
    disk.read_file(path).ok()?.first().copied()
}

fn run(steps: &[Step]) -> (SimDisk, Model) {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("a")).unwrap();
    disk.create_dir_all(Path::new("b")).unwrap();
    let mut model = Model::default();
    for (path, file) in FIRST_FILES {
        create_durable(&disk, path, &[file]);
    }
    model.note_places(&disk);
    for (number, step) in (1..).zip(steps) {
        match *step {
            Step::Create(path) => {
                if let Ok(file) = disk.open(Path::new(path), OpenMode::CreateNew) {
                    file.write_at(&[number], 0).unwrap();
                    file.sync_data().unwrap();
                }
            }
            Step::Rename(from, to) => {
                let replaced = id(&disk, to).filter(|file| id(&disk, from) != Some(*file));
                if disk.rename(Path::new(from), Path::new(to)).is_ok() {
                    model.removed.extend(replaced);
                }
            }
            Step::Remove(path) => {
                let removed = id(&disk, path);
                if disk.remove(Path::new(path)).is_ok() {
                    model.removed.extend(removed);
                }
            }
            // Sub-directories may be files or gone by now.
            Step::SyncDir(dir) => _ = disk.sync_dir(Path::new(dir)),
        }
        model.note_places(&disk);
    }
    (disk, model)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_file_is_lost_doubled_or_in_a_place_it_never_was(
        steps in prop::collection::vec(step(), 1..16),
        seed in any::<u64>(),
    ) {
        let (disk, model) = run(&steps);
        let survivor = disk.crash(Persist::Random { seed });
        let mut found = BTreeSet::new();
        for (path, len) in survivor.files() {
            prop_assert_eq!(len, 1);
            let file = id(&survivor, &path).unwrap();
            prop_assert!(found.insert(file), "{} twice: {:?}", file, survivor.files());
            let dir_moved = steps.iter().any(|step| {
                matches!(step, Step::Rename("a" | "b", _) | Step::Rename(_, "a" | "b"))
            });
            // A file whose directory moved may be in places that no single moment showed.
            let was_there = model.places[&file].contains(&path);
            prop_assert!(dir_moved || was_there, "{} at {}", file, path);
        }
        for (_, file) in FIRST_FILES {
            let was_removed = model.removed.contains(&file);
            prop_assert!(was_removed || found.contains(&file), "{} lost", file);
        }
    }

    #[test]
    fn after_every_directory_was_synced_all_names_are_durable(
        steps in prop::collection::vec(step(), 1..16),
    ) {
        let (disk, _) = run(&steps);
        let mut open = vec![String::new()];
        while let Some(dir) = open.pop() {
            disk.sync_dir(Path::new(&dir)).unwrap();
            let entries = disk.list(Path::new(&dir)).unwrap();
            let dirs = entries.into_iter().filter(|entry| entry.is_dir);
            open.extend(dirs.map(|entry| format!("{dir}/{}", entry.name)));
        }
        let survivor = disk.crash(Persist::Nothing);
        prop_assert_eq!(survivor.files(), disk.files());
    }
}
