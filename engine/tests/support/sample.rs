//! A store with sealed files, deletes, a consumer and a log, whose files tests damage.

use std::collections::BTreeMap;
use std::path::Path;

use riverlog_engine::io::sim::{SimClock, SimDisk};

use super::model::ModelStream;
use super::{Action, Pair, config, env};

pub const START_NS: i64 = 1_700_000_000_000_000_000;

/// A store on a disk, and what is in it.
pub struct Sample {
    pub disk: SimDisk,
    /// States the stream went through, the newest last.
    pub states: Vec<ModelStream>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    Close,
    Kill,
}

/// Two sealed files with several blocks each, message ids, deletes, a consumer, and operations that only the log
/// has, unless the store was closed.
pub fn sample(kind: u8, end: End) -> Sample {
    let disk = SimDisk::new(1);
    let env = env(&disk, &SimClock::new(START_NS), 1, kind);
    let Ok(mut pair) = Pair::create(&env, config(kind)) else {
        panic!("no fault was injected")
    };
    let append = |subject, len| Action::Append {
        subject,
        len,
        id: (len == 9_000).then_some(subject),
    };
    let mut script: Vec<Action> = (0..6).map(|n| append(n, 9_000)).collect();
    script.extend([Action::Delete(2), Action::Deliver(2), Action::Ack(0)]);
    script.push(Action::Checkpoint);
    script.extend((0..5).map(|n| append(n, 7_000)));
    script.extend([Action::PurgeSubject(3), Action::Ack(0), Action::Checkpoint]);
    script.extend([append(1, 300), Action::Commit, append(2, 40)]);
    script.extend([Action::Delete(0), Action::Commit]);
    for action in script {
        if let Err(halt) = pair.act(&action) {
            panic!("{action:?}: {halt:?}");
        }
    }
    let states = std::mem::take(&mut pair.history);
    if end == End::Kill {
        disk.cut_power_now();
    }
    drop(pair);
    Sample {
        disk: disk.kill_process(),
        states: states.into_iter().map(|(_, model)| model).collect(),
    }
}

impl Sample {
    pub fn newest(&self) -> &ModelStream {
        self.states.last().expect("a stream has a first state")
    }

    /// Files of a store directory whose path contains `part`, with their content.
    pub fn files(&self, part: &str) -> Vec<(String, Vec<u8>)> {
        content(&self.disk)
            .into_iter()
            .filter(|(path, _)| path.contains(part))
            .collect()
    }
}

/// Every file but the lock, with its content.
pub fn content(disk: &SimDisk) -> BTreeMap<String, Vec<u8>> {
    disk.files()
        .into_iter()
        .filter(|(path, _)| !path.ends_with("LOCK"))
        .map(|(path, _)| {
            let bytes = disk.read_file(&path).expect("a listed file");
            (path, bytes)
        })
        .collect()
}

/// Bytes worth flipping: all that differ from their neighbours' zeros, thinned out by the stride,
/// and some of the zeros.
pub fn places(bytes: &[u8]) -> Vec<u64> {
    let stride = std::env::var("RIVERLOG_DAMAGE_STRIDE")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(97);
    let written = (0..bytes.len()).filter(|at| {
        let near = at.saturating_sub(16)..(at + 16).min(bytes.len());
        bytes[near].iter().any(|byte| *byte != 0)
    });
    let thinned = written.enumerate();
    let mut places: Vec<u64> = thinned
        .filter(|(n, _)| n % stride == 0)
        .map(|(_, at)| at as u64)
        .collect();
    places.extend((0..bytes.len() as u64).step_by(9_973));
    places
}

/// A copy of the disk without the files whose path contains `part`.
pub fn without(disk: &SimDisk, part: &str) -> SimDisk {
    use riverlog_engine::io::Io;
    let disk = disk.fork();
    for (path, _) in disk.files() {
        if path.contains(part) {
            disk.remove(Path::new(&path)).expect("a file");
        }
    }
    disk
}
