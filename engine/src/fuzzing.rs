//! Entry points for fuzzers: bodies that must never panic, whatever the input. The same bodies run
//! with seeded random input in the ordinary tests.

mod backup;
mod consumer;
mod encrypted;
mod ids;
mod sealed;
mod timers;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::file_header::FileHeader;
use crate::format::frame::{FrameHead, HEAD_BYTES};
use crate::format::key_ring::{Key, KeyRing};
use crate::format::op::Op;
use crate::ids::{ConsumerId, Lsn, Seq, StreamId};
use crate::io::sim::{SimClock, SimDisk};
use crate::io::{Env, OpenMode};
use crate::meta::{MetaBatch, MetaLog};
use crate::wal::log_file::FRAMES_OFFSET;
use crate::wal::{RecoverError, Wal, WalOptions, recover};

pub use backup::fuzz_backup;
pub use consumer::fuzz_consumer;
pub use encrypted::fuzz_encrypted;
pub use ids::fuzz_ids;
pub use sealed::{fuzz_block, fuzz_run, fuzz_segment};
pub use timers::fuzz_timers;

const UUID: u128 = 7;
/// Ops of the log that [`fuzz_wal_recovery`] damages.
const OPS: u64 = 40;

/// Decodes ops from the front of the input until one fails; what decodes must encode to the same
/// bytes.
pub fn fuzz_op(data: &[u8]) {
    let mut rest = data;
    while let Ok((op, behind)) = Op::decode(rest) {
        let mut again = Vec::new();
        op.encode(&mut again);
        assert_eq!(
            again,
            rest[..rest.len() - behind.len()],
            "one encoding per op"
        );
        rest = behind;
    }
}

/// Decodes a file header and a frame; the first eight bytes are the epoch.
pub fn fuzz_frame(data: &[u8]) {
    _ = FileHeader::decode(data);
    let Some((epoch, bytes)) = data.split_first_chunk::<8>() else {
        return;
    };
    let epoch = u64::from_le_bytes(*epoch);
    let Ok(head) = FrameHead::decode(epoch, bytes) else {
        return;
    };
    assert_eq!(
        head.encode(epoch),
        bytes[..HEAD_BYTES],
        "one encoding per head"
    );
    _ = head.verify_payload(epoch, &bytes[HEAD_BYTES..]);
}

/// Recovers a log of several files after damage that the input describes, five bytes a change.
/// Whatever is recovered must be an op that was written at its lsn, in order and once.
pub fn fuzz_wal_recovery(data: &[u8]) {
    let disk = SimDisk::new(1);
    let env = env_by(&disk, data);
    let Some(files) = write_log(&env, &disk) else {
        return;
    };
    damage(&disk, &files, data);
    for after in [0, OPS / 3] {
        let strict = recover_all(&env, after, false);
        let salvaged = recover_all(&env, after, true);
        if let (Ok(strict), Ok(salvaged)) = (strict, salvaged) {
            assert_eq!(
                strict, salvaged,
                "nothing to salvage where nothing is refused"
            );
        }
    }
}

/// Opens a metadata log after damage that the input describes. It may be refused; what opens holds
/// only what was committed.
pub fn fuzz_meta_recovery(data: &[u8]) {
    let disk = SimDisk::new(1);
    let (env, dir) = (env_by(&disk, data), Path::new("/meta"));
    let Ok(mut log) = MetaLog::create(&env, dir, UUID) else {
        return;
    };
    for n in 0..10_u8 {
        let mut batch = MetaBatch::new();
        batch.put(&[n], &[n; 20]);
        if log.commit(&batch).is_err() {
            return;
        }
    }
    let files = [PathBuf::from("/meta/00000000000000000001.log")];
    damage(&disk, &files, data);
    if let Ok(log) = MetaLog::open(&env, dir, UUID) {
        for (key, value) in log.scan_prefix(b"") {
            assert!(
                key.len() == 1 && value == [key[0]; 20],
                "nothing that was not committed"
            );
        }
    }
}

fn env(disk: &SimDisk) -> Env {
    Env::simulated(disk, &SimClock::new(0), 3)
}

/// The key of encrypted files.
fn keys() -> Arc<KeyRing> {
    Arc::new(KeyRing::new(Key::new(&[9; 32])))
}

/// As [`env`], with a key for every other length of the input.
fn env_by(disk: &SimDisk, data: &[u8]) -> Env {
    let mut env = env(disk);
    env.keys = (data.len() % 2 == 1).then(keys);
    env
}

fn encode_op(lsn: u64, out: &mut Vec<u8>) {
    let events = vec![lsn as u8; (lsn % 5) as usize * 30];
    match lsn % 3 {
        0 => Op::Skip {
            stream: StreamId(lsn),
            last_seq: Seq(lsn),
        }
        .encode(out),
        1 => Op::StreamDelete {
            stream: StreamId(lsn),
        }
        .encode(out),
        _ => Op::ConsumerDelta {
            stream: StreamId(lsn),
            consumer: ConsumerId(1),
            events: &events,
        }
        .encode(out),
    }
}

/// Writes a log of a few small files, with frames of one to three ops and marks.
fn write_log(env: &Env, disk: &SimDisk) -> Option<Vec<PathBuf>> {
    let dir = Path::new("/wal");
    let options = WalOptions {
        file_bytes: 9_000,
        files_max: 32,
        control_reserve_bytes: 0,
    };
    let mut wal = Wal::create(env, dir, UUID, options, Lsn(1), Vec::new()).ok()?;
    let mut next = 1;
    while next <= OPS {
        let count = (1 + next % 3).min(OPS + 1 - next);
        let mut frame = vec![0; HEAD_BYTES];
        (next..next + count).for_each(|lsn| encode_op(lsn, &mut frame));
        wal.append_frame(Lsn(next), count as u32, Lsn(next - 1), &mut frame)
            .ok()?;
        wal.sync().ok()?;
        if next % 4 == 0 {
            wal.append_mark().ok()?;
            wal.sync().ok()?;
        }
        next += count;
    }
    let files = disk
        .files()
        .into_iter()
        .map(|(name, _)| PathBuf::from(name));
    Some(files.collect())
}

/// Applies changes of five bytes each: file, kind, offset (2), argument.
fn damage(disk: &SimDisk, files: &[PathBuf], data: &[u8]) {
    for change in data.chunks_exact(5).take(64) {
        let file = &files[change[0] as usize % files.len()];
        let Ok(bytes) = disk.read_file(file) else {
            continue;
        };
        if bytes.is_empty() {
            continue;
        }
        let number = usize::from(u16::from_le_bytes([change[2], change[3]]));
        // Most changes go where the frames are.
        let start = match bytes.len() > FRAMES_OFFSET as usize && change[1] < 200 {
            true => FRAMES_OFFSET as usize,
            false => 0,
        };
        let offset = start + number % (bytes.len() - start);
        let argument = usize::from(change[4]);
        let end = (offset + argument).min(bytes.len());
        _ = match change[1] % 5 {
            0 => disk.corrupt(file, offset as u64, change[4]),
            1 => disk.overwrite(file, offset as u64, &vec![0; end - offset]),
            2 => disk.truncate(file, offset as u64),
            // A misdirected write within the file, or from another one.
            3 => disk.overwrite(file, offset as u64, &bytes[bytes.len() / 2..]),
            _ => {
                let other = &files[argument % files.len()];
                let Ok(foreign) = disk.read_file(other) else {
                    continue;
                };
                let from = offset.min(foreign.len());
                disk.overwrite(file, offset as u64, &foreign[from..])
            }
        };
    }
}

fn recover_all(env: &Env, after: u64, salvage: bool) -> Result<Vec<u64>, RecoverError> {
    let mut lsns: Vec<u64> = Vec::new();
    recover(
        env,
        Path::new("/wal"),
        UUID,
        Lsn(after),
        salvage,
        &mut |lsn, op| {
            assert!(lsn.0 > after && lsn.0 <= OPS, "op {lsn} was never written");
            assert!(
                lsns.last().is_none_or(|last| *last < lsn.0),
                "op {lsn} comes twice or late"
            );
            let (mut written, mut found) = (Vec::new(), Vec::new());
            encode_op(lsn.0, &mut written);
            op.encode(&mut found);
            assert_eq!(found, written, "op {lsn}");
            lsns.push(lsn.0);
            Ok(())
        },
    )?;
    if !salvage {
        let expected: Vec<u64> = (after + 1..).take(lsns.len()).collect();
        assert_eq!(lsns, expected, "without salvage there are no gaps");
    }
    Ok(lsns)
}

/// Recovers from a file that is nothing but the input.
pub fn fuzz_wal_file(data: &[u8]) {
    let disk = SimDisk::new(1);
    let env = env(&disk);
    let written = env.io.create_dir_all(Path::new("/wal")).and_then(|()| {
        let path = Path::new("/wal/00000000000000000001.wal");
        env.io.open(path, OpenMode::CreateNew)?.write_at(data, 0)
    });
    if written.is_ok() {
        let uuid = FileHeader::decode(data).map_or(UUID, |header| header.store_uuid);
        _ = recover(&env, Path::new("/wal"), uuid, Lsn(0), true, &mut |_, _| {
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::file_header::FileKind;
    use crate::io::sim::SimRng;

    pub(in crate::fuzzing) fn run(seed: u64, cases: u64, len_max: u64, body: impl Fn(&[u8])) {
        let mut rng = SimRng::new(seed);
        for _ in 0..cases {
            let len = rng.below(len_max + 1);
            let data: Vec<u8> = (0..len).map(|_| rng.next_u64() as u8).collect();
            body(&data);
        }
    }

    #[test]
    fn ops() {
        run(1, 2_000, 200, fuzz_op);
        let mut valid = Vec::new();
        (1..20).for_each(|lsn| encode_op(lsn, &mut valid));
        fuzz_op(&valid);
        run(2, 2_000, 2, |data| {
            let mut bytes = valid.clone();
            for pair in data.chunks_exact(2) {
                let at = usize::from(pair[0]) % bytes.len();
                bytes[at] ^= pair[1];
            }
            fuzz_op(&bytes);
        });
    }

    #[test]
    fn frames() {
        run(3, 2_000, 200, fuzz_frame);
    }

    #[test]
    fn a_log_without_damage_is_recovered_whole() {
        let disk = SimDisk::new(1);
        let env = super::env(&disk);
        let files = write_log(&env, &disk).expect("written");
        assert!(files.len() > 3, "{files:?}");
        let lsns = recover_all(&env, 0, false).expect("recovered");
        assert_eq!(lsns, (1..=OPS).collect::<Vec<_>>());
    }

    #[test]
    fn forged_units() {
        fuzz_encrypted(&[]);
        run(10, 300, 200, fuzz_encrypted);
    }

    #[test]
    fn damaged_logs() {
        run(4, 150, 6, fuzz_wal_recovery);
        run(5, 100, 60, fuzz_wal_recovery);
    }

    #[test]
    fn damaged_metadata() {
        run(6, 150, 6, fuzz_meta_recovery);
        run(7, 100, 60, fuzz_meta_recovery);
    }

    #[test]
    fn arbitrary_files() {
        run(8, 100, 9_000, fuzz_wal_file);
        // Behind a valid header, heads with valid checksums and arbitrary fields.
        run(9, 300, 400, |data| {
            let kind = FileKind::Wal;
            let header = FileHeader {
                kind,
                store_uuid: UUID,
                file_no: 1,
                epoch: 1,
                base: 1,
                key: None,
            };
            let mut file = vec![0; FRAMES_OFFSET as usize];
            file[..64].copy_from_slice(&header.encode());
            for fields in data.chunks_exact(40) {
                let number = |at: usize| u64::from(fields[at]) % 8;
                let head = FrameHead {
                    kind: crate::format::frame::FrameKind::Data,
                    flags: 0,
                    payload_len: number(0) as u32 * 1_000_000,
                    op_count: number(1) as u32,
                    lsn: Lsn(number(2)),
                    durable_lsn: Lsn(number(3)),
                    prev_digest: 0,
                    payload_digest: crate::format::frame::payload_digest(1, b""),
                };
                file.extend_from_slice(&head.encode(1));
            }
            fuzz_wal_file(&file);
        });
    }
}
