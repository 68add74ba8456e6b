//! Encryption at rest: nothing that says anything is readable on the disk, a key that is missing is
//! named and nothing changes, keys can be rotated, and a plain store can be taken over.

mod support;

use std::path::Path;

use riverlog_engine::io::sim::{SimClock, SimDisk};
use riverlog_engine::io::{Env, Io};
use riverlog_engine::{
    Append, Compression, Filter, Key, KeyId, KeyRing, OpenError, Seq, Store, StoreOptions,
    StreamConfig,
};
use support::DIR;
use support::sample::content;

/// Everything that must not be readable, as it is given to the store.
const SECRETS: [&str; 8] = [
    "stream-name-1f",
    "attachment-2e",
    "filtered.subject-3d",
    "published.subject-4c",
    "header-5b",
    "payload-6a",
    "message-id-79",
    "consumer-name-88",
];

fn key(byte: u8) -> Key {
    Key::new(&[byte; 32])
}

fn options(keys: Option<KeyRing>) -> StoreOptions {
    let mut options = support::options();
    options.encryption = keys;
    // The clock stands still: a file that is checked at leisure would never be let go.
    options.scrub_period = std::time::Duration::ZERO;
    options
}

fn open(disk: &SimDisk, seed: u64, keys: Option<KeyRing>) -> Result<Store, OpenError> {
    let env = Env::simulated(disk, &SimClock::new(1_000), seed);
    Store::open_in(env, Path::new(DIR), options(keys)).map(|(store, _)| store)
}

fn stream_config(compression: Compression) -> StreamConfig {
    StreamConfig {
        name: SECRETS[0].into(),
        attachment: SECRETS[1].into(),
        compression,
        dedup_window_ns: 60_000_000_000,
        ..StreamConfig::default()
    }
}

fn append(store: &Store, count: u64) {
    let stream = store.stream(SECRETS[0]).expect("the stream");
    for _ in 0..count {
        let next = stream.state().last_seq.0 + 1;
        let id = format!("{}-{next}", SECRETS[6]);
        let append = Append {
            subject: SECRETS[3].as_bytes(),
            headers: SECRETS[4].as_bytes(),
            payload: SECRETS[5].as_bytes(),
            msg_id: Some(id.as_bytes()),
            ..Append::default()
        };
        stream.append_nosync(&append).expect("accepted");
    }
    store.commit();
}

/// The messages 1 to `count` are there.
fn check(store: &Store, count: u64) {
    let stream = store.stream(SECRETS[0]).expect("the stream");
    assert_eq!(stream.state().last_seq, Seq(count));
    for seq in 1..=count {
        let message = stream.get(Seq(seq)).expect("readable").expect("present");
        assert_eq!(message.subject(), SECRETS[3].as_bytes());
        assert_eq!(message.payload(), SECRETS[5].as_bytes());
        assert_eq!(message.headers(), SECRETS[4].as_bytes());
    }
    let consumers = stream.consumers();
    assert!(consumers.iter().any(|c| c.name() == SECRETS[7]));
}

/// A store with messages in sealed files and in the log.
fn fill(disk: &SimDisk, keys: Option<KeyRing>, compression: Compression) -> Store {
    fill_with(disk, keys, stream_config(compression))
}

/// The same without files of message ids, which keep their key until their window has passed.
fn fill_without_window(disk: &SimDisk, keys: Option<KeyRing>) -> Store {
    let config = StreamConfig {
        dedup_window_ns: 0,
        ..stream_config(Compression::None)
    };
    fill_with(disk, keys, config)
}

fn fill_with(disk: &SimDisk, keys: Option<KeyRing>, config: StreamConfig) -> Store {
    let store = open(disk, 1, keys).expect("a store");
    let (stream, _) = store.create_stream(config).expect("a stream");
    let mut consumer = support::consumer_config();
    consumer.name = SECRETS[7].into();
    consumer.filters = vec![SECRETS[2].into(), SECRETS[3].into()];
    stream.create_consumer(consumer).expect("a consumer");
    append(&store, 20);
    store.checkpoint().expect("sealed");
    append(&store, 5);
    store
}

/// The files in which each secret is readable.
fn readable(disk: &SimDisk, secret: &str) -> Vec<String> {
    let files = content(disk).into_iter();
    let shows = |bytes: &[u8]| {
        bytes
            .windows(secret.len())
            .any(|at| at == secret.as_bytes())
    };
    files
        .filter(|(_, bytes)| shows(bytes))
        .map(|(path, _)| path)
        .collect()
}

#[test]
fn nothing_that_says_anything_is_readable() {
    for compression in [Compression::None, Compression::S2] {
        let disk = SimDisk::new(1);
        let store = fill(&disk, Some(KeyRing::new(key(1))), compression);
        for secret in SECRETS {
            assert_eq!(readable(&disk, secret), Vec::<String>::new(), "{secret}");
        }
        drop(store);
        for secret in SECRETS {
            assert_eq!(readable(&disk, secret), Vec::<String>::new(), "{secret}");
        }
    }
}

/// The canary: without a key the same search finds every one of them.
#[test]
fn in_a_plain_store_everything_is_readable() {
    let disk = SimDisk::new(1);
    let store = fill(&disk, None, Compression::None);
    for secret in SECRETS {
        assert!(!readable(&disk, secret).is_empty(), "{secret}");
    }
    for dir in ["wal/", "seg/", "meta/", "idx/"] {
        let shows = |secret: &&str| {
            readable(&disk, secret)
                .iter()
                .any(|path| path.contains(dir))
        };
        // Index keys are subjects with their bytes renumbered.
        let renumbered: String = SECRETS[3].chars().map(renumber).collect();
        let found = SECRETS.iter().any(shows) || !readable(&disk, &renumbered).is_empty();
        assert!(found, "{dir}");
    }
    drop(store);
}

/// A subject's byte in an index key.
fn renumber(byte: char) -> char {
    match byte {
        '.' => '\0',
        '!'..'.' => (byte as u8 + 1) as char,
        _ => byte,
    }
}

fn assert_missing(disk: &SimDisk, keys: Option<KeyRing>, needed: KeyId) {
    let given: Vec<KeyId> = keys
        .iter()
        .flat_map(|ring| ring.keys())
        .map(Key::id)
        .collect();
    let before = content(disk);
    match open(disk, 77, keys.clone()) {
        Err(OpenError::KeyMissing { key, given: g, .. }) => {
            assert_eq!((key, &g), (needed, &given));
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("opened without its key"),
    }
    let Err(error) = open(disk, 78, keys.clone()) else {
        panic!("opened without its key");
    };
    let text = error.to_string();
    assert!(text.contains(&needed.to_string()), "{text}");
    assert!(text.contains("nothing was changed"), "{text}");
    let env = Env::simulated(disk, &SimClock::new(1_000), 79);
    let verified = Store::verify_in(&env, Path::new(DIR), &options(keys));
    assert!(matches!(verified, Err(OpenError::KeyMissing { .. })));
    assert_eq!(content(disk), before, "nothing was changed");
}

#[test]
fn a_missing_or_wrong_key_is_named_and_nothing_changes() {
    for close in [true, false] {
        let disk = SimDisk::new(1);
        let store = fill(&disk, Some(KeyRing::new(key(1))), Compression::S2);
        if !close {
            disk.cut_power_now();
        }
        drop(store);
        let disk = disk.kill_process();
        assert_missing(&disk, None, key(1).id());
        assert_missing(&disk, Some(KeyRing::new(key(2))), key(1).id());
        let store = open(&disk, 3, Some(KeyRing::new(key(1)))).expect("the right key");
        check(&store, 25);
    }
}

/// Also where only one kind of file still has the key that is missing.
#[test]
fn every_file_that_is_needed_asks_for_its_key() {
    let disk = SimDisk::new(1);
    drop(fill(&disk, Some(KeyRing::new(key(1))), Compression::None));
    let both = || KeyRing::new(key(2)).with_previous(key(1));
    let store = open(&disk, 2, Some(both())).expect("rotated");
    append(&store, 3);
    store.checkpoint().expect("sealed");
    append(&store, 2);
    disk.cut_power_now();
    drop(store);
    let disk = disk.kill_process();
    // FORMAT, metadata and log have the new key; the sealed files of before do not.
    assert_missing(&disk, Some(KeyRing::new(key(2))), key(1).id());
    assert_missing(&disk, Some(KeyRing::new(key(1))), key(2).id());
    // The rest asks as well where FORMAT does not.
    let format = Path::new(DIR).join("FORMAT");
    let plain = SimDisk::new(2);
    drop(fill(&plain, None, Compression::None));
    let mut bytes = plain.read_file(&format).expect("a file");
    let uuid = disk.read_file(&format).expect("a file")[12..28].to_vec();
    bytes[12..28].copy_from_slice(&uuid);
    let crc = crc32(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    disk.truncate(&format, 64).expect("a file");
    disk.overwrite(&format, 0, &bytes).expect("a file");
    assert_missing(&disk, None, key(2).id());
    assert_missing(&disk, Some(KeyRing::new(key(1))), key(2).id());
}

/// CRC-32 (ISO-HDLC), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

fn keys_in_use(store: &Store) -> Vec<Option<KeyId>> {
    let used = store.keys_in_use().expect("readable");
    assert!(used.iter().all(|used| used.files > 0 && used.bytes > 0));
    used.iter().map(|used| used.key).collect()
}

#[test]
fn a_rotated_key_is_needed_until_its_last_file_is_gone() {
    let disk = SimDisk::new(1);
    let store = fill_without_window(&disk, Some(KeyRing::new(key(1))));
    assert_eq!(keys_in_use(&store), [Some(key(1).id())]);
    drop(store);
    let both = || Some(KeyRing::new(key(2)).with_previous(key(1)));
    let store = open(&disk, 2, both()).expect("rotated");
    check(&store, 25);
    append(&store, 5);
    store.checkpoint().expect("sealed");
    check(&store, 30);
    assert!(keys_in_use(&store).contains(&Some(key(1).id())));
    assert!(keys_in_use(&store).contains(&Some(key(2).id())));
    // What the old key's files hold is removed, and the files with it.
    let stream = store.stream(SECRETS[0]).expect("the stream");
    let request = riverlog_engine::PurgeRequest {
        below: Some(Seq(26)),
        ..Default::default()
    };
    stream.purge(&request).expect("purged");
    store.checkpoint().expect("removed");
    store.step().expect("no fault");
    assert_eq!(keys_in_use(&store), [Some(key(2).id())]);
    drop((stream, store));
    let store = open(&disk, 3, Some(KeyRing::new(key(2)))).expect("without the old key");
    let stream = store.stream(SECRETS[0]).expect("the stream");
    let message = stream.get(Seq(30)).expect("readable").expect("present");
    assert_eq!(message.payload(), SECRETS[5].as_bytes());
}

/// Every file gets the new key without anything being removed, and nothing else changes.
#[test]
fn reencryption_frees_the_old_key() {
    for old in [None, Some(key(1))] {
        let disk = SimDisk::new(1);
        drop(fill_without_window(&disk, old.clone().map(KeyRing::new)));
        let ring = match &old {
            Some(old) => KeyRing::new(key(2)).with_previous(old.clone()),
            None => KeyRing::new(key(2)),
        };
        let store = open(&disk, 2, Some(ring)).expect("rotated");
        store.step().expect("no fault");
        let old = old.map(|key| key.id());
        assert!(keys_in_use(&store).contains(&old), "nobody asked for it");
        append(&store, 3);
        store.checkpoint().expect("sealed");
        store.reencrypt();
        store.compact().expect("no fault");
        store.step().expect("no fault");
        assert_eq!(keys_in_use(&store), [Some(key(2).id())]);
        check(&store, 28);
        let changes = disk.changes();
        store.compact().expect("no fault");
        store.step().expect("no fault");
        assert_eq!(disk.changes(), changes, "it is done once");
        drop(store);
        let store = open(&disk, 3, Some(KeyRing::new(key(2)))).expect("without the old key");
        check(&store, 28);
    }
}

/// Files of message ids get the new key as well, long before their window has passed.
#[test]
fn reencryption_covers_message_ids() {
    for old in [None, Some(key(1))] {
        let disk = SimDisk::new(1);
        drop(fill(&disk, old.clone().map(KeyRing::new), Compression::S2));
        let ring = match &old {
            Some(old) => KeyRing::new(key(2)).with_previous(old.clone()),
            None => KeyRing::new(key(2)),
        };
        let store = open(&disk, 2, Some(ring)).expect("rotated");
        store.reencrypt();
        store.compact().expect("no fault");
        store.step().expect("no fault");
        assert_eq!(keys_in_use(&store), [Some(key(2).id())]);
        drop(store);
        let store = open(&disk, 3, Some(KeyRing::new(key(2)))).expect("without the old key");
        let stream = store.stream(SECRETS[0]).expect("the stream");
        let id = format!("{}-1", SECRETS[6]);
        let again = stream.append_nosync(&Append {
            subject: SECRETS[3].as_bytes(),
            msg_id: Some(id.as_bytes()),
            ..Append::default()
        });
        let again = again.expect("answered");
        assert_eq!((again.duplicate, again.seq), (true, Seq(1)));
    }
}

/// Index runs that were merged are derived: they are made anew with the new key.
#[test]
fn reencryption_covers_merged_index_runs() {
    let disk = SimDisk::new(1);
    let store = fill_without_window(&disk, Some(KeyRing::new(key(1))));
    for _ in 0..4 {
        append(&store, 5);
        store.checkpoint().expect("sealed");
    }
    store.step().expect("merged");
    let stream = store.stream(SECRETS[0]).expect("the stream");
    let subject = [Filter::new(SECRETS[3].as_bytes()).expect("a filter")];
    assert_eq!(stream.num_pending(&subject, Seq(1)).expect("answered"), 45);
    let names = content(&disk).into_keys();
    let runs: Vec<String> = names.filter(|name| name.ends_with(".idx")).collect();
    let merged = |run: &String| !content(&disk).contains_key(&run.replace("idx", "seg"));
    assert!(runs.iter().any(merged), "{runs:?}");
    drop((stream, store));
    let ring = KeyRing::new(key(2)).with_previous(key(1));
    let store = open(&disk, 2, Some(ring)).expect("rotated");
    store.reencrypt();
    store.compact().expect("no fault");
    store.step().expect("no fault");
    assert_eq!(keys_in_use(&store), [Some(key(2).id())]);
    let stream = store.stream(SECRETS[0]).expect("the stream");
    assert_eq!(stream.num_pending(&subject, Seq(1)).expect("answered"), 45);
    drop((stream, store));
    let store = open(&disk, 3, Some(KeyRing::new(key(2)))).expect("without the old key");
    check(&store, 45);
}

/// The power goes after every change of the disk during the rewriting: the next start has everything
/// and can go on with it.
#[test]
fn reencryption_can_be_cut_short_anywhere() {
    use riverlog_engine::io::sim::Persist;
    let before = SimDisk::new(1);
    drop(fill_without_window(&before, Some(KeyRing::new(key(1)))));
    let ring = || Some(KeyRing::new(key(2)).with_previous(key(1)));
    drop(open(&before, 2, ring()).expect("rotated"));
    let rewrite = |store: &Store| {
        store.reencrypt();
        store.compact().and_then(|()| store.step())
    };
    let mut cuts = 0;
    loop {
        let disk = before.fork();
        let store = open(&disk, 3, ring()).expect("both keys");
        disk.cut_power_after(cuts);
        let done = rewrite(&store).is_ok() && disk.is_powered();
        disk.cut_power_now();
        drop(store);
        for persist in [
            Persist::Nothing,
            Persist::Everything,
            Persist::LastWriteFirstHalf,
        ] {
            let disk = disk.crash(persist);
            let store = open(&disk, 4, ring()).unwrap_or_else(|e| panic!("cut {cuts}: {e}"));
            check(&store, 25);
            rewrite(&store).expect("no fault");
            check(&store, 25);
            assert_eq!(keys_in_use(&store), [Some(key(2).id())], "cut {cuts}");
        }
        if done {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 5, "the rewriting changes the disk: {cuts}");
}

/// A file that is damaged keeps its key, and the others do not wait for it.
#[test]
fn reencryption_leaves_a_damaged_file() {
    let disk = SimDisk::new(1);
    let store = fill_without_window(&disk, Some(KeyRing::new(key(1))));
    store.checkpoint().expect("sealed");
    drop(store);
    let sealed: Vec<String> = disk.files().into_iter().map(|(path, _)| path).collect();
    let sealed: Vec<&String> = sealed.iter().filter(|path| path.contains("seg/")).collect();
    assert!(sealed.len() >= 2, "{sealed:?}");
    disk.corrupt(sealed[0], 200, 1).expect("inside");
    let ring = KeyRing::new(key(2)).with_previous(key(1));
    let store = open(&disk, 2, Some(ring)).expect("rotated");
    store.reencrypt();
    store.compact().expect("no fault");
    store.step().expect("no fault");
    let used = store.keys_in_use().expect("readable");
    let old = used.iter().find(|used| used.key == Some(key(1).id()));
    let old = old.expect("the damaged file stays");
    // The file and its index run.
    assert!(old.files <= 2, "{used:?}");
    let stream = store.stream(SECRETS[0]).expect("the stream");
    assert!(stream.get(Seq(1)).is_err(), "damage is still reported");
    assert!(stream.get(Seq(25)).expect("readable").is_some());
}

#[test]
fn a_plain_store_is_taken_over() {
    let disk = SimDisk::new(1);
    let store = fill(&disk, None, Compression::None);
    assert_eq!(keys_in_use(&store), [None]);
    drop(store);
    let ring = || Some(KeyRing::new(key(1)));
    let store = open(&disk, 2, ring()).expect("taken over");
    check(&store, 25);
    append(&store, 5);
    store.checkpoint().expect("sealed");
    check(&store, 30);
    assert_eq!(keys_in_use(&store), [None, Some(key(1).id())]);
    drop(store);
    // Names and configurations are in the metadata, and that was moved.
    for secret in [SECRETS[0], SECRETS[1], SECRETS[7]] {
        assert_eq!(readable(&disk, secret), Vec::<String>::new(), "{secret}");
    }
    assert_missing(&disk, None, key(1).id());
    let store = open(&disk, 3, ring()).expect("the key");
    check(&store, 30);
}

/// Opening with another key, cut short after every change of the disk: the next start finds
/// everything with both keys.
#[test]
fn a_rotation_can_be_cut_short_anywhere() {
    for old in [None, Some(key(1))] {
        let before = SimDisk::new(1);
        drop(fill(
            &before,
            old.clone().map(KeyRing::new),
            Compression::None,
        ));
        let rings = || {
            let ring = KeyRing::new(key(2));
            Some(match &old {
                Some(old) => ring.with_previous(old.clone()),
                None => ring,
            })
        };
        let mut cuts = 0;
        loop {
            let disk = before.fork();
            disk.cut_power_after(cuts);
            let done = open(&disk, 2, rings()).is_ok_and(|_| disk.is_powered());
            for persist in [
                riverlog_engine::io::sim::Persist::Nothing,
                riverlog_engine::io::sim::Persist::Everything,
            ] {
                let disk = disk.crash(persist);
                let store = open(&disk, 3, rings()).unwrap_or_else(|e| panic!("cut {cuts}: {e}"));
                check(&store, 25);
            }
            if done {
                break;
            }
            cuts += 1;
        }
        assert!(cuts > 5, "a rotation changes the disk: {cuts}");
    }
}

/// Who can write to the disk, but has no key, cannot pass off files of his own.
#[test]
fn plain_files_do_not_pass_in_an_encrypted_store() {
    let sealed = |keys| {
        let disk = SimDisk::new(1);
        let store = fill(&disk, keys, Compression::None);
        disk.cut_power_now();
        drop(store);
        disk.kill_process()
    };
    let disk = sealed(Some(KeyRing::new(key(1))));
    // The same store, with the same numbers, that somebody wrote without a key.
    let forged = sealed(None);
    let uuid = |disk: &SimDisk| {
        let format = disk.read_file(Path::new(DIR).join("FORMAT"));
        format.expect("a file")[12..28].to_vec()
    };
    assert_eq!(uuid(&disk), uuid(&forged));
    for part in ["wal/", "meta/"] {
        let disk = disk.fork();
        for (path, bytes) in content(&forged)
            .iter()
            .filter(|(path, _)| path.contains(part))
        {
            let _ = disk.remove(Path::new(path));
            let file = disk.open(Path::new(path), riverlog_engine::io::OpenMode::CreateNew);
            file.and_then(|file| file.write_at(bytes, 0))
                .expect("written");
        }
        match open(&disk, 5, Some(KeyRing::new(key(1)))) {
            Err(OpenError::Damaged { file, what, .. }) => {
                assert!(file.to_string_lossy().contains(part.trim_end_matches('/')));
                assert!(what.contains("encrypted"), "{what}");
            }
            Err(error) => panic!("{part}: {error}"),
            Ok(_) => panic!("{part}: forged files were taken"),
        }
    }
}
