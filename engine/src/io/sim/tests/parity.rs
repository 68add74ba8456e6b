//! Without a power cut or a fault, the simulated disk behaves as the real one.

use std::io::{ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;

use crate::io::disk::DiskIo;
use crate::io::sim::SimDisk;
use crate::io::{DirEntry, Io, IoFile, OpenMode};

#[derive(Clone, Debug)]
enum Step {
    CreateDirAll(&'static str),
    Open(usize, &'static str, OpenMode),
    Close(usize),
    Rename(&'static str, &'static str),
    Remove(&'static str),
    List(&'static str),
    SyncDir(&'static str),
    Lock(&'static str),
    Read(usize, u64, usize),
    Write(usize, u64, usize, u8),
    Sync(usize),
    SetLen(usize, u64),
    Allocate(usize, u64),
    DropCache(usize),
}

/// Few, so that they collide: the same names serve as files and as directories.
const PATHS: [&str; 9] = ["", "a", "b", "a/b", "a/c", "b/a", "a/b/c", "c", "c/d"];
const HANDLES: usize = 3;
const LEN_MAX: u64 = 20_000;

fn path() -> impl Strategy<Value = &'static str> {
    prop::sample::select(PATHS.as_slice())
}

fn mode() -> impl Strategy<Value = OpenMode> {
    prop_oneof![
        1 => Just(OpenMode::Read),
        3 => Just(OpenMode::ReadWrite),
        4 => Just(OpenMode::CreateNew)
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let handle = 0..HANDLES;
    prop_oneof![
        2 => path().prop_map(Step::CreateDirAll),
        6 => (handle.clone(), path(), mode()).prop_map(|(h, p, m)| Step::Open(h, p, m)),
        1 => handle.clone().prop_map(Step::Close),
        3 => (path(), path()).prop_map(|(from, to)| Step::Rename(from, to)),
        2 => path().prop_map(Step::Remove),
        2 => path().prop_map(Step::List),
        1 => path().prop_map(Step::SyncDir),
        1 => path().prop_map(Step::Lock),
        4 => (handle.clone(), 0..LEN_MAX, 0..9_000_usize).prop_map(|(h, o, n)| Step::Read(h, o, n)),
        6 => (handle.clone(), 0..LEN_MAX, 0..9_000_usize, 1..=u8::MAX)
            .prop_map(|(h, o, n, b)| Step::Write(h, o, n, b)),
        1 => handle.clone().prop_map(Step::Sync),
        2 => (handle.clone(), 0..LEN_MAX).prop_map(|(h, len)| Step::SetLen(h, len)),
        1 => (handle.clone(), 0..LEN_MAX).prop_map(|(h, len)| Step::Allocate(h, len)),
        1 => handle.prop_map(Step::DropCache),
    ]
}

/// What a caller sees of a step.
#[derive(PartialEq, Debug)]
enum Seen {
    Nothing,
    Done,
    Failed(ErrorKind),
    Entries(Vec<DirEntry>),
    Bytes(Vec<u8>),
    NotWritable,
}

struct Machine {
    io: Box<dyn Io>,
    root: PathBuf,
    handles: [Option<(Arc<dyn IoFile>, OpenMode)>; HANDLES],
}

impl Machine {
    fn new(io: impl Io, root: &Path) -> Self {
        Self {
            io: Box::new(io),
            root: root.to_path_buf(),
            handles: [const { None }; HANDLES],
        }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn step(&mut self, step: &Step) -> Seen {
        match *step {
            Step::CreateDirAll(path) => seen(self.io.create_dir_all(&self.at(path))),
            Step::Open(handle, path, mode) => {
                let opened = self.io.open(&self.at(path), mode);
                seen(opened.map(|file| self.handles[handle] = Some((file, mode))))
            }
            Step::Close(handle) => {
                self.handles[handle] = None;
                Seen::Done
            }
            Step::Rename(from, to) => seen(self.io.rename(&self.at(from), &self.at(to))),
            Step::Remove(path) => seen(self.io.remove(&self.at(path))),
            Step::List(path) => match self.io.list(&self.at(path)) {
                Ok(entries) => Seen::Entries(entries),
                Err(error) => Seen::Failed(error.kind()),
            },
            Step::SyncDir(path) => seen(self.io.sync_dir(&self.at(path))),
            Step::Lock(path) => seen(self.io.lock(&self.at(path)).map(drop)),
            Step::Read(handle, offset, len) => self.on_file(handle, false, |file| {
                let mut buf = vec![0; len];
                let n = file.read_at(&mut buf, offset)?;
                buf.truncate(n);
                Ok(Some(buf))
            }),
            Step::Write(handle, offset, len, byte) => self.on_file(handle, true, |file| {
                file.write_at(&vec![byte; len], offset)?;
                Ok(None)
            }),
            Step::Sync(handle) => self.on_file(handle, false, |file| {
                file.sync_data()?;
                Ok(None)
            }),
            Step::SetLen(handle, len) => self.on_file(handle, true, |file| {
                file.set_len(len)?;
                Ok(Some(file.len()?.to_le_bytes().to_vec()))
            }),
            Step::Allocate(handle, len) => self.on_file(handle, true, |file| {
                file.allocate(len)?;
                Ok(Some(file.len()?.to_le_bytes().to_vec()))
            }),
            Step::DropCache(handle) => self.on_file(handle, false, |file| {
                file.drop_cache();
                Ok(None)
            }),
        }
    }

    fn on_file(
        &self,
        handle: usize,
        writes: bool,
        body: impl FnOnce(&dyn IoFile) -> Result<Option<Vec<u8>>>,
    ) -> Seen {
        let Some((file, mode)) = &self.handles[handle] else {
            return Seen::Nothing;
        };
        match body(file.as_ref()) {
            // The kind of this error is the platform's own.
            Err(_) if writes && *mode == OpenMode::Read => Seen::NotWritable,
            Err(error) => Seen::Failed(error.kind()),
            Ok(Some(bytes)) => Seen::Bytes(bytes),
            Ok(None) => Seen::Done,
        }
    }
}

fn seen(result: Result<()>) -> Seen {
    match result {
        Ok(()) => Seen::Done,
        Err(error) => Seen::Failed(error.kind()),
    }
}

/// The root stands for a mount point here, and renaming it is not a question either disk is asked.
fn is_comparable(step: &Step) -> bool {
    !matches!(
        step,
        Step::Rename("", _) | Step::Rename(_, "") | Step::Open(_, "", OpenMode::CreateNew)
    ) && !matches!(step, Step::Remove("") | Step::Lock(""))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_simulated_disk_behaves_as_the_real_one(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut real = Machine::new(DiskIo::new(), dir.path());
        let mut simulated = Machine::new(SimDisk::new(0), Path::new("/"));
        for step in steps.iter().filter(|step| is_comparable(step)) {
            prop_assert_eq!(real.step(step), simulated.step(step), "{:?}", step);
        }
        for path in PATHS {
            let list = Step::List(path);
            prop_assert_eq!(real.step(&list), simulated.step(&list), "{:?}", list);
        }
    }
}
