//! What each kind of power cut leaves of small, known states.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use super::{create, create_durable, open, random_survivors, read, survivor};
use crate::io::sim::{Persist, SimDisk};
use crate::io::{Io, OpenMode};

/// Three sectors of one byte value.
fn sectors(byte: u8) -> Vec<u8> {
    vec![byte; 3 * 512]
}

#[test]
fn unsynced_content_survives_as_chosen() {
    let disk = SimDisk::new(1);
    let file = create_durable(&disk, "f", &[0; 8 * 512]);
    file.write_at(&[1; 512], 0).unwrap();
    file.write_at(&[2; 4 * 512], 4 * 512).unwrap();
    let check = |persist, want: [u8; 8]| {
        let found = survivor(&disk, persist, "f").unwrap();
        let found: Vec<u8> = found.chunks(512).map(|sector| sector[0]).collect();
        assert_eq!(found, want, "{persist}");
    };
    check(Persist::Nothing, [0, 0, 0, 0, 0, 0, 0, 0]);
    check(Persist::Everything, [1, 0, 0, 0, 2, 2, 2, 2]);
    check(Persist::LastWriteLost, [1, 0, 0, 0, 0, 0, 0, 0]);
    check(Persist::LastWriteFirstHalf, [1, 0, 0, 0, 2, 2, 0, 0]);
    check(Persist::LastWriteSecondHalf, [1, 0, 0, 0, 0, 0, 2, 2]);
    check(Persist::OnlyLastWrite, [0, 0, 0, 0, 2, 2, 2, 2]);
    check(Persist::MetadataOnly, [0; 8]);
    check(Persist::ContentOnly, [1, 0, 0, 0, 2, 2, 2, 2]);
}

#[test]
fn unsynced_names_and_lengths_survive_as_chosen() {
    let disk = SimDisk::new(1);
    create_durable(&disk, "removed", b"old");
    disk.remove(Path::new("removed")).unwrap();
    create(&disk, "new").write_at(b"content", 0).unwrap();
    let check = |persist, new: Option<&[u8]>, removed: Option<&[u8]>| {
        assert_eq!(survivor(&disk, persist, "new").as_deref(), new, "{persist}");
        assert_eq!(
            survivor(&disk, persist, "removed").as_deref(),
            removed,
            "{persist}"
        );
    };
    check(Persist::Nothing, None, Some(b"old"));
    check(Persist::Everything, Some(b"content"), None);
    check(Persist::LastWriteLost, Some(b""), None);
    check(Persist::MetadataOnly, Some(&[0; 7]), None);
    check(Persist::ContentOnly, None, Some(b"old"));
}

#[test]
fn a_file_without_a_durable_name_is_lost_with_its_synced_content() {
    let disk = SimDisk::new(1);
    let file = create(&disk, "f");
    file.write_at(b"content", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(survivor(&disk, Persist::Nothing, "f"), None);
    assert_eq!(
        survivor(&disk, Persist::MetadataOnly, "f").unwrap(),
        b"content"
    );
}

#[test]
fn syncing_a_directory_does_not_sync_its_own_name() {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("a")).unwrap();
    disk.rename(Path::new("a"), Path::new("b")).unwrap();
    create_durable(&disk, "b/f", b"content");
    let survivor = disk.crash(Persist::Nothing);
    assert_eq!(survivor.read_file("a/f").unwrap(), b"content");
    assert_eq!(
        survivor.read_file("b/f").unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn directories_created_with_parents_are_durable() {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("/a/b/c")).unwrap();
    disk.crash(Persist::Nothing)
        .list(Path::new("a/b/c"))
        .unwrap();
}

/// A process that is killed between `mkdir` and the sync of the parent leaves a directory that is
/// there, but not durable; the next process must not trust it.
#[test]
fn a_directory_left_unsynced_by_a_killed_process_becomes_durable() {
    for changes in 0..6 {
        let disk = SimDisk::new(1);
        disk.cut_power_after(changes);
        _ = disk.create_dir_all(Path::new("a/b/c"));
        let disk = disk.kill_process();
        disk.create_dir_all(Path::new("a/b/c")).unwrap();
        disk.crash(Persist::Nothing)
            .list(Path::new("a/b/c"))
            .unwrap();
    }
}

#[test]
fn a_rename_is_atomic_and_may_be_undone() {
    let disk = SimDisk::new(1);
    create_durable(&disk, "f", b"old");
    create_durable(&disk, "tmp", b"new");
    disk.rename(Path::new("tmp"), Path::new("f")).unwrap();
    let mut outcomes = BTreeSet::new();
    for seed in 0..50 {
        let survivor = disk.crash(Persist::Random { seed });
        outcomes.insert((
            survivor.read_file("f").unwrap(),
            survivor.read_file("tmp").ok(),
        ));
    }
    let old = (b"old".to_vec(), Some(b"new".to_vec()));
    let new = (b"new".to_vec(), None);
    assert_eq!(outcomes, BTreeSet::from([old, new]));
}

/// Without the order, the file under the reused name would have replaced the renamed one.
#[test]
fn changes_of_one_name_survive_in_order() {
    let disk = SimDisk::new(1);
    create_durable(&disk, "a", b"first");
    disk.rename(Path::new("a"), Path::new("b")).unwrap();
    create(&disk, "a").sync_data().unwrap();
    for seed in 0..100 {
        let survivor = disk.crash(Persist::Random { seed });
        let contents = ["a", "b"].map(|name| survivor.read_file(name).unwrap_or_default());
        let firsts = contents
            .iter()
            .filter(|content| *content == b"first")
            .count();
        assert_eq!(firsts, 1, "seed {seed}: {:?}", survivor.files());
    }
}

#[test]
fn a_rename_across_directories_is_made_durable_by_either_sync() {
    for synced in ["a", "b"] {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("a")).unwrap();
        disk.create_dir_all(Path::new("b")).unwrap();
        create(&disk, "a/f").sync_data().unwrap();
        disk.rename(Path::new("a/f"), Path::new("b/f")).unwrap();
        disk.sync_dir(Path::new(synced)).unwrap();
        assert_eq!(
            disk.crash(Persist::Nothing).files(),
            [("/b/f".to_owned(), 0)]
        );
    }
}

/// A directory that replaced an emptied one became durable before the file that had moved out of
/// the replaced one: the file was in neither.
#[test]
fn a_directory_move_becomes_durable_with_all_changes_before_it() {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("a")).unwrap();
    disk.create_dir_all(Path::new("b")).unwrap();
    create_durable(&disk, "b/f", b"content");
    disk.rename(Path::new("b/f"), Path::new("a/f")).unwrap();
    disk.rename(Path::new("a"), Path::new("b")).unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    assert_eq!(
        survivor(&disk, Persist::Nothing, "b/f").unwrap(),
        b"content"
    );
}

#[test]
fn later_writes_may_survive_without_earlier_ones() {
    let disk = SimDisk::new(1);
    let file = create_durable(&disk, "f", &[0; 1024]);
    file.write_at(&[1; 512], 0).unwrap();
    file.write_at(&[2; 512], 512).unwrap();
    let mut outcomes = BTreeSet::new();
    for content in random_survivors(&disk, "f").into_iter().flatten() {
        outcomes.insert((content[0], content[512]));
    }
    assert_eq!(outcomes, BTreeSet::from([(0, 0), (1, 0), (0, 2), (1, 2)]));
}

#[test]
fn writes_tear_between_sectors_and_never_within() {
    let disk = SimDisk::new(1);
    let file = create_durable(&disk, "f", &[7; 3 * 512]);
    file.write_at(&sectors(8), 0).unwrap();
    let mut torn = 0;
    for content in random_survivors(&disk, "f").into_iter().flatten() {
        for sector in content.chunks(512) {
            assert!(sector == [7; 512] || sector == [8; 512]);
        }
        torn += u32::from(content != sectors(7) && content != sectors(8));
    }
    assert!(torn > 0);
}

#[test]
fn an_append_may_survive_partly_in_length_and_content() {
    let disk = SimDisk::new(1);
    let file = create_durable(&disk, "f", &[7; 512]);
    file.write_at(&[8; 4 * 4096], 512).unwrap();
    let survivors = random_survivors(&disk, "f");
    let lens: BTreeSet<usize> = survivors.iter().flatten().map(Vec::len).collect();
    assert_eq!(
        lens,
        BTreeSet::from([512, 4096, 8192, 12_288, 16_384, 16_896])
    );
    for content in survivors.iter().flatten() {
        assert_eq!(content[..512], [7; 512]);
        assert!(content[512..].iter().all(|byte| matches!(byte, 0 | 8)));
    }
    // The length without all of the content, which a reader must not take for records.
    assert!(
        survivors
            .iter()
            .flatten()
            .any(|content| content.len() == 16_896 && content[600] == 0)
    );
}

#[test]
fn content_behind_a_cut_survives_only_with_the_cut() {
    let disk = SimDisk::new(1);
    let file = create_durable(&disk, "f", &sectors(1));
    file.set_len(512).unwrap();
    file.write_at(&[2; 512], 1024).unwrap();
    for content in random_survivors(&disk, "f").into_iter().flatten() {
        match content.len() {
            512 => assert_eq!(content, [1; 512]),
            1536 if content[512] == 1 => assert_eq!(content, sectors(1)),
            1536 => assert!(content[512..1024] == [0; 512] && matches!(content[1024], 0 | 2)),
            len => panic!("length {len}"),
        }
    }
}

#[test]
fn an_unsynced_preallocation_may_be_lost_with_what_is_in_it() {
    let disk = SimDisk::new(1);
    let file = create_durable(&disk, "f", b"");
    file.allocate(8192).unwrap();
    file.write_at(&[1; 512], 0).unwrap();
    assert_eq!(survivor(&disk, Persist::Nothing, "f").unwrap(), b"");
    let full = survivor(&disk, Persist::MetadataOnly, "f").unwrap();
    assert_eq!(full, vec![0; 8192]);
}

#[test]
fn a_crash_releases_locks_and_stops_the_old_handles() {
    let disk = SimDisk::new(1);
    let path = Path::new("LOCK");
    let file = create_durable(&disk, "f", b"x");
    let lock = disk.lock(path).unwrap();
    assert_eq!(disk.lock(path).err().unwrap().kind(), ErrorKind::WouldBlock);
    for next in [
        disk.crash(Persist::Everything),
        disk.kill_process(),
        disk.fork(),
    ] {
        let next_lock = next.lock(path).unwrap();
        assert_eq!(next.lock(path).err().unwrap().kind(), ErrorKind::WouldBlock);
        drop(next_lock);
        next.lock(path).unwrap();
    }
    assert_eq!(
        file.write_at(b"y", 0).unwrap_err().kind(),
        ErrorKind::BrokenPipe
    );
    assert_eq!(file.len().unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(
        disk.list(Path::new("")).unwrap_err().kind(),
        ErrorKind::BrokenPipe
    );
    drop(lock);
    assert!(!disk.is_powered());
}

#[test]
fn a_killed_process_loses_nothing_but_a_power_cut_after_it_may() {
    let disk = SimDisk::new(1);
    let file = create_durable(&disk, "f", b"old");
    file.write_at(b"new", 0).unwrap();
    let disk = disk.kill_process();
    assert_eq!(disk.read_file("f").unwrap(), b"new");
    assert_eq!(
        survivor(&disk.fork(), Persist::Nothing, "f").unwrap(),
        b"old"
    );
    // A sync by the new process covers what the old one wrote.
    open(&disk, "f").sync_data().unwrap();
    assert_eq!(survivor(&disk, Persist::Nothing, "f").unwrap(), b"new");
}

#[test]
fn the_power_goes_after_the_given_number_of_changes() {
    let disk = SimDisk::new(1);
    disk.cut_power_after(2);
    let file = create(&disk, "f");
    file.write_at(b"x", 0).unwrap();
    assert_eq!(read(file.as_ref()), b"x");
    assert_eq!(file.sync_data().unwrap_err().kind(), ErrorKind::BrokenPipe);
    let error = disk.open(Path::new("f"), OpenMode::Read).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    assert_eq!(disk.changes(), 2);
}

#[test]
fn a_removed_file_stays_readable_through_its_handle() {
    let disk = SimDisk::new(1);
    let file = create_durable(&disk, "f", b"content");
    disk.remove(Path::new("f")).unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    create_durable(&disk, "f", b"other");
    assert_eq!(read(file.as_ref()), b"content");
}

#[test]
fn a_sync_covers_only_what_was_written_before_it_began() {
    let disk = SimDisk::new(1);
    let file = create_durable(&disk, "f", &[0; 1024]);
    file.write_at(&[1; 512], 0).unwrap();
    let hold = disk.hold_syncs();
    std::thread::scope(|scope| {
        let sync = scope.spawn(|| file.sync_data());
        hold.wait_for_syncs(1);
        file.write_at(&[2; 512], 512).unwrap();
        drop(hold);
        sync.join().unwrap().unwrap();
    });
    let content = survivor(&disk, Persist::Nothing, "f").unwrap();
    assert_eq!((content[0], content[512]), (1, 0));
}

#[test]
fn a_power_cut_ends_held_syncs() {
    let disk = SimDisk::new(1);
    let file = create(&disk, "f");
    let hold = disk.hold_syncs();
    std::thread::scope(|scope| {
        let sync = scope.spawn(|| file.sync_data());
        hold.wait_for_syncs(1);
        disk.cut_power_now();
        assert_eq!(
            sync.join().unwrap().unwrap_err().kind(),
            ErrorKind::BrokenPipe
        );
    });
}
