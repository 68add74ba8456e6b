//! What the simulated disk promises to those who test with it.

use std::path::Path;
use std::sync::Arc;

use super::{Persist, SimDisk};
use crate::io::{Io, IoFile, OpenMode};

mod crash;
mod crash_names;
mod crash_random;
mod faults;
mod matrix;
mod parity;

fn create(disk: &SimDisk, path: &str) -> Arc<dyn IoFile> {
    disk.open(Path::new(path), OpenMode::CreateNew).unwrap()
}

fn open(disk: &SimDisk, path: &str) -> Arc<dyn IoFile> {
    disk.open(Path::new(path), OpenMode::ReadWrite).unwrap()
}

/// A file whose name and content are durable.
fn create_durable(disk: &SimDisk, path: &str, content: &[u8]) -> Arc<dyn IoFile> {
    let file = create(disk, path);
    file.write_at(content, 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new(path).parent().unwrap()).unwrap();
    file
}

fn read(file: &dyn IoFile) -> Vec<u8> {
    let mut content = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut content, 0).unwrap();
    content
}

/// Content of `path` after a power cut; none if the file is gone.
fn survivor(disk: &SimDisk, persist: Persist, path: &str) -> Option<Vec<u8>> {
    disk.crash(persist).read_file(path).ok()
}

/// What survives with each of many random choices.
fn random_survivors(disk: &SimDisk, path: &str) -> Vec<Option<Vec<u8>>> {
    (0..300)
        .map(|seed| survivor(disk, Persist::Random { seed }, path))
        .collect()
}
