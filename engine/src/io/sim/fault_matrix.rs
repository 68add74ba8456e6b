//! Lets every operation of a script go wrong, one at a time.

use std::fmt;
use std::thread;

use super::matrix::last_ops;
use super::{Fault, Op, Persist, SimDisk, Trigger};

/// A test with every fault at every operation it can hit.
///
/// For each fault and N = 0, 1, 2, ... the script runs on a fresh disk on which the N-th operation
/// that the fault can hit goes wrong, until the script has fewer such operations. Each run is then
/// checked after every [`Restart`].
///
/// ```
/// use riverlog_engine::io::sim::{Fault, FaultMatrix, SimDisk};
/// use riverlog_engine::io::{Io, IoFile, OpenMode};
/// use std::path::Path;
///
/// /// True if the content was acknowledged.
/// fn write(disk: &SimDisk) -> bool {
///     let write = || -> std::io::Result<()> {
///         let file = disk.open(Path::new("f"), OpenMode::CreateNew)?;
///         file.write_at(b"content", 0)?;
///         file.sync_data()?;
///         disk.sync_dir(Path::new(""))
///     };
///     write().is_ok()
/// }
///
/// let faults = [Fault::NameError, Fault::WriteError, Fault::NoSpace, Fault::SyncError];
/// let runs = FaultMatrix::new(1).run(&faults, write, |restarted, acked, _point| {
///     let found = restarted.read_file("f").unwrap_or_default();
///     if !acked || found == b"content" { Ok(()) } else { Err("acknowledged content is gone") }
/// });
/// // One creation, one write, both of which need space, and two syncs; each fault also has one run
/// // in which it finds no more operation to hit.
/// assert_eq!(runs.unwrap_or_else(|failure| panic!("{failure}")), 1 + 1 + 2 + 2 + 4);
/// ```
#[derive(Clone)]
pub struct FaultMatrix {
    start: SimDisk,
    path_part: String,
    runs_max: u64,
}

/// How the machine comes back after a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Restart {
    /// The process died; caches survive.
    Kill,
    /// The power was cut.
    PowerCut(Persist),
}

impl Restart {
    /// The restarts that each run is checked after.
    pub const ALL: [Self; 3] = [
        Self::Kill,
        Self::PowerCut(Persist::Nothing),
        Self::PowerCut(Persist::Everything),
    ];
}

/// What went wrong, where, and how the machine came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultPoint {
    /// What went wrong.
    pub fault: Fault,
    /// How many operations that the fault can hit went well before.
    pub after: u64,
    /// How the machine came back.
    pub restart: Restart,
}

impl fmt::Display for FaultPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} after {} operations it can hit, then ",
            self.fault, self.after
        )?;
        match self.restart {
            Restart::Kill => f.write_str("a kill"),
            Restart::PowerCut(persist) => write!(f, "a power cut: {persist}"),
        }
    }
}

/// Why a fault test did not pass.
#[derive(Debug)]
pub enum FaultFailure<E> {
    /// A check failed.
    Check {
        /// Where.
        point: FaultPoint,
        /// What the check said.
        error: E,
        /// The last operations of the run, oldest first.
        log: Vec<Op>,
    },
    /// The script has more operations than [`FaultMatrix::runs_max`] allows runs.
    TooLong {
        /// The limit.
        runs_max: u64,
    },
}

impl<E: fmt::Display> fmt::Display for FaultFailure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Check { point, error, log } => {
                writeln!(f, "{point}: {error}; operations of the run:")?;
                log.iter().try_for_each(|op| writeln!(f, "{op}"))
            }
            Self::TooLong { runs_max } => write!(f, "the script needs more than {runs_max} runs"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for FaultFailure<E> {}

impl FaultMatrix {
    /// A test on an empty disk. The seed decides details, such as how much of a failed write
    /// happened.
    pub fn new(seed: u64) -> Self {
        Self {
            start: SimDisk::new(seed),
            path_part: String::new(),
            runs_max: 100_000,
        }
    }

    /// Each run starts from a copy of this disk, with its caches and capacity and without its
    /// faults, instead of an empty one.
    pub fn starting_from(mut self, disk: &SimDisk) -> Self {
        self.start = disk.fork();
        self
    }

    /// Only operations on paths that contain `path_part` go wrong.
    pub fn on_paths(mut self, path_part: &str) -> Self {
        self.path_part = path_part.to_owned();
        self
    }

    /// Gives up after this many runs in all.
    pub fn runs_max(mut self, runs_max: u64) -> Self {
        self.runs_max = runs_max;
        self
    }

    /// Runs the test; returns the number of runs. `script` works on the disk and returns what was
    /// acknowledged; threads it started must be gone by then. `check` gets the disk after each
    /// restart, without faults. A check may also panic; where it was is then on standard error.
    ///
    /// # Errors
    ///
    /// The first failed check, or a script that is too long.
    pub fn run<T, E>(
        &self,
        faults: &[Fault],
        mut script: impl FnMut(&SimDisk) -> T,
        mut check: impl FnMut(SimDisk, &T, FaultPoint) -> Result<(), E>,
    ) -> Result<u64, FaultFailure<E>> {
        let mut runs = 0;
        for fault in faults.iter().copied() {
            for after in 0.. {
                if runs == self.runs_max {
                    return Err(FaultFailure::TooLong {
                        runs_max: self.runs_max,
                    });
                }
                runs += 1;
                let disk = self.start.fork();
                disk.inject_on(&self.path_part, fault, Trigger::After(after));
                let acked = script(&disk);
                for restart in Restart::ALL {
                    let point = FaultPoint {
                        fault,
                        after,
                        restart,
                    };
                    let _on_panic = TellOnPanic { disk: &disk, point };
                    let restarted = match restart {
                        Restart::Kill => disk.kill_process(),
                        Restart::PowerCut(persist) => disk.crash(persist),
                    };
                    check(restarted, &acked, point).map_err(|error| FaultFailure::Check {
                        point,
                        error,
                        log: last_ops(&disk),
                    })?;
                }
                if disk.faults() == 0 {
                    break;
                }
            }
        }
        Ok(runs)
    }
}

/// A panicking check loses the fault point, without which it cannot be repeated.
struct TellOnPanic<'a> {
    disk: &'a SimDisk,
    point: FaultPoint,
}

impl Drop for TellOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}; operations of the run:", self.point);
            for op in last_ops(self.disk) {
                eprintln!("{op}");
            }
        }
    }
}
