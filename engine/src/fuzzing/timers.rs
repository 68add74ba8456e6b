//! Bodies for timers: the pages, and a segment whose checksums hold and whose timer pages are the
//! input.

use std::path::Path;
use std::sync::Arc;

use super::sealed::split_pages;
use super::{UUID, env};
use crate::cache::Cache;
use crate::format::block_table::Entry;
use crate::format::cipher::Sealer;
use crate::format::file_header::FileKind;
use crate::format::footer::{self, Footer};
use crate::format::page::{self, PAGE_BYTES, PageKind};
use crate::format::timers::{
    Timer, TimerKind, TimerPageBuilder, TimerSeparator, decode_page, separator_pages,
};
use crate::ids::{SegmentId, Seq, StreamId, TimestampNs};
use crate::io::OpenMode;
use crate::io::sim::SimDisk;
use crate::segment::{Segment, SegmentManifest};

/// Decodes the input as a timer page; what decodes ascends, and comes back from its own encoding.
/// Then looks for timers in a segment with the input as timer pages.
pub fn fuzz_timers(data: &[u8]) {
    _ = TimerSeparator::decode(data);
    if let Ok(timers) = decode_page(data) {
        assert!(timers.is_sorted_by(|a, b| a.key() < b.key()));
        let mut again = Vec::new();
        let mut builder = TimerPageBuilder::default();
        for timer in &timers {
            if !builder.push(timer) {
                again.extend(finished(&mut builder));
                assert!(builder.push(timer), "an empty page has room");
            }
        }
        again.extend(finished(&mut builder));
        assert_eq!(again, timers);
    }
    let disk = SimDisk::new(1);
    let Ok(segment) = with_timer_pages(&disk, &split_pages(data)) else {
        return;
    };
    for stream in 0..3 {
        for kind in [TimerKind::Expiry, TimerKind::Notice] {
            let mut after = None;
            // A page that lies about the order ends the walk with an answer, not with a loop.
            for _ in 0..8 {
                let found = segment.timers_due(StreamId(stream), kind, after, TimestampNs::FAR, 5);
                let found = found.expect("no system call failed");
                let key = |timer: &Timer| (timer.due, timer.seq);
                assert!(
                    found
                        .due
                        .iter()
                        .all(|timer| after.is_none_or(|after| key(timer) > after))
                );
                after = found.due.last().map(key).or(after);
            }
        }
    }
    let late = segment.timers_due(
        StreamId(1),
        TimerKind::Expiry,
        Some((TimestampNs::FAR, Seq(u64::MAX))),
        TimestampNs::FAR,
        5,
    );
    assert_eq!(late.map(|found| found.due.len()).ok(), Some(0));
}

fn finished(builder: &mut TimerPageBuilder) -> Vec<Timer> {
    let page = builder.finish();
    page.map_or(Vec::new(), |(payload, _)| {
        decode_page(&payload).expect("a page of ours")
    })
}

/// A segment without messages; the last of `payloads` are separators, as many as there have to be.
fn with_timer_pages(disk: &SimDisk, payloads: &[&[u8]]) -> std::io::Result<Segment> {
    let id = SegmentId(1);
    let sealer = Sealer::new(None, 0, FileKind::Segment, UUID, id.0);
    let pages = payloads.len() as u32;
    let mut file = vec![0; 64];
    for (page_no, payload) in (0..).zip(payloads) {
        let kind = match page_no < pages - separator_pages(pages) {
            true => PageKind::Timers,
            false => PageKind::TimerSeparators,
        };
        page::encode(&sealer, kind, page_no, payload, &mut file);
    }
    let footer = Footer {
        kind: FileKind::Segment,
        store_uuid: UUID,
        file_no: id.0,
        pages_offset: 64,
        section_pages: [0, 0, 0, pages],
        items: [0; 3],
        source_digest: 0,
        file_bytes: (64 + payloads.len() * PAGE_BYTES + footer::BYTES) as u64,
        key: None,
    };
    let encoded = footer.encode();
    file.extend_from_slice(&encoded);
    let env = env(disk);
    let path = Path::new("/sealed/1.seg");
    env.io.create_dir_all(Path::new("/sealed"))?;
    env.io.open(path, OpenMode::CreateNew)?.write_at(&file, 0)?;
    let manifest = SegmentManifest {
        id,
        file_bytes: footer.file_bytes,
        bytes: 0,
        footer_digest: Footer::digest_of(&encoded),
        key: None,
    };
    let cache = Arc::new(Cache::new(1 << 18, 4));
    Ok(Segment::open(&env, path, UUID, manifest, cache))
}

#[cfg(test)]
mod tests {
    use super::super::tests::run;
    use super::*;

    #[test]
    fn timer_pages_survive_seeded_input() {
        run(31, 600, 200, fuzz_timers);
        // A page and its separator, as they are and with a few bytes changed.
        let mut builder = TimerPageBuilder::default();
        for n in 0..40 {
            let timer = Timer {
                stream: StreamId(1 + n / 30),
                kind: TimerKind::Expiry,
                due: TimestampNs(n as i64 * 1_000),
                seq: Seq(n),
                size: 30,
            };
            assert!(builder.push(&timer));
        }
        let (payload, separator) = builder.finish().expect("timers");
        fuzz_timers(&payload);
        let mut valid = (payload.len() as u16).to_le_bytes().to_vec();
        valid.extend_from_slice(&payload);
        valid.extend_from_slice(&(TimerSeparator::BYTES as u16).to_le_bytes());
        separator.encode(&mut valid);
        fuzz_timers(&valid);
        run(32, 600, 9, |data| {
            let mut bytes = valid.clone();
            for change in data.chunks_exact(3) {
                let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % bytes.len();
                bytes[at] ^= change[2];
            }
            fuzz_timers(&bytes);
        });
    }
}
