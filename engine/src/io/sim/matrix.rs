//! Cuts the power at every change of a script and tries many outcomes each time.

use std::fmt;
use std::thread;

use super::{Op, Persist, SimDisk, SimRng};

/// An exhaustive crash test; the [module](super) shows one.
///
/// For N = 0, 1, 2, ... the script runs on a fresh disk that loses power after N changes, until it
/// runs to its end; there the power is cut too. After each run, every outcome of the cut is checked:
/// the [fixed](Persist::FIXED) ones and some random ones.
///
/// The check may itself run a `CrashMatrix` that [starts from](CrashMatrix::starting_from) the
/// survivor, to crash the recovery.
#[derive(Clone)]
pub struct CrashMatrix {
    seed: u64,
    start: SimDisk,
    random_outcomes: u64,
    stride: u64,
    points_max: u64,
}

/// Where the power was cut, and what survived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CrashPoint {
    /// Changes of the disk before the cut.
    pub changes: u64,
    /// What survived of the unsynced ones.
    pub persist: Persist,
}

impl fmt::Display for CrashPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "power cut after {} changes, {}",
            self.changes, self.persist
        )
    }
}

/// What a passed crash test covered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CrashReport {
    /// Places at which the power was cut.
    pub points: u64,
    /// Outcomes that were checked.
    pub outcomes: u64,
}

/// Why a crash test did not pass.
#[derive(Debug)]
pub enum CrashFailure<E> {
    /// A check failed.
    Check {
        /// Where.
        point: CrashPoint,
        /// What the check said.
        error: E,
        /// The last operations before the cut, oldest first.
        log: Vec<Op>,
    },
    /// The script made more changes than [`CrashMatrix::points_max`] allows.
    TooLong {
        /// The limit.
        points_max: u64,
    },
}

/// Operations that a failure shows.
const LOG_OPS_SHOWN: usize = 40;

impl<E: fmt::Display> fmt::Display for CrashFailure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Check { point, error, log } => {
                writeln!(f, "{point}: {error}; operations before it:")?;
                log.iter().try_for_each(|op| writeln!(f, "{op}"))
            }
            Self::TooLong { points_max } => {
                write!(f, "the script makes more than {points_max} changes")
            }
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for CrashFailure<E> {}

impl CrashMatrix {
    /// A test on an empty disk with 4 random outcomes per crash point.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            start: SimDisk::new(seed),
            random_outcomes: 4,
            stride: 1,
            points_max: 100_000,
        }
    }

    /// Each run starts from a copy of this disk, with its caches and capacity and without its
    /// faults, instead of an empty one.
    pub fn starting_from(mut self, disk: &SimDisk) -> Self {
        self.start = disk.fork();
        self
    }

    /// Checks this many random outcomes per crash point besides the fixed ones.
    pub fn random_outcomes(mut self, count: u64) -> Self {
        self.random_outcomes = count;
        self
    }

    /// Cuts the power only after every `stride`-th change (at least 1), and at the end: for scripts
    /// that are too long for every change.
    pub fn stride(mut self, stride: u64) -> Self {
        self.stride = stride.max(1);
        self
    }

    /// Gives up after this many crash points, so that a script that never ends is a failure.
    pub fn points_max(mut self, points_max: u64) -> Self {
        self.points_max = points_max;
        self
    }

    /// Runs the test. `script` works on the disk until it is done or an error tells it that the
    /// power is off, and returns what was acknowledged; threads it started must be gone by then.
    /// `check` gets each survivor. A check may also panic; where it was is then on standard error.
    ///
    /// # Errors
    ///
    /// The first failed check, or a script that is too long.
    pub fn run<T, E>(
        &self,
        mut script: impl FnMut(&SimDisk) -> T,
        mut check: impl FnMut(SimDisk, &T, CrashPoint) -> Result<(), E>,
    ) -> Result<CrashReport, CrashFailure<E>> {
        let mut report = CrashReport {
            points: 0,
            outcomes: 0,
        };
        let mut rng = SimRng::new(self.seed);
        loop {
            if report.points == self.points_max {
                return Err(CrashFailure::TooLong {
                    points_max: self.points_max,
                });
            }
            let disk = self.start.fork();
            disk.cut_power_after(report.points.saturating_mul(self.stride));
            let acked = script(&disk);
            let is_complete = disk.is_powered();
            let random = (0..self.random_outcomes).map(|_| Persist::Random {
                seed: rng.next_u64(),
            });
            let outcomes: Vec<Persist> = Persist::FIXED.into_iter().chain(random).collect();
            for persist in outcomes {
                let point = CrashPoint {
                    changes: disk.changes(),
                    persist,
                };
                let _on_panic = TellOnPanic { disk: &disk, point };
                check(disk.crash(persist), &acked, point).map_err(|error| CrashFailure::Check {
                    point,
                    error,
                    log: last_ops(&disk),
                })?;
                report.outcomes += 1;
            }
            report.points += 1;
            if is_complete {
                return Ok(report);
            }
        }
    }
}

pub(super) fn last_ops(disk: &SimDisk) -> Vec<Op> {
    let mut log = disk.log();
    log.drain(..log.len().saturating_sub(LOG_OPS_SHOWN));
    log
}

/// A panicking check loses the crash point, without which it cannot be repeated.
struct TellOnPanic<'a> {
    disk: &'a SimDisk,
    point: CrashPoint,
}

impl Drop for TellOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}; operations before it:", self.point);
            for op in last_ops(self.disk) {
                eprintln!("{op}");
            }
        }
    }
}
