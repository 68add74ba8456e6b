//! Manifests of backups, and directories that claim to be one.

use std::path::Path;

use crate::format::backup::Manifest;
use crate::format::cipher::{Opener, Sealer};
use crate::format::file_header::{self, FileKind};
use crate::ids::{Lsn, Seq, StreamId, TimestampNs};
use crate::io::sim::{SimClock, SimDisk};
use crate::io::{Env, Io, OpenMode};
use crate::{Store, StoreOptions};

/// Decoding gives an error or a manifest that encodes to the same bytes. A manifest with any values is
/// checked and restored without a panic, and nothing is restored that is not there.
pub fn fuzz_backup(data: &[u8]) {
    if let Ok(manifest) = Manifest::decode(data) {
        let mut again = Vec::new();
        manifest.encode(&mut again);
        assert_eq!(again, data, "a manifest has one form");
        check(&manifest);
    }
    let opener = Opener::new(None, FileKind::Backup, 7, 0);
    let file = [&[0; file_header::BYTES][..], data].concat();
    _ = Manifest::open(&opener, &file);
    check(&with_values(data));
}

/// Takes the input as values of the stream.
fn with_values(data: &[u8]) -> Manifest {
    let mut values: Vec<(Vec<u8>, Vec<u8>)> = data
        .chunks(24)
        .filter_map(|chunk| {
            let (kind, value) = chunk.split_first()?;
            let number = value.first().copied().filter(|byte| *byte > 127);
            let mut key = vec![b'a' + kind % 8];
            key.extend(
                number
                    .map(|n| u64::from(n).to_be_bytes())
                    .into_iter()
                    .flatten(),
            );
            Some((key, value.to_vec()))
        })
        .collect();
    values.sort();
    values.dedup_by(|a, b| a.0 == b.0);
    Manifest {
        store_uuid: 1,
        stream: StreamId(1),
        taken_at: TimestampNs(0),
        lsn: Lsn(1),
        next_file: 1,
        values,
        files: Vec::new(),
        lost: vec![(Seq(1), Seq(2))],
    }
}

fn check(manifest: &Manifest) {
    let disk = SimDisk::new(1);
    let env = Env::simulated(&disk, &SimClock::new(1), 1);
    let write = || -> std::io::Result<()> {
        disk.create_dir_all(Path::new("backup/data"))?;
        let file = disk.open(Path::new("backup/MANIFEST"), OpenMode::CreateNew)?;
        let sealer = Sealer::new(None, 0, FileKind::Backup, 7, 0);
        file.write_at(&manifest.seal(&sealer), 0)
    };
    if write().is_ok() {
        _ = Store::verify_backup_in(&env, Path::new("backup"), &StoreOptions::default());
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::run;
    use super::*;

    #[test]
    fn manifests() {
        run(31, 300, 300, fuzz_backup);
        let mut valid = Vec::new();
        with_values(&[1, 2, 3]).encode(&mut valid);
        fuzz_backup(&valid);
        for at in 0..valid.len() {
            let mut bad = valid.clone();
            bad[at] ^= 1;
            fuzz_backup(&bad);
        }
    }
}
