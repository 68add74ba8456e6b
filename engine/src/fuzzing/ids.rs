//! Bodies for files of message ids.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{UUID, damage, env};
use crate::cache::Cache;
use crate::dedup::writer::IdFileWriter;
use crate::dedup::{IdFile, IdManifest};
use crate::error::ReadError;
use crate::format::bloom::Bloom;
use crate::format::file_header::FileKind;
use crate::format::id_page::{IdEntry, IdPage, PAGE_ENTRIES};
use crate::format::page::{self, PAGE_BYTES, PAYLOAD_BYTES_MAX, PageKind};
use crate::ids::{IdFileId, Seq, StreamId, TimestampNs};
use crate::io::OpenMode;
use crate::io::sim::SimDisk;

const PATH: &str = "/0000000000000001.ids";
const ID: IdFileId = IdFileId(1);
const IDS: u64 = 3 * PAGE_ENTRIES as u64 - 20;

/// Looks ids up in a file whose pages have valid checksums and hold the input, then in one that was
/// damaged as the input describes, five bytes a change. Of the latter every answer must be right or
/// an error that names the file.
pub fn fuzz_ids(data: &[u8]) {
    _ = IdPage::decode(data);
    arbitrary_pages(data);
    damaged(data);
}

fn entry(n: u64) -> IdEntry {
    IdEntry {
        hash: u128::from(n) << 119 | u128::from(n),
        stream: StreamId(3),
        seq: Seq(n + 1),
        ts: TimestampNs(n as i64),
    }
}

fn open(disk: &SimDisk, manifest: IdManifest) -> Arc<IdFile> {
    let cache = Arc::new(Cache::new(1 << 20, 8));
    let path = Path::new(PATH);
    Arc::new(IdFile::new(&env(disk), path, UUID, manifest, cache, None))
}

fn arbitrary_pages(data: &[u8]) {
    let disk = SimDisk::new(1);
    let env = env(&disk);
    let sealer = env.sealer(FileKind::Ids, UUID, ID.0);
    let mut pages = sealer.header().encode().to_vec();
    let mut count = 0;
    for payload in data.chunks(PAYLOAD_BYTES_MAX).take(8) {
        page::encode(&sealer, PageKind::Ids, count, payload, &mut pages);
        count += 1;
    }
    for payload in Bloom::with_capacity(1)
        .pages()
        .take(usize::from(data.len().is_multiple_of(2)))
    {
        page::encode(&sealer, PageKind::Filter, count, &payload, &mut pages);
    }
    let written = env
        .io
        .open(Path::new(PATH), OpenMode::CreateNew)
        .and_then(|file| file.write_at(&pages, 0));
    let manifest = IdManifest {
        id: ID,
        file_bytes: pages.len() as u64 + 128,
        footer_digest: 0,
        key: None,
        entries: u64::from(count) * PAGE_ENTRIES as u64,
        oldest: TimestampNs(0),
        youngest: TimestampNs(0),
        expires: TimestampNs(0),
    };
    if written.is_err() || !manifest.holds_its_entries() {
        return;
    }
    let file = open(&disk, manifest);
    for hash in [0, 1, 5 << 120, u128::MAX / 2, u128::MAX] {
        if let Ok(Some(found)) = file.find(hash) {
            assert_eq!(found.hash, hash, "what is found is what was asked for");
        }
    }
    pass(&file);
}

fn damaged(data: &[u8]) {
    let disk = SimDisk::new(1);
    let env = env(&disk);
    let written = IdFileWriter::new(&env, Path::new(PATH), UUID, ID, IDS).and_then(|mut writer| {
        for n in 0..IDS {
            writer.push(&entry(n))?;
        }
        writer.finish(TimestampNs(0))
    });
    let Ok((manifest, _)) = written else {
        return;
    };
    damage(&disk, &[PathBuf::from(PATH)], data);
    let file = open(&disk, manifest);
    for n in (0..IDS + 9).step_by(7) {
        match file.find(entry(n).hash) {
            Ok(found) => assert_eq!(found, (n < IDS).then(|| entry(n)), "id {n}"),
            Err(ReadError::DamagedIds(damage)) => {
                assert_eq!(damage.file, Path::new(PATH));
                assert!((damage.offset - 64).is_multiple_of(PAGE_BYTES as u64));
            }
            Err(error) => panic!("{error}"),
        }
    }
    let entries = pass(&file);
    let expected = (0..IDS).map(entry).filter(|id| entries.contains(id));
    assert!(
        entries.iter().copied().eq(expected),
        "in order, and nothing else"
    );
    if let Ok(report) = file.verify(&mut |_| {}) {
        let lost = report.lost.len() as u64 * PAGE_ENTRIES as u64;
        assert!(report.ids <= IDS && report.ids + lost >= IDS, "{report:?}");
    }
}

/// What a pass over the file yields; it reports each page once and ends.
fn pass(file: &Arc<IdFile>) -> Vec<IdEntry> {
    let (mut entries, mut errors) = (Vec::new(), 0);
    let Ok(mut cursor) = file.cursor() else {
        return entries;
    };
    loop {
        match cursor.next() {
            Ok(Some(entry)) => entries.push(entry),
            Ok(None) => return entries,
            Err(_) => errors += 1,
        }
        assert!(errors <= 64, "each page is reported once");
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::run;
    use super::*;

    #[test]
    fn files_of_ids() {
        run(21, 60, 5, fuzz_ids);
        run(22, 40, 60, fuzz_ids);
        // Pages of entries that ascend, cut anywhere.
        let mut entries = Vec::new();
        (0..IDS).for_each(|n| entry(n).encode(&mut entries));
        for len in [0, 39, 40, 41, 4040, 4056, 8080, entries.len()] {
            fuzz_ids(&entries[..len.min(entries.len())]);
        }
    }
}
