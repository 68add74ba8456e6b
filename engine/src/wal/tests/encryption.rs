//! An encrypted log: what is missing is a key, what is changed is not torn.

use super::*;
use crate::format::frame::{FrameHead, payload_digest};
use crate::format::key_ring::{Key, KeyRing};
use crate::wal::recover::LostRange;

fn keyed(disk: &SimDisk, seed: u64, keys: &[u8]) -> Env {
    let mut env = env(disk, seed);
    let mut keys = keys.iter().map(|byte| Key::new(&[*byte; 32]));
    env.keys = keys
        .next()
        .map(|current| Arc::new(keys.fold(KeyRing::new(current), KeyRing::with_previous)));
    env
}

/// A log of three frames of two ops; the last is not known to be durable.
fn three_frames(disk: &SimDisk, keys: &[u8]) {
    let env = keyed(disk, 5, keys);
    let wal = Wal::create(&env, dir(), UUID, medium(), Lsn(1), Vec::new());
    let mut log = Writer {
        wal: wal.expect("created"),
        next: 1,
    };
    log.committed(2).committed(2).committed(2);
}

fn lsns(
    disk: &SimDisk,
    keys: &[u8],
    after: u64,
    salvage: bool,
) -> Result<(Vec<u64>, WalRecovered), RecoverError> {
    let mut lsns = Vec::new();
    let env = keyed(disk, 6, keys);
    let report = recover(&env, dir(), UUID, Lsn(after), salvage, &mut |lsn, op| {
        let (mut expected, mut found) = (Vec::new(), Vec::new());
        encode_op(lsn.0, &mut expected);
        op.encode(&mut found);
        assert_eq!(found, expected);
        lsns.push(lsn.0);
        Ok(())
    })?;
    Ok((lsns, report))
}

/// Flips a bit of a frame's payload, and makes its digest and those that follow from it fit.
fn forge(disk: &SimDisk, frame: usize) {
    let file = path(1);
    let bytes = disk.read_file(&file).expect("readable");
    let epoch = u64::from_le_bytes(bytes[36..44].try_into().expect("eight bytes"));
    let offsets = frame_offsets(disk, &file);
    let mut prev = None;
    for (n, at) in offsets.iter().enumerate() {
        let start = *at as usize;
        let mut head = FrameHead::decode(epoch, &bytes[start..]).expect("a frame");
        let end = start + head.frame_bytes() as usize;
        let mut payload = bytes[start + HEAD_BYTES..end].to_vec();
        if n == frame {
            payload[3] ^= 1;
            head.payload_digest = payload_digest(epoch, &payload);
        }
        if let Some(prev) = prev {
            head.prev_digest = prev;
        }
        prev = Some(head.digest(epoch));
        let forged = [&head.encode(epoch)[..], &payload].concat();
        disk.overwrite(&file, *at, &forged).expect("inside");
    }
}

#[test]
fn a_log_is_read_with_its_key_only() {
    let disk = SimDisk::new(1);
    three_frames(&disk, &[1]);
    for keys in [&[1][..], &[2, 1]] {
        let (found, report) = lsns(&disk, keys, 0, false).expect("recovered");
        assert_eq!(found, [1, 2, 3, 4, 5, 6]);
        assert_eq!((report.ops, report.ops_plain), (6, 0));
        assert_eq!(report.cut, None);
    }
    let needed = Key::new(&[1; 32]).id();
    for keys in [&[][..], &[2]] {
        for salvage in [false, true] {
            let refused = lsns(&disk, keys, 0, salvage);
            let Err(RecoverError::KeyMissing { key, .. }) = refused else {
                panic!("{refused:?}");
            };
            assert_eq!(
                key,
                Some(needed),
                "salvage gives up damage, not what has a key"
            );
        }
    }
}

/// What a checkpoint has needs no key any more.
#[test]
fn a_log_that_is_not_needed_needs_no_key() {
    let disk = SimDisk::new(1);
    three_frames(&disk, &[1]);
    let (found, report) = lsns(&disk, &[], 6, false).expect("nothing is needed");
    assert_eq!((found, report.next_lsn), (vec![], Lsn(7)));
    assert!(matches!(
        lsns(&disk, &[], 5, false),
        Err(RecoverError::KeyMissing { .. })
    ));
}

#[test]
fn plain_ops_are_counted() {
    let disk = SimDisk::new(1);
    three_frames(&disk, &[]);
    let (found, report) = lsns(&disk, &[1], 0, false).expect("readable");
    assert_eq!((found.len(), report.ops_plain), (6, 6));
}

/// Not even the last frame is cut: nothing torn has a digest that fits. The frames behind it are tied
/// to it: whoever changes one has to change them as well.
#[test]
fn a_frame_changed_on_purpose_is_refused_and_salvage_ends_before_it() {
    for frame in 0..3 {
        let disk = SimDisk::new(1);
        three_frames(&disk, &[1]);
        forge(&disk, frame);
        let first = 2 * frame as u64 + 1;
        let refused = lsns(&disk, &[1], 0, false);
        let Err(RecoverError::NotAuthentic(LostRange {
            first_lsn,
            last_lsn,
            ..
        })) = refused
        else {
            panic!("frame {frame}: {refused:?}");
        };
        assert_eq!((first_lsn, last_lsn), (Lsn(first), Lsn(first + 1)));
        let (found, report) = lsns(&disk, &[1], 0, true).expect("salvage goes on");
        assert_eq!(found, (1..first).collect::<Vec<_>>(), "frame {frame}");
        assert_eq!(report.lost.len(), 3 - frame);
        assert_eq!(report.next_lsn, Lsn(7), "no lsn is given twice");
    }
}

/// A log goes on after a crash in a new file, and no two files encrypt anything alike.
#[test]
fn equal_frames_of_two_files_share_no_ciphertext() {
    let payloads = [1, 2].map(|seed| {
        let disk = SimDisk::new(1);
        let env = keyed(&disk, seed, &[1]);
        let wal = Wal::create(&env, dir(), UUID, medium(), Lsn(1), Vec::new());
        let mut log = Writer {
            wal: wal.expect("created"),
            next: 1,
        };
        log.committed(6);
        let at = frame_offsets(&disk, &path(1))[0] as usize + HEAD_BYTES;
        disk.read_file(path(1)).expect("readable")[at..at + 300].to_vec()
    });
    let [a, b] = payloads;
    assert!(a.windows(16).zip(b.windows(16)).all(|(a, b)| a != b));
}
