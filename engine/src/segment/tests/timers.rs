//! The timer section answers as the messages themselves would, also where it is damaged.

use super::*;
use crate::format::file_header::FileKind;
use crate::format::footer::{self, Footer};
use crate::format::page::PAGE_BYTES;
use crate::format::record::flag;
use crate::format::timers::{Timer, TimerKind};
use crate::segment::TimersDue;
use crate::segment::writer::timers_of;

/// Two streams with timers on several pages, and one between them without any.
fn timed() -> Sealed {
    let sample = |stream: u64, seq: u64, flags| Sample {
        flags,
        payload: vec![b'x'; (seq % 40) as usize],
        ..Sample::new(stream, seq)
    };
    let flags = |n: u64| match n % 4 {
        0 => flag::TTL,
        1 => flag::NOTIFY,
        2 => flag::TTL | flag::NOTIFY | flag::NO_MARKER,
        _ => flag::NEVER,
    };
    let mut samples: Vec<Sample> = (1..2_000).map(|n| sample(1, 3 * n, flags(n))).collect();
    samples.extend((1..20).map(|n| sample(2, n, 0)));
    samples.extend((1..400).map(|n| sample(5, n, flags(n))));
    Sealed::new(samples, Codec::S2)
}

/// All timers that the messages have.
fn expected(sealed: &Sealed) -> Vec<Timer> {
    let samples = sealed.samples.iter();
    let mut timers: Vec<Timer> = samples
        .flat_map(|sample| timers_of(sample.stream, &sample.record()))
        .flatten()
        .collect();
    timers.sort_unstable();
    timers
}

/// Walks through all timers of a kind in steps of `max`.
fn walk(segment: &Segment, stream: StreamId, kind: TimerKind, max: usize) -> Vec<Timer> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let found = segment
            .timers_due(stream, kind, after, TimestampNs::FAR, max)
            .expect("readable");
        assert!(found.due.len() <= max);
        after = found.due.last().map(|timer| (timer.due, timer.seq));
        all.extend(found.due);
        if found.next.is_none() {
            return all;
        }
    }
}

#[track_caller]
fn check(sealed: &Sealed, segment: &Segment, what: &str) {
    let expected = expected(sealed);
    for stream in [1, 2, 5, 6].map(StreamId) {
        for kind in [TimerKind::Expiry, TimerKind::Notice] {
            let of_kind = |timer: &&Timer| timer.stream == stream && timer.kind == kind;
            let all: Vec<Timer> = expected.iter().filter(of_kind).copied().collect();
            assert_eq!(walk(segment, stream, kind, 700), all, "{what}");
            for until in [i64::MIN, 0, 1_000, 500_000_000, 3_000_000_000, i64::MAX] {
                let until = TimestampNs(until);
                let border = all.partition_point(|timer| timer.due <= until);
                let want = TimersDue {
                    due: all[..border].to_vec(),
                    next: all.get(border).map(|timer| timer.due),
                };
                let found = segment.timers_due(stream, kind, None, until, usize::MAX);
                assert_eq!(found.expect("readable"), want, "{what}");
            }
        }
    }
}

#[test]
fn timers_are_those_of_the_messages() {
    let sealed = timed();
    check(&sealed, &sealed.open(), "intact");
    let segment = sealed.open();
    let every_one = walk(&segment, StreamId(5), TimerKind::Expiry, 1);
    assert_eq!(
        every_one,
        walk(&segment, StreamId(5), TimerKind::Expiry, 1_000)
    );
    for extent in &sealed.sealed.extents {
        let expected = expected(&sealed);
        let first = |kind| {
            let mut of_kind = expected
                .iter()
                .filter(|timer| (timer.stream, timer.kind) == (extent.stream, kind));
            of_kind.next().map_or(TimestampNs::FAR, |timer| timer.due)
        };
        assert_eq!(extent.first_expiry, first(TimerKind::Expiry));
        assert_eq!(extent.first_notice, first(TimerKind::Notice));
    }
}

#[test]
fn what_is_not_due_is_not_read() {
    let sealed = timed();
    let segment = sealed.open();
    let due = |until| {
        let until = TimestampNs(until);
        let kind = TimerKind::Expiry;
        segment.timers_due(StreamId(1), kind, None, until, usize::MAX)
    };
    assert_eq!(due(0).expect("readable").due, []);
    let before = sealed.io.reads();
    assert_eq!(due(1).expect("readable").due, []);
    assert_eq!(sealed.io.reads(), before, "the page is in the cache");
    assert!(!due(1_000_000_000).expect("readable").due.is_empty());
    let some = sealed.io.reads() - before;
    assert!(!due(i64::MAX).expect("readable").due.is_empty());
    assert!(sealed.io.reads() - before > some, "there are more pages");
}

#[test]
fn a_damaged_page_costs_no_timer() {
    let sealed = timed();
    let intact = sealed.bytes();
    let footer_at = intact.len() - footer::BYTES;
    let id = sealed.sealed.manifest.id;
    let footer = Footer::decode(
        FileKind::Segment,
        UUID,
        id.0,
        intact.len() as u64,
        &intact[footer_at..],
    )
    .expect("a footer");
    assert!(footer.section_pages[3] > 3, "several pages");
    let first = footer.section_start(3);
    for page in first..first + footer.section_pages[3] {
        for at in [0, 20, PAGE_BYTES - 1] {
            let mut bytes = intact.clone();
            bytes[footer.page_offset(page) as usize + at] ^= 0x10;
            sealed.set_bytes(bytes);
            let segment = sealed.open();
            check(&sealed, &segment, &format!("page {page} at {at}"));
            assert_eq!(segment.extents().expect("extents"), sealed.sealed.extents);
        }
    }
    // The footer and the first table page: everything is made from the blocks.
    for at in [footer_at, footer.pages_offset as usize] {
        let mut bytes = intact.clone();
        bytes[at] ^= 1;
        sealed.set_bytes(bytes);
        let segment = sealed.open();
        check(&sealed, &segment, &format!("byte {at}"));
        let counted = segment.extents().expect("extents");
        assert_eq!(counted, sealed.sealed.extents);
    }
}

#[test]
fn a_message_that_is_lost_has_no_timer_and_the_others_keep_theirs() {
    let sealed = timed();
    let mut bytes = sealed.bytes();
    let last = bytes.len() - footer::BYTES - 1;
    bytes[last] ^= 1;
    bytes[500] ^= 1;
    sealed.set_bytes(bytes);
    let found = walk(&sealed.open(), StreamId(5), TimerKind::Notice, 100);
    let expected = expected(&sealed);
    let of_five = |timer: &&Timer| timer.stream == StreamId(5) && timer.kind == TimerKind::Notice;
    let expected: Vec<Timer> = expected.iter().filter(of_five).copied().collect();
    assert_eq!(found, expected);
    let found = walk(&sealed.open(), StreamId(1), TimerKind::Notice, 100);
    assert!(!found.is_empty());
}
