//! Whether memory, restart and lookups keep their bounds when there is a lot of data.
//!
//! Every scenario has a directory of its own and runs in phases, each in a process of its own. A
//! scenario checks its answers: a wrong one ends it.

pub mod commit;
pub mod consumers;
pub mod context;
pub mod dedup;
pub mod filtered;
pub mod load;
pub mod num_pending;
pub mod overwrite;
pub mod raw;
pub mod reopen;
pub mod sizes;
pub mod sparse;
pub mod streams;
pub mod subjects;

use crate::error::BenchResult;
use crate::measure::child::Ending;
use context::Context;

/// One process of a scenario.
pub struct Phase {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does.
    pub run: fn(&Context) -> BenchResult<()>,
    /// How it ends.
    pub ending: Ending,
}

impl Phase {
    const fn new(name: &'static str, run: fn(&Context) -> BenchResult<()>) -> Phase {
        Phase {
            name,
            run,
            ending: Ending::Exit,
        }
    }

    const fn killed(name: &'static str, run: fn(&Context) -> BenchResult<()>) -> Phase {
        Phase {
            name,
            run,
            ending: Ending::Killed,
        }
    }
}

/// A directory's life.
pub struct Scenario {
    /// Its name on the command line and in the table.
    pub name: &'static str,
    /// What happens in it, one after the other.
    pub phases: &'static [Phase],
}

/// All scenarios, in the order of the table.
pub const SCENARIOS: &[Scenario] = &[
    subjects::SCENARIO,
    commit::SCENARIO,
    filtered::SCENARIO,
    reopen::SCENARIO,
    overwrite::SCENARIO,
    sparse::SCENARIO,
    dedup::SCENARIO,
    consumers::SCENARIO,
    streams::SCENARIO,
];
