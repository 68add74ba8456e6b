//! Tests of the log as a whole, on the simulated disk.

mod commit;
mod crash;
mod damage;
mod decision_table;
mod encryption;
mod space;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::log_file::{END_BYTES, FRAMES_OFFSET};
use super::{
    Class, CommitQueue, Committer, EnqueueError, QueueOptions, RecoverError, Step, Wal, WalOptions,
    WalRecovered, recover,
};
use crate::format::frame::HEAD_BYTES;
use crate::format::op::Op;
use crate::format::record::{Record, record_crc};
use crate::ids::{Lsn, Seq, StreamId, TimestampNs};
use crate::io::Env;
use crate::io::sim::{SimClock, SimDisk};

pub(super) const DIR: &str = "/wal";
pub(super) const UUID: u128 = 0x0123_4567_89ab_cdef;
const STREAM: StreamId = StreamId(1);

pub(super) fn dir() -> &'static Path {
    Path::new(DIR)
}

pub(super) fn env(disk: &SimDisk, seed: u64) -> Env {
    Env::simulated(disk, &SimClock::new(1_000), seed)
}

/// Files that hold a few frames each.
pub(super) fn small() -> WalOptions {
    WalOptions {
        file_bytes: FRAMES_OFFSET + END_BYTES as u64 + 1500,
        files_max: 6,
        control_reserve_bytes: 0,
    }
}

/// One file is enough for a short test.
pub(super) fn medium() -> WalOptions {
    WalOptions {
        file_bytes: 256 << 10,
        ..small()
    }
}

/// The op that the tests write at this lsn: its content follows from the number.
pub(super) fn encode_op(lsn: u64, out: &mut Vec<u8>) {
    let payload = vec![lsn as u8; (lsn % 7) as usize * 20];
    let (seq, ts) = (Seq(lsn), TimestampNs(lsn as i64));
    let crc = record_crc(STREAM, seq, ts, 0, b"a.b", b"", &payload, b"");
    let record = Record {
        seq,
        ts,
        subject: b"a.b",
        headers: b"",
        payload: &payload,
        msg_id: b"",
        crc,
        ..Record::default()
    };
    Op::Append {
        stream: STREAM,
        record,
    }
    .encode(out);
}

/// What a recovery handed out.
#[derive(Debug)]
pub(super) struct Recovered {
    pub lsns: Vec<u64>,
    pub report: WalRecovered,
}

/// Recovers and checks that each op is the one written at its lsn.
pub(super) fn recover_with(
    disk: &SimDisk,
    after: u64,
    salvage: bool,
) -> Result<Recovered, RecoverError> {
    let mut lsns = Vec::new();
    let report = recover(
        &env(disk, 77),
        dir(),
        UUID,
        Lsn(after),
        salvage,
        &mut |lsn, op| {
            let mut expected = Vec::new();
            encode_op(lsn.0, &mut expected);
            let mut found = Vec::new();
            op.encode(&mut found);
            assert_eq!(found, expected, "op {lsn}");
            lsns.push(lsn.0);
            Ok(())
        },
    )?;
    assert_eq!(report.ops, lsns.len() as u64);
    Ok(Recovered { lsns, report })
}

pub(super) fn recovered(disk: &SimDisk, after: u64) -> Recovered {
    recover_with(disk, after, false).unwrap_or_else(|error| panic!("{error}"))
}

/// A log driven frame by frame.
pub(super) struct Writer {
    pub wal: Wal,
    pub next: u64,
}

impl Writer {
    pub fn new(disk: &SimDisk, options: WalOptions) -> Writer {
        let wal = Wal::create(&env(disk, 5), dir(), UUID, options, Lsn(1), Vec::new());
        Writer {
            wal: wal.expect("an empty disk takes a log"),
            next: 1,
        }
    }

    /// Writes a frame that says everything up to `durable` is durable.
    pub fn frame(&mut self, ops: u32, durable: u64) -> &mut Writer {
        let mut frame = vec![0; HEAD_BYTES];
        for lsn in self.next..self.next + u64::from(ops) {
            encode_op(lsn, &mut frame);
        }
        self.wal
            .append_frame(Lsn(self.next), ops, Lsn(durable), &mut frame)
            .expect("the disk takes the frame");
        self.next += u64::from(ops);
        self
    }

    /// Writes and syncs a frame, as the committer does.
    pub fn committed(&mut self, ops: u32) -> &mut Writer {
        self.frame(ops, self.next - 1).sync()
    }

    pub fn sync(&mut self) -> &mut Writer {
        self.wal.sync().expect("the disk syncs");
        self
    }

    pub fn mark(&mut self) -> &mut Writer {
        self.wal.append_mark().expect("the disk takes the mark");
        self.sync()
    }
}

/// Offsets of the frames in a file of the log, found by their magic.
pub(super) fn frame_offsets(disk: &SimDisk, file: &str) -> Vec<u64> {
    let bytes = disk.read_file(file).expect("the file exists");
    let magic = crate::format::frame::MAGIC;
    (FRAMES_OFFSET as usize..bytes.len() - magic.len())
        .filter(|&at| bytes[at..].starts_with(&magic))
        .map(|at| at as u64)
        .collect()
}

pub(super) fn path(no: u64) -> String {
    format!("{DIR}/{no:020}.wal")
}

pub(super) fn queue_and_committer(
    disk: &SimDisk,
    seed: u64,
    options: WalOptions,
    first_lsn: u64,
    old_files: Vec<PathBuf>,
) -> std::io::Result<(Arc<CommitQueue>, Committer)> {
    let env = env(disk, seed);
    let wal = Wal::create(&env, dir(), UUID, options, Lsn(first_lsn), old_files)?;
    let queue = CommitQueue::new(QueueOptions::default(), Lsn(first_lsn));
    let committer = Committer::new(&env, Arc::clone(&queue), wal);
    Ok((queue, committer))
}

/// Enqueues the next `ops` ops as one unit.
pub(super) fn enqueue(queue: &CommitQueue, class: Class, ops: u32) -> Result<Lsn, EnqueueError> {
    queue.room(class)?;
    let first = queue.assigned_lsn().0 + 1;
    queue.enqueue(class, ops, None, |out| {
        (first..first + u64::from(ops)).for_each(|lsn| encode_op(lsn, out));
    })
}
