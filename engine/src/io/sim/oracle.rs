//! What must hold for the operations that a disk was asked to do.

use std::collections::BTreeSet;

use super::ops::{Op, OpKind};

/// I5: the first write to a file of one of `dirs` after the file was synced as complete, if any. A file
/// is complete with its first successful sync, and starts anew when it is created.
pub fn changed_after_sync<'o>(ops: &'o [Op], dirs: &[&str]) -> Option<&'o Op> {
    let mut complete: BTreeSet<&str> = BTreeSet::new();
    for op in ops {
        let path = &*op.path;
        if !dirs.iter().any(|dir| path.contains(dir)) {
            continue;
        }
        match op.kind {
            OpKind::Sync if op.error.is_none() => {
                complete.insert(path);
            }
            OpKind::Create | OpKind::Remove => {
                complete.remove(path);
            }
            OpKind::Write | OpKind::SetLen | OpKind::Allocate if complete.contains(path) => {
                return Some(op);
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::SimDisk;
    use super::*;
    use crate::io::sim::SimClock;
    use crate::io::{Env, OpenMode};

    #[test]
    fn a_write_behind_the_sync_is_found() {
        let disk = SimDisk::new(1);
        let env = Env::simulated(&disk, &SimClock::new(1), 1);
        let path = Path::new("/data/seg/1.seg");
        env.io.create_dir_all(Path::new("/data/seg")).expect("made");
        let file = env.io.open(path, OpenMode::CreateNew).expect("created");
        file.write_at(b"one", 0).expect("written");
        file.write_at(b"two", 3).expect("written");
        file.sync_data().expect("synced");
        assert_eq!(changed_after_sync(&disk.log(), &["/seg/"]), None);
        file.write_at(b"late", 0).expect("written");
        let log = disk.log();
        let found = changed_after_sync(&log, &["/seg/"]).expect("a violation");
        assert_eq!((found.kind, found.len), (OpKind::Write, 4));
        assert_eq!(changed_after_sync(&log, &["/idx/"]), None);
    }
}
